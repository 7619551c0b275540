"""What is said of a calibration: numbers, verdict, picture and page, from made-up measurements."""

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from scipy import stats

from partitioning import read_json
from search.calibration import read_trust, show_calibration, write_calibration
from search.calibration.results import calibration_folder
from search.calibration.summary import calibration_table, summarise
from search.calibration.verdict import FEWEST_CANDIDATES, MEAN_ACCURACY, MEAN_OVER_TASKS, judged
from search.candidates import Candidate
from search.commands.report import write_report
from search.config import StudyConfig, parse_config
from search.config.sections import CalibrationConfig
from search.record import Record
from search.stats.agreement import beside_use
from search.stats.bootstrap import resamples
from search.strategies import TaskKnowledge
from search.study import Study
from tests.helpers.calibrations import TASKS, Result, made_up, measurements


def settings(folder: Path, **changed: Any) -> StudyConfig:
    return parse_config(
        {
            "name": "made-up",
            "output": str(folder),
            "tasks": [{"name": name, "source": "toy"} for name in TASKS],
            "trunk": {"dataset": {"name": "glyphs", "source": "toy"}},
            "strategies": {"random": {}},
            "calibration": {"multiples": [1.0, 5.0], **changed},
        }
    )


def pairs(results: Sequence[Result]) -> list[tuple[list[float], list[float]]]:
    """Proxy and full training, by task."""
    return [(column(results, "proxy", task), column(results, "full", task)) for task in TASKS]


def verdict(results: Sequence[Result]) -> dict[str, Any]:
    """The verdict alone, by the default threshold: the other numbers of a summary take longer."""
    score, full = (np.array(side) for side in zip(*pairs(results), strict=True))
    use = np.array([[result["costs"]["use"][task] for result in results] for task in TASKS])
    weights = resamples(len(results), np.random.default_rng(0), 400)
    partial = beside_use(score, full, use, weights)["partial"]
    rows = dict(zip([*TASKS, MEAN_ACCURACY, MEAN_OVER_TASKS], map(asdict, partial), strict=True))
    summary = {"candidates": len(results), "proxy": {"partial": rows}}
    return judged(summary, CalibrationConfig().threshold)


def column(results: Sequence[Result], side: str, task: str) -> list[float]:
    return [result[side]["accuracy"][task] for result in results if result["seed"] == 0]


def test_the_numbers(tmp_path: Path) -> None:
    results = measurements()
    results[5] = {"index": 5, "seed": 0, "use": 0.5, "error": "diverged"}
    del results[7]["full"]["snapshots"][1]
    summary = json.loads(json.dumps(summarise(results, settings(tmp_path)), allow_nan=False))
    good = [result for result in results if "error" not in result]
    assert (summary["candidates"], summary["trained_twice"]) == (31, 4)
    assert summary["failed"] == [{"index": 5, "seed": 0, "error": "diverged"}]
    own = [
        stats.pearsonr(column(good, "proxy", task), column(good, "full", task))[0] for task in TASKS
    ]
    found = summary["proxy"]["pearson"]
    assert [found[task]["value"] for task in TASKS] == pytest.approx(own)
    assert found[MEAN_OVER_TASKS]["value"] == pytest.approx(np.mean(own))
    means = [
        np.mean([column(good, side, task) for task in TASKS], axis=0) for side in ("proxy", "full")
    ]
    assert found["mean accuracy"]["value"] == pytest.approx(np.corrcoef(*means)[0, 1])
    first, second = summary["stopped"]
    assert (first["multiple"], first["candidates"], first["seconds"], first["steps"]) == (
        1.0, 31, 2.0, 30.0,
    )  # fmt: skip
    assert (second["multiple"], second["candidates"], second["steps"]) == (5.0, 30, 150.0)
    lasting = [r for r in good if r["seed"] == 0 and r["index"] != 7]
    early = [r["full"]["snapshots"][1]["accuracy"]["digits"] for r in lasting]
    expected = stats.spearmanr(early, column(lasting, "full", "digits"))[0]
    assert second["spearman"]["digits"]["value"] == pytest.approx(expected)
    pairs = [
        [r["full"]["accuracy"]["digits"] for r in good if r["index"] == index] for index in range(4)
    ]
    between = np.sqrt(np.mean([np.var(pair, ddof=1) for pair in pairs]))
    std = np.std(column(good, "full", "digits"), ddof=1)
    assert summary["noise"]["digits"]["seed_std"] == pytest.approx(between)
    assert summary["noise"]["digits"]["ratio"] == pytest.approx(std / between)


