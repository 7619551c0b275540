"""The stages of a candidate in an arm: it is proposed, measured rung by rung, and told."""

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from partitioning import Decoded, Masks, Space
from search.arms.scoring import Scored
from search.candidates import SCORED_AS, Candidate, Decoding, Measurement, Rung, rounded
from search.config import COSTS
from search.strategies import Outcome


def decoded(space: Space, candidate: Candidate, *, realisable: bool) -> Candidate:
    """A candidate with its masks, or with the reason why there are none.

    Args:
        space: Decodes its vector.
        candidate: As it was proposed.
        realisable: Look for the nearest vector that masks could realise, which can take as long
            as decoding.
    """
    try:
        found = space.decode(np.array(candidate.vector))
        decoding = _decoding(found)
        if realisable and found.realisable is not None:
            decoding = replace(decoding, realisable=tuple(found.realisable.tolist()))
    except (ValueError, RuntimeError) as failure:
        candidate = replace(candidate, error=f"no masks: {failure}")
    else:
        candidate = replace(candidate, decoding=decoding)
    return replace(candidate, finished=time.time())


def measured(
    candidate: Candidate,
    rung: Rung,
    scored: Scored,
    *,
    cost: str,
    latency: Callable[[Masks], float] | None = None,
) -> Candidate:
    """A candidate with what one more rung says of it.

    Args:
        candidate: As the rungs below left it.
        rung: The rung.
        scored: What an evaluator says.
        cost: Key of `COSTS`: which of the costs is the objective.
        latency: Of masks, relative to sharing all, where the study measures it.
    """
    said = Measurement(
        steps=rung.steps, fidelity=rung.fidelity, error=scored.error, evaluator=scored.evaluator
    )
    if (evaluation := scored.evaluation) is None:
        candidate = replace(candidate, quality=None)
    else:
        said = replace(
            said,
            quality=evaluation.quality,
            accuracy=dict(evaluation.accuracy),
            distillation_loss=dict(evaluation.distillation_loss),
            seconds=evaluation.seconds,
            quality_std=evaluation.quality_std,
        )
        costs = evaluation.costs
        if latency is not None:
            costs = replace(costs, relative_latency=latency(candidate.masks))
        candidate = replace(
            candidate,
            quality=evaluation.quality,
            cost=getattr(costs, COSTS[cost].attribute),
            costs=costs,
        )
    return replace(
        candidate, error=scored.error, rungs=(*candidate.rungs, said), finished=time.time()
    )


def repeated(candidate: Candidate, first: Candidate, rung: int) -> Candidate:
    """A candidate with what a rung said of an equal design.

    It counts as many seconds, though it took none: what a budget of seconds ends with must not
    depend on which of two was scored first.

    Args:
        candidate: As the rungs below left it.
        first: The one that was scored, without failing.
        rung: Position of the rung, from 0.
    """
    said = replace(first.rungs[rung], evaluator=f"{SCORED_AS}{first.id}")
    return replace(
        candidate,
        quality=said.quality,
        cost=first.cost,
        costs=first.costs,
        rungs=(*candidate.rungs, said),
        finished=time.time(),
    )


def outcome(candidate: Candidate) -> Outcome:
    """What a strategy is told of a candidate that goes no further: its scores at the lowest rung.

    All candidates have these, and they can be compared; those of different rungs cannot.
    """
    decoding = candidate.decoding
    realisable = None if decoding is None else decoding.realisable
    return Outcome(
        index=candidate.index,
        vector=np.array(candidate.vector),
        quality=None if candidate.failed else candidate.rungs[0].quality,
        cost=candidate.cost,
        error=candidate.error,
        realisable=None if realisable is None else np.array(realisable),
        accuracy=_task_accuracy(candidate),
    )


def broken(candidate: Candidate) -> bool:
    """Whether it failed; one that has not been scored yet has not."""
    return candidate.failed and (candidate.error is not None or len(candidate.rungs) > 0)


def quality_at(candidate: Candidate, rung: int) -> float:
    """Quality at a rung, whatever it reached later; NaN if it failed there or below."""
    quality = candidate.rungs[rung].quality if len(candidate.rungs) > rung else None
    return np.nan if quality is None else float(quality)


def _task_accuracy(candidate: Candidate) -> np.ndarray | None:
    """(T,): mean accuracy over the levels of every task; None where nothing was measured."""
    if candidate.failed:
        return None
    accuracy = candidate.rungs[0].accuracy
    by_task: dict[str, list[float]] = {}
    for network in candidate.masks.networks:
        by_task.setdefault(network.task, []).append(accuracy[str(network)])
    return np.array([np.mean(levels) for levels in by_task.values()])


def _decoding(found: Decoded) -> Decoding:
    """What is kept of the step from a vector to masks, by channel group."""
    masks, solutions = found.masks, found.solutions
    decoding = Decoding.of(masks)
    if not solutions:
        return decoding
    return replace(
        decoding,
        target=rounded(found.target),
        deviation={name: solution.deviation for name, solution in solutions.items()},
        bound={name: solution.bound for name, solution in solutions.items()},
        proven=all(solution.proven for solution in solutions.values()),
    )
