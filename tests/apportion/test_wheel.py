"""What is installed is all that is needed: the wheel, in an environment without this project."""

import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
import yaml

from apportion.precedence import OWN
from tests.helpers import ROOT
from tests.helpers.studies import SIMULATED

PACKAGES = ("apportion", *OWN)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that nothing is left in the project; it needs no network."""
    source = tmp_path_factory.mktemp("source")
    for package in PACKAGES:
        shutil.copytree(
            ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    target = source / "wheels"
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-build-isolation", "--no-deps",
         "--wheel-dir", str(target), str(source)],
        check=True,
    )  # fmt: skip
    (built,) = target.glob("apportion-*.whl")
    return built


def test_it_holds_every_file_of_the_packages(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if not name.partition("/")[0].endswith("info")}
    ours = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert held == ours


@pytest.mark.slow
def test_a_search_from_another_folder(wheel: Path, tmp_path: Path) -> None:
    environment, folder = tmp_path / "env", tmp_path / "work"
    venv.create(environment, with_pip=False, symlinks=True)
    (packages,) = environment.glob("lib/python*/site-packages")
    # A .pth file of a .pth file is not read, so this project's own is not among them.
    dependencies = [entry for entry in sys.path if Path(entry).name == "site-packages"]
    (packages / "dependencies.pth").write_text("\n".join(dependencies) + "\n")
    python = environment / "bin" / "python"
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps",
         "--no-index", "--no-warn-script-location", str(wheel)],
        check=True,
    )  # fmt: skip
    folder.mkdir()
    (folder / "s.yaml").write_text(yaml.safe_dump(SIMULATED | {"candidates": 2, "initial": 2}))

    def said(*command: str) -> str:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    where = said(str(python), "-c", "import apportion, search; print(search.__file__)")
    assert Path(where.strip()).parents[1] == packages
    program = str(environment / "bin" / "apportion")
    assert said(program, "--version").startswith("apportion ")
    assert "2 candidates (0 failed)" in said(program, "search", "s.yaml")
    assert (folder / "studies" / "simulated" / "front.png").is_file()
