"""A study's folder, and what can be done with it from Python."""

import logging
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from partitioning import (
    STUDY,
    DamagedFileError,
    FormatError,
    Masks,
    read_json,
    require_free,
    write_atomically,
    write_json,
)
from search.candidates import (
    REFERENCE,
    SHARE_ALL,
    Candidate,
    Utilisation,
    front,
    scored,
    total,
)
from search.config import (
    COSTS,
    ConfigError,
    StudyConfig,
    differences,
    dump_config,
    parse_config,
    read_yaml_file,
    without_header,
    yaml_text,
)
from search.record import Contents, read_contents, was_begun
from search.report import draw_front, front_table, study_html, summary
from search.strategies import TaskFacts, TaskKnowledge
from search.study.basis import Basis, Check, changed, settings_basis
from search.study.exports import note_export
from search.study.foundation import Foundation, Run, build_foundation, run_here
from search.study.latency import latency_table, searched_latency
from search.study.picking import pick_candidate
from search.study.shelf import Say, StudyError, own_folder
from search.study.training import ToTrain, Watch, export_trained, train_candidates
from search.study.training_files import TrainedPick, read_trained
from search.study.tried import Tried, tried
from trainers.export import ExportConfig, Exported, LatencyTable

if TYPE_CHECKING:  # slow to import, so it is done where it is needed
    import pandas as pd
    from matplotlib.figure import Figure

#: The file that says how the last search ended.
ENDED = "ended.json"
#: What to do about a damaged config.
RESTORE = "Put it back from a copy of the study"
#: What to do about the facts of the tasks.
WRITTEN_ANEW = "`apportion search` with --resume writes it anew"

logger = logging.getLogger(__name__)


