"""What a search prints, to a person, to a log and to a program."""

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import apportion
from search.cli import main
from search.commands.listing import look_at
from search.study import Study
from tests.helpers import ROOT
from tests.helpers.studies import SIMULATED

pytestmark = [
    pytest.mark.usefixtures("cluster"),
    # Ray starts and ends processes of its own in this one.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning"),
]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    changed = {"strategies": {"baselines": {}, "random": {}}, "output": str(tmp_path / "studies")}
    path = tmp_path / "a.yaml"
    path.write_text(yaml.safe_dump(SIMULATED | changed))
    return path


def test_a_program_reads_json_alone(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", str(config), "--json"]) == 0
    out, err = capsys.readouterr()
    study = Study(config.parent / "studies" / "simulated")
    assert json.loads(out) == json.loads(json.dumps(study.summary()))
    assert "on the front, hypervolume" in err
    own = "\n".join(line for line in err.splitlines() if "candidates" in line)  # not Ray's
    assert own
    for unwanted in (" nan", "\x1b", "\r"):
        assert unwanted not in own
    assert "TERMINATED" not in err
    assert look_at(study.folder).state == "finished"


def test_quiet_is_the_end_alone(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", str(config), "--quiet"]) == 0
    out = capsys.readouterr().out
    assert (
        out.lstrip()
        .splitlines()[0]
        .endswith(
            f"on the front, hypervolume {Study(_folder(config)).summary()['hypervolume']:.4f}"
        )
    )
    order = [
        "where it lies:",
        str(_folder(config) / "front.html"),
        "apportion ui",
        "what to do next:",
    ]
    assert [out.index(each) for each in order] == sorted(out.index(each) for each in order)


def _folder(config: Path) -> Path:
    return config.parent / "studies" / "simulated"


def test_from_a_dictionary_in_python(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = apportion.search(
        SIMULATED | {"output": str(tmp_path), "candidates": 5}, quiet=True, closing=False
    )
    assert len(study.candidates()) == 5
    assert capsys.readouterr().out == ""
    assert study.ended() == "FINISHED"


@pytest.mark.slow
def test_a_person_sees_lines_that_change(config: Path) -> None:
    """In a process of its own with a terminal of 80 columns."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "80", "TERM": "xterm"}
    process = subprocess.Popen(
        [sys.executable, "-m", "apportion", "search", str(config)],
        cwd=ROOT, env=environment, stdin=theirs, stdout=theirs, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    said = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # its end, on Linux
            break
        if not part:
            break
        said += part
    os.close(ours)
    assert process.wait(60) == 0
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", said.decode())
    assert b"\x1b[?25h" in said, "the cursor is given back"
    assert "nan" not in text
    assert "TERMINATED" not in text
    assert re.search(r"random +20/20 .* done", text)
    assert text.index("what to do next:") > text.index("where it lies:")
