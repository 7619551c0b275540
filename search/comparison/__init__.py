"""Strategies held against each other at equal budgets, from a study's record.

Numbers, tests, words, tables and a picture; nothing is searched.
"""

from search.comparison.compare import (
    CompareError,
    Comparison,
    baseline_strategies,
    compare_strategies,
    refuse_few,
    true_hypervolume,
)
from search.comparison.figure import comparison_figure
from search.comparison.tables import comparison_metrics, show_comparison, write_tables

__all__ = [
    "CompareError",
    "Comparison",
    "baseline_strategies",
    "compare_strategies",
    "comparison_figure",
    "comparison_metrics",
    "refuse_few",
    "show_comparison",
    "true_hypervolume",
    "write_tables",
]
