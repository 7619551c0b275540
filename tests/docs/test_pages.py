"""Every link of the docs leads somewhere, and everything a newcomer needs is reached from there."""

import re

import pytest

from search.cli.parser import build_parser
from search.simulated import PROBLEMS
from search.strategies import STRATEGIES
from tests.helpers import ROOT
from tests.helpers.documents import PAGES, anchors, blocks, links, prose, read
from trainers.data.sources import SOURCES


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for path, anchor in links(page):
        target = ((ROOT / page).parent / path).resolve() if path else ROOT / page
        assert target.exists(), f"{page} links to {path}, which is not there"
        if anchor:
            found = anchors(str(target.relative_to(ROOT)))
            assert anchor in found, f"{page} links to {path}#{anchor}; there are {sorted(found)}"


def test_every_page_is_reached_from_the_readme() -> None:
    reached, new = set(), {"README.md"}
    while new:
        page = new.pop()
        reached.add(page)
        for path, _ in links(page):
            target = str(((ROOT / page).parent / path).resolve().relative_to(ROOT))
            if target in PAGES and target not in reached:
                new.add(target)
    assert reached == set(PAGES)


def test_every_command_and_config_is_in_the_readme() -> None:
    readme = read("README.md")
    (commands,) = (action for action in build_parser()._actions if action.choices)
    for command in commands.choices or ():
        assert f"apportion {command}" in readme
    for config in (ROOT / "configs").glob("*.yaml"):
        assert f"`configs/{config.name}`" in readme
    for source in set(SOURCES) - {"toy"}:
        assert f"source: {source}" in readme


def test_every_strategy_and_problem_is_in_its_table() -> None:
    for page, names in (("docs/strategies.md", STRATEGIES), ("docs/comparison.md", PROBLEMS)):
        rows = [line for line in read(page).splitlines() if line.startswith("| `")]
        for name in names:
            assert any(f"`{name}`" in row for row in rows), f"{page} does not list {name}"


def test_every_picture_and_benchmark_is_shown() -> None:
    everything = "".join(read(page) for page in PAGES)
    for path in [*(ROOT / "docs").glob("*.png"), *(ROOT / "benchmarks").glob("*.py")]:
        assert path.name in everything


@pytest.mark.parametrize("page", PAGES)
def test_paths_in_words_are_there(page: str) -> None:
    """`search/record` and the like; the changelog and the log may speak of what is gone."""
    if page in ("CHANGELOG.md", "docs/log.md"):
        return
    folders = {path.name for path in ROOT.iterdir() if path.is_dir()} - {"data", "studies"}
    for path in re.findall(r"`([\w.-]+/[\w/.-]*)`", prose(page)):
        if path.partition("/")[0] not in folders:
            continue
        assert (ROOT / path).exists(), f"{page} names {path}"


def test_the_log_lists_its_entries() -> None:
    listed = {anchor for path, anchor in links("docs/log.md") if not path}
    headings = re.findall(r"^## .+$", prose("docs/log.md"), flags=re.MULTILINE)
    assert len(listed) == len(headings)


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_of_a_language_that_is_tested(page: str) -> None:
    for block in blocks(page):
        assert block.language in ("python", "sh", "yaml", "text"), f"{block}: {block.language!r}"
    assert read(page).count("```") == 2 * len(blocks(page)), "a fence is left open"
