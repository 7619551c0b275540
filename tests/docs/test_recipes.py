"""The recipes of CONTRIBUTING.md, followed in a copy of the project: written, registered, tried."""

import csv
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers import ROOT
from tests.helpers.documents import Block, blocks, commands

PAGE = "CONTRIBUTING.md"
PACKAGES = ("apportion", "partitioning", "trainers", "search", "configs", "tests")
#: A search of minutes becomes one of seconds.
REDUCED = ("trunk.sgd.steps=20", "teachers.sgd.steps=12", "proxy.images=64", "proxy.sgd.steps=12")


def follow(block: Block, project: Path) -> None:
    """Write the file that a block names, or edit it where it is there.

    In an edit, imports go to the others. The first line is one that the file has, below which the
    lines after it go; after `...`, which stands for what is there, the same begins again.
    """
    name, *lines = block.text.rstrip("\n").split("\n")
    path = project / name.removeprefix("# ")
    if not path.exists():
        path.write_text("\n".join(lines) + "\n")
        return
    file = path.read_text().split("\n")
    imports = next(i for i, line in enumerate(file) if line.startswith("from "))
    place = None
    for line in lines:
        if line.startswith("from "):
            file.insert(imports, line)
        elif line.strip() == "...":
            place = None
        elif place is not None:
            file.insert(place, line)
            place += 1
        elif line:
            assert file.count(line) == 1, f"{block}: {line!r} is not one line of {path}"
            place = file.index(line) + 1
    path.write_text("\n".join(file))


def write_table(folder: Path) -> None:
    """A dataset for the recipe's source: dark and bright images."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split, count in (("train", 64), ("validation", 16), ("test", 16)):
        with (folder / f"{split}.csv").open("w") as file:
            writer = csv.writer(file)
            writer.writerow(["image", "label"])
            for number in range(count):
                label = ("dark", "bright")[number % 2]
                pixels = rng.integers(0, 100, (16, 16, 3)) + 120 * (label == "bright")
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{split}{number}.png")
                writer.writerow([f"{split}{number}.png", label])


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project in which all recipes have been followed."""
    folder = tmp_path_factory.mktemp("project")
    for package in PACKAGES:
        shutil.copytree(
            ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    shutil.copy(ROOT / "pyproject.toml", folder)
    for block in blocks(PAGE, "python"):
        follow(block, folder)
    write_table(folder / "data/parts")
    return folder


TRIALS = [
    # Searches start Ray, each in a process of its own.
    pytest.param(words, marks=[pytest.mark.slow] if words[0] == "apportion" else [])
    for block in blocks(PAGE, "sh")
    for words in commands(block)
    if words[0] in ("apportion", "python")
]


@pytest.mark.parametrize("words", TRIALS, ids=lambda words: words[4].split("=")[-1])
def test_what_a_recipe_tries(words: list[str], project: Path) -> None:
    program, *arguments = words
    if program == "apportion":
        arguments = ["-m", "apportion", *arguments]
        if "configs/quickstart.yaml" in arguments:
            arguments += [word for setting in REDUCED for word in ("--set", setting)]
    environment = os.environ | {"PYTHONPATH": str(project)}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=project, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    if program == "apportion":
        (name,) = re.findall(r"--set name=(\w+)", " ".join(words))
        assert (project / "studies" / name / "front.csv").is_file()
        assert words[1] != "search" or "(0 failed)" in done.stdout
    else:
        assert " passed" in done.stdout


def test_what_was_written_is_clean(project: Path) -> None:
    """As `make lint` would find it; all recipes together."""
    files = [project / block.text.split("\n", 1)[0].removeprefix("# ") for block in python_blocks()]
    ruff = [sys.executable, "-m", "ruff"]
    for command in (["check", "--ignore", "I001"], ["format", "--check"]):
        done = subprocess.run(
            [*ruff, *command, *map(str, files)],
            cwd=project, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr


def python_blocks() -> list[Block]:
    return blocks(PAGE, "python")
