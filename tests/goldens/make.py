"""Goldens: what every strategy proposes first, and some scores of every kind, in files here.

    python -m tests.goldens.make            # says what differs from the files
    python -m tests.goldens.make --write    # makes them anew

A change of these numbers changes every study: make them anew only where that is meant, and say so
in the changelog. The searches are of four synthetic tasks, asked and told in cohorts of five; the
scores of the proxy and of a short full training, of which the norm of all weights says more than
its accuracy, are of two toy tasks. Some proposals depend on the last bits of linear algebra and so
on the processor; the files say which one they were made on.
"""

import argparse
import json
import platform
import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from partitioning import BASELINES, Masks
from search.arms.simulated_pool import SimulatedPool
from search.config import StudyConfig, parse_config
from search.strategies import STRATEGIES, Outcome
from search.study import (
    baselines,
    build_foundation,
    build_space,
    build_strategy,
    feature_cache,
    run_here,
)
from trainers.joint import TrainResult, train_jointly
from trainers.proxy import SCORING_VERSION, distill

HERE = Path(__file__).parent
VECTORS = 40
#: Of a strategy of a second per proposal: its first batch of models.
FEW = {"gp": 24, "gp_uniform": 24}
COHORT = 5
#: Strategies in forms that are not the default, beside every kind as it is.
VARIANTS: dict[str, dict[str, Any]] = {
    "es_per_task": {"kind": "es", "per_task": True},
    "random_uniform": {"kind": "random", "uniform": True},
    "sobol_uniform": {"kind": "sobol", "uniform": True},
    "nsga2_uniform": {"kind": "nsga2", "uniform": True},
    "nsga3_uniform": {"kind": "nsga3", "uniform": True},
    "cma_es_uniform": {"kind": "cma_es", "uniform": True},
    "tpe_uniform": {"kind": "tpe", "uniform": True},
    "gp_uniform": {"kind": "gp", "uniform": True},
    "policy_gradient_continuous": {"kind": "policy_gradient", "distribution": "continuous"},
}
#: Those whose proposals are the outcome of an optimiser over linear algebra.
FRAGILE = ("cma_es", "cma_es_uniform", "gp", "gp_uniform", "task_models")
#: Costs that are held against sharing every channel.
RELATIVE = ("parameters", "macs", "union")
#: The first candidates of a search, which no strategy chooses.
INITIAL = 8


def search_config() -> StudyConfig:
    """Four synthetic tasks and all strategies."""
    kinds: dict[str, dict[str, Any]] = {name: {} for name in STRATEGIES}
    return parse_config(
        {
            "name": "goldens",
            "evaluator": "simulated",
            "tasks": [{"name": f"task{i}"} for i in range(4)],
            "backbone": {"model": "resnet14", "args": {"width": 4}},
            "strategies": kinds | VARIANTS,
            "initial": INITIAL,
        }
    )


def proposals(config: StudyConfig, name: str) -> list[list[float]]:
    """The first vectors of a strategy, shape (up to `VECTORS`, d)."""
    number = FEW.get(name, VECTORS)
    space = build_space(config)
    strategy = build_strategy(
        config, name, 0, space, baselines(config, space, 0), config.simulated.knowledge
    )
    pool = SimulatedPool(config)
    found: list[np.ndarray] = []
    while len(found) < number:
        asked = strategy.ask(min(COHORT, number - len(found)))
        if not asked:
            break
        decoded = [space.decode(vector) for vector in asked]
        pool.submit(0, [d.masks for d in decoded], config.ladder[0])
        outcomes = []
        for vector, each, scored in zip(asked, decoded, pool.wait()[1], strict=True):
            evaluation = scored.evaluation
            assert evaluation is not None
            outcomes.append(
                Outcome(
                    index=len(found),
                    vector=vector,
                    quality=evaluation.quality,
                    cost=evaluation.costs.mean_use,
                    realisable=each.realisable,
                    accuracy=np.array(list(evaluation.accuracy.values())),
                )
            )
            found.append(vector)
        strategy.tell(outcomes)
    return [[round(float(entry), 12) for entry in vector] for vector in found]


