"""A disk without room: the file is named, and nothing is left half written."""

import re
import resource
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from partitioning import write_json
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
