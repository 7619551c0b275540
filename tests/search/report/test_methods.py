"""Tables and pictures of methods, from made-up networks."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from search.report import by_level, difference, measure_of, methods_figure


def points(seeds: int = 3, test: bool = True) -> pd.DataFrame:
    """Two methods, of one and of two levels, on two tasks."""
    rows = []
    for seed in range(seeds):
        for method, level, accuracy in (("one", 0, 0.5), ("two", 0, 0.4), ("two", 1, 0.6)):
            for number, task in enumerate(("a", "b")):
                value = accuracy + 0.1 * number + 0.01 * seed * (level + 1)
                rows.append(
                    {
                        "method": method, "seed": seed, "level": level, "task": task,
                        "candidate": f"{method}-{seed}-{level}", "validation": value - 0.02,
                        "test": value if test else np.nan, "parameters": 100 * (level + 1),
                        "macs": 1000 * (level + 1), "stored": 250,
                        "chosen": (method, level) == ("two", 1),
                    }
                )  # fmt: skip
    return pd.DataFrame(rows)


def test_levels_are_means_over_tasks_then_seeds() -> None:
    table = by_level(points()).set_index(["method", "level"])
    assert list(table.index) == [("one", 0), ("two", 0), ("two", 1)]
    row = table.loc[("two", 1)]
    assert row["seeds"] == 3
    assert row["test"] == pytest.approx(0.6 + 0.05 + 0.02)
    assert row["std"] == pytest.approx(np.std([0.65, 0.67, 0.69], ddof=1))
    assert (row["macs"], row["parameters"], row["stored"]) == (2000, 200, 250)
    assert np.isnan(by_level(points(seeds=1))["std"]).all()


def test_without_test_images_validation_is_compared() -> None:
    assert measure_of(points()) == "test"
    assert measure_of(points(test=False)) == "validation"


def test_differences_go_seed_by_seed() -> None:
    found = difference(points(), ("two", -1), ("one", -1))
    # .15 and .01 more with every seed; t of two degrees of freedom is 4.303.
    half = 4.3027 * 0.01 / np.sqrt(3)
    assert found.value == pytest.approx(0.11)
    assert (found.low, found.high) == pytest.approx((0.11 - half, 0.11 + half), abs=1e-5)
    assert difference(points(), ("two", 0), ("one", 0)).value == pytest.approx(-0.1)
    with pytest.raises(KeyError, match="there is no method three"):
        difference(points(), ("three", 0), ("one", 0))


def test_seeds_that_only_one_has_are_left_out() -> None:
    table = points()
    table = table[(table["method"] != "one") | (table["seed"] != 2)]
    assert difference(table, ("two", -1), ("one", 0)).value == pytest.approx(0.105)


@pytest.mark.parametrize("test", [True, False])
def test_the_picture_has_a_panel_for_the_mean_and_each_task(tmp_path: Path, test: bool) -> None:
    methods_figure(points(test=test), tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        colours = picture.convert("RGB").resize((300, 100)).getcolors(30_000)
    assert colours is not None
    assert len(colours) > 50
