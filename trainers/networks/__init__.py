"""Networks of any kind: what of them can be divided, and the smaller ones that rows are."""

from trainers.networks.backbone import Backbone, BackboneConfig, BackboneError, Output
from trainers.networks.building import build_backbone, network_inputs
from trainers.networks.built_in import BUILT_IN, BasicBlock
from trainers.networks.counting import Counter, Counts, module_macs
from trainers.networks.cutting import Cut, CutError, cut
from trainers.networks.division import (
    LAYERS,
    NORMS,
    Divisible,
    Division,
    Owner,
    UntraceableError,
    find_division,
    used_by,
)
from trainers.networks.preprocessing import own_inputs
from trainers.networks.recording import RecordingError
from trainers.networks.row import Row, bound, find_places, mend, resized, tensors_of
from trainers.networks.soundness import half, with_units
from trainers.networks.sources import SOURCES, ModelError, build_model
from trainers.networks.stack import BATCH_NORMS, Stack, Store, make_stores, named_below, own_tensors

__all__ = [
    "BATCH_NORMS",
    "BUILT_IN",
    "LAYERS",
    "NORMS",
    "SOURCES",
    "Backbone",
    "BackboneConfig",
    "BackboneError",
    "BasicBlock",
    "Counter",
    "Counts",
    "Cut",
    "CutError",
    "Divisible",
    "Division",
    "ModelError",
    "Output",
    "Owner",
    "RecordingError",
    "Row",
    "Stack",
    "Store",
    "UntraceableError",
    "bound",
    "build_backbone",
    "build_model",
    "cut",
    "find_division",
    "find_places",
    "half",
    "make_stores",
    "mend",
    "module_macs",
    "named_below",
    "network_inputs",
    "own_inputs",
    "own_tensors",
    "resized",
    "tensors_of",
    "used_by",
    "with_units",
]
