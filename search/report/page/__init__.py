"""The study page: one file that shows a study in a browser and needs no network.

`page_data` says in JSON what is shown; `page.html`, `page.css` and the scripts in
`script` show it, which are one script in the page, in the order of their numbers.
"""

from search.report.page.data import page_data
from search.report.page.shown import Exporting, LayerTimes, Shown, Training, Trial
from search.report.page.write import write_page

__all__ = [
    "Exporting",
    "LayerTimes",
    "Shown",
    "Training",
    "Trial",
    "page_data",
    "write_page",
]
