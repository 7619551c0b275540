"""Scores of the proxy: repeats, cohorts, steps, seeds, and candidates that diverge."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

import trainers.proxy.proxy as proxy_module
from partitioning import Masks
from tests.helpers.masks import full_masks
from tests.helpers.small_networks import (
    BACKBONE,
    COMPUTE,
    GROUPS,
    NAMES,
    PROXY,
    candidate,
    score,
)
from trainers.proxy import DivergedError, Evaluation, FeatureCache, Proxy, ProxyConfig, distill
from trainers.teachers import Trained


def test_every_repeat_has_mini_batches_of_its_own(cache: FeatureCache) -> None:
    proxy = Proxy(cache, PROXY, COMPUTE)
    once, *_ = proxy.score([candidate(0)])
    losses = [proxy._train([candidate(0)], PROXY, repeat)[1][0] for repeat in range(3)]
    assert isinstance(once, Evaluation)
    # The first of them is the training that a single score is of.
    assert np.allclose(losses[0], list(once.distillation_loss.values()))
    assert not np.allclose(losses[0], losses[1])
    assert not np.allclose(losses[1], losses[2])
    assert once.quality_std is None


def test_a_score_of_repeats_is_their_mean_and_has_their_spread(
    cache: FeatureCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    accuracy_SKR = np.array([[[0.5, 0.7], [0.1, 0.1]], [[0.7, 0.9], [0.1, 0.1]]])
    loss_SKR = np.array([[[1.0, 2.0], [3.0, 3.0]], [[2.0, 4.0], [3.0, np.nan]]])
    monkeypatch.setattr(
        Proxy,
        "_train",
        lambda self, cohort, config, repeat: (accuracy_SKR[repeat], loss_SKR[repeat]),
    )
    cohort = [candidate(0, use=0.9), candidate(1, use=0.3)]  # as they are sorted
    first, second = distill(cohort, cache, replace(PROXY, repeats=2), COMPUTE)
    # A cohort is trained in chunks of one on a CPU: both get the first candidate's numbers.
    assert isinstance(first, Evaluation)
    assert list(first.accuracy.values()) == pytest.approx([0.6, 0.8])
    assert list(first.distillation_loss.values()) == pytest.approx([1.5, 3.0])
    assert first.quality == pytest.approx(0.7)
    assert first.quality_std == pytest.approx(np.std([0.6, 0.8], ddof=1))
    monkeypatch.setattr(proxy_module, "room", lambda device, each, share: 2)
    first, second = distill(cohort, cache, replace(PROXY, repeats=2), COMPUTE)
    assert isinstance(first, Evaluation)
    assert isinstance(second, DivergedError)
    assert "loss of b is not finite" in str(second)


def test_repeats_must_be_at_least_one() -> None:
    with pytest.raises(ValueError, match=r"proxy\.repeats must be at least 1, got 0"):
        ProxyConfig(repeats=0)


def test_side_by_side_scores_are_those_of_each_alone(
    cache: FeatureCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    cohort = [candidate(seed, use=0.2 + 0.05 * seed) for seed in range(6)]
    few = replace(PROXY, sgd=replace(PROXY.sgd, steps=12, learning_rate=0.05))
    alone = [score(masks, cache, few) for masks in cohort]
    sizes = []
    monkeypatch.setattr(proxy_module, "room", lambda device, each, share: 4)
    original = Proxy._train

    def counted(self: Proxy, masks: Sequence[Masks], *rest: object) -> object:
        sizes.append(len(masks))
        return original(self, masks, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Proxy, "_train", counted)
    together = distill(cohort, cache, few, COMPUTE)
    assert sizes == [4, 2]
    for one, other in zip(alone, together, strict=True):
        assert isinstance(other, Evaluation)
        assert other.costs == one.costs
        for name in NAMES:
            assert other.distillation_loss[name] == pytest.approx(
                one.distillation_loss[name], rel=1e-3
            )
            assert other.accuracy[name] == pytest.approx(one.accuracy[name], abs=0.03)


def test_the_size_of_cohorts_follows_the_memory_that_they_took(
    cache: FeatureCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def room(device: torch.device, each: int, share: float) -> int:
        asked.append(each)
        return 2

    peaks = iter([1010, 510, 0])
    monkeypatch.setattr(proxy_module, "room", room)
    monkeypatch.setattr(proxy_module, "start_measuring", lambda device: 10)
    monkeypatch.setattr(proxy_module, "peak_bytes", lambda device: next(peaks))
    few = replace(PROXY, sgd=replace(PROXY.sgd, steps=2))
    proxy = Proxy(cache, few, COMPUTE)
    proxy.score([candidate(seed) for seed in range(5)])
    # First the estimate, then a half of what two candidates took; what cannot be is not believed.
    assert asked[1:] == [500, 250]
    assert asked[0] > 10_000
    assert proxy._room(few, len(NAMES)) == 2
    assert asked[-1] == 250
    assert (proxy.largest_cohort, proxy.peak_bytes) == (2, 1010)
    # It says nothing of other batch sizes.
    proxy._room(replace(few, norm_images=32), len(NAMES))
    assert asked[-1] > 10_000


def test_a_score_may_be_of_fewer_steps(cache: FeatureCache) -> None:
    proxy = Proxy(cache, PROXY, COMPUTE)
    few = replace(PROXY, sgd=replace(PROXY.sgd, steps=6))
    (short,), (long,) = proxy.score([candidate(0)], few), proxy.score([candidate(0)])
    assert isinstance(short, Evaluation)
    assert isinstance(long, Evaluation)
    assert short.distillation_loss == score(candidate(0), cache, few).distillation_loss
    assert long.distillation_loss == score(candidate(0), cache).distillation_loss
    assert long.distillation_loss != short.distillation_loss


def test_distillation_imitates_the_teachers(cache: FeatureCache) -> None:
    full = full_masks(GROUPS, NAMES)
    short = score(full, cache, replace(PROXY, sgd=replace(PROXY.sgd, steps=2)))
    long = score(full, cache, replace(PROXY, sgd=replace(PROXY.sgd, steps=200)))
    assert sum(long.distillation_loss.values()) < 0.7 * sum(short.distillation_loss.values())
    assert long.quality > 0.9
    assert set(long.accuracy) == set(NAMES)


@pytest.mark.parametrize("by_class", [False, True])
def test_a_student_that_is_the_teacher_scores_as_the_teacher(
    cache: FeatureCache, teachers: dict[str, Trained], by_class: bool
) -> None:
    """Also where images are stored class by class: norms are measured over the whole cache."""
    features = cache.tasks["a"]
    # The cached images alternate between the classes.
    order = np.argsort(np.arange(64) % 2, kind="stable") if by_class else np.arange(64)
    reordered = replace(
        features,
        inputs=features.inputs[order],
        targets=tuple(target[order] for target in features.targets),
    )
    single = FeatureCache(
        backbone=BACKBONE,
        input_size=8,
        tasks={"a": reordered},
        tail={n: teachers["a"].state[n].numpy() for n in cache.tail},
    )
    config = replace(PROXY, sgd=replace(PROXY.sgd, steps=10, learning_rate=1e-6), norm_images=32)
    result = score(full_masks(GROUPS, ("a",)), single, config)
    assert result.accuracy["a"] == pytest.approx(teachers["a"].accuracy, abs=0.03)


def test_every_network_needs_a_step(cache: FeatureCache) -> None:
    with pytest.raises(ValueError, match="at least the number of networks, 2"):
        score(candidate(0), cache, replace(PROXY, sgd=replace(PROXY.sgd, steps=1)))


def test_the_proxys_seed_decides_its_batches(cache: FeatureCache) -> None:
    first, again, other = (
        score(candidate(0), cache, replace(PROXY, seed=seed)).distillation_loss
        for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other


def test_scores_do_not_depend_on_the_cohort(cache: FeatureCache) -> None:
    cohort = [candidate(seed) for seed in range(3)]
    together = distill(cohort, cache, PROXY, COMPUTE)
    alone = score(cohort[1], cache)
    assert isinstance(together[1], Evaluation)
    assert together[1].accuracy == alone.accuracy
    assert together[1].distillation_loss == alone.distillation_loss
    assert score(cohort[0], cache).distillation_loss != alone.distillation_loss


def test_divergence_is_an_error_of_the_candidate(cache: FeatureCache) -> None:
    wild = replace(PROXY, sgd=replace(PROXY.sgd, learning_rate=1e6))
    for result in distill([candidate(0), candidate(1)], cache, wild, COMPUTE):
        assert isinstance(result, DivergedError)
        assert "lower proxy.sgd.learning_rate" in str(result)


def test_divergence_at_the_very_last_step_is_one_too(cache: FeatureCache) -> None:
    sgd = replace(PROXY.sgd, steps=len(NAMES), learning_rate=1e38)
    (result,) = distill([candidate(0)], cache, replace(PROXY, sgd=sgd), COMPUTE)
    assert isinstance(result, DivergedError)
