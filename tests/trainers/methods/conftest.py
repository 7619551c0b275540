"""Every method trained once, for all tests that look at what comes out of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.trainers.methods.helpers import plan_of, toy_tasks, trained
from trainers.data import Task
from trainers.methods import MethodResult, Plan

#: Settings with which there are fewer networks than by default.
SMALL: Mapping[str, dict[str, Any]] = {
    name: {"units": 2} for name in ("dvn", "dvn_sequential", "nested_net_budgets")
}


@dataclass(frozen=True)
class Finished:
    """A method's plan, its result, and the folder in which its phases are kept."""

    plan: Plan
    result: MethodResult
    folder: Path


@pytest.fixture
def tasks() -> Mapping[str, Task]:
    return toy_tasks()


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Finished]:
    """Of a method and its settings: trained without being interrupted, once for all tests.

    Without settings, those of `SMALL`.
    """
    known: dict[str, Finished] = {}

    def find(method: str, **settings: Any) -> Finished:
        settings = settings or SMALL.get(method, {})
        key = f"{method} {settings}"
        if key not in known:
            plan, folder = plan_of(method, **settings), tmp_path_factory.mktemp(method)
            known[key] = Finished(plan, trained(plan, toy_tasks(), folder), folder)
        return known[key]

    return find
