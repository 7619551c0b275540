"""How the tasks of a network share its channels: sharing matrices, masks, and the way between."""

from partitioning.baselines import (
    BASELINES,
    Baseline,
    equal_use,
    independent,
    random_masks,
    share_all,
    share_half,
)
from partitioning.files import (
    DamagedFileError,
    name_of_damaged,
    read_json,
    write_atomically,
    write_json,
)
from partitioning.formats import EXPORT, RECORD, STUDY, TRAINING, FormatError
from partitioning.masks import ChannelGroup, GroupKind, MaskFileError, Masks, VirtualNetwork
from partitioning.nested import NestedSpace
from partitioning.projection import project
from partitioning.sharing import (
    BoolArray,
    FloatArray,
    IntArray,
    SharingMatrixError,
    check_sharing_matrix,
    entry_tasks,
    matrix_to_vector,
    pairwise_bounds,
    realised,
    refine,
    refine_backward,
    round_to_channels,
    unrefine,
    vector_to_matrix,
)
from partitioning.solver import Solution, solve, solve_backward
from partitioning.solver_config import MAX_TASKS, SolverConfig
from partitioning.space import SPACES, Decoded, SharingSpace, Space, SpaceConfig
from partitioning.virtual import neighbours_first, split_units, virtual_masks

__all__ = [
    "BASELINES",
    "EXPORT",
    "MAX_TASKS",
    "RECORD",
    "SPACES",
    "STUDY",
    "TRAINING",
    "Baseline",
    "BoolArray",
    "ChannelGroup",
    "DamagedFileError",
    "Decoded",
    "FloatArray",
    "FormatError",
    "GroupKind",
    "IntArray",
    "MaskFileError",
    "Masks",
    "NestedSpace",
    "SharingMatrixError",
    "SharingSpace",
    "Solution",
    "SolverConfig",
    "Space",
    "SpaceConfig",
    "VirtualNetwork",
    "check_sharing_matrix",
    "entry_tasks",
    "equal_use",
    "independent",
    "matrix_to_vector",
    "name_of_damaged",
    "neighbours_first",
    "pairwise_bounds",
    "project",
    "random_masks",
    "read_json",
    "realised",
    "refine",
    "refine_backward",
    "round_to_channels",
    "share_all",
    "share_half",
    "solve",
    "solve_backward",
    "split_units",
    "unrefine",
    "vector_to_matrix",
    "virtual_masks",
    "write_atomically",
    "write_json",
]
