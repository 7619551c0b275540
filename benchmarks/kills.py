"""Whether what is killed comes to the same end as what is not.

python benchmarks/kills.py [--json FILE] [--quick] [--only NAME]

Every command is run once without harm. Then, again and again in a folder of its own, it is run
until a point, one of its processes gets SIGKILL, and it goes on: by itself if an arm, an evaluator
or the writer was killed, called once more if it was the driver. Points are spread evenly over the
candidates of the record (of searches and comparisons) or over the seconds that the command takes
(of the others).

search, simulated   the driver, an arm, the writer
search with rungs   real proxies on toy tasks: the driver, an arm, an evaluator, the writer
compare             the driver
calibrate           the driver
train               full training: the driver, a training
export              the driver

A point is lost if the command does not end well, if a candidate is missing, there twice, in the
record and not in MLflow, or has another vector or score than in the run without harm; if an export
is there in part; or if what calibration, full training or export made is not the same, bit by bit.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml
from mlflow import MlflowClient
from safetensors.numpy import load_file

from search.record import read_record
from search.record.journal import lines_written
from search.record.lines import read_lines
from search.study import Study, kept_trainings

#: Seconds after which a command is taken to hang.
LONGEST = 600.0
TASKS = [{"name": n, "source": "toy", "limit": 200} for n in ("digits", "colours", "gratings")]
SIMULATED: dict[str, Any] = {
    "evaluator": "simulated",
    "tasks": [{"name": name} for name in ("a", "b", "c")],
    "strategies": {"random": {}, "es": {"directions": 2}, "policy_gradient": {"samples": 3}},
    "candidates": 60,
    "initial": 4,
}
REAL: dict[str, Any] = {
    "input_size": 8,
    "tasks": TASKS,
    "backbone": {"model": "resnet14", "args": {"width": 4}},
    "trunk": {"dataset": {"name": "glyphs", "source": "toy", "limit": 200}, "sgd": {"steps": 20}},
    "teachers": {"sgd": {"steps": 20, "batch_size": 32}},
    "proxy": {"images": 64, "norm_images": 32, "sgd": {"steps": 60, "batch_size": 8}},
    "train": {"sgd": {"steps": 400, "batch_size": 16}},
    "rungs": [{"steps": 20, "keep": 0.5}],
    "bracket": 8,
    "strategies": {"random": {}, "es": {"directions": 2}},
    "candidates": 40,
    "initial": 4,
    "compute": {"device": "cpu"},
    "calibration": {
        "candidates": 6,
        "trained_twice": 2,
        "sgd": {"steps": 40},
        "multiples": [1000.0],
    },
}
#: Settings of a comparison: more seeds, fewer candidates.
COMPARED = {"seeds": [0, 1, 2, 3, 4], "candidates": 20}
#: How the processes of victims are named, up to what Ray adds.
TITLES = {
    "arm": ("ray::run_arm", "ray::ImplicitFunc"),
    "evaluator": ("ray::Evaluator",),
    "writer": ("ray::Writer",),
    "training": ("ray::_with_threads",),
}


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command that is killed.

    Attributes:
        name: What it is called in the table.
        settings: The study's config.
        study: Whether there is a study to begin with.
        arguments: The command line after `apportion`, given the config's path and the study's.
        again: What is added to it when it is called once more.
        made: What must be the same in the end, given the study's folder: anything that compares.
        points: By victim, how many.
        whole: Folder of the study that is whole as soon as it is there; none if empty.
    """

    name: str
    settings: Mapping[str, Any]
    arguments: Callable[[Path, Path], list[str]]
    made: Callable[[Path], Any]
    points: Mapping[str, int]
    study: bool = False
    again: tuple[str, ...] = ()
    whole: str = ""


def candidates(folder: Path) -> Any:
    """All that a record says of its candidates but seconds; MLflow must have the same ones."""
    study = Study(folder)
    found = study.candidates()
    told = sorted(
        (c.id, tuple(c.vector), c.quality, c.cost, c.stopped, tuple(sorted(c.accuracy.items())))
        for c in found
    )
    client = MlflowClient(study.store_uri)
    wanted = "tags.`apportion.kind` = 'candidate'"
    runs: list[str] = []
    for experiment in client.search_experiments():
        token = None
        while True:
            page = client.search_runs([experiment.experiment_id], wanted, page_token=token)
            runs += [run.data.tags["candidate"] for run in page]
            token = page.token
            if not token:
                break
    assert sorted(runs) == sorted(c.id for c in found), "record and MLflow differ"
    faults = read_lines(study.record_path, lines_written(study.record_path)).faults
    assert not faults, f"the record is damaged: {faults}"
    return told


