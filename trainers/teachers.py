"""The trunk and one single-task teacher per task, both kept in a cache.

Every file in the cache carries the hash of all that determines it, so a changed setting or dataset
never meets an old file.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from trainers.data import Task, augment, draw_batch
from trainers.device import ComputeConfig, autocast, resolve_device
from trainers.network import Whole, accuracies_of, accuracy, cross_entropy, to_channels_last
from trainers.networks import LAYERS, NORMS, Backbone, BackboneConfig, build_backbone
from trainers.optim import SGD, SGDConfig, learning_rate_at
from trainers.tensor_files import CONTENT, load_arrays, save_arrays

#: Raised when the trunk, the teachers or their training change in a way that old files must not
#: survive. 2 says by a hash whether a file is what was written; 3 has tensors by the names that the
#: network itself gives them.
CACHE_VERSION = 3


@dataclass(frozen=True, kw_only=True)
class TeacherConfig:
    """How a single-task teacher is made from the trunk.

    Attributes:
        sgd: Its training on the images of its task.
        adapt_norms: Train the norms of a frozen trunk per task (all else of it stays as it is, so
            that tasks share it); False freezes its norms, too, and keeps its statistics.
    """

    sgd: SGDConfig = SGD["teachers"]
    adapt_norms: bool = True


@dataclass(frozen=True, kw_only=True)
class Trained:
    """Weights with what was measured of them.

    Attributes:
        state: Tensors of the network without masks, by name, those of a head among them; of a
            training in full those of all its rows (`Network.state`).
        accuracy: Share of validation images classified correctly; NaN for given weights.
        digest: Hash of all that determines the weights.
        content: Hash of the weights themselves; empty before they are stored.
    """

    state: Mapping[str, Tensor]
    accuracy: float
    digest: str
    content: str = ""


def fingerprint(**parts: object) -> str:
    """SHA-256 (hex) of JSON-able parts in a canonical form."""
    text = json.dumps(parts, sort_keys=True, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: object) -> object:
    return asdict(value)  # type: ignore[call-overload]


def train_single(
    network: Whole,
    task: Task,
    sgd: SGDConfig,
    *,
    frozen: str,
    seed: int,
    compute: ComputeConfig,
) -> float:
    """Train a network on one task and measure it on the validation split.

    Args:
        network: On the device; trained in place.
        task: Images and labels.
        sgd: Steps, batch size and learning rate.
        frozen: What of its trunk is not trained: "nothing", "weights" (its norms are) or "all".
        seed: Seeds batches and augmentation.
        compute: Device and precision.

    Returns:
        Validation accuracy in [0, 1].

    Raises:
        FloatingPointError: The loss became infinite or NaN; names the task and the step.
    """
    device = resolve_device(compute.device)
    task = task.to(device)
    generator = torch.Generator(device).manual_seed(seed)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)  # of dropout
        optimizer = _optimizer(network, sgd, frozen)
        norms = [module for module in network.trunk.modules() if isinstance(module, NORMS)]
        for step in range(sgd.steps):
            network.train()
            if frozen != "nothing":
                network.trunk.eval()
            if frozen == "weights":
                for norm in norms:
                    norm.train()
            images, labels = draw_batch(task.splits["train"], sgd.batch_size, generator)
            with autocast(device, compute.precision):
                logits = network(to_channels_last(augment(images, task, generator)))
            loss = cross_entropy(logits, labels, sgd.label_smoothing)
            if not bool(loss.isfinite()):
                raise FloatingPointError(
                    f"the loss of {task.name} is not finite at step {step}; "
                    f"lower its sgd.learning_rate ({sgd.learning_rate})"
                )
            loss.backward()
            for group in optimizer.param_groups:
                group["lr"] = learning_rate_at(sgd, step)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    network.eval()
    return accuracy(network, task, network.backbone.batch)


def _optimizer(network: Whole, sgd: SGDConfig, frozen: str) -> torch.optim.SGD:
    """Of what is learned; weight decay pulls on the weights of layers."""
    own = network.backbone.own
    for name, parameter in network.trunk.named_parameters():
        learned = frozen == "nothing" or (frozen == "weights" and name in own)
        parameter.requires_grad_(learned and parameter.requires_grad)
    layers = {id(m.weight) for m in network.modules() if isinstance(m, LAYERS)}
    learned_parameters = [p for p in network.parameters() if p.requires_grad]
    return torch.optim.SGD(
        [
            {
                "params": [p for p in learned_parameters if (id(p) in layers) == decays],
                "weight_decay": sgd.weight_decay if decays else 0.0,
            }
            for decays in (True, False)
        ],
        lr=sgd.learning_rate,
        momentum=sgd.momentum,
        nesterov=sgd.momentum > 0,
    )


def given_weights(config: BackboneConfig, *, input_size: int) -> Trained:
    """The weights that a network begins with, as they are given.

    Args:
        config: The backbone, with weights that mean something.
        input_size: Height and width of the images in pixels.

    Raises:
        BackboneError: They cannot be read or do not fit, or are not finite.
    """
    backbone = build_backbone(config, input_size)
    state = backbone.initial(1, 0)
    digest = hashlib.sha256(_network(backbone, "args", "head").encode())
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].contiguous().numpy().data)
    content = digest.hexdigest()
    return Trained(state=state, accuracy=float("nan"), digest=content, content=content)


def _network(backbone: Backbone, *settings: str) -> str:
    """What of a network decides its outputs, beside its weights: settings and its code."""
    chosen = {name: getattr(backbone.config, name) for name in settings}
    return json.dumps([chosen, backbone.code], sort_keys=True, default=str)


def trunk_digest(
    config: BackboneConfig,
    task: Task,
    sgd: SGDConfig,
    *,
    start: str,
    seed: int,
    precision: str,
) -> str:
    """Hash of all that determines a pretrained network; `start` is that of given weights."""
    return fingerprint(
        kind="trunk",
        version=CACHE_VERSION,
        backbone=_network(build_backbone(config, task.size), "args", "head"),
        start=start,
        data=task.fingerprint(),
        sgd=sgd,
        seed=seed,
        precision=precision,
    )


def pretrain_trunk(
    config: BackboneConfig, task: Task, sgd: SGDConfig, *, seed: int, compute: ComputeConfig,
    start: Trained | None = None,
) -> Trained:  # fmt: skip
    """Pretrain a whole network on a dataset; its trunk is shared, its tail initialises the search.

    Args:
        config: The backbone.
        task: The dataset to pretrain on.
        sgd: Training settings.
        seed: Seeds weights, batches and augmentation.
        compute: Device and precision.
        start: What it begins with; None for random weights.
    """
    backbone = build_backbone(config, task.size)
    state = backbone.initial(task.num_classes, seed)
    if start is not None:
        head = {n: t for n, t in state.items() if n.startswith(f"{backbone.head}.")}
        state = {**start.state, **head}
    network = Whole(backbone, state, resolve_device(compute.device))
    measured = train_single(network, task, sgd, frozen="nothing", seed=seed, compute=compute)
    digest = trunk_digest(
        config, task, sgd, start=start.digest if start else "", seed=seed,
        precision=compute.precision,
    )  # fmt: skip
    return Trained(state=network.state(), accuracy=measured, digest=digest)


def teacher_digest(
    config: BackboneConfig,
    trunk: Trained,
    task: Task,
    teacher: TeacherConfig,
    *,
    seed: int,
    precision: str,
) -> str:
    """Hash of all that determines a teacher."""
    return fingerprint(
        kind="teacher",
        version=CACHE_VERSION,
        backbone=_network(build_backbone(config, task.size), "args", "head", "partition", "trunk"),
        trunk=trunk.digest,
        data=task.fingerprint(),
        teacher=teacher,
        seed=seed,
        precision=precision,
    )


def train_teacher(
    config: BackboneConfig,
    trunk: Trained,
    task: Task,
    teacher: TeacherConfig,
    *,
    seed: int,
    compute: ComputeConfig,
) -> Trained:
    """Train a task's single-task teacher from the trunk.

    The weights of a frozen trunk stay as they are, so the features that all tasks share up to there
    are those that the proxy and the full training use (Newell et al. 2019, A.2, "Frozen layers").
    """
    backbone = build_backbone(config, task.size)
    head = backbone.new_head(backbone.features, task.num_classes, [seed])
    network = Whole(backbone, {**trunk.state, **head}, resolve_device(compute.device))
    measured = train_single(
        network,
        task,
        teacher.sgd,
        seed=seed,
        compute=compute,
        frozen="weights" if teacher.adapt_norms else "all",
    )
    digest = teacher_digest(config, trunk, task, teacher, seed=seed, precision=compute.precision)
    return Trained(state=network.state(), accuracy=measured, digest=digest)


def measure_teacher(
    config: BackboneConfig, teacher: Trained, task: Task, compute: ComputeConfig
) -> dict[str, float]:
    """The accuracy of a single-task network, by split of its task: validation, and test if any."""
    backbone = build_backbone(config, task.size)
    device = resolve_device(compute.device)
    network = Whole(backbone, teacher.state, device).eval()
    return accuracies_of(network, task.to(device), backbone.batch)


def store(trained: Trained, path: Path) -> None:
    """Write weights as safetensors, in full or not at all."""
    metadata = {"accuracy": repr(trained.accuracy), "digest": trained.digest}
    save_arrays({name: tensor.numpy() for name, tensor in trained.state.items()}, path, metadata)


def load(path: Path, digest: str | None = None) -> Trained:
    """Read what `store` wrote.

    Args:
        path: The file.
        digest: What its weights must have been determined by; None takes any.

    Raises:
        DamagedFileError: The file was cut short or changed, or holds other weights.
        OSError: It cannot be read.
    """
    arrays, metadata = load_arrays(path, digest)
    return Trained(
        state={name: torch.from_numpy(array) for name, array in arrays.items()},
        accuracy=float(metadata["accuracy"]),
        digest=metadata["digest"],
        content=metadata[CONTENT],
    )
