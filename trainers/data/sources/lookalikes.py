"""Names that the eye takes for one another, though they are not the same."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable

from trainers.data.sources.base import some

#: Capitals of other alphabets (Cyrillic, Greek, Cherokee), and small letters, quotes and dashes,
#: that look like those of a keyboard.
CAPITALS = str.maketrans(
    "АВЕКМНОРСТУХІЈЅΑΒΕΖΗΙΚΜΝΟΡΤΥΧᎪᏴᏟᎬᏀᎻᎫᏦᏞᎷᏢᎡᏚᎢᏙᎳᏃ",
    "ABEKMHOPCTYXIJSABEZHIKMNOPTYXABCEGHJKLMPRSTVWZ",
)
TWINS = str.maketrans(
    "аеорсухіјѕвгикмнптαγηικνορτυχıɑɡոսօհց’‘ʼ′`´“”„″‐‒–—−",
    "aeopcyxijsbrukmhntaynikvoptuxiagnuohg''''''\"\"\"\"-----",
)
#: Letters and marks without ink, beside the controls and formats of Unicode.
NO_INK = {"\u034f", "\u115f", "\u1160", "\u2800", *map(chr, range(0xFE00, 0xFE10))}
#: What is one stroke, and what is one ring.
STROKES = str.maketrans("I1|o0", "lllOO")
#: Alphabets of which letters look alike.
ALPHABETS = {"LATIN", "CYRILLIC", "GREEK", "CHEROKEE", "ARMENIAN", "COPTIC", "LISU"}


def likeness(name: str) -> str:
    """What is left of a name when all that the eye may miss is taken away.

    Example:
        >>> likeness("Big  cat "), likeness("ᏟᎪᎢ")
        ('big cat', 'cat')
    """
    text = unicodedata.normalize("NFC", name).translate(TWINS | CAPITALS)
    text = unicodedata.normalize("NFKC", text).translate(CAPITALS).casefold().translate(TWINS)
    seen = [
        letter
        for letter in text
        if letter.isspace() or not (unicodedata.category(letter)[0] == "C" or letter in NO_INK)
    ]
    return " ".join("".join(seen).split())


def doubtful(names: Iterable[str]) -> list[str]:
    """Notes of names that may be one class, or not the letters that they seem to be.

    Those of several letters that differ by 1, I, l and |, or by 0, O and o, only; single letters of
    which one is of another alphabet; and words of letters of several alphabets.

    Args:
        names: of classes, each once; those of several letters differ in `likeness`.

    Example:
        >>> doubtful(["Iris", "lris", "rose"])
        ["the classes 'Iris', 'lris' look alike: are they one?"]
    """
    alike: dict[str, list[str]] = defaultdict(list)
    for name in sorted(set(names)):
        alike[_outline(name)].append(name)
    notes = [
        f"the classes {_shown(each)} look alike: are they one?"
        for each in alike.values()
        if len({name.casefold() for name in each}) > 1
    ]
    if mixed := [name for each in alike.values() for name in each if _is_mixed(name)]:
        notes.append(f"there are letters of several alphabets in a word of {_shown(mixed)}")
    return notes


def _outline(name: str) -> str:
    """How a name looks; of a letter alone, or a digit, it is known which of its like it is."""
    if len(name) == 1:
        return likeness(name) or name
    return unicodedata.normalize("NFC", name).translate(TWINS | CAPITALS).translate(STROKES)


def _is_mixed(name: str) -> bool:
    words = re.findall(r"[^\W\d_]+", name)
    return any(len(ALPHABETS & {_alphabet(letter) for letter in word}) > 1 for word in words)


def _alphabet(letter: str) -> str:
    return unicodedata.name(letter, "").partition(" ")[0]


def _shown(names: Iterable[str]) -> str:
    """Names one after another, letters beyond a keyboard's by their numbers."""
    return some([ascii(name) for name in names])
