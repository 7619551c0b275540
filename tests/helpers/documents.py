"""The pages of the documentation, and what stands in them: blocks, links, anchors.

A block is what three backquotes fence; the word after them is its language.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from tests.helpers import ROOT

#: Every page, the README first.
PAGES = tuple(
    str(path.relative_to(ROOT))
    for path in (
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "CHANGELOG.md",
        *sorted((ROOT / "docs").glob("*.md")),
    )
)


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block.

    Attributes:
        page: Where it stands, below the project's folder.
        line: Of its first line of text, from 1.
        language: "" where none is given.
        text: What is between the fences.
    """

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def read(page: str) -> str:
    """The text of a page."""
    return (ROOT / page).read_text()


def blocks(page: str, language: str | None = None) -> list[Block]:
    """The blocks of a page, of one language where it is given."""
    text = read(page)
    found = [
        Block(
            page=page,
            line=text.count("\n", 0, match.start(2)) + 1,
            language=match[1].strip(),
            text=match[2],
        )
        for match in re.finditer(r"^```(.*)\n((?:.*\n)*?)```$", text, flags=re.MULTILINE)
    ]
    return [block for block in found if language in (None, block.language)]


def prose(page: str) -> str:
    """A page without its blocks."""
    return re.sub(r"^```.*\n(?:.*\n)*?```$", "", read(page), flags=re.MULTILINE)


def links(page: str) -> Iterator[tuple[str, str]]:
    """Targets of a page's links and pictures, with their anchors; none that lead elsewhere."""
    text = prose(page)
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'src="([^"]+)"', text)
    for target in targets:
        if not target.startswith(("http://", "https://")):
            path, _, anchor = target.partition("#")
            yield path, anchor


def anchors(page: str) -> set[str]:
    """What headings of a page are linked by, as GitHub makes it of them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(block: Block) -> list[list[str]]:
    """The commands of a shell block, in words, without comments."""
    lines = (shlex.split(line, comments=True) for line in block.text.splitlines())
    return [words for words in lines if words]
