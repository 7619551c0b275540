"""One small network per task, its channels physically removed, proven against the masked one.

What is written needs torch alone.
"""

from trainers.export.compact import (
    ExportCheck,
    ExportError,
    RawImages,
    check_export,
    check_exportable,
    checked_split,
    described,
    export_networks,
)
from trainers.export.description import read_export

__all__ = [
    "ExportCheck",
    "ExportError",
    "RawImages",
    "check_export",
    "check_exportable",
    "checked_split",
    "described",
    "export_networks",
    "read_export",
]
