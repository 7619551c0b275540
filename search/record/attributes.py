"""A candidate as attributes in JSON, and back: the one place that knows how a record spells them.

What is empty or not known is left out. Floats that JSON lacks (NaN and the infinities) are null
where they stand, and "odd" lists the path that leads to each, with the float as text at its end.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from partitioning import Masks
from search.candidates import Candidate, Decoding, Measurement
from trainers.cost import Costs

#: Fields of a `Decoding` but its masks, which lie beside each other among the attributes.
_DECODING = ("realised", "target", "deviation", "bound", "proven", "realisable")
_MATRICES = ("realised", "target")


def to_attributes(candidate: Candidate) -> dict[str, Any]:
    """All that is known of a candidate but its strategy, seed, vector, names and scores, as JSON.

    Of a candidate that failed or was stopped the scores are there, too, as "unscored". "accuracy"
    is for people who look at trials: it says again what "rungs" say.

    Raises:
        ValueError: A value has no counterpart in JSON.
    """
    decoding, costs = candidate.decoding, candidate.costs
    attributes: dict[str, Any] = {
        "index": candidate.index,
        "error": candidate.reason,
        "started": candidate.started,
        "finished": candidate.finished,
        "stopped": candidate.stopped,
    }
    optional = {
        "label": candidate.label,
        "accuracy": candidate.accuracy,
        "rungs": [_known(vars(measurement)) for measurement in candidate.rungs],
        "costs": None if costs is None else asdict(costs),
    }
    if decoding is not None:
        optional["masks"] = decoding.masks.to_dict()
        optional |= {key: getattr(decoding, key) for key in _DECODING}
    if candidate.failed or candidate.stopped:  # a trial of this kind keeps no scores
        attributes["unscored"] = [candidate.quality, candidate.cost]
    odd: list[list[Any]] = []
    try:
        attributes = _to_json(attributes | _known(optional), (), odd)
    except TypeError as error:
        raise ValueError(f"candidate {candidate.id} holds {error}") from error
    return attributes | {"odd": odd} if odd else attributes


def from_attributes(
    attributes: Mapping[str, Any],
    *,
    strategy: str,
    seed: int,
    params: Mapping[str, float],
    scores: Sequence[float] | None,
) -> Candidate:
    """The candidate whose `to_attributes` these are.

    Args:
        attributes: As they were read; what is odd in them is put back in place.
        strategy: Name of its strategy.
        seed: Seed of its arm.
        params: The entries of its vector by name, in order.
        scores: Quality and cost; None where they are among the attributes.

    Raises:
        ValueError: They describe no valid candidate or masks.
        KeyError: One is missing.
        TypeError: One is of another kind, or unknown.
    """
    _put_back(attributes)
    quality, cost = scores or attributes["unscored"]
    return Candidate(
        strategy=strategy,
        seed=seed,
        index=attributes["index"],
        vector=tuple(params.values()),
        names=tuple(params),
        label=attributes.get("label"),
        quality=quality,
        cost=cost,
        error=attributes["error"],
        decoding=_decoding(attributes) if "masks" in attributes else None,
        costs=Costs(**attributes["costs"]) if "costs" in attributes else None,
        rungs=tuple(Measurement(**entry) for entry in attributes.get("rungs", ())),
        stopped=attributes["stopped"],
        started=attributes["started"],
        finished=attributes["finished"],
    )


def _decoding(attributes: Mapping[str, Any]) -> Decoding:
    known = {key: attributes[key] for key in _DECODING if key in attributes}
    for key in _MATRICES:
        groups = known.get(key, {})
        known[key] = {name: tuple(map(tuple, matrix)) for name, matrix in groups.items()}
    if "realisable" in known:
        known["realisable"] = tuple(known["realisable"])
    return Decoding(masks=Masks.from_dict(attributes["masks"]), **known)


def _known(values: Mapping[str, Any]) -> dict[str, Any]:
    """Those that are not empty."""
    return {
        key: value
        for key, value in values.items()
        if value is not None and not (isinstance(value, Mapping | Sequence) and len(value) == 0)
    }


def _to_json(value: Any, path: tuple[str | int, ...], odd: list[list[Any]]) -> Any:
    """Plain JSON: arrays become lists; floats that JSON lacks become null and go into `odd`.

    Args:
        value: What to write.
        path: Keys and positions that lead to it.
        odd: Gets the path of each such float, and last the float as text.

    Raises:
        TypeError: A value has no counterpart in JSON.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float | np.floating):
        if math.isfinite(value):
            return float(value)
        odd.append([*path, str(float(value))])
        return None
    if isinstance(value, np.ndarray | np.integer | np.bool_):
        return _to_json(value.tolist(), path, odd)
    if isinstance(value, Mapping):
        return {str(k): _to_json(entry, (*path, str(k)), odd) for k, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_to_json(entry, (*path, i), odd) for i, entry in enumerate(value)]
    where = "/".join(map(str, path))
    raise TypeError(f"a {type(value).__name__} at {where}, which JSON cannot hold: {value!r}")


def _put_back(attributes: Mapping[str, Any]) -> None:
    """Puts the floats that JSON lacks back where they were."""
    for *path, last, text in attributes.get("odd", ()):
        parent: Any = attributes
        for step in path:
            parent = parent[step]
        parent[last] = float(text)
