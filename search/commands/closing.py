"""The end of a search: the front, where everything lies, and what to do next."""

from shlex import quote

from rich.console import Console

from search.candidates import SHARE_ALL
from search.commands.fronts import marks_of, print_front
from search.commands.page import PAGE
from search.study import Study


def print_closing(study: Study, console: Console) -> None:
    """Print a study's front, then its places, then the commands that come next.

    Args:
        study: With scored candidates.
        console: Where to.
    """
    console.print()
    print_front(study, console)
    for title, lines in (("where it lies", places(study)), ("what to do next", next_steps(study))):
        console.print(f"\n{title}:", highlight=False)
        width = max(len(name) for name, _ in lines)
        for name, text in lines:
            line = f"  {name:{width}}  {text}"
            console.print(line, highlight=False, markup=False, soft_wrap=True)


def places(study: Study) -> list[tuple[str, str]]:
    """What there is of a study, and where."""
    page = study.folder / PAGE
    exported = sorted(path for path in (study.folder / "exported").glob("*/"))
    return [
        ("study", str(study.folder)),
        *([("page", str(page))] if page.is_file() else []),
        *[("networks", str(path)) for path in exported],
        ("MLflow", f"apportion ui {quote(str(study.folder))}"),
    ]


def next_steps(study: Study) -> list[tuple[str, str]]:
    """The commands that come next, as they can be typed.

    What is trained is the knee, and beside it what shares every channel, which it is held against.
    """
    candidates, folder = study.candidates(), quote(str(study.folder))
    marks = marks_of(study, candidates)
    pick = "best" if any({"best", "trained"} <= set(own) for own in marks.values()) else "knee"
    shared = any(one.label == SHARE_ALL and not one.failed for one in candidates)
    picks = " ".join([pick, *([SHARE_ALL] if shared else [])])
    return [
        ("train", f"apportion train {folder} --pick {picks} --seeds 3"),
        ("export", f"apportion export {folder} --pick {pick} --out networks"),
        ("look", f"apportion front {folder}"),
    ]
