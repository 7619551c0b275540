"""The proxy held against full training: the choice of candidates, measurement, trust, pictures.

What was measured is kept with the study, result by result.
"""

from search.calibration.results import measure_calibration
from search.calibration.tables import show_calibration
from search.calibration.trust import picture, read_trust, write_calibration

__all__ = ["measure_calibration", "picture", "read_trust", "show_calibration", "write_calibration"]
