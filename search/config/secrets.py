"""Passwords of a tracking URI: named in the config, and put in only where a connection is made."""

import os
import re
from urllib.parse import quote, unquote, urlsplit

VARIABLE = re.compile(r"\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)\})")
SECRET = re.compile(r"pass|pwd|token|secret|apikey|api_key|credential", re.IGNORECASE)


def refuse_password(uri: str) -> None:
    """Refuse a URI that holds a password, as the study keeps its config and shows it to people.

    Raises:
        ValueError: It holds one; the text does not.
    """
    try:
        parts = urlsplit(uri)
        user, password = parts.username, parts.password
    except ValueError:  # such as a bracket in the password
        user, password = None, uri.rpartition("@")[0]
    if password is None and user and parts.scheme in ("http", "https"):
        password = user  # a token, as there is nobody to be asked for a password
    pairs = [pair.partition("=") for pair in re.split("[&;]", unquote(uri.partition("?")[2]))]
    options = [value for key, _, value in pairs if SECRET.search(key)]
    if any(VARIABLE.sub("", found) for found in (password or "", *options)):
        raise ValueError(
            "uri must not hold a password, since the study keeps it: name a variable in its place, "
            "as in postgresql://me:$DB_PASSWORD@host/runs, or set MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD for a server; keep the password out of files"
        )


def reveal(uri: str) -> tuple[str, tuple[str, ...]]:
    """A URI with its variables' values, for the one who connects.

    Args:
        uri: Of a config.

    Returns:
        The URI, and the texts that nobody may be shown.

    Raises:
        ValueError: A variable is not set.

    Example:
        >>> os.environ["DOC_PW"] = "a/b"
        >>> reveal("http://me:$DOC_PW@host")
        ('http://me:a%2Fb@host', ('a/b', 'a%2Fb'))
    """
    hidden: list[str] = []
    end = uri.rfind("@")

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name not in os.environ:
            raise ValueError(f"tracking.uri names ${name}, which is not set; set it")
        raw = os.environ[name]
        put = quote(raw, safe="") if match.start() < end else raw
        hidden.extend({raw: None, put: None})
        return put

    return VARIABLE.sub(value, uri), tuple(text for text in hidden if text)


def masked(text: str, hidden: tuple[str, ...]) -> str:
    """A text in which three stars stand for what nobody may be shown."""
    for secret in sorted(hidden, key=len, reverse=True):
        text = text.replace(secret, "***")
    return text
