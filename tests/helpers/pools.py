"""Pools that score in this process, by a formula."""

import random
from collections.abc import Callable, Sequence

from partitioning import Masks
from search.arms.scoring import Scored
from search.candidates import Rung
from trainers.cost import Costs
from trainers.proxy import Evaluation


class ShuffledPool:
    """Scores by a formula; finished cohorts come back in a random order.

    Args:
        seed: Of the order.
        slots: How many cohorts may be under way at once.
        fail: Tickets of candidates that fail: that of the cohort, plus the place in it.
        fails: Says of masks and steps whether they fail.
    """

    def __init__(
        self,
        seed: int,
        *,
        slots: int = 4,
        fail: frozenset[int] = frozenset(),
        fails: Callable[[Masks, int], bool] = lambda masks, steps: False,
    ) -> None:
        self.slots, self.evaluators = slots, max(1, slots // 2)
        self.scored = 0
        self.steps = 0
        self._fail = fail
        self._fails = fails
        self._order = random.Random(seed)
        self._flying: dict[int, tuple[Sequence[Masks], Rung]] = {}

    def submit(self, ticket: int, cohort: Sequence[Masks], rung: Rung) -> None:
        assert len(self._flying) < self.slots
        self._flying[ticket] = cohort, rung
        self.steps += rung.steps * len(cohort)

    def wait(self) -> tuple[int, list[Scored]]:
        ticket = self._order.choice(sorted(self._flying))
        cohort, rung = self._flying.pop(ticket)
        self.scored += len(cohort)
        return ticket, [
            Scored(error="made to fail")
            if ticket + i in self._fail or self._fails(m, rung.steps)
            else Scored(evaluation=score(m, rung.steps))
            for i, m in enumerate(cohort)
        ]


def score(masks: Masks, steps: int) -> Evaluation:
    """What a shuffled pool scores; fewer steps put candidates in another order."""
    names = [network.task for network in masks.networks]
    use = masks.use()
    return Evaluation(
        accuracy={
            name: float(1 - (u - 0.6) ** 2 - (u * 37 % 1) / steps)
            for name, u in zip(names, use, strict=True)
        },
        distillation_loss=dict.fromkeys(names, 0.0),
        costs=Costs(
            use=dict(zip(names, map(float, use), strict=True)),
            parameters={}, macs={}, union_parameters=0, mean_use=float(use.mean()),
            relative_parameters=1.0, relative_macs=1.0, relative_union=1.0,
        ),
        seconds=float(use.mean()),
    )  # fmt: skip


def sometimes(masks: Masks, steps: int) -> bool:
    """Fails some candidates at every rung, by their masks alone."""
    return int(masks.digest()[:6], 16) % 7 == steps % 7
