"""Paths of a config made folders named "~" and "$HOME", and relative ones were told as such."""

from pathlib import Path
from typing import Any

import pytest

from search.config import ConfigError, load_config, parse_config
from tests.helpers.studies import SMALL
from trainers.data import check_tasks


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("SCRATCH", str(home / "scratch"))
    monkeypatch.delenv("NOWHERE", raising=False)
    return home


def parsed(**changed: Any) -> Any:
    return parse_config(SMALL | changed)


@pytest.mark.parametrize(
    ("text", "below"),
    [("~", ""), ("~/x", "x"), ("$HOME/x", "x"), ("${HOME}/x", "x"), ("$SCRATCH", "scratch"),
     ("${SCRATCH:-/tmp}", None), ("$(pwd)/x", None), ("~/a/$UNSET5", None),
     ("~nobody1/x", None), ("${NOWHERE}/x", None)],
)  # fmt: skip
@pytest.mark.parametrize("key", ["output", "cache", "data_root", "weights", "task", "dataset"])
def test_paths_go_where_the_shell_would(home: Path, text: str, below: str | None, key: str) -> None:
    changed: dict[str, Any] = {
        "weights": {"backbone": {"weights": text}},
        "task": {"tasks": [{"name": "a", "source": "npz", "path": text}]},
        "dataset": {"trunk": {"dataset": {"name": "a", "source": "npz", "path": text}}},
    }.get(key, {key: text})
    if below is None:
        with pytest.raises(
            ConfigError, match=r"is not set; set it|there is no home folder ~nobody1|only the shell"
        ):
            parsed(**changed)
        return
    config = parsed(**changed)
    found = {
        "weights": lambda: config.backbone.weights,
        "task": lambda: config.tasks[0].path,
        "dataset": lambda: config.trunk.dataset.path,
    }.get(key, lambda: getattr(config, key))()
    assert Path(found) == home / below


def test_set_goes_the_same_way(home: Path) -> None:
    config = load_config("configs/quickstart.yaml", ["output=~/x", "cache=$HOME/y"])
    assert config.folder == home / "x" / "quickstart"
    assert config.cache_folder == home / "y"


@pytest.mark.parametrize("scheme", ["", "sqlite:///", "file://"])
def test_the_store_of_mlflow_goes_the_same_way(home: Path, scheme: str) -> None:
    config = parsed(tracking={"uri": f"{scheme}~/x.db"})
    assert config.tracking.uri == f"{scheme}{home}/x.db"


@pytest.mark.parametrize("scheme", ["", "sqlite:///", "file:"])
def test_a_relative_store_is_the_same_from_another_folder(
    scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`report --sync` from elsewhere made another store there."""
    monkeypatch.chdir(tmp_path)
    config = parsed(tracking={"uri": f"{scheme}runs/x.db"})
    assert config.tracking.uri == f"{scheme}{tmp_path}/runs/x.db"


def test_other_tildes_and_dollars_are_letters(home: Path) -> None:
    assert parsed(output="a/~b/c$").output == "a/~b/c$"
    assert parsed(output="./~").output == "./~"


def test_an_error_names_the_whole_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It said "folder data/parts does not exist", and not below which folder."""
    monkeypatch.chdir(tmp_path)
    config = parsed(tasks=[{"name": "parts", "source": "folder", "path": "data/parts"}])
    with pytest.raises(ValueError, match=rf"folder {tmp_path}/data/parts does not exist"):
        check_tasks(config.data)
