"""Commands and configs in the docs are what the command line and the config accept."""

import argparse
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from search.cli.parser import build_parser
from search.config import load_config, parse_config
from tests.helpers import ROOT
from tests.helpers.documents import PAGES, Block, blocks, commands

SHELL = [block for page in PAGES for block in blocks(page, "sh")]
YAML = [block for page in PAGES for block in blocks(page, "yaml")]
#: Commands of other programs, as they may stand in the docs.
OTHERS = {
    ("source", ".venv/bin/activate"),
    ("$EDITOR", "cluster.yaml"),
    ("export", "MLFLOW_TRACKING_URI=sqlite:///studies/quickstart/mlflow.db"),
    (
        "mlflow",
        "models",
        "serve",
        "-m",
        "models:/shop-digits/1",
        "--env-manager",
        "local",
        "--port",
        "5001",
    ),
    (
        "curl",
        "-H",
        "Content-Type: application/json",
        "-d",
        "@images.json",
        "http://127.0.0.1:5001/invocations",
    ),
}


def check_apportion(words: Sequence[str]) -> None:
    """The real parser takes it, and its config loads with what is set."""
    options = build_parser().parse_args(words)
    if words[0] == "cluster":
        assert (ROOT / options.file).is_file()
        return
    if words[0] == "groups":
        if options.network.endswith(".yaml"):
            load_config(options.network, options.set)
        else:
            assert ":" in options.network
        return
    if words[0] in ("predict", "benchmark"):
        assert str(options.export) in ("networks", "studies/quickstart")
        return
    given = [getattr(options, name, None) for name in ("config", "config_option", "study")]
    configs = [path for path in given if str(path).endswith(".yaml")]
    for config in configs:
        load_config(config, registered(getattr(options, "set", [])))
    if not configs:
        assert Path(options.study).parts[0] == "studies"


def registered(overrides: Sequence[str]) -> list[str]:
    """What is set, less what only recipes of CONTRIBUTING.md add; test_recipes.py has that."""
    new = ("halves: {}", "source: table", "=largest")
    return [each for each in overrides if not any(word in each for word in new)]


def check_python(words: Sequence[str]) -> None:
    """A script that is there, with options that it has, or a module or pytest."""
    if words[0] == "-m":
        module = ROOT / (words[1].replace(".", "/") + ".py")
        assert words[1] == "pytest" or module.is_file()
        assert all((ROOT / word).exists() for word in words[2:] if "/" in word)
        return
    script = (ROOT / words[0]).read_text()
    assert all(f'"{word}"' in script for word in words[1:] if word.startswith("-"))
    assert all((ROOT / word).is_file() for word in words[1:] if word.endswith(".yaml"))


def check_make(words: Sequence[str]) -> None:
    (target,) = words
    assert re.search(rf"^{target}:.*##", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)


def check_ray(words: Sequence[str]) -> None:
    """What is done with a cluster's file, above all `ray submit FILE SCRIPT -- ARGUMENTS`; jobs."""
    if words[0] == "job":
        assert words[1] in ("submit", "logs", "status", "stop")
        if "--" in words:
            program, *arguments = words[words.index("--") + 1 :]
            assert program == "apportion"
            check_apportion(arguments)
        return
    action, cluster, *rest = (word for word in words if word not in ("-y", "--tmux"))
    assert yaml.safe_load((ROOT / cluster).read_text())["cluster_name"]
    if action == "submit":
        script, dashes, *arguments = rest
        assert (ROOT / script).is_file()
        assert dashes == "--"
        check_apportion(["search", *arguments])
    elif action == "exec":
        program, *arguments = rest[-1].split()
        assert program == "apportion"
        check_apportion(arguments)
    else:
        assert action in ("up", "down", "attach", "rsync-down", "dashboard")


def check_export(words: Sequence[str]) -> None:
    """The address to which `ray dashboard` forwards."""
    assert list(words) == ["RAY_API_SERVER_ADDRESS=http://127.0.0.1:8265"]


def check_sh(words: Sequence[str]) -> None:
    (script,) = words
    assert (ROOT / script).is_file()


def check_sbatch(words: Sequence[str]) -> None:
    script, *arguments = (word for word in words if not word.startswith("--nodes="))
    assert (ROOT / script).is_file()
    check_apportion(["search", *arguments])


CHECKS: dict[str, Callable[[Sequence[str]], None]] = {
    "apportion": check_apportion,
    "export": check_export,
    "python": check_python,
    "make": check_make,
    "ray": check_ray,
    "sh": check_sh,
    "sbatch": check_sbatch,
}


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_commands(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for words in commands(block):
        if tuple(words) not in OTHERS:
            assert words[0] in CHECKS, f"{block} has a command that no test knows: {words}"
            CHECKS[words[0]](words[1:])


def test_a_wrong_command_is_found() -> None:
    for words in (["serch", "a.yaml"], ["search", "configs/quickstart.yaml", "--sett", "a=1"]):
        with pytest.raises((SystemExit, argparse.ArgumentError)):
            check_apportion(words)


@pytest.mark.parametrize("block", YAML, ids=str)
def test_configs(block: Block) -> None:
    """Together with what it leaves out, taken from the quickstart, it is a study's config."""
    given: dict[str, Any] = yaml.safe_load(block.text)
    base = yaml.safe_load((ROOT / "configs/quickstart.yaml").read_text())
    if "methods" in given:
        base = yaml.safe_load((ROOT / "configs/methods_quick.yaml").read_text())
    if given.get("evaluator") == "simulated":
        del base["finish"]
    elif {"rungs", "proxy"} <= given.keys():
        base["proxy"] = {}
    parse_config(base | given)
