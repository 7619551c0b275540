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
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from trainers.backbones import BackboneConfig
from trainers.data import Task, augment, draw_batch
from trainers.device import ComputeConfig, autocast, resolve_device
from trainers.network import (
    Network,
    accuracy,
    cross_entropy,
    full_masks,
    load_norms,
    load_weights,
    place,
    to_channels_last,
)
from trainers.optim import SGD, RowSGD, SGDConfig, norm_parameters
from trainers.tensor_files import CONTENT, load_arrays, save_arrays

#: Raised when the trunk, the teachers or their training change in a way that old files must not
#: survive. 2 says by a hash whether a file is what was written.
CACHE_VERSION = 2


class CheckpointError(ValueError):
    """A trunk checkpoint that cannot be used."""


@dataclass(frozen=True, kw_only=True)
class TeacherConfig:
    """How a single-task teacher is made from the trunk.

    Attributes:
        sgd: Its training on the images of its task.
        adapt_norms: Train the trunk's batch norms per task (its convolutions stay frozen, so that
            all tasks share them); False freezes the trunk's weights and keeps its statistics.
    """

    sgd: SGDConfig = SGD["teachers"]
    adapt_norms: bool = True


@dataclass(frozen=True, kw_only=True)
class Trained:
    """Weights with what was measured of them.

    Attributes:
        state: State dict of a one-row `Network` without masks.
        accuracy: Share of validation images classified correctly; NaN for a given checkpoint.
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
    network: Network,
    task: Task,
    sgd: SGDConfig,
    *,
    freeze_trunk: str,
    seed: int,
    compute: ComputeConfig,
) -> float:
    """Train a one-row network on one task and measure it on the validation split.

    Args:
        network: Trained in place.
        task: Images and labels.
        sgd: Steps, batch size and learning rate.
        freeze_trunk: "nothing", "convolutions" (its batch norms learn) or "all".
        seed: Seeds batches and augmentation.
        compute: Device and precision.

    Returns:
        Validation accuracy in [0, 1].

    Raises:
        FloatingPointError: The loss became infinite or NaN; names the task and the step.
    """
    device = resolve_device(compute.device)
    place(network, device)
    task = task.to(device)
    generator = torch.Generator(device).manual_seed(seed)
    own = [*network.heads.parameters(), *norm_parameters(network.tail, 0)]
    if freeze_trunk != "all":
        own += norm_parameters(network.trunk, 0)
    learned = {id(parameter) for parameter in own}
    trunk = [p for p in network.trunk.parameters() if id(p) not in learned]
    if freeze_trunk == "nothing":
        own += trunk
    else:
        for parameter in network.trunk.parameters():
            parameter.requires_grad_(id(parameter) in learned)
    optimizer = RowSGD(network.tail, [own], sgd)
    for step in range(sgd.steps):
        network.train()
        if freeze_trunk == "all":
            network.trunk.eval()
        images, labels = draw_batch(task.splits["train"], sgd.batch_size, generator)
        with autocast(device, compute.precision):
            logits = network(to_channels_last(augment(images, task, generator)), 0)
        loss = cross_entropy(logits, labels, sgd.label_smoothing)
        if not bool(loss.isfinite()):
            raise FloatingPointError(
                f"the loss of {task.name} is not finite at step {step}; "
                f"lower its sgd.learning_rate ({sgd.learning_rate})"
            )
        loss.backward()
        optimizer.step(0, step)
    return accuracy(network, task, 0)


def new_network(config: BackboneConfig, task: Task, seed: int) -> Network:
    """An unmasked one-task network with seeded initial weights."""
    generator = torch.Generator().manual_seed(seed)
    return Network(config, full_masks(config, [task.name]), [task.num_classes], generator=generator)


def trunk_digest(
    config: BackboneConfig, task: Task, sgd: SGDConfig, *, seed: int, precision: str
) -> str:
    """Hash of all that determines a pretrained trunk."""
    return fingerprint(
        kind="trunk",
        version=CACHE_VERSION,
        backbone=config,
        data=task.fingerprint(),
        sgd=sgd,
        seed=seed,
        precision=precision,
    )


def pretrain_trunk(
    config: BackboneConfig, task: Task, sgd: SGDConfig, *, seed: int, compute: ComputeConfig
) -> Trained:
    """Pretrain a whole network on a dataset; its trunk is shared, its tail initialises the search.

    Args:
        config: The backbone.
        task: The dataset to pretrain on.
        sgd: Training settings.
        seed: Seeds weights, batches and augmentation.
        compute: Device and precision.
    """
    network = new_network(config, task, seed)
    measured = train_single(network, task, sgd, freeze_trunk="nothing", seed=seed, compute=compute)
    digest = trunk_digest(config, task, sgd, seed=seed, precision=compute.precision)
    return Trained(state=_state(network), accuracy=measured, digest=digest)


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
        backbone=config,
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

    The trunk's convolutions are frozen, so the features that all tasks share up to there are those
    that the proxy and the full training use (Newell et al. 2019, A.2, "Frozen layers").
    """
    network = new_network(config, task, seed)
    for part, prefix in ((network.trunk, "trunk."), (network.tail, "tail.")):
        load_weights(part, trunk.state, prefix)
        load_norms(part, 0, trunk.state, prefix)
    measured = train_single(
        network,
        task,
        teacher.sgd,
        seed=seed,
        compute=compute,
        freeze_trunk="convolutions" if teacher.adapt_norms else "all",
    )
    digest = teacher_digest(config, trunk, task, teacher, seed=seed, precision=compute.precision)
    return Trained(state=_state(network), accuracy=measured, digest=digest)


