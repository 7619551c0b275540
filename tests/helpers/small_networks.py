"""A small backbone with quick trainings, and candidates of two tasks scored by its proxy."""

from partitioning import Masks
from tests.helpers.masks import random_masks
from trainers.device import ComputeConfig
from trainers.networks import BackboneConfig, build_backbone
from trainers.optim import SGDConfig
from trainers.proxy import Evaluation, FeatureCache, ProxyConfig, distill

BACKBONE = BackboneConfig(model="resnet14", args={"width": 4})
BUILT = build_backbone(BACKBONE, 8)
GROUPS = BUILT.groups
COMPUTE = ComputeConfig(device="cpu")
SGD = SGDConfig(steps=30, batch_size=16, learning_rate=0.1)
PROXY = ProxyConfig(
    sgd=SGDConfig(steps=40, batch_size=8, learning_rate=0.5, momentum=0.0),
    images=64,
    norm_images=64,
)
NAMES = ("a", "b")


def candidate(seed: int, use: float = 0.6) -> Masks:
    """Masks of both tasks, in which every channel joins a task with probability `use`."""
    return random_masks(GROUPS, NAMES, seed, use=use)


def score(masks: Masks, cache: FeatureCache, config: ProxyConfig = PROXY) -> Evaluation:
    """What the proxy says of a candidate that does not diverge."""
    (result,) = distill([masks], cache, config, COMPUTE)
    assert isinstance(result, Evaluation)
    return result
