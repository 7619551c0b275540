"""`apportion compare`: which strategy finds the better front."""

from rich.console import Console

from partitioning import write_atomically
from search.commands.report import make_tracker
from search.commands.scores import require_scores
from search.commands.search import search
from search.comparison import (
    Comparison,
    Terms,
    baseline_strategies,
    compare_strategies,
    comparison_figure,
    comparison_metrics,
    refuse_few,
    write_tables,
)
from search.config import COSTS, StudyConfig, dump_config
from search.mirror import TrackingError
from search.stats import fewest_seeds
from search.study import Say, Study, require_writable


def search_to_compare(config: StudyConfig, *, console: Console | None = None) -> Study:
    """Run a study whose strategies are to be compared, or go on with it, to its end.

    Args:
        config: The study, with several seeds.
        console: Where progress is shown; None is the standard output.

    Returns:
        The study, to be handed to `compare`.

    Raises:
        CompareError: The config has nothing to compare; raised before any compute starts.
        ValueError, RecordError, ArmsError: As `search`.
    """
    contestants = config.strategies.keys()
    fixed = baseline_strategies(config)
    refuse_few(config.seeds, contestants - set(fixed), fixed)
    console = console or Console()
    needed = fewest_seeds(len(contestants))
    if len(config.seeds) < needed:
        console.print(
            f"warning: no difference between {len(contestants)} strategies can be shown with "
            f"{len(config.seeds)} seeds; it takes {needed} or more",
            highlight=False, markup=False, soft_wrap=True,
        )  # fmt: skip
    return search(config, resume=(config.folder / "config.yaml").is_file(), console=console)


def compare(
    study: Study | StudyConfig, *, say: Say = print, console: Console | None = None
) -> Comparison:
    """Hold the strategies of a study against each other: which finds the better front?

    Args:
        study: A study with two or more seeds and strategies, of which the record is
            taken as it is; or a config, which is searched first, or gone on with, to its end.
        say: Called where MLflow could not be reached.
        console: Where the progress of a search is shown; None is the standard output.

    Returns:
        The comparison, which `show_comparison` prints; it is written to the study's `compare`
        folder and to MLflow, too.

    Raises:
        CompareError: There is nothing to compare; of a config raised before any compute starts.
        NoScoresError: Every candidate failed.
        StudyError: The folder cannot be written.
        ValueError, RecordError, ArmsError: As `search`, of a config.
    """
    if isinstance(study, StudyConfig):
        study = search_to_compare(study, console=console)
    require_scores(study)
    config, candidates = study.config, study.candidates()
    comparison = compare_strategies(candidates, Terms.of(study))
    folder = study.folder / "compare"
    require_writable(folder)
    files = write_tables(comparison, folder)
    picture = folder / "comparison.png"
    with write_atomically(picture) as partial:
        comparison_figure(comparison, partial, cost=COSTS[config.objective.cost].words)
    try:
        tracker = make_tracker(study)()
        tracker.start(dump_config(config))
        tracker.log_comparison(
            comparison_metrics(comparison),
            comparison.counted,
            max(candidate.finished for candidate in candidates),
            [*files, picture],
        )
        if tracker.before != "RUNNING":  # a search may be under way
            tracker.finish(tracker.before or "FINISHED")
    except TrackingError as error:
        say(f"MLflow missed the comparison; run it again to complete it: {error}")
    return comparison
