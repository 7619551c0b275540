"""YAML to frozen dataclasses: the one place where a study is described by a dict."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from partitioning import SolverConfig, SpaceConfig
from search.calibration import CalibrationConfig
from search.config_build import ConfigError, build, plain, unknown
from search.config_sections import (
    EVALUATORS,
    FinishConfig,
    ObjectiveConfig,
    ScheduleConfig,
    StrategyConfig,
    TrackingConfig,
    TrunkConfig,
)
from search.halving import Rung, ladder
from search.simulated import Simulation, SimulationConfig, build_simulation
from search.strategies import STRATEGIES
from trainers.backbones import BackboneConfig
from trainers.data import DataConfig, TaskConfig
from trainers.device import ComputeConfig
from trainers.joint import TrainConfig
from trainers.proxy import ProxyConfig, check_images
from trainers.teachers import TeacherConfig

#: Where `configs/...` is looked for when it is not below the working folder (a script that `ray
#: submit` copied elsewhere).
PROJECT = Path(__file__).resolve().parent.parent


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


#: Sections that may change when a study is resumed: none of them decides a proposal or a score,
#: but for `train` where the last rung trains with it (its steps are the rung's own), and for
#: the budgets where there are rungs.
MUTABLE = {
    "output", "cache", "candidates", "device_seconds", "schedule", "tracking", "finish", "train",
    "calibration", "seeds",
}  # fmt: skip


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> StudyConfig:
    """Read a study's config.

    Args:
        path: A YAML file; looked for below the working folder, then below the project's folder.
        overrides: `key=value` with a dotted key ("proxy.sgd.steps=300"); the value is YAML.

    Raises:
        ConfigError: The file is missing or not YAML, a key is unknown, or a value is refused.
    """
    file = _find(path)
    try:
        raw = yaml.safe_load(file.read_text())
    except yaml.YAMLError as error:
        raise ConfigError(f"{file} is not valid YAML: {error}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{file} must hold a mapping of keys to values, got {type(raw).__name__}")
    for override in overrides:
        _override(raw, override)
    return parse_config(raw)


def parse_config(raw: Mapping[str, Any]) -> StudyConfig:
    """Build a study's config from a mapping, as `load_config` does from a file."""
    raw = dict(raw)
    if isinstance(raw.get("data_root"), str):
        raw["data_root"] = str(_resolve(raw["data_root"]))
    trunk = raw.get("trunk")
    if isinstance(trunk, Mapping) and isinstance(trunk.get("checkpoint"), str):
        raw["trunk"] = {**trunk, "checkpoint": str(_resolve(trunk["checkpoint"]))}
    if "strategies" in raw:
        if not isinstance(raw["strategies"], Mapping):
            raise ConfigError(
                f"strategies must be a mapping of names to settings, got {raw['strategies']!r}"
            )
        strategies: dict[str, StrategyConfig] = {}
        for name, entry in raw["strategies"].items():
            for each, settings in _expanded(str(name), entry):
                if each in strategies:
                    raise ConfigError(
                        f"strategies: {each} is the name of two strategies (those of a grid are "
                        "numbered from 1); give one another name, and its kind"
                    )
                strategies[each] = _strategy(each, settings)
        raw["strategies"] = strategies
    config: StudyConfig = build(StudyConfig, raw, "")
    return config


def dump_config(config: StudyConfig) -> dict[str, Any]:
    """The resolved config as plain YAML values; `parse_config` reads it back."""
    raw = plain(config)
    assert isinstance(raw, dict)
    raw["strategies"] = {
        name: {"kind": entry["kind"], **entry["settings"]}
        for name, entry in raw["strategies"].items()
    }
    return raw


