"""The paths of a config: where the shell would go, and absolute where others are told of them."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from search.config.build import BROKEN, ConfigError

#: Where `configs/...` is looked for when it is not below the working folder (a script that `ray
#: submit` copied elsewhere).
PROJECT = Path(__file__).resolve().parents[2]
#: The home folder at the beginning of the path of a URI, or of a path.
HOME = re.compile(r"^((?:sqlite:///|file:(?://)?)?)~(?=/)")
#: A URI of a place below the working folder, or such a path; not databricks, nor an option of it.
RELATIVE = re.compile(r"^(sqlite:///|file:|)(?!databricks|uc\b)([^/:@$~?#][^:@]*)$")


def expand_paths(raw: dict[str, Any], found: list[str]) -> None:
    """Let the paths of a config go where the shell would: `~`, `$HOME` and other variables.

    Args:
        raw: A whole config; its paths are replaced. What is no text is left to others.
        found: Problems are added to it: users and variables that are not there.
    """
    _each(raw, ("output", "cache"), "", found)
    _each(raw, ("data_root",), "", found, below_project=True)
    if isinstance(raw.get("tracking"), Mapping):
        raw["tracking"] = tracking = dict(raw["tracking"])
        if isinstance(uri := tracking.get("uri"), str):
            home = HOME.sub(lambda m: m[1] + os.path.expanduser("~"), uri)
            tracking["uri"] = RELATIVE.sub(lambda m: m[1] + os.path.abspath(m[2]), home)
    if isinstance(raw.get("tasks"), list | tuple):
        tasks = [_copy(task) for task in raw["tasks"]]
        for number, task in enumerate(tasks):
            _each(task, ("path",), f"tasks[{number}].", found)
        raw["tasks"] = tasks
    if isinstance(raw.get("backbone"), Mapping):
        raw["backbone"] = backbone = dict(raw["backbone"])
        _each(backbone, ("weights",), "backbone.", found, below_project=True)
        source, colon, name = str(backbone.get("model")).partition(":")
        if colon and source == "transformers":  # a folder, or a name on the hub
            folder = {"model": name}
            _each(folder, ("model",), "backbone.", found, below_project=True)
            if folder["model"] is BROKEN or Path(folder["model"]).is_dir():
                broken = folder["model"] is BROKEN
                backbone["model"] = BROKEN if broken else f"{source}:{folder['model']}"
    if isinstance(raw.get("trunk"), Mapping):
        raw["trunk"] = trunk = dict(raw["trunk"])
        trunk["dataset"] = _copy(trunk.get("dataset"))
        _each(trunk["dataset"], ("path",), "trunk.dataset.", found)


def shell_path(text: str) -> str:
    """A path with `~`, `~user`, `$NAME` and `${NAME}` as the shell reads them.

    Raises:
        ConfigError: There is no such user or variable, for which the shell would put something
            that nobody means; or it asks for more of the shell, as `${NAME:-x}` and `$(x)` do.

    Example:
        >>> shell_path("data/parts"), shell_path("~/x").endswith("~/x")
        ('data/parts', False)
    """

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name not in os.environ:
            raise ConfigError(f"the variable ${name} is not set; set it, or write the path itself")
        return os.environ[name]

    if re.search(r"`|\$\(|\$\{(?![A-Za-z_]\w*\})", text):
        raise ConfigError(f"only the shell can say what {text} is; write the path itself")
    home = os.path.expanduser(text)
    if home.startswith("~"):
        user = home.partition("/")[0]
        raise ConfigError(
            f"there is no home folder {user}; write the path itself, or ./{user} if the folder is "
            "called so"
        )
    return re.sub(r"\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)\})", value, home)


def _copy(part: Any) -> Any:
    return dict(part) if isinstance(part, Mapping) else part


def _each(
    part: Any, keys: tuple[str, ...], dot: str, found: list[str], *, below_project: bool = False
) -> None:
    for key in keys:
        text = part.get(key) if isinstance(part, Mapping) else None
        if isinstance(text, str):
            try:
                path = shell_path(text)
            except ConfigError as error:
                found.append(f"{dot}{key}: {error}")
                part[key] = BROKEN
            else:
                part[key] = str(_resolve(path)) if below_project else path


def _resolve(path: str) -> Path:
    """Below the working folder, or below the project's where there is none."""
    given = Path(path)
    here = given.resolve()
    return here if here.exists() or given.is_absolute() else (PROJECT / given).resolve()
