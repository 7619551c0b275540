"""YAML as a person reads it: what people and parsers could take for different things is refused.

Only plain decimal numbers, true, false and null are anything but text. What one version of YAML
reads otherwise than another (`010`, `yes`, `1:30`, a date) has to be written so that all agree.
"""

import re
import unicodedata
from codecs import BOM_UTF16_BE, BOM_UTF16_LE, BOM_UTF32_BE, BOM_UTF32_LE
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from search.config.build import BROKEN, FLOAT, INTEGER, ConfigError
from search.config.secrets import without_secrets, without_user

NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
#: Numbers of YAML 1.2, beside those that YAML 1.1 knows.
OTHER_NUMBER = re.compile(r"0o[0-7]+|0x[\da-fA-F]+|[-+]?\d+(\.\d*)?(e[-+]?\d+)?", re.ASCII | re.I)
#: Line ends that editors do not show as such, and marks that reorder what is shown.
DECEPTIVE = re.compile("[\x85\u2028\u2029\u202a-\u202e\u2066-\u2069]")
#: Quotes of word processors, which are letters to YAML.
CURLED = "“”„‟‘’‚‛«»‹›"
#: Behind text: a comment, or what was meant for a part of it, as in `path: run #3`.
CLOSE_COMMENT = re.compile(r"[ \t]+#[^\s#]")
#: More values than any config has; aliases of aliases come to billions.
MOST_VALUES = 100_000
#: The largest whole number: that of 64 bits, as generators and tensors hold them.
LARGEST = 2**63 - 1


def read_yaml_file(file: Path) -> Any:
    """The content of a YAML file, as plain values.

    Args:
        file: In UTF-8, with or without a byte order mark.

    Raises:
        ConfigError: It is of another encoding, not YAML, or can be misread; names file and line,
            and has what is sound where there is something to go on with.
        OSError: It cannot be read.
    """
    return read_yaml(_decoded(file.read_bytes(), file), str(file))


def read_yaml(text: str, where: str) -> Any:
    """YAML as plain values: dicts whose keys are text, lists, text, numbers, true, false and null.

    Args:
        text: One document, or none, which is None.
        where: What messages begin with, such as a file's name.

    Raises:
        ConfigError: It is not YAML, or can be misread; names the line where there are several. What
            can be misread it names all, and has the rest as `sound`, if that is a mapping.

    Example:
        >>> read_yaml("{steps: 1e-3, cache: null, name: a1}", "here")
        {'steps': 0.001, 'cache': None, 'name': 'a1'}
        >>> read_yaml("steps: 010", "here")
        Traceback (most recent call last):
        search.config.build.ConfigError: here: 010 can be misread; write a plain number, ...
    """
    try:
        return _Reader(text, where).read()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        if "expected ':'" in (error.problem or ""):  # it is noticed only at the end of the text
            mark = error.context_mark
        raise _refused(text, where, mark, _explained(error)) from None
    except yaml.reader.ReaderError as error:
        name = f"the character U+{error.character:04X}"
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(
            f"{where}, line {line}: {name} is not allowed in YAML; remove it"
        ) from None
    except RecursionError:
        raise ConfigError(f"{where}: values lie too deep within one another") from None


