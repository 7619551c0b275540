"""`apportion train`: candidates trained as settings say, and the table of their rivals."""

import shutil
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from mlflow import MlflowClient
from safetensors.torch import load_file

from partitioning import Masks
from search.arms import cluster_run
from search.cli import main
from search.commands.report import make_tracker
from search.commands.sync import sync
from search.commands.table import random_masks_like, train_table
from search.config import ConfigError
from search.study import Study, kept_trainings
from tests.helpers.commands import refused
from tests.helpers.kept_studies import config, no_jobs, searched, silent, write_data
from trainers.joint import Point, Underway, train_jointly
from trainers.merging import MERGERS
from trainers.networks import BackboneError

# Ray starts and ends processes of its own in this one.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study of two candidates, with a mirror."""
    folder = tmp_path_factory.mktemp("project")
    write_data(folder / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        study = searched(config(folder))
    sync(study, say=silent)
    return study


def trainings_in_mlflow(study: Study) -> dict[tuple[str, str, str], object]:
    client = MlflowClient(study.store_uri)
    runs = [r for e in client.search_experiments() for r in client.search_runs([e.experiment_id])]
    by_id = {run.info.run_id: run for run in runs}
    found = {}
    for run in runs:
        tags = run.data.tags
        if tags["apportion.kind"] == "training":
            assert by_id[tags["mlflow.parentRunId"]].data.tags["candidate"] == tags["candidate"]
            key = tags["candidate"], tags["seed"], tags["settings"]
            assert key not in found, "logged twice"
            found[key] = run.data.metrics, run.info.status, run.data.params
    return found


def test_settings_lie_beside_each_other_and_in_mlflow(
    study: Study, cluster: None, capsys: pytest.CaptureFixture[str]
) -> None:
    one = study.pick("best").id
    folder = str(study.folder)
    assert main(["train", folder, "--pick", one, "--seeds", "2"]) == 0
    longer = ["--set", "train.sgd.steps=30", "--set", "train.recipe=paper"]
    assert main(["train", folder, "--pick", one, *longer]) == 0
    kept = kept_trainings(study.folder / "trained")
    steps = [(training.seed, training.points[-1].step) for training in kept]
    assert sorted(steps) == [(0, 20), (0, 30), (1, 20)]
    described = {t.points[-1].step: t.described["train"] for t in kept}
    assert (described[20]["initial"], described[30]["initial"]) == ("teachers", "trunk")
    found = trainings_in_mlflow(study)
    assert set(found) == {(t.candidate, str(t.seed), t.settings) for t in kept}
    for training in kept:
        metrics, status, params = found[one, str(training.seed), training.settings]
        assert status == "FINISHED"
        assert metrics["test/digits"] == training.accuracy["test"]["digits"]
        assert {"loss/digits", "accuracy/digits", "learning_rate", "images_per_second"} <= set(
            metrics
        )
        assert params["train.sgd.steps"] == str(training.points[-1].step)
    # What is lost is made anew, and twice is once.
    client = MlflowClient(study.store_uri)
    for run in client.search_runs([e.experiment_id for e in client.search_experiments()]):
        if run.data.tags["apportion.kind"] == "training":
            client.delete_run(run.info.run_id)
    assert not trainings_in_mlflow(study)
    for _ in range(2):
        sync(study, say=silent)
        again = trainings_in_mlflow(study)
        assert {k: v[0] for k, v in again.items()} == {k: v[0] for k, v in found.items()}
    out = study.folder / "out"
    assert main(["export", folder, "--pick", one, "--out", str(out), "--seed", "1"]) == 0
    assert "trained" not in capsys.readouterr().out.splitlines()[-2:]
    assert torch.export.load(out / "digits" / "network.pt2")
    (own,) = {training.settings for training in kept if training.seed == 1}
    best = max((0, 1), key=lambda seed: found[one, str(seed), own][0]["validation"])
    again = ["export", folder, "--pick", one, "--format", "pt2", "--seed", "best", "--out"]
    assert main([*again, str(out)]) == 2
    assert "is there already: name another folder" in capsys.readouterr().err
    assert main([*again, str(study.folder / "best")]) == 0
    assert f"- seed: {best}\n" in (study.folder / "best" / "README.md").read_text()


@pytest.mark.slow
def test_networks_in_mlflow_and_one_made_again_from_its_run(
    study: Study, cluster: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, folder = study.pick("best").id, str(study.folder)
    changed = ["--set", "train.sgd.steps=25", "--seed", "3"]
    files = ["--format", "pt2,safetensors"]
    first = ["export", folder, "--pick", one, "--out", str(tmp_path / "a"), *changed]
    assert main([*first, *files, "--register", "shop"]) == 0
    ((key, (_, status, _)),) = (
        (key, found) for key, found in trainings_in_mlflow(study).items() if key[1] == "3"
    )
    assert status == "FINISHED"
    client = MlflowClient(study.store_uri)
    (version,) = client.search_model_versions("name='shop-digits'")
    (run,) = (
        run
        for e in client.search_experiments()
        for run in client.search_runs([e.experiment_id], "tags.seed = '3'")
    )
    assert version.run_id == run.info.run_id
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(study.store_uri)
    try:
        with warnings.catch_warnings(action="ignore"):
            model = mlflow.pyfunc.load_model("models:/shop-digits/1")
    finally:
        mlflow.set_tracking_uri(before)
    images = np.random.default_rng(0).integers(0, 256, (3, 3, 8, 8), dtype=np.uint8)
    program = torch.export.load(tmp_path / "a" / "digits" / "network.pt2").module()
    wanted = program(torch.from_numpy(images)).detach().numpy()
    assert np.array_equal(model.predict(images), wanted)
    with pytest.raises(mlflow.MlflowException, match="schema"):
        model.predict(images.astype(np.float32))
    # What was trained is gone: the run alone says how to make it.
    shutil.rmtree(study.folder / "trained" / one / key[2])
    again = ["export", folder, "--run", run.info.run_id, "--out", str(tmp_path / "b")]
    assert main([*again, *files]) == 0
    made = [load_file(tmp_path / name / "digits" / "weights.safetensors") for name in "ab"]
    assert made[0].keys() == made[1].keys()
    assert all(torch.equal(tensor, made[1][name]) for name, tensor in made[0].items())
    for name, words in (("a/b", "without / and :"), ("", "without / and :")):
        out = ["--out", str(tmp_path / "d"), "--register", name]
        assert words in refused(capsys, "export", folder, "--pick", one, *out)
    capsys.readouterr()
    out = ["--out", str(tmp_path / "c")]
    assert "has no run nonsense" in refused(capsys, "export", folder, "--run", "nonsense", *out)
    assert "give --pick" in refused(capsys, "export", folder, *out)
    assert "leave out --seed" in refused(
        capsys, "export", folder, "--run", run.info.run_id, "--seed", "1", *out
    )


def test_a_training_that_was_cut_off_goes_on(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process: cut off behind 12 steps, with what was kept there."""
    one, cut = study.pick("best").id, {}

    def kept_often(underway: Underway, **arguments: object) -> object:
        where = Underway(
            path=underway.path, digest=underway.digest, progress=underway.progress, every=0
        )
        cut["path"] = underway.path
        return train_jointly(underway=where, **arguments)

    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    whole = study.train_all([one], seeds=[7], say=silent)[0]
    (whole.folder / "seed7.json").unlink()
    monkeypatch.setattr("search.study.training.train_jointly", kept_often)
    with monkeypatch.context() as patch:
        patch.setattr("trainers.joint.training._Run._result", interrupted)
        with pytest.raises(KeyboardInterrupt):
            study.train_all([one], seeds=[7], say=silent)
    assert cut["path"].is_file()
    again = study.train_all([one], seeds=[7], say=silent)[0]
    assert again.accuracy == whole.accuracy
    assert not cut["path"].exists(), "what was under way is gone once it is done"


def test_a_full_disk_loses_nothing_else(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two seeds one meets a full disk: the other is kept, and the reason is said."""
    one = study.pick("best").id

    def full(*, seed: int, **arguments: object) -> object:
        if seed == 5:
            raise OSError(28, "No space left on device")
        return train_jointly(seed=seed, **arguments)

    monkeypatch.setattr("search.study.training.train_jointly", full)
    with pytest.raises(RuntimeError, match=r"seed 5: OSError.*No space left.*run it again"):
        study.train_all([one], seeds=[5, 6], say=silent)
    monkeypatch.undo()
    found = study.train_all([one], seeds=[6], say=silent, run=no_jobs)
    assert set(found[0].accuracy) == {6}


def test_the_table(study: Study, cluster: None, capsys: pytest.CaptureFixture[str]) -> None:
    one = study.pick("best").id
    assert main(["train", str(study.folder), "--table", "--pick", one, "--seeds", "2"]) == 0
    assert f"random like {one}" in capsys.readouterr().out
    (folder,) = (study.folder / "table").iterdir()
    assert (folder / "train.yaml").is_file()
    table = pd.read_csv(folder / "table.csv")
    rows = ["single-task", "share_all", "independent", "share_half", *MERGERS]
    assert list(table[table["split"] == "test"]["row"]) == [*rows, f"random like {one}", one]
    assert set(table["seeds"]) == {2}
    test = table[table["split"] == "test"].set_index("row")
    own = study.train_all([one], seeds=2, say=silent)[0]
    assert test.loc[one, "digits"] == pytest.approx(
        np.mean([runs["test"]["digits"] for runs in own.accuracy.values()])
    )
    single, pick = test.loc["single-task"], test.loc[one]
    assert pick["delta_m"] == pytest.approx(
        100 * np.mean([(pick[t] - single[t]) / single[t] for t in ("parts", "digits")])
    )
    assert test.loc["single-task", "delta_m"] == 0
    assert test.loc["single-task", "stored"] > test.loc["share_all", "stored"]
    assert test.loc[f"random like {one}", "use"] == pytest.approx(test.loc[one, "use"])
    assert (folder / "table.png").stat().st_size > 1000
    shown = (folder / "table.md").read_text()
    assert shown.count("\n| ") == 2 * len(test) + 2


def test_rows_do_not_depend_on_which_job_is_done_first(
    study: Study, monkeypatch: pytest.MonkeyPatch, cluster: None
) -> None:
    first = train_table(study, seeds=1, say=silent)

    def reversed_run(*arguments: Any, **named: Any) -> Any:
        run = cluster_run(*arguments, **named)
        return lambda function, jobs: iter(list(run(function, jobs))[::-1])

    monkeypatch.setattr("search.commands.table.cluster_run", reversed_run)
    assert train_table(study, seeds=1, say=silent).equals(first)


def test_without_candidates_what_rows_stand_on_counts(tmp_path: Path, cluster: None) -> None:
    """Nothing else says then on which trunk and teachers a training was."""
    write_data(tmp_path / "data")
    small = config(tmp_path, data_root=str(tmp_path), candidates=1)
    first = train_table(Study.create(small), seeds=1, say=silent)
    said: list[str] = []
    again = train_table(Study.create(small, resume=True), seeds=1, say=said.append)
    assert again.equals(first)
    assert not any("trained" in line for line in said)
    other = config(
        tmp_path, data_root=str(tmp_path), candidates=1,
        teachers={"sgd": {"steps": 5, "batch_size": 32}},
    )  # fmt: skip
    train_table(Study.create(other, resume=True), seeds=1, say=said.append)
    assert sum("trained share_all" in line for line in said) == 1


def test_a_table_stands_on_one_foundation(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "foundation_of", lambda candidate: candidate.index)
    with pytest.raises(ConfigError, match=r"stand on one trunk.*random-0-0, random-0-1"):
        train_table(study, ["random-0-0", "random-0-1"], say=silent)


def test_curves_are_logged_once_after_a_kill(study: Study) -> None:
    """Steps that were trained again, at another time, are no points more."""
    one = study.pick("best").id

    def points(*steps: int) -> list[Point]:
        return [
            Point(step=step, when=time.time(), loss={}, accuracy={}, learning_rate=0.1,
                  images_per_second=1.0)
            for step in steps
        ]  # fmt: skip

    how = {"train": {}, "precision": "fp32"}
    for steps in ((10, 20, 30), (10, 20, 30, 40)):
        tracker = make_tracker(study)()
        assert tracker.attach()
        tracker.log_training(one, 9, "settings", how, points(*steps))
        tracker.stop_trainings("FAILED")
    client = MlflowClient(study.store_uri)
    (run,) = client.search_runs(
        [e.experiment_id for e in client.search_experiments()], "tags.settings = 'settings'"
    )
    assert run.info.status == "FAILED"
    history = client.get_metric_history(run.info.run_id, "learning_rate")
    assert [metric.step for metric in history] == [10, 20, 30, 40]
    client.delete_run(run.info.run_id)


def test_random_masks_have_the_same_counts(study: Study) -> None:
    masks = study.masks(study.pick("best"))
    first, other = random_masks_like(masks, 0), random_masks_like(masks, 1)
    assert first != other
    assert first == random_masks_like(masks, 0)
    for name, mask in masks.forward.items():
        assert (first.forward[name].sum(axis=1) == mask.sum(axis=1)).all()
    assert isinstance(first, Masks)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--pick", "best", "--set", "proxy.sgd.steps=3"], "--set with --pick is for train"),
        (["--pick", "best", "--set", "data_root=/nope"], "data_root is what a study is made of"),
        (["--pick", "best", "--set", "train.thaw=2"], "train.thaw must be"),
        (["--pick", "best", "--set", "train.patience=99"], "train.patience must be below"),
        (["--pick", "best", "--set", "train.recipe=papper"], "did you mean 'paper'"),
        (["--pick", "none-0-0"], "has no candidate 'none-0-0'"),
        (["--pick", "best", "--seeds", "0"], "seeds must be at least 1"),
        (["--table", "--seeds", "0"], "--seeds must be at least 1"),
        (["--table", "--method", "den"], "--table is for the candidates"),
        (["--set", "train.sgd.steps=3"], "--set changes a config"),
    ],
)
def test_what_cannot_be_trained(
    study: Study, options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(study.folder.rglob("*"))
    assert words in refused(capsys, "train", study.folder, *options)
    assert sorted(study.folder.rglob("*")) == before


def test_masks_of_another_backbone_are_refused(study: Study) -> None:
    """Such as those of a study whose network was wider."""
    one = study.masks(study.pick("best"))
    groups = tuple(replace(group, width=2 * group.width) for group in one.groups)
    forward = {name: np.repeat(mask, 2, axis=1) for name, mask in one.forward.items()}
    wider = Masks(networks=one.networks, groups=groups, forward=forward)
    with pytest.raises(BackboneError, match="the masks are of the groups"):
        study.train_all([], others={"foreign": (wider, [0])}, say=silent)
