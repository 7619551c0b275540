"""A trunk, teachers and features of two small tasks, made once and never changed."""

import pytest

from tests.helpers.small_networks import BACKBONE, COMPUTE, NAMES, SGD
from tests.helpers.tasks import bright_task
from trainers.data import Task
from trainers.proxy import FeatureCache, build_cache, compute_features
from trainers.teachers import TeacherConfig, Trained, pretrain_trunk, train_teacher


@pytest.fixture(scope="session")
def tasks() -> dict[str, Task]:
    return {name: bright_task(name, seed) for seed, name in enumerate(NAMES)}


@pytest.fixture(scope="session")
def trunk() -> Trained:
    return pretrain_trunk(BACKBONE, bright_task("trunk", 9), SGD, seed=0, compute=COMPUTE)


@pytest.fixture(scope="session")
def teachers(tasks: dict[str, Task], trunk: Trained) -> dict[str, Trained]:
    config = TeacherConfig(sgd=SGD)
    return {
        name: train_teacher(BACKBONE, trunk, task, config, seed=0, compute=COMPUTE)
        for name, task in tasks.items()
    }


@pytest.fixture(scope="session")
def cache(tasks: dict[str, Task], trunk: Trained, teachers: dict[str, Trained]) -> FeatureCache:
    features = {
        name: compute_features(BACKBONE, teachers[name], task, images=64, seed=0, compute=COMPUTE)
        for name, task in tasks.items()
    }
    return build_cache(BACKBONE, trunk, features, input_size=8)
