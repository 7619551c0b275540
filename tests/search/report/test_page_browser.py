"""The study page in a browser: seen, clicked, reached by keyboard, and looked at by axe."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from search.report import write_page
from tests.helpers.pages import EVIL, shown

CHROMIUM = Path("/usr/bin/chromium")
#: axe-core's script; where it is found, the page is looked at with it.
AXE = Path(os.environ.get("AXE_CORE", "/tmp/package/axe.min.js"))

if not CHROMIUM.exists():
    pytest.skip(f"there is no browser at {CHROMIUM}", allow_module_level=True)
api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=str(CHROMIUM))
        yield found
        found.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("page")
    write_page(shown(folder), folder / "front.html")
    return (folder / "front.html").as_uri()


@pytest.fixture
def visit(browser: Any, address: str) -> Iterator[Any]:
    """Opens the page; it fails a test whose page says an error or asks for anything else."""
    contexts, faults = [], []

    def opened(width: int = 1440, theme: str = "light", at: str = "", of: str = address) -> Any:
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=theme, bypass_csp=False,
            accept_downloads=True,
        )  # fmt: skip
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda said: said.type == "error" and faults.append(said.text))
        page.on(
            "request",
            lambda asked: (
                asked.url.startswith(("file:", "data:", "blob:")) or faults.append(asked.url)
            ),
        )
        page.on("dialog", lambda dialog: faults.append("a script of a name ran"))
        page.goto(of + at)
        page.wait_for_selector("svg.front .point")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not faults


def focused(page: Any) -> str:
    return str(page.evaluate("document.activeElement.getAttribute('aria-label') ?? ''"))


def place(page: Any, name: str) -> tuple[float, float]:
    """The middle of a candidate's mark on the screen."""
    point = page.locator(f'.point[aria-label*="{name}:"]')
    point.scroll_into_view_if_needed()
    box = point.locator(".mark").bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def test_hover_click_and_back(visit: Any) -> None:
    page = visit()
    assert page.title().startswith("a <study>: 45 candidates, hypervolume 0.")
    at = place(page, "share_all (baselines-0-0)")
    page.mouse.move(*at)
    tip = page.locator(".tip")
    assert "share_all (baselines-0-0)" in tip.inner_text()
    assert EVIL in tip.inner_text(), "names are text"
    page.mouse.click(*at)
    panel = page.locator("#candidate")
    assert panel.locator("h2").inner_text().strip() == "share_all (baselines-0-0)"
    assert page.url.endswith("#c=baselines-0-0")
    assert "baseline" in panel.locator(".badges").inner_text()
    page.go_back()
    panel.wait_for(state="hidden")
    page.go_forward()
    panel.wait_for(state="visible")


def test_a_candidates_page(visit: Any) -> None:
    page = visit(at="#c=" + "random-0-0")
    panel = page.locator("#candidate")
    text = panel.inner_text()
    for words in (
        "Accuracy by task", "How tasks share channels", "Masks", "Costs by task",
        "Where it came from", "Train and export it", "P realised", "P asked for",
        "single-task teacher", "stage3.0.conv1: 64 hidden channels", "10.0.0.1:7",
        "differ from what was asked by 6 channels",
    ):  # fmt: skip
        assert words in text, words
    panel.locator(".choice").get_by_label("Group").select_option("stage3.1.conv1")
    assert "P realised, stage3.1.conv1" in panel.inner_text()
    panel.get_by_text("Put channels with the same users together").click()
    train = panel.locator(".command code").first.inner_text()
    assert train == (
        "apportion train '/studies/it'\"'\"'s here' --pick random-0-0 --seeds 3"
    )  # as a shell reads it
    panel.get_by_role("button", name=re.compile("Copy: Train")).click()
    assert panel.get_by_role("button", name=re.compile("Copy: Train")).inner_text() == "Copied"


def test_designs_of_several_strategies(visit: Any) -> None:
    text = visit(at="#c=es-0-40").locator("#candidate").inner_text()
    assert "scored as es-0-0" in text
    assert "proposed by es, random" in text


def test_trained_and_exported(visit: Any) -> None:
    page = visit(at="#c=random-0-0")
    trained = page.locator(".point:has(.trained)")
    assert trained.count() == 2
    exported = page.locator(".point:has(.exported)")
    name = exported.get_attribute("aria-label").partition(":")[0]
    page.goto(page.url.partition("#")[0] + "#c=" + name)
    page.wait_for_selector("#candidate h2")
    text = page.locator("#candidate").inner_text()
    assert "Validation accuracy while it trained" in text
    assert "/exports/gone – pt2, onnx" in text
    assert "the folder is there no more" in text


def test_filters_and_axes(visit: Any) -> None:
    page = visit()
    points = page.locator(".point")
    before = points.count()
    page.get_by_label(re.compile(r"^es \(")).uncheck()
    assert 0 < points.count() < before
    assert page.locator('.point[aria-label^="es-"]').count() == 0
    page.get_by_label("1", exact=True).uncheck()
    assert page.locator('.point[aria-label^="random-1"]').count() == 0
    page.get_by_label("Rung reached").select_option("1")
    assert points.count() == page.locator(".point.stopped").count() > 0
    page.get_by_label("Rung reached").select_option("last")
    page.locator(".controls").get_by_label("Cost").select_option("use")
    page.locator(".controls").get_by_label("Quality").select_option("accuracy:digits")
    assert "mean share of channels" in page.locator("svg.front").inner_html()
    assert "validation accuracy of digits" in page.locator("svg.front").inner_html()
    kept = page.url
    page.goto("about:blank")
    page.goto(kept)
    page.wait_for_selector(".point")
    assert page.locator('.point[aria-label^="es-"]').count() == 0, "a link keeps the view"
    assert page.locator(".controls").get_by_label("Quality").input_value() == "accuracy:digits"


