"""Whether a proxy is trusted: it must know something of a candidate that its use does not tell."""

from collections.abc import Mapping
from typing import Any

#: The rows of every table beside the tasks.
MEAN_ACCURACY, MEAN_OVER_TASKS = "mean accuracy", "mean over tasks"

#: The rows that the verdict rests on, and what their correlations are given.
JUDGED = {MEAN_ACCURACY: "given mean use", MEAN_OVER_TASKS: "given mean use and a task's own"}

#: The fewest candidates that carry a verdict, by `benchmarks/calibration_verdict.py`: see
#: docs/log.md, "residuals drawn again".
FEWEST_CANDIDATES = 32


def judged(summary: Mapping[str, Any], threshold: float) -> dict[str, Any]:
    """A summary with the verdict on its proxy.

    The proxy is trusted if for both rows of `JUDGED` the lower end of the 95 % interval of the
    partial correlation with full training reaches the threshold.

    Args:
        summary: Has candidates and proxy, as `summarise` gives them.
        threshold: From -1 to 1.

    Returns:
        The summary with verdict (words), trusted (None where there is no verdict), threshold and
        fewest, the number of candidates that a verdict takes.
    """
    found = {row: summary["proxy"]["partial"][row] for row in JUDGED}
    trusted, words = None, _refusal(summary["candidates"], found)
    if not words:
        short = [row for row, estimate in found.items() if estimate["low"] < threshold]
        trusted = not short
        words = _judgement(summary["candidates"], found, short, threshold)
    head = {
        "verdict": words,
        "trusted": trusted,
        "threshold": threshold,
        "fewest": FEWEST_CANDIDATES,
    }
    return head | dict(summary) | head  # in front, and over an earlier verdict


def _refusal(count: int, found: Mapping[str, Mapping[str, float | None]]) -> str:
    """Why there is no verdict; empty where there is one."""
    if count < FEWEST_CANDIDATES:
        return (
            f"no verdict on the proxy: {count} candidates were scored and trained, and it takes at "
            f"least {FEWEST_CANDIDATES} to tell what its scores say beside use"
        )
    unknown = [row for row, estimate in found.items() if estimate["low"] is None]
    if unknown:
        return (
            f"no verdict on the proxy: over {count} candidates its scores, or full training's, "
            f"do not vary beside use ({' and '.join(unknown)})"
        )
    return ""


def _judgement(
    count: int,
    found: Mapping[str, Mapping[str, float | None]],
    short: list[str],
    threshold: float,
) -> str:
    figures = ", and ".join(
        f"{_text(found[row]['value'])} (95 % interval {_text(found[row]['low'])} to "
        f"{_text(found[row]['high'])}) for the {row} {given}"
        for row, given in JUDGED.items()
    )
    ends = f"the lower end for the {' and the '.join(short)} is below"
    if not short:
        ends = "both lower ends reach"
    return (
        f"the proxy is {'not ' * bool(short)}trusted: over {count} candidates its scores and full "
        f"training have a correlation beside use of {figures}; {ends} the threshold of "
        f"{threshold:g}"
    )


def _text(value: float | None) -> str:
    return "?" if value is None else f"{value:.2f}"
