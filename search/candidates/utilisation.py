"""What evaluators did with their time: how much of it they scored, and why not all of it."""

from collections.abc import Iterable, Mapping

#: Why evaluators were idle, and what helps.
IDLE = {
    "outcomes": (
        "waiting for outcomes that the strategy learns from",
        "more arms (seeds, strategies) share the places, or schedule.evaluators keeps some free",
    ),
    "end": ("waiting for the last candidates of an arm", ""),
    "masks": (
        "waiting for masks",
        "CPUs that no evaluator takes solve for masks in parallel; solver.time_limit bounds one",
    ),
    "record": ("waiting for the record", "a faster disk, or a longer scoring, hides its writes"),
    "arm": ("waiting for the strategy", ""),
    "ended": (
        "after their arm had ended",
        "arms of like length, or more of them, end together",
    ),
    "start": ("starting", ""),
    "lost": ("lost, with what they had in hand", ""),
}
#: Share of their time that evaluators may be idle for a reason before the reason's help is told.
WORTH_TELLING = 0.2

#: Seconds of all evaluators of an arm together: "busy", and idle by the keys of `IDLE`.
Utilisation = Mapping[str, float]


def total(parts: Iterable[Utilisation]) -> dict[str, float]:
    """Sum of several.

    Example:
        >>> total([{"busy": 3.0}, {"busy": 1.0, "masks": 2.0}])
        {'busy': 4.0, 'masks': 2.0}
    """
    found: dict[str, float] = {}
    for part in parts:
        for what, seconds in part.items():
            found[what] = found.get(what, 0.0) + seconds
    return found


def shares(used: Utilisation) -> dict[str, float]:
    """Each part's share of the whole; empty where there was no time.

    Example:
        >>> shares({"busy": 3.0, "masks": 1.0})
        {'busy': 0.75, 'masks': 0.25}
    """
    whole = sum(used.values())
    return {what: seconds / whole for what, seconds in used.items()} if whole else {}


def describe(used: Utilisation) -> str:
    """Utilisation in words; empty where there was no time.

    Example:
        >>> describe({"busy": 2700.0, "masks": 900.0})
        'evaluators scored 75 % of 1.0 hours; 25 % waiting for masks: CPUs that no evaluator takes \
solve for masks in parallel; solver.time_limit bounds one'
    """
    parts = shares(used)
    if not parts:
        return ""
    idle = sorted((each for each in parts.items() if each[0] != "busy"), key=lambda p: -p[1])
    seconds = sum(used.values())
    time = f"{seconds / 3600:.1f} hours" if seconds >= 3600 else f"{seconds / 60:.1f} minutes"
    said = [f"evaluators scored {100 * parts.get('busy', 0.0):.0f} % of {time}"]
    said += [f"{100 * share:.0f} % {IDLE[what][0]}" for what, share in idle if share >= 0.005]
    line = "; ".join(said)
    if idle and idle[0][1] >= WORTH_TELLING and (advice := IDLE[idle[0][0]][1]):
        line += f": {advice}"
    return line
