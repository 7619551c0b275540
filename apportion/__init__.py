"""Apportion searches how the tasks of one multi-task network should share its channels.

    import apportion

    study = apportion.search(apportion.load_config("configs/quickstart.yaml"))
    print(study.pick("knee").quality)

What the names below stand for is said by `help(apportion.search)` and so on. They are loaded when
they are first used, as some of them need Ray and torch, which take seconds.
"""

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

from apportion.precedence import take_precedence

take_precedence()

if TYPE_CHECKING:
    from partitioning import (
        BASELINES,
        SPACES,
        ChannelGroup,
        FormatError,
        MaskFileError,
        Masks,
        SharingMatrixError,
        Solution,
        SolverConfig,
        SpaceConfig,
        VirtualNetwork,
        matrix_to_vector,
        pairwise_bounds,
        project,
        realised,
        refine,
        solve,
        solve_backward,
        vector_to_matrix,
    )
    from search.candidates import Candidate, front, hypervolume
    from search.commands.calibrate import calibrate
    from search.commands.compare import compare
    from search.commands.publish import export
    from search.commands.report import write_report
    from search.commands.search import ArmsError, search
    from search.commands.sync import sync
    from search.commands.train import train, train_methods, training_settings
    from search.comparison import CompareError, Comparison, show_comparison
    from search.config import ConfigError, StudyConfig, load_config, parse_config
    from search.record import RecordError
    from search.report import front_table
    from search.strategies import STRATEGIES
    from search.study import Study, StudyError, TrainedPick, TrainingsError, method_points
    from trainers.export import ExportCheck, ExportConfig, Exported, ExportError, read_export
    from trainers.methods import METHODS
    from trainers.networks import BackboneConfig, build_backbone

__version__: str

#: The modules that hold the names of `__all__`.
_HOMES = {
    "partitioning": (
        "BASELINES", "SPACES", "ChannelGroup", "FormatError", "MaskFileError", "Masks",
        "SharingMatrixError", "Solution", "SolverConfig", "SpaceConfig", "VirtualNetwork",
        "matrix_to_vector", "pairwise_bounds", "project", "realised", "refine", "solve",
        "solve_backward", "vector_to_matrix",
    ),
    "search.candidates": ("Candidate", "front", "hypervolume"),
    "search.commands.calibrate": ("calibrate",),
    "search.commands.compare": ("compare",),
    "search.commands.publish": ("export",),
    "search.commands.report": ("write_report",),
    "search.commands.search": ("ArmsError", "search"),
    "search.commands.sync": ("sync",),
    "search.commands.train": ("train", "train_methods", "training_settings"),
    "search.comparison": ("CompareError", "Comparison", "show_comparison"),
    "search.config": ("ConfigError", "StudyConfig", "load_config", "parse_config"),
    "search.record": ("RecordError",),
    "search.report": ("front_table",),
    "search.strategies": ("STRATEGIES",),
    "search.study": ("Study", "StudyError", "TrainedPick", "TrainingsError", "method_points"),
    "trainers.export": ("ExportCheck", "ExportConfig", "ExportError", "Exported", "read_export"),
    "trainers.methods": ("METHODS",),
    "trainers.networks": ("BackboneConfig", "build_backbone"),
}  # fmt: skip
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "BASELINES",
    "METHODS",
    "SPACES",
    "STRATEGIES",
    "ArmsError",
    "BackboneConfig",
    "Candidate",
    "ChannelGroup",
    "CompareError",
    "Comparison",
    "ConfigError",
    "ExportCheck",
    "ExportConfig",
    "ExportError",
    "Exported",
    "FormatError",
    "MaskFileError",
    "Masks",
    "RecordError",
    "SharingMatrixError",
    "Solution",
    "SolverConfig",
    "SpaceConfig",
    "Study",
    "StudyConfig",
    "StudyError",
    "TrainedPick",
    "TrainingsError",
    "VirtualNetwork",
    "__version__",
    "build_backbone",
    "calibrate",
    "compare",
    "export",
    "front",
    "front_table",
    "hypervolume",
    "load_config",
    "matrix_to_vector",
    "method_points",
    "pairwise_bounds",
    "parse_config",
    "project",
    "read_export",
    "realised",
    "refine",
    "search",
    "show_comparison",
    "solve",
    "solve_backward",
    "sync",
    "train",
    "train_methods",
    "training_settings",
    "vector_to_matrix",
    "write_report",
]


def __getattr__(name: str) -> Any:
    """Load a name of `__all__` when it is first used (PEP 562)."""
    if name == "__version__":
        value: Any = importlib.metadata.version("apportion")
    elif name in _HOME_OF:
        value = getattr(importlib.import_module(_HOME_OF[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """What there is, loaded or not."""
    return sorted({*globals(), *__all__})
