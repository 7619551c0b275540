"""A comparison as tables and pictures."""

import io
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from search.comparison import comparison_figure, show_comparison
from search.comparison.tables import comparison_markdown, curve_table, pair_rows, strategy_table
from tests.helpers.comparisons import arms, compared, make


def test_tables(tmp_path: Path) -> None:
    given = [*arms({"random": 0.5, "es": 0.8}, range(8))]
    given[5] = make(None, None, given[5].strategy, given[5].seed, given[5].index)
    given += [make(0.6, 0.5, "baselines", seed) for seed in range(8)]
    found = compared(given, baselines=["baselines"], true_hypervolume=0.5)
    table = strategy_table(found).set_index("strategy")
    assert table.loc["es", "of_true_front"] == pytest.approx(
        table.loc["es", "hypervolume_mean"] / 0.5
    )
    assert table.loc["es", ["candidates", "failed", "seeds"]].tolist() == [32, 1, 8]
    assert "of_true_front" not in strategy_table(compared(given, baselines=["baselines"]))
    curves = curve_table(found)
    for (_, against), own in curves.groupby(["strategy", "against"]):
        assert (own["mean"].diff().dropna() >= -1e-12).all()
        assert (own["ci_low"] <= own["mean"]).all()
        assert (own["mean"] <= own["ci_high"]).all()
        assert own["spent"].iloc[0] == (1 if against == "candidates" else 0)
    last = curves[curves["against"] == "candidates"].groupby("strategy")["mean"].last()
    assert last.to_dict() == pytest.approx(table["hypervolume_mean"].to_dict())
    text = comparison_markdown(found)
    assert text.startswith(f"**Verdict:** {found.verdict}")
    assert "| baselines (fixed) |" in text
    assert pair_rows(found)[2][0] == "es - random"
    assert pair_rows(found)[2][5] == "8 of 8"


def test_what_luck_p_covers() -> None:
    given = [*arms({"random": 0.5, "es": 0.8}, range(8))]
    assert "the luck of the search: all seeds share one trunk" in comparison_markdown(
        compared(given)
    )
    own = comparison_markdown(compared(given, foundations="per_seed"))
    assert "the luck of the whole method" in own


@pytest.mark.parametrize("width", [50, 80, 200])
def test_a_terminal_shows_what_fits(width: int) -> None:
    found = compared([*arms({"random": 0.5, "es": 0.8}, range(8))])
    console = Console(width=width, record=True, file=io.StringIO())
    show_comparison(found, console)
    said = console.export_text()
    rows = said.partition("Means over")[0].splitlines()
    assert all(len(row) <= width for row in rows)
    assert "…" not in said
    assert ("device-seconds" in said) == (width == 200)
    assert said.rstrip().endswith(found.verdict)


@pytest.mark.parametrize("strategies", [2, 10])
def test_the_picture(tmp_path: Path, strategies: int) -> None:
    given = [*arms({f"s{i}": 0.3 + 0.05 * i for i in range(strategies)}, range(6))]
    given += [make(0.6, 0.4, "baselines", seed) for seed in range(6)]
    comparison_figure(compared(given, baselines=["baselines"]), tmp_path / "comparison.png")
    with Image.open(tmp_path / "comparison.png") as image:
        assert image.width > 1500


def test_a_picture_of_failures(tmp_path: Path) -> None:
    given = [
        make(None if name == "c" else 0.5 + 0.1 * i, 0.5, name, s, i)
        for name in "abc" for s in range(6) for i in range(4)
    ]  # fmt: skip
    comparison_figure(compared(given), tmp_path / "comparison.png")
    assert (tmp_path / "comparison.png").stat().st_size > 1000
