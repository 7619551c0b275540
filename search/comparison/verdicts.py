"""What a comparison of strategies found, in words."""

from collections.abc import Sequence

from search.stats import LEVEL, Pair, fewest_seeds, least_p


def verdict_of(pairs: Sequence[Pair], seeds: int) -> str:
    """Which strategy finds the better front, or that there is no winner.

    Only what the tests show is said, and only of strategies that nothing beats. That a beats b
    implies that its mean is higher, so it never runs in circles; but a may beat b, and b may beat
    c, where between a and c nothing is shown.

    Args:
        pairs: All pairs of the strategies, see `compare_pairs`.
        seeds: How many there were.
    """
    names = list(dict.fromkeys([pair.a for pair in pairs] + [pair.b for pair in pairs]))
    least = least_p(seeds)
    if least * len(pairs) >= LEVEL:
        return (
            f"no winner: {seeds} seeds are too few for a claim (the smallest p that a test of them "
            f"can have is {number(least)}, {number(min(1, least * len(pairs)))} after correction "
            f"for {count(len(pairs), 'pair')}); it takes {fewest_seeds(len(names))} seeds or more"
        )
    beaten = {name: [pair.b for pair in pairs if pair.better == name] for name in names}
    for name in names:
        if len(beaten[name]) == len(names) - 1:
            p = max(pair.p_adjusted for pair in pairs if pair.better == name)
            others = "every other strategy" if len(names) > 2 else beaten[name][0]
            return (
                f"{name} finds the better front: it beats {others} "
                f"(Holm-adjusted p <= {number(p)}, {seeds} seeds)"
            )
    unbeaten = [name for name in names if not any(name in losers for losers in beaten.values())]
    groups: dict[tuple[str, ...], list[str]] = {}
    for name in unbeaten:
        if beaten[name]:
            groups.setdefault(tuple(beaten[name]), []).append(name)
    between = f"no difference that {seeds} seeds could show"
    if not groups:
        p = min(pair.p_adjusted for pair in pairs)
        return (
            f"no winner: between {listed(names)} there is {between} "
            f"(smallest Holm-adjusted p {number(p)})"
        )
    shown = [
        f"{listed(winners)} beat{'s' * (len(winners) == 1)} {listed(losers)}"
        for losers, winners in groups.items()
    ]
    level = f"(Holm-adjusted p < {LEVEL:g})"
    rest = f"{seeds} seeds show no other difference of {listed(unbeaten)}, which nothing beats"
    if all(len(beaten[name]) == len(names) - len(unbeaten) for name in unbeaten):
        rest = f"between them there is {between}"
    return f"no winner: {'; '.join(shown)} {level}; {rest}"


def listed(names: Sequence[str]) -> str:
    """Names in a sentence.

    Example:
        >>> listed(["es", "random", "baselines"])
        'es, random and baselines'
    """
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def count(amount: float, noun: str) -> str:
    """An amount of something, in the singular or the plural."""
    return f"{amount:.6g} {noun}{'s' * (amount != 1)}"


def number(value: float) -> str:
    """A p with two significant digits.

    Example:
        >>> number(0.01172), number(0.000012), number(1.0)
        ('0.012', '1.2e-05', '1')
    """
    return f"{value:.2g}"