def weights(folder: str) -> Callable[[Path], Any]:
    """The hashes of the arrays below a folder of the study; the order of metadata is by chance."""

    def made(study: Path) -> Any:
        return {
            str(path.relative_to(study)): {
                name: sha256(array.tobytes()).hexdigest()
                for name, array in sorted(load_file(path).items())
            }
            for path in sorted((study / folder).rglob("*.safetensors"))
        }

    return made


def exported(study: Path) -> Any:
    """The weights of networks, and which files there are."""
    files = (path for path in (study / "exported").rglob("*") if path.is_file())
    return weights("exported")(study), sorted(str(path.relative_to(study)) for path in files)


def trainings(study: Path) -> Any:
    """Weights, accuracies and curves of trainings; each step of a curve must be in MLflow once."""
    found = {}
    client = MlflowClient(Study(study).store_uri)
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    for one in kept_trainings(study / "trained"):
        (run,) = client.search_runs(
            ids, f"tags.candidate = '{one.candidate}' and tags.settings = '{one.settings}' and "
            f"tags.seed = '{one.seed}'",
        )  # fmt: skip
        steps = [m.step for m in client.get_metric_history(run.info.run_id, "learning_rate")]
        assert steps == [point.step for point in one.points], "the curve in MLflow is another"
        assert run.info.status == "FINISHED", f"in MLflow it is {run.info.status}"
        curve = [(p.step, dict(p.loss), dict(p.accuracy), p.learning_rate) for p in one.points]
        found[one.candidate, one.seed] = one.accuracy, curve
    return found, weights("trained")(study)


def measurements(study: Path) -> Any:
    """What a calibration measured, but for seconds and the checksums that they are in."""

    def without_seconds(value: Any) -> Any:
        if isinstance(value, dict):
            kept = {k: v for k, v in value.items() if "seconds" not in k and k != "checksum"}
            return {k: without_seconds(v) for k, v in kept.items()}
        return [without_seconds(v) for v in value] if isinstance(value, list) else value

    return {
        path.name: without_seconds(json.loads(path.read_text()))
        for path in sorted((study / "calibration").glob("*.json"))
    }


COMMANDS = (
    Command(
        name="search, simulated", settings=SIMULATED, made=candidates, again=("--resume",),
        arguments=lambda config, study: ["search", str(config)],
        points={"driver": 5, "arm": 5, "writer": 4},
    ),
    Command(
        name="search with rungs", settings=REAL, made=candidates, again=("--resume",),
        arguments=lambda config, study: ["search", str(config)],
        points={"driver": 4, "arm": 4, "evaluator": 4, "writer": 3},
    ),
    Command(
        name="compare", settings=SIMULATED | COMPARED, made=candidates,
        arguments=lambda config, study: ["compare", str(config)],
        points={"driver": 4},
    ),
    Command(
        name="calibrate", settings=REAL, made=measurements, study=True,
        arguments=lambda config, study: ["calibrate", str(study)],
        points={"driver": 4},
    ),
    Command(
        name="train", settings=REAL, made=trainings, study=True,
        arguments=lambda config, study: [
            "train", str(study), "--pick", "best", "--seeds", "3", "--set", "train.sgd.steps=4000",
        ],
        points={"driver": 12, "training": 8},
    ),
    Command(
        name="export", settings=REAL, made=exported, study=True, whole="exported",
        arguments=lambda config, study: [
            "export", str(study), "--pick", "best", "--out", str(study / "exported"),
            "--format", "onnx,pt2,safetensors,merged", "--int8", "--max-loss", "100",
        ],
        points={"driver": 20},
    ),
)  # fmt: skip


def start(arguments: list[str], log: Path) -> "subprocess.Popen[bytes]":
    """The command line in a process and a session of its own."""
    with log.open("ab") as out:
        return subprocess.Popen(
            [sys.executable, "-m", "apportion", *arguments], stdout=out, stderr=out,
            env=os.environ | {"OMP_NUM_THREADS": "1"}, start_new_session=True,
        )  # fmt: skip


