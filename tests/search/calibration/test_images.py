"""Proxy and full training are measured on different images."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from search.calibration.images import for_proxy, for_training, halves
from search.study import build_foundation, feature_cache, run_here
from tests.helpers.studies import tiny
from trainers.data import load_tasks


@pytest.mark.parametrize("count", [2, 3, 400, 401])
def test_halves_are_all_images_once(count: int) -> None:
    labels = np.random.default_rng(0).integers(7, size=count)
    first, second = halves("digits", labels)
    assert sorted([*first, *second]) == list(range(count))
    assert 0 <= len(first) - len(second) <= 1
    for label in range(7):
        assert abs((labels[first] == label).sum() - (labels[second] == label).sum()) <= 1
    again = halves("digits", labels)
    assert np.array_equal(first, again[0])
    if count >= 400:
        assert not np.array_equal(first, halves("shapes", labels)[0])


def test_one_image_cannot_be_divided() -> None:
    with pytest.raises(ValueError, match=r"task 'digits': .* at least 2 validation images"):
        halves("digits", np.zeros(1, dtype=np.int64))


def test_the_sides_share_no_image(tmp_path: Path, cache: Path) -> None:
    config = tiny(tmp_path, cache=str(cache))
    base = build_foundation(config, run_here, lambda line: None)
    features = feature_cache(config, base, run_here, lambda line: None)
    # Rows of features are told apart by their place.
    marked = {
        name: replace(
            task, validation=np.arange(len(task.labels))[:, None, None, None], path=tmp_path
        )
        for name, task in features.tasks.items()
    }
    scored = for_proxy(replace(features, tasks=marked))
    trained = for_training(base.tasks)
    for name, task in load_tasks(config.data).items():
        whole = task.splits["validation"]
        rows = scored.tasks[name].validation[:, 0, 0, 0]
        assert scored.tasks[name].path is None, "another process would read the whole"
        assert np.array_equal(scored.tasks[name].labels, whole.labels[rows].numpy())
        pictures = [image.tobytes() for image in whole.images.numpy()]
        measured = [image.tobytes() for image in trained[name].splits["validation"].images.numpy()]
        assert len(rows) + len(measured) == len(whole)
        assert not {pictures[row] for row in rows} & set(measured)
        assert {pictures[row] for row in rows} | set(measured) == set(pictures)
        for split in ("train", "test"):
            assert trained[name].splits[split] is base.tasks[name].splits[split]
