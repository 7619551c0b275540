import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from partitioning.sharing import (
    SharingMatrixError,
    check_sharing_matrix,
    matrix_to_vector,
    pairwise_bounds,
    realised,
    refine,
    refine_backward,
    round_to_channels,
    unrefine,
    vector_to_matrix,
)

fractions = st.floats(0, 1)


@st.composite
def sharing_matrices(draw, num_tasks=None):
    tasks = num_tasks or draw(st.integers(1, 6))
    return vector_to_matrix(
        draw(arrays(float, tasks * (tasks + 1) // 2, elements=fractions)), tasks
    )


@st.composite
def masks(draw, min_tasks=1):
    shape = (draw(st.integers(min_tasks, 5)), draw(st.integers(1, 12)))
    return draw(arrays(bool, shape))


def off_diagonal(matrix):
    return matrix[~np.eye(len(matrix), dtype=bool)]


@given(sharing_matrices())
def test_refined_entries_lie_within_the_pairwise_bounds(raw):
    target = refine(raw)
    assert np.array_equal(np.diag(target), np.diag(raw))
    assert np.array_equal(target, target.T)
    for i in range(len(raw)):
        for j in range(len(raw)):
            if i != j:
                assert target[i, j] <= min(raw[i, i], raw[j, j])
                assert target[i, j] >= 0
                assert target[i, j] >= raw[i, i] + raw[j, j] - 1 - 1e-12


@given(sharing_matrices())
def test_raw_zero_is_the_least_and_raw_one_the_most_that_pairs_can_share(raw):
    use = np.diag(raw)
    P_min, P_max = pairwise_bounds(use)
    for value, bound in ((0.0, P_min), (1.0, P_max)):
        corner = np.full_like(raw, value)
        np.fill_diagonal(corner, use)
        assert np.allclose(off_diagonal(refine(corner)), off_diagonal(bound), atol=1e-15, rtol=0)


def test_two_tasks_reach_both_bounds_with_masks():
    P_min, P_max = pairwise_bounds([0.75, 0.5])
    apart = np.array([[1, 1, 1, 0], [0, 0, 1, 1]], dtype=bool)
    together = np.array([[1, 1, 1, 0], [1, 1, 0, 0]], dtype=bool)
    assert realised(apart)[0, 1] == P_min[0, 1]
    assert realised(together)[0, 1] == P_max[0, 1]


def test_the_least_overlap_never_exceeds_the_most_by_rounding():
    # 1.0 + 0.3 - 1 = 0.30000000000000004 in floating point
    P_min, P_max = pairwise_bounds([1.0, 0.3])
    assert P_min[0, 1] == P_max[0, 1] == 0.3


@given(sharing_matrices())
def test_unrefine_is_a_right_inverse_of_refine(raw):
    target = refine(raw)
    assert np.allclose(refine(unrefine(target)), target, atol=1e-12, rtol=0)


@given(masks())
def test_every_realised_matrix_can_be_unrefined(masks_TC):
    P = realised(masks_TC)
    assert np.allclose(refine(unrefine(P)), P, atol=1e-12, rtol=0)


def test_unrefine_gives_one_where_a_pair_has_no_choice():
    assert unrefine([[1.0, 0.5], [0.5, 0.5]])[0, 1] == 1.0
    assert unrefine([[0.0, 0.0], [0.0, 0.5]])[0, 1] == 1.0


@pytest.mark.parametrize("overlap", [0.2, 0.55])
def test_unrefine_refuses_what_no_pair_can_share_and_names_it(overlap):
    with pytest.raises(
        SharingMatrixError, match=r"P\[seen, read\] must lie between 0\.25\d* and 0\.5"
    ):
        unrefine([[0.75, overlap], [overlap, 0.5]], tasks=["seen", "read"])


@given(masks())
def test_realised_counts_channels(masks_TC):
    P = realised(masks_TC)
    tasks, channels = masks_TC.shape
    for i in range(tasks):
        for j in range(tasks):
            both = sum(1 for c in range(channels) if masks_TC[i, c] and masks_TC[j, c])
            assert P[i, j] == both / channels


@pytest.mark.parametrize(
    "masks_RC", [np.ones((2, 3)), np.ones(3, dtype=bool), np.ones((2, 0), dtype=bool)]
)
def test_realised_refuses_what_are_no_masks(masks_RC):
    with pytest.raises(SharingMatrixError, match="boolean"):
        realised(masks_RC)


@given(masks(min_tasks=2), st.data())
def test_backward_targets_lie_between_what_forward_masks_leave(forward_TC, data):
    tasks = len(forward_TC)
    raw = data.draw(sharing_matrices(tasks))
    F = realised(forward_TC)
    target = refine_backward(raw, F)
    own = np.diag(raw) * np.diag(F)
    assert np.array_equal(np.diag(target), own)
    assert np.array_equal(target, target.T)
    for i in range(tasks):
        for j in range(i):
            union = (forward_TC[i] | forward_TC[j]).mean()
            assert target[i, j] <= min(own[i], own[j], F[i, j]) + 1e-12
            assert target[i, j] >= max(0.0, own[i] + own[j] - union) - 1e-12


@given(masks(min_tasks=2), st.data())
def test_backward_bounds_are_reached_by_backward_masks(forward_TC, data):
    """Brute force over a pair: the bounds are the extremes over all backward masks of that size."""
    first, second = forward_TC[:2]
    channels = len(first)
    sizes = [data.draw(st.integers(0, int(row.sum()))) for row in (first, second)]
    F = realised(forward_TC[:2])
    corners = []
    for raw_overlap in (0.0, 1.0):
        raw = np.full((2, 2), raw_overlap)
        for task, size in enumerate(sizes):
            raw[task, task] = size / max(1, forward_TC[task].sum())
        corners.append(refine_backward(raw, F)[0, 1] * channels)
    # Backward masks of these sizes overlap least when they avoid the common channels, most when
    # they begin with them.
    common, own = (
        int((first & second).sum()),
        [int((row & ~other).sum()) for row, other in ((first, second), (second, first))],
    )
    in_common = [max(0, size - alone) for size, alone in zip(sizes, own, strict=True)]
    least = max(0, sum(in_common) - common)
    most = min(*sizes, common)
    assert corners == pytest.approx([least, most], abs=1e-9)


def test_all_ones_let_every_task_change_all_that_it_reads():
    forward_TC = np.array([[1, 1, 1, 0], [0, 1, 1, 1], [1, 0, 0, 0]], dtype=bool)
    F = realised(forward_TC)
    assert np.array_equal(refine_backward(np.ones((3, 3)), F), F)


def test_backward_sizes_must_agree():
    with pytest.raises(SharingMatrixError, match=r"\(2, 2\) and \(3, 3\)"):
        refine_backward(np.ones((2, 2)), np.ones((3, 3)))


@given(sharing_matrices())
def test_vectors_and_matrices_are_the_same_thing(P):
    vector = matrix_to_vector(P)
    assert vector.shape == (len(P) * (len(P) + 1) // 2,)
    assert np.array_equal(vector_to_matrix(vector, len(P)), P)
    assert np.array_equal(vector[: len(P)], np.diag(P))


def test_vectors_of_another_length_are_refused():
    with pytest.raises(SharingMatrixError, match=r"= \(6,\) for T = 3 tasks, got \(5,\)"):
        vector_to_matrix(np.zeros(5), 3)


@pytest.mark.parametrize(
    ("entry", "value", "message"),
    [
        ((0, 1), np.nan, r"in \[0, 1\], got P\[cats, dogs\] = nan"),
        ((1, 1), 1.5, r"in \[0, 1\], got P\[dogs, dogs\] = 1\.5"),
        ((1, 0), -0.1, r"in \[0, 1\], got P\[dogs, cats\] = -0\.1"),
        ((1, 0), 0.4, r"symmetric, got P\[cats, dogs\] = 0\.5 but P\[dogs, cats\] = 0\.4"),
    ],
)
def test_wrong_entries_are_named(entry, value, message):
    P = np.full((2, 2), 0.5)
    P[entry] = value
    with pytest.raises(SharingMatrixError, match=message):
        check_sharing_matrix(P, tasks=["cats", "dogs"])
    with pytest.raises(SharingMatrixError, match=r"P\[[01], [01]\]"):
        check_sharing_matrix(P)


@pytest.mark.parametrize(
    ("P", "message"),
    [
        (np.zeros((2, 3)), r"square.*\(2, 3\)"),
        (np.zeros(4), r"square.*\(4,\)"),
        (np.zeros((0, 0)), "at least one task"),
        ([["a"]], "numbers"),
        ([[0.1, 0.2], [0.3]], "numbers"),
        (np.zeros((3, 3)), r"\(2, 2\) for the tasks \['cats', 'dogs'\], got shape \(3, 3\)"),
    ],
)
def test_wrong_shapes_are_refused(P, message):
    with pytest.raises(SharingMatrixError, match=message):
        check_sharing_matrix(P, tasks=["cats", "dogs"])


def test_rounding_errors_pass_and_the_input_stays_as_it_is():
    P = np.array([[1 + 1e-12, 0.5], [0.5 + 1e-12, 0.5]])
    before = P.copy()
    checked = check_sharing_matrix(P)
    assert checked[0, 0] == 1.0
    assert checked[0, 1] == checked[1, 0]
    assert np.array_equal(P, before)


@given(sharing_matrices(), st.integers(1, 2048))
def test_rounding_is_to_the_nearest_channel(P, channels):
    goal = round_to_channels(P, channels)
    assert (np.abs(goal - P * channels) <= 0.5 + 1e-9).all()
    assert np.array_equal(goal, round_to_channels(np.clip(P + 1e-16, 0, 1), channels))
