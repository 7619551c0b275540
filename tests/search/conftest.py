"""Ray, and the trunk and teachers of the small study that whole searches start from."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from search.study import build_foundation, run_here
from tests.helpers.studies import tiny


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Lets the tests of a module share the Ray that the first of them starts."""
    ray.shutdown()
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where trunk and teachers of `tiny` lie, made once for all searches."""
    folder = tmp_path_factory.mktemp("cache")
    config = tiny(folder, cache=str(folder))
    build_foundation(config, run_here, lambda line: None)
    return folder
