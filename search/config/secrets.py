"""Passwords of a tracking URI: named in the config, and put in only where a connection is made."""

import os
import re
from contextlib import suppress
from urllib.parse import quote, unquote, urlsplit

VARIABLE = re.compile(r"\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)\})")
SECRET = re.compile(
    r"pass|pwd|token|secret|(api|access).?key|auth$|credential|^key$|^sig(nature)?$", re.IGNORECASE
)
#: An option of a URI: what separates it from others, its name, and its value.
OPTION = re.compile(r"([?&#;])([^=&#;\s'\"]+)=([^&#;\s'\"]+)")


def refuse_password(uri: str) -> None:
    """Refuse a URI that holds a password, as the study keeps its config and shows it to people.

    Raises:
        ValueError: It holds one; the text does not.
    """
    user, _, password = unquote(_before_host(uri)).partition(":")
    if uri.startswith("http") and not password:
        password = user  # a token, as there is nobody to be asked for a password
    pairs = [pair.partition("=") for pair in re.split("[?#&;]", unquote(uri))[1:]]
    options = [value for key, _, value in pairs if SECRET.search(key)]
    if any(VARIABLE.sub("", found) for found in (password, *options)):
        raise ValueError(
            "uri must not hold a password, since the study keeps it: name a variable in its place, "
            "as in postgresql://me:$DB_PASSWORD@host/runs, or set MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD for a server; keep the password out of files"
        )


def _before_host(uri: str) -> str:
    """User and password of a URI, even where a letter of them or a slash too few breaks it."""
    scheme = uri.partition(":")[0]
    if "@" not in uri or scheme == "sqlite" or scheme.startswith(("file", "/", ".", "~")):
        return ""
    with suppress(ValueError):  # such as a bracket in the password
        host = urlsplit(uri).netloc
        if host and not {"@", ":"} & {*host}:
            return ""  # the @ is a part of the path or of an option
    return uri.rpartition("@")[0].removeprefix(f"{scheme}://")


def without_passwords(text: str) -> str:
    """A text, such as an error, in which three stars stand for users, passwords and keys of URIs.

    Example:
        >>> without_passwords("got 'http://me:pw@host/x'")
        "got 'http://***@host/x'"
        >>> without_passwords("got 'https://h/?api_key=pw&x=1' and 'me:pw@host:5000'")
        "got 'https://h/?api_key=***&x=1' and '***@host:5000'"
    """
    text = re.sub(r"(?<!sqlite)://[^\s'\"]+@", "://***@", text)
    text = re.sub(r"(?<![^\s'\"])[^\s'\"/:@]+:[^\s'\"/@]+@(?=\w)", "***@", text)
    return OPTION.sub(lambda m: f"{m[1]}{m[2]}=***" if SECRET.search(m[2]) else m[0], text)


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
