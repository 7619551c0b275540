"""The MLflow mirror of a study: for people to look at; the record stays the truth.

One parent run per study, under it a run per strategy and seed, under that a run per candidate; and
under the parent one of the comparison of the strategies, if there is one.
Runs are found again by their tags, among them an id that stays in the study's folder (names are
not unique on a shared server). So a mirror that was cut off goes on where it ended, and one that
was lost is rebuilt from the record (`Tracker.sync`). The only file that knows MLflow.
"""

import json
import math
import sqlite3
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.entities import Metric, Param, Run, ViewType
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from sqlalchemy.exc import SQLAlchemyError

from search.candidates import REFERENCE, Candidate, Utilisation, history, shares, total
from search.config import masked
from search.mirror import shown as tracked
from search.mirror.models import log_program
from search.mirror.server import view
from search.mirror.store import (
    TrackingError,
    connect_store,
    default_uri,
    follow_folder,
    identity,
)
from trainers.joint import Point

STUDY, ID, KIND = "apportion.study", "apportion.id", "apportion.kind"
PARENT = "mlflow.parentRunId"
#: Candidates between two points of a study's progress, where candidates are not mirrored.
FEW = 20
#: Candidates that MLflow may refuse before no more are tried.
MOST_REFUSED = 3
HISTORY = ("candidates", "failed", "stopped", "hypervolume", "front_size", "best_quality")


