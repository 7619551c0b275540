"""The MLflow mirror, on real stores: what is shown, no duplicates after a crash, clear failures."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run, ViewType

from search.candidates import Candidate, history
from search.mirror import Tracker, TrackingError, default_uri
from search.mirror import shown as tracked

TASKS = ("digits", "shapes", "what? / why")


def make(index: int = 0, strategy: str = "es", seed: int = 0, **changes: Any) -> Candidate:
    rng = np.random.default_rng([seed, index])
    masks_TC = rng.random((3, 64)) < 0.5
    realised = masks_TC.astype(float) @ masks_TC.T / 64
    use = dict(zip(TASKS, np.diag(realised).tolist(), strict=True))
    accuracy = dict(zip(TASKS, rng.uniform(0.3, 0.9, 3).tolist(), strict=True))
    candidate = Candidate(
        strategy=strategy,
        seed=seed,
        index=index,
        vector=tuple(rng.uniform(size=6).tolist()),
        names=(
            *(f"use[{task}]" for task in TASKS),
            "overlap[digits,shapes]",
            "overlap[digits,what? / why]",
            "overlap[shapes,what? / why]",
        ),
        quality=float(np.mean(list(accuracy.values()))),
        cost=float(np.mean(list(use.values()))),
        evaluation={
            "accuracy": accuracy,
            "distillation_loss": dict.fromkeys(TASKS, 0.25),
            "costs": {
                "use": {f"{task} (level 0)": share for task, share in use.items()},
                "parameters": {f"{task} (level 0)": 1000 for task in TASKS},
                "union_parameters": 3000,
            },
            "realised": {"block0": realised.tolist(), "block1": (realised / 2).tolist()},
            "deviation": {"block0": 2.0, "block1": 1.0},
            "proven": True,
        },
        started=1_700_000_000.5 + index,
        finished=1_700_000_002.25 + index,
    )
    return replace(candidate, **changes)


def in_process(code: str, folder: Path) -> subprocess.Popen[str]:
    """Python code in a process of its own, with nothing in its environment that mutes MLflow."""
    head = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
    return subprocess.Popen(
        [sys.executable, "-c", head + "from test_tracking import *\n" + code, str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={key: os.environ[key] for key in ("PATH", "HOME", "PYTHONPATH") if key in os.environ},
    )


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with MLflow's tables, which take seconds to make, and another study."""
    folder = tmp_path_factory.mktemp("tables")
    process = in_process("tracker(Path(sys.argv[1]), study='other').finish()", folder)
    assert process.communicate() == ("", "")  # nothing that would spoil a progress display
    return folder / "mlflow.db"


@pytest.fixture
def folder(tmp_path: Path, tables: Path) -> Path:
    shutil.copy(tables, tmp_path / "mlflow.db")
    return tmp_path


def tracker(folder: Path, uri: str | None = None, study: str = "toy") -> Tracker:
    name = "apportion" if study != "other" else "other"
    found = Tracker(tracking_uri=uri, experiment=name, study=study, folder=folder)
    found.start({"study": study, "proxy": {"steps": 3000}})
    return found


def runs(folder: Path, where: str = "", uri: str | None = None) -> list[Run]:
    client = MlflowClient(tracking_uri=uri or default_uri(folder))
    experiment = client.get_experiment_by_name("apportion")
    return list(client.search_runs([experiment.experiment_id], where, ViewType.ACTIVE_ONLY))


def kind(name: str) -> str:
    return f"tags.`apportion.kind` = '{name}'"


