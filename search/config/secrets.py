"""Passwords of a tracking URI: named in the config, and put in only where a connection is made."""

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import quote, unquote, urlsplit

VARIABLE = re.compile(r"\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)\})")
_LETTER = r"[^=&#;?%:\s'\"]"
#: Names of options whose values nobody may be shown.
_WORD = "(?:pass|pwd|token|secret|(?:api|access)[ _.-]?key|credential|jwt|bearer)"
_NAME = (
    rf"(?:{_LETTER}*{_WORD}{_LETTER}*"
    rf"|{_LETTER}*(?:auth|authorization|pw)|(?:{_LETTER}*[_.-])?(?:code|sig|signature)|key)"
)
SECRET = re.compile(_NAME, re.IGNORECASE)
#: Signs of a URI as they are, or by their numbers, as in an option that holds others.
_BEFORE, _BEHIND, _EQUALS = (
    rf"(?:[{signs}]|%(?:25)*(?:{numbers}))"
    for signs, numbers in (("?&#;=", "3F|26|23|3B|3D"), ("&#;", "26|23|3B"), ("=", "3D"))
)


def _options(letter: str, begin: str) -> re.Pattern[str]:
    """Options with secrets: all up to the value, and the value."""
    value = rf"\{{[^}}]*\}}?|(?:(?!{_BEHIND}){letter})+"
    return re.compile(rf"((?:{_BEFORE}|{begin})\s*{_NAME}\s*{_EQUALS}\s*)({value})", re.IGNORECASE)


def _users(letter: str, begin: str) -> tuple[re.Pattern[str], ...]:
    """Ways to write user and password: all before them, and both."""
    return tuple(
        re.compile(pattern, re.IGNORECASE)
        for pattern in (
            rf"(://(?!/))({letter}*)@",
            rf"(\b[a-z][\w+.-]*:/+)([^/:@\s'\"]*:{letter}*)@",
            r"(\b(?!(?:sqlite|file):)[a-z][\w+.-]*:/+)([^/@\s'\"]+)@",
            rf"({begin}(?://)?)([^/:@\s'\"]*:(?!/){letter}+)@(?=[\w\[$])",
        )
    )


#: Within a text, where a blank or a quote ends them; and of a value, where neither does.
OPTIONS, ALL_OPTIONS = _options(r"[^\s'\"]", r"(?<=['\"])"), _options(r"[^\n]", r"^[\s'\"]*")
USERS, ALL_USERS = _users(r"[^\s'\"]", r"(?<![^\s'\"=(\[,])"), _users(r"[^\n]", r"^[\s'\"]*")
#: A value that a text quotes, and one of a mapping by its key.
QUOTED = re.compile(r"(?<!\w)(['\"])((?:\\.|(?!\1)[^\n\\])*)\1(?!\w)")
ENTRY = re.compile(rf"((['\"]){_NAME}\2: )(['\"])(?:\\.|(?!\3)[^\n\\])*\3", re.IGNORECASE)


def refuse_password(uri: str) -> None:
    """Refuse a URI that holds a password, as the study keeps its config and shows it to people.

    Raises:
        ValueError: It holds one; the text does not.
    """
    user, _, password = unquote(_before_host(uri)).partition(":")
    if uri.startswith("http") and not password:
        password = user  # a token, as there is nobody to be asked for a password
    options = [found[2] for text in (uri, unquote(uri)) for found in ALL_OPTIONS.finditer(text)]
    if any(VARIABLE.sub("", found) for found in (password, *options)):
        raise ValueError(
            "uri must not hold a password, since the study keeps it: name a variable in its place, "
            "as in postgresql://me:$DB_PASSWORD@host/runs, or set MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD for a server; keep the password out of files"
        )


def _before_host(uri: str) -> str:
    """User and password of a URI, even where a letter of them or a slash too few breaks it."""
    scheme = uri.partition(":")[0]
    is_path = uri.startswith((".", "~")) or re.match("/(?!/)", uri)
    if "@" not in uri or is_path:
        return ""
    with suppress(ValueError):  # such as a bracket in the password
        host = urlsplit(uri).netloc
        if (host and not {"@", ":"} & {*host}) or (not host and scheme in ("file", "sqlite")):
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
    text = ENTRY.sub(r"\1'***'", text)
    text = QUOTED.sub(lambda m: m[1] + _starred(m[2], ALL_USERS, ALL_OPTIONS) + m[1], text)
    return _starred(text, USERS, OPTIONS)


def without_secrets(value: Any) -> Any:
    """A value of a config in which three stars stand for what `without_passwords` hides in a text.

    All of a text is taken for the URI, blanks too, and what a mapping has under the name of a
    secret is hidden, whatever it is.

    Example:
        >>> without_secrets(["http://me: my pw@host", {"password": "pw"}])
        ['http://***@host', {'password': '***'}]
    """
    if isinstance(value, str):
        return _starred(value, ALL_USERS, ALL_OPTIONS)
    if isinstance(value, Mapping):
        return {without_secrets(key): _entry(key, each) for key, each in value.items()}
    return [*map(without_secrets, value)] if isinstance(value, list | tuple) else value


def without_user(value: str) -> str:
    """A text that YAML found behind a colon, where it may be the end of `me: password@host`."""
    return re.sub(r"[^\n]*@", "***@", without_secrets(value))


def _entry(key: Any, value: Any) -> Any:
    if not isinstance(value, str):
        return without_secrets(value)
    return "***" if SECRET.fullmatch(str(key)) else without_user(value)


def _starred(text: str, users: Sequence[re.Pattern[str]], options: re.Pattern[str]) -> str:
    for pattern in users:
        text = pattern.sub(lambda m: m[0] if _is_named(m[2]) else f"{m[1]}***@", text)
    return options.sub(lambda m: m[0] if not VARIABLE.sub("", m[2]) else f"{m[1]}***", text)


def _is_named(both: str) -> bool:
    """Whether a variable stands for the password beside a user."""
    _, _, password = both.partition(":")
    return bool(password) and not VARIABLE.sub("", password)


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
