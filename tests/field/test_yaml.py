"""YAML that a person reads one way and a parser another, and files in other encodings."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from search.config import ConfigError, load_config, parse_config
from search.config.dumping import yaml_text
from search.config.reading import read_yaml
from search.study import Study, StudyError
from tests.helpers.studies import SIMULATED


def config(folder: Path, lines: str = "", encoding: str = "utf-8") -> Path:
    """A config of thirteen lines, and these."""
    path = folder / "a.yaml"
    content = {key: value for key, value in SIMULATED.items() if key != "candidates"}
    path.write_bytes((yaml.safe_dump(content) + lines).encode(encoding))
    return path


@pytest.mark.parametrize(
    "text",
    [
        "010", "0x10", "0o10", "0b11", "1_000", "1:30", "1:30:05", "+010", "-07", "08", "1_0.5",
        "1:30.5", "2024-01-01", "2024-01-01 10:00:00", "yes", "No", "ON", "off", "~", "=", "010.5",
        "99999999999999999999", "1e999", "1e-999", "00", "“a”", "None", "nil", "run #3",
    ],
)  # fmt: skip
def test_a_value_that_can_be_misread_is_refused(tmp_path: Path, text: str) -> None:
    """010 was 8, 1:30 was 90, a date was no text, yes was true where text was meant."""
    for key in ("candidates", "output"):
        with pytest.raises(ConfigError, match=r"line \d+: .*(misread|computer holds)"):
            load_config(config(tmp_path, f"{key}: {text}\n"))
        with pytest.raises(ConfigError, match=f"--set {key}: .*(misread|computer holds)"):
            load_config(config(tmp_path), [f"{key}={text}"])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("10", 10), ("+3", 3), ("-3", -3), ("0", 0), (".5", 0.5), ("1e-3", 1e-3), ("1E3", 1000.0),
        ("5.", 5.0), ("1.5e+2", 150.0), ("-0.0", 0.0), ("true", True), ("False", False),
        ("null", None), ("", None), ("'010'", "010"), ('"yes"', "yes"), ("'~'", "~"),
        ("3dshapes", "3dshapes"), ("1.2.3", "1.2.3"), ("n", "n"), ("~/x", "~/x"), ("a-b", "a-b"),
        ("2nd", "2nd"), ("a # b", "a"), ("a#b", "a#b"), ("3 #b", 3), ("'a #b'", "a #b"),
        ("x: |\n  010\n", {"x": "010\n"}),
        ("{010: a, yes: b, 1e3: c}", {"010": "a", "yes": "b", "1e3": "c"}),
        ("[&x {a: 1}, {<<: *x, b: 2}, {<<: *x, a: 3}]", [{"a": 1}, {"a": 1, "b": 2}, {"a": 3}]),
    ],
)  # fmt: skip
def test_what_everybody_reads_alike_is_read(text: str, value: Any) -> None:
    found = read_yaml(text, "here")
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("candidates: 7\ncandidates: 8\n", r"line 16: 'candidates' is there already, in line 15"),
        ("schedule: {cpus: 1, cpus: 2}\n", r"line 15: 'cpus' is there already"),
        ("schedule:\n\tcpus: 1\n", r"line 16: there is a tab"),
        ("schedule: {cpus:1}\n", r"line 15: a space is missing behind ':' in cpus:1"),
        ("seeds:\n  - 1\n  -2\n", "line 17: .* a space behind '-'"),
        ("output: a\n  -b\n", r"line 15: .*begins with '-'"),
        ("---\ncandidates: 3\n", r"line 15: there is a second document"),
        ("output: !!str 5\n", r"line 15: the tag tag:yaml.org,2002:str is not read"),
        ("output: !!python/object/apply:os.getcwd []\n", "line 15: the tag .* is not read"),
        ("[1]: 2\n", "line 15: a key must be text"),
        ("output: {{ name }}\n", "line 15: a key must be text"),
        ("seeds: &a [*a]\n", "line 15: an alias stands within"),
        ("output: a\u00a0b\n", r"line 15: the character U\+00A0 \(no-break space\) cannot be seen"),
        ("\u00a0output: b\n", r"line 15: the character U\+00A0"),
        ("output: a\u200bb\n", r"line 15: the character U\+200B .*cannot be seen"),
        ('"output\ufeff": b\n', r"line 15: the character U\+FEFF"),
        ("# off\u2028candidates: 3\n", r"line 15: the character U\+2028 .*hides"),
        ("output: a\x07b\n", r"line 15: the character U\+0007 is not allowed"),
        ('output: "C:\\new"\n', "line 15: a backslash in double quotes begins an escape"),
        ("output: a: b\n", "line 15: not valid YAML: ':' has no meaning here"),
        ("output: " + "[" * 5000, "too deep within one another"),
    ],
)  # fmt: skip
def test_what_can_be_misread_in_a_file_is_refused_by_line(
    tmp_path: Path, lines: str, message: str
) -> None:
    path = config(tmp_path, lines)
    with pytest.raises(ConfigError, match=message) as refused:
        load_config(path)
    assert str(refused.value).startswith(str(path))
    assert "\n" not in str(refused.value)


def test_aliases_of_aliases_are_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    with pytest.raises(ConfigError, match="at most 100000 values"):
        read_yaml("\n".join(lines), "here")


def test_a_change_of_an_alias_leaves_the_other_place_alone(tmp_path: Path) -> None:
    lines = "teachers: {sgd: &sgd {steps: 7}}\ntrain: {sgd: *sgd}\n"
    changed = load_config(config(tmp_path, lines), ["train.sgd.steps=8"])
    assert (changed.teachers.sgd.steps, changed.train.sgd.steps) == (7, 8)
    assert load_config(config(tmp_path, "seeds: [3, 4, 3]\n"), ["seeds.2=5"]).seeds == (3, 4, 5)


def test_a_number_in_quotes_is_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="output must be text, got 2024"):
        load_config(config(tmp_path, "output: 2024\n"))
    assert load_config(config(tmp_path, "output: '2024'\n")).output == "2024"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_utf_16_is_named(tmp_path: Path, encoding: str) -> None:
    path = config(tmp_path, encoding=encoding)
    with pytest.raises(
        ConfigError, match=r"is written in UTF-(16|32).*save it as UTF-8"
    ) as refused:
        load_config(path)
    assert str(path) in str(refused.value)


def test_latin_1_is_named(tmp_path: Path) -> None:
    path = config(tmp_path, "output: données\n", encoding="latin-1")
    message = r"line 15: the byte 0xe9 is not UTF-8; .*Latin-1"
    with pytest.raises(ConfigError, match=message) as refused:
        load_config(path)
    assert str(path) in str(refused.value)


def test_utf_8_is_read_with_and_without_a_mark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for encoding in ("utf-8", "utf-8-sig"):
        path = config(tmp_path, "output: données\n", encoding=encoding)
        assert load_config(path).output == "données"


def test_folders_and_empty_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a folder"):
        load_config(tmp_path)
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    with pytest.raises(ConfigError, match=r"empty\.yaml must hold a mapping .*, got nothing"):
        load_config(tmp_path / "empty.yaml")


@pytest.mark.parametrize(
    "text", ["None", "nil", "1e3", "010", "1:30", "yes", "~", "", "run #3", "it's", "a: b", "2\n3"]
)
def test_what_a_study_keeps_is_read_back(text: str) -> None:
    """As text without quotes, `None` was kept, which is refused where people write it."""
    assert read_yaml(yaml_text({"a": text, text or "b": [text]}), "kept")["a"] == text


def test_a_kept_config_is_read_as_any_other(tmp_path: Path) -> None:
    """010 was 8 in it, and people are told to edit it."""
    study = Study.create(parse_config(SIMULATED | {"output": str(tmp_path), "candidates": 10}))
    path = study.folder / "config.yaml"
    path.write_text(path.read_text().replace("candidates: 10\n", "candidates: 010\n"))
    with pytest.raises(StudyError, match=r"config.yaml .*line \d+: 010 can be misread"):
        Study(study.folder)
