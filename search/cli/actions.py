"""What every command does with its options; each loads only what it needs."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from search.cli.parser import PICKS
from search.cli.printing import (
    print_methods,
    print_standing,
    print_trained,
    print_tried,
)
from search.commands.scores import require_scores
from search.config import ConfigError, StudyConfig, load_config, read_yaml
from search.record import require_no_writer
from search.study import Study, StudyError


class OutputConsole(Console):
    """A console whose reader may go away, as `head` does; `main` says what follows from that."""

    def on_broken_pipe(self) -> None:
        """Write nothing more, on the way out."""
        self.quiet = True
        raise BrokenPipeError


CONSOLE = OutputConsole()


def run_search(options: argparse.Namespace) -> None:
    """`apportion search`."""
    given = [path for path in (options.config, options.config_option) if path]
    if len(given) != 1:
        raise ConfigError("give one config: apportion search CONFIG, or --config CONFIG")
    config = load_config(given[0], options.set)
    require_no_writer(config.folder / "record.journal")
    from search.commands.search import search  # loads Ray and MLflow, which takes seconds

    study = search(
        config, resume=options.resume, console=_progress_console(options), quiet=options.quiet,
        closing=not options.json,
    )  # fmt: skip
    if options.json:
        print(json.dumps(study.summary(), indent=2))


def run_check(options: argparse.Namespace) -> None:
    """`apportion check`."""
    from search.commands.check import check

    config = check(options.config, options.set, say=_say(CONSOLE))
    if config.methods:
        count = len(config.methods) * len(config.seeds)
        print(f"{options.config} can be trained: {count} trainings, each of a method with a seed")
        return
    arms = len(config.strategies) * len(config.seeds)
    print(f"{options.config} can be searched: {arms} arms of {config.candidates} candidates")


def run_calibrate(options: argparse.Namespace) -> None:
    """`apportion calibrate`."""
    from search.calibration import show_calibration
    from search.commands.calibrate import calibrate, open_study  # loads Ray, which takes seconds

    config = _config_of(options)
    study = Study(options.study) if config is None else open_study(config)
    summary = calibrate(study, say=_say(_progress_console(options)))
    if options.json:
        print(json.dumps(summary, indent=2))
    else:
        show_calibration(summary, CONSOLE)
        print(f"picture, points and numbers: {study.folder / 'calibration'}/calibration.*")


def run_compare(options: argparse.Namespace) -> None:
    """`apportion compare`."""
    config = _config_of(options)
    if config is not None:
        require_no_writer(config.folder / "record.journal")
    from search.commands.compare import compare, search_to_compare  # loads Ray: seconds
    from search.comparison import show_comparison

    progress = _progress_console(options)
    study = Study(options.study) if config is None else search_to_compare(config, console=progress)
    comparison = compare(study, say=_say(progress))
    if options.json:
        print(json.dumps(comparison.summary(), indent=2))
    else:
        show_comparison(comparison, CONSOLE)
        print(f"tables, curves and picture: {study.folder / 'compare'}")


def run_front(options: argparse.Namespace) -> None:
    """`apportion front`."""
    study = Study(options.study)
    if options.json:
        print(json.dumps(study.summary(), indent=2))
    else:
        from search.commands.fronts import print_front

        print_front(study, CONSOLE)
    require_scores(study)


def run_train(options: argparse.Namespace) -> None:
    """`apportion train`."""
    if options.table:
        _train_table(options)
        return
    from search.commands.fronts import say_fixed
    from search.commands.train import (  # loads Ray, which takes seconds
        train,
        train_methods,
        training_settings,
    )

    # What is trained of a study may be trained otherwise; what it is, no option changes.
    is_study = options.study.is_dir() if options.picks else _is_study(options)
    if options.picks is None:
        if options.seeds is not None:
            raise ConfigError("--seeds is for --pick; those of methods are the config's: seeds")
        file = Study(options.study).folder / "config.yaml" if is_study else options.study
        config = load_config(file, options.set, options.methods)
        print_methods(train_methods(config, options.methods, say=_say(CONSOLE)), CONSOLE)
        return
    if not is_study or options.methods:
        if not options.study.exists():
            raise ConfigError(f"there is no study {options.study}")
        raise ConfigError("--pick is for the candidates of a study: give its folder, no --method")
    study, seeds = Study(options.study), 1 if options.seeds is None else options.seeds
    settings = training_settings(study, options.set)
    say_fixed(study, options.picks, _say(CONSOLE))
    for trained in train(study, options.picks, seeds=seeds, settings=settings, say=_say(CONSOLE)):
        print_trained(trained)
    print_tried(study.tried(settings), CONSOLE)


def _train_table(options: argparse.Namespace) -> None:
    """`apportion train --table`."""
    from search.commands.calibrate import open_study  # loads Ray, which takes seconds
    from search.commands.table import table_folder, train_table
    from search.commands.train import training_settings

    if options.methods:
        raise ConfigError("--table is for the candidates of a study, --method for methods")
    if options.study.is_dir():
        study = Study(options.study)
        settings = training_settings(study, options.set)
    else:
        config = load_config(options.study, options.set)
        require_no_writer(config.folder / "record.journal")
        study, settings = open_study(config), None
    seeds = 3 if options.seeds is None else options.seeds
    table = train_table(
        study, options.picks or (), seeds=seeds, settings=settings, say=_say(CONSOLE)
    )
    print_standing(table, CONSOLE)
    print(f"table and picture: {table_folder(study, settings or study.config)}")


def run_export(options: argparse.Namespace) -> None:
    """`apportion export`."""
    from search.commands.fronts import say_fixed
    from search.commands.hub import push_to_hub, require_login
    from search.commands.publish import export, training_of
    from search.commands.train import training_settings
    from trainers.export import ExportConfig

    if (options.pick is None) == (options.run is None):
        raise ConfigError(f"give --pick, one of {PICKS}; or --run, the id of a training in MLflow")
    study, pick = Study(options.study), options.pick
    wanted = options.seed or "0"
    if not (wanted.isdecimal() or wanted == "best"):
        raise ConfigError(f"--seed must be best, or a number of at least 0, got {wanted}")
    settings = training_settings(study, options.set) if options.set else None
    if options.run is not None:
        if options.set or options.seed is not None:
            raise ConfigError("--run says seed and settings: leave out --seed and --set")
        pick, seed, settings = training_of(study, options.run)
    elif wanted == "best":
        if study.config.methods:
            raise ConfigError("--seed is for what a search has found")
        seed = study.best_seed(pick, settings, say=_say(_progress_console(options)))
    else:
        seed = int(wanted)
    formats = options.format.split(",") if options.format else ["onnx", "pt2"]
    if not (options.format or study.config.methods):
        formats.append("merged")
    files = ExportConfig(
        formats=tuple(formats),
        precisions=tuple(name for name in ("float16", "int8") if getattr(options, name)),
        inputs=options.input,
        max_loss=options.max_loss / 100,
    )
    if options.private and options.push_to_hub is None:
        raise ConfigError("--private is for --push-to-hub")
    if options.push_to_hub is not None:
        require_login(options.push_to_hub)
    say_fixed(study, [pick], _say(_progress_console(options)))
    exported = export(
        study, pick, options.out,
        seed=seed, settings=settings, files=files, register=options.register,
        say=_say(_progress_console(options)),
    )  # fmt: skip
    if options.push_to_hub is not None:
        where = push_to_hub(Path(options.out), options.push_to_hub, private=options.private)
        _say(_progress_console(options))(f"pushed to {where}")
    if options.json:
        print(json.dumps(exported.summary(), indent=2))


def run_predict(options: argparse.Namespace) -> int:
    """`apportion predict`; the exit status is 1 where a picture cannot be read."""
    from search.commands.predict import as_rows, predict_pictures, print_predicted, write_rows

    precision = next((name for name in ("float16", "int8") if getattr(options, name)), "float32")
    found = predict_pictures(
        options.export, options.images,
        networks=options.task, precision=precision, top=options.top, sheet=options.sheet,
    )  # fmt: skip
    if options.csv:
        write_rows(found, options.csv)
    if options.json:
        print(json.dumps(as_rows(found), indent=2))
    else:
        print_predicted(found, CONSOLE)
    return 1 if any(one.reason for one in found) else 0


def run_benchmark(options: argparse.Namespace) -> None:
    """`apportion benchmark`."""
    from dataclasses import asdict

    from search.commands.benchmark import benchmark_export, draw_timings, print_timings

    if (options.export / "config.yaml").is_file():
        _benchmark_front(options)
        return
    if options.pick:
        raise StudyError(f"--pick is for studies, and {options.export} is none")
    timings = benchmark_export(
        options.export,
        networks=options.task,
        precisions=["float32", *(name for name in ("float16", "int8") if getattr(options, name))],
        batches=options.batch,
        threads=options.threads,
    )
    if options.figure:
        draw_timings(timings, options.figure)
    if options.json:
        print(json.dumps([asdict(one) for one in timings], indent=2))
    else:
        print_timings(timings, CONSOLE)


def _benchmark_front(options: argparse.Namespace) -> None:
    """`apportion benchmark STUDY`."""
    from dataclasses import asdict

    from search.commands.benchmark_front import (
        benchmark_front,
        draw_front_timings,
        print_front_timings,
    )

    if given := [name for name in ("task", "float16", "int8") if getattr(options, name)]:
        raise StudyError(f"--{given[0]} is for exports, and {options.export} is a study")
    timings = benchmark_front(
        Study(options.export), options.pick, batches=options.batch, threads=options.threads
    )
    if options.figure:
        draw_front_timings(timings, options.figure)
    if options.json:
        print(json.dumps([asdict(one) for one in timings], indent=2))
    else:
        print_front_timings(timings, CONSOLE)


def run_report(options: argparse.Namespace) -> None:
    """`apportion report`."""
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
    require_scores(study)


def run_list(options: argparse.Namespace) -> None:
    """`apportion list`."""
    from search.commands.listing import list_studies, print_studies

    studies = list_studies(options.folder)
    if options.json:
        print(json.dumps([one.summary() for one in studies], indent=2))
    else:
        print_studies(studies, options.folder, CONSOLE)


def run_ui(options: argparse.Namespace) -> int:
    """`apportion ui`; it goes on until it is interrupted."""
    from search.commands.listing import is_study
    from search.commands.ui import has_browser, show_studies, show_study

    browser = has_browser() and not options.no_browser

    def say(line: str) -> None:
        print(line, flush=True)

    if options.study.is_dir() and not is_study(options.study):
        return show_studies(options.study, options.port, say=say, browser=browser)
    return show_study(Study(options.study), options.port, say=say, browser=browser)


def run_groups(options: argparse.Namespace) -> None:
    """`apportion groups`."""
    from search.commands.groups import groups_of_network, groups_of_study, show_groups
    from trainers.networks import BackboneConfig

    args = read_yaml(options.args, "--args")
    if not isinstance(args, dict):
        raise ConfigError(f"--args must be a mapping such as {{width: 32}}, got {options.args}")
    if options.network.endswith((".yaml", ".yml")):
        if args or options.divide or options.stream or options.size:
            raise ConfigError("--args, --divide, --stream and --size are for a network: a config "
                              "is changed by --set")  # fmt: skip
        found = groups_of_study(load_config(options.network, options.set))
    elif options.set:
        raise ConfigError(f"--set changes a config, which {options.network} is not")
    else:
        config = BackboneConfig(
            model=options.network,
            args=args,
            partition=tuple(options.divide),
            stream=options.stream,
        )
        found = groups_of_network(config, options.size)
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        show_groups(found, CONSOLE)


def run_cluster(options: argparse.Namespace) -> int:
    """`apportion cluster check`; the exit status is 1 where something is missing."""
    from search.commands.cluster import check_cluster

    if options.set and not options.config:
        raise ConfigError("--set changes a config: give it by --config")
    config = load_config(options.config, options.set) if options.config else None
    return 0 if check_cluster(options.file, config, CONSOLE) else 1


def run_doctor(options: argparse.Namespace) -> int:
    """`apportion doctor`; the exit status is 1 where something needed does not work."""
    from search.commands.doctor import examine

    return 0 if examine(CONSOLE) else 1


def _config_of(options: argparse.Namespace) -> StudyConfig | None:
    """The config that a command was given with `--set`, or None where it was a study's folder."""
    return None if _is_study(options) else load_config(options.study, options.set)


def _is_study(options: argparse.Namespace) -> bool:
    """Whether a command was given a study's folder, not a config, which alone takes `--set`."""
    is_study: bool = options.study.is_dir()
    if is_study and options.set:
        raise ConfigError(f"--set changes a config, but {options.study} is a study's folder")
    return is_study


def _progress_console(options: argparse.Namespace) -> Console:
    """Progress must not mix with the one JSON object on the standard output."""
    return OutputConsole(stderr=True) if options.json else CONSOLE


def _say(console: Console) -> Callable[[str], None]:
    return lambda line: console.print(line, highlight=False, markup=False, soft_wrap=True)
