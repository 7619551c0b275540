"""The words of the command line: its commands, their options, and examples of each."""

import argparse
import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

DESCRIPTION = """\
Search how the tasks of one multi-task network should share its channels.

A config names the tasks, the network and the strategies that compete. `search` runs it as a study:
a folder that keeps every candidate that was scored. The other commands look at that folder, train
one of its candidates in full, or export it as one small network per task."""

EXAMPLES = """\
a first study, from its search to small networks (minutes on two cores, nothing to download):
  apportion search configs/quickstart.yaml
  apportion front studies/quickstart
  apportion export studies/quickstart --pick knee --out networks

`apportion COMMAND --help` says what a command does, with examples. Errors are one line; with
APPORTION_DEBUG=1 in the environment they are tracebacks."""

#: Stands in a help for the strategies, a line each.
STRATEGIES_HERE = "<strategies>"
#: Likewise for the methods.
METHODS_HERE = "<methods>"


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command line.

    Returns:
        A parser whose options hold `command`, which `actions.py` has a function for, and
        `interrupted`, what to say after the word when Ctrl-C ends it.
    """
    parser: argparse.ArgumentParser = _Parser(
        prog="apportion",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "-V", "--version", action=_Version, nargs=0, help="print the installed version and exit"
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_searching(commands)
    _add_judging(commands)
    _add_using(commands)
    _add_looking(commands)
    return parser


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with a command line, but no password that stands there.

    What takes seconds to load is loaded only where it is said.
    """

    def format_help(self) -> str:
        if self.epilog and STRATEGIES_HERE in self.epilog:
            from search.strategies import STRATEGIES

            self.epilog = self.epilog.replace(STRATEGIES_HERE, _lines(STRATEGIES))
        if self.epilog and METHODS_HERE in self.epilog:
            from trainers.methods import METHODS

            self.epilog = self.epilog.replace(METHODS_HERE, _lines(METHODS))
        return super().format_help()

    def error(self, message: str) -> NoReturn:
        from search.config import without_passwords

        super().error(without_passwords(message))


def _lines(registry: Mapping[str, Any]) -> str:
    """Names and summaries of a registry's entries."""
    return "\n".join(f"  {name:21} {entry.summary}" for name, entry in registry.items())


class _Version(argparse.Action):
    """Looks the version up when it is asked for, as a checkout that is not installed has none."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        try:
            print(f"apportion {importlib.metadata.version('apportion')}")
        except importlib.metadata.PackageNotFoundError:
            parser.error("apportion is not installed, so it has no version: pip install -e .")
        parser.exit()


def _add(
    commands: Commands,
    name: str,
    summary: str,
    *,
    text: str,
    epilog: str,
    interrupted: str = "",
) -> argparse.ArgumentParser:
    """Add a command.

    Args:
        commands: To which.
        name: What is typed; `run_<name>` does it.
        summary: A line for the list of commands.
        text: What it does, for its own help.
        epilog: Examples, for its own help.
        interrupted: What is said after that word when Ctrl-C ends it.
    """
    command = commands.add_parser(
        name,
        help=summary,
        description=text,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(command=name, interrupted=interrupted)
    return command


def _add_searching(commands: Commands) -> None:
    search = _add(
        commands,
        "search",
        "run a study: from a config to a Pareto front",
        text="""\
Run a study: from a config to a Pareto front of quality against cost.

The study's folder (by default studies/NAME) keeps a record of every candidate. A search can be
stopped at any moment; --resume goes on from the record.""",
        epilog=f"""\
strategies that a config may name:
{STRATEGIES_HERE}

