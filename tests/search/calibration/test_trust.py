"""What is said of a calibration: numbers, verdict, picture and page, from made-up measurements."""

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from scipy import stats

from search.calibration import read_trust, show_calibration, write_calibration
from search.calibration.results import calibration_folder
from search.calibration.trust import MEAN_OVER_TASKS, calibration_table, judged, summarise
from search.candidates import Candidate
from search.commands.report import write_report
from search.config import StudyConfig, parse_config
from search.record import Record
from search.study import Study

TASKS = ("digits", "shapes", "gratings")
Result = dict[str, Any]


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


def measurements(count: int = 24, trained_twice: int = 4, error: float = 0.05) -> list[Result]:
    """Accuracy rises with use and has a part of its own, of which the proxy sees some."""
    rng = np.random.default_rng(0)
    use = rng.uniform(0.1, 1, count)
    own = 0.08 * rng.normal(size=(count, 3))
    results = []
    for index, seed in [(i, 0) for i in range(count)] + [(i, 1) for i in range(trained_twice)]:
        truth = 0.4 + 0.3 * use[index] + own[index]
        full = truth + 0.02 * rng.normal(size=3)
        proxy = truth - 0.1 + error * rng.normal(size=3)
        early = truth - 0.2 + 0.1 * rng.normal(size=(2, 3))
        results.append(
            {
                "index": index,
                "seed": seed,
                "candidate": None,
                "use": float(use[index]),
                "proxy": {"accuracy": named(proxy), "loss": named(proxy), "seconds": 2.0},
                "full": {
                    "accuracy": named(full),
                    "seconds": 60.0,
                    "steps": 900,
                    "snapshots": [
                        {"seconds": 2.0 * m, "steps": 30 * m, "accuracy": named(reached)}
                        for m, reached in zip((1, 5), early, strict=True)
                    ],
                },
            }
        )
    return results


def named(values: Sequence[float]) -> dict[str, float]:
    return dict(zip(TASKS, map(float, values), strict=True))


def column(results: Sequence[Result], side: str, task: str) -> list[float]:
    return [result[side]["accuracy"][task] for result in results if result["seed"] == 0]


def test_the_numbers(tmp_path: Path) -> None:
    results = measurements()
    results[5] = {"index": 5, "seed": 0, "use": 0.5, "error": "diverged"}
    del results[7]["full"]["snapshots"][1]
    summary = json.loads(json.dumps(summarise(results, settings(tmp_path)), allow_nan=False))
    good = [result for result in results if "error" not in result]
    assert (summary["candidates"], summary["trained_twice"]) == (23, 4)
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
        1.0, 23, 2.0, 30.0,
    )  # fmt: skip
    assert (second["multiple"], second["candidates"], second["steps"]) == (5.0, 22, 150.0)
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
    assert good["verdict"].startswith("the proxy is trusted: over 24 candidates")
    assert "at least the threshold of 0.5" in good["verdict"]
    value = good["proxy"]["pearson"][MEAN_OVER_TASKS]["value"]
    assert f"{value:.2f} (95 % interval" in good["verdict"]
    bad = summarise(measurements(error=1.0), settings(tmp_path))
    assert not bad["trusted"]
    assert "not trusted" in bad["verdict"]
    assert "below the threshold of 0.5" in bad["verdict"]
    assert judged(good, value)["trusted"]
    assert not judged(good, value + 1e-9)["trusted"]
    assert not summarise(measurements(), settings(tmp_path, threshold=0.99))["trusted"]


@pytest.mark.parametrize("count", [0, 2])
def test_too_little_is_not_trusted(tmp_path: Path, count: int) -> None:
    study = Study.create(settings(tmp_path))
    calibration_folder(study).mkdir()
    summary = write_calibration(study, measurements(count, 0))
    assert not summary["trusted"]
    assert f"from the {count} candidates" in summary["verdict"]
    assert (calibration_folder(study) / "calibration.png").is_file()
    console = Console(file=io.StringIO(), width=80)
    show_calibration(summary, console)


def test_a_task_at_chance_is_shown_as_such(tmp_path: Path) -> None:
    results = measurements()
    for result in results:
        result["proxy"]["accuracy"]["digits"] = 0.1
    summary = summarise(results, settings(tmp_path))
    assert summary["proxy"]["pearson"]["digits"] == {"value": None, "low": None, "high": None}
    assert summary["proxy"]["pearson"][MEAN_OVER_TASKS]["value"] is not None


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """A calibrated study with one candidate in its record."""
    study = Study.create(settings(tmp_path))
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
    assert summary == json.loads((folder / "calibration.json").read_text())
    with Image.open(folder / "calibration.png") as picture:
        assert picture.width > 600
        colours = picture.convert("RGB").getcolors(2**24)
        assert colours is not None
        assert len(colours) > 100
    points = calibration_table(measurements())
    assert len(points) == 28
    assert {"index", "seed", "use", "proxy/digits", "full/shapes"} <= set(points.columns)
    assert len((folder / "calibration.csv").read_text().splitlines()) == 29


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
    assert "The proxy is trusted: over 24 candidates" in page
    assert page.count("<h3>Calibration</h3>") == 1
    picture = (calibration_folder(study) / "calibration.png").read_bytes()
    assert base64.b64encode(picture).decode() in page
    assert page.rstrip().endswith("</html>")
    (calibration_folder(study) / "calibration.json").unlink()
    assert len(write_report(study)) == 3
    assert "Calibration" not in (study.folder / "front.html").read_text()


def test_the_tables(study: Study) -> None:
    summary = read_trust(study)
    assert summary is not None
    console = Console(file=io.StringIO(), width=80)
    show_calibration(summary, console)
    assert isinstance(console.file, io.StringIO)
    said = console.file.getvalue()
    for row in (*TASKS, "mean accuracy", "mean over tasks"):
        assert row in said
    for column_ in ("proxy", "x1", "x5", "Spearman", "Kendall", "given use", "ratio"):
        assert column_ in said
    for name in ("pearson", "spearman", "kendall", "banded", "partial"):
        estimate = summary["proxy"][name]["digits"]
        value, low, high = (
            f"{estimate[key]:.2f}".replace("0.", ".") for key in ("value", "low", "high")
        )
        assert value in said
        assert f"{low} {high}" in said
    assert summary["verdict"] in said
