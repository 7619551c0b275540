"""The command that compares, on a record, without Ray."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from mlflow import MlflowClient

from partitioning import STUDY
from search.cli import main
from search.commands.report import make_tracker
from search.commands.sync import sync
from search.config import parse_config
from search.record import Record
from search.strategies import TaskKnowledge
from search.study import Study
from tests.helpers.commands import refused
from tests.helpers.comparisons import REFERENCE, arms, make
from tests.helpers.studies import SMALL

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")


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
    study.keep_facts(TaskKnowledge())
    with Record(study.record_path, study.name) as record:
        for candidate in arms({"random": 0.5, "es": 0.8}, range(7), 2):
            record.add(candidate)
        for seed in range(7):
            record.add(make(0.6, 0.5, "baselines", seed))
    return study


def test_the_command(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(study.folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == [
        "seeds", "candidates", "strategies", "pairs", "verdict", "reference",
    ]  # fmt: skip
    assert (found["seeds"], found["candidates"]) == (7, 2)
    assert list(found["strategies"]) == ["es", "baselines", "random"]
    for standing in found["strategies"].values():
        assert list(standing) == [
            "hypervolume_mean", "ci_low", "ci_high", "epsilon", "quality_at_cost_10",
            "quality_at_cost_25", "quality_at_cost_50", "quality_at_cost_75",
        ]  # fmt: skip
        assert standing["ci_low"] <= standing["hypervolume_mean"] <= standing["ci_high"]
    assert found["strategies"]["baselines"]["hypervolume_mean"] == pytest.approx(0.3)
    assert found["pairs"][1] == {
        "a": "es", "b": "random", "p_adjusted": 3 * 2 / 2**7, "better": "es",
        "better_at": [], "worse_at": [],  # of four points 7 seeds can show none
    }  # fmt: skip
    assert found["verdict"].startswith(
        "es finds the better front: it beats every other strategy (Holm-adjusted p <= 0.047, 7 "
        "seeds). Against baselines and random it is better over the front as a whole, and 7 seeds "
        "are too few to say where on it. Against baselines, which are fixed, es is shown "
        "to be better"
    )
    folder = study.folder / "compare"
    names = ["comparison.csv", "comparison.md", "comparison.png", "curves.csv", "pairs.csv"]
    assert sorted(path.name for path in folder.iterdir()) == names
    table = pd.read_csv(folder / "comparison.csv")
    assert table["strategy"].tolist() == ["es", "baselines", "random"]
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
    for text in ("{a: [", "[1]", "", f"version: {STUDY.version}"):
        (tmp_path / "damaged").mkdir(exist_ok=True)
        (tmp_path / "damaged" / "config.yaml").write_text(text)
        assert "config.yaml is damaged" in refused(capsys, "compare", tmp_path / "damaged")
    assert "--set changes a config" in refused(
        capsys, "compare", study.folder, "--set", "candidates=8"
    )
    config = study.folder / "config.yaml"
    assert "did you mean 'candidates'" in refused(capsys, "compare", config, "--set", "candidats=8")
    assert "2 seeds" in refused(capsys, "compare", config, "--set", "seeds=[0]")
    assert "one may be fixed baselines, got random" in refused(
        capsys, "compare", config, "--set", "strategies={random: {}}"
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
    assert "no difference between 3 strategies can be shown with 5 seeds; it takes 7" in err
    assert main(["compare", str(config), "--set", "name=fresh", "--json"]) == 0
    assert "warning" not in capsys.readouterr().err
    assert asked == [((0, 1, 2, 3, 4), True), (tuple(range(7)), False)]