examples:
  apportion search configs/quickstart.yaml
  apportion search configs/quickstart.yaml --set candidates=100 --set name=longer
  apportion search configs/quickstart.yaml --resume
  ray submit cluster.yaml search/run.py -- --config configs/mini_decathlon.yaml""",
        interrupted="; what was scored is in the record: go on with --resume",
    )
    search.add_argument("config", nargs="?", metavar="CONFIG", help="a study's YAML file")
    search.add_argument("--config", dest="config_option", metavar="CONFIG", help="the same")
    search.add_argument(
        "--resume", action="store_true", help="continue the study in its folder from its record"
    )
    search.add_argument(
        "--quiet", action="store_true", help="say only warnings, and at the end what was found"
    )
    search.add_argument(
        "--json",
        action="store_true",
        help="print the front as one JSON object, as `front --json` does; progress goes to the "
        "standard error",
    )
    _add_set(search)
    check = _add(
        commands,
        "check",
        "say all that is wrong with a config, and what its tasks hold",
        text="""\
Say all that is wrong with a config and with the data of its tasks, and what was understood of them.

Every task's data is read as a search reads it. Nothing is trained, and no file is written. The exit
status is 0 where the config can be searched, and 2 where it cannot.""",
        epilog="""\
examples:
  apportion check configs/quickstart.yaml
  apportion check configs/quickstart.yaml --set tasks.digits.limit=500""",
    )
    check.add_argument("config", metavar="CONFIG", help="a study's YAML file")
    _add_set(check)


def _add_judging(commands: Commands) -> None:
    calibrate = _add(
        commands,
        "calibrate",
        "hold the proxy against full training (hours, resumable)",
        text="""\
Hold the proxy against full training: can its scores be trusted?

Candidates of all costs are scored by the proxy and trained in full. Correlations, a picture and a
verdict are kept with the study, and a search whose proxy is not trusted says so. It takes hours;
run again, it goes on where it was stopped.""",
        epilog="""\
examples:
  apportion calibrate configs/mini_decathlon.yaml      before any search
  apportion calibrate studies/mini_decathlon --json    the study's own candidates""",
        interrupted="; what was measured is kept: run it again to go on",
    )
    calibrate.add_argument(
        "study", type=Path, metavar="STUDY", help="a study's folder, or a config before any search"
    )
    _add_set(calibrate)
    calibrate.add_argument("--json", action="store_true", help="one JSON object, not tables")
    compare = _add(
        commands,
        "compare",
        "say which strategy finds the better front (resumable)",
        text="""\
Say which strategy finds the better front for the same budget, or that none does.

A config is searched first, every strategy with every seed; of a study's folder the record is taken
as it is. Differences in hypervolume are tested over seeds, so there must be several.""",
        epilog="""\
examples:
  apportion compare configs/compare_synthetic.yaml
  apportion compare configs/compare_synthetic.yaml --set "seeds=[0,1,2,3,4,5]"
  apportion compare studies/compare_synthetic --json""",
        interrupted="; what was scored is in the record: run it again to go on",
    )
    compare.add_argument(
        "study", type=Path, metavar="CONFIG",
        help="a config, which is searched first, or a study's folder, of which the record is taken",
    )  # fmt: skip
    _add_set(compare)
    compare.add_argument("--json", action="store_true", help="one JSON object, not tables")


