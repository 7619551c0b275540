"""What is compared, and at which budget."""

import math
from dataclasses import replace

import numpy as np
import pytest

from search.comparison import CompareError, refuse_few
from search.comparison.tables import comparison_markdown, strategy_table
from search.stats import LEVEL, MOST_STRATEGIES, least_p
from tests.helpers.candidates import measurement
from tests.helpers.comparisons import arms, compared, make


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
        slow = [
            replace(c, rungs=(measurement(c.quality, seconds=4.0),)) if c.strategy == "es" else c
            for c in given
        ]
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
        slow = [
            replace(c, rungs=(measurement(c.quality, seconds=50.0),))
            for c in given
            if c.strategy == "es"
        ]
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
                    rungs=(measurement(candidate.quality, seconds=2.0, evaluator="here"),),
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
        other = [replace(c, vector=(0.1,)) if c.strategy == "es" else c for c in given]
        assert compared(other, initial=4).notes == (), "one that draws otherwise has its own"

    def test_a_strategy_without_candidates(self) -> None:
        given = [*arms({"random": 0.5, "es": 0.8}, range(6))]
        found = compared(given, strategies=["random", "es", "gp"])
        assert found.notes == ("left out: gp, of which nothing is recorded",)
        few = compared([c for c in given if not (c.seed and c.index)])
        assert (few.seeds, few.candidates) == ((0, 1), 1)
        with pytest.raises(CompareError, match=r"got es; nothing that counts is recorded of gp"):
            compared(given, strategies=["es", "gp"])

    def test_fixed_baselines_are_contestants(self) -> None:
        given = [*arms({"random": 0.5, "es": 0.8}, range(8))]
        given += [make(0.6, 0.5, "baselines", seed) for seed in range(8)]
        found = compared(given, baselines=["baselines"])
        assert [s.name for s in found.standings] == ["es", "baselines", "random"]
        assert len(found.pairs) == 3
        assert found.candidates == 4
        said = found.summary()["strategies"]["baselines"]
        for key in ("hypervolume_mean", "ci_low", "ci_high"):
            assert said[key] == pytest.approx(0.3)
        assert found.verdict.endswith(
            "Against baselines, which are fixed, es is shown to be better, random is shown to be "
            "worse"
        )
        alone = compared([c for c in given if c.strategy != "random"], baselines=["baselines"])
        assert alone.verdict.startswith("es finds the better front: it beats baselines")

    def test_fixed_baselines_may_win(self) -> None:
        given = [*arms({"random": 0.5, "es": 0.51}, range(8))]
        given += [make(0.6, 0.5, "baselines", seed) for seed in range(8)]
        found = compared(given, baselines=["baselines"])
        assert found.verdict.startswith(
            "no search pays: baselines, which are fixed, beat every other strategy (Holm-adjusted"
        )

    def test_fixed_baselines_of_a_part_of_the_seeds_are_shown_and_not_tested(self) -> None:
        given = [*arms({"random": 0.5, "es": 0.8}, range(8))]
        given += [make(0.6, 0.5, "baselines", seed) for seed in range(7)]
        found = compared(given, baselines=["baselines"])
        assert len(found.pairs) == 1
        assert found.notes == (
            "shown and not tested: baselines, which was not scored to its end in every seed",
            "left out: cost at the quality of sharing every channel, which was not scored in every "
            "seed",
        )
        one = compared(
            [c for c in given if c.strategy != "baselines" or not c.seed], baselines=["baselines"]
        )
        (shown,) = (s for s in one.standings if s.name == "baselines")
        assert shown.volume.low == shown.volume.high == pytest.approx(0.3)

    def test_baselines_that_failed_are_shown_and_not_tested(self) -> None:
        given = [*arms({"random": 0.5, "es": 0.8}, range(8))]
        given += [make(None, None, "baselines", seed) for seed in range(8)]
        found = compared(given, baselines=["baselines"])
        assert len(found.pairs) == 1
        assert any(note.startswith("shown and not tested: baselines") for note in found.notes)
        assert any("cost at the quality of sharing every" in note for note in found.notes)

    def test_epsilon_is_to_the_front_of_all_arms(self) -> None:
        given = [
            make(quality, cost, name, seed)
            for seed in (0, 1)
            for name, quality, cost in (("cheap", 0.5, 0.2), ("dear", 0.9, 0.6))
        ]
        by_name = {s.name: s.shortfall for s in compared(given, budget=1).standings}
        assert by_name == pytest.approx({"cheap": 0.4, "dear": 0.4})

    def test_nothing_to_compare(self) -> None:
        both = {"random": 0.5, "es": 0.8}
        for candidates, message in (
            (arms(both, [0]), "at least 2 seeds that all strategies have run with, got 1"),
            (
                arms({"es": 0.5}, [0, 1]),
                "2 strategies, of which one may be .* got es",
            ),
            (iter(()), "got none that searches"),
        ):
            with pytest.raises(CompareError, match=message):
                compared([*candidates])
        with pytest.raises(CompareError, match="got none that searches"):
            refuse_few([0, 1], [], ["baselines", "others"])

    def test_more_strategies_than_pairs_can_tell_apart(self) -> None:
        assert math.comb(MOST_STRATEGIES, 2) * least_p(64) < LEVEL
        assert math.comb(MOST_STRATEGIES + 1, 2) * least_p(64) >= LEVEL
        many = {f"es.{i}": 0.5 for i in range(MOST_STRATEGIES + 1)}
        with pytest.raises(CompareError, match="at most 81 strategies can be compared, got 82"):
            compared([*arms(many, range(2))])

    def test_arms_of_failures_alone(self) -> None:
        """Whoever ran out of memory was beaten, with a p."""
        given = [*arms({"random": 0.5, "tpe": 0.6}, range(8))]
        given += [make(None, None, "es", s, i) for s in range(8) for i in range(4)]
        found = compared(given)
        assert found.verdict.startswith("tpe finds the better front: it beats random (")
        assert {(pair.a, pair.b) for pair in found.pairs} == {("tpe", "random")}
        (note,) = found.notes
        assert note.startswith("shown and not tested: es, all of whose candidates of a seed failed")
        assert "the first, es-0-0: " in note
        assert found.standings[2].volume.value == 0
        table = strategy_table(found).set_index("strategy")
        assert table.loc["es", "failed"] == 32
        assert table.loc["es", "shortfall"] == math.inf
        # It spent nothing, which says nothing of what the others could spend.
        assert found.seconds == 8
        paid = compared(given, device_seconds=3.0)
        assert (paid.seeds, paid.seconds, paid.verdict) == (found.seeds, 3, found.verdict)
        with pytest.raises(CompareError, match="got random; nothing that counts is recorded of es"):
            compared([c for c in given if c.strategy != "tpe"])
