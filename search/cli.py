"""The command line: apportion COMMAND, of which `apportion --help` prints the list."""

import argparse
import json
import math
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from search.config import ConfigError, load_config
from search.strategies import STRATEGIES
from search.study import Study, StudyError

CONSOLE = Console()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit status is 0 when it did what was asked.

    Args:
        arguments: The command line without the program's name; None takes the process's own.
    """
    options = _parser().parse_args(arguments)
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    try:
        status: int = options.run(options) or 0
    except KeyboardInterrupt:
        hints = {
            _search: "; what was scored is in the record: go on with --resume",
            _compare: "; what was scored is in the record: run it again to go on",
            _calibrate: "; what was measured is kept: run it again to go on",
        }
        print("interrupted" + hints.get(options.run, ""), file=sys.stderr)
        return 130
    except (ValueError, RuntimeError, OSError, ArithmeticError) as error:
        if os.environ.get("APPORTION_DEBUG"):
            raise
        print(f"apportion: {error}", file=sys.stderr)
        return 2
    return status


def _search(options: argparse.Namespace) -> None:
    given = [path for path in (options.config, options.config_option) if path]
    if len(given) != 1:
        raise ConfigError("give one config: apportion search CONFIG, or --config CONFIG")
    config = load_config(given[0], options.set)
    from search.commands.search import search  # loads Ray and MLflow, which takes seconds

    search(config, resume=options.resume, console=CONSOLE)


def _calibrate(options: argparse.Namespace) -> None:
    from search.calibration import show_calibration
    from search.commands.calibrate import (  # loads Ray and MLflow, which takes seconds
        calibrate,
        open_study,
    )

    given = options.study
    study = Study(given) if given.is_dir() else open_study(load_config(given))
    say = Console(stderr=True) if options.json else CONSOLE
    summary = calibrate(
        study, say=lambda line: say.print(line, highlight=False, markup=False, soft_wrap=True)
    )
    if options.json:
        print(json.dumps(summary, indent=2))
    else:
        show_calibration(summary, CONSOLE)
        print(f"picture, points and numbers: {study.folder / 'calibration'}/calibration.*")


def _compare(options: argparse.Namespace) -> None:
    given = options.study
    if given.is_dir() and options.set:
        raise ConfigError(f"--set changes a config, but {given} is a study's folder")
    config = None if given.is_dir() else load_config(given, options.set)
    from search.commands.compare import (  # loads Ray and MLflow, takes seconds
        compare,
        search_to_compare,
    )
    from search.comparison import show_comparison

    say = Console(stderr=True) if options.json else CONSOLE
    study = Study(given) if config is None else search_to_compare(config, console=say)
    comparison = compare(
        study, say=lambda line: say.print(line, highlight=False, markup=False, soft_wrap=True)
    )
    if options.json:
        print(json.dumps(comparison.summary(), indent=2))
    else:
        show_comparison(comparison, CONSOLE)
        print(f"tables, curves and picture: {study.folder / 'compare'}")


def _front(options: argparse.Namespace) -> None:
    summary = Study(options.study).summary()
    if options.json:
        print(json.dumps(summary, indent=2))
        return
    table = Table(
        title=f"{len(summary['front'])} of {summary['candidates']} candidates on the front, "
        f"hypervolume {summary['hypervolume']:.4f}",
        title_justify="left",
    )
    table.add_column("candidate", no_wrap=True)
    tasks = list(summary["front"][0]["accuracy"]) if summary["front"] else []
    fits = 40 + sum(max(5, len(task)) + 3 for task in tasks) <= CONSOLE.width
    for name in ("quality", "cost", *(tasks if fits else ())):
        table.add_column(name, justify="right", no_wrap=True)
    for entry in summary["front"]:
        values = [entry["quality"], entry["cost"], *(entry["accuracy"][t] for t in tasks if fits)]
        table.add_row(entry["candidate"], *(f"{value:.3f}" for value in values))
    CONSOLE.print(table)
    if not fits:
        print("accuracy per task: a wider terminal, --json, or front.csv in the study's folder")


def _train(options: argparse.Namespace) -> None:
    from search.commands.train import train

    trained = train(Study(options.study), options.pick, seeds=options.seeds, say=print)
    for split, mean in trained.mean.items():
        std = trained.std[split]
        deviation = "" if math.isnan(std) else f" +- {std:.4f} (standard deviation)"
        print(f"{trained.candidate}: {split} {mean:.4f}{deviation}, {options.seeds} seeds")


def _export(options: argparse.Namespace) -> None:
    from search.commands.publish import export

    export(Study(options.study), options.pick, options.out, say=print)


def _report(options: argparse.Namespace) -> None:
    from search.calibration import read_trust
    from search.commands.report import write_report
    from search.commands.sync import sync

    study = Study(options.study)
    for path in write_report(study):
        print(path)
    if (trust := read_trust(study)) is not None:
        print(trust["verdict"])
    if options.sync:
        sync(study)
        print(f"MLflow: {study.store_uri}")


def _ui(options: argparse.Namespace) -> int:
    uri = Study(options.study).store_uri
    if not uri.startswith("sqlite:"):
        print(f"this study's runs are at {uri}")
        return 0
    if not (options.study / "mlflow.db").is_file():
        raise StudyError(f"{options.study} has no runs in MLflow yet; apportion report --sync")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", options.port))
        except OSError as error:
            raise StudyError(f"port {options.port} is in use; choose another --port") from error
    print(f"MLflow: http://127.0.0.1:{options.port} (store {uri}); end it with Ctrl-C", flush=True)
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri]
    command += ["--host", "127.0.0.1", "--port", str(options.port), "--workers", "1"]
    try:
        return subprocess.run(command, check=False).returncode
    except KeyboardInterrupt:
        return 0


def _doctor(options: argparse.Namespace) -> int:
    from search.commands.doctor import examine

    return 0 if examine(CONSOLE) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="apportion",
        description="Search how the tasks of one multi-task network should share its channels.",
        epilog="Start with: apportion search configs/quickstart.yaml",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_search(commands)
    calibrate = _add(
        commands, "calibrate", _calibrate, "hold the proxy against full training (hours, resumable)"
    )
    calibrate.add_argument(
        "study", type=Path, metavar="STUDY", help="a study's folder, or a config before any search"
    )
    calibrate.add_argument("--json", action="store_true", help="one JSON object, not tables")
    compare = _add(
        commands, "compare", _compare, "say which strategy finds the better front (resumable)"
    )
    compare.add_argument(
        "study", type=Path, metavar="CONFIG",
        help="a config, which is searched first, or a study's folder, of which the record is taken",
    )  # fmt: skip
    _add_set(compare)
    compare.add_argument("--json", action="store_true", help="one JSON object, not tables")
    front = _add(commands, "front", _front, "print a study's Pareto front")
    _add_study(front)
    front.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    train = _add(commands, "train", _train, "train a candidate in full")
    _add_study(train)
    _add_pick(train)
    train.add_argument("--seeds", type=int, default=1, metavar="N", help="trainings (default 1)")
    export = _add(
        commands,
        "export",
        _export,
        "write one compact network per task (trains it first if needed)",
    )
    _add_study(export)
    _add_pick(export)
    export.add_argument("--out", required=True, metavar="DIR", help="folder of the networks")
    report = _add(commands, "report", _report, "write a study's front as CSV, PNG and HTML")
    _add_study(report)
    report.add_argument(
        "--sync", action="store_true", help="also rebuild the MLflow mirror from the record"
    )
    ui = _add(commands, "ui", _ui, "browse a study in MLflow")
    _add_study(ui)
    ui.add_argument("--port", type=int, default=5000, help="port on 127.0.0.1 (default 5000)")
    _add(commands, "doctor", _doctor, "say what works on this machine and what does not")
    return parser


def _add_search(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    strategies = "\n".join(f"  {name:21} {entry.summary}" for name, entry in STRATEGIES.items())
    search = commands.add_parser(
        "search",
        help="run a study: from a config to a Pareto front",
        description="Run a study: from a config to a Pareto front.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"""\
