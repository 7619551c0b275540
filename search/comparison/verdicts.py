"""What a comparison of strategies found, in words."""

from collections.abc import Collection, Mapping, Sequence

from search.comparison.points import CHEAP, Point
from search.stats import LEVEL, Pair, fewest_seeds, least_p

Where = Mapping[tuple[str, str], Sequence[Pair]]


def verdict_of(
    pairs: Sequence[Pair],
    seeds: int,
    *,
    points: Sequence[Point] = (),
    where: Where | None = None,
    fixed: Collection[str] = (),
) -> str:
    """Which strategy finds the better front, where on it, or that there is no winner.

    Only what the tests show is said, and only of contestants that nothing beats. That a beats b
    implies that its mean is higher, so it never runs in circles; but a may beat b, and b may beat
    c, where between a and c nothing is shown.

    Args:
        pairs: All pairs of the contestants, see `compare_pairs`.
        seeds: How many there were.
        points: Where on the front they were compared, too.
        where: By pair of which one is better, the pair at every point.
        fixed: Contestants that are fixed baselines.
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
    winner = next((name for name in names if len(beaten[name]) == len(names) - 1), None)
    if winner is not None:
        parts = [_won(winner, names, pairs, seeds, fixed)]
        parts += _where(winner, beaten[winner], points, where or {}, seeds)
    else:
        parts = [_no_winner(names, beaten, pairs, seeds)]
        for name in (n for n in names if beaten[n] and not _loses(n, beaten)):
            parts += _where(name, beaten[name], points, where or {}, seeds, subject=f"{name} is")
    if fixed and winner not in fixed:
        parts += [_against_fixed(name, names, beaten) for name in fixed]
    return ". ".join(parts)


def _won(
    winner: str,
    names: Sequence[str],
    pairs: Sequence[Pair],
    seeds: int,
    fixed: Collection[str],
) -> str:
    p = max(pair.p_adjusted for pair in pairs if pair.better == winner)
    level = f"(Holm-adjusted p <= {number(p)}, {count(seeds, 'seed')})"
    others = "every other strategy" if len(names) > 2 else next(n for n in names if n != winner)
    if winner in fixed:
        return f"no search pays: {winner}, which are fixed, beat {others} {level}"
    return f"{winner} finds the better front: it beats {others} {level}"


def _loses(name: str, beaten: Mapping[str, Sequence[str]]) -> bool:
    return any(name in losers for losers in beaten.values())


def _no_winner(
    names: Sequence[str],
    beaten: Mapping[str, Sequence[str]],
    pairs: Sequence[Pair],
    seeds: int,
) -> str:
    unbeaten = [name for name in names if not _loses(name, beaten)]
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


def _where(
    name: str,
    losers: Sequence[str],
    points: Sequence[Point],
    where: Where,
    seeds: int,
    subject: str = "it is",
) -> list[str]:
    """A sentence for all losers that are worse at the same points."""
    groups: dict[str, list[str]] = {}
    for loser in losers:
        if there := where.get((name, loser)):
            groups.setdefault(place(name, points, there, seeds), []).append(loser)
    return [f"Against {listed(them)} {subject} {words}" for words, them in groups.items()]


def place(name: str, points: Sequence[Point], there: Sequence[Pair], seeds: int) -> str:
    """Where on the front a strategy is better than another, and where it is worse.

    Args:
        name: The strategy.
        points: Where they were compared.
        there: The pair at every point.
        seeds: How many there were.
    """
    better = [point for point, pair in zip(points, there, strict=True) if pair.better == name]
    worse = [p for p, pair in zip(points, there, strict=True) if pair.better not in (name, None)]
    if not better and not worse:
        whole = "better over the front as a whole"
        if least_p(seeds) * len(points) >= LEVEL:
            return f"{whole}, and {seeds} seeds are too few to say where on it"
        return f"{whole}, and at no single point of it that could be shown"
    words = "at no point better that could be shown"
    if better:
        cheap = all(point.of == "quality" and point.share in CHEAP for point in better)
        words = f"better {'at the cheap end only, ' * cheap}{_listed_points(better)}"
    if worse:
        words += f", but worse {_listed_points(worse)}"
    return words


def _listed_points(points: Sequence[Point]) -> str:
    """Points in a sentence."""
    parts = []
    for of, words in (("quality", "at {} of the range of cost"), ("cost", "in the cost of {}")):
        shares = [f"{100 * point.share:.0f} %" for point in points if point.of == of]
        if shares:
            parts.append(words.format(listed(shares)))
    said = " and ".join(parts)
    return said + " of share_all's quality" * any(point.of == "cost" for point in points)


def _against_fixed(fixed: str, names: Sequence[str], beaten: Mapping[str, Sequence[str]]) -> str:
    """What is shown of every search against fixed baselines."""
    searching = [name for name in names if name != fixed]
    better = [name for name in searching if fixed in beaten[name]]
    worse = [name for name in searching if name in beaten[fixed]]
    open_ = [name for name in searching if name not in (*better, *worse)]
    parts = [
        f"{listed(them)} {'is' if len(them) == 1 else 'are'} {words}"
        for them, words in (
            (better, "shown to be better"),
            (worse, "shown to be worse"),
            (open_, "not told apart"),
        )
        if them
    ]
    return f"Against {fixed}, which are fixed, {', '.join(parts)}"


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
