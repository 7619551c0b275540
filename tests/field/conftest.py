"""A study that was searched once, for tests that copy it and damage the copy."""

from pathlib import Path

import pytest

from tests.helpers.kept_studies import config, searched, write_data


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a project: `data`, and in `studies` the study `t` and the cache."""
    folder = tmp_path_factory.mktemp("project")
    write_data(folder / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        searched(config(folder))
    return folder
