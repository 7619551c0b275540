"""How alike tasks are, by their teachers."""

import numpy as np
import pytest

from trainers.similarity import linear_cka


def test_cka_is_that_of_the_definition() -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=(20, c)).astype(np.float32) for c in (3, 5, 4)]
    found_TT = linear_cka(arrays)
    centred = [a - a.mean(axis=0) for a in arrays]
    for i, x in enumerate(centred):
        for j, y in enumerate(centred):
            expected = np.linalg.norm(y.T @ x) ** 2
            expected /= np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
            assert found_TT[i, j] == pytest.approx(expected, rel=1e-5)


def test_cka_sees_through_rotation_scale_and_shift() -> None:
    rng = np.random.default_rng(0)
    x_NC = rng.normal(size=(50, 4))
    rotation_CC = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    other_NC = rng.normal(size=(50, 4))
    arrays = [a.astype(np.float32) for a in (x_NC, 3 * x_NC @ rotation_CC + 7, other_NC)]
    found_TT = linear_cka(arrays)
    assert found_TT[0, 1] == pytest.approx(1.0, abs=1e-5)
    assert found_TT[0, 2] < 0.3


def test_features_that_do_not_vary_are_like_nothing() -> None:
    varied = np.arange(6, dtype=np.float32).reshape(3, 2)
    constant = np.ones((3, 2), dtype=np.float32)
    assert linear_cka([varied, constant]).tolist() == [[1.0, 0.0], [0.0, 1.0]]
