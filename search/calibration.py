"""What a calibration measures: candidates spread over cost, each by the proxy and in full training.

Legend: T tasks, D positions of a vector that say how much is used.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from partitioning import FloatArray, Masks, Space
from search.candidate import Candidate
from search.progress import scored
from trainers.backbones import BackboneConfig
from trainers.data import Task
from trainers.device import ComputeConfig
from trainers.features import FeatureCache
from trainers.joint import TrainConfig, train
from trainers.optim import SGDConfig
from trainers.proxy import DivergedError, ProxyConfig, distill
from trainers.teachers import Trained

#: Mean uses at which candidates are drawn, as shares of the way from the space's least to its most.
LEVELS = np.linspace(0.07 / 0.95, 0.91 / 0.95, 8)
#: How far the tasks' uses scatter around their mean, at most.
SCATTER = 0.3


@dataclass(frozen=True, kw_only=True)
class CalibrationConfig:
    """How the proxy is held against full training, by `apportion calibrate`.

    Attributes:
        candidates: How many are scored by the proxy and trained in full; at least 3.
        repeated: How many of them are trained with a second seed, for the noise of full training.
        sgd: Full training; None takes the study's own, `train.sgd`.
        multiples: Full training is also looked at after so many times the proxy's wall time.
        threshold: Mean over tasks of the Pearson correlation with full training that the proxy
            must reach to be trusted.
        seed: Draws candidates where the record has too few, and the bootstrap.
    """

    candidates: int = 32
    repeated: int = 4
    sgd: SGDConfig | None = None
    multiples: tuple[float, ...] = (1.0, 2.0, 5.0, 10.0)
    threshold: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.candidates < 3:
            raise ValueError(f"candidates must be at least 3, got {self.candidates}")
        if not 0 <= self.repeated <= self.candidates:
            raise ValueError(
                f"repeated must be from 0 to candidates, {self.candidates}, got {self.repeated}"
            )
        increasing = sorted(set(self.multiples)) == list(self.multiples)
        if not increasing or not all(0 < m < math.inf for m in self.multiples):
            raise ValueError(f"multiples must increase from above 0, got {list(self.multiples)}")
        if not -1 <= self.threshold <= 1:
            raise ValueError(f"threshold must be a correlation, -1 to 1, got {self.threshold}")
        if self.seed < 0:
            raise ValueError(f"seed must be at least 0, got {self.seed}")


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """A candidate of a calibration.

    Attributes:
        candidate: Its name in the study's record; None of one that was drawn.
        vector: (dim,) entries in [0, 1].
        masks: What it means.
    """

    candidate: str | None
    vector: tuple[float, ...]
    masks: Masks


def choose(
    candidates: Sequence[Candidate],
    space: Space,
    bounds: tuple[float, float],
    config: CalibrationConfig,
) -> list[Chosen]:
    """The candidates of a calibration: the study's own, and drawn ones where these are too few.

    Args:
        candidates: Of the study's record; those that failed or have the masks of another are left
            out.
        space: Decodes what is drawn.
        bounds: Least and most use that the space searches.
        config: How many, and the seed.
    """
    distinct: dict[Masks, Chosen] = {}
    for candidate in scored(candidates):
        if "masks" in candidate.evaluation:
            masks = Masks.from_dict(candidate.evaluation["masks"])
            found = Chosen(candidate=candidate.id, vector=candidate.vector, masks=masks)
            distinct.setdefault(masks, found)
    own = list(distinct.values())
    use = np.array([chosen.masks.mean_use() for chosen in own])
    taken = [own[position] for position in spread(use, config.candidates)]
    vectors = draw(space, bounds, config.candidates - len(taken), config.seed)
    return taken + [
        Chosen(candidate=None, vector=tuple(map(float, v)), masks=space.decode(v).masks)
        for v in vectors
    ]


def spread(cost_N: FloatArray, count: int) -> list[int]:
    """Positions spread over cost: for evenly spaced costs the nearest candidate not yet taken.

    Args:
        cost_N: Finite costs.
        count: How many; all where there are no more.

    >>> spread(np.array([0.1, 0.12, 0.5, 0.9, 0.88]), 3)
    [0, 2, 3]
    """
    if len(cost_N) <= count:
        return list(range(len(cost_N)))
    left_N = np.array(cost_N, dtype=np.float64)
    taken = []
    for cost in np.linspace(left_N.min(), left_N.max(), count):
        taken.append(int(np.argmin(np.abs(left_N - cost))))
        left_N[taken[-1]] = np.inf
    return taken


def draw(space: Space, bounds: tuple[float, float], count: int, seed: int) -> list[FloatArray]:
    """Random vectors of a space whose mean uses are spread evenly.

    Rounds of one vector for each of eight mean uses; of a last round that is not whole, mean uses
    apart. Within a vector the uses scatter around their mean, everything else is uniform.

    Args:
        space: Its `use_dims` are scattered.
        bounds: Least and most use.
        count: How many.
        seed: Draws them.

    Returns:
        `count` vectors (dim,) in [0, 1].
    """
    low, high = bounds
    rng = np.random.default_rng(seed)
    dims = list(space.use_dims)
    found: list[FloatArray] = []
    while len(found) < count:
        vectors = []
        for level in low + (high - low) * LEVELS:
            scatter = min(level - low, high - level, SCATTER)
            use_D = level + scatter * rng.uniform(-1, 1, len(dims))
            use_D = np.clip(use_D + level - use_D.mean(), low, high)
            vector = rng.uniform(size=space.dim)
            vector[dims] = (use_D - low) / (high - low) if high > low else 1.0
            vectors.append(vector)
        missing = min(count - len(found), len(vectors))
        apart = np.linspace(0, len(vectors) - 1, missing).round().astype(int)
        found += [vectors[position] for position in apart]
    return found


def repeated(use_N: FloatArray, count: int) -> list[int]:
    """Positions of the candidates that are trained twice: evenly spaced in the order of use."""
    order_N = np.argsort(use_N, kind="stable")
    return [int(order_N[p]) for p in np.linspace(0, len(use_N) - 1, count).round().astype(int)]


def measure(
    *,
    masks: Masks,
    seed: int,
    cache: FeatureCache,
    tasks: Mapping[str, Task],
    trunk: Trained,
    teachers: Mapping[str, Trained],
    backbone: BackboneConfig,
    proxy: ProxyConfig,
    training: TrainConfig,
    multiples: Sequence[float],
    compute: ComputeConfig,
) -> dict[str, Any]:
    """Score masks by the proxy, then train them in full.

    What full training had reached is measured on its way, under the schedule of the whole: it is
    stopped early, not made shorter.

    Args:
        masks: Of the candidate.
        seed: 0 scores by the proxy as the study does; others seed proxy and training anew.
        cache: Features that the proxy reads.
        tasks: Images and labels.
        trunk: The pretrained network.
        teachers: By task.
        backbone: The backbone of all of them.
        proxy: How candidates are scored.
        training: Full training.
        multiples: Of the proxy's wall time, at which training is looked at.
        compute: Device and precision.

    Returns:
        JSON: proxy {accuracy, loss, seconds} and full {accuracy, seconds, steps, snapshots} with
        accuracy and loss by virtual network, or the error with which one of them diverged.
    """
    (score,) = distill([masks], cache, replace(proxy, seed=proxy.seed + seed), compute)
    if isinstance(score, DivergedError):
        return {"error": str(score)}
    try:
        full = train(
            masks,
            tasks,
            trunk,
            teachers,
            training,
            backbone=backbone,
            seed=seed,
            compute=compute,
            snapshots=[multiple * score.seconds for multiple in multiples],
        )
    except FloatingPointError as error:
        return {"error": str(error)}
    return {
        "proxy": {
            "accuracy": dict(score.accuracy),
            "loss": dict(score.distillation_loss),
            "seconds": score.seconds,
        },
        "full": {
            "accuracy": dict(full.accuracy["validation"]),
            "seconds": full.seconds,
            "steps": training.sgd.steps,
            "snapshots": [
                {"seconds": s.seconds, "steps": s.steps, "accuracy": dict(s.accuracy)}
                for s in full.snapshots
            ],
        },
    }
