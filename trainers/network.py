"""Networks with tensors of their own: one without masks, and one for all virtual networks."""

import copy
from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from partitioning import Masks, VirtualNetwork
from trainers.data import Task, normalise
from trainers.networks import (
    LAYERS,
    Backbone,
    Stack,
    Store,
    bound,
    make_stores,
    named_below,
    tensors_of,
)
from trainers.optim import buffers_of, load_buffers, sgd_step


class Whole(nn.Module):
    """A backbone without masks, and a head.

    Args:
        backbone: The network.
        state: Its tensors by name, those of the head among them; copied.
        device: Where they are kept.
    """

    def __init__(
        self, backbone: Backbone, state: Mapping[str, Tensor], device: torch.device
    ) -> None:
        super().__init__()
        self.backbone = backbone
        parameters = {
            **dict(backbone.trunk.named_parameters()), **dict(backbone.tail.named_parameters()),
        }  # fmt: skip
        own: dict[str, Tensor] = {}
        for name, tensor in state.items():
            copied = _placed(tensor, device)
            if name in parameters:  # those that the network itself has fixed stay as they are
                copied = nn.Parameter(copied, requires_grad=parameters[name].requires_grad)
            own[name] = copied
        self.trunk, self.tail = (
            bound(part, {n: own[n] for n in tensors_of(part) if n in own}).to(device)
            for part in (backbone.trunk, backbone.tail)
        )
        self.head = _linear(*(own[name] for name in backbone.of_head)).to(device)

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images (B, 3, S, S) to logits (B, classes)."""
        logits: Tensor = self.head(self.tail(self.trunk(images))[1])
        return logits

    def state(self) -> dict[str, Tensor]:
        """Its tensors by name, on the CPU."""
        head = dict(zip(self.backbone.of_head, self.head.parameters(), strict=True))
        found = {**self.trunk.state_dict(), **self.tail.state_dict(), **head}
        return {name: tensor.detach().cpu().contiguous() for name, tensor in found.items()}


class Network:
    """A backbone under masks: shared weights once; norms and a head for every row.

    Row r of the masks is virtual network r.

    Args:
        backbone: The network.
        masks: Of its groups.
        classes: Number of classes of each row's head.
        shared: Whole tensors by name: the weights that rows share, and the norms that each row of
            the tail begins with.
        norms: For each row, whole tensors by name: the norms of its trunk.
        begun: For each row, whole tensors by name: its head and the norms of its tail; None has
            heads drawn, and takes norms that are shared.
        seed: Of heads that are drawn.
        device: Where it is kept.
    """

    def __init__(
        self,
        backbone: Backbone,
        masks: Masks,
        classes: Sequence[int],
        *,
        shared: Mapping[str, Tensor],
        norms: Sequence[Mapping[str, Tensor]],
        begun: Sequence[Mapping[str, Tensor]] | None = None,
        seed: int,
        device: torch.device,
    ) -> None:
        self.backbone, self.masks = backbone, masks
        kept_RU = backbone.kept(masks)
        free_RU = None if masks.backward is None else backbone.kept(masks, "backward")
        self.stores: dict[str, Store] = make_stores(
            backbone.tail, backbone.division, backbone.divided, shared, 1, device
        )
        whole = {n: _placed(shared[n], device) for n in tensors_of(backbone.trunk) if n in shared}
        read_RF = backbone.features_of(kept_RU)
        self.trunks: list[nn.Module] = []
        self.stacks: list[Stack] = []
        self.heads: list[nn.Module] = []
        for row, count in enumerate(classes):
            own = {n: _placed(norms[row][n], device) for n in whole if n in backbone.own}
            self.trunks.append(bound(backbone.trunk, {**whole, **own}).to(device).eval())
            stack = Stack(
                backbone.tail,
                backbone.division,
                kept_RU[row : row + 1],
                self.stores,
                shared if begun is None else {**shared, **begun[row]},
                free_KU=None if free_RU is None else free_RU[row : row + 1],
            )
            self.stacks.append(stack)
            if begun is None:
                head = backbone.new_head(int(read_RF[row].sum()), count, [seed, row])
            else:
                weight, bias = (begun[row][name] for name in backbone.of_head)
                read_F = torch.from_numpy(read_RF[row])
                head = dict(zip(backbone.of_head, (weight[:, read_F], bias), strict=True))
            self.heads.append(_linear(*(head[name] for name in backbone.of_head)).to(device))
            for parameter, decays in zip(self.heads[row].parameters(), (True, False), strict=True):
                stack.learn([parameter], decays=decays)
        for trunk in self.trunks:
            trunk.requires_grad_(False)
        self._thawed: list[torch.optim.SGD] = []
        self.gather()

    def thaw(self) -> None:
        """Train the trunk from now on, too: its weights, and each row's norms there."""
        layers = {f"{n}.weight" for n, m in self.trunks[0].named_modules() if isinstance(m, LAYERS)}
        fixed = {n for n, p in self.backbone.trunk.named_parameters() if not p.requires_grad}
        for trunk in self.trunks:
            for name, parameter in trunk.named_parameters():
                parameter.requires_grad_(name not in fixed)
            named = [(n, p) for n, p in trunk.named_parameters() if p.requires_grad]
            groups = [
                {"params": [p for n, p in named if (n in layers) == decays], "decays": decays}
                for decays in (True, False)
            ]
            if named:
                self._thawed.append(torch.optim.SGD(groups, foreach=True))

    def gather(self) -> None:
        """Read shared weights as they are now, for all rows."""
        for stack in self.stacks:
            stack.gather()

    def train(self, row: int) -> None:
        """Be ready for a step of a row; a frozen trunk's norms stay as they are."""
        self.trunks[row].train(bool(self._thawed))
        self.stacks[row].module.train()
        self.stacks[row].gather()

    def step(self, row: int, learning_rate: float, momentum: float, weight_decay: float) -> None:
        """Update with the gradients of losses of a row, then clear them."""
        self.stacks[row].step(learning_rate, momentum, weight_decay)
        if self._thawed:
            sgd_step(self._thawed[row], learning_rate, momentum, weight_decay)

    def eval(self) -> None:
        """Be as in evaluation, with weights as they are now."""
        for trunk, stack in zip(self.trunks, self.stacks, strict=True):
            trunk.eval()
            stack.module.eval()
        self.gather()

    def __call__(self, images: Tensor, row: int) -> Tensor:
        """Map normalised images (B, 3, S, S) to logits (B, classes of the row)."""
        return self.behind(self.trunks[row](images), row)

    def behind(self, maps: Tensor, row: int) -> Tensor:
        """Map what a row's trunk gives for images to logits (B, classes of the row)."""
        _, features = self.stacks[row](maps)
        logits: Tensor = self.heads[row](features)
        return logits

    def row(self, row: int) -> tuple[nn.Module, nn.Module, nn.Module]:
        """Trunk, tail and head of a row alone, on the CPU, with copies of their tensors."""
        self.eval()
        head = copy.deepcopy(self.heads[row]).cpu()
        trunk, tail = (
            bound(module, {n: contiguous_copy(t) for n, t in tensors_of(module).items()}).eval()
            for module in (self.trunks[row], self.stacks[row].module)
        )
        return trunk, tail, head

    def live(self) -> dict[str, Tensor]:
        """All its tensors by name, as they are: shared ones once, and those of every row."""
        trunk = tensors_of(self.trunks[0])
        found = {f"shared.{n}": t for n, t in trunk.items() if n not in self.backbone.own}
        found |= {f"shared.{name}": store.whole() for name, store in self.stores.items()}
        for row, tensors in enumerate(self._own()):
            found |= {f"row{row}.{name}": tensor for name, tensor in tensors.items()}
        return {name: tensor.detach() for name, tensor in found.items()}

    def state(self) -> dict[str, Tensor]:
        """Copies of all its tensors by name, on the CPU."""
        return {name: tensor.cpu().contiguous() for name, tensor in self.live().items()}

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take the tensors of another network with the same masks, as `state` gave them."""
        for name, tensor in self.live().items():
            tensor.copy_(state[name])
        self.gather()

    def momentum(self) -> dict[str, Tensor]:
        """What its optimisers know of the steps before, by name, as it is."""
        found: dict[str, Tensor] = {}
        for row, stack in enumerate(self.stacks):
            of_row = {f"stack.{name}": tensor for name, tensor in stack.momentum().items()}
            if self._thawed:
                of_row |= {f"trunk.{n}": t for n, t in buffers_of(self._thawed[row]).items()}
            found |= {f"row{row}.{name}": tensor for name, tensor in of_row.items()}
        return found

    def go_on(self, momentum: Mapping[str, Tensor]) -> None:
        """Take what `momentum` gave; of a thawed trunk after `thaw`."""
        for row, stack in enumerate(self.stacks):
            stack.go_on(named_below(f"row{row}.stack", momentum))
            if self._thawed:
                load_buffers(self._thawed[row], named_below(f"row{row}.trunk", momentum))

    def _own(self) -> list[dict[str, Tensor]]:
        """The tensors that each row has alone."""
        return [
            {n: t for n, t in tensors_of(trunk).items() if n in self.backbone.own}
            | stack.own()
            | dict(zip(self.backbone.of_head, head.parameters(), strict=True))
            for trunk, stack, head in zip(self.trunks, self.stacks, self.heads, strict=True)
        ]


@torch.no_grad()
def accuracy(
    logits: Callable[[Tensor], Tensor], task: Task, batch: int, split: str = "validation"
) -> float:
    """The share of a split's images that a network classifies correctly, in [0, 1].

    Args:
        logits: The network, in evaluation mode.
        task: On its device.
        batch: Images in one forward pass.
        split: Name of the split.

    Raises:
        FloatingPointError: Its outputs are infinite or NaN; names the task.
    """
    data = task.splits[split]
    correct = 0
    for start in range(0, len(data), batch):
        images, labels = data.batch(start, start + batch)
        found = logits(to_channels_last(normalise(images, task)))
        if not bool(found.isfinite().all()):  # the last step is followed by no loss
            raise FloatingPointError(
                f"the trained network of {task.name} gives outputs that are not finite; lower the "
                "sgd.learning_rate that it was trained with"
            )
        correct += int((found.argmax(dim=1) == labels).sum())
    return correct / len(data)


def accuracies_of(
    network: nn.Module, task: Task, batch: int, splits: Sequence[str] = ("validation", "test")
) -> dict[str, float]:
    """The accuracy of a network in evaluation mode, by those of the splits that its task has."""
    return {name: accuracy(network, task, batch, name) for name in splits if name in task.splits}


def accuracies(
    logits: Callable[[Tensor, int], Tensor],
    networks: Sequence[VirtualNetwork],
    tasks: Mapping[str, Task],
    batch: int,
    splits: Sequence[str] = ("validation", "test"),
) -> dict[str, dict[str, float]]:
    """The accuracy of rows by split, of those that every task has, and virtual network.

    Args:
        logits: Those of images, by a row; in evaluation mode.
        networks: What the rows are.
        tasks: On their device.
        batch: Images in one forward pass.
        splits: Which.

    Raises:
        FloatingPointError: See `accuracy`.
    """
    return {
        split: {
            str(network): accuracy(
                lambda images, row=row: logits(images, row),  # type: ignore[misc]
                tasks[network.task],
                batch,
                split,
            )
            for row, network in enumerate(networks)
        }
        for split in splits
        if all(split in task.splits for task in tasks.values())
    }


def to_channels_last(images: Tensor) -> Tensor:
    """The same tensor; of maps (B, C, H, W) in the layout that convolutions are fastest in."""
    return images.contiguous(memory_format=torch.channels_last) if images.ndim == 4 else images


def cross_entropy(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy in nats of logits (B, K) against labels (B,)."""
    return F.cross_entropy(logits.float(), labels, label_smoothing=smoothing)


def distillation(logits: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """Cross-entropy, in nats, of what a network gives with what a teacher gives, both softened.

    Args:
        logits: (B, K).
        targets: (B, K), the teacher's logits.
        temperature: What both are divided by (Hinton et al. 2015, eq. 1).
    """
    return F.cross_entropy(logits.float() / temperature, (targets.float() / temperature).softmax(1))


@torch.no_grad()
def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    found = nn.Linear(weight.shape[1], weight.shape[0])
    found.weight.copy_(weight)
    found.bias.copy_(bias)
    return found


def contiguous_copy(tensor: Tensor) -> Tensor:
    """A copy on the CPU without history, laid out as torch exports tensors."""
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)


def _placed(tensor: Tensor, device: torch.device) -> Tensor:
    return to_channels_last(tensor.detach().to(device).clone())
