"""Trainings as they run: how far each is, on the screen and in MLflow."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from partitioning import DamagedFileError, read_json
from search.commands.report import make_tracker
from search.config import StudyConfig
from search.mirror import TrackingError
from search.study import Running, Say, Study, kept_trainings, settings_in_full, settings_name
from trainers.joint import points_of

if TYPE_CHECKING:  # loads MLflow, which takes seconds
    from search.mirror import Tracker

#: Seconds between two lines about the same training, and between two looks at how far it is.
SAID_EVERY, LOOKED_EVERY = 30.0, 1.0


@dataclass
class _Seen:
    """What was seen of a training: when and at which step first, last, and last said."""

    first: tuple[float, int]
    step: int
    said: float


@contextmanager
def watched(
    files: Mapping[str, Path], say: Say, tell: Callable[[str, Any], None] = lambda key, found: None
) -> Iterator[None]:
    """Say from time to time how far trainings are, by the files in which they tell.

    Args:
        files: By what they are called.
        say: Called with a line.
        tell: Called with what a file holds, each time that it holds something else.
    """
    ended = threading.Event()
    seen: dict[str, _Seen] = {}

    def look() -> None:
        for key, file in files.items():
            try:
                found = read_json(file)
            except (OSError, DamagedFileError):
                continue
            now, step = time.monotonic(), found["step"]
            one = seen.setdefault(key, _Seen(first=(now, step), step=-1, said=0.0))
            if step == one.step:
                continue
            one.step = step
            tell(key, found)
            if now - one.said >= SAID_EVERY:
                one.said = now
                left = time_left(now - one.first[0], step - one.first[1], found["steps"] - step)
                say(f"{key}: step {step} of {found['steps']}, loss {found['loss']:.3f}{left}")

    def watch() -> None:
        while not ended.wait(LOOKED_EVERY):
            look()

    watcher = threading.Thread(target=watch, daemon=True, name="progress")
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


def time_left(seconds: float, steps: int, more: int) -> str:
    """What is added to a line: how long a training takes still, as far as is known.

    Example:
        >>> time_left(60.0, 100, 1000), time_left(0.0, 0, 10)
        (', 10 min left', '')
    """
    if steps <= 0 or seconds <= 0:
        return ""
    left = seconds / steps * more
    if left < 90:
        return f", {left:.0f} s left"
    return f", {left / 60:.0f} min left" if left < 5400 else f", {left / 3600:.1f} h left"


class Curves:
    """Trainings of candidates in MLflow as they run, each a run under its candidate.

    Where MLflow fails training goes on: that is said once, and `sync` completes the mirror.

    Args:
        study: Whose candidates are trained.
        say: Called with a line.
    """

    def __init__(self, study: Study, say: Say) -> None:
        self._study, self._say = study, say
        self._tracker: Tracker | None = None
        with self._told():
            tracker = make_tracker(study)()
            if tracker.attach():
                self._tracker = tracker
            else:
                say(f"MLflow has no runs of this study: apportion report {study.folder} --sync")

    @contextmanager
    def __call__(self, running: Mapping[str, Running]) -> Iterator[None]:
        """Look at trainings as they run."""
        told = set()

        def tell(key: str, found: Mapping[str, Any]) -> None:
            one = running[key]
            told.add(key)
            if self._tracker is not None:
                with self._told():
                    self._tracker.log_training(
                        one.candidate,
                        one.seed,
                        settings_name(one.config),
                        settings_in_full(one.config),
                        points_of(found["points"]),
                    )

        try:
            with watched({key: one.progress for key, one in running.items()}, self._say, tell):
                yield
        finally:
            for key in running.keys() - told:  # what failed before there was anything to see
                tell(key, {"points": []})

    @property
    def is_kept(self) -> bool:
        """Whether MLflow has been reached, and has the study's runs."""
        return self._tracker is not None

    def finish(self) -> None:
        """Put what has ended in MLflow, too, and end the runs of what has not."""
        if self._tracker is not None:
            with self._told():
                mirror_trainings(self._study, self._tracker)
                self._tracker.stop_trainings("FAILED")

    def log_networks(
        self,
        candidate: str,
        seed: int,
        config: StudyConfig,
        networks: Sequence[Path],
        register: str | None,
    ) -> bool:
        """Log exported networks in the run of their training; returns whether all are there.

        Args:
            candidate: Its name.
            seed: Of the training.
            config: How it was trained.
            networks: Their folders.
            register: Prefix of the names that they are registered under; None does not.
        """
        for network in networks:
            if self._tracker is None:
                return False
            with self._told():
                name = f"{register}-{network.name}" if register else None
                self._tracker.log_network(candidate, seed, settings_name(config), network, name)
                if name:
                    self._say(f"registered {name} in MLflow")
        return self._tracker is not None

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except TrackingError as error:
            self._tracker = None
            self._say(
                f"MLflow misses the curves ({error}); "
                f"`apportion report {self._study.folder} --sync` completes it"
            )


def mirror_trainings(study: Study, tracker: "Tracker") -> None:
    """Log all finished trainings of a study; those that are there already change nothing.

    Raises:
        TrackingError: MLflow cannot be reached.
    """
    for one in kept_trainings(study.folder / "trained"):
        tracker.log_training(
            one.candidate, one.seed, one.settings, one.described, one.points, one.accuracy
        )
