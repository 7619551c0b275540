"""The formats of what outlasts a run, and their versions: the one place that says them.

A version goes up when what was written before would be misread, or what is written from then on
would be misread by the programs before. There is one version of each that is read; any other is
refused.
"""

from dataclasses import dataclass


class FormatError(ValueError):
    """A file of another version than the one that is read; the message says what to do."""


@dataclass(frozen=True, kw_only=True)
class Format:
    """A kind of file, or of record, and the version of it that is written and read.

    Attributes:
        name: What the kind is called in its files.
        version: From 1.
        what: What one of them is, for messages.
        mend: What to do with one of another version, for messages.
    """

    name: str
    version: int
    what: str
    mend: str

    @property
    def header(self) -> dict[str, str | int]:
        """What stands first in a file: its format and version."""
        return {"format": self.name, "version": self.version}

    def check(self, version: object, place: object) -> None:
        """Refuse another version.

        Args:
            version: What was found; None where there is none.
            place: Where it was found, for the message.

        Raises:
            FormatError: It is not the version that is read.

        Example:
            >>> MASKS.check(2, "masks.json")
            >>> MASKS.check(7, "masks.json")  # doctest: +ELLIPSIS
            Traceback (most recent call last):
            partitioning.formats.FormatError: masks.json holds masks of version 7, but this ...
        """
        if type(version) is int and version == self.version:
            return
        found = f"of version {version!r}"
        if version is None:
            found = "made before versions were kept"
        raise FormatError(
            f"{place} holds {self.what} {found}, but this Apportion reads version "
            f"{self.version}: use the Apportion that wrote it, or {self.mend}"
        )


MASKS = Format(name="apportion-masks", version=2, what="masks", mend="make the masks again")
STUDY = Format(
    name="apportion-study",
    version=3,  # since networks of any kind are divided
    what="a study",
    mend="search anew, under another name or in another folder",
)
RECORD = Format(
    name="apportion-record",
    version=2,  # since lines are sealed
    what="a record",
    mend="move it away and search anew",
)
TRAINING = Format(
    name="apportion-training",
    version=3,  # since networks of any kind are divided
    what="a training",
    mend="delete it to train again",
)
EXPORT = Format(
    name="apportion-network",
    version=3,  # since they have files for several runtimes
    what="an exported network",
    mend="export it again",
)
