"""Proposals and scores are those of the goldens, which `tests/goldens/make.py` made."""

import json

import numpy as np
import pytest

from search.strategies import STRATEGIES
from tests.goldens.make import (
    FRAGILE,
    HERE,
    INITIAL,
    processor,
    proposals,
    scores,
    search_config,
    simulated_scores,
)
from trainers.proxy import SCORING_VERSION

VECTORS = json.loads((HERE / "strategies.json").read_text())
SCORES = json.loads((HERE / "proxy.json").read_text())


def test_every_strategy_has_a_golden() -> None:
    assert VECTORS["vectors"].keys() >= STRATEGIES.keys()


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name.startswith("gp") else ())
        for name in VECTORS["vectors"]
    ],
)
def test_proposals(name: str) -> None:
    found, golden = proposals(search_config(), name), VECTORS["vectors"][name]
    if name in FRAGILE and processor() != VECTORS["processor"]:
        found, golden = found[:INITIAL], golden[:INITIAL]
    np.testing.assert_allclose(found, golden, rtol=0, atol=1e-9)


def test_scores() -> None:
    found, golden = scores(), SCORES["scores"]
    assert SCORES["scoring_version"] == SCORING_VERSION, "make the goldens anew"
    assert found.keys() == golden.keys()
    same = processor() == SCORES["processor"]
    for name, score in found.items():
        for key in ("accuracy", "loss", "trained"):
            assert score[key] == pytest.approx(
                golden[name][key], abs=1e-6 if same else 0.02, rel=1e-6 if same else 0.02
            ), "where scores change on purpose, raise SCORING_VERSION and make the goldens anew"
        assert score["trained"]["norm"] == pytest.approx(golden[name]["trained"]["norm"], rel=1e-3)
        assert score["costs"] == pytest.approx(golden[name]["costs"])


def test_simulated_scores() -> None:
    found, golden = simulated_scores(), SCORES["simulated"]
    assert found.keys() == golden.keys()
    for name, accuracy in found.items():
        assert accuracy == pytest.approx(golden[name], abs=1e-9)
