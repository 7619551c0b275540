"""What an arm has found after so many candidates or seconds, by hand and brute force."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.candidates import Candidate, study_hypervolume
from search.comparison.arm_curves import arm_curve, attainment, idle_share, shortfall
from tests.helpers.candidates import measurement
from tests.helpers.comparisons import REFERENCE, make


class TestCurve:
    def test_by_hand(self) -> None:
        rungs = (measurement(0.2, seconds=1.0), measurement(0.6, seconds=3.0))
        arm = [
            make(0.5, 0.5, index=0),
            make(None, None, index=1),
            make(0.4, 0.6, index=2),
            make(0.9, 0.5, index=3, stopped=True, rungs=rungs[:1]),
            make(0.6, 0.5, index=4, rungs=rungs),
        ]
        curve = arm_curve(arm[::-1], REFERENCE)  # finished in the opposite order of asking
        assert curve.volume_K == pytest.approx([0.25, 0.25, 0.25, 0.25, 0.3])
        assert curve.seconds_K.tolist() == [2, 2, 4, 5, 9]
        assert (curve.failed, curve.stopped, curve.volume, curve.seconds) == (1, 1, 0.3, 9)
        assert curve.area == pytest.approx(1.3 / 5)
        after = curve.after(np.array([0, 1.9, 2, 8.9, 9, 99]))
        assert after == pytest.approx([0, 0, 0.25, 0.25, 0.3, 0.3])
        assert curve.front_F2.tolist() == [[0.5, 0.6]]

    @settings(deadline=None, max_examples=30)
    @given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1.2)), min_size=1, max_size=10))
    def test_rises_to_the_hypervolume(self, points: list[tuple[float, float]]) -> None:
        arm = [make(q, c, index=i) for i, (q, c) in enumerate(points)]
        curve = arm_curve(arm, REFERENCE)
        assert (np.diff(curve.volume_K) >= -1e-12).all()
        for count in range(1, len(arm) + 1):
            expected = study_hypervolume(arm[:count], REFERENCE)
            assert curve.volume_K[count - 1] == pytest.approx(expected)

    def test_idle_share(self) -> None:
        def scored(index: int, name: str, begin: float, end: float) -> Candidate:
            rungs = (measurement(0.5, seconds=6.0, evaluator=name),)
            return make(0.5, index=index, rungs=rungs, started=begin, finished=end)

        # Two evaluators over 20 and 10 seconds; the break between them is nobody's time.
        arm = [scored(0, "a", 0, 8), scored(1, "a", 5, 20), scored(2, "b", 1000, 1010)]
        assert idle_share(arm) == pytest.approx(1 - 18 / 30)
        assert math.isnan(idle_share([make(0.5)]))
        assert math.isnan(idle_share([scored(0, "a", 0, 1)]))  # simulated seconds


class TestAttainment:
    @settings(deadline=None, max_examples=50)
    @given(st.integers(0, 10**6), st.integers(1, 6), st.sampled_from([0, 0.3, 0.5, 1]))
    def test_by_brute_force(self, seed: int, count: int, share: float) -> None:
        draws = np.random.default_rng(seed)
        fronts = [draws.integers(0, 6, (draws.integers(0, 5), 2)) / 5 for _ in range(count)]
        needed = max(1, math.ceil(share * count))
        corners = attainment(fronts, share)
        assert (np.diff(corners[:, 0]) > 0).all()
        for cost in np.arange(6) / 5:
            best = [max((q for c, q in f if c <= cost), default=-1) for f in fronts]
            expected = sorted(best, reverse=True)[needed - 1]
            found = max((q for c, q in corners if c <= cost), default=-1)
            assert found == pytest.approx(expected)

    def test_shortfall(self) -> None:
        pooled = np.array([[0.2, 0.5], [0.6, 0.9]])
        assert shortfall(pooled, pooled) == 0
        assert shortfall(pooled - [0, 0.1], pooled) == pytest.approx(0.1)
        assert shortfall(pooled[:1], pooled) == pytest.approx(0.4)
        assert shortfall(pooled[1:], pooled) == pytest.approx(0.4)
        assert shortfall(pooled[:0], pooled) == math.inf