def differences(old: StudyConfig, new: StudyConfig) -> list[str]:
    """Readable differences that forbid to resume one config's study with the other."""
    a, b = _flat(dump_config(old)), _flat(dump_config(new))
    fixed = {"train"} if old.ladder[-1].fidelity == "full" else set()
    if old.rungs:
        fixed |= {
            "candidates",
            "device_seconds",
        }  # the last bracket was closed where the budget ended
    return [
        f"{key}: {a.get(key, 'absent')!r} in the study, {b.get(key, 'absent')!r} now"
        for key in sorted(a.keys() | b.keys())
        if a.get(key) != b.get(key)
        and key.split(".")[0] not in MUTABLE - fixed
        and key not in ("compute.threads", "train.sgd.steps")
    ]


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        items = {str(v.get("name", i)): v for i, v in enumerate(value)}.items()
    else:
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, entry in items:
        flat |= _flat(entry, f"{prefix}.{key}" if prefix else str(key))
    return flat


def _find(path: str | Path) -> Path:
    for candidate in (Path(path), PROJECT / path):
        if candidate.is_file():
            return candidate
    raise ConfigError(
        f"config {path} does not exist (looked in {Path.cwd()} and {PROJECT}); "
        f"the project's own: {', '.join(sorted(p.name for p in PROJECT.glob('configs/*.yaml')))}"
    )


def _resolve(path: str) -> Path:
    given = Path(path).expanduser()
    here = given.resolve()
    return here if here.exists() or given.is_absolute() else (PROJECT / given).resolve()


def _override(raw: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key.strip():
        raise ConfigError(
            f"--set needs key=value, for example proxy.sgd.steps=300; got {override!r}"
        )
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {key}: the value {text!r} is not YAML: {error}") from error
    *parents, last = key.strip().split(".")
    node: Any = raw
    for part in parents:
        if isinstance(node, list):
            node = _item(node, part, override)
        else:
            if not isinstance(node.get(part), (dict, list)):
                node[part] = {}
            node = node[part]
    if isinstance(node, list):
        node[node.index(_item(node, last, override))] = value
    else:
        node[last] = value


def _item(items: list[Any], part: str, override: str) -> Any:
    for position, item in enumerate(items):
        if str(position) == part or (isinstance(item, dict) and item.get("name") == part):
            return item
    names = [str(item.get("name")) for item in items if isinstance(item, dict)]
    raise ConfigError(f"--set {override}: no entry {part!r} in the list; it has {', '.join(names)}")


def _expanded(name: str, entry: Any) -> Iterator[tuple[str, Any]]:
    """A strategy as it is, or one of every combination of the settings in its `grid`."""
    if not isinstance(entry, Mapping) or "grid" not in entry:
        yield name, entry
        return
    grid = entry["grid"]
    if (
        not isinstance(grid, Mapping)
        or not grid
        or not all(isinstance(values, list) and values for values in grid.values())
    ):
        raise ConfigError(
            f"strategies.{name}.grid must map settings to lists of values to try, got {grid!r}"
        )
    rest = {key: value for key, value in entry.items() if key != "grid"}
    if both := sorted(map(str, set(grid) & set(rest))):
        raise ConfigError(f"strategies.{name}: {', '.join(both)} is set and in the grid, too")
    for setting, values in grid.items():
        if any(values.count(value) > 1 for value in values):
            raise ConfigError(
                f"strategies.{name}.grid.{setting} must hold different values, got {values}"
            )
    for number, values in enumerate(product(*grid.values()), start=1):
        yield f"{name}.{number}", {"kind": name, **rest, **dict(zip(grid, values, strict=True))}


def _strategy(name: str, entry: Any) -> StrategyConfig:
    if entry is not None and not isinstance(entry, Mapping):
        raise ConfigError(f"strategies.{name} must be a mapping of settings, got {entry!r}")
    settings = dict(entry or {})
    kind = str(settings.pop("kind", name))
    if kind not in STRATEGIES:
        raise ConfigError(
            f"strategies.{name}: {unknown('strategy', kind, STRATEGIES)}; give its kind"
        )
    built = build(STRATEGIES[kind].settings, settings, f"strategies.{name}")
    return StrategyConfig(kind=kind, settings=built)
