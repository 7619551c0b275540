"""Whole searches on a real Ray, to the end."""

import collections
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from partitioning import Masks
from search.commands.search import search
from search.commands.sync import sync
from search.config import StudyConfig
from search.study import StudyError, build_foundation, run_here
from tests.helpers.studies import EXPECTED, accounted, mirrored, quiet, tiny
from trainers.joint import train_jointly

# Ray starts and ends processes of its own in this one.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")


def test_from_a_config_to_an_exported_winner(tmp_path: Path, cache: Path, cluster: None) -> None:
    config = tiny(
        tmp_path, cache=str(cache), finish={"pick": "knee", "seeds": 2}, schedule={"cohort": 2}
    )
    study = search(config, console=quiet())
    assert accounted(study) == EXPECTED
    summary = study.summary()
    assert summary["candidates"] == 50
    assert summary["failed"] == 0
    assert 0 < summary["hypervolume"] < 1.1
    assert summary["hypervolume"] >= max(s["hypervolume"] for s in summary["strategies"].values())
    assert mirrored(study) == sorted(c.id for c in study.candidates())
    for name in ("front.csv", "front.png", "front.html"):
        assert (study.folder / name).stat().st_size > 100
    share_all = next(c for c in study.candidates() if c.label == "share_all")
    assert share_all.cost == 1.0
    knee = study.pick("knee")
    assert study.pick("best").quality == max(c.quality or 0 for c in study.candidates())
    trained = study.train("knee", seeds=2, run=_no_jobs)
    assert len(trained.accuracy) == 2
    assert not np.isnan(trained.std["validation"])
    exported = study.folder / "exported" / knee.id
    images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    for task in ("digits", "colours", "gratings"):
        program = torch.export.load(exported / task / "network.pt2").module()
        assert program(images).shape[0] == 2
    assert Masks.load(exported / "masks.json") == study.masks(knee)
    with pytest.raises(StudyError, match="already holds this study with 50 candidates"):
        search(config, console=quiet())
    with pytest.raises(StudyError, match=r"another study.*\n  proxy\.sgd\.steps: 12 in the study"):
        search(replace_steps(config), resume=True, console=quiet())
    sync(study)
    assert mirrored(study) == sorted(c.id for c in study.candidates())


@pytest.mark.slow
def test_rungs_up_to_a_short_training(tmp_path: Path, cache: Path, cluster: None) -> None:
    rungs = [
        {"steps": 4, "keep": 0.5},
        {"steps": 12, "keep": 0.5},
        {"fidelity": "full", "steps": 10},
    ]
    config = tiny(
        tmp_path, cache=str(cache), rungs=rungs, bracket=8, schedule={"cohort": 3, "evaluators": 2}
    )
    study = search(config, console=quiet())
    assert accounted(study) == EXPECTED
    candidates = study.candidates()
    summary = study.summary()
    assert summary["failed"] == 0
    # Every bracket of 8 leaves 4, then 2.
    reached = collections.Counter((c.strategy, len(c.rungs)) for c in candidates)
    assert {n: reached["random", n] for n in (1, 2, 3)} == {1: 12, 2: 6, 3: 6}
    assert reached["baselines", 3] == 2, "baselines are never stopped"
    final = [c for c in candidates if not c.stopped]
    assert summary["stopped"] == len(candidates) - len(final) > 0
    assert {c.id for c in final} >= {member["candidate"] for member in summary["front"]}
    for candidate in candidates:
        kinds = [(rung.fidelity, rung.steps) for rung in candidate.rungs]
        assert kinds == [("proxy", 4), ("proxy", 12), ("full", 10)][: len(kinds)]
        assert candidate.quality == candidate.rungs[-1].quality
    # The last score is that of the training that `apportion train` does, cut to 10 steps.
    one = study.pick("knee")
    base = build_foundation(config, run_here, lambda line: None)
    again = train_jointly(
        study.masks(one), base.tasks, base.trunk, base.teachers,
        replace(config.train, sgd=replace(config.train.sgd, steps=10)),
        backbone=config.backbone, seed=0, compute=config.compute,
    )  # fmt: skip
    assert one.accuracy == again.accuracy["validation"]
    assert mirrored(study) == sorted(c.id for c in candidates)
    stopped = next(c for c in candidates if c.stopped)
    with pytest.raises(StudyError, match=f"{stopped.id} was stopped after (4|12) steps"):
        study.pick(stopped.id)


def _no_jobs(function: Any, jobs: Any) -> Iterator[tuple[str, Any]]:
    assert not jobs, "what is trained already is not trained again"
    return iter(())


def replace_steps(config: StudyConfig) -> StudyConfig:
    return replace(config, proxy=replace(config.proxy, sgd=replace(config.proxy.sgd, steps=13)))
