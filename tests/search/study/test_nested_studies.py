"""Studies of nested spaces from a config to exported networks, with the proxy in this process."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from partitioning import Masks, VirtualNetwork
from search.arms.loop import Arm, Budget
from search.arms.scoring import Scored
from search.calibration.choice import draw
from search.candidates import Candidate, Rung
from search.commands.page import write_study_page
from search.config import StudyConfig, parse_config
from search.mirror.shown import metrics, params, tags
from search.record import Record
from search.report import front_figure, front_table
from search.strategies import Outcome, Strategy, TaskKnowledge
from search.study import (
    Foundation,
    Study,
    baseline_names,
    baselines,
    build_foundation,
    build_space,
    build_strategy,
    check_strategies,
    feature_cache,
    run_here,
)
from trainers.export import export_networks
from trainers.joint import train_jointly, trained_network
from trainers.proxy import DivergedError, Evaluation, FeatureCache, Proxy

SPACES: dict[str, dict[str, Any]] = {
    "orders": {"kind": "unit_order"},
    "orders_in_levels": {"kind": "unit_order", "per_group": True, "levels": [0.5, 1]},
    "block_levels": {"kind": "block_level", "use": [0, 1]},
    "block_levels_in_levels": {"kind": "block_level", "units": 2, "levels": [0.5, 1]},
}
STRATEGIES: dict[str, dict[str, Any]] = {
    "baselines": {},
    "random": {},
    "es": {"directions": 2, "realisable": True, "diagonal_l2": [0.1]},
    "policy_gradient": {"cost_weights": [0.0, 0.3], "samples": 3, "use": "vector"},
}


def tiny(output: Path, **changed: Any) -> StudyConfig:
    base: dict[str, Any] = {
        "name": "tiny",
        "output": str(output),
        "input_size": 8,
        "tasks": [{"name": n, "source": "toy", "limit": 100} for n in ("digits", "colours")],
        "backbone": {"model": "resnet14", "args": {"width": 4}},
        "trunk": {
            "dataset": {"name": "glyphs", "source": "toy", "limit": 100},
            "sgd": {"steps": 5, "batch_size": 16},
        },
        "teachers": {"sgd": {"steps": 5, "batch_size": 16}},
        "proxy": {
            "images": 32,
            "norm_images": 16,
            "sgd": {"steps": 8, "batch_size": 4, "learning_rate": 0.1, "momentum": 0.0},
        },
        "train": {"sgd": {"steps": 8, "batch_size": 8}},
        "strategies": STRATEGIES,
        "candidates": 8,
        "initial": 3,
        "compute": {"device": "cpu", "threads": 1},
    }
    return parse_config(base | changed)


@pytest.fixture(scope="module")
def supplies(tmp_path_factory: pytest.TempPathFactory) -> tuple[Foundation, FeatureCache]:
    torch.set_num_threads(1)
    config = tiny(tmp_path_factory.mktemp("cache"))
    base = build_foundation(config, run_here, lambda line: None)
    return base, feature_cache(config, base, run_here, lambda line: None)


class Monitored:
    """A strategy, and what it is told."""

    def __init__(self, strategy: Strategy, heard: list[Outcome]) -> None:
        self._strategy, self._heard = strategy, heard

    def ask(self, n: int) -> list[NDArray[np.float64]]:
        return self._strategy.ask(n)

    def tell(self, outcomes: Sequence[Outcome]) -> None:
        self._heard.extend(outcomes)
        self._strategy.tell(outcomes)


class ProxyPool:
    """One evaluator, in this process."""

    evaluators = slots = 1

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._results: list[tuple[int, list[Scored]]] = []

    def submit(self, ticket: int, cohort: Sequence[Masks], rung: Rung) -> None:
        scores = [
            Scored(error=str(result))
            if isinstance(result, DivergedError)
            else Scored(evaluation=result)
            for result in self._proxy.score(cohort)
        ]
        self._results.append((ticket, scores))

    def wait(self) -> tuple[int, list[Scored]]:
        return self._results.pop(0)


def run_arm(
    config: StudyConfig, name: str, cache: FeatureCache, record: Record
) -> tuple[list[Candidate], list[Outcome]]:
    """Runs an arm as the scheduler does; what the record has of it, and what its strategy heard."""
    space = build_space(config)
    vectors = baselines(config, space, 0)
    strategy = build_strategy(config, name, 0, space, vectors)
    heard: list[Outcome] = []
    monitored = Monitored(strategy, heard)
    arm = Arm(
        name=name, seed=0, strategy=monitored, space=space,
        pool=ProxyPool(Proxy(cache, config.proxy, config.compute)),
        budget=Budget(candidates=config.candidates, cohort=3), ladder=config.ladder, cost="use",
        record=record.add, keep=lambda candidate: None, labels=baseline_names(config, name,
        vectors), realisable=True,
    )  # fmt: skip
    arm.run({c.index: c for c in record.candidates(name, 0)}, lambda candidate: None)
    return record.candidates(name, 0), heard


@pytest.mark.parametrize("name", ["orders_in_levels", "block_levels"])
def test_from_a_config_to_exported_networks(
    tmp_path: Path, supplies: tuple[Foundation, FeatureCache], name: str
) -> None:
    base, cache = supplies
    config = tiny(tmp_path, space=SPACES[name])
    levels = range(len(config.space.levels))
    check_strategies(config)
    study = Study.create(config)
    study.keep_facts(TaskKnowledge())
    networks = tuple(
        VirtualNetwork(task=task, level=level) for task in ("digits", "colours") for level in levels
    )
    with Record(study.record_path, study.name) as record:
        for strategy in STRATEGIES:
            recorded, heard = run_arm(config, strategy, cache, record)
            assert len(recorded) == (len(heard) if strategy == "baselines" else 8)
            for candidate, outcome in zip(recorded, heard, strict=True):
                check_candidate(candidate, outcome, networks)
            # What is recorded is told again as it was, and nothing is scored again.
            _, again = run_arm(config, strategy, cache, record)
            assert [o.accuracy.tolist() for o in again] == [o.accuracy.tolist() for o in heard]
    candidates = study.candidates()
    # What whole units, and in a space of block levels first units, cannot realise is left out.
    labels = {candidate.label for candidate in candidates}
    assert {"share_all", "equal_50"} <= labels
    assert "equal_30" not in labels
    assert ("independent" in labels) == (config.space.kind == "unit_order")
    assert len(front_table(candidates)) == len(candidates)
    front_figure(candidates, tmp_path / "front.png")
    trained = study.train("knee", base=base, say=lambda line: None)
    assert set(trained.accuracy[0]["validation"]) == set(map(str, networks))
    exported = study.export("knee", tmp_path / "exported", base=base, say=lambda line: None)
    assert set(exported.checks) == set(map(str, networks))
    page = write_study_page(study, study.candidates()).read_text()
    assert str(tmp_path / "exported") in page


def check_candidate(
    candidate: Candidate, outcome: Outcome, networks: tuple[VirtualNetwork, ...]
) -> None:
    """What a candidate with those virtual networks of two tasks says of itself everywhere."""
    assert candidate.error is None
    masks = candidate.masks
    assert masks.networks == networks
    assert list(candidate.accuracy) == list(map(str, networks))
    accuracies = np.array(list(candidate.accuracy.values()))
    assert candidate.quality == pytest.approx(accuracies.mean())
    assert candidate.cost == pytest.approx(masks.mean_use())
    # Nothing was solved for, so nothing is said of how well.
    decoding = candidate.decoding
    assert decoding is not None
    assert not decoding.deviation
    assert not decoding.bound
    assert not decoding.target
    assert decoding.proven is None
    assert outcome.accuracy == pytest.approx(accuracies.reshape(2, -1).mean(axis=1))
    assert outcome.realisable is not None
    assert metrics(candidate)["mean_overlap"] >= 0
    assert len(params(candidate)) == 3 + len(candidate.vector)
    assert "proven" not in tags(candidate, front=False)


@pytest.mark.parametrize("name", SPACES)
def test_candidates_of_a_calibration_are_spread_over_use(tmp_path: Path, name: str) -> None:
    config = tiny(tmp_path, space=SPACES[name])
    space = build_space(config)
    uses = [space.decode(v).masks.mean_use() for v in draw(space, 16, 0)]
    least, most = (space.decode(np.full(space.dim, use)).masks.mean_use() for use in (0, 1))
    assert min(uses) < least + 0.25 * (most - least)
    assert max(uses) > most - 0.25 * (most - least)


def test_a_task_that_skips_every_block_is_scored_trained_and_exported(
    tmp_path: Path, supplies: tuple[Foundation, FeatureCache]
) -> None:
    base, cache = supplies
    config = tiny(tmp_path, space=SPACES["block_levels"])
    space = build_space(config)
    vector = np.zeros(space.dim)
    vector[space.names().index("stage3.0.conv1/use[colours]")] = 1.0
    masks = space.decode(vector).masks
    assert masks.use().tolist() == [0.0, 0.5]
    (scored,) = Proxy(cache, config.proxy, config.compute).score([masks])
    assert isinstance(scored, Evaluation)
    assert scored.costs.use == {"digits": 0.0, "colours": 0.5}
    trained = train_jointly(
        masks, base.tasks, base.trunk, base.teachers, config.train,
        backbone=config.backbone, seed=0, compute=config.compute,
    )  # fmt: skip
    network = trained_network(
        trained.state, masks, base.tasks, base.trunk, base.teachers, config.network
    )
    assert set(export_networks(network, base.tasks, tmp_path).checks) == {"digits", "colours"}
