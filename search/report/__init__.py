"""A study's front as tables, pictures and an interactive page.

Nothing here changes a study.
"""

from search.report.figures import COLOURS, COST, GREY, INK, QUALITY
from search.report.tables import front_figure, front_html, front_table, summary

__all__ = [
    "COLOURS",
    "COST",
    "GREY",
    "INK",
    "QUALITY",
    "front_figure",
    "front_html",
    "front_table",
    "summary",
]
