"""What is compared, by hand and brute force, and the command on a record, without Ray."""

import io
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow import MlflowClient
from PIL import Image
from rich.console import Console
from test_cli import SMALL, refused

from search.candidates import Candidate, study_hypervolume
from search.cli import main
from search.commands.report import make_tracker
from search.commands.sync import sync
from search.comparison import Comparison, compare_strategies, comparison_figure, show_comparison
from search.comparison.arm_curves import arm_curve, attainment, idle_share, shortfall
from search.comparison.compare import CompareError
from search.comparison.tables import comparison_markdown, curve_table, pair_rows, strategy_table
from search.config import parse_config
from search.record import Record
from search.stats import LEVEL, MOST_STRATEGIES, least_p
from search.study import Study

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")

REFERENCE = (0.0, 1.0)


def make(
    quality: float | None,
    cost: float | None = 0.5,
    strategy: str = "es",
    seed: int = 0,
    index: int = 0,
    seconds: float = 2.0,
    **changes: Any,
) -> Candidate:
    evaluation: dict[str, Any] = {} if quality is None else {"seconds": seconds}
    candidate = Candidate(
        strategy=strategy, seed=seed, index=index, vector=(0.5,), names=("use[a]",),
        quality=quality, cost=cost, evaluation=evaluation, started=float(index),
        finished=100.0 - index, error=None if quality is not None else "boom",
    )  # fmt: skip
    return replace(candidate, **changes)


def arms(
    levels: dict[str, float], seeds: Sequence[int], count: int = 4, noise: float = 0.01
) -> Iterator[Candidate]:
    """Arms of one cost whose quality grows to a level, with noise of their own."""
    for seed in seeds:
        for number, (name, level) in enumerate(levels.items()):
            draws = np.random.default_rng([seed, number])
            top = level + noise * draws.normal()
            for index in range(count):
                yield make(top * (index + 1) / count, 0.5, name, seed, index)


def compared(candidates: Sequence[Candidate], **changes: Any) -> Comparison:
    names = list(dict.fromkeys(candidate.strategy for candidate in candidates))
    given = {"strategies": names, "budget": 4, "reference": REFERENCE} | changes
    return compare_strategies(candidates, **given)


class TestCurve:
    def test_by_hand(self) -> None:
        rungs = [{"seconds": 1.0, "quality": 0.2}, {"seconds": 3.0, "quality": 0.6}]
        arm = [
            make(0.5, 0.5, index=0),
            make(None, None, index=1),
            make(0.4, 0.6, index=2),
            make(0.9, 0.5, index=3, evaluation={"final": False, "rungs": rungs[:1]}),
            make(0.6, 0.5, index=4, evaluation={"final": True, "rungs": rungs, "seconds": 3.0}),
        ]
        curve = arm_curve(arm[::-1], REFERENCE)  # finished in the opposite order of asking
        assert curve.volume_K == pytest.approx([0.25, 0.25, 0.25, 0.25, 0.3])
        assert curve.seconds_K.tolist() == [2, 2, 4, 5, 9]
        assert (curve.failed, curve.stopped, curve.volume, curve.seconds) == (1, 1, 0.3, 9)
        assert curve.area == pytest.approx(1.3 / 5)
        after = curve.after(np.array([0, 1.9, 2, 8.9, 9, 99]))
        assert after == pytest.approx([0, 0, 0.25, 0.25, 0.3, 0.3])
        assert curve.front_F2.tolist() == [[0.5, 0.6]]

    @settings(deadline=None, max_examples=30)
    @given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1.2)), min_size=1, max_size=10))
    def test_rises_to_the_hypervolume(self, points: list[tuple[float, float]]) -> None:
        arm = [make(q, c, index=i) for i, (q, c) in enumerate(points)]
        curve = arm_curve(arm, REFERENCE)
        assert (np.diff(curve.volume_K) >= -1e-12).all()
        for count in range(1, len(arm) + 1):
            expected = study_hypervolume(arm[:count], REFERENCE)
            assert curve.volume_K[count - 1] == pytest.approx(expected)

    def test_idle_share(self) -> None:
        def scored(index: int, name: str, begin: float, end: float) -> Candidate:
            evaluation = {"seconds": 6.0, "evaluator": name}
            return make(
                0.5, index=index, evaluation=evaluation, started=begin, finished=end
            )  # fmt: skip

        # Two evaluators over 20 and 10 seconds; the break between them is nobody's time.
        arm = [scored(0, "a", 0, 8), scored(1, "a", 5, 20), scored(2, "b", 1000, 1010)]
        assert idle_share(arm) == pytest.approx(1 - 18 / 30)
        assert math.isnan(idle_share([make(0.5)]))
        assert math.isnan(idle_share([scored(0, "a", 0, 1)]))  # simulated seconds


