"""Full training of chosen masks, all virtual networks together: how winners are trained.

It goes on at any step, to the same weights, and says on its way what it has reached.
"""

from trainers.joint.augmentation import require_library
from trainers.joint.config import RECIPES, TRAINING_VERSION, TrainConfig
from trainers.joint.training import (
    Snapshot,
    TrainResult,
    initial_network,
    train_jointly,
    trained_network,
)
from trainers.joint.turns import curriculum
from trainers.joint.underway import Point, Underway, points_of

__all__ = [
    "RECIPES",
    "TRAINING_VERSION",
    "Point",
    "Snapshot",
    "TrainConfig",
    "TrainResult",
    "Underway",
    "curriculum",
    "initial_network",
    "points_of",
    "require_library",
    "train_jointly",
    "trained_network",
]
