"""What `calibrate` says of the surrogate of nine tasks: trusted, and use alone is not."""

import numpy as np
import pytest

from benchmarks.calibration_verdict import Realistic, lower_end

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def scores() -> Realistic:
    return Realistic()


@pytest.mark.parametrize(("use_of_a_task", "trusted"), [(False, range(3, 5)), (True, range(2))])
def test_the_surrogate_of_nine_tasks(
    scores: Realistic, use_of_a_task: bool, trusted: range
) -> None:
    lows = [
        lower_end(
            scores.draw(48, seed, use_of_a_task=use_of_a_task), np.random.default_rng(seed), 500
        )
        for seed in range(4)
    ]
    assert sum(low >= 0 for low in lows) in trusted