class TestAttainment:
    @settings(deadline=None, max_examples=50)
    @given(st.integers(0, 10**6), st.integers(1, 6), st.sampled_from([0, 0.3, 0.5, 1]))
    def test_by_brute_force(self, seed: int, count: int, share: float) -> None:
        draws = np.random.default_rng(seed)
        fronts = [draws.integers(0, 6, (draws.integers(0, 5), 2)) / 5 for _ in range(count)]
        needed = max(1, math.ceil(share * count))
        corners = attainment(fronts, share)
        assert (np.diff(corners[:, 0]) > 0).all()
        for cost in np.arange(6) / 5:
            best = [max((q for c, q in f if c <= cost), default=-1) for f in fronts]
            expected = sorted(best, reverse=True)[needed - 1]
            found = max((q for c, q in corners if c <= cost), default=-1)
            assert found == pytest.approx(expected)

    def test_shortfall(self) -> None:
        pooled = np.array([[0.2, 0.5], [0.6, 0.9]])
        assert shortfall(pooled, pooled) == 0
        assert shortfall(pooled - [0, 0.1], pooled) == pytest.approx(0.1)
        assert shortfall(pooled[:1], pooled) == pytest.approx(0.4)
        assert shortfall(pooled[1:], pooled) == pytest.approx(0.4)
        assert shortfall(pooled[:0], pooled) == math.inf


