"""A study's folder: what it is made of, what was scored, trained and exported, and what is picked.

Trunk, teachers and features are made here, too, where the cache does not have them.
"""

from search.study.assembly import (
    baseline_names,
    baselines,
    build_space,
    build_strategy,
    check_strategies,
    cost_range,
)
from search.study.basis import data_basis
from search.study.features import feature_cache
from search.study.folder import Study, StudyError, require_writable
from search.study.foundation import (
    Foundation,
    Jobs,
    Run,
    batches,
    build_foundation,
    check_inputs,
    given_weights_of,
    read_tasks,
    run_here,
    task_knowledge,
)
from search.study.shelf import Say, move_aside
from search.study.supplies import Supplies, foundations, supplies_by_seed
from search.study.training import TrainedPick
from search.study.tried import Tried

__all__ = [
    "Foundation",
    "Jobs",
    "Run",
    "Say",
    "Study",
    "StudyError",
    "Supplies",
    "TrainedPick",
    "Tried",
    "baseline_names",
    "baselines",
    "batches",
    "build_foundation",
    "build_space",
    "build_strategy",
    "check_inputs",
    "check_strategies",
    "cost_range",
    "data_basis",
    "feature_cache",
    "foundations",
    "given_weights_of",
    "move_aside",
    "read_tasks",
    "require_writable",
    "run_here",
    "supplies_by_seed",
    "task_knowledge",
]
