"""The Python of the docs runs, page by page, and the quickstart prints what the README says."""

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import ray

import apportion
from search.cli import actions, main
from search.config import StudyConfig, load_config
from tests.helpers import ROOT
from tests.helpers.documents import PAGES, Block, blocks

# Ray starts and ends processes of its own in this one.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")

#: The page that has a network of the reader's own.
OWN_NETWORK = "docs/networks.md"

#: A study of minutes becomes one of seconds.
REDUCED = (
    "trunk.sgd.steps=20", "teachers.sgd.steps=12", "proxy.images=64", "proxy.sgd.steps=12",
    "train.sgd.steps=20", "strategies={task_models: {}}",
)  # fmt: skip


@pytest.fixture(scope="module")
def reduced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """Settings of small studies, which share trunk, teachers, features and the Ray of the first."""
    yield [*REDUCED, f"cache={tmp_path_factory.mktemp('cache')}"]
    ray.shutdown()


@pytest.fixture(autouse=True)
def small_studies(reduced: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What the docs load is reduced, whatever else it sets."""

    def load(path: str, overrides: Sequence[str] = ()) -> StudyConfig:
        return load_config(path, [*overrides, *reduced])

    monkeypatch.setattr(apportion, "load_config", load)


def run(page: str) -> None:
    """A page's blocks, one after the other, in one session."""
    names: dict[str, object] = {}
    for block in blocks(page, "python"):
        assert not re.search(r"^(from|import) (search|trainers|partitioning)\b", block.text, re.M)
        exec(compile(block.text, str(block), "exec"), names)


def test_the_readme(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    example = blocks("README.md", "python")[0].text
    assert len([line for line in example.splitlines() if line]) <= 10
    monkeypatch.chdir(tmp_path)
    run("README.md")
    printed = capsys.readouterr().out
    assert re.search(r"\w+-0-\d+ \{'digits': ", printed)
    assert printed.rstrip().endswith("torch.Size([2, 10])")
    assert (tmp_path / "studies/example/front.png").exists()


@pytest.mark.parametrize(
    "page",
    [
        page
        for page in PAGES
        if page not in ("README.md", "CONTRIBUTING.md") and blocks(page, "python")
    ],
)
def test_other_pages(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run(page)
    printed = capsys.readouterr().out
    promised = re.findall(r"print\(.*\)  # (.+)", "".join(b.text for b in blocks(page, "python")))
    assert all(line in printed.splitlines() for line in promised)


def shape(line: str) -> str:
    """A line of output without what differs from one study to the next."""
    line = re.sub(r"\w+-\d+-\d+", "ID", line).replace("--pick knee", "--pick best")
    line = re.sub(r"^(ID|[a-z]+(_[a-z\d]+)*)(\s+[KBTE]+)?((\s+\d\.\d{3}){8})\s*$", r"ID\4", line)
    return re.sub(r"\s+", " ", re.sub(r"[━─]+", "━", re.sub(r"\d+", "#", line))).strip()


@pytest.mark.slow
def test_the_quickstart_prints_what_the_readme_says(
    reduced: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (output,) = blocks("README.md", "text")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(actions, "CONSOLE", actions.OutputConsole(width=100))
    settings = [*reduced, "candidates=3", "initial=3", "finish.pick=task_models-0-0"]
    settings += ["strategies={baselines: {names: [share_all]}, task_models: {}}"]
    arguments = [word for setting in settings for word in ("--set", setting)]
    assert main(["search", "configs/quickstart.yaml", *arguments]) == 0
    printed = {shape(line) for line in capsys.readouterr().out.splitlines()}
    for line in output.text.splitlines():
        if "is the baseline" in line:  # of studies in which it is
            continue
        assert shape(line) in printed, f"{line!r} is not printed, but {sorted(printed)}"


def test_a_network_of_ones_own_can_be_divided(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (block,) = blocks(OWN_NETWORK, "python")
    (tmp_path / "nets.py").write_text(block.text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    assert main(["groups", "nets:build", "--args", "{width: 8}", "--size", "16"]) == 0
    assert "divided: 2 blocks (6 are repeated)" in capsys.readouterr().out


def test_only_tested_pages_have_python() -> None:
    """CONTRIBUTING.md is followed by test_recipes.py, file by file; one file is tried here."""
    for page in PAGES:
        for block in blocks(page, "python"):
            named = re.match(r"# ([\w/]+\.py)\n", block.text)
            assert (page in ("CONTRIBUTING.md", OWN_NETWORK)) == (named is not None), block
    assert isinstance(blocks("README.md")[0], Block)
    assert (ROOT / "notebooks/front.ipynb").is_file()
