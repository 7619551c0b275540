"""All candidates that were trained in full, held against sharing every channel."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from scipy.stats import ttest_ind

from partitioning import TRAINING
from search.config import parse_config
from search.record import Record
from search.study import Study
from search.study.training_files import TrainedPick, decided_by, settings_folder
from search.study.tried import tried
from tests.helpers.candidates import decoding, whole_masks
from tests.helpers.comparisons import make

SHARE_ALL = [0.80, 0.81, 0.82, 0.80, 0.81]
GOOD = [0.84, 0.85, 0.84, 0.83, 0.84]
CLOSE = [0.82, 0.80, 0.83, 0.81, 0.82]


def picked(name: str, accuracies: list[float], *splits: str) -> TrainedPick:
    """Trained once for each accuracy, which every split of two tasks has on average."""
    return TrainedPick(
        candidate=name,
        folder=Path(name),
        accuracy={
            seed: {split: {"a": value - 0.1, "b": value + 0.1} for split in splits}
            for seed, value in enumerate(accuracies)
        },
    )


def test_all_are_corrected_for_each_other() -> None:
    both = ("validation", "test")
    picks = [picked(n, v, *both) for n, v in (("base", SHARE_ALL), ("x", CLOSE), ("y", GOOD))]
    best, close, base = tried(picks, {"base": "base", "x": "base", "y": "base"})
    assert [e.candidate for e in (best, close, base)] == ["y", "x", "base"]
    assert {e.split for e in (best, close, base)} == {"test"}
    assert best.difference == pytest.approx(0.032)
    assert best.p == pytest.approx(ttest_ind(GOOD, SHARE_ALL, equal_var=False).pvalue)
    assert best.p_adjusted == pytest.approx(2 * best.p)
    assert close.p_adjusted == pytest.approx(close.p)
    assert math.isnan(base.p)
    assert math.isnan(base.p_adjusted)
    # Of one that was tried alone, nothing has to be corrected.
    assert tried(picks[::2], {"base": "base", "y": "base"})[0].p_adjusted == pytest.approx(best.p)


def test_each_is_held_against_the_one_on_its_own_foundation() -> None:
    picks = [picked(n, v, "test") for n, v in (("base0", SHARE_ALL), ("base1", GOOD), ("x", GOOD))]
    entries = tried(picks, {"base0": "base0", "base1": "base1", "x": "base1"})
    by_name = {entry.candidate: entry for entry in entries}
    assert by_name["x"].difference == 0
    assert by_name["x"].p_adjusted == 1
    assert math.isnan(by_name["base1"].p), "two of them on two foundations are not held together"
    apart = {e.candidate: e for e in tried(picks, {"base0": "base0", "base1": "base1"})}
    assert math.isnan(apart["x"].p)
    assert math.isnan(apart["x"].difference)


def test_what_cannot_be_told() -> None:
    assert tried([], {}) == []
    picks = [picked("x", GOOD, "validation"), picked("y", [0.8], "validation", "test")]
    for entry in tried(picks, {}):
        assert entry.split == "validation"
        assert math.isnan(entry.p)
        assert math.isnan(entry.difference)


@pytest.mark.parametrize("foundations", ["shared", "per_seed"])
def test_a_label_stands_for_the_candidate_on_the_others_foundation(
    tmp_path: Path, foundations: str
) -> None:
    config = parse_config(
        {
            "name": "small",
            "output": str(tmp_path),
            "tasks": [{"name": "a", "source": "toy"}],
            "trunk": {"dataset": {"name": "glyphs", "source": "toy"}},
            "strategies": {"baselines": {}},
            "seeds": [0, 1],
            "foundations": foundations,
        }
    )
    study = Study.create(config)
    with Record(study.record_path, study.name) as record:
        for seed in (0, 1):
            record.add(make(0.8, 1.0, "baselines", seed, 0, label="share_all"))
        record.add(make(0.9, 0.5, "es", 1, 0))
    own = "baselines-1-0" if foundations == "per_seed" else "baselines-0-0"
    assert [c.id for c in study.picks(["share_all", "best"])] == [own, "es-1-0"]
    assert [c.id for c in study.picks(["share_all"])] == ["baselines-0-0"]
    assert [c.id for c in study.picks(["best", "es-1-0"])] == ["es-1-0"]
    assert [c.id for c in study.picks(["baselines-0-0", "share_all"])] == ["baselines-0-0"]


def test_a_study_lists_what_was_trained_with_its_settings(tmp_path: Path) -> None:
    config = parse_config(
        {
            "name": "small",
            "output": str(tmp_path),
            "tasks": [{"name": "a", "source": "toy"}],
            "trunk": {"dataset": {"name": "hues", "source": "toy"}},
            "strategies": {"baselines": {}},
        }
    )
    study = Study.create(config)
    with Record(study.record_path, study.name) as record:
        for found in (
            make(0.8, 1.0, "baselines", 0, 0, label="share_all"),
            make(0.7, 0.5, "es", 0, 0),
            make(0.7, 0.6, "es", 0, 1),
        ):
            record.add(replace(found, decoding=decoding(("a",))))
    assert study.pick("share_all").id == "baselines-0-0"
    made_of = decided_by(config, whole_masks(("a",)), {})
    for name, values, given in (
        ("baselines-0-0", SHARE_ALL, made_of),
        ("es-0-0", GOOD, made_of),
        ("es-0-1", CLOSE, {**made_of, "settings": "others"}),
    ):
        own = settings_folder(study.folder / "trained", name, config)
        own.mkdir(parents=True)
        for seed, value in enumerate(values):
            saved = {**TRAINING.header, **given, "accuracy": {"test": {"a": value}}, "points": []}
            (own / f"seed{seed}.json").write_text(json.dumps(saved))
    assert [(e.candidate, e.seeds) for e in study.tried()] == [("es-0-0", 5), ("baselines-0-0", 5)]
    assert study.tried()[0].p < 0.01
