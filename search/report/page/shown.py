"""What a study page is made of: plain values, which whoever knows the study's folder gathers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from search.candidates import REFERENCE, Candidate
from search.report.figures import COST, QUALITY
from search.strategies import TaskFacts
from trainers.joint import Point


@dataclass(frozen=True, kw_only=True)
class Training:
    """A full training that is whole.

    Attributes:
        candidate: Its name.
        seed: Of the training.
        settings: Short name of how it was trained.
        accuracy: In [0, 1], by split, then virtual network.
        points: Of its curve.
    """

    candidate: str
    seed: int
    settings: str
    accuracy: Mapping[str, Mapping[str, float]]
    points: Sequence[Point] = ()


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A candidate with all its trainings of some settings, held against sharing every channel.

    Attributes:
        candidate: Its name.
        settings: Short name of how it was trained.
        seeds: Number of trainings.
        split: Whose accuracy is compared.
        mean: Mean accuracy over networks and seeds.
        std: Standard deviation over seeds; NaN for one seed.
        difference: Mean less that of sharing every channel; NaN where that was not trained.
        p: Of the difference, corrected for all that were trained; NaN where it is not known.
    """

    candidate: str
    settings: str
    seeds: int
    split: str
    mean: float
    std: float
    difference: float
    p: float


@dataclass(frozen=True, kw_only=True)
class Exporting:
    """An export that became whole.

    Attributes:
        candidate: Its name.
        seed: Of the training.
        path: Absolute, of the folder.
        time: Unix seconds.
        formats: That were written.
        is_there: Whether the folder is still there.
        latencies: A row for each file that was timed: network, file, ms (for an image on a thread)
            and undivided_ms; empty where the folder is gone.
    """

    candidate: str
    seed: int
    path: str
    time: float
    formats: Sequence[str]
    is_there: bool
    latencies: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True, kw_only=True)
class LayerTimes:
    """How long layers of the undivided network take.

    Attributes:
        device: That they were timed on.
        batch: Images at a time.
        threads: Of the processor.
        error: Median relative error of what the table says of whole networks.
        milliseconds: By layer.
    """

    device: str
    batch: int
    threads: int
    error: float
    milliseconds: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A study as its page shows it.

    Attributes:
        name: Of the study.
        folder: Absolute; the commands on the page name it.
        candidates: All of the study.
        reference: Quality and cost of the hypervolume's reference point.
        objective: Name of the cost that the study makes small.
        quality: What quality is, in words.
        costs: What costs are in words, by name; the objective's among them.
        tasks: What is known of them; empty where they have not been looked at.
        foundations: By candidate, the seed of the trunk and teachers that it stands on; 0 for those
            that are not in it.
        trainings: All that are whole.
        trials: The same by candidate and settings.
        settings: By short name, how was trained, as YAML.
        exports: All that became whole.
        calibration: What was found of the proxy, in words, and a PNG.
        methods: A row for each method and level, as `by_level` gives them; None without methods.
        layers: How long layers take; None where it was not measured.
        config: The study's `config.yaml`.
        written: When the page is written, in Unix seconds.
        is_running: Whether candidates are still being added.
        is_simulated: Whether scores are computed without training.
    """

    name: str
    folder: str
    candidates: Sequence[Candidate]
    reference: tuple[float, float] = REFERENCE
    objective: str = "use"
    quality: str = QUALITY
    costs: Mapping[str, str] = field(default_factory=lambda: {"use": COST})
    tasks: Sequence[TaskFacts] = ()
    foundations: Mapping[str, int] = field(default_factory=dict)
    trainings: Sequence[Training] = ()
    trials: Sequence[Trial] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    exports: Sequence[Exporting] = ()
    calibration: tuple[str, Path] | None = None
    methods: Sequence[Mapping[str, Any]] | None = None
    layers: LayerTimes | None = None
    config: str = ""
    written: float = 0.0
    is_running: bool = False
    is_simulated: bool = False
