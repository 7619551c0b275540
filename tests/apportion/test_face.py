"""The public face: what `import apportion` gives, and that it takes no time."""

import ast
import importlib.metadata
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import apportion
from apportion.precedence import OWN, ROOT, take_precedence

FACE = Path(apportion.__file__)


@pytest.mark.parametrize("name", apportion.__all__)
def test_every_name_is_there_and_explained(name: str) -> None:
    found = getattr(apportion, name)
    assert name in dir(apportion)
    if inspect.isclass(found) or inspect.isfunction(found):
        assert len(inspect.getdoc(found) or "") > 30


def test_functions_take_what_the_command_line_takes() -> None:
    for name in ("calibrate", "compare", "train", "export"):
        wanted = inspect.signature(getattr(apportion, name)).parameters
        assert wanted["say"].default is print
    assert inspect.signature(apportion.train).parameters["seeds"].default == 1


def test_type_checkers_see_what_is_loaded() -> None:
    """The imports under TYPE_CHECKING and the table that names are loaded by say the same."""
    tree = ast.parse(FACE.read_text())
    (checked,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {
        (node.module, alias.name)
        for node in checked.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == {(home, name) for home, names in apportion._HOMES.items() for name in names}
    assert {name for _, name in seen} | {"__version__"} == set(apportion.__all__)


def test_nothing_is_loaded_before_it_is_used() -> None:
    code = (
        "import sys, apportion; apportion.__version__; apportion.load_config\n"
        "print(*{'ray', 'mlflow'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""


@pytest.mark.parametrize(
    ("module", "spared"),
    [
        ("search.arms.pool", {"ray.tune", "pandas", "mlflow"}),
        ("search.commands.search", {"mlflow"}),
    ],
)
def test_processes_of_a_search_load_what_they_need(module: str, spared: set[str]) -> None:
    code = f"import sys, {module}\nprint(*{spared} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""


def test_the_version() -> None:
    assert apportion.__version__ == importlib.metadata.version("apportion")


def test_an_unknown_name() -> None:
    with pytest.raises(AttributeError, match="'apportion' has no attribute 'serach'"):
        _ = apportion.serach  # type: ignore[attr-defined]


def test_precedence_is_taken_once() -> None:
    before = list(sys.meta_path)
    take_precedence()
    assert sys.meta_path == before
    assert set(OWN) | {"apportion"} == {path.parent.name for path in ROOT.glob("*/py.typed")}


@pytest.mark.parametrize("name", OWN)
def test_another_module_that_was_imported_before_is_named(name: str, tmp_path: Path) -> None:
    other = tmp_path / f"{name}.py"
    other.touch()
    code = (
        f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]; import {name}, apportion"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"ImportError: Apportion's own package {name} ({ROOT / name}")
    assert f"{other}, has been imported already" in last
