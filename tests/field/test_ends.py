"""How commands end: failures that looked like success, tracebacks, and readers that go away."""

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest
from ray.exceptions import RayTaskError, WorkerCrashedError

from search.arms.reasons import reason
from search.candidates import Candidate
from search.cli import main
from search.cli.parser import build_parser
from search.config import parse_config
from search.record import Record, RecordError, Writer
from search.study import Study
from tests.helpers.records import make
from tests.helpers.studies import SIMULATED


@pytest.fixture
def failed(tmp_path: Path) -> Study:
    """A study all of whose candidates failed, but for one that was stopped at a lower rung."""
    study = Study.create(parse_config(SIMULATED | {"output": str(tmp_path)}))
    with Record(study.record_path, study.name) as record:
        for index in range(2):
            record.add(
                Candidate(
                    strategy="random", seed=0, index=index, vector=(0.5,), names=("use[a]",),
                    error="the loss is not finite; lower proxy.sgd.learning_rate",
                )
            )  # fmt: skip
        record.add(make("random", index=2, stopped=True))
    return study


@pytest.mark.parametrize(
    "arguments",
    [["front"], ["front", "--json"], ["report"], ["compare"],
     ["train", "--pick", "best"], ["export", "--pick", "knee", "--out", "out"]],
)  # fmt: skip
def test_nothing_but_failures_is_no_success(
    failed: Study, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([arguments[0], str(failed.folder), *arguments[1:]]) == 2
    err = capsys.readouterr().err
    assert re.search(r"a score.*random-0-0.*: the loss is not finite; lower proxy", err)
    assert err.count("\n") == 1


def test_mlflow_is_told_of_a_failure_made_anew_from_the_record(
    failed: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    from search.commands import sync as command

    told: list[str] = []
    monkeypatch.setattr(command, "make_tracker", lambda study: Mock)
    monkeypatch.setattr(command, "finish_mirror", lambda study, status, *_: told.append(status))
    command.sync(failed)
    assert told == ["FAILED"]


def test_a_calibration_of_nothing_but_failures(
    failed: Study, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from search.commands import calibrate as command

    summary = {"candidates": 0, "failed": [{"index": 0, "seed": 0, "error": "the loss is NaN"}]}
    monkeypatch.setattr(command, "measure_calibration", Mock())
    monkeypatch.setattr(command, "write_calibration", lambda *_: summary)
    assert main(["calibrate", str(failed.folder)]) == 2
    assert capsys.readouterr().err.endswith("could be measured; the first: the loss is NaN\n")


def test_a_study_that_has_just_begun_is_no_failure(tmp_path: Path) -> None:
    study = Study.create(parse_config(SIMULATED | {"output": str(tmp_path)}))
    assert main(["front", str(study.folder)]) == 0


def test_the_writer_keeps_why_it_could_not_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In memory, as Tune's own file of the error is cut short on a full disk."""
    writer = Writer(tmp_path / "record.journal", "toy", None, {})
    writer.add(make())
    assert writer.trouble() is None

    def full(*_: object) -> None:
        raise RecordError("no space left on device")

    monkeypatch.setattr(Record, "add", full)
    for index in (1, 2):
        with pytest.raises(RecordError):
            writer.add(make(index=index))
    assert writer.trouble() == "no space left on device"
    writer.close(lambda *_: None)


def test_the_reason_is_the_first_error_in_a_line() -> None:
    first = RecordError("no space left; free some")
    inner = RayTaskError("write", "Traceback\n  File x\nRecordError: no space left", first)
    assert reason(RayTaskError("run", "Traceback ...", inner)) == "no space left; free some"
    assert reason(EOFError("Ran out of input")) == "EOFError: Ran out of input"
    assert reason(WorkerCrashedError()).startswith("a worker process died: ")
    assert "\n" not in reason(WorkerCrashedError())


@pytest.mark.parametrize("error", [KeyError("x"), MemoryError(), TypeError("a\nb")])
def test_no_error_is_a_traceback(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(options: object) -> None:
        raise error

    monkeypatch.delenv("APPORTION_DEBUG", raising=False)
    monkeypatch.setattr("search.cli.actions.run_doctor", broken)
    assert main(["doctor"]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"apportion: {type(error).__name__}: ")
    assert err.count("\n") == 1


def test_a_second_driver_is_refused_before_ray_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from search.commands import recorded
    from search.commands import search as command

    config = parse_config(SIMULATED | {"output": str(tmp_path)})
    study = Study.create(config)
    monkeypatch.setattr(recorded, "connect", lambda: pytest.fail("Ray must not be started"))
    with (
        Record(study.record_path, study.name),
        pytest.raises(RecordError, match=f"process {os.getpid()} on"),
    ):
        command.search(config, resume=True)


PRINT = """
import signal, sys
from search.cli import actions, main
# A suite that runs in the background, or under nohup, hands on signals that are ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
def run(options):
    if sys.argv[1] == "say":
        print("said")
    elif sys.argv[1] == "rich":
        for number in range(100_000): actions.CONSOLE.print("candidate", number)
    elif sys.argv[1] == "print":
        for number in range(100_000): print("candidate", number, "\\u00e9")
    elif sys.argv[1] == "wait":
        print("ready", flush=True)
        signal.pause()
    else:
        Deleted()
        signal.pause()
class Deleted:
    def __del__(self):
        signal.raise_signal(int(sys.argv[1]))
actions.run_doctor = run
sys.exit(main(["doctor"]))
"""


def start(*arguments: str, **environment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", PRINT, *arguments], env=os.environ | environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.parametrize("way", ["print", "rich"])
def test_a_reader_that_goes_away_is_no_error(way: str) -> None:
    """`| head` left "Broken pipe" on the terminal, twice."""
    process = start(way)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait() == 128 + signal.SIGPIPE


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a disk that is full")
@pytest.mark.parametrize(
    ("output", "status", "said"),
    [("/dev/full", 2, "apportion: the output cannot be written: No space left on device\n"),
     ("&-", 0, "")],
)  # fmt: skip
def test_an_output_that_takes_nothing_is_no_traceback(output: str, status: int, said: str) -> None:
    """A full disk was told twice, with the status 120; no output at all was a traceback."""
    command = shlex.join([sys.executable, "-c", PRINT, "say"])
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    ended = subprocess.run(
        f"{command} >{output}", shell=True, env=environment, stderr=subprocess.PIPE, text=True,
        check=False,
    )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (status, said)


def test_a_letter_that_the_terminal_has_not_is_no_error() -> None:
    out, err = start("print", PYTHONIOENCODING="ascii").communicate()
    assert out.startswith("candidate 0 \\xe9\n")
    assert err == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_signals_end_a_command_in_words(number: signal.Signals) -> None:
    process = start("wait")
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(number)
    try:
        _, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 128 + number
    said = "interrupted" if number == signal.SIGINT else f"ended by {number.name}"
    assert err == said + "\n"


LOAD = """
import signal, sys
from search.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)
class Signals:
    @staticmethod
    def find_spec(name, *_):
        if name == "search.cli.actions":
            signal.raise_signal(int(sys.argv[1]))
sys.meta_path.insert(0, Signals)
main(["doctor"])
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_libraries_load_ends_the_process_at_once(number: signal.Signals) -> None:
    command = [sys.executable, "-c", LOAD, str(int(number))]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (-number, "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_python_dropped_comes_again(number: signal.Signals) -> None:
    """A search went on after a Ctrl-C that came while an object of Ray's was deleted."""
    process = start(str(int(number)))
    try:
        _, err = process.communicate(timeout=30)
    finally:
        process.kill()
    said = "interrupted" if number == signal.SIGINT else f"ended by {number.name}"
    assert (process.returncode, err) == (128 + number, said + "\n")


@pytest.fixture
def nobody_handles_sigterm() -> Iterator[None]:
    """As in a process in which no test before has started Ray."""
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGTERM, before)


def test_a_signal_while_the_command_line_is_read_is_no_traceback(
    nobody_handles_sigterm: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(
        "search.cli.entry.build_parser", lambda: signal.raise_signal(signal.SIGTERM)
    )
    assert main(["doctor"]) == 128 + signal.SIGTERM
    assert capsys.readouterr().err == "ended by SIGTERM\n"


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [(["search", "x"], "go on with --resume"),
     (["train", "x", "--pick", "best"], "run it again to go on"),
     (["export", "x", "--pick", "best", "--out", "o"], "run it again")],
)  # fmt: skip
def test_what_is_ended_says_how_to_go_on(arguments: list[str], hint: str) -> None:
    assert hint in build_parser().parse_args(arguments).interrupted


@pytest.mark.parametrize("status", [0, 1])
def test_what_ray_ends_at_once_says_how_to_go_on(status: int) -> None:
    """Where the Ray of a machine was gone, the search ended without a word."""
    run = "lambda options: os._exit(1)" if status else "lambda options: 0"
    script = f"""if True:
        import os, sys
        from search.cli import actions, main
        actions.run_search = {run}
        sys.exit(main(["search", "x"]))
    """
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == status
    assert done.stderr.endswith("go on with --resume\n") if status else done.stderr == ""