def test_the_verdict(tmp_path: Path) -> None:
    good = summarise(measurements(), settings(tmp_path))
    assert good["trusted"]
    assert good["verdict"].startswith("the proxy is trusted: over 32 candidates")
    assert "both lower ends reach the threshold of 0" in good["verdict"]
    estimates = [good["proxy"]["partial"][row] for row in (MEAN_ACCURACY, MEAN_OVER_TASKS)]
    for estimate in estimates:
        value, low, high = (f"{estimate[key]:.2f}" for key in ("value", "low", "high"))
        assert f"{value} (95 % interval {low} to {high})" in good["verdict"]
    bad = summarise(measurements(error=1.0), settings(tmp_path))
    assert bad["trusted"] is False
    assert "not trusted" in bad["verdict"]
    assert "is below the threshold of 0" in bad["verdict"]
    least = min(estimate["low"] for estimate in estimates)
    assert judged(good, least)["trusted"]
    short = judged(good, least + 1e-9)
    assert short["trusted"] is False
    assert short["verdict"].count("the lower end for the") == 1, "one of the two is short"


# Curves by which accuracy depends on use, and the noise around them.
USE_ONLY = [("linear", 0.1), ("linear", 0.3), ("saturating", 0.1), ("saturating", 0.02)]


@pytest.mark.parametrize("count", [FEWEST_CANDIDATES, 48])
@pytest.mark.parametrize(("curve", "noise"), USE_ONLY)
def test_a_proxy_that_knows_use_alone_is_not_trusted(count: int, curve: str, noise: float) -> None:
    draws = [made_up("use_only", count, seed, curve, noise) for seed in range(20)]
    trusted = [verdict(results)["trusted"] for results in draws]
    assert None not in trusted
    assert sum(trusted) <= 1


@pytest.mark.parametrize("curve", ["a kink", "a step"])
def test_nor_is_one_whose_accuracies_bend_sharply(curve: str) -> None:
    draws = [made_up("use_only", 48, seed, curve, 0.05) for seed in range(20)]
    assert sum(verdict(results)["trusted"] for results in draws) <= 1


def test_what_knows_use_alone_looked_trustworthy() -> None:
    draws = [made_up("use_only", 32, seed, "saturating", 0.1) for seed in range(20)]
    r = [np.mean([stats.pearsonr(*pair)[0] for pair in pairs(results)]) for results in draws]
    assert min(r) > 0.5, "by the plain correlation over tasks all of them would be"


def test_a_proxy_that_knows_more_is_trusted() -> None:
    draws = [made_up("informed", 32, seed, 0.9) for seed in range(20)]
    assert sum(verdict(results)["trusted"] for results in draws) == 20


@pytest.mark.parametrize("count", [0, 2, 3, FEWEST_CANDIDATES - 1])
def test_too_few_candidates_carry_no_verdict(tmp_path: Path, count: int) -> None:
    study = Study.create(settings(tmp_path, threshold=-1.0))
    calibration_folder(study).mkdir()
    summary = write_calibration(study, measurements(count, 0))
    assert summary["trusted"] is None
    assert summary["fewest"] == FEWEST_CANDIDATES
    assert f"no verdict on the proxy: {count} candidates" in summary["verdict"]
    assert f"at least {FEWEST_CANDIDATES}" in summary["verdict"]
    assert (calibration_folder(study) / "calibration.png").is_file()
    console = Console(file=io.StringIO(), width=80)
    show_calibration(summary, console)


def test_a_proxy_that_does_not_vary_carries_no_verdict(tmp_path: Path) -> None:
    results = measurements()
    for result in results:
        result["proxy"]["accuracy"] = dict.fromkeys(TASKS, 0.1)
    summary = summarise(results, settings(tmp_path, threshold=-1.0))
    assert summary["trusted"] is None
    assert "do not vary beside use (mean accuracy and mean over tasks)" in summary["verdict"]


def test_a_task_at_chance_is_shown_as_such(tmp_path: Path) -> None:
    results = measurements()
    for result in results:
        result["proxy"]["accuracy"]["digits"] = 0.1
    summary = summarise(results, settings(tmp_path))
    assert summary["proxy"]["pearson"]["digits"] == {"value": None, "low": None, "high": None}
    assert summary["proxy"]["pearson"][MEAN_OVER_TASKS]["value"] is not None


def test_use_and_parameters_alone_stand_beside(tmp_path: Path) -> None:
    results = measurements()
    summary = summarise(results, settings(tmp_path))
    first = [result for result in results if result["seed"] == 0]
    for cost in ("use", "parameters"):
        own = [[r["costs"][cost][task] for r in first] for task in TASKS]
        full = [column(results, "full", task) for task in TASKS]
        found = summary[cost]
        for row, task in enumerate(TASKS):
            expected = stats.pearsonr(own[row], full[row])[0]
            assert found["pearson"][task]["value"] == pytest.approx(expected)
        expected = stats.spearmanr(np.mean(own, axis=0), np.mean(full, axis=0))[0]
        assert found["spearman"][MEAN_ACCURACY]["value"] == pytest.approx(expected)