def test_the_front_is_that_of_the_axes(visit: Any) -> None:
    page = visit()
    page.locator(".controls").get_by_label("Cost").select_option("use")
    members = page.evaluate(
        """() => {
            const data = JSON.parse(document.getElementById("data").textContent);
            const use = data.costs.findIndex(cost => cost.name === "use");
            const known = data.candidates.filter(c => !c.error && !c.stopped);
            return known.filter(c => !known.some(o => o.quality >= c.quality
                && o.costs[use] <= c.costs[use]
                && (o.quality > c.quality || o.costs[use] < c.costs[use]))).map(c => c.id).sort();
        }"""
    )
    names = page.locator(".point.on").evaluate_all(
        "all => all.map(p => p.getAttribute('aria-label').split(':')[0])"
    )
    shown_ids = sorted(re.sub(r".*\((.*)\)", r"\1", name) for name in names)
    assert shown_ids == members


def test_by_keyboard(visit: Any) -> None:
    page = visit()
    page.locator('.point[tabindex="0"]').focus()
    page.keyboard.press("Home")
    first = focused(page)
    assert "on the front" in first
    page.keyboard.press("ArrowRight")
    second = focused(page)
    assert "on the front" in second
    assert second != first
    page.keyboard.press("ArrowLeft")
    assert focused(page) == first
    page.keyboard.press("ArrowUp")
    assert focused(page) != first
    page.keyboard.press("End")
    last = focused(page)
    stroke = "getComputedStyle(document.activeElement.querySelector('.focus')).stroke"
    assert page.evaluate(stroke) != "none", "focus is seen"
    page.keyboard.press("Enter")
    assert page.locator("#candidate h2").inner_text().strip() in last
    assert page.evaluate("document.activeElement.tagName") == "H2"
    page.keyboard.press("Escape")
    assert page.locator("#candidate").is_hidden()
    assert focused(page) == last, "focus is where it was"


def test_figures_and_tables_are_saved(visit: Any) -> None:
    page = visit()
    starts = {"SVG": b"<svg", "PNG": b"\x89PNG"}
    for kind, start in starts.items():
        with page.expect_download() as saved:
            page.locator("#front figure").get_by_role("button", name=kind).click()
        content = Path(saved.value.path()).read_bytes()
        assert content.startswith(start)
        assert saved.value.suggested_filename == f"a_study_-front.{kind.lower()}"
    with page.expect_download() as saved:
        page.locator("#tasks").get_by_role("button", name="CSV").click()
    lines = Path(saved.value.path()).read_text(encoding="utf-8")
    assert lines.startswith("task,classes,training images")
    assert EVIL.replace('"', '""') in lines


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 768, 1440])
def test_it_fits(visit: Any, width: int, theme: str) -> None:
    page = visit(width, theme)
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(wide) <= 0
    page.goto(page.url.partition("#")[0] + "#c=random-0-0")
    page.wait_for_selector("#candidate h2")
    inside = "(p => p.scrollWidth - p.clientWidth)(document.getElementById('candidate'))"
    assert page.evaluate(inside) <= 0
    assert page.evaluate(wide) <= 0


@pytest.mark.slow
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_axe_finds_nothing_serious(browser: Any, address: str, width: int, theme: str) -> None:
    if not AXE.is_file():
        pytest.skip(f"axe-core is not at {AXE}: `npm pack axe-core`, or name it in AXE_CORE")
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=theme, bypass_csp=True
    )
    page = context.new_page()
    for at in ("", "#c=random-0-0"):
        page.goto("about:blank")
        page.goto(address + at)
        page.wait_for_selector("svg.front .point", state="attached")
        page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
        page.add_script_tag(path=str(AXE))
        found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        serious = [
            (one["id"], [node["html"][:120] for node in one["nodes"]][:3])
            for one in found["violations"]
            if one["impact"] in ("serious", "critical")
        ]
        assert not serious
    context.close()


@pytest.mark.slow
def test_two_thousand_candidates_are_quick(browser: Any, tmp_path: Path) -> None:
    write_page(shown(tmp_path, 2000), tmp_path / "front.html")
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    page.goto((tmp_path / "front.html").as_uri())
    page.wait_for_selector("svg.front .point")
    ready = page.evaluate("performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd")
    change = page.evaluate(
        """() => {
            const select = document.querySelector(".controls select");
            const begun = performance.now();
            select.value = "use";
            select.dispatchEvent(new Event("change"));
            return performance.now() - begun;
        }"""
    )
    print(f"ready after {ready:.0f} ms, axes changed in {change:.0f} ms")
    assert ready < 5000, "a second on a machine with nothing else to do"
    assert change < 1000, "a tenth of a second there"
    page.close()