class _Reader(yaml.SafeLoader):
    """PyYAML's scanner and parser, with scalars and mappings read by the rules of this module."""

    def __init__(self, text: str, where: str) -> None:
        super().__init__(text)
        self._text, self._where, self._count = text, where, 0
        self._found: list[str] = []
        self._whole = True  # but for values that can be misread

    def read(self) -> Any:
        if found := DECEPTIVE.search(self._text):
            line = self._text.count("\n", 0, found.start()) + 1
            raise ConfigError(
                f"{self._where}, line {line}: {_named(found[0])} hides what is written there; "
                "remove it"
            )
        try:
            node = self.get_single_node()
            value = None if node is None else self._value(node, ())
        finally:
            self.dispose()
        if self._found:
            raise ConfigError(*self._found, sound=value if self._whole else None)
        return value

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        tag = getattr(event, "tag", None)
        if tag is not None:
            raise self._refused(event, f"the tag {tag} is not read; write the value without it")
        return super().compose_node(parent, index)

    def _value(self, node: yaml.Node, around: tuple[yaml.Node, ...]) -> Any:
        self._count += 1
        if self._count > MOST_VALUES:
            raise ConfigError(f"{self._where} must hold at most {MOST_VALUES} values")
        if any(node is outer for outer in around):
            raise self._refused(node, "an alias stands within what it stands for")
        around = (*around, node)
        if isinstance(node, yaml.SequenceNode):
            return [self._value(entry, around) for entry in node.value]
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, around)
        assert isinstance(node, yaml.ScalarNode)
        return self._tried(self._scalar, node)

    def _tried(self, read: Callable[[Any], Any], node: yaml.Node) -> Any:
        """What is read of a node; BROKEN, and a problem more, where that is refused."""
        try:
            return read(node)
        except ConfigError as error:
            self._found += error.problems
            return BROKEN

    def _mapping(self, node: yaml.MappingNode, around: tuple[yaml.Node, ...]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            key = self._tried(partial(self._new_key, lines), key_node)
            value = self._value(value_node, around)
            if key is BROKEN:
                self._whole = False
                continue
            if key != "<<":
                found[key] = value
                continue
            for each in reversed(value if isinstance(value, list) else [value]):
                if not isinstance(each, dict):
                    raise self._refused(value_node, "<< must be followed by a mapping")
                merged |= each
        return merged | found

    def _new_key(self, lines: dict[str, int], node: yaml.Node) -> str:
        """A key that is not among those that were read before it, whose lines are known."""
        key = self._key(node)
        if key in lines:
            shown = without_secrets(key)
            raise self._refused(
                node, f"{shown!r} is there already, in line {lines[key]}; remove one"
            )
        lines[key] = node.start_mark.line + 1
        return key

    def _key(self, node: yaml.Node) -> str:
        """A key is what is written there, whatever it would be as a value."""
        if not isinstance(node, yaml.ScalarNode) or not node.value:
            raise self._refused(node, "a key must be text, such as `steps` in `steps: 3`")
        self._check_characters(node)
        if not node.style and (":" in node.value or "\n" in self._raw(node)):
            shown = without_secrets(str(node.value))
            raise self._refused(
                node, f"a space is missing behind ':' in {shown}, or quotes around it"
            )
        if not node.style and node.value[0] in CURLED:
            raise self._refused(node, f"{node.value[0]} is no quote to YAML; write \" or '")
        return str(node.value)

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        self._check_characters(node)
        text = str(node.value)
        if node.style == '"' and any(unicodedata.category(letter) == "Cc" for letter in text):
            raise self._refused(
                node,
                "a backslash in double quotes begins an escape, here of a character that cannot be "
                "seen; use single quotes",
            )
        if node.style:  # in quotes, or a block
            return text
        if text in ("", "null", "Null", "NULL"):
            return None
        if text in ("true", "True", "TRUE", "false", "False", "FALSE"):
            return text.lower() == "true"
        if INTEGER.fullmatch(text) and len(text) < 20 and abs(int(text)) <= LARGEST:
            return int(text)
        if FLOAT.fullmatch(text) and not INTEGER.fullmatch(text):
            return self._float(node, text)
        if NOT_FINITE.fullmatch(text):
            return float(text.lower().replace(".", ""))
        if how := _misread(node, self._raw(node)):
            raise self._refused(node, f"{without_user(text)} can be misread; {how}")
        if CLOSE_COMMENT.match(self._text, node.end_mark.index):
            raise self._refused(
                node,
                f"what stands behind {without_user(text)} can be misread; put the whole in "
                "quotes if '#' belongs to it, or a space behind '#' if it begins a comment",
            )
        return text

    def _float(self, node: yaml.Node, text: str) -> float:
        number, digits = float(text), re.split("[eE]", text)[0]
        if abs(number) == float("inf") or (number == 0 and digits.strip("+-0.")):
            raise self._refused(node, f"{text} is beyond the numbers that a computer holds")
        return number

    def _check_characters(self, node: yaml.Node) -> None:
        """Refuses what nobody sees: other spaces, and characters without width."""
        for character in self._raw(node):
            kind = unicodedata.category(character)
            if kind in ("Cf", "Co", "Cs", "Zs") and character != " ":
                raise self._refused(
                    node,
                    f"{_named(character)} cannot be seen; remove it, or write it as "
                    f'"\\u{ord(character):04x}" in double quotes',
                )

    def _raw(self, node: yaml.Node) -> str:
        """A scalar as it is written, quotes and all."""
        return self._text[node.start_mark.index : node.end_mark.index]

    def _refused(self, place: Any, what: str) -> ConfigError:
        return _refused(self._text, self._where, place.start_mark, what)


def _misread(node: yaml.ScalarNode, raw: str) -> str:
    """How to write a scalar that can be misread; empty for text that everybody reads as text."""
    text, kind = str(node.value), node.tag.rpartition(":")[2]  # the kind by YAML 1.1
    if text == "~":
        return 'write null for nothing, or "~" in quotes for the home folder'
    if text.lower() in ("none", "nil"):
        return "write null for nothing, or put it in quotes if it is text"
    if kind == "bool":
        return "write true, false or null, or put it in quotes if it is text"
    if INTEGER.fullmatch(text):
        return f"no whole number goes beyond {LARGEST}"
    if kind != "str" or OTHER_NUMBER.fullmatch(text):
        return "write a plain number, such as 10, 0.5 or 1e-3, or put it in quotes if it is text"
    if text[0] in CURLED:
        return f"{text[0]} is no quote to YAML; write \" or '"
    if re.search(r"\n\s*[-?]", raw):
        return "a line of it begins with '-'; put a space behind that, or the whole in quotes"
    return ""


def _named(character: str) -> str:
    name = unicodedata.name(character, "").lower()
    return f"the character U+{ord(character):04X}" + (f" ({name})" if name else "")


def _refused(text: str, where: str, mark: Any, what: str) -> ConfigError:
    if mark is not None and "\n" in text.strip():
        where = f"{where}, line {mark.line + 1}"
    return ConfigError(f"{where}: {what}")


def _explained(error: yaml.MarkedYAMLError) -> str:
    """What is wrong by YAML's grammar, without the line itself, which may hold a password."""
    problem = error.problem or "it cannot be read"
    if "'\\t'" in problem:
        return "there is a tab; YAML wants spaces"
    if "another document" in problem:
        return "there is a second document (---); a config is one"
    if "mapping values are not allowed" in problem:
        return (
            "not valid YAML: ':' has no meaning here; indent the line like its neighbours, or put "
            "text that holds ': ' in quotes"
        )
    if "expected ':'" in problem:
        return "not valid YAML: ':' is missing behind a key, or a space behind '-'"
    context = f" {error.context}" if error.context else ""
    return f"not valid YAML: {problem}{context}"


def _decoded(content: bytes, file: Path) -> str:
    """The text of a file that must be UTF-8.

    Raises:
        ConfigError: It is not; the message names the encoding that it seems to have.
    """
    wide = {BOM_UTF32_LE: "UTF-32", BOM_UTF32_BE: "UTF-32", BOM_UTF16_LE: "UTF-16",
            BOM_UTF16_BE: "UTF-16"}  # fmt: skip
    found = next((name for mark, name in wide.items() if content.startswith(mark)), None)
    if found is None and b"\0" in content[:4]:
        found = "UTF-16 or UTF-32"
    if found is not None:
        raise ConfigError(f"{file} is written in {found}; save it as UTF-8")
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"{file}, line {line}: the byte 0x{content[error.start]:02x} is not UTF-8; the file "
            "seems to be written in Latin-1 or another old encoding: save it as UTF-8"
        ) from None