class TestWhatIsCompared:
    def test_the_better_one_wins(self) -> None:
        found = compared([*arms({"random": 0.5, "es": 0.8}, range(8))])
        assert found.verdict.startswith("es finds the better front: it beats random")
        assert [s.name for s in found.standings] == ["es", "random"]
        best = found.standings[0]
        assert best.volume.value == pytest.approx(np.mean(best.volumes))
        assert best.volume.low < best.volume.value < best.volume.high
        assert (found.seeds, found.candidates, found.notes) == (tuple(range(8)), 4, ())
        assert found.seconds == 8
        # A first candidate has a quarter of the quality of the last.
        assert best.curves[0].area == pytest.approx(best.curves[0].volume * 2.5 / 4)

    def test_equal_ones_do_not(self) -> None:
        same = [
            replace(c, strategy=name) for name in ("es", "gp") for c in arms({"x": 0.5}, range(8))
        ]
        found = compared(same)
        assert found.pairs[0].p_adjusted == 1
        assert found.verdict.startswith("no winner: between es and gp there is no difference")

    def test_at_equal_budgets(self) -> None:
        given = [*arms({"random": 0.5, "es": 0.8}, range(8))]
        given = [c for c in given if c.id != "es-3-2"]  # es-3-3 then does not count, either
        found = compared(given)
        assert found.candidates == 2
        assert len(found.seeds) == 8
        assert {len(c.volume_K) for s in found.standings for c in s.curves} == {2}
        assert found.notes == (
            "compared at the first 2 candidates of every arm, the most that all have; the budget "
            "is 4",
        )
        # A budget that was lowered since is the one that counts.
        found = compared([*arms({"random": 0.5, "es": 0.8}, range(8))], budget=3)
        assert (found.candidates, found.notes) == (3, ())

    def test_at_equal_seconds(self) -> None:
        given = [*arms({"random": 0.5, "es": 0.8}, range(8), count=6)]
        slow = [replace(c, evaluation={"seconds": 4.0}) if c.strategy == "es" else c for c in given]
        found = compared(slow, device_seconds=9.0)
        counted = {s.name: {len(c.volume_K) for c in s.curves} for s in found.standings}
        assert counted == {"es": {2}, "random": {4}}
        assert (found.candidates, found.seconds, found.notes) == (2, 9, ())
        assert "what 9 device-seconds pay for" in comparison_markdown(found)
        # random: 4/6 of .5 is above 2/6 of .8, so that the order is another than at the end.
        assert found.verdict.startswith("random finds the better front")
        assert compared(slow).verdict.startswith("es finds the better front")
        found = compared(slow, device_seconds=100.0)
        assert found.seconds == 12
        assert found.notes == (
            "compared at the first 12 device-seconds of every arm, the most that all have; the "
            "budget is 100",
        )
        slow = [replace(c, evaluation={"seconds": 50.0}) for c in given if c.strategy == "es"]
        slow += [c for c in given if c.strategy == "random"]
        with pytest.raises(CompareError, match="do not pay for the first candidate of es"):
            compared(slow, device_seconds=9.0)

    def test_who_made_evaluators_wait(self) -> None:
        given = []
        for candidate in arms({"random": 0.5, "es": 0.8}, range(6)):
            begun = 2.2 * candidate.index if candidate.strategy == "es" else 2.0 * candidate.index
            given.append(
                replace(
                    candidate, started=begun, finished=begun + 2.0,
                    evaluation={"seconds": 2.0, "evaluator": "here"},
                )
            )  # fmt: skip
        (note,) = compared(given).notes
        assert note.startswith("evaluators of es waited 7% of their time, more than 5%")

    def test_seeds_that_have_hardly_begun(self) -> None:
        given = [*arms({"random": 0.5, "es": 0.8}, range(8))]
        given = [c for c in given if (c.seed, c.strategy) != (6, "es")]
        given = [c for c in given if c.seed != 7 or c.index == 0]
        found = compared(given)
        assert (found.seeds, found.candidates) == (tuple(range(6)), 4)
        assert found.notes == (
            "left out: seeds 6 and 7, in which some arms have less than half of their candidates",
        )

    def test_what_only_better_arms_have_is_left_out(self) -> None:
        given = [*arms({"random": 0.5, "es": 0.8}, range(8))]
        stopped = [c for c in given if c.strategy == "es" or c.seed == 0 or c.index < 2]
        found = compared(stopped, halved=2)
        assert (found.seeds, found.candidates) == (tuple(range(8)), 2)
        assert found.notes == (
            "left out: candidates after the first 2, which only arms have that schedule.halve_arms "
            "did not stop",
        )

    def test_nothing_but_the_start_that_all_have_in_common(self) -> None:
        given = [*arms({"random": 0.5, "es": 0.8}, range(8))]
        (note,) = compared(given, initial=4).notes
        assert note.startswith("nothing can be told apart: the first 4 candidates (initial)")
        assert compared(given, initial=3).notes == ()

    def test_a_strategy_without_candidates(self) -> None:
        given = [*arms({"random": 0.5, "es": 0.8}, range(6))]
        found = compared(given, strategies=["random", "es", "gp"])
        assert found.notes == ("left out: gp, of which nothing is recorded",)
        few = compared([c for c in given if not (c.seed and c.index)])
        assert (few.seeds, few.candidates) == ((0, 1), 1)
        with pytest.raises(CompareError, match=r"got es; .* do not, and nothing is recorded of gp"):
            compared(given, strategies=["es", "gp"])

    def test_fixed_baselines_are_shown_and_not_tested(self) -> None:
        given = [*arms({"random": 0.5, "es": 0.8}, range(6))]
        given += [make(0.6, 0.5, "baselines", seed) for seed in range(6)]
        found = compared(given, baselines=["baselines"])
        assert [s.name for s in found.standings] == ["es", "random", "baselines"]
        assert len(found.pairs) == 1
        assert found.candidates == 4
        assert found.summary()["strategies"]["baselines"] == {
            "hypervolume_mean": pytest.approx(0.3),
            "ci_low": pytest.approx(0.3),
            "ci_high": pytest.approx(0.3),
        }
        one = compared(
            [c for c in given if c.strategy != "baselines" or not c.seed], baselines=["baselines"]
        )
        assert one.standings[-1].volume.low == pytest.approx(0.3)

    def test_nothing_to_compare(self) -> None:
        both = {"random": 0.5, "es": 0.8}
        for candidates, message in (
            (arms(both, [0]), "at least 2 seeds that all strategies have run with, got 1"),
            (arms({"es": 0.5}, [0, 1]), "2 strategies that search, got es"),
            (iter(()), "got none"),
        ):
            with pytest.raises(CompareError, match=message):
                compared([*candidates])

    def test_more_strategies_than_pairs_can_tell_apart(self) -> None:
        assert math.comb(MOST_STRATEGIES, 2) * least_p(64) < LEVEL
        assert math.comb(MOST_STRATEGIES + 1, 2) * least_p(64) >= LEVEL
        many = {f"es.{i}": 0.5 for i in range(MOST_STRATEGIES + 1)}
        with pytest.raises(CompareError, match="at most 81 strategies can be compared, got 82"):
            compared([*arms(many, range(2))])

    def test_arms_of_failures_alone(self) -> None:
        given = [*arms({"random": 0.5}, range(6))]
        given += [make(None, None, "es", s, i) for s in range(6) for i in range(4)]
        found = compared(given)
        assert found.verdict.startswith("random finds the better front")
        assert found.standings[1].volume.value == 0
        table = strategy_table(found).set_index("strategy")
        assert table.loc["es", "failed"] == 24
        assert table.loc["es", "shortfall"] == math.inf
        assert found.seconds == 0
        assert set(curve_table(found)["against"]) == {"candidates"}


