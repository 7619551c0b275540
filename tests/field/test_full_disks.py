"""A disk without room: the file is named, and nothing is left half written."""

import re
import resource
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from partitioning import write_json
from search.commands.report import write_report
from search.config import parse_config
from search.record import Record
from search.study import Study
from tests.helpers.records import make
from tests.helpers.studies import SIMULATED
from trainers.tensor_files import save_arrays


@pytest.mark.parametrize(
    "write",
    [
        lambda path: write_json(path, {"text": "long" * 9000}),
        lambda path: save_arrays({"numbers": np.arange(9000)}, path, {}),
    ],
)
def test_the_file_is_named(write: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "file"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))
    try:
        with pytest.raises(
            OSError,
            match=rf"File too large.*{re.escape(str(path))}|"
            rf"{re.escape(str(path))} cannot be written.*too large",
        ):
            write(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())


def test_a_report_is_whole_or_as_it_was(tmp_path: Path) -> None:
    """front.csv was cut short, and MLflow was blamed."""
    study = Study.create(parse_config(SIMULATED | {"output": str(tmp_path)}))
    with Record(study.record_path, study.name) as record:
        for index in range(20):
            record.add(make("random", index=index))
    before = {path: path.read_bytes() for path in write_report(study)}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_report(study)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {path: path.read_bytes() for path in before} == before
    names = [path.name for path in study.folder.iterdir()]
    assert not [name for name in names if name.startswith((".", "front.csv."))]
