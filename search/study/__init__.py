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
from search.study.attempts import Failure, TrainingsError, attempt
from search.study.basis import data_basis
from search.study.exports import read_exports
from search.study.features import feature_cache
from search.study.folder import Study, require_place, require_writable
from search.study.foundation import (
    Foundation,
    Jobs,
    Run,
    batches,
    build_foundation,
    check_inputs,
    facts_of,
    given_weights_of,
    read_tasks,
    run_here,
    single_networks,
    task_knowledge,
)
from search.study.latency import kept_latency
from search.study.method_levels import (
    chosen_points,
    export_level,
    method_candidates,
    method_curves,
    method_points,
)
from search.study.method_plans import check_methods, refresh_masks
from search.study.method_trainings import (
    MethodTraining,
    keep_training,
    method_jobs,
    read_trainings,
)
from search.study.shelf import Say, StudyError, move_aside
from search.study.supplies import Supplies, foundations, supplies_by_seed
from search.study.training import Running, Watch
from search.study.training_files import (
    KeptTraining,
    TrainedPick,
    kept_trainings,
    say_settings,
    settings_in_full,
    settings_name,
)
from search.study.tried import Tried, tried_by_settings

__all__ = [
    "Failure",
    "Foundation",
    "Jobs",
    "KeptTraining",
    "MethodTraining",
    "Run",
    "Running",
    "Say",
    "Study",
    "StudyError",
    "Supplies",
    "TrainedPick",
    "TrainingsError",
    "Tried",
    "Watch",
    "attempt",
    "baseline_names",
    "baselines",
    "batches",
    "build_foundation",
    "build_space",
    "build_strategy",
    "check_inputs",
    "check_methods",
    "check_strategies",
    "chosen_points",
    "cost_range",
    "data_basis",
    "export_level",
    "facts_of",
    "feature_cache",
    "foundations",
    "given_weights_of",
    "keep_training",
    "kept_latency",
    "kept_trainings",
    "method_candidates",
    "method_curves",
    "method_jobs",
    "method_points",
    "move_aside",
    "read_exports",
    "read_tasks",
    "read_trainings",
    "refresh_masks",
    "require_place",
    "require_writable",
    "run_here",
    "say_settings",
    "settings_in_full",
    "settings_name",
    "single_networks",
    "supplies_by_seed",
    "task_knowledge",
    "tried_by_settings",
]