class TestWhatIsShown:
    def test_runs_are_nested_study_arm_candidate(self, folder: Path) -> None:
        mirror = tracker(folder)
        mirror.log(make(0))
        mirror.log(make(1))
        mirror.log(make(0, seed=1))
        mirror.log(make(0, "random"))
        mirror.finish()
        [parent] = runs(folder, kind("study"))
        assert parent.info.run_name == "toy"
        assert parent.data.params == {"study": "toy", "proxy.steps": "3000"}
        arms = {r.info.run_name: r for r in runs(folder, kind("arm"))}
        assert set(arms) == {"es, seed 0", "es, seed 1", "random, seed 0"}
        for run in (parent, *arms.values()):
            assert run.info.status == "FINISHED"
            assert run.data.tags["apportion.study"] == "toy"
        above = {r.data.tags["mlflow.parentRunId"] for r in arms.values()}
        assert above == {parent.info.run_id}
        where = f"tags.`mlflow.parentRunId` = '{arms['es, seed 0'].info.run_id}'"
        assert {r.info.run_name for r in runs(folder, where)} == {"es-0-0", "es-0-1"}

    def test_a_candidate(self, folder: Path) -> None:
        candidate = make(3)
        tracker(folder).log(candidate)
        [run] = runs(folder, kind("candidate"))
        assert run.info.status == "FINISHED"
        assert run.info.start_time == 1_700_000_003_500
        assert run.info.end_time == 1_700_000_005_250
        metrics, odd = run.data.metrics, tracked.safe(TASKS[2])
        assert metrics["quality"] == candidate.quality
        assert metrics["cost"] == candidate.cost
        assert metrics["accuracy/digits"] == candidate.accuracy["digits"]
        assert metrics[f"accuracy/{odd}"] == candidate.accuracy[TASKS[2]]
        assert metrics["use/shapes"] == candidate.use["shapes"]
        assert metrics["distillation_loss/shapes"] == 0.25
        assert metrics["costs/parameters/digits"] == 1000
        assert metrics["costs/union_parameters"] == 3000
        assert metrics["deviation"] == 3
        realised = np.array(candidate.evaluation["realised"]["block0"])
        shared = 0.75 * realised  # the mean over the groups, the second of which has half
        assert metrics["overlap/digits/shapes"] == pytest.approx(shared[0, 1])
        assert metrics[f"overlap/shapes/{odd}"] == pytest.approx(shared[1, 2])
        assert metrics["mean_overlap"] == pytest.approx(shared[np.triu_indices(3, 1)].mean())
        params = run.data.params
        assert (params["strategy"], params["seed"], params["index"]) == ("es", "0", "3")
        assert float(params["raw/use/digits"]) == pytest.approx(candidate.vector[0], abs=1e-5)
        assert float(params["raw/overlap/digits/shapes"]) == pytest.approx(
            candidate.vector[3], abs=1e-5
        )
        assert len(params) == 3 + 6
        tags = run.data.tags
        assert (tags["candidate"], tags["front"], tags["proven"]) == ("es-0-3", "false", "True")
        assert "error" not in tags
        assert '"block0":[[' in tags["realised"]

    def test_failed_candidates_and_labels(self, folder: Path) -> None:
        mirror = tracker(folder)
        failed = {"quality": None, "cost": None, "evaluation": {}}
        mirror.log(make(0, error="boom " * 5000, **failed))
        mirror.log(make(1, quality=float("nan")))
        mirror.log(make(0, "baselines", evaluation={"label": "share_all"}))
        found = {r.data.tags["candidate"]: r for r in runs(folder, kind("candidate"))}
        assert found["es-0-0"].info.status == "FAILED"
        assert found["es-0-0"].data.tags["error"].startswith("boom boom")
        assert found["es-0-0"].data.metrics == {}
        assert found["es-0-1"].info.status == "FAILED"
        assert "quality nan" in found["es-0-1"].data.tags["error"]
        assert "quality" not in found["es-0-1"].data.metrics
        assert found["baselines-0-0"].info.run_name == "share_all (baselines-0-0)"

    def test_more_than_mlflow_takes_is_cut_not_refused(self, folder: Path) -> None:
        tasks = [f"task {i}" for i in range(60)]
        realised = np.full((60, 60), 0.123456).tolist()
        candidate = make(
            vector=tuple(np.linspace(0, 1, 150).tolist()),
            names=tuple(f"use[{i}]" for i in range(150)),
            evaluation={
                "accuracy": dict.fromkeys(tasks, 0.5),
                "realised": {f"block{i}": realised for i in range(3)},
                "label": "l" * 9000,
            },
        )
        tracker(folder).log(candidate)
        [run] = runs(folder, kind("candidate"))
        assert run.data.metrics["accuracy/task 59"] == 0.5
        assert run.data.metrics["mean_overlap"] == pytest.approx(0.123456)
        assert not [key for key in run.data.metrics if key.startswith("overlap/")]
        assert set(run.data.params) == {"strategy", "seed", "index"}
        assert "realised" not in run.data.tags

    def test_any_task_name_is_accepted(self, folder: Path) -> None:
        names = [
            "..",
            ".",
            "/",
            "a/../b",
            " ",
            "x" * 300,
            "x" * 301,
            "日本 語",
            "a\nb",
            "a?b",
            "a!b",
        ]
        tracker(folder).log(make(evaluation={"accuracy": {n: i for i, n in enumerate(names)}}))
        [run] = runs(folder, kind("candidate"))
        found = sorted(v for k, v in run.data.metrics.items() if k.startswith("accuracy/"))
        assert found == list(range(len(names)))

    def test_progress_is_logged_once_per_candidate(self, folder: Path) -> None:
        candidates = [make(i, strategy) for strategy in ("es", "random") for i in range(4)]
        candidates[2] = replace(candidates[2], error="boom")
        mirror = tracker(folder)
        mirror.sync(candidates)
        mirror.log_progress(candidates[:5], (0.1, 1.0))
        mirror.log_progress(candidates, (0.1, 1.0))
        mirror = tracker(folder)
        mirror.log_progress(candidates, (0.1, 1.0))
        client = MlflowClient(tracking_uri=default_uri(folder))
        arms = {r.data.tags["strategy"]: r.info.run_id for r in runs(folder, kind("arm"))}
        of_es = [c for c in candidates if c.strategy == "es"]
        expected = history(of_es, (0.1, 1.0))
        for key in ("hypervolume", "failed", "front_size"):
            found = client.get_metric_history(arms["es"], key)
            assert [m.step for m in found] == [1, 2, 3, 4]
            assert [m.value for m in found] == expected[key].tolist()
        [parent] = runs(folder, kind("study"))
        assert parent.data.metrics["candidates"] == 8
        assert len(client.get_metric_history(parent.info.run_id, "hypervolume")) == 8

    def test_the_front_as_table_and_files(self, folder: Path) -> None:
        picture = folder / "front.png"
        mirror = tracker(folder)
        for text in ("old", "new"):
            picture.write_text(text)
            mirror.log_front(pd.DataFrame({"candidate": [text]}), [picture])
        client = MlflowClient(tracking_uri=default_uri(folder))
        [parent] = runs(folder, kind("study"))
        names = {file.path for file in client.list_artifacts(parent.info.run_id)}
        assert names == {"config.yaml", "front.csv", "front.png"}
        kept = folder / "artifacts" / parent.info.run_id / "artifacts"
        assert (kept / "front.csv").read_text().split() == ["candidate", "new"]
        assert (kept / "front.png").read_text() == "new"
        assert "steps: 3000" in (kept / "config.yaml").read_text()

    def test_the_page_offers_the_front_as_a_view(self, folder: Path) -> None:
        tracker(folder)
        client = MlflowClient(tracking_uri=default_uri(folder))
        tags = client.get_experiment_by_name("apportion").tags
        [key] = [key for key in tags if key.startswith("mlflow.sharedViewState.")]
        assert "Front of toy" in tags[key]
        [parent] = runs(folder, kind("study"))
        assert key.rsplit(".", 1)[1] in parent.data.tags["mlflow.note.content"]


