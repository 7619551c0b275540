"""Apportion's own packages are found first, whatever a user's own files are called.

`partitioning`, `trainers` and `search` are common names. A `search.py` in the folder that a user
works in, or beside their script, comes before an installed package on Python's path, and Ray puts
both folders on the path of every worker. So the packages that lie beside this one are looked up by
a finder of their own, before Python's path is. All else is imported as ever.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

#: The packages that are installed together with `apportion`.
OWN = ("partitioning", "trainers", "search")
#: The folder that holds them and `apportion`.
ROOT = Path(__file__).resolve().parents[1]


class _BesideApportion(MetaPathFinder):
    """Finds the packages of `OWN` in `ROOT`, and nothing else."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return PathFinder.find_spec(fullname, [str(ROOT)]) if fullname in OWN else None


def take_precedence() -> None:
    """Let the packages beside `apportion` come before others of their names.

    `import apportion` calls it, and so does every worker process that Ray starts for a search, as
    its first act. Calling it again changes nothing.

    Raises:
        ImportError: Another module of one of these names has been imported already.
    """
    for name in OWN:
        module, own = sys.modules.get(name), ROOT / name / "__init__.py"
        place = getattr(module, "__file__", None)
        if module is not None and (place is None or Path(place).resolve() != own):
            raise ImportError(
                f"Apportion's own package {name} ({own}) cannot be used: another module of that "
                f"name, {place or module}, has been imported already. Import apportion before it, "
                "or give that module another name"
            )
    if not any(isinstance(finder, _BesideApportion) for finder in sys.meta_path):
        sys.meta_path.insert(0, _BesideApportion())