def load_checkpoint(config: BackboneConfig, path: Path) -> Trained:
    """Read a pretrained network from a file that cannot run code.

    Args:
        config: The backbone that the weights must fit.
        path: `.safetensors`, or a state dict that `torch.load(weights_only=True)` reads. Names and
            shapes are those of a one-row `Network`; heads are ignored.

    Raises:
        CheckpointError: The file is missing, would need unpickling, does not fit the backbone, or
            holds weights that are not finite.
    """
    if not path.is_file():
        raise CheckpointError(f"trunk checkpoint {path} does not exist")
    if path.suffix == ".safetensors":
        try:
            state = load_file(path)
        except SafetensorError as error:
            raise CheckpointError(
                f"trunk checkpoint {path} is not a safetensors file: {error}"
            ) from error
    else:
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise CheckpointError(
                f"trunk checkpoint {path} is not a plain state dict: it would have to be "
                "unpickled, which can run code; save it again with safetensors.torch.save_file or "
                "torch.save(model.state_dict(), path)"
            ) from error
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise CheckpointError(f"trunk checkpoint {path} must be a mapping of names to tensors")
    wanted = Network(
        config, full_masks(config, ["trunk"]), [1], generator=torch.Generator().manual_seed(0)
    ).state_dict()
    for name, tensor in wanted.items():
        if name.startswith("heads.") or name.endswith("num_batches_tracked"):
            continue
        if name not in state:
            raise CheckpointError(
                f"trunk checkpoint {path} has no tensor {name!r}; it must hold the names of "
                f"Apportion's {config.family} (got for example {sorted(state)[:3]})"
            )
        if state[name].shape != tensor.shape:
            raise CheckpointError(
                f"trunk checkpoint {path} was made for another width: {name} is "
                f"{tuple(state[name].shape)}, but backbone.width {config.width} needs "
                f"{tuple(tensor.shape)}; set backbone.width to the checkpoint's"
            )
        if not bool(state[name].isfinite().all()):
            raise CheckpointError(f"trunk checkpoint {path}: {name} has values that are not finite")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Trained(state=state, accuracy=float("nan"), digest=digest, content=digest)


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


def _state(network: Network) -> dict[str, Tensor]:
    return {n: tensor.detach().cpu().contiguous() for n, tensor in network.state_dict().items()}
