"""Who imports whom: the layers and rooms of docs/architecture.md, read off the source.

python -m tests.test_layers     # prints the graph of packages, an arrow a line
"""

import ast
import sys
from collections import Counter
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = ("partitioning", "trainers", "search", "apportion")
#: The script of `ray submit`, which is not imported: it starts the public face, as a user does.
SCRIPT = "search/run.py"
#: The rooms of `search`, from the ground up: a room imports only those before it.
ROOMS = (
    "stats", "candidates", "strategies", "simulated", "config", "record", "mirror", "report",
    "study", "comparison", "calibration", "arms", "commands", "cli", "run",
)  # fmt: skip
#: Packages without a face: their modules are imported one by one, since each loads much.
OPEN = {"search.commands"}
OWNERS = {
    "ray": {"search/arms/", "search/commands/cluster.py", "search/commands/doctor.py"},
    "mlflow": {"search/mirror/"},
    "optuna": {"search/record/", "search/strategies/optuna_samplers/"},
    "pulp": {"partitioning/programmes.py"},
    "highspy": {"partitioning/programmes.py"},
    "torchjd": {"trainers/methods/surgery.py"},
    "torch_pruning": {"trainers/networks/division.py"},
    "timm": {"trainers/networks/sources.py"},
    "torchvision": {
        "trainers/networks/sources.py",
        "trainers/networks/preprocessing.py",
        "trainers/joint/augmentation.py",
    },
    "transformers": {"trainers/networks/sources.py", "trainers/networks/preprocessing.py"},
    "yaml": {"search/commands/cluster.py", "search/config/", "search/study/"},
}
FILES = {
    str(path.relative_to(ROOT)): ast.parse(path.read_text())
    for layer in LAYERS
    for path in sorted((ROOT / layer).rglob("*.py"))
}
MODULES = {
    name.removesuffix(".py").removesuffix("/__init__").replace("/", "."): name for name in FILES
}


def imported(tree: ast.Module) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Modules that a file imports anywhere in it, each with the names taken from it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, ()) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, "imports are absolute"
            yield node.module, tuple(alias.name for alias in node.names)


def package(module: str) -> str:
    """The package whose face a module's names are had from: `search.record.journal` -> its room."""
    return ".".join(module.split(".")[:2]) if MODULES[module].count("/") > 1 else module


def own_imports(name: str) -> Iterator[str]:
    """Modules of ours that a file imports."""
    for module, names in imported(FILES[name]):
        for found in (f"{module}.{each}" for each in names):
            if found in MODULES:
                yield found
        if module in MODULES:
            yield module


def arrows() -> Counter[tuple[str, str]]:
    """How many imports lead from one package (or single module) to another, or stay inside."""
    found: Counter[tuple[str, str]] = Counter()
    for module, name in MODULES.items():
        found.update((package(module), package(target)) for target in set(own_imports(name)))
    return found


@pytest.mark.parametrize("name", FILES)
def test_imports(name: str) -> None:
    layer = LAYERS.index("apportion" if name == SCRIPT else name.partition("/")[0])
    top = {module.partition(".")[0] for module, _ in imported(FILES[name])}
    assert not top & set(LAYERS[layer + 1 :]), "a package imports only to its left"
    for library, owners in OWNERS.items():
        if not name.startswith(tuple(owners)):
            assert library not in top, f"{library} belongs in {owners}"
    if layer == 0:
        assert "torch" not in top


@pytest.mark.parametrize("module", MODULES)
def test_nothing_reaches_past_a_face(module: str) -> None:
    own = package(module)
    for target in own_imports(MODULES[module]):
        if package(target) not in {own, *OPEN}:
            assert target == package(target), f"{module} reaches past {package(target)}"


def test_rooms_import_only_what_lies_below() -> None:
    for source, target in arrows():
        if source.startswith("search.") and target.startswith("search.") and source != target:
            floors = [ROOMS.index(each.split(".")[1]) for each in (source, target)]
            assert floors[0] > floors[1], f"{source} imports {target}"


def test_no_circles() -> None:
    """Neither among files nor among packages."""
    faces = {module for module, name in MODULES.items() if name.endswith("__init__.py")}
    files = {
        module: {t for t in own_imports(name) if t != module and t not in faces}
        for module, name in MODULES.items()
        if module not in faces
    }
    tuple(TopologicalSorter(files).static_order())
    packages: dict[str, set[str]] = {}
    for source, target in arrows():
        if source not in LAYERS:  # whose faces hand on what their own modules define
            packages.setdefault(source, set()).update({target} - {source})
    tuple(TopologicalSorter(packages).static_order())


@pytest.mark.parametrize(
    "module", [m for m, name in MODULES.items() if name.endswith("__init__.py")]
)
def test_a_face_names_no_module(module: str) -> None:
    """Or `package.name` would be the module or what it exports, by who was imported first."""
    tree = FILES[MODULES[module]]
    assert ast.get_docstring(tree), "a package says what lives there"
    exported = {name for _, names in imported(tree) for name in names}
    children = {m.rpartition(".")[2] for m in MODULES if m.rpartition(".")[0] == module}
    assert not exported & children


def test_no_file_of_search_carries_another_modules_name() -> None:
    import importlib.metadata

    taken = set(sys.stdlib_module_names) | set(importlib.metadata.packages_distributions())
    ours = {path.stem for path in (ROOT / "search").glob("*.py")} - {"__init__"}
    ours |= {path.name for path in (ROOT / "search").iterdir() if path.is_dir()}
    assert not ours & taken


if __name__ == "__main__":
    graph = arrows()
    for (source, target), count in sorted(graph.items()):
        if source != target:
            print(f"{source} -> {target} {count}")
    inside = sum(count for (source, target), count in graph.items() if source == target)
    print(f"{inside} of {graph.total()} imports stay inside a package")
