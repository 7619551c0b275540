"""A user's own files may be called as our packages are, on the driver and on every worker.

Searches run to their end beside such files: one that joins a cluster, and one for which a script of
the user's starts Ray. Other ways to start one differ in the driver alone.
"""

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
import yaml

from search.arms import connect
from tests.helpers import ROOT
from tests.helpers.studies import SIMULATED
from trainers.device import DeviceError

#: What a user has beside their config: a folder cannot hold both kinds of `search`.
OWN_FILES = {
    "modules": ("search.py", "trainers/__init__.py", "partitioning/__init__.py"),
    "packages": ("search/__init__.py", "trainers.py", "partitioning.py"),
}
#: How a search is started, and beside which of them.
WAYS = {"python -m": "packages", "script": "modules"}
SCRIPT = """\
import mine
import apportion

if __name__ == "__main__":
    study = apportion.search(apportion.load_config("s.yaml"))
    print(mine.WORDS, len(study.candidates()))
"""


def user_folder(folder: Path, kind: str) -> Path:
    """A folder with a config, a module of the user's, and some that are called as our packages."""
    for name in OWN_FILES[kind]:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('raise RuntimeError("the user\'s own module was imported")\n')
    (folder / "s.yaml").write_text(yaml.safe_dump(SIMULATED | {"candidates": 3, "initial": 2}))
    (folder / "mine.py").write_text('WORDS = "of my own"\n')
    return folder


def command(way: str, folder: Path) -> list[str]:
    """How a search is started; what is written for it lies in the user's folder."""
    if way == "python -m":
        return [sys.executable, "-m", "apportion", "search", "s.yaml"]
    if way == "script":  # which may itself be called as our package is
        name = "search.py" if (folder / "search.py").exists() else "script.py"
        (folder / name).write_text(SCRIPT)
        return [sys.executable, name]
    if way == "run.py":  # as `ray submit` copies it
        shutil.copy(ROOT / "search" / "run.py", folder)
        return [sys.executable, "run.py", "--config", "s.yaml"]
    if way == "run.py of the project":  # whose own folder has modules of common names
        return [sys.executable, str(ROOT / "search" / "run.py"), "--config", "s.yaml"]
    # As pip writes it; the one that is installed may be another version's.
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    module, _, function = scripts["apportion"].partition(":")
    (folder / "bin").mkdir()
    entry = folder / "bin" / "apportion"
    entry.write_text(f"import sys\nfrom {module} import {function}\nsys.exit({function}())\n")
    return [sys.executable, str(entry), "search", "s.yaml"]


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a cluster that was not started by a search."""
    ray.shutdown()
    ray.init(
        num_cpus=len(WAYS), include_dashboard=False, log_to_driver=False, logging_level="error"
    )
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()


@pytest.mark.slow
def test_searches_run_to_their_end(cluster: str, tmp_path: Path) -> None:
    """Both at once, since most of the time is that of imports."""
    running = {}
    for way, kind in WAYS.items():
        folder = user_folder(tmp_path / way.replace(" ", "_"), kind)
        running[way] = subprocess.Popen(
            command(way, folder),
            cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env=os.environ | ({} if way == "script" else {"RAY_ADDRESS": cluster}),
        )  # fmt: skip
    said = {way: process.communicate(timeout=900)[0] for way, process in running.items()}
    for way, process in running.items():
        assert process.returncode == 0, f"{way}: {said[way]}"
        assert "3 candidates (0 failed)" in said[way]
        assert "missed" not in said[way], "a cluster knows no relative paths"
    assert "of my own 3" in said["script"]


@pytest.mark.parametrize(
    ("way", "kind"),
    [("console script", "modules"), ("run.py", "packages"), ("run.py of the project", "packages")],
)
def test_drivers_beside_own_files(way: str, kind: str, tmp_path: Path) -> None:
    folder = user_folder(tmp_path, kind)
    (folder / "s.yaml").write_text("candidates: none\n")
    done = subprocess.run(
        command(way, folder), cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "s.yaml: none can be misread" in done.stderr


def test_ray_that_was_started_before(
    cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its workers look into the user's folders first, which only matters if something is there."""
    monkeypatch.chdir(tmp_path)
    connect()
    user_folder(tmp_path, "modules")
    with pytest.raises(DeviceError, match=f"import partitioning from {tmp_path}.*ray.init"):
        connect()
