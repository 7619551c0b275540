"""What an exported file computes beside the masked network, on real images."""

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

from trainers.data import Task, normalise

#: Largest difference between logits of the compact and the masked network that counts as equal,
#: relative to the largest logit, or to 1 where that is smaller. Removing channels only changes the
#: order of float32 sums.
TOLERANCE = 1e-4
#: Quantile of the normal distribution for intervals of 95 %.
_QUANTILE = 1.96


class ExportError(ValueError):
    """A network that cannot be exported, or does not compute what the masked network does."""


@dataclass(frozen=True, kw_only=True)
class ExportCheck:
    """An exported network compared with the masked network it was cut from.

    Attributes:
        accuracy: Of the exported network, on the split that was compared.
        masked_accuracy: Of the masked network.
        max_difference: Largest absolute difference of any logit.
        relative_difference: The same, relative to the largest logit or 1.
        images: Number of images compared.
        lost: How many of them the masked network alone names rightly.
        won: How many of them the exported network alone names rightly.
    """

    accuracy: float
    masked_accuracy: float
    max_difference: float
    relative_difference: float
    images: int
    lost: int
    won: int

    @property
    def loss(self) -> float:
        """Accuracy that the export costs; below 0 where it gains."""
        return (self.lost - self.won) / self.images

    @property
    def loss_interval(self) -> tuple[float, float]:
        """95 % interval of `loss` over images like these (paired; Agresti and Min 2005)."""
        n, lost, won = self.images + 2, self.lost + 0.5, self.won + 0.5
        middle = (lost - won) / n
        half = _QUANTILE * sqrt(max(0.0, (lost + won) / n - middle**2) / n)
        return max(-1.0, middle - half), min(1.0, middle + half)


def checked_split(task: Task) -> str:
    """The split that an export is checked on."""
    return "test" if "test" in task.splits else "validation"


@torch.no_grad()
def check_export(
    exported: Callable[[Tensor], Tensor],
    masked: Callable[[Tensor], Tensor],
    task: Task,
    split: str,
    batch: int,
    *,
    raw: bool = True,
    max_loss: float | None = None,
) -> ExportCheck:
    """Run both networks over a split and compare every logit.

    Args:
        exported: As it was read back.
        masked: Of normalised images, in evaluation mode.
        task: Its images.
        split: Name of the split.
        batch: Images in one forward pass.
        raw: Whether the exported network reads images of 0 to 255, or normalised ones.
        max_loss: Accuracy that it may cost; None for a network that must compute the same.

    Raises:
        ExportError: It does not compute the same (`TOLERANCE`), names an image otherwise although
            its classes are not tied, or costs more accuracy.
    """
    data = task.splits[split]
    pairs, labels = [], []
    for start in range(0, len(data), batch):
        images, own = data.batch(start, start + batch)
        normalised = normalise(images, task)
        pairs.append((exported(images if raw else normalised), masked(normalised)))
        labels.append(own)
    logits, wanted = (torch.cat(parts).float().cpu() for parts in zip(*pairs, strict=True))
    truth = torch.cat(labels).cpu()
    if not bool(logits.isfinite().all() and wanted.isfinite().all()):
        raise ExportError(f"the network of task {task.name} gives logits that are not finite")
    found, meant = logits.argmax(1), wanted.argmax(1)
    right, masked_right = found == truth, meant == truth
    largest = float(wanted.abs().max())
    worst = float((logits - wanted).abs().max())
    check = ExportCheck(
        accuracy=float(right.double().mean()),
        masked_accuracy=float(masked_right.double().mean()),
        max_difference=worst,
        relative_difference=worst / max(1.0, largest),
        images=len(data),
        lost=int((masked_right & ~right).sum()),
        won=int((right & ~masked_right).sum()),
    )
    if max_loss is not None:
        if check.loss > max_loss:
            low, high = (100 * end for end in check.loss_interval)
            raise ExportError(
                f"the network of task {task.name} loses {100 * check.loss:.2f} points of accuracy "
                f"[{low:.2f}, {high:.2f}] by fewer bits on {len(data)} {split} images, more than "
                f"{100 * max_loss:.2f}: allow more (--max-loss), or leave this precision out"
            )
        return check
    gap = (wanted.gather(1, meant[:, None]) - wanted.gather(1, found[:, None]))[:, 0]
    tied = gap <= 2 * TOLERANCE * max(1.0, largest)
    if not (check.relative_difference <= TOLERANCE and bool(tied.all())):
        raise ExportError(
            f"the compact network of task {task.name} differs from the masked one by {worst:.3g} "
            f"(largest logit {largest:.3g}); it was not exported"
        )
    return check