def below(pid: int) -> Iterator[tuple[int, str]]:
    """Process and title of all that a process started, and of all that those started."""
    listed = subprocess.run(
        ["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True
    )
    rows = [line.split(None, 2) for line in listed.stdout.splitlines()]
    parents = {pid}
    grown = True
    while grown:
        new = {int(row[0]) for row in rows if int(row[1]) in parents} - parents
        parents |= new
        grown = bool(new)
    yield from ((int(r[0]), r[2]) for r in rows if int(r[0]) in parents - {pid} and len(r) == 3)


def end(process: "subprocess.Popen[bytes]", folder: Path) -> None:
    """Wait for a command to end well."""
    try:
        code = process.wait(LONGEST)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise AssertionError(f"still running after {LONGEST:g} s") from None
    assert code == 0, f"exit status {code}: {(folder / 'log').read_text()[-300:]}"


@contextmanager
def prepared(
    command: Command, begun: Path | None, cache: Path
) -> Iterator[tuple[Path, Path, Path]]:
    """A folder, the config in it and the study's, with what the command starts from."""
    with tempfile.TemporaryDirectory(prefix="kills-") as name:
        folder = Path(name)
        config = folder / "config.yaml"
        settings = {"name": "study", "output": str(folder), "cache": str(cache)}
        config.write_text(yaml.safe_dump({**command.settings, **settings}))
        if command.study:
            assert begun is not None
            shutil.copytree(begun, folder / "study")
        yield folder, config, folder / "study"


def recorded(study: Path) -> int:
    """How many candidates its record has."""
    journal = study / "record.journal"
    return len(read_record(journal, "study")) if journal.exists() else 0


def kill(process: "subprocess.Popen[bytes]", victim: str, turn: int) -> bool:
    """Kill a process of the command; False if there is none of the kind."""
    if victim == "driver":
        process.kill()
        return process.wait() == -signal.SIGKILL
    found = sorted(pid for pid, title in below(process.pid) if title.startswith(TITLES[victim]))
    if not found:
        return False
    os.kill(found[turn % len(found)], signal.SIGKILL)
    return True


def strike(
    command: Command, victim: str, turn: int, share: float, whole: "Whole", begun: Path | None,
    cache: Path,
) -> str:  # fmt: skip
    """Kill at a point and go on; what was wrong in the end, "" if nothing."""
    with prepared(command, begun, cache) as (folder, config, study):
        arguments = command.arguments(config, study)
        process = start(arguments, folder / "log")
        started, total = time.monotonic(), len(whole.made)
        counted = command.made is candidates
        try:
            while True:
                if counted and recorded(study) >= max(1, share * total):
                    break
                if not counted and time.monotonic() - started >= share * whole.seconds:
                    break
                if process.poll() is not None or time.monotonic() - started > LONGEST:
                    return "had ended before its point"
                time.sleep(0.02)
            while not kill(process, victim, turn):
                if process.poll() is not None:
                    return "had ended before its point"
                time.sleep(0.02)
            if command.whole and (study / command.whole).exists():
                return "" if command.made(study) == whole.made else "a part of it is there"
            if victim == "driver":
                # What a driver leaves behind ends by itself, and may still write until then.
                again = command.again if (study / "config.yaml").exists() else ()
                process = start([*arguments, *again], folder / "log")
            end(process, folder)
            return "" if command.made(study) == whole.made else "the end is another"
        except AssertionError as e:
            return str(e)


@dataclass(frozen=True)
class Whole:
    """What a command makes without harm, and how long that takes."""

    made: Any
    seconds: float


def undisturbed(command: Command, begun: Path | None, cache: Path, keep: Path | None) -> Whole:
    """Run a command without harm; its study goes to `keep`."""
    with prepared(command, begun, cache) as (folder, config, study):
        started = time.monotonic()
        end(start(command.arguments(config, study), folder / "log"), folder)
        seconds = time.monotonic() - started
        made = command.made(study)
        assert made, f"{command.name} made nothing"
        if keep:
            shutil.copytree(study, keep)
        return Whole(made, seconds)


def main() -> None:
    """Print a line a point and the sum; exit 1 if a point was lost."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--quick", action="store_true", help="one point of the first command")
    parser.add_argument("--only", metavar="NAME", help="the commands whose name begins like this")
    options = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory(prefix="kills-") as name:
        cache, begun = Path(name, "cache"), Path(name, "begun")
        for command in COMMANDS[: 1 if options.quick else None]:
            wanted = command.name.startswith(options.only or "")
            if not wanted and command.name != "search with rungs":
                continue  # that one makes the study that the later ones take
            keep = begun if command.name == "search with rungs" else None
            whole = undisturbed(command, begun, cache, keep)
            print(f"{command.name}: {whole.seconds:.0f} s without harm", flush=True)
            if not wanted:
                continue
            for victim, count in command.points.items():
                for turn in range(1 if options.quick else count):
                    share = (turn + 0.5) / count
                    wrong = strike(command, victim, turn, share, whole, begun, cache)
                    results.append([command.name, victim, share, wrong])
                    print(f"  {victim} at {share:.0%}: {wrong or 'the same'}", flush=True)
                if options.quick:
                    break
    lost = [result for result in results if result[-1]]
    print(f"{len(results)} points, {len(lost)} lost")
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")
    sys.exit(bool(lost))


if __name__ == "__main__":
    main()