class Tracker:
    """Mirrors a study to MLflow.

    Every method can be called again with what it was given before: runs that are there already
    are not made twice.

    Args:
        tracking_uri: where MLflow keeps its runs; None for SQLite in the study's folder.
        hidden: texts of that URI that no message shows.
        experiment: the experiment's name; made if missing.
        study: the study's name.
        folder: the study's folder; artifacts go there unless a server keeps them.
        every_candidate: mirror each candidate as a run of its own; without it only the study and
            its arms, with progress after every `FEW` candidates.
        reference: gives quality and cost of the hypervolume's reference point, which is known only
            once the study has looked at its tasks.
    """

    def __init__(
        self,
        *,
        tracking_uri: str | None,
        hidden: tuple[str, ...] = (),
        experiment: str,
        study: str,
        folder: Path,
        every_candidate: bool = True,
        reference: Callable[[], tuple[float, float]] = lambda: REFERENCE,
    ) -> None:
        self._reference = reference
        self._every_candidate = every_candidate
        self.uri = tracking_uri or default_uri(folder)
        self._hidden = hidden
        self.experiment = experiment
        self.study = study
        self.folder = Path(folder).absolute()
        self._comparison: str | None = None  # its run
        #: Status of the study's run before `start`; None where there was none.
        self.before: str | None = None

    def start(self, config: Mapping[str, Any]) -> None:
        """Finds the study's runs, or begins them.

        Args:
            config: the resolved config; kept as config.yaml and, leaf by leaf, as parameters.

        Raises:
            TrackingError: MLflow cannot be reached.
        """
        with self._told():
            parent = self._open()
            if parent is None:
                self.run_id = self._create("study", self.study, time.time(), {})
                logged = {}
            else:
                self.run_id, logged = parent.info.run_id, parent.data.params
                self.before = parent.info.status
                self._client.update_run(self.run_id, status="RUNNING")
            params = {k: v for k, v in tracked.flat(config).items() if k not in logged}
            self._log(self.run_id, params=params)
            self._client.log_dict(self.run_id, dict(config), "config.yaml")
            self._describe()

    def attach(self) -> bool:
        """Finds the study's runs and changes none of them; returns whether there are any.

        Raises:
            TrackingError: MLflow cannot be reached.
        """
        if self.uri == default_uri(self.folder) and not (self.folder / "mlflow.db").is_file():
            return False
        with self._told():
            parent = self._open()
            if parent is not None:
                self.run_id = parent.info.run_id
            return parent is not None

    def _open(self) -> Run | None:
        """Connects to the store and takes stock of the study's runs; returns its parent run."""
        if self.uri == default_uri(self.folder):
            follow_folder(self.folder / "mlflow.db", self._artifacts)
        self._client = connect_store(self.uri)
        self._id = identity(self.folder / "mlflow.id")
        self._experiment_id = self._find_experiment()
        return self._index()

    def view(self) -> str:
        """What follows MLflow's address to see the study's front; once runs have been found."""
        return view(self._experiment_id, self._id)

    def log(self, candidate: Candidate) -> None:
        """Mirrors a candidate, unless it is there already.

        Raises:
            TrackingError: MLflow cannot be reached.
        """
        if candidate.id in self._runs or not self._every_candidate:
            return
        with self._told():
            tags = tracked.tags(candidate, front=candidate.id in self._front)
            run_id = self._begun.get(candidate.id)
            if run_id is not None:
                self._client.set_tag(run_id, "front", tags["front"])
            else:
                name = f"{candidate.label} ({candidate.id})" if candidate.label else candidate.id
                tags[PARENT] = self._arm(candidate)
                run_id = self._create("candidate", name, candidate.started, tags)
            end = _milliseconds(candidate.finished)
            # The time of a metric is fixed, so that logging it again changes nothing.
            metrics = [Metric(key, v, end, 0) for key, v in tracked.metrics(candidate).items()]
            self._log(run_id, metrics=metrics, params=tracked.params(candidate))
            status = "FAILED" if candidate.failed else "FINISHED"
            self._client.set_terminated(run_id, status, end)
            self._begun.pop(candidate.id, None)
            self._runs[candidate.id] = run_id

    def sync(self, candidates: Sequence[Candidate]) -> None:
        """Makes the mirror whole: logs what is missing and removes what a crash left half made.

        Args:
            candidates: all candidates of the record.

        Raises:
            TrackingError: MLflow cannot be reached, or refuses a candidate; others are logged.
        """
        errors: list[TrackingError] = []
        for candidate in candidates:
            try:
                self.log(candidate)
            except TrackingError as error:
                errors.append(error)
                if len(errors) == MOST_REFUSED:  # it is not the candidates' fault
                    break
        if errors:
            raise errors[0]
        with self._told():
            for run_id in self._begun.values():
                self._client.delete_run(run_id)
            self._begun.clear()

    def set_front(self, ids: Collection[str]) -> None:
        """Tags the members of the front, `tags.front = 'true'`, and no others.

        Raises:
            TrackingError: MLflow cannot be reached.
        """
        with self._told():
            members = set(ids)
            for name in self._front ^ members:
                if name in self._runs:  # others get theirs when they are logged
                    self._client.set_tag(self._runs[name], "front", tracked.flag(name in members))
                self._front ^= {name}

    def log_progress(self, candidates: Sequence[Candidate]) -> None:
        """Logs hypervolume and counts, on the study and on each arm, against candidates so far.

        Args:
            candidates: all candidates so far; what was logged for fewer is not logged again.

        Raises:
            TrackingError: MLflow cannot be reached.
        """
        arms: dict[str, list[Candidate]] = {self.run_id: list(candidates)}
        reference = self._reference()
        with self._told():
            for candidate in candidates:
                arms.setdefault(self._arm(candidate), []).append(candidate)
            for run_id, members in arms.items():
                begin = self._steps.get(run_id, 0)
                if len(members) <= begin:
                    continue
                rows = history(members, reference)[begin:]
                if not self._every_candidate:
                    rows = rows[
                        (rows["candidates"] % FEW == 0) | (rows["candidates"] == len(members))
                    ]
                metrics = [
                    Metric(key, float(row[key]), _milliseconds(row["finished"]), row["candidates"])
                    for row in rows.to_dict("records")
                    for key in HISTORY
                    if not pd.isna(row[key])
                ]
                self._log(run_id, metrics=metrics)
                self._steps[run_id] = len(members)

    def log_utilisation(self, used: Mapping[tuple[str, int], Utilisation], finished: float) -> None:
        """Logs shares of evaluators' time, on the study and on each arm.

        Args:
            used: by strategy and seed.
            finished: when the last candidate was, in unix seconds.

        Raises:
            TrackingError: MLflow cannot be reached.
        """
        runs = {self._arms[arm]: used[arm] for arm in self._arms.keys() & used.keys()}
        runs[self.run_id] = total(used.values())
        end = _milliseconds(finished)
        with self._told():
            for run_id, seconds in runs.items():
                parts = {f"evaluators/{what}": part for what, part in shares(seconds).items()}
                if seconds:
                    parts["evaluators/hours"] = sum(seconds.values()) / 3600
                self._log(run_id, metrics=[Metric(key, v, end, 0) for key, v in parts.items()])

    def log_curve(
        self, candidate: str, points: Sequence[tuple[int, Mapping[str, float]]], finished: float
    ) -> None:
        """Logs what was measured of a candidate on the way, if it is mirrored.

        Args:
            candidate: its id.
            points: steps done, and metrics by name.
            finished: when it was, in unix seconds; logged again, nothing changes.

        Raises:
            TrackingError: MLflow cannot be reached.
        """
        if candidate not in self._runs:
            return
        end = _milliseconds(finished)
        found = [
            Metric("/".join(tracked.safe(part) for part in key.split("/")), value, end, step)
            for step, values in points
            for key, value in values.items()
            if math.isfinite(value)
        ]
        with self._told():
            self._log(self._runs[candidate], metrics=found)

    def log_training(
        self,
        candidate: str,
        seed: int,
        settings: str,
        described: Mapping[str, Any],
        points: Sequence[Point],
        accuracy: Mapping[str, Mapping[str, float]] | None = None,
    ) -> None:
        """Logs a full training, or as much as there is of it, as a run under its candidate.

        Args:
            candidate: its id.
            seed: of the training.
            settings: short name of how it is trained.
            described: the same in full; kept as parameters.
            points: of its curve; those that are there already are not logged again.
            accuracy: by split and virtual network, once it has ended.

        Raises:
            TrackingError: MLflow cannot be reached.
        """
        key = candidate, str(seed), settings
        with self._told():
            run_id = self._trainings.get(key)
            if run_id is None:
                begun = points[0].when if points else time.time()
                tags = {"candidate": candidate, "seed": str(seed), "settings": settings}
                tags["how"] = json.dumps(described)
                tags[PARENT] = self._runs.get(candidate, self.run_id)
                name = f"{candidate} in full, seed {seed} ({settings})"
                run_id = self._trainings[key] = self._create("training", name, begun, tags)
                self._log(run_id, params=tracked.flat(described))
                self._points[run_id] = -1
            known = self._known_points(run_id, candidate)
            metrics = [
                Metric(name, value, _milliseconds(point.when), point.step)
                for point in points
                if point.step > known
                for name, value in tracked.of_point(point).items()
            ]
            if accuracy is None and run_id not in self._open_trainings:
                self._client.update_run(run_id, status="RUNNING")
                self._open_trainings.add(run_id)
            end = _milliseconds(points[-1].when if points else time.time())
            for split, own in (accuracy or {}).items():
                named = {f"{split}/{tracked.safe(name)}": value for name, value in own.items()}
                named[split] = sum(own.values()) / len(own)
                step = points[-1].step if points else 0
                metrics += [Metric(name, value, end, step) for name, value in named.items()]
            if metrics:
                self._log(run_id, metrics=metrics)
            if points:
                self._points[run_id] = points[-1].step
            if accuracy is not None:
                self._client.set_terminated(run_id, "FINISHED", end)
                self._open_trainings.discard(run_id)

    def stop_trainings(self, status: str) -> None:
        """Ends the runs of trainings that were begun or gone on with and have not ended.

        Args:
            status: FAILED or KILLED.

        Raises:
            TrackingError: MLflow cannot be reached.
        """
        with self._told():
            for run_id in self._open_trainings:
                self._client.set_terminated(run_id, status)
            self._open_trainings.clear()

    def _known_points(self, run_id: str, candidate: str) -> int:
        """The last step of a training that its run has; a run from before is opened once."""
        if run_id not in self._points:
            kept = self._client.get_metric_history(run_id, "learning_rate")
            self._points[run_id] = max((metric.step for metric in kept), default=-1)
            if parent := self._runs.get(candidate):  # which a search may have mirrored late
                self._client.set_tag(run_id, PARENT, parent)
        return self._points[run_id]

    def log_network(
        self,
        candidate: str,
        seed: int,
        settings: str,
        network: Path,
        register: str | None = None,
    ) -> None:
        """Logs an exported network as a model with its signature, in the run of its training.

        Args:
            candidate: its id.
            seed: of the training.
            settings: short name of how it was trained.
            network: folder of the exported network, as `export_networks` writes it; named after it.
            register: also make it a version of this registered model; None does not.

        Raises:
            TrackingError: MLflow cannot be reached, or the training has no run.
        """
        run_id = self._trainings.get((candidate, str(seed), settings))
        if run_id is None:
            raise TrackingError(f"MLflow has no run of the training of {candidate}, seed {seed}")
        with self._told():
            run = self._client.get_run(run_id)
            log_program(self._client.tracking_uri, run_id, network, register)
            # To log a model opens its run anew.
            self._client.set_terminated(run_id, run.info.status, run.info.end_time)

    def training(self, run_id: str) -> tuple[str, int, Any] | None:
        """Candidate, seed and how it was trained, of a run; None where there is none such.

        Raises:
            TrackingError: MLflow cannot be reached.
        """
        if run_id not in self._trainings.values():
            return None
        with self._told():
            tags = self._client.get_run(run_id).data.tags
        return tags["candidate"], int(tags["seed"]), json.loads(tags["how"])

    def log_front(self, table: pd.DataFrame, files: Sequence[Path]) -> None:
        """Puts the front on the study's run, as front.csv and the files (pictures, pages).

        Raises:
            TrackingError: MLflow cannot be reached.
        """
        with self._told(), tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "front.csv"
            table.to_csv(path, index=False)
            for file in (path, *(file for file in files if file.name != path.name)):
                self._keep_file(self.run_id, file)

    def log_comparison(
        self, metrics: Mapping[str, float], step: int, finished: float, files: Sequence[Path]
    ) -> None:
        """Puts a comparison of the strategies on a run of its own, the same one every time.

        Args:
            metrics: by name; those that are not finite are left out.
            step: number of candidates that were compared.
            finished: when the last of them was, in unix seconds.
            files: tables and pictures.

        Raises:
            TrackingError: MLflow cannot be reached.
        """
        end = _milliseconds(finished)
        found = [Metric(key, v, end, step) for key, v in metrics.items() if math.isfinite(v)]
        with self._told():
            if self._comparison is None:
                name, tags = f"{self.study}, comparison", {PARENT: self.run_id}
                self._comparison = self._create("comparison", name, finished, tags)
            self._log(self._comparison, metrics=found)
            for file in files:
                self._keep_file(self._comparison, file)
            self._client.set_terminated(self._comparison, "FINISHED")

    def finish(self, status: str = "FINISHED") -> None:
        """Ends the runs of the study and its arms as FINISHED, FAILED or KILLED.

        Raises:
            TrackingError: MLflow cannot be reached.
        """
        with self._told():
            for run_id in (*self._arms.values(), self.run_id):
                self._client.set_terminated(run_id, status)

    def _keep_file(self, run_id: str, file: Path) -> None:
        """Copies a file to a run's artifacts.

        The client's own `log_artifact` remembers by run where they go, but a copy of a study has
        the same runs, and its artifacts elsewhere.
        """
        uri = self._client.get_run(run_id).info.artifact_uri
        store = get_artifact_repository(uri, tracking_uri=self._client.tracking_uri)
        store.log_artifact(str(file))

    @property
    def _artifacts(self) -> str:
        return (self.folder / "artifacts").as_uri()

    def _find_experiment(self) -> str:
        found = self._client.get_experiment_by_name(self.experiment)
        if found is None:
            # A server keeps artifacts where it likes; beside SQLite they go where the study is.
            location = None
            if not self.uri.startswith(("http", "databricks")):
                location = self._artifacts
            kind = {"mlflow.experimentKind": "custom_model_development"}  # not generative AI
            return str(self._client.create_experiment(self.experiment, location, kind))
        if found.lifecycle_stage != "active":
            place = masked(self.uri, self._hidden)
            raise TrackingError(
                f"MLflow's experiment {self.experiment!r} at {place} has been deleted: restore it "
                f"(mlflow experiments restore -x {found.experiment_id}) or name another one"
            )
        return str(found.experiment_id)

    def _index(self) -> Run | None:
        """Takes stock of the study's runs; returns its parent run."""
        self._arms: dict[tuple[str, int], str] = {}
        self._runs: dict[str, str] = {}  # of candidates
        self._begun: dict[str, str] = {}  # of candidates, left half made
        self._front: set[str] = set()
        self._steps: dict[str, int] = {}  # candidates of which progress has been logged, by run
        self._comparison = None
        self._trainings: dict[tuple[str, str, str], str] = {}
        self._points: dict[str, int] = {}  # last steps of trainings that were logged, by run
        self._open_trainings: set[str] = set()
        parent: Run | None = None
        seen = set()
        for run in self._all_runs():
            tags, run_id, ended = run.data.tags, run.info.run_id, run.info.status != "RUNNING"
            names = (KIND, "strategy", "seed", "candidate", "settings")
            which = tuple(tags.get(name) for name in names)
            if which in seen:
                self._client.delete_run(run_id)  # a request that was sent twice
                continue
            seen.add(which)
            if tags[KIND] == "study":
                parent = run
            elif tags[KIND] == "arm":
                self._arms[tags["strategy"], int(tags["seed"])] = run_id
            elif tags[KIND] == "comparison":
                self._comparison = run_id
            elif tags[KIND] == "training":
                self._trainings[tags["candidate"], tags["seed"], tags["settings"]] = run_id
            else:
                (self._runs if ended else self._begun)[tags["candidate"]] = run_id
                if tags.get("front") == tracked.flag(True):
                    self._front.add(tags["candidate"])
            self._steps[run_id] = int(run.data.metrics.get("candidates", 0))
        return parent

    def _all_runs(self) -> list[Run]:
        """The study's runs, those that have ended first."""
        found, token = [], None
        while token != "":
            page = self._client.search_runs(
                [self._experiment_id],
                f"tags.`{ID}` = '{self._id}'",
                ViewType.ACTIVE_ONLY,
                max_results=1000,
                page_token=token,
            )
            found += page
            token = page.token or ""
        return sorted(found, key=lambda run: (run.info.status == "RUNNING", run.info.start_time))

    def _arm(self, candidate: Candidate) -> str:
        key = (candidate.strategy, candidate.seed)
        if key not in self._arms:
            tags = {"strategy": key[0], "seed": str(key[1]), PARENT: self.run_id}
            name = f"{key[0]}, seed {key[1]}"
            self._arms[key] = self._create("arm", name, candidate.started, tags)
        return self._arms[key]

    def _create(self, kind: str, name: str, started: float, tags: Mapping[str, str]) -> str:
        common = {STUDY: self.study, ID: self._id, KIND: kind, "mlflow.source.name": "apportion"}
        run = self._client.create_run(
            self._experiment_id,
            start_time=_milliseconds(started),
            tags={**common, **tags},
            run_name=name,
        )
        return str(run.info.run_id)

    def _log(
        self, run_id: str, metrics: Sequence[Metric] = (), params: Mapping[str, str] | None = None
    ) -> None:
        for begin in range(0, max(1, len(metrics)), tracked.MAX_METRICS):
            batch = metrics[begin : begin + tracked.MAX_METRICS]
            self._client.log_batch(
                run_id, batch, [Param(key, value) for key, value in (params or {}).items()]
            )
            params = None

    def _describe(self) -> None:
        """Tells a visitor where to look."""
        members = f"tags.front = 'true' and tags.`{ID}` = '{self._id}'"
        key, value = tracked.front_view(self._id, self.study, members, _milliseconds(time.time()))
        note = tracked.note(self._id, self.study, members, self._experiment_id)
        self._client.set_tag(self.run_id, "mlflow.note.content", note)
        self._client.set_experiment_tag(self._experiment_id, key, value)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (MlflowException, SQLAlchemyError, sqlite3.Error, OSError) as error:
            lines = [line for line in str(error).splitlines() if "autoflush" not in line]
            first = (lines or [""])[0]  # SQLAlchemy adds statement and advice
            raise TrackingError(
                masked(f"MLflow at {self.uri} failed: {first}", self._hidden)
                + ". The study's record is not affected; the mirror can be completed from it later"
            ) from (None if self._hidden else error)


def _milliseconds(seconds: float) -> int:
    return round(1000 * seconds)
