"""The config of a whole study."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

from partitioning import SolverConfig, SpaceConfig
from partitioning.settings import (
    DIFFERENT,
    POSITIVE,
    Rule,
    Unit,
    at_least,
    checked,
    each,
    one_of,
    require_all,
)
from search.candidates import Rung, ladder
from search.config.sections import (
    EVALUATORS,
    FOUNDATIONS,
    CalibrationConfig,
    EntryConfig,
    FinishConfig,
    ObjectiveConfig,
    ScheduleConfig,
    TrackingConfig,
    TrunkConfig,
)
from search.simulated import Simulation, SimulationConfig, build_simulation
from search.strategies import STRATEGIES
from trainers.data import SIZE, DataConfig, Inputs, TaskConfig
from trainers.device import ComputeConfig
from trainers.joint import TrainConfig
from trainers.methods import METHODS
from trainers.networks import Backbone, BackboneConfig, build_backbone, network_inputs
from trainers.proxy import ProxyConfig
from trainers.teachers import TeacherConfig

#: A study's folder lies in a folder of studies, beside the cache.
FOLDER = Rule(
    words="a folder name without '/', and not cache",
    holds=lambda name, own: bool(name) and "/" not in name and name[0] != "." and name != "cache",
)

#: Files are named after methods, and "-" parts a candidate's name.
METHOD_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.]{0,59}")

#: Stands for the height and width of images that only the network says.
ANY_SIZE = 224


@dataclass(frozen=True, kw_only=True)
@checked()
class StudyConfig:
    """A whole study.

    Attributes:
        name: Name of the study and of its folder.
        output: Folder of studies.
        cache: Folder of trunks, teachers and features; None is `<output>/cache`.
        data_root: Folder that the tasks' paths are relative to.
        input_size: Height and width that images are resized to, in pixels; None takes what the
            network's own config says; where it says nothing, 224 of a library's network, else 32.
        tasks: The tasks. Simulated ones need no more than a name.
        backbone: The network.
        trunk: What it is pretrained on; None where scores are simulated, or where the network has
            trained weights to begin with.
        evaluator: What scores candidates: proxy (training, as `proxy` and `rungs` say) or simulated
            (a problem without training, see `simulation`, to compare strategies in minutes).
        simulation: Which problem is simulated.
        teachers: Single-task teachers.
        proxy: How candidates are scored.
        rungs: Cheaper scorings before it, and who goes on from each (successive halving): proxies
            of fewer steps, ascending. The last may be of fidelity full, a short training with the
            settings of `train` and its own steps; then it, not the proxy, is the final scoring.
            Empty scores every candidate in full.
        bracket: Candidates, consecutive in the order of asking, of which a share goes on to the
            next rung; no fewer than `schedule.cohort`.
        train: How winners are trained in full. `recipe: paper` in it stands for the settings of
            Newell et al. 2019, A.2 (labels alone, heads drawn, the last step's weights), `recipe:
            distilled` for the defaults; what is set beside it is changed.
        space: What is searched.
        solver: Limits of the integer programme.
        strategies: The competing strategies, by the name they go by. One with a `grid`, a mapping
            of settings to lists of values, stands for all combinations, `<name>.1` and so on.
        methods: In place of strategies: ways to train all tasks, by the name they go by, which
            `apportion train` runs; likewise with a `grid`. Everything is trained, with `train.sgd`:
            in a step a method that has all tasks at once takes a batch of each, and one that has
            them in turn takes as many steps for each.
        seeds: Every strategy, or method, runs once per seed.
        foundations: What candidates are scored on (trunk, teachers and stored features) is either
            shared by the arms of all seeds, which then differ by what strategies draw alone, or
            made anew per_seed: arms of seed s have the trunk and teachers of `trunk.seed` + s, and
            features and mini-batches of `proxy.seed` + s, so that the spread over seeds is that of
            the whole method. It takes as many foundations as there are seeds. A trunk of given
            weights is the same for all; its teachers still differ.
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

    name: Annotated[str, FOLDER]
    tasks: tuple[TaskConfig, ...]
    trunk: TrunkConfig | None = None
    evaluator: Annotated[str, one_of(EVALUATORS)] = "proxy"
    simulation: SimulationConfig = field(default_factory=SimulationConfig)
    output: str = "studies"
    cache: str | None = None
    data_root: str | None = None
    input_size: Annotated[int | None, SIZE, Unit("pixels")] = None
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    teachers: TeacherConfig = field(default_factory=TeacherConfig)
    proxy: ProxyConfig = field(default_factory=ProxyConfig)
    rungs: tuple[Rung, ...] = ()
    bracket: Annotated[int, at_least(2, "one candidate has no rivals"), Unit("candidates")] = 16
    train: TrainConfig = field(default_factory=TrainConfig)
    space: SpaceConfig = field(default_factory=SpaceConfig)
    solver: SolverConfig = field(default_factory=SolverConfig)
    strategies: Mapping[str, EntryConfig] = field(default_factory=dict)
    methods: Mapping[str, EntryConfig] = field(default_factory=dict)
    seeds: Annotated[tuple[int, ...], DIFFERENT, each(at_least(0))] = (0,)
    foundations: Annotated[str, one_of(FOUNDATIONS)] = "shared"
    candidates: Annotated[int, at_least(1)] = 40
    device_seconds: Annotated[float | None, POSITIVE, Unit("seconds")] = None
    initial: Annotated[int, at_least(1), Unit("candidates")] = 16
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    calibration: CalibrationConfig = field(default_factory=CalibrationConfig)
    finish: FinishConfig | None = None

    def _check(self) -> None:
        require_all(
            # Refuses tasks that do not go together; no network is built for it.
            lambda: self._data(self.input_size or ANY_SIZE, Inputs()),
            self._check_simulated if self.evaluator == "simulated" else self._check_trunk,
            self._check_steps,
            self._check_rungs,
            self._check_strategies,
            self._check_methods,
            self._check_thaw,
        )

    def _check_trunk(self) -> None:
        """Refuses a study of images whose network has no trained weights and gets none."""
        if self.methods:  # which train all of the network
            return
        if self.pretraining.dataset is None and not self.backbone.pretrained:
            missing = "trunk" if self.trunk is None else "trunk.dataset"
            raise ValueError(
                f"{missing} is missing: name a dataset to pretrain on, or give the backbone "
                "weights (backbone.weights, or pretrained: true in backbone.args)"
            )

    def _check_steps(self) -> None:
        """Refuses scorings that are too short for every virtual network to have its turn."""
        networks = len(self.tasks) * len(self.space.levels)
        if self.proxy.sgd.steps < networks:
            raise ValueError(
                f"proxy.sgd.steps must be at least the number of virtual networks, {networks}, "
                f"since they take turns; got {self.proxy.sgd.steps}"
            )

    def _check_rungs(self) -> None:
        """Refuses rungs that do not ascend, or that are too short."""
        networks, lowest = len(self.tasks) * len(self.space.levels), self.ladder[0]
        if self.rungs and lowest.fidelity == "proxy" and lowest.steps < networks:
            raise ValueError(
                f"rungs: steps must be at least the number of virtual networks, {networks}, since "
                f"they take turns; got {lowest.steps}"
            )

    def _check_strategies(self) -> None:
        """Refuses a study with nothing to run, and names that candidates cannot go by."""
        if not self.strategies and not self.methods:
            raise ValueError(
                f"strategies must name at least one of {', '.join(STRATEGIES)}; or methods at "
                f"least one of {', '.join(METHODS)}"
            )
        wrong = [name for name in self.strategies if not name or any(c in name for c in "/- ")]
        if wrong:
            names = ", ".join(map(repr, wrong))
            raise ValueError(f"a strategy's name must be free of '/', '-' and spaces, got {names}")

    def _check_thaw(self) -> None:
        """Refuses to thaw what is not frozen."""
        if self.train.thaw < 1 and self.backbone.trunk == "train":
            raise ValueError(
                "train.thaw must be 1 where backbone.trunk is train: there is no frozen trunk, got "
                f"{self.train.thaw}"
            )

    def _check_methods(self) -> None:
        """Refuses methods beside strategies, and those that have nothing to train."""
        if not self.methods:
            given = [*self.tasks, *filter(None, [self.pretraining.dataset])]
            if sized := [task.name for task in given if task.size is not None]:
                raise ValueError(f"task {sized[0]!r}: size is for methods; set input_size for all")
            return
        if wrong := [name for name in self.methods if not METHOD_NAME.fullmatch(name)]:
            raise ValueError(
                "a method's name must be up to 60 letters, digits, '_' and '.', the first a letter "
                f"or digit (files are named after it), got {', '.join(map(repr, wrong))}"
            )
        if self.strategies:
            raise ValueError(
                "methods and strategies are two studies, since accuracy after full training and "
                "scores of a proxy stand on no common front; leave out one of them"
            )
        if self.evaluator == "simulated":
            raise ValueError("methods must be left out where the evaluator is simulated")
        if self.backbone.trunk != "train":
            raise ValueError(
                "methods train all of a network, from the images on: backbone.trunk must be train, "
                f"got {self.backbone.trunk}"
            )
        for name in ("trunk", "rungs", "finish"):
            self._check_left_out(name, "methods are trained")
        if self.objective.cost == "latency":
            raise ValueError("objective.cost must not be latency where methods are trained")

    def _check_simulated(self) -> None:
        """Refuses what a study without images cannot do, and tasks that its problem has not."""
        require_all(
            # Refuses tasks that the problem has not; that there is none at all is said already.
            lambda: self.simulated if self.tasks else None,
            self._check_one_level,
            lambda: self._check_left_out("rungs"),
            lambda: self._check_left_out("finish"),
            self._check_no_foundations,
        )

    def _check_one_level(self) -> None:
        if len(self.space.levels) > 1:
            raise ValueError(
                "space.levels must be one level where the evaluator is simulated, got "
                f"{list(self.space.levels)}"
            )

    def _check_left_out(self, name: str, where: str = "the evaluator is simulated") -> None:
        if getattr(self, name):
            raise ValueError(f"{name} must be left out where {where}")

    def _check_no_foundations(self) -> None:
        if self.foundations != "shared":
            raise ValueError(
                "foundations must be shared where the evaluator is simulated, since there are no "
                f"trunk, teachers and features, got {self.foundations}"
            )

    def of_seed(self, seed: int) -> "StudyConfig":
        """The config that arms of a seed, and what is trained of them, run with.

        Args:
            seed: Of an arm.

        Returns:
            This config where foundations are shared; else one with the seed added to those of trunk
            and proxy, whose own foundations are shared: it has one.
        """
        if self.foundations == "shared":
            return self
        return replace(
            self,
            foundations="shared",
            trunk=replace(self.pretraining, seed=self.pretraining.seed + seed),
            proxy=replace(self.proxy, seed=self.proxy.seed + seed),
        )

    @property
    def pretraining(self) -> TrunkConfig:
        """What the network is pretrained on; nothing where the config does not say."""
        return self.trunk or TrunkConfig()

    @property
    def network(self) -> Backbone:
        """The network, built once in a process.

        Raises:
            BackboneError: It cannot be built, or nothing of it can be divided.
        """
        return build_backbone(self.backbone, self.size)

    @property
    def size(self) -> int:
        """Height and width of images, in pixels."""
        return self.input_size or network_inputs(self.backbone)[0]

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
        """The tasks with where and how to read them; the folder is absolute, as errors name it."""
        return self._data(self.size, network_inputs(self.backbone)[1])

    def _data(self, size: int, inputs: Inputs) -> DataConfig:
        root = self.data_root or str(Path.cwd())
        return DataConfig(tasks=self.tasks, root=root, input_size=size, inputs=inputs)

    @property
    def images_folder(self) -> Path:
        """The folder of decoded images that are too large for memory."""
        return self.cache_folder / "images"

    @property
    def folder(self) -> Path:
        """The study's folder."""
        return Path(self.output) / self.name

    @property
    def cache_folder(self) -> Path:
        """The folder of trunks, teachers and features."""
        return Path(self.cache) if self.cache else Path(self.output) / "cache"
