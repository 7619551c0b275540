"""Strategies held against each other at equal budgets, from a study's record.

Numbers, tests, words, tables and a picture; nothing is searched.
"""

from search.comparison.compare import Comparison, compare_strategies
from search.comparison.figure import comparison_figure
from search.comparison.selection import CompareError, Terms, baseline_strategies, refuse_few
from search.comparison.tables import comparison_metrics, show_comparison, write_tables

__all__ = [
    "CompareError",
    "Comparison",
    "Terms",
    "baseline_strategies",
    "compare_strategies",
    "comparison_figure",
    "comparison_metrics",
    "refuse_few",
    "show_comparison",
    "write_tables",
]
