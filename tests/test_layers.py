"""Who imports whom: the layers of docs/architecture.md, read off the source."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = ("partitioning", "trainers", "search")
OWNERS = {
    "ray": {"search/scheduler.py", "search/pool.py", "search/doctor.py"},
    "mlflow": {"search/tracking.py"},
    "optuna": {
        "search/record.py",
        "search/strategies/models.py",
        "search/strategies/populations.py",
        "search/strategies/samplers.py",
    },
    "pulp": {"partitioning/programmes.py"},
    "highspy": {"partitioning/programmes.py"},
    "yaml": {"search/config.py", "search/study.py"},
}


def files() -> Iterator[tuple[str, ast.Module]]:
    for layer in LAYERS:
        for path in sorted((ROOT / layer).rglob("*.py")):
            yield str(path.relative_to(ROOT)), ast.parse(path.read_text())


def imported(tree: ast.Module) -> set[str]:
    """Top-level names of all modules that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.partition(".")[0])
    return names


@pytest.mark.parametrize(("name", "tree"), list(files()), ids=lambda value: str(value)[:60])
def test_imports(name: str, tree: ast.Module) -> None:
    layer = LAYERS.index(name.partition("/")[0])
    found = imported(tree)
    assert not found & set(LAYERS[layer + 1 :]), "a package imports only to its left"
    for package, owners in OWNERS.items():
        if name not in owners:
            assert package not in found, f"{package} belongs in {owners}"
    if layer == 0:
        assert "torch" not in found


def test_no_file_of_search_carries_another_modules_name() -> None:
    import importlib.metadata

    taken = set(sys.stdlib_module_names) | set(importlib.metadata.packages_distributions())
    ours = {path.stem for path in (ROOT / "search").glob("*.py")} - {"__init__"}
    ours |= {path.name for path in (ROOT / "search").iterdir() if path.is_dir()}
    assert not ours & taken
