"""The config of a whole study."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from partitioning import SolverConfig, SpaceConfig
from search.candidates import Rung, ladder
from search.config.sections import (
    EVALUATORS,
    CalibrationConfig,
    FinishConfig,
    ObjectiveConfig,
    ScheduleConfig,
    StrategyConfig,
    TrackingConfig,
    TrunkConfig,
)
from search.simulated import Simulation, SimulationConfig, build_simulation
from search.strategies import STRATEGIES
from trainers.backbones import BackboneConfig
from trainers.data import DataConfig, TaskConfig
from trainers.device import ComputeConfig
from trainers.joint import TrainConfig
from trainers.proxy import ProxyConfig, check_images
from trainers.teachers import TeacherConfig


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """A whole study.

    Attributes:
        name: Name of the study and of its folder.
        output: Folder of studies.
        cache: Folder of trunks, teachers and features; None is `<output>/cache`.
        data_root: Folder that the tasks' paths are relative to.
        input_size: Height and width that images are resized to, in pixels.
        tasks: The tasks. Simulated ones need no more than a name.
        backbone: The network.
        trunk: Where its pretrained weights come from; None only where scores are simulated.
        evaluator: What scores candidates: proxy (training, as `proxy` and `rungs` say) or simulated
            (a problem without training, see `simulation`, to compare strategies in minutes).
        simulation: Which problem is simulated.
        teachers: Single-task teachers.
        proxy: How candidates are scored.
        rungs: Cheaper scorings before it, and who goes on from each (successive halving): proxies
            of fewer steps, ascending. The last may be of fidelity full, a short training with the
            settings of `train` and its own steps; then it, not the proxy, is the final scoring.
            Empty scores every candidate in full.
        bracket: Candidates, consecutive in the order of asking, that are compared with each other
            on the rungs; no fewer than `schedule.cohort`.
        train: How winners are trained in full.
        space: What is searched.
        solver: Limits of the integer programme.
        strategies: The competing strategies, by the name they go by. One with a `grid`, a mapping
            of settings to lists of values, stands for all combinations, `<name>.1` and so on.
        seeds: Every strategy runs once per seed.
        candidates: Budget of every strategy and seed.
        device_seconds: Another one, in seconds that evaluators score: once they are spent an arm
            asks for nothing more, even if it has not had all `candidates`. A candidate's are those
            of its cohort, divided equally; a simulated one takes its relative MACs. None is no
            limit.
        initial: The first candidates of every strategy: random ones, the same for all strategies of
            a seed.
        objective: Quality and cost.
        compute: Device and precision.
        schedule: Ray resources and retries.
        tracking: MLflow.
        calibration: How the proxy is held against full training, by `apportion calibrate`.
        finish: What follows the search.
    """

    name: str
    tasks: tuple[TaskConfig, ...]
    trunk: TrunkConfig | None = None
    evaluator: str = "proxy"
    simulation: SimulationConfig = field(default_factory=SimulationConfig)
    output: str = "studies"
    cache: str | None = None
    data_root: str | None = None
    input_size: int = 32
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    teachers: TeacherConfig = field(default_factory=TeacherConfig)
    proxy: ProxyConfig = field(default_factory=ProxyConfig)
    rungs: tuple[Rung, ...] = ()
    bracket: int = 16
    train: TrainConfig = field(default_factory=TrainConfig)
    space: SpaceConfig = field(default_factory=SpaceConfig)
    solver: SolverConfig = field(default_factory=SolverConfig)
    strategies: Mapping[str, StrategyConfig]
    seeds: tuple[int, ...] = (0,)
    candidates: int = 40
    device_seconds: float | None = None
    initial: int = 16
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    calibration: CalibrationConfig = field(default_factory=CalibrationConfig)
    finish: FinishConfig | None = None

    def __post_init__(self) -> None:
        _ = self.data  # refuses tasks that do not go together
        if not self.name or "/" in self.name or self.name.startswith(".") or self.name == "cache":
            raise ValueError(
                f"name must be a folder name without '/', and not cache, got {self.name!r}"
            )
        if self.candidates < 1:
            raise ValueError(
                f"candidates must be at least 1 (a budget of {self.candidates} searches nothing)"
            )
        if self.device_seconds is not None and not 0 < self.device_seconds < math.inf:
            raise ValueError(
                f"device_seconds must be positive and finite, or null, got {self.device_seconds}"
            )
        if self.evaluator not in EVALUATORS:
            raise ValueError(
                f"evaluator must be one of {', '.join(EVALUATORS)}, got {self.evaluator!r}"
            )
        if self.evaluator == "simulated":
            self._check_simulated()
        elif self.trunk is None:
            raise ValueError("trunk is missing: give it a dataset to pretrain on, or a checkpoint")
        else:
            check_images(self.proxy, self.backbone, self.input_size)
        if self.initial < 1:
            raise ValueError(f"initial must be at least 1, got {self.initial}")
        networks = len(self.tasks) * len(self.space.levels)
        if self.proxy.sgd.steps < networks:
            raise ValueError(
                f"proxy.sgd.steps must be at least the number of virtual networks, {networks}, "
                f"since they take turns; got {self.proxy.sgd.steps}"
            )
        if self.bracket < 2:
            raise ValueError(
                f"bracket must be at least 2 (one candidate has no rivals), got {self.bracket}"
            )
        if self.ladder[0].fidelity == "proxy" and self.ladder[0].steps < networks:
            raise ValueError(
                f"rungs: steps must be at least the number of virtual networks, {networks}, since "
                f"they take turns; got {self.ladder[0].steps}"
            )
        if not self.seeds or len(set(self.seeds)) != len(self.seeds) or min(self.seeds) < 0:
            raise ValueError(
                f"seeds must be one or more different numbers from 0, got {self.seeds}"
            )
        if not self.strategies:
            raise ValueError(f"strategies must name at least one of {', '.join(STRATEGIES)}")
        for name in self.strategies:
            if not name or any(c in name for c in "/- "):
                raise ValueError(
                    f"a strategy's name must be free of '/', '-' and spaces, got {name!r}"
                )

    def _check_simulated(self) -> None:
        """Refuses what a study without images cannot do, and tasks that its problem has not."""
        _ = self.simulated  # refuses tasks that the problem has not
        if len(self.space.levels) > 1:
            raise ValueError(
                "space.levels must be one level where the evaluator is simulated, got "
                f"{list(self.space.levels)}"
            )
        for name in ("rungs", "finish"):
            if getattr(self, name):
                raise ValueError(f"{name} must be left out where the evaluator is simulated")

    @property
    def simulated(self) -> Simulation:
        """The problem that scores are simulated by."""
        return build_simulation(tuple(task.name for task in self.tasks), self.simulation)

    @property
    def ladder(self) -> tuple[Rung, ...]:
        """All rungs up to the final scoring, which is the study's proxy or a short training."""
        return ladder(self.rungs, self.proxy.sgd.steps)

    @property
    def halvings(self) -> tuple[int, ...]:
        """Numbers of candidates after which only the better half of the arms goes on, ascending."""
        found, number = [], self.schedule.halve_arms or self.candidates
        while number < self.candidates:
            found.append(number)
            number *= 2
        return tuple(found)

    @property
    def data(self) -> DataConfig:
        """The tasks with where and how to read them."""
        return DataConfig(tasks=self.tasks, root=self.data_root, input_size=self.input_size)

    @property
    def folder(self) -> Path:
        """The study's folder."""
        return Path(self.output) / self.name

    @property
    def cache_folder(self) -> Path:
        """The folder of trunks, teachers and features."""
        return Path(self.cache) if self.cache else Path(self.output) / "cache"