class Study:
    """A study on disk: its config, its record, and what was trained and exported of it.

    Args:
        folder: The study's folder.

    Raises:
        StudyError: The folder holds no study, or one of another version.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        path = self.folder / "config.yaml"
        if not path.is_file():
            raise StudyError(f"{self.folder.absolute()} is not a study: it has no config.yaml")
        try:
            raw = read_yaml_file(path)
        except ConfigError as error:
            said = str(error).removeprefix(str(path)).lstrip(", :")
            raise StudyError(f"{path} is damaged, or was changed: {said}. {RESTORE}") from error
        if not isinstance(raw, dict):
            raise StudyError(
                f"{path} is damaged: it must hold a mapping, got {raw!r:.60}. {RESTORE}"
            )
        try:
            config = parse_config(without_header(raw, path))
        except FormatError as error:
            raise StudyError(str(error)) from error
        except ConfigError as error:
            raise StudyError(
                f"{path} is damaged, or of another version of Apportion: {error}. {RESTORE}"
            ) from error
        # The folder may have been moved or copied since; all that it needs is in it.
        folder = self.folder.absolute()
        self.config = replace(
            config, name=folder.name, output=str(folder.parent), cache=str(own_folder(folder))
        )
        self._name = config.name
        self._id = str(raw.get("id", ""))

    def __getstate__(self) -> dict[str, Any]:
        # A process that it is sent to may have another current folder.
        return vars(self) | {"folder": self.folder.absolute()}

    @classmethod
    def create(cls, config: StudyConfig, *, resume: bool = False) -> "Study":
        """Make a study's folder, or continue in it.

        Raises:
            StudyError: The folder cannot be written, holds something else or another study, or
                holds this study and `resume` is False.
        """
        folder = config.folder
        path = folder / "config.yaml"
        name, identity = config.name, uuid.uuid4().hex
        known = path.is_file()
        if known:
            before = cls(folder)
            _refuse_other(before, config, resume)
            # Of a renamed folder: under this name the record has its candidates.
            name, identity = before.name, before._id
        elif folder.exists() and any(folder.iterdir()):
            raise StudyError(
                f"{folder.absolute()} is not empty and holds no study; choose another name or "
                "output"
            )
        elif resume:
            raise StudyError(
                f"{folder.absolute()} holds no study to resume; leave out --resume to start one"
            )
        content = dump_config(config)
        for place in ("output", "cache"):  # the folder itself, wherever it lies
            del content[place]
        # Absolute, so that the study finds its data from wherever it is used.
        content |= {"name": name, "data_root": config.data_root or str(Path.cwd())}
        text = yaml_text(STUDY.header | {"id": identity} | content)
        require_writable(folder)
        if not known:
            require_writable(config.cache_folder)
        try:
            with write_atomically(path) as partial:
                partial.write_text(text)
        except OSError as error:
            raise StudyError(
                f"the study's config {path} cannot be written: {error.strerror}"
            ) from error
        study = cls(folder)
        # What other studies made already is taken from the cache that they share.
        study.config = replace(study.config, cache=str(config.cache_folder.absolute()))
        return study

    @property
    def name(self) -> str:
        """The name under which the record keeps its candidates."""
        return self._name

    @property
    def record_path(self) -> Path:
        """The record's file."""
        return self.folder / "record.journal"

    @property
    def store_uri(self) -> str:
        """Where MLflow keeps its mirror."""
        from search.mirror import default_uri  # loads MLflow, which takes seconds

        return self.config.tracking.uri or default_uri(self.folder)

    @property
    def _facts_path(self) -> Path:
        return self.folder / "tasks.json"

    def keep_facts(self, knowledge: TaskKnowledge) -> None:
        """Keep what is known of the tasks before the search.

        Args:
            knowledge: That of any seed; their teachers' accuracies alone may differ.
        """
        facts = {"tasks": [asdict(facts) for facts in knowledge.tasks]}
        write_json(self._facts_path, facts, sealed=True)

    def knowledge(self) -> TaskKnowledge:
        """Facts of the tasks; none of a study whose tasks have not been looked at yet."""
        if self.config.evaluator == "simulated":
            return self.config.simulated.knowledge
        if not self._facts_path.exists():
            if was_begun(self.record_path):
                raise StudyError(f"{self._facts_path} is missing. {WRITTEN_ANEW}")
            return TaskKnowledge()
        try:
            entries = read_json(self._facts_path)["tasks"]
            return TaskKnowledge(tasks=tuple(TaskFacts(**entry) for entry in entries))
        except (DamagedFileError, KeyError, TypeError) as error:
            said = (
                error if isinstance(error, DamagedFileError) else f"{self._facts_path} is damaged"
            )
            raise StudyError(f"{said}. {WRITTEN_ANEW}") from error

    def reference(self) -> tuple[float, float]:
        """Quality and cost of the point that this study's hypervolumes are seen from.

        What the config sets, else the quality of guessing (0 before that is known) and the cost of
        sharing every channel.
        """
        return self.config.objective.reference or (self.knowledge().floor, REFERENCE[1])

    def candidates(self) -> list[Candidate]:
        """All recorded candidates, by strategy, seed and index.

        Raises:
            RecordError: The record cannot be read.
            StudyError: It is that of another study.
        """
        return self._contents().candidates

    def _contents(self) -> Contents:
        """What the record holds; nothing where it has not been begun."""
        if not was_begun(self.record_path):
            if self._facts_path.exists():  # written after the record's first lines
                raise StudyError(
                    f"the record {self.record_path} is gone: put it back from a copy, or delete "
                    f"{self._facts_path.name} as well, to begin the study anew"
                )
            return Contents(candidates=[], scored_on={}, used={})
        contents = read_contents(self.record_path, self.name)
        if changed(contents.scored_on, self.basis):
            raise StudyError(
                f"{self.record_path} is the record of another study of that name: put the "
                "study's own record back"
            )
        return contents

    @property
    def basis(self) -> Basis:
        """What scores depend on before anything is loaded."""
        return {"the study": self._id}

    def check(self, passed: dict[str, str] | None = None) -> Check:
        """What refuses to go on where scores depend on something that is another now.

        Args:
            passed: Gets the digests that were checked.

        Returns:
            A function of digests; it raises StudyError and says what they are of.

        Raises:
            StudyError: The settings in the folder's config are not those of its scores.
        """
        contents = self._contents()
        before = contents.scored_on
        if contents.candidates and not before:
            logger.warning(
                "warning: %s has lost the lines that say what its scores depend on: whether data, "
                "weights, settings and program are still the same is not checked",
                self.record_path,
            )

        def check(found: Basis) -> None:
            if differing := changed(before, found):
                *most, last = differing
                what = f"{', '.join(most)} and {last}" if most else last
                raise StudyError(
                    f"{self.folder} was scored with other data, weights, settings or program than "
                    f"there are now; what changed: {what}. Put that back as it was, or search anew "
                    "under another name"
                )
            if passed is not None:
                passed.update(found)

        check(settings_basis(self.config))
        return check

    def summary(self) -> dict[str, Any]:
        """What `apportion front --json` prints."""
        contents = self._contents()
        return summary(contents.candidates, self.reference(), total(contents.used.values()))

    def utilisation(self) -> Mapping[tuple[str, int], Utilisation]:
        """What evaluators did with their time, by strategy and seed."""
        return self._contents().used

    def pick(self, name: str) -> Candidate:
        """A candidate by name or label, or "best" (highest quality) or "knee" (the front's bend).

        These two also of candidates that are cheap enough: "best@0.5" by the study's own cost,
        "best@parameters<=0.5" by another one.

        Raises:
            StudyError: There is no such candidate, it failed or was stopped at a lower rung, or
                none has been scored.
        """
        return pick_candidate(name, self.candidates(), self.folder, self._latency_of)

    def latency(self, say: Say = logger.info) -> LatencyTable | None:
        """How long the network's layers take, where that is the study's cost; None elsewhere.

        Args:
            say: Called with a line where they have to be timed again.
        """
        return searched_latency(self.config, say=say)

    def _latency_of(self, candidate: Candidate) -> float:
        """Relative to sharing every channel, by the table of this study."""
        if candidate.costs is not None and candidate.costs.relative_latency is not None:
            return candidate.costs.relative_latency
        if self.config.methods:
            raise StudyError("levels of methods have no latency to be picked by")
        table = latency_table(self.config, say=logger.info)
        return table.relative(self.config.network, candidate.masks)

    def picks(self, names: Sequence[str]) -> list[Candidate]:
        """Several candidates, each once; see `pick`.

        A label such as share_all, which a candidate of every seed has, stands for that on the
        foundations of the others.
        """
        found = {name: self.pick(name) for name in names}
        grounds = {self.foundation_of(one) for name, one in found.items() if name != one.label}
        candidates, chosen = scored(self.candidates()), []
        for name, candidate in found.items():
            labelled = [one for one in candidates if one.label == name]
            first = {self.foundation_of(one): one for one in reversed(labelled)}
            chosen += [first[ground] for ground in sorted(grounds & first.keys())] or [candidate]
        return list({one.id: one for one in chosen}.values())

    def masks(self, candidate: Candidate | str) -> Masks:
        """The masks that a candidate was scored with.

        Args:
            candidate: It, or what `pick` takes, such as its name or "knee".

        Raises:
            StudyError: There is no such candidate.
            ValueError: It has none; the message says why.
        """
        return (self.pick(candidate) if isinstance(candidate, str) else candidate).masks

    def train(
        self,
        pick: str,
        *,
        seeds: int = 1,
        say: Say = print,
        run: Run = run_here,
        base: Foundation | None = None,
    ) -> TrainedPick:
        """Train a candidate in full; see `train_all`."""
        return self.train_all([pick], seeds=seeds, say=say, run=run, base=base)[0]

    def train_all(
        self,
        picks: Sequence[str],
        *,
        seeds: int | Sequence[int] = 1,
        settings: StudyConfig | None = None,
        others: Mapping[str, tuple[Masks, Sequence[int]]] = MappingProxyType({}),
        ground: int | None = None,
        say: Say = print,
        run: Run = run_here,
        base: Foundation | None = None,
        watch: Watch = lambda running: nullcontext(),
    ) -> list[TrainedPick]:
        """Train candidates in full, each once per seed, side by side as `run` has room for.

        Trainings that are there are not repeated, and those that were cut off go on.

        Args:
            picks: "knee", "best" or candidates' names.
            seeds: Number of trainings, with seeds 0 to seeds - 1; or the seeds.
            settings: How they are trained: the study's config with other `train` and `compute`;
                None for its own.
            others: Masks that are no candidate's, by a name of their own, with seeds.
            ground: Seed of the foundation that they are trained on; None for the first.
            say: Called with one line per thing that was done.
            run: Where training runs.
            base: Tasks, trunk and teachers of the candidates' seed if they are loaded already.
            watch: Looks at trainings as they run.

        Raises:
            StudyError: There is no such candidate, or what it was scored on has changed.
            FloatingPointError: A training diverged; the others have ended.
            TrainingsError: One was cut short: of memory, a device or a disk; likewise.
        """
        wanted = range(seeds) if isinstance(seeds, int) else seeds
        if not wanted:
            raise StudyError(f"seeds must be at least 1, got {seeds}")
        if self.config.methods:
            raise StudyError(
                f"the candidates of {self.folder} are levels of methods, which are trained "
                f"in full; export one with `apportion export {self.folder} --pick {picks[0]} --out "
                "FOLDER`"
            )
        how = settings or self.config
        first = self.config.seeds[0] if ground is None else ground
        known = {one.id: (self.masks(one), wanted, one.seed) for one in map(self.pick, picks)}
        known |= {name: (masks, own, first) for name, (masks, own) in others.items()}
        return train_candidates(
            [
                ToTrain(
                    candidate=name,
                    masks=masks,
                    config=self.config.of_seed(of),
                    how=how.of_seed(of),
                    seeds=own,
                    base=base,
                )
                for name, (masks, own, of) in known.items()
            ],
            self.folder / "trained",
            say=say,
            run=run,
            scored_on=self._contents().scored_on,
            check=self.check(),
            watch=watch,
        )

    def tried(self, settings: StudyConfig | None = None, say: Say = print) -> list[Tried]:
        """All candidates that were trained in full, held against sharing every channel.

        Args:
            settings: How they were trained; None for the study's own.
            say: Called with a line for each training that is damaged, which is left out.
        """
        by_id = {candidate.id: candidate for candidate in self._contents().candidates}
        trained = self._trained(settings, say)
        known = [by_id[pick.candidate] for pick in trained if pick.candidate in by_id]
        return tried(trained, self.held_against(known))

    def held_against(self, trained: Sequence[Candidate]) -> dict[str, str]:
        """By trained candidate the one that shares every channel on its foundation.

        Without those on whose foundation no such one was trained.
        """
        # Of foundations that arms share, one candidate that shares every channel stands for all.
        share_all = {self.foundation_of(c): c.id for c in trained if c.label == SHARE_ALL}
        return {
            c.id: c.id if c.label == SHARE_ALL else share_all[self.foundation_of(c)]
            for c in trained
            if self.foundation_of(c) in share_all
        }

    def _trained(self, settings: StudyConfig | None, say: Say) -> list[TrainedPick]:
        """All that was trained in full with these settings."""
        contents = self._contents()
        known = [c for c in contents.candidates if c.decoding is not None]
        masks = {c.id: (c.masks, c.seed) for c in known}
        folder = self.folder / "trained"
        return read_trained(settings or self.config, folder, masks, contents.scored_on, say)

    def best_seed(self, pick: str, settings: StudyConfig | None = None, say: Say = print) -> int:
        """The seed of a candidate's training with the best mean validation accuracy.

        Args:
            pick: "knee", "best" or a candidate's name.
            settings: How it was trained; None for the study's own.
            say: Called with a line for each training that is damaged, which is left out.

        Raises:
            StudyError: There is no such candidate, or it has not been trained so.
        """
        candidate = self.pick(pick)
        for trained in self._trained(settings, say):
            if trained.candidate == candidate.id:
                means = dict(zip(trained.accuracy, trained.by_split()["validation"], strict=True))
                return max(means, key=lambda seed: means[seed])
        raise StudyError(
            f"{candidate.id} has no trainings of which one is the best: train it with `apportion "
            f"train {self.folder} --pick {candidate.id} --seeds 3`"
        )

    def _beside(
        self, candidate: Candidate, settings: StudyConfig | None, say: Say
    ) -> dict[str, dict[str, float]]:
        """What sharing every channel reaches by network, where it was trained so, too."""
        alike = {
            c.id
            for c in self._contents().candidates
            if c.label == SHARE_ALL and self.foundation_of(c) == self.foundation_of(candidate)
        }
        for pick in self._trained(settings, say):
            if pick.candidate in alike:
                runs = [run.get("test", run["validation"]) for run in pick.accuracy.values()]
                names = runs[0]
                return {SHARE_ALL: {n: float(np.mean([run[n] for run in runs])) for n in names}}
        return {}

    def foundation_of(self, candidate: Candidate) -> int:
        """Whose trunk, teachers and features a candidate stands on: a seed's."""
        return candidate.seed if self.config.foundations == "per_seed" else 0

    def export(
        self,
        pick: str,
        out: str | Path,
        *,
        seed: int = 0,
        settings: StudyConfig | None = None,
        files: ExportConfig | None = None,
        replace: bool = False,
        say: Say = print,
        run: Run = run_here,
        base: Foundation | None = None,
        watch: Watch = lambda running: nullcontext(),
    ) -> Exported:
        """Write one compact network per task of a trained candidate, trained first if need be.

        Where it lies is kept in the study's `exports.json`, if the study can be written.

        Args:
            pick: "knee", "best" or a candidate's name.
            out: Folder of the compact networks.
            seed: Of the training.
            settings: How it is trained, as in `train_all`.
            files: Which are written; None for what torch needs.
            replace: Take the place of a folder that is there.
            say: Called with one line per thing that was done.
            run: Where training runs.
            base: Tasks, trunk and teachers of the candidate's seed if they are loaded already.
            watch: Looks at the training as it runs.

        Raises:
            StudyError: There is no such candidate, what it was scored on has changed, or the
                folder cannot be written.
            ExportError: A compact network does not compute what the masked one does.
        """
        out = Path(out)
        candidate = self.pick(pick)
        config = self.config.of_seed(candidate.seed)
        require_place(out, replace=replace)
        base = base or build_foundation(config, run, say, check=self.check())
        (trained,) = self.train_all(
            [candidate.id], seeds=[seed], settings=settings, say=say, run=run, base=base,
            watch=watch,
        )  # fmt: skip
        files = files or ExportConfig(formats=("pt2",))
        exported = export_trained(
            config, trained, self.masks(candidate), base, out, seed=seed, files=files,
            beside=self._beside(candidate, settings, say), replace=replace, say=say,
        )  # fmt: skip
        note_export(
            self.folder, candidate=candidate.id, seed=seed, out=out, formats=files.formats, say=say
        )
        return exported

    @classmethod
    def open(cls, folder: str | Path) -> "Study":
        """The study in a folder.

        Raises:
            StudyError: The folder holds no study, or one of another version.
        """
        return cls(folder)

    def faults(self) -> tuple[str, ...]:
        """What is wrong with lines of the record, which are left out; none where all is well."""
        return self._contents().faults

    def say_ended(self, status: str | None) -> None:
        """Keep how the last search, or training of methods, ended.

        Args:
            status: FINISHED, FAILED or KILLED; None while one runs.
        """
        path = self.folder / ENDED
        with suppress(OSError):  # of a full disk, say; what was scored says as much
            if status is None:
                path.unlink(missing_ok=True)
            else:
                write_json(path, {"status": status})

    def ended(self) -> str | None:
        """How the last search ended: FINISHED, FAILED or KILLED; None where nothing says it."""
        try:
            return str(read_json(self.folder / ENDED)["status"])
        except (OSError, DamagedFileError, KeyError, TypeError):
            return None

    def front(self) -> list[Candidate]:
        """The candidates that none beats in quality and cost, from the cheapest to the best."""
        return front(self.candidates())

    def table(self) -> "pd.DataFrame":
        """All candidates with a score, a row each, members of the front first.

        The columns are those of `front_table`: candidate, strategy, seed, label, quality, cost,
        cost/<name>, accuracy/<task>, contribution and on_front.
        """
        return front_table(self.candidates(), self.reference())

    def plot_front(self) -> "Figure":
        """The front, all candidates and the hypervolume during the search, as a picture."""
        words = COSTS[self.config.objective.cost].words
        return draw_front(self.candidates(), self.reference(), cost=words)

    def _repr_html_(self) -> str:
        """How a notebook shows it: its name, its counts and its front."""
        return study_html(self.name, str(self.folder), self.candidates(), self.reference())


