"""The page as one file: data, style and script are put into it."""

import base64
import hashlib
import html
import re
from functools import cache
from importlib.resources import files
from pathlib import Path

from search.report.page.data import page_data, script_json
from search.report.page.shown import Shown


def write_page(shown: Shown, path: Path) -> None:
    """Write a study's page: a file that needs no other, and no network.

    A browser runs its script and no other, and fetches nothing: its policy says so.

    Args:
        shown: The study.
        path: Of the page; written in place.
    """
    data = page_data(shown)
    study = data["study"]
    count = study["candidates"]
    title = (
        f"{shown.name}: {count:,} candidate{'s' * (count != 1)}, "
        f"hypervolume {study['hypervolume']:.4f}"
    )
    style, script = _part("page.css"), _script()
    policy = (
        "default-src 'none'; img-src data: blob:; "
        f"style-src '{_digest(style)}'; script-src '{_digest(script)}'"
    )
    parts = {
        "policy": policy,
        "title": html.escape(title),
        "style": style,
        "data": script_json(data),
        "script": script,
    }
    # In one pass: what is put in is not looked through again.
    text = re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], _part("page.html"))
    path.write_text(text, encoding="utf-8")


@cache
def _part(name: str) -> str:
    return (files("search.report.page") / name).read_text(encoding="utf-8")


def _script() -> str:
    """All parts of the script, by their numbers, as one."""
    parts = sorted(each.name for each in (files("search.report.page") / "script").iterdir())
    return "\n".join(_part(f"script/{name}") for name in parts if name.endswith(".js"))


def _digest(text: str) -> str:
    """As a content security policy names what it allows."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
