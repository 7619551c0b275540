"""The MLflow mirror on real stores: no duplicates after a crash, clear failures, a server."""

import functools
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from mlflow import MlflowClient

from search.candidates import Candidate
from search.mirror import Tracker, TrackingError, default_uri
from search.mirror import shown as tracked
from search.record import writer
from tests.helpers.mirror import in_process, kind, make, runs, tracker
from tests.helpers.mlflow_server import free_port, mlflow_server
from tests.helpers.studies import wait_for


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
        port = free_port()
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
    with mlflow_server(folder) as uri:
        yield uri


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


@pytest.mark.slow
@pytest.mark.parametrize("comes_back", [True, False])
def test_a_server_that_goes_away(
    folder: Path, monkeypatch: pytest.MonkeyPatch, comes_back: bool
) -> None:
    """And comes back while candidates go on coming, or with the end of the search, or never."""
    monkeypatch.setattr(writer, "TRIED_AGAIN_AFTER", 1.0)
    candidates = [make(i) for i in range(12)]
    port = free_port()
    make_tracker = functools.partial(
        Tracker, experiment="apportion", study="toy", folder=folder,
        tracking_uri=f"http://127.0.0.1:{port}",
    )  # fmt: skip
    config = {"tracking": {"candidates": True}}
    with mlflow_server(folder, port) as uri:
        tracker(folder, uri)
        mirror = writer.Mirror(make_tracker(), config, candidates[:2])
        mirror.add(candidates[2])
        wait_for(lambda: len(runs(folder, kind("candidate"), uri)) == 3)
    for candidate in candidates[3:7]:
        mirror.add(candidate)
    wait_for(lambda: mirror._failure is not None)
    if not comes_back:
        assert "record is not affected" in (mirror.close(Tracker.finish, at_once=False) or "")
        return
    with mlflow_server(folder, port) as uri:
        wait_for(lambda: len(runs(folder, kind("candidate"), uri)) == 7)
        mirror.add(candidates[7])
        wait_for(lambda: len(runs(folder, kind("candidate"), uri)) == 8)
    for candidate in candidates[8:]:
        mirror.add(candidate)
    wait_for(lambda: mirror._failure is not None)
    with mlflow_server(folder, port) as uri:
        assert mirror.close(Tracker.finish, at_once=False) is None
        one_run_each(folder, candidates, uri)
