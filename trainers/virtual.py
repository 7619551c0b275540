"""Virtual networks of several sizes, trained from scratch: all rows together, or one by one.

Kim et al. 2019, "Deep Virtual Networks for memory efficient inference of multiple tasks": every
step takes a batch of each task, and the losses of all its levels are added up (eq. 4), so that a
unit's gradient is the sum of those of the levels that use it (eq. 5). With one task that is their
NestedNet (eq. 1). Weights and momentum are shared; norms and heads are each row's own, of which the
paper says heads alone.

`train_jointly` (Newell et al. 2019) draws one row a step instead, with momentum of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from partitioning import BoolArray, Masks
from trainers.data import Task, augment, draw_batch
from trainers.device import ComputeConfig, autocast, resolve_device
from trainers.network import accuracies, cross_entropy, to_channels_last
from trainers.networks import Backbone, Row, tensors_of
from trainers.optim import SGDConfig, learning_rate_at


class VirtualNetworks:
    """A backbone's weights once, and what each row has of its own.

    Args:
        backbone: The network; all of it is trained, so it has no trunk.
        masks: Rows, of its groups.
        classes: Of each row's head, (R,).
        state: Whole tensors by name that it begins with.
        seed: Of the heads.
        device: Where it is kept.

    Raises:
        ValueError: The backbone has a trunk.
    """

    def __init__(
        self,
        backbone: Backbone,
        masks: Masks,
        classes: Sequence[int],
        *,
        state: Mapping[str, Tensor],
        seed: int,
        device: torch.device,
    ) -> None:
        if backbone.config.trunk != "train":
            raise ValueError(
                "virtual networks are trained from the images on: backbone.trunk must be train, "
                f"got {backbone.config.trunk}"
            )
        self.backbone, self.masks = backbone, masks
        self._kept_RU = backbone.kept(masks)
        whole = {name: state[name].detach().to(device) for name in tensors_of(backbone.tail)}
        #: Weights that rows share, by name.
        self.shared = {
            name: nn.Parameter(to_channels_last(whole[name].clone()), parameter.requires_grad)
            for name, parameter in backbone.tail.named_parameters()
            if name not in backbone.own
        }
        read_R = backbone.read_by_head(self._kept_RU)
        self.rows = [
            _Row(
                backbone,
                self._kept_RU[row],
                {name: whole[name] for name in whole if name not in self.shared},
                backbone.new_head(int(read_R[row]), count, [seed, row]),
                device,
            )
            for row, count in enumerate(classes)
        ]

    def __call__(self, images: Tensor, row: int) -> Tensor:
        """Map normalised images (B, 3, S, S) to logits (B, classes of the row)."""
        return self.rows[row](self.shared, images)

    def parameters(self, rows: Sequence[int]) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """What some rows train: weights of layers, which weight decay pulls on, and the others."""
        decayed = [p for p in self.shared.values() if p.ndim > 1]
        others = [p for p in self.shared.values() if p.ndim <= 1]
        for row in rows:
            weight, bias = self.rows[row].head
            decayed.append(weight)
            others += [bias, *self.rows[row].own.values()]
        return decayed, others

    def backward(
        self, batches: Mapping[str, tuple[Tensor, Tensor]], rows: Sequence[int], smoothing: float
    ) -> dict[int, Tensor]:
        """Add up the gradients of the losses of some rows, each on its task's batch (eq. 4).

        Args:
            batches: Normalised images and labels by task.
            rows: Which.
            smoothing: Of the labels.

        Returns:
            The loss of each row.
        """
        losses = {}
        for row in rows:
            images, labels = batches[self.masks.networks[row].task]
            loss = cross_entropy(self(images, row), labels, smoothing)
            loss.backward()
            losses[row] = loss.detach()
        return losses

    @torch.no_grad()
    def used(self, row: int) -> dict[str, Tensor]:
        """Which entries of each shared weight a row uses, by name."""
        found = {}
        for name, weight in self.shared.items():
            found[name] = used = torch.ones_like(weight, dtype=torch.bool)
            for dim, places in self.rows[row].row.places.get(name, {}).items():
                kept = torch.zeros(weight.shape[dim], dtype=torch.bool)
                kept[torch.from_numpy(places.index_KN[0][places.real_KN[0]])] = True
                shape = [-1 if d == dim else 1 for d in range(weight.ndim)]
                used &= kept.to(weight.device).view(shape)
        return found

    def state(self) -> dict[str, Tensor]:
        """All tensors by name, as those of a `Network`."""
        found: dict[str, Tensor] = {f"shared.{name}": t for name, t in self.shared.items()}
        for number, row in enumerate(self.rows):
            own: dict[str, Tensor] = {**row.own, **row.buffers}
            own |= dict(zip(self.backbone.of_head, row.head, strict=True))
            found |= {f"row{number}.{name}": tensor for name, tensor in own.items()}
        return {name: tensor.detach().cpu().contiguous() for name, tensor in found.items()}


def train_virtual(
    networks: VirtualNetworks,
    tasks: Mapping[str, Task],
    sgd: SGDConfig,
    *,
    phases: Sequence[Sequence[int]] | None = None,
    seed: int,
    compute: ComputeConfig,
) -> dict[str, dict[str, float]]:
    """Train rows, phase by phase; what the rows of a phase use is frozen behind it.

    With one phase of all rows that is DVN's joint training. With a phase for each task, in order,
    and rows that use ever more units it is grouped PackNet (Mallya and Lazebnik 2018, as Kim et al.
    2019 have it in section 4.1): a task reads what those before have learnt, and changes the rest.

    Args:
        networks: Trained in place.
        tasks: Images and labels.
        sgd: Of each phase.
        phases: Rows of each; None trains all in one.
        seed: Of batches and augmentation.
        compute: Device and precision.

    Returns:
        Accuracy in [0, 1] by split ("validation", and "test" where every task has one) and row.

    Raises:
        FloatingPointError: A loss is not finite: of which row, and at which step.
    """
    device = resolve_device(compute.device)
    names = [str(network) for network in networks.masks.networks]
    order = [network.task for network in networks.masks.networks]
    data = {name: tasks[name].to(device) for name in dict.fromkeys(order)}
    generator = torch.Generator(device).manual_seed(seed)
    frozen: dict[str, Tensor] = {}
    for rows in [range(len(order))] if phases is None else phases:
        decayed, others = networks.parameters(rows)
        groups: list[dict[str, Any]] = [{"params": decayed, "weight_decay": sgd.weight_decay}]
        optimizer = torch.optim.SGD(
            [*groups, {"params": others}],
            momentum=sgd.momentum,
            nesterov=sgd.momentum > 0,
        )
        held = _held(networks, rows, frozen)
        kept = {name: networks.shared[name].detach().clone() for name in held}
        for row in rows:
            networks.rows[row].row.module.train()
        for step in range(sgd.steps):
            batches = {}
            for name in dict.fromkeys(order[row] for row in rows):
                images, labels = draw_batch(data[name].splits["train"], sgd.batch_size, generator)
                batches[name] = (
                    to_channels_last(augment(images, data[name], generator)), labels,
                )  # fmt: skip
            with autocast(device, compute.precision):
                losses = networks.backward(batches, rows, sgd.label_smoothing)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate_at(sgd, step)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            with torch.no_grad():
                for name, mask in held.items():
                    networks.shared[name].copy_(
                        torch.where(mask, kept[name], networks.shared[name])
                    )
            for row, loss in losses.items():
                if not bool(loss.isfinite()):
                    raise FloatingPointError(
                        f"the loss of {names[row]} is not finite at step {step}; lower the "
                        f"learning rate ({sgd.learning_rate})"
                    )
        for row in rows:
            networks.rows[row].row.module.eval()
            for name, used in networks.used(row).items():
                frozen[name] = frozen[name] | used if name in frozen else used
    return accuracies(networks, networks.masks.networks, data, networks.backbone.batch)


def _held(
    networks: VirtualNetworks, rows: Sequence[int], frozen: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """What of each shared weight rows leave as it is, weight decay too: frozen, or not used."""
    used = [networks.used(row) for row in rows]
    held = {name: ~torch.stack([each[name] for each in used]).any(dim=0) for name in used[0]}
    held = {name: mask | frozen.get(name, False) for name, mask in held.items()}
    return {name: mask for name, mask in held.items() if bool(mask.any())}


class _Row:
    """One row: its part of the shared weights, and its own norms and head."""

    def __init__(
        self,
        backbone: Backbone,
        kept_U: BoolArray,
        own: Mapping[str, Tensor],
        head: Mapping[str, Tensor],
        device: torch.device,
    ) -> None:
        self.row = Row(backbone.tail, backbone.division, kept_U)
        parameters = dict(backbone.tail.named_parameters())
        small = self.row.gather(own)
        self.own = {
            n: nn.Parameter(t.clone(), parameters[n].requires_grad)
            for n, t in small.items()
            if n in parameters
        }
        self.buffers = {n: t.clone() for n, t in small.items() if n not in parameters}
        self.head = tuple(nn.Parameter(head[name].to(device)) for name in backbone.of_head)

    def __call__(self, shared: Mapping[str, Tensor], images: Tensor) -> Tensor:
        tensors = {**self.row.gather(shared), **self.own, **self.buffers}
        _, features = self.row(tensors, images)
        logits: Tensor = nn.functional.linear(features.float(), *self.head)
        return logits
