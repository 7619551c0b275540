"""What a calibration measures of a candidate: its score by the proxy, and its full training."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from partitioning import Masks
from search.calibration.images import for_proxy, for_training
from search.study import Foundation
from trainers.device import ComputeConfig
from trainers.joint import TrainConfig, train_jointly
from trainers.networks import BackboneConfig
from trainers.proxy import DivergedError, FeatureCache, ProxyConfig, distill


def measure(
    *,
    masks: Masks,
    seed: int,
    cache: FeatureCache,
    base: Foundation,
    backbone: BackboneConfig,
    proxy: ProxyConfig,
    training: TrainConfig,
    multiples: Sequence[float],
    compute: ComputeConfig,
) -> dict[str, Any]:
    """Score masks by the proxy, then train them in full.

    The two are measured on different halves of every task's validation images, see `halves`.
    What full training had reached is measured on its way, under the schedule of the whole: it is
    stopped early, not made shorter.

    Args:
        masks: Of the candidate.
        seed: 0 scores by the proxy as the study does; others seed proxy and training anew.
        cache: Features that the proxy reads.
        base: Tasks, trunk and teachers, for full training.
        backbone: Of all of them.
        proxy: How candidates are scored.
        training: Full training.
        multiples: Of the proxy's wall time, at which training is looked at.
        compute: Device and precision.

    Returns:
        JSON: proxy {accuracy, loss, seconds}, full {accuracy, seconds, steps, snapshots} and costs
        {use, parameters}, all of them by virtual network but seconds and steps; or the error with
        which one of them diverged.
    """
    (score,) = distill([masks], for_proxy(cache), replace(proxy, seed=proxy.seed + seed), compute)
    if isinstance(score, DivergedError):
        return {"error": str(score)}
    try:
        full = train_jointly(
            masks,
            for_training(base.tasks),
            base.trunk,
            base.teachers,
            training,
            backbone=backbone,
            seed=seed,
            compute=compute,
            snapshots=[multiple * score.seconds for multiple in multiples],
        )
    except FloatingPointError as error:
        return {"error": str(error)}
    return {
        "costs": {"use": dict(score.costs.use), "parameters": dict(score.costs.parameters)},
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