strategies that a config may name:
{strategies}

examples:
  apportion search configs/quickstart.yaml
  apportion search configs/quickstart.yaml --set candidates=100 --set name=longer
  apportion search configs/quickstart.yaml --resume
  ray submit cluster.yaml search/run.py -- --config configs/mini_decathlon.yaml""",
    )
    search.add_argument("config", nargs="?", metavar="CONFIG", help="a study's YAML file")
    search.add_argument("--config", dest="config_option", metavar="CONFIG", help="the same")
    search.add_argument(
        "--resume", action="store_true", help="continue the study in its folder from its record"
    )
    _add_set(search)
    search.set_defaults(run=_search)


def _add(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    run: Callable[[argparse.Namespace], int | None],
    text: str,
) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    command.set_defaults(run=run)
    return command


def _add_set(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a key of the config, dotted: proxy.sgd.steps=300 (may be repeated)",
    )


def _add_study(command: argparse.ArgumentParser) -> None:
    command.add_argument("study", type=Path, metavar="STUDY", help="a study's folder")


def _add_pick(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--pick",
        required=True,
        metavar="{knee,best,CANDIDATE}",
        help="knee: the front's bend; best: the highest quality; or a name such as es-0-17",
    )


if __name__ == "__main__":
    sys.exit(main())