def scores() -> dict[str, dict[str, Any]]:
    """What the proxy says of the baselines of two toy tasks."""
    with tempfile.TemporaryDirectory() as folder:
        sgd = {"steps": 20, "batch_size": 16}
        config = parse_config(
            {
                "name": "goldens",
                "output": folder,
                "input_size": 16,
                "tasks": [{"name": n, "source": "toy"} for n in ("digits", "gratings")],
                "backbone": {"model": "resnet14", "args": {"width": 4}},
                "trunk": {"dataset": {"name": "glyphs", "source": "toy"}, "sgd": sgd},
                "teachers": {"sgd": sgd},
                "proxy": {"images": 64, "sgd": {"steps": 20, "batch_size": 4}},
                "strategies": {"random": {}},
                "train": {"recipe": "paper", "sgd": {"steps": 40, "batch_size": 16}},
                "compute": {"device": "cpu", "threads": 1},
            }
        )
        torch.set_num_threads(1)
        base = build_foundation(config, run_here, lambda line: None)
        cache = feature_cache(config, base, run_here, lambda line: None)
        cohort, found = _baseline_masks(config, 2), {}
        results = distill(list(cohort.values()), cache, config.proxy, config.compute)
        for (name, masks), score in zip(cohort.items(), results, strict=True):
            assert not isinstance(score, Exception)
            trained = train_jointly(
                masks,
                base.tasks,
                base.trunk,
                base.teachers,
                config.train,
                backbone=config.backbone,
                seed=0,
                compute=config.compute,
            )
            found[name] = {
                "accuracy": _rounded(score.accuracy),
                "loss": {k: round(v, 6) for k, v in score.distillation_loss.items()},
                "trained": _rounded(trained.accuracy["validation"] | {"norm": _norm(trained)}),
                "costs": _rounded(
                    {f"relative_{k}": getattr(score.costs, f"relative_{k}") for k in RELATIVE}
                ),
            }
        return found


def simulated_scores() -> dict[str, dict[str, float]]:
    """What the simulated problem says of the baselines: accuracy by baseline and task."""
    config, found = search_config(), {}
    pool = SimulatedPool(config)
    for name, masks in _baseline_masks(config, 4).items():
        pool.submit(0, [masks], config.ladder[0])
        evaluation = pool.wait()[1][0].evaluation
        assert evaluation is not None
        found[name] = _rounded(evaluation.accuracy)
    return found


def _baseline_masks(config: StudyConfig, tasks: int) -> dict[str, Masks]:
    """Masks of the baselines that the space has, by name."""
    space, found = build_space(config), dict[str, Masks]()
    width, rng = config.network.groups[0].width, np.random.default_rng(0)
    for name, build in BASELINES.items():
        try:
            vector = space.encode(build(tasks, width, rng))
        except ValueError:  # outside the space
            continue
        found[name] = space.decode(vector).masks
    return found


def _norm(trained: TrainResult) -> float:
    """Euclidean norm of all weights."""
    squares = [tensor.double().square().sum() for tensor in trained.state.values()]
    return float(torch.stack(squares).sum().sqrt())


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {name: round(float(value), 12) for name, value in values.items()}


def processor() -> str:
    """What the last bits of a result depend on."""
    flags = torch.backends.cpu.get_cpu_capability()
    return f"{platform.machine()} {flags}, torch {torch.__version__}, numpy {np.__version__}"


def make() -> dict[str, Any]:
    """Both goldens by file name."""
    config = search_config()
    return {
        "strategies.json": {
            "processor": processor(),
            "vectors": {name: proposals(config, name) for name in config.strategies},
        },
        "proxy.json": {
            "processor": processor(),
            "scoring_version": SCORING_VERSION,
            "scores": scores(),
            "simulated": simulated_scores(),
        },
    }


def text(content: dict[str, Any]) -> str:
    """JSON with a vector or a score a line."""
    lines = json.dumps(content, indent=1)
    return re.sub(r"\n {4,}|\n {3}(?=[]}])", " ", lines) + "\n"


def main() -> int:
    """Compare, or write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="make the files anew")
    write = parser.parse_args().write
    status = 0
    for name, content in make().items():
        path = HERE / name
        if write:
            before = json.loads(path.read_text())
            if before.get("scores") != json.loads(text(content)).get("scores") and (
                before.get("scoring_version") == SCORING_VERSION
                and before["processor"] == processor()
            ):
                print(f"{path} is left: scores change, so raise trainers.proxy.SCORING_VERSION")
                return 1
            path.write_text(text(content))
            print(f"wrote {path}")
        elif json.loads(path.read_text()) != json.loads(text(content)):
            print(f"{path} differs")
            status = 1
        else:
            print(f"{path} is the same")
    return status


if __name__ == "__main__":
    sys.exit(main())
