"""One small network per task, its channels physically removed, proven against the masked one.

Programs of torch need torch alone, ONNX files ONNX Runtime alone.
"""

from trainers.export.compact import RawImages, check_exportable
from trainers.export.description import read_export
from trainers.export.latency import latencies, processor, torch_threads
from trainers.export.latency_table import LatencyTable, measure_latency, measure_rows
from trainers.export.prediction import Loaded, Predicted, open_networks, predict
from trainers.export.proof import ExportCheck, ExportError, check_export, checked_split
from trainers.export.writing import (
    PROGRAM,
    ExportConfig,
    Exported,
    described,
    export_networks,
)

__all__ = [
    "PROGRAM",
    "ExportCheck",
    "ExportConfig",
    "ExportError",
    "Exported",
    "LatencyTable",
    "Loaded",
    "Predicted",
    "RawImages",
    "check_export",
    "check_exportable",
    "checked_split",
    "described",
    "export_networks",
    "latencies",
    "measure_latency",
    "measure_rows",
    "open_networks",
    "predict",
    "processor",
    "read_export",
    "torch_threads",
]
