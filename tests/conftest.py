"""How tests run: one thread of torch, Ray in a folder of this process, and a small backbone."""

import os
import shutil
import tempfile

import pytest
import torch

from trainers.networks import BackboneConfig


def pytest_configure(config: pytest.Config) -> None:
    torch.set_num_threads(1)
    # The clusters of tests neither join one that runs on this machine nor leave their address
    # there, where a test process that runs beside this one would find it.
    os.environ.pop("RAY_ADDRESS", None)
    # Ray's processes wait for nobody: a test process beside this one is as busy as they are.
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112
    os.environ["RAY_TMPDIR"] = tempfile.mkdtemp(prefix="apportion-")


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(os.environ["RAY_TMPDIR"], ignore_errors=True)


#: Where whole searches are run.
LONGEST = ("/tests/search/commands/", "/tests/docs/", "/tests/apportion/")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, so that no process is left alone with one at the end.

    pytest-xdist keeps the order with --no-loadscope-reorder.
    """
    items.sort(key=lambda item: not any(folder in str(item.path) for folder in LONGEST))


@pytest.fixture
def backbone() -> BackboneConfig:
    """A ResNet-14 of width 4: seven blocks' worth of code paths in milliseconds."""
    return BackboneConfig(model="resnet14", args={"width": 4})
