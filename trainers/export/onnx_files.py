"""Exported programs as ONNX files, of float32, float16 or int8, and how they are run."""

from __future__ import annotations

import json
import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.export import ExportedProgram

from trainers.libraries import needed_for

if TYPE_CHECKING:
    import onnx

INPUT, OUTPUT, BATCH = "images", "logits", "batch"
#: Under which a file's metadata has what the network is, as JSON.
ABOUT = "apportion"
#: Images at a time from which ranges of activations are learnt.
TOGETHER = 32


def require_onnx() -> None:
    """Refuse what needs ONNX where it cannot be loaded.

    Raises:
        MissingLibraryError: It cannot.
    """
    with needed_for("ONNX files", "onnxruntime and onnxscript", "onnx"):
        import onnxscript  # noqa: F401


def to_onnx(program: ExportedProgram, about: Mapping[str, Any]) -> onnx.ModelProto:
    """A program of one input and one output as ONNX, with names and for any number of images.

    Args:
        program: The network; its example input has the type and shape of images.
        about: Kept in the metadata as JSON.
    """
    with _quiet():
        exported = torch.onnx.export(
            program,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamo=True,
            verbose=False,
        )
    assert exported is not None
    model = exported.model_proto
    images = model.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param == images:  # others may be multiples of it
                size.dim_param = BATCH
        del value.metadata_props[:]
    for node in model.graph.node:  # where in which file a layer was written
        del node.metadata_props[:]
    describe(model, about)
    return model


def describe(model: onnx.ModelProto, about: Mapping[str, Any]) -> None:
    """Put what a network is into its file's metadata, in place of what is there."""
    del model.metadata_props[:]
    model.metadata_props.add(key=ABOUT, value=json.dumps(about))
    model.producer_name, model.producer_version = "apportion", ""


def described_by(session: Any) -> Mapping[str, Any]:
    """What `describe` put into the file of a session of ONNX Runtime."""
    found: Mapping[str, Any] = json.loads(session.get_modelmeta().custom_metadata_map[ABOUT])
    return found


def to_float16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Weights and what is computed in half precision; images and logits stay as they are."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with _quiet():
        found: onnx.ModelProto = convert_float_to_float16(_copied(model), keep_io_types=True)
    return found


def to_int8(model: onnx.ModelProto, images: Tensor) -> onnx.ModelProto:
    """Weights and activations of 8 bits, by the ranges that activations have on images.

    Weights have a scale per channel and 7 bits of the 8: with all of them, sums of products
    overflow on processors that have no instruction for it (AVX2 without VNNI).

    Args:
        model: Of float32.
        images: As the network reads them, (N, 3, S, S).
    """
    import onnx
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        """Some images at a time."""

        def __init__(self) -> None:
            self._left: Iterator[Tensor] = iter(images.split(TOGETHER))

        def get_next(self) -> dict[str, np.ndarray] | None:
            """The next ones, None at the end."""
            batch = next(self._left, None)
            return None if batch is None else {INPUT: batch.numpy()}

    with _quiet(), tempfile.TemporaryDirectory() as folder:
        plain, prepared, small = (str(Path(folder) / f"{name}.onnx") for name in "abc")
        onnx.save(model, plain)
        quant_pre_process(plain, prepared)
        quantize_static(
            prepared,
            small,
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        found: onnx.ModelProto = onnx.load(small)
    return found


class OnnxNetwork:
    """An ONNX file in ONNX Runtime, on the CPU.

    Args:
        path: The file.
        threads: Of the processor; 0 for all.

    Raises:
        MissingLibraryError: ONNX Runtime is not installed.
        OSError: There is no such file, or it is damaged.
    """

    def __init__(self, path: Path, threads: int = 0) -> None:
        with needed_for("ONNX files", "onnxruntime and onnxscript", "onnx"):
            import onnxruntime
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            self.session = onnxruntime.InferenceSession(
                path.read_bytes(), options, providers=["CPUExecutionProvider"]
            )
        except OSError:
            raise
        except Exception as error:  # ONNX Runtime has exceptions of its own for each code
            raise OSError(f"{path} cannot be loaded by ONNX Runtime: {error}") from error

    def __call__(self, images: Tensor) -> Tensor:
        """Map images (B, 3, S, S), as the network reads them, to logits (B, classes)."""
        (logits,) = self.session.run([OUTPUT], {INPUT: images.numpy()})
        return torch.from_numpy(logits)


def _copied(model: onnx.ModelProto) -> onnx.ModelProto:
    found: onnx.ModelProto = type(model)()
    found.CopyFrom(model)
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """Within it converters do not say what they do."""
    said = [logging.getLogger(name) for name in ("onnxscript", "onnx_ir", "torch.onnx", None)]
    levels = [one.level for one in said]
    for one in said:
        one.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        for one, level in zip(said, levels, strict=True):
            one.setLevel(level)