def test_tables(tmp_path: Path) -> None:
    given = [*arms({"random": 0.5, "es": 0.8}, range(8))]
    given[5] = make(None, None, given[5].strategy, given[5].seed, given[5].index)
    given += [make(0.6, 0.5, "baselines", seed) for seed in range(8)]
    found = compared(given, baselines=["baselines"], true_hypervolume=0.5)
    table = strategy_table(found).set_index("strategy")
    assert table.loc["es", "of_true_front"] == pytest.approx(
        table.loc["es", "hypervolume_mean"] / 0.5
    )
    assert table.loc["es", ["candidates", "failed", "seeds"]].tolist() == [32, 1, 8]
    assert "of_true_front" not in strategy_table(compared(given, baselines=["baselines"]))
    curves = curve_table(found)
    for (_, against), own in curves.groupby(["strategy", "against"]):
        assert (own["mean"].diff().dropna() >= -1e-12).all()
        assert (own["ci_low"] <= own["mean"]).all()
        assert (own["mean"] <= own["ci_high"]).all()
        assert own["spent"].iloc[0] == (1 if against == "candidates" else 0)
    last = curves[curves["against"] == "candidates"].groupby("strategy")["mean"].last()
    assert last.to_dict() == pytest.approx(table["hypervolume_mean"].to_dict())
    text = comparison_markdown(found)
    assert text.startswith(f"**Verdict:** {found.verdict}")
    assert "| baselines (fixed) |" in text
    assert pair_rows(found)[1][0] == "es - random"
    assert pair_rows(found)[1][5] == "8 of 8"


@pytest.mark.parametrize("width", [50, 80, 200])
def test_a_terminal_shows_what_fits(width: int) -> None:
    found = compared([*arms({"random": 0.5, "es": 0.8}, range(8))])
    console = Console(width=width, record=True, file=io.StringIO())
    show_comparison(found, console)
    said = console.export_text()
    rows = said.partition("Means over")[0].splitlines()
    assert all(len(row) <= width for row in rows)
    assert "…" not in said
    assert ("device-seconds" in said) == (width == 200)
    assert said.rstrip().endswith(found.verdict)


@pytest.mark.parametrize("strategies", [2, 10])
def test_the_picture(tmp_path: Path, strategies: int) -> None:
    given = [*arms({f"s{i}": 0.3 + 0.05 * i for i in range(strategies)}, range(6))]
    given += [make(0.6, 0.4, "baselines", seed) for seed in range(6)]
    comparison_figure(compared(given, baselines=["baselines"]), tmp_path / "comparison.png")
    with Image.open(tmp_path / "comparison.png") as image:
        assert image.width > 1500


