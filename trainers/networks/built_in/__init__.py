"""Networks that are built in, as plain modules: those of the papers that this project follows."""

import functools
from collections.abc import Callable, Mapping

from torch import nn

from trainers.networks.built_in.plain import VGG, SimpleConvNet
from trainers.networks.built_in.residual import BasicBlock, resnet42, resnext29
from trainers.networks.built_in.resnet import ResNet
from trainers.networks.built_in.wide_resnet import WideResNet

#: By name, which counts weighted layers: what builds it, from the arguments of a config.
BUILT_IN: Mapping[str, Callable[..., nn.Module]] = {
    "resnet14": functools.partial(ResNet, 2),
    "resnet26": functools.partial(ResNet, 4),
    "resnet38": functools.partial(ResNet, 6),
    "wrn32": functools.partial(WideResNet, 5),
    "resnet42": resnet42,
    "resnext29": resnext29,
    "vgg16": VGG,
    "simple_convnet": SimpleConvNet,
}

__all__ = [
    "BUILT_IN",
    "VGG",
    "BasicBlock",
    "ResNet",
    "SimpleConvNet",
    "WideResNet",
    "resnet42",
    "resnext29",
]