def require_place(folder: Path, *, replace: bool = False) -> None:
    """Refuse a folder that is there already, or cannot be made, before it is to be filled.

    Raises:
        StudyError: It cannot be, or there is something in it.
    """
    try:
        require_free(folder, replace=replace)
        folder = folder.absolute()
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.{'x' * 40}.", dir=folder.parent):
            pass  # with as long a name as it has until it is whole
    except FileExistsError as error:
        raise StudyError(str(error)) from error
    except OSError as error:
        raise StudyError(
            f"{folder} cannot be written: {error.strerror}; choose a folder that you may write to"
        ) from error


def require_writable(folder: Path) -> None:
    """Make a folder and a file in it, for a moment.

    Raises:
        StudyError: The folder cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise StudyError(
            f"{folder} cannot be written: {error.strerror}; choose a folder that you may write to"
        ) from error


def _refuse_other(study: Study, config: StudyConfig, resume: bool) -> None:
    count = len(study.candidates())
    changed = differences(study.config, config)
    if not count:
        if changed:  # what is under way was scored otherwise; nothing else would be lost
            study.record_path.with_suffix(".underway").unlink(missing_ok=True)
        return
    if changed:
        lines = "\n  ".join(changed)
        raise StudyError(
            f"{study.folder.absolute()} holds another study; choose another name. They differ in\n"
            f"  {lines}"
        )
    if not resume:
        raise StudyError(
            f"{study.folder.absolute()} already holds this study with {count} candidates; continue "
            "it with --resume, or choose another name"
        )
