"""A study's front, and its methods, as tables, pictures and a study page.

Nothing here changes a study.
"""

from search.report.beside import (
    Row,
    compared_split,
    standing,
    standing_figure,
    standing_markdown,
)
from search.report.card import write_card
from search.report.contact import contact_sheet, require_sheet
from search.report.figures import COLOURS, COST, GREY, INK, QUALITY, draw_front, front_figure
from search.report.latency import front_latency_figure, latency_figure
from search.report.methods import by_level, difference, measure_of, methods_figure
from search.report.notebook import study_html
from search.report.page import (
    Exporting,
    LayerTimes,
    Shown,
    Training,
    Trial,
    page_data,
    write_page,
)
from search.report.selection import (
    chosen_images_figure,
    of_compared_split,
    selection_figure,
)
from search.report.tables import front_table, summary

__all__ = [
    "COLOURS",
    "COST",
    "GREY",
    "INK",
    "QUALITY",
    "Exporting",
    "LayerTimes",
    "Row",
    "Shown",
    "Training",
    "Trial",
    "by_level",
    "chosen_images_figure",
    "compared_split",
    "contact_sheet",
    "difference",
    "draw_front",
    "front_figure",
    "front_latency_figure",
    "front_table",
    "latency_figure",
    "measure_of",
    "methods_figure",
    "of_compared_split",
    "page_data",
    "require_sheet",
    "selection_figure",
    "standing",
    "standing_figure",
    "standing_markdown",
    "study_html",
    "summary",
    "write_card",
    "write_page",
]