class TestFront:
    def names(self, folder: Path) -> set[str]:
        return {r.data.tags["candidate"] for r in runs(folder, "tags.front = 'true'")}

    def test_a_filter_finds_its_members_and_only_changes_are_sent(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        mirror = tracker(folder)
        mirror.sync([make(i) for i in range(4)])
        sent: list[str] = []
        send = MlflowClient.set_tag

        def spy(client: MlflowClient, run_id: str, key: str, value: str) -> None:
            sent.append(value)
            send(client, run_id, key, value)

        monkeypatch.setattr(MlflowClient, "set_tag", spy)
        mirror.set_front(["es-0-0", "es-0-1"])
        assert self.names(folder) == {"es-0-0", "es-0-1"}
        assert sent == ["true", "true"]
        mirror.set_front(["es-0-1", "es-0-2"])
        mirror.set_front(["es-0-1", "es-0-2"])
        assert self.names(folder) == {"es-0-1", "es-0-2"}
        assert sorted(sent[2:]) == ["false", "true"]

    def test_it_is_known_after_a_restart(self, folder: Path) -> None:
        mirror = tracker(folder)
        mirror.sync([make(0), make(1)])
        mirror.set_front(["es-0-0"])
        mirror = tracker(folder)
        mirror.set_front(["es-0-1"])
        assert self.names(folder) == {"es-0-1"}

    def test_it_may_be_set_before_the_candidate_is_logged(self, folder: Path) -> None:
        mirror = tracker(folder)
        mirror.set_front(["es-0-0", "es-0-1"])
        mirror.log(make(0))
        assert self.names(folder) == {"es-0-0"}


def one_run_each(folder: Path, candidates: list[Candidate], uri: str | None = None) -> None:
    """No run is missing, none is there twice, none is half made."""
    found = runs(folder, kind("candidate"), uri)
    assert sorted(r.data.tags["candidate"] for r in found) == sorted(c.id for c in candidates)
    by_id = {c.id: c for c in candidates}
    for run in found:
        candidate = by_id[run.data.tags["candidate"]]
        assert run.info.status == "FINISHED"
        assert run.data.metrics == pytest.approx(tracked.metrics(candidate))
        assert run.data.params == tracked.params(candidate)
        assert run.info.end_time == round(1000 * candidate.finished)
    assert len(runs(folder, kind("study"), uri)) == 1
    arms = [(r.data.tags["strategy"], r.data.tags["seed"]) for r in runs(folder, kind("arm"), uri)]
    assert len(arms) == len(set(arms))


CRASH = """
from mlflow.telemetry.utils import is_telemetry_disabled
assert is_telemetry_disabled()
mirror = tracker(Path(sys.argv[1]))
print("started", flush=True)
for i in range(1000): mirror.log(make(i)); print(i, flush=True)
"""


class TestNoDuplicates:
    def test_saying_it_again_changes_nothing(self, folder: Path) -> None:
        candidates = [make(i, seed=seed) for seed in range(2) for i in range(3)]
        mirror = tracker(folder)
        mirror.log(candidates[0])
        mirror.log(candidates[0])
        mirror.sync(candidates)
        mirror.start({"study": "toy"})
        mirror.sync(candidates)
        mirror.finish()
        again = tracker(folder)
        [parent] = runs(folder, kind("study"))
        assert parent.info.status == "RUNNING"
        again.sync(candidates)
        again.log(candidates[1])
        again.finish()
        one_run_each(folder, candidates)

    def test_killed_at_any_moment(self, folder: Path) -> None:
        process = in_process(CRASH, folder)
        assert process.stdout is not None
        for _ in range(5):
            next(process.stdout)
        time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        rest, errors = process.communicate()
        assert errors == ""
        candidates = [make(i) for i in range(4 + len(rest.split()) + 3)]
        tracker(folder).sync(candidates)
        one_run_each(folder, candidates)

    def test_a_run_left_half_made_is_completed(self, folder: Path) -> None:
        mirror = tracker(folder)
        candidates = [make(0), make(1)]
        mirror.log(candidates[0])
        client = MlflowClient(tracking_uri=default_uri(folder))
        [arm] = runs(folder, kind("arm"))
        tags = {
            **{key: text for key, text in arm.data.tags.items() if key.startswith("apportion.")},
            "apportion.kind": "candidate",
            "mlflow.parentRunId": arm.info.run_id,
            **tracked.tags(candidates[1], front=False),
        }
        client.create_run(arm.info.experiment_id, tags=tags)  # asked twice, the server slow
        client.create_run(arm.info.experiment_id, tags=tags)
        mirror = tracker(folder)
        mirror.set_front(["es-0-1"])
        mirror.sync(candidates)
        one_run_each(folder, candidates)
        assert len(runs(folder, "tags.front = 'true'")) == 1

    def test_a_half_made_run_of_an_unknown_candidate_goes(self, folder: Path) -> None:
        mirror = tracker(folder)
        mirror.log(make(0))
        client = MlflowClient(tracking_uri=default_uri(folder))
        [run] = runs(folder, kind("candidate"))
        tags = dict(run.data.tags) | {"candidate": "es-0-9", "index": "9"}
        client.create_run(run.info.experiment_id, tags=tags)
        tracker(folder).sync([make(0)])
        one_run_each(folder, [make(0)])

    def test_a_request_that_was_sent_twice(self, folder: Path) -> None:
        mirror = tracker(folder)
        mirror.log(make(0))
        client = MlflowClient(tracking_uri=default_uri(folder))
        [run] = runs(folder, kind("candidate"))
        client.create_run(run.info.experiment_id, tags=dict(run.data.tags), start_time=1)
        tracker(folder).sync([make(0)])
        one_run_each(folder, [make(0)])

    def test_studies_in_one_store_are_kept_apart_whatever_their_names(self, folder: Path) -> None:
        uri = default_uri(folder)
        folders = [folder / name for name in ("a", "b", "c")]
        for at, study in zip(folders, ["toy", "toy", "it's"], strict=True):
            at.mkdir()
            mirror = tracker(at, uri, study)
            mirror.log(make(0))
            mirror.finish()
        assert len(runs(folder, kind("study"))) == 3
        assert len(runs(folder, kind("candidate"))) == 3
        moved = folders[0].rename(folder / "moved")
        tracker(moved, uri).sync([make(0), make(1)])
        assert len(runs(folder, kind("study"))) == 3
        assert len(runs(folder, kind("candidate"))) == 4

    def test_more_runs_than_a_page(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        candidates = [make(i) for i in range(12)]
        tracker(folder).sync(candidates)
        search = MlflowClient.search_runs

        def small(*args: Any, **more: Any) -> Any:
            return search(*args, **more | {"max_results": min(5, more.get("max_results", 5000))})

        with monkeypatch.context() as patch:
            patch.setattr(MlflowClient, "search_runs", small)
            mirror = tracker(folder)
        mirror.sync(candidates)
        one_run_each(folder, candidates)


class TestFailures:
    def test_no_server(self, tmp_path: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        begin = time.monotonic()
        with pytest.raises(TrackingError, match=rf"127\.0\.0\.1:{port}.*record is not affected"):
            tracker(tmp_path, f"http://127.0.0.1:{port}")
        assert time.monotonic() - begin < 10  # MLflow would try for minutes

    def test_no_database(self, tmp_path: Path) -> None:
        (tmp_path / "mlflow.db").write_text("dear diary, this is not a database\n" * 50)
        with pytest.raises(TrackingError, match="not a database"):
            tracker(tmp_path)

    def test_a_folder_that_cannot_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        begin = time.monotonic()
        with pytest.raises(TrackingError, match=r"mlflow\.db failed"):
            tracker(tmp_path / "file" / "folder")
        assert time.monotonic() - begin < 10

    def test_a_deleted_experiment(self, folder: Path) -> None:
        tracker(folder)
        client = MlflowClient(tracking_uri=default_uri(folder))
        client.delete_experiment(client.get_experiment_by_name("apportion").experiment_id)
        with pytest.raises(TrackingError, match=r"has been deleted: restore it"):
            tracker(folder)

    def test_a_run_deleted_during_the_search(self, folder: Path) -> None:
        mirror = tracker(folder)
        mirror.log(make(0))
        client = MlflowClient(tracking_uri=default_uri(folder))
        for run in runs(folder, kind("candidate")):
            client.delete_run(run.info.run_id)
        with pytest.raises(TrackingError, match="deleted"):
            mirror.set_front(["es-0-0"])
        tracker(folder).sync([make(0)])
        one_run_each(folder, [make(0)])


@pytest.mark.parametrize("name", ["with space", "q?uery", "100%20 #ümläut"])
def test_folders_of_any_name(tmp_path: Path, tables: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    shutil.copy(tables, folder / "mlflow.db")
    mirror = tracker(folder)
    mirror.log_front(pd.DataFrame({"a": [1]}), [])
    [parent] = runs(folder, kind("study"))
    assert (folder / "artifacts" / parent.info.run_id / "artifacts" / "front.csv").is_file()


@pytest.fixture
def server(folder: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", "1", "--backend-store-uri", default_uri(folder)]
    command += ["--artifacts-destination", str(folder / "served")]
    with open(folder / "server.log", "w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    uri = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(f"{uri}/health", timeout=5).close()
                break
            except OSError:
                time.sleep(0.5)
        yield uri
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.slow
def test_on_a_server(folder: Path, server: str, capfd: pytest.CaptureFixture[str]) -> None:
    candidates = [make(i, seed=seed) for seed in range(2) for i in range(20)]
    mirror = tracker(folder, server)
    mirror.sync(candidates[:20])
    for candidate in candidates[20:]:
        mirror.log(candidate)
    mirror.set_front(["es-0-3"])
    mirror.log_progress(candidates)
    mirror.log_front(pd.DataFrame({"candidate": ["es-0-3"]}), [])
    mirror.finish()
    again = tracker(folder, server)
    again.sync(candidates)
    one_run_each(folder, candidates, server)
    [front] = runs(folder, "tags.front = 'true'", server)
    assert front.info.run_name == "es-0-3"
    [parent] = runs(folder, kind("study"), server)
    assert parent.data.metrics["candidates"] == 40
    assert list((folder / "served").rglob("front.csv"))
    assert not (folder / "artifacts").exists()
    assert capfd.readouterr() == ("", "")


# Used by the code that runs in processes of its own.
__all__ = ["Path", "make", "sys", "tracker"]