def test_what_decides_a_search(tmp_path: Path) -> None:
    results = measurements(24, 0)
    decisions = summarise(results, settings(tmp_path))["decisions"]
    full, proxy = (
        np.mean([column(results, side, task) for task in TASKS], axis=0)
        for side in ("full", "proxy")
    )
    use = np.array([result["use"] for result in results])
    assert decisions["proxy"]["regret"] == pytest.approx(full.max() - full[proxy.argmax()])
    assert decisions["use"]["regret"] == pytest.approx(full.max() - full[use.argmax()])
    same_cost = [  # six bands of four neighbours in cost
        full[band].max() - full[band[proxy[band].argmax()]] for band in np.split(use.argsort(), 6)
    ]
    assert decisions["proxy"]["regret_same_cost"] == pytest.approx(np.mean(same_cost))
    gain = (full - full.min()) / np.ptp(full)
    discount = 1 / np.log2(np.arange(2, 8))
    best = gain[np.argsort(-full)[:6]] @ discount
    reached = gain[np.argsort(-proxy)[:6]] @ discount
    assert decisions["proxy"]["ndcg"] == pytest.approx(reached / best)
    for result in results:
        result["proxy"]["accuracy"] = result["full"]["accuracy"]
    perfect = summarise(results, settings(tmp_path))["decisions"]["proxy"]
    assert perfect == {"ndcg": pytest.approx(1), "regret": 0, "regret_same_cost": 0}


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """A calibrated study with one candidate in its record."""
    study = Study.create(settings(tmp_path))
    study.keep_facts(TaskKnowledge())
    with Record(study.record_path, study.name) as record:
        record.add(
            Candidate(
                strategy="random", seed=0, index=0, vector=(0.5,), names=("use[digits]",),
                quality=0.5, cost=0.5,
            )
        )  # fmt: skip
    calibration_folder(study).mkdir()
    write_calibration(study, measurements())
    return study


def test_what_is_kept(study: Study) -> None:
    folder = calibration_folder(study)
    summary = read_trust(study)
    assert summary == read_json(folder / "calibration.json")
    with Image.open(folder / "calibration.png") as picture:
        assert picture.width > 600
        colours = picture.convert("RGB").getcolors(2**24)
        assert colours is not None
        assert len(colours) > 100
    points = calibration_table(measurements())
    assert len(points) == 36
    assert {
        "index",
        "use",
        "proxy/digits",
        "full/colours",
        "use/digits",
        "parameters/colours",
    } <= set(points.columns)
    assert len((folder / "calibration.csv").read_text().splitlines()) == len(points) + 1


def test_a_calibration_with_other_settings_says_nothing(study: Study) -> None:
    config = study.config
    study.config = replace(config, calibration=replace(config.calibration, threshold=0.999))
    found = read_trust(study)
    assert found is not None
    assert not found["trusted"], "the threshold is the config's of now"
    study.config = replace(config, train=replace(config.train, temperature=2.0))
    assert read_trust(study) is None
    study.config = replace(config, proxy=replace(config.proxy, images=7))
    assert read_trust(study) is None


def test_the_report_shows_it(study: Study) -> None:
    paths = write_report(study)
    assert paths[-1].name == "calibration.png"
    page = (study.folder / "front.html").read_text()
    assert "the proxy is trusted: over 32 candidates" in page
    picture = (calibration_folder(study) / "calibration.png").read_bytes()
    assert base64.b64encode(picture).decode() in page
    assert page.rstrip().endswith("</html>")
    (calibration_folder(study) / "calibration.json").unlink()
    assert len(write_report(study)) == 3
    assert '"calibration":null' in (study.folder / "front.html").read_text()


def test_the_tables(study: Study) -> None:
    summary = read_trust(study)
    assert summary is not None
    console = Console(file=io.StringIO(), width=100)
    show_calibration(summary, console)
    assert isinstance(console.file, io.StringIO)
    said = console.file.getvalue()
    for row in (*TASKS, "mean accuracy", "mean over tasks"):
        assert row in said
    for column_ in (
        "proxy",
        "use alone",
        "parameters alone",
        "x1",
        "x5",
        "Spearman",
        "Kendall",
        "given use",
        "nDCG",
        "regret",
        "ratio",
    ):
        assert column_ in said
    for name in ("pearson", "spearman", "kendall", "banded", "partial", "partial_rank"):
        estimate = summary["proxy"][name]["digits"]
        value, low, high = (
            f"{estimate[key]:.2f}".replace("0.", ".") for key in ("value", "low", "high")
        )
        assert value in said
        assert f"{low} {high}" in said
    assert summary["verdict"] in said
