import numpy as np
import pytest
import torch

from search.strategies import Problem, TaskFacts
from search.strategies.agent.distributions import Continuous, Distribution, Levels
from search.strategies.agent.network import Agent, features

TASKS = (
    TaskFacts(name="a", classes=10, images=1000, teacher_accuracy=0.9),
    TaskFacts(name="b", classes=1000, images=1000, teacher_accuracy=0.5),
    TaskFacts(name="c", classes=100, images=1000, teacher_accuracy=0.7),
)
SIMILARITY = np.array([[1.0, 0.2, 0.6], [0.2, 1.0, 0.4], [0.6, 0.4, 1.0]])
CONCERNS = ((0,), (1,), (2,), (0, 1), (0, 2), (1, 2))


def make_problem(
    *, facts: bool = True, concerns: tuple[tuple[int, ...], ...] = CONCERNS
) -> Problem:
    return Problem(
        dim=6,
        names=tuple("abcdef"),
        use_dims=(0, 1, 2),
        seed=0,
        baselines={},
        concerns=concerns,
        tasks=TASKS if facts else (),
        similarity=SIMILARITY if facts else None,
    )


def make_agent(problem: Problem, distribution: Distribution, largest: float = 4.0) -> Agent:
    generator = torch.Generator().manual_seed(0)
    return Agent(problem, distribution, largest=largest, hidden=8, tau=0.75, generator=generator)


def test_features_of_tasks_and_pairs() -> None:
    told_D9 = features(make_problem())
    z = 1.5**0.5  # of three evenly spaced values, the largest one standardised
    # Whether use and how many tasks; means of log classes (ascending a, c, b), images (all alike)
    # and teacher accuracy; how far apart; similarity.
    expected = [
        [1, 0, -z, 0, z, 0, 0, 0, 0.4],
        [1, 0, z, 0, -z, 0, 0, 0, 0.3],
        [1, 0, 0, 0, 0, 0, 0, 0, 0.5],
        [0, 1, 0, 0, 0, 2 * z, 0, 2 * z, 0.2],
        [0, 1, -z / 2, 0, z / 2, z, 0, z, 0.6],
        [0, 1, z / 2, 0, -z / 2, z, 0, z, 0.4],
    ]
    np.testing.assert_allclose(told_D9, expected, atol=1e-12)


def test_what_is_not_known_is_0() -> None:
    told_D9 = features(make_problem(facts=False))
    np.testing.assert_array_equal(told_D9[:, 2:], 0.0)
    np.testing.assert_array_equal(told_D9[:, :2], [[1, 0]] * 3 + [[0, 1]] * 3)
    told_D9 = features(make_problem(concerns=()))
    np.testing.assert_array_equal(told_D9[:, 1:], 0.0)
    alone = Problem(
        dim=1, names=("use",), use_dims=(0,), seed=0, baselines={}, concerns=((0,),),
        tasks=TASKS[:1], similarity=np.ones((1, 1)),
    )  # fmt: skip
    np.testing.assert_array_equal(features(alone), [[1.0] + [0.0] * 8])


@pytest.mark.parametrize("distribution", [Levels(4), Continuous()], ids=["levels", "cont."])
@pytest.mark.parametrize("facts", [True, False])
def test_every_budget_starts_at_equation_8(distribution: Distribution, facts: bool) -> None:
    parameters_BDk = make_agent(make_problem(facts=facts), distribution)([0.0, 1.0, 4.0])
    use_D = torch.arange(6) < 3
    expected_Dk = distribution.initial(use_D, 0.75)
    torch.testing.assert_close(parameters_BDk, expected_Dk.expand(3, -1, -1), rtol=0, atol=0)


def fit(problem: Problem, target_BD: torch.Tensor) -> torch.Tensor:
    """Largest error after learning the expected values, shape (3, 6), of three budgets."""
    distribution = Continuous()
    agent = make_agent(problem, distribution)
    optimizer = torch.optim.Adam(agent.parameters(), lr=0.05)
    for _ in range(500):
        optimizer.zero_grad()
        error = distribution.mean(agent([0.0, 1.0, 4.0])) - target_BD
        torch.autograd.backward(error.square().sum())
        optimizer.step()
    return error.detach().abs().max()


@pytest.mark.parametrize("facts", [True, False])
def test_every_entry_can_be_learnt_for_every_budget(facts: bool) -> None:
    target_BD = torch.rand((3, 6), dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    assert fit(make_problem(facts=facts), 0.05 + 0.9 * target_BD) < 0.03


def test_what_one_task_teaches_carries_over_to_its_likes() -> None:
    distribution = Continuous()
    near = TaskFacts(name="d", classes=11, images=1000, teacher_accuracy=0.88)
    problem = Problem(
        dim=4, names=tuple("abcd"), use_dims=(0, 1, 2, 3), seed=0, baselines={},
        concerns=((0,), (1,), (2,), (3,)), tasks=(*TASKS, near),
    )  # fmt: skip
    agent = make_agent(problem, distribution)
    optimizer = torch.optim.Adam(agent.parameters(), lr=0.01)
    before_D = distribution.mean(agent([1.0]))[0].detach()
    for _ in range(20):
        optimizer.zero_grad()
        torch.autograd.backward(distribution.mean(agent([1.0]))[0, 0])  # that of a
        optimizer.step()
    moved_D = (before_D - distribution.mean(agent([1.0]))[0]).detach()
    assert moved_D[0] > moved_D[3] > max(moved_D[1], moved_D[2])
    assert moved_D[3] > 0.02