def test_a_picture_of_failures(tmp_path: Path) -> None:
    given = [make(None, None, name, s, i) for name in "ab" for s in range(6) for i in range(4)]
    comparison_figure(compared(given), tmp_path / "comparison.png")
    assert (tmp_path / "comparison.png").stat().st_size > 1000


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A record of three strategies, two of which search, with seven seeds; nothing computed."""
    folder = tmp_path_factory.mktemp("study")
    changed = {
        "output": str(folder), "data_root": str(folder), "seeds": list(range(7)), "candidates": 2,
        "strategies": {"baselines": {}, "random": {}, "es": {}},
        "objective": {"reference": list(REFERENCE)},
    }  # fmt: skip
    study = Study.create(parse_config(SMALL | changed))
    with Record(study.record_path, study.name) as record:
        for candidate in arms({"random": 0.5, "es": 0.8}, range(7), 2):
            record.add(candidate)
        for seed in range(7):
            record.add(make(0.6, 0.5, "baselines", seed))
    return study


def test_the_command(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(study.folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == ["seeds", "candidates", "strategies", "pairs", "verdict"]
    assert (found["seeds"], found["candidates"]) == (7, 2)
    assert list(found["strategies"]) == ["es", "random", "baselines"]
    for standing in found["strategies"].values():
        assert list(standing) == ["hypervolume_mean", "ci_low", "ci_high"]
        assert standing["ci_low"] <= standing["hypervolume_mean"] <= standing["ci_high"]
    assert found["strategies"]["baselines"]["hypervolume_mean"] == pytest.approx(0.3)
    assert found["pairs"] == [{"a": "es", "b": "random", "p_adjusted": 2 / 2**7, "better": "es"}]
    assert found["verdict"] == (
        "es finds the better front: it beats random (Holm-adjusted p <= 0.016, 7 seeds)"
    )
    folder = study.folder / "compare"
    names = ["comparison.csv", "comparison.md", "comparison.png", "curves.csv", "pairs.csv"]
    assert sorted(path.name for path in folder.iterdir()) == names
    table = pd.read_csv(folder / "comparison.csv")
    assert table["strategy"].tolist() == ["es", "random", "baselines"]
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert main(["compare", str(study.folder)]) == 0
    said = capsys.readouterr().out
    assert found["verdict"] in said
    assert str(folder) in said
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    sync(study)

    client = MlflowClient(tracking_uri=study.store_uri)
    experiment = client.get_experiment_by_name("apportion")
    (run,) = client.search_runs(
        [experiment.experiment_id], "tags.`apportion.kind` = 'comparison'"
    )  # fmt: skip
    assert run.info.status == "FINISHED"
    mean = found["strategies"]["es"]["hypervolume_mean"]
    assert run.data.metrics["hypervolume_mean/es"] == pytest.approx(mean)
    assert len(client.get_metric_history(run.info.run_id, "hypervolume_mean/es")) == 1
    assert sorted(a.path for a in client.list_artifacts(run.info.run_id)) == names
    parent = client.get_run(run.data.tags["mlflow.parentRunId"])
    assert parent.data.tags["apportion.kind"] == "study"


@pytest.mark.parametrize("status", ["KILLED", "RUNNING"])
def test_a_comparison_does_not_finish_a_study(study: Study, status: str) -> None:
    tracker = make_tracker(study)()
    tracker.start({})
    if status != "RUNNING":
        tracker.finish(status)
    assert main(["compare", str(study.folder)]) == 0
    run = MlflowClient(tracking_uri=study.store_uri).get_run(tracker.run_id)
    assert run.info.status == status


def test_bad_commands(
    study: Study,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert "is not a study" in refused(capsys, "compare", tmp_path)
    assert "does not exist" in refused(capsys, "compare", tmp_path / "none.yaml")
    for text in ("{a: [", "[1]", "", "version: 1"):
        (tmp_path / "damaged").mkdir(exist_ok=True)
        (tmp_path / "damaged" / "config.yaml").write_text(text)
        assert "config.yaml is damaged" in refused(capsys, "compare", tmp_path / "damaged")
    assert "--set changes a config" in refused(
        capsys, "compare", study.folder, "--set", "candidates=8"
    )
    config = study.folder / "config.yaml"
    assert "did you mean 'candidates'" in refused(capsys, "compare", config, "--set", "candidats=8")
    assert "2 seeds" in refused(capsys, "compare", config, "--set", "seeds=[0]")
    assert "got random; fixed baselines do not" in refused(
        capsys, "compare", config, "--set", "strategies={random: {}, baselines: {}}"
    )


def test_a_config_is_searched_first(
    study: Study, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def search(config: Any, *, resume: bool, console: Any) -> Study:
        asked.append((config.seeds, resume))
        console.print("searching")
        return study

    monkeypatch.setattr("search.commands.compare.search", search)
    config = study.folder / "config.yaml"
    assert main(["compare", str(config), "--set", "seeds=[0,1,2,3,4]", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["seeds"] == 7
    assert "searching" in err
    assert "no difference between 2 strategies can be shown with 5 seeds; it takes 6" in err
    assert main(["compare", str(config), "--set", "name=fresh", "--json"]) == 0
    assert "warning" not in capsys.readouterr().err
    assert asked == [((0, 1, 2, 3, 4), True), (tuple(range(7)), False)]
