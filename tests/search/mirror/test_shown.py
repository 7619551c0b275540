"""What the MLflow mirror shows, on real stores."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from search.candidates import history
from search.mirror import default_uri
from search.mirror import shown as tracked
from tests.helpers.candidates import decoding, measurement
from tests.helpers.mirror import TASKS, kind, make, runs, tracker


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
        assert candidate.decoding is not None
        realised = np.array(candidate.decoding.realised["block0"])
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
        failed = {"quality": None, "cost": None, "decoding": None, "costs": None, "rungs": ()}
        mirror.log(make(0, error="boom " * 5000, **failed))
        mirror.log(make(1, quality=float("nan")))
        mirror.log(make(0, "baselines", label="share_all"))
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
            rungs=(measurement(0.5, dict.fromkeys(tasks, 0.5)),),
            decoding=decoding(tasks, {f"block{i}": realised for i in range(3)}),
            label="l" * 9000,
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
        tracker(folder).log(make(rungs=(measurement(0.5, {n: i for i, n in enumerate(names)}),)))
        [run] = runs(folder, kind("candidate"))
        found = sorted(v for k, v in run.data.metrics.items() if k.startswith("accuracy/"))
        assert found == list(range(len(names)))

    def test_progress_is_logged_once_per_candidate(self, folder: Path) -> None:
        candidates = [make(i, strategy) for strategy in ("es", "random") for i in range(4)]
        candidates[2] = replace(candidates[2], error="boom")
        mirror = tracker(folder)
        mirror.sync(candidates)
        mirror.log_progress(candidates[:5])
        mirror.log_progress(candidates)
        mirror = tracker(folder)
        mirror.log_progress(candidates)
        client = MlflowClient(tracking_uri=default_uri(folder))
        arms = {r.data.tags["strategy"]: r.info.run_id for r in runs(folder, kind("arm"))}
        of_es = [c for c in candidates if c.strategy == "es"]
        expected = history(of_es)
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