def _add_using(commands: Commands) -> None:
    train = _add(
        commands,
        "train",
        "train a candidate, or methods, in full",
        text="""\
Train a candidate of a search in full, or the methods of a config, and say what they reach.

With --pick, candidates of a study are trained, all tasks together, as many at once as there is
room for. Trainings are kept in the study's folder under trained/, those of other settings (--set
train.KEY=VALUE) beside each other. Those that are there are not repeated, and what was cut off goes
on. Each is a run in MLflow, with curves as it runs. All candidates that were trained with the same
settings are listed against sharing every channel, with p corrected for how many they are: to train
a few and report the best makes its lead partly chance.

Without, the methods that a config names (or --method, of those below) are trained from scratch,
each with every seed of the config. Every level of a method is a candidate of the study: it stands
on the front, and can be exported. Run again, it goes on where it was stopped.""",
        epilog=f"""\
methods:
{METHODS_HERE}

examples:
  apportion train studies/quickstart --pick knee
  apportion train studies/quickstart --pick share_all best --seeds 5
  apportion train studies/quickstart --pick knee --set train.sgd.steps=2000 --set train.ema=0.999
  apportion train studies/quickstart --table --pick best knee --seeds 5
  apportion train configs/methods_quick.yaml
  apportion train configs/methods_quick.yaml --method dvn --set train.sgd.steps=500""",
        interrupted="; what was trained is kept: run it again to go on",
    )
    train.add_argument(
        "study", type=Path, metavar="STUDY", help="a study's folder, or a config with methods"
    )
    _add_set(train)
    train.add_argument(
        "--method",
        nargs="+",
        action="extend",
        default=[],
        dest="methods",
        metavar="NAME",
        help="those of the config's methods to train, or such a kind with its default settings",
    )
    train.add_argument(
        "--pick",
        nargs="+",
        action="extend",
        dest="picks",
        metavar="{knee,best,CANDIDATE}",
        help=f"one or more to train: {PICKS}",
    )
    train.add_argument(
        "--seeds", type=int, metavar="N", help="trainings of each pick (default 1; of --table 3)"
    )
    train.add_argument(
        "--table",
        action="store_true",
        help="train what picks are held against with the same recipe, too, and table all: "
        "single-task networks, fixed ways of sharing, random masks, merged networks",
    )
    export = _add(
        commands,
        "export",
        "write one compact network per task (trains it first if needed)",
        text="""\
Write one compact network per task: the channels that the task does not use are gone.

Of each there is a file for ONNX Runtime and one for torch, which need nothing else, and one file
has all of them, with what tasks share in it once. Each file is read back and compared with the
trained network on real images: float32 must compute the same, float16 and int8 may cost --max-loss.
The folder appears once all is written and proven, or not at all.

A candidate that has not been trained in full is trained first. The networks are logged in MLflow,
too, as models with their signatures, in the run of the training. With --run a network is made again
from that run alone.""",
        epilog="""\
example:
  apportion export studies/quickstart --pick knee --out networks
  apportion export studies/quickstart --pick knee --out small --format onnx --int8
  apportion export studies/quickstart --pick knee --out networks --register shop""",
        interrupted="; trainings that ended are kept: run it again",
    )
    _add_study(export)
    export.add_argument("--pick", metavar="{knee,best,CANDIDATE}", help=PICKS)
    export.add_argument(
        "--run", metavar="ID", help="in place of --pick: of a training, as MLflow shows it"
    )
    export.add_argument("--out", required=True, metavar="DIR", help="folder of the networks")
    export.add_argument(
        "--seed",
        metavar="N",
        help="of the training (default 0), or best: of those that are there, by validation images",
    )
    export.add_argument(
        "--format",
        metavar="NAMES",
        help="of onnx, pt2, safetensors and merged, with commas (default onnx,pt2,merged)",
    )
    export.add_argument("--float16", action="store_true", help="also ONNX in half precision")
    export.add_argument(
        "--int8", action="store_true", help="also ONNX of 8 bits, calibrated on training images"
    )
    export.add_argument(
        "--input",
        choices=("uint8", "float32"),
        default="uint8",
        help="what networks read: images of 0 to 255, or normalised ones (default uint8)",
    )
    export.add_argument(
        "--max-loss",
        type=float,
        default=1.0,
        metavar="POINTS",
        help="accuracy that float16 and int8 may cost (default 1)",
    )
    export.add_argument(
        "--json", action="store_true", help="print costs, latencies and checks as JSON"
    )
    export.add_argument(
        "--push-to-hub",
        metavar="OWNER/NAME",
        help="put the export on the Hugging Face Hub, where you are logged in",
    )
    export.add_argument(
        "--private",
        action="store_true",
        help="a repository that is made for it there is seen by its owner alone",
    )
    export.add_argument(
        "--register",
        metavar="NAME",
        help="make each network a version of MLflow's registered model NAME-TASK",
    )
    _add_set(export)

    predict = _add(
        commands,
        "predict",
        "run exported networks on pictures",
        text="""\
Run exported networks on pictures: files, folders with all below them, and patterns.

Pictures are read as those of training were: turned as the camera noted, white behind what is
transparent, resized and cut as the network expects. The exit status is 1 where one cannot be read;
others are predicted.""",
        epilog="""\
examples:
  apportion predict networks photo.jpg
  apportion predict networks photos/ --task digits --top 3 --csv found.csv
  apportion predict networks 'photos/*.png' --int8 --sheet found.png""",
    )
    predict.add_argument("export", type=Path, metavar="EXPORT", help="folder of an export")
    predict.add_argument("images", nargs="+", metavar="IMAGE", help="file, folder or pattern")
    predict.add_argument(
        "--task", action="append", default=[], metavar="NAME", help="of one (may be repeated)"
    )
    predict.add_argument("--top", type=int, default=1, metavar="N", help="classes of each (1)")
    kind = predict.add_mutually_exclusive_group()
    kind.add_argument("--float16", action="store_true", help="run the networks of half precision")
    kind.add_argument("--int8", action="store_true", help="run the networks of 8 bits")
    predict.add_argument("--csv", type=Path, metavar="FILE", help="write them as CSV")
    predict.add_argument("--sheet", type=Path, metavar="FILE", help="draw pictures with labels")
    predict.add_argument("--json", action="store_true", help="print a JSON list, not a table")

    timed = _add(
        commands,
        "benchmark",
        "time exported networks, or a study's front, on this machine",
        text="""\
Time exported networks, or those of a study's front, on this machine, by images at a time and
threads. All take turns, so that what else the machine does meets all alike. Of a study nothing
needs to be trained; its networks are run by ONNX Runtime.""",
        epilog="""\
examples:
  apportion benchmark networks
  apportion benchmark studies/quickstart --batch 1 64 --figure front_latency.png
  apportion benchmark networks --int8 --batch 1 64 --threads 1 4 --figure latency.png""",
    )
    timed.add_argument(
        "export", type=Path, metavar="EXPORT", help="folder of an export, or of a study"
    )
    timed.add_argument(
        "--task",
        action="append",
        default=[],
        metavar="NAME",
        help="of one network of an export (may be repeated)",
    )
    timed.add_argument(
        "--pick",
        action="append",
        default=[],
        metavar="PICK",
        help="a candidate of a study in place of the front (may be repeated)",
    )
    for name in ("float16", "int8"):
        timed.add_argument(f"--{name}", action="store_true", help=f"time networks of {name}, too")
    timed.add_argument(
        "--batch", type=int, nargs="+", default=[1, 16, 64], metavar="N", help="images at a time"
    )
    timed.add_argument("--threads", type=int, nargs="+", default=[1], metavar="N", help="(1)")
    timed.add_argument("--figure", type=Path, metavar="FILE", help="draw them")
    timed.add_argument("--json", action="store_true", help="print a JSON list, not a table")


