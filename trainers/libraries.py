"""Libraries that only some of what can be asked for needs."""

from collections.abc import Iterator
from contextlib import contextmanager


class MissingLibraryError(ValueError):
    """What was asked for needs a library that cannot be loaded."""


@contextmanager
def needed_for(what: str, library: str, extra: str) -> Iterator[None]:
    """Within it a library is imported.

    Args:
        what: That which needs it, in the plural.
        library: Its name.
        extra: Of Apportion, which installs it.

    Raises:
        MissingLibraryError: It cannot be loaded.
    """
    try:
        yield
    except (ImportError, RuntimeError) as error:  # the latter where it is of another torch
        raise MissingLibraryError(
            f"{what} need {library}, which cannot be loaded ({error}): pip install "
            f"'apportion[{extra}]', or leave them out"
        ) from error
