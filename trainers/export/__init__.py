"""One small network per task, its channels physically removed, proven against the masked one.

What is written needs torch alone.
"""

from trainers.export.compact import (
    TOLERANCE,
    ExportCheck,
    ExportError,
    check_exportable,
    export_networks,
)
from trainers.export.description import read_export

__all__ = [
    "TOLERANCE",
    "ExportCheck",
    "ExportError",
    "check_exportable",
    "export_networks",
    "read_export",
]
