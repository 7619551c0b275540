"""The one writer of a study: the record first, then the MLflow mirror in the background."""

import functools
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from search.candidates import Candidate, Utilisation, front
from search.record.record import DuplicateCandidate, Record, RecordError
from search.record.underway import UnderWay

logger = logging.getLogger(__name__)


#: Seconds after which MLflow is tried again that could not be reached: at first, and at most.
TRIED_AGAIN_AFTER = 30.0
SELDOM = 600.0


class Mirror:
    """Feeds a tracker from a thread of its own, so that a slow or dead server stops no search.

    What MLflow missed it is told when it can be reached again.

    Args:
        tracker: Where candidates are mirrored; `search.mirror.Tracker`.
        config: The study's resolved config, logged on the parent run.
        known: Candidates that the record holds already.
    """

    def __init__(self, tracker: Any, config: dict[str, Any], known: list[Candidate]) -> None:
        self._tracker = tracker
        self._each = bool(config["tracking"]["candidates"])
        self._candidates = list(known)
        self._queue: queue.SimpleQueue[Candidate | None] = queue.SimpleQueue()
        #: Why MLflow lacks something at this moment.
        self._failure: str | None = None
        self._said: str | None = None
        self._at_once = False
        self._config = config
        self._thread = threading.Thread(target=self._work, daemon=True, name="mlflow-mirror")
        self._thread.start()

    def add(self, candidate: Candidate) -> None:
        """Mirror a candidate soon, if the config wants every single one."""
        if self._each:
            self._queue.put(candidate)

    def close(self, finish: Callable[[Any], None], *, at_once: bool) -> str | None:
        """Wait for what is queued, then call `finish(tracker)`; the last error's text, or None.

        Args:
            finish: Called where MLflow has all that came before.
            at_once: Leave out what is queued; the tracker finds it missing when it starts again.
        """
        self._at_once = at_once
        self._queue.put(None)
        self._thread.join()
        if self._failure is not None and not at_once:
            self._catch_up()
        if self._failure is None:
            self._try(lambda: finish(self._tracker))
        return self._failure

    def _work(self) -> None:
        self._catch_up()
        pause, tried = TRIED_AGAIN_AFTER, time.monotonic()
        while True:
            try:
                candidate = self._queue.get(timeout=pause if self._failure else None)
            except queue.Empty:
                pass
            else:
                if candidate is None or self._at_once:
                    return
                self._candidates.append(candidate)
                self._try(functools.partial(self._tracker.log, candidate))
            if self._failure and time.monotonic() - tried >= pause:
                self._catch_up()
                pause, tried = min(2 * pause, SELDOM), time.monotonic()
            if not self._failure:
                pause = TRIED_AGAIN_AFTER
                if self._queue.empty():
                    self._try(self._mark_front)

    def _catch_up(self) -> None:
        """Find out what MLflow has, and tell it the rest."""
        self._failure = None
        self._try(lambda: self._tracker.start(self._config))
        self._try(lambda: self._tracker.sync(self._candidates))

    def _mark_front(self) -> None:
        self._tracker.set_front([candidate.id for candidate in front(self._candidates)])
        self._tracker.log_progress(self._candidates)

    def _try(self, action: Callable[[], None]) -> None:
        if self._failure is not None:
            return
        try:
            action()
        except Exception as error:  # the mirror is for people; no error of it may sink a search
            self._failure = f"{type(error).__name__}: {error}"
            if self._failure != self._said:
                logger.warning("MLflow lacks what comes from now on: %s", self._failure)
            self._said = self._failure


class Writer:
    """Owns a study's record and mirror. One per study; the scheduler makes it an actor.

    Args:
        path: The record's file.
        study: The study's name.
        make_tracker: Builds the tracker, or None for no mirror.
        config: The study's resolved config.
    """

    def __init__(
        self,
        path: Path,
        study: str,
        make_tracker: Callable[[], Any] | None,
        config: dict[str, Any],
    ) -> None:
        self._path, self._study = path, study
        self._make_tracker, self._config = make_tracker, config
        self._record: Record | None = None
        self._underway: UnderWay | None = None
        self._candidates: dict[str, Candidate] = {}
        self._mirror: Mirror | None = None
        self._trouble: str | None = None

    def open(self) -> Record:
        """Open the record, once.

        Raises:
            RecordError: Another process writes this record, or the folder cannot be written.
        """
        # Not in the constructor: an actor whose constructor raises only says that it died, and an
        # actor that Ray restarts opens its record again with the first call.
        if self._record is None:
            self._record = Record(self._path, self._study)
            self._candidates = {c.id: c for c in self._record.candidates()}
            if self._make_tracker is not None:
                known = list(self._candidates.values())
                self._mirror = Mirror(self._make_tracker(), self._config, known)
        return self._record

    def ready(self) -> int:
        """Open the record; how many candidates it holds."""
        self.open()
        return len(self._candidates)

    def begin(self, arms: Iterable[tuple[str, int]], scored_on: Mapping[str, str]) -> None:
        """Keep what the scores of arms depend on; it is durable when this returns.

        What an arm has under way goes where it was scored on something else.
        """
        for strategy, seed in arms:
            if self.open().begin(strategy, seed, scored_on):
                self._log().forget_arm(strategy, seed)

    def known(self, strategy: str, seed: int) -> dict[int, Candidate]:
        """The recorded candidates of an arm, by index."""
        self.open()
        return {
            c.index: c
            for c in self._candidates.values()
            if (c.strategy, c.seed) == (strategy, seed)
        }

    def begun(self, strategy: str, seed: int) -> dict[int, Candidate]:
        """The candidates of an arm that are under way on lower rungs, by index."""
        return self._log().of(strategy, seed)

    def keep(self, candidate: Candidate) -> None:
        """Keep what is known of a candidate under way; it is durable when this returns."""
        with self._noted():
            self._log().keep(candidate)

    def use(self, strategy: str, seed: int, begun: float, used: Utilisation) -> None:
        """Keep what an arm's evaluators did with their time since it began, in unix seconds."""
        self.open().use(strategy, seed, begun, used)

    def trouble(self) -> str | None:
        """Why something could not be made durable; None while all could."""
        return self._trouble

    @contextmanager
    def _noted(self) -> Iterator[None]:
        """Keeps in memory why nothing can be written, as the disk may have no room for it."""
        try:
            yield
        except (RecordError, OSError) as error:
            self._trouble = self._trouble or str(error)
            raise

    def _log(self) -> UnderWay:
        self.open()
        if self._underway is None:
            self._underway = UnderWay(self._path.with_suffix(".underway"), self._candidates.keys())
        return self._underway

    def add(self, candidate: Candidate) -> None:
        """Record a candidate; it is durable when this returns. Asked twice, it is recorded once."""
        with self._noted():
            try:
                self.open().add(candidate)
            except DuplicateCandidate:
                return
            self._candidates[candidate.id] = candidate
            self._log().forget(candidate.id)
        if self._mirror is not None:
            self._mirror.add(candidate)

    def close(
        self, finish: Callable[[Any, list[Candidate]], None], at_once: bool = False
    ) -> str | None:
        """Flush and finish the mirror, close the record; the mirror's last error, or None.

        Args:
            finish: Ends the runs in MLflow.
            at_once: Do not wait for what is not mirrored yet.
        """
        failure = None
        if self._mirror is not None:
            candidates = list(self._candidates.values())
            failure = self._mirror.close(
                lambda tracker: finish(tracker, candidates), at_once=at_once
            )
        if self._record is not None:
            self._record.close()
        return failure