def _add_looking(commands: Commands) -> None:
    front = _add(
        commands,
        "front",
        "print a study's Pareto front",
        text="Print a study's Pareto front: candidates that none beats in quality and cost.",
        epilog="""\
examples:
  apportion front studies/quickstart
  apportion front studies/quickstart --json""",
    )
    _add_study(front)
    front.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    report = _add(
        commands,
        "report",
        "write a study's page, and its front as CSV and PNG",
        text="Write a study's front into its folder: as front.csv, as front.png and as front.html, "
        "a page of all its candidates that needs no network.",
        epilog="""\
examples:
  apportion report studies/quickstart
  apportion report studies/quickstart --sync""",
    )
    _add_study(report)
    report.add_argument(
        "--sync", action="store_true", help="also rebuild the MLflow mirror from the record"
    )
    listed = _add(
        commands,
        "list",
        "say how far the studies of a folder are, and what they found",
        text="""\
Say of every study of a folder whether it is running, finished, stopped (--resume goes on), empty or
damaged, how many candidates it has, what it takes on the disk, its best quality and its knee.""",
        epilog="""\
examples:
  apportion list
  apportion list studies --json""",
    )
    listed.add_argument(
        "folder",
        nargs="?",
        type=Path,
        default=Path("studies"),
        metavar="FOLDER",
        help="a folder of studies (default studies)",
    )
    listed.add_argument("--json", action="store_true", help="print a JSON list, not a table")
    ui = _add(
        commands,
        "ui",
        "look at a study in a browser: its page, and MLflow",
        text="""\
Serve a study's page and its MLflow store to a browser on this machine, until Ctrl-C, and say where
they are. The page is written first where it is missing or older than the record. Without a study,
or of a folder of studies, a list of them is served, with their pages.""",
        epilog="""\
examples:
  apportion ui studies/quickstart --port 5001
  apportion ui""",
    )
    ui.add_argument(
        "study",
        nargs="?",
        type=Path,
        default=Path("studies"),
        metavar="STUDY",
        help="a study's folder, or a folder of studies (default studies)",
    )
    ui.add_argument(
        "--port",
        type=int,
        default=5000,
        help="port of MLflow on 127.0.0.1, the page has the next one (default 5000; 0 takes any)",
    )
    ui.add_argument(
        "--no-browser", action="store_true", help="do not open a browser, even where there is one"
    )
    _add(
        commands,
        "doctor",
        "say what works on this machine and what does not",
        text="Try everything that a study needs on this machine, and say what works.",
        epilog="""\
example:
  apportion doctor""",
    )
    groups = _add(
        commands,
        "groups",
        "say what of a network can be divided",
        text="""\
Say what of a network can be divided: its groups of channels, heads and streams, what parameters and
multiply-accumulates go with each, and how little a task could do with.

NETWORK is resnet26, timm:NAME, torchvision:NAME, transformers:NAME-OR-FOLDER, or
package.module:function; or the CONFIG of a study, of whose space the least cost is said, too.""",
        epilog="""\
examples:
  apportion groups configs/quickstart.yaml --set "backbone.partition=[stage2.*, stage3.*]"
  apportion groups timm:resnet50
  apportion groups timm:vit_tiny_patch16_224 --divide 'blocks.[6-9]' --divide 'blocks.1?'
  apportion groups mypackage.nets:build --args '{width: 32}' --size 64""",
    )
    groups.add_argument("network", metavar="NETWORK", help="what builds it, or a config")
    groups.add_argument("--args", default="{}", metavar="YAML", help="arguments of what builds it")
    groups.add_argument(
        "--divide",
        action="append",
        default=[],
        metavar="PATTERN",
        help="blocks to divide, with * and ? (may be repeated; default: the last third)",
    )
    groups.add_argument("--stream", action="store_true", help="divide residual streams, too")
    groups.add_argument("--size", type=int, help="of its images, in pixels (default: its own)")
    groups.add_argument("--json", action="store_true", help="print one JSON object")
    _add_set(groups)
    cluster = _add(
        commands,
        "cluster",
        "say what the machines of a cluster lack",
        text="""\
Say what the machines of a cluster lack, before `ray up` starts anything on them.

Every machine is asked by ssh for Python, room, GPUs and its clock; with --config also whether the
study's folders are on storage that all share, and the head whether it has the data.""",
        epilog="""\
examples:
  apportion cluster check cluster.yaml
  apportion cluster check cluster.yaml --config configs/mini_decathlon.yaml""",
    )
    cluster.add_argument("what", choices=["check"], help="what to do")
    cluster.add_argument("file", type=Path, metavar="FILE", help="what `ray up` is given")
    cluster.add_argument("--config", metavar="CONFIG", help="a study that is to run there")
    _add_set(cluster)


#: What may be picked.
PICKS = (
    "knee: the front's bend; best: the highest quality; best@0.5 or best@parameters<=0.5: of what "
    "costs no more; a baseline such as share_all; or a name such as es-0-17"
)


def _add_set(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a key of the config, dotted: proxy.sgd.steps=300 (may be repeated), or keys "
        "that a YAML file maps to values: @FILE",
    )


def _add_study(command: argparse.ArgumentParser) -> None:
    command.add_argument("study", type=Path, metavar="STUDY", help="a study's folder")
