"""A small backbone with quick trainings, and candidates of two tasks scored by its proxy."""

from partitioning import Masks
from tests.helpers.masks import random_masks
from trainers.backbones import BackboneConfig, channel_groups
from trainers.device import ComputeConfig
from trainers.optim import SGDConfig
from trainers.proxy import Evaluation, FeatureCache, ProxyConfig, distill

BACKBONE = BackboneConfig(family="resnet14", width=4)
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
    return random_masks(channel_groups(BACKBONE), NAMES, seed, use=use)


def score(masks: Masks, cache: FeatureCache, config: ProxyConfig = PROXY) -> Evaluation:
    """What the proxy says of a candidate that does not diverge."""
    (result,) = distill([masks], cache, config, COMPUTE)
    assert isinstance(result, Evaluation)
    return result
