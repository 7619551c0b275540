"""The files of an export: one small network per task, each proven as it is read back."""

import functools
import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from partitioning import EXPORT, write_json
from trainers.cost import costs
from trainers.data import Task, normalise
from trainers.export.compact import CompactNetwork, example_images, program_of, undivided
from trainers.export.latency import latencies, processor, torch_threads
from trainers.export.merged import MERGED, save_merged
from trainers.export.merged_loader import Merged
from trainers.export.onnx_files import (
    OnnxNetwork,
    describe,
    require_onnx,
    to_float16,
    to_int8,
    to_onnx,
)
from trainers.export.proof import ExportCheck, ExportError, check_export, checked_split
from trainers.network import Network
from trainers.networks import module_macs
from trainers.tensor_files import save_arrays

FORMATS = ("onnx", "pt2", "safetensors", "merged")
PRECISIONS = ("float32", "float16", "int8")
INPUTS = ("uint8", "float32")
#: A network's files: for ONNX Runtime, by precision, the program for torch, and weights alone.
ONNX, FLOAT16, INT8 = "network.onnx", "network.float16.onnx", "network.int8.onnx"
PROGRAM, WEIGHTS = "network.pt2", "weights.safetensors"
#: What is said of them.
MANIFEST = "network.json"
#: Images at a time that are timed.
BATCHES = (1, 64)


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """What an export consists of.

    Attributes:
        formats: Of `FORMATS`: a file of each network for ONNX Runtime, and for torch; its weights
            alone; and one file of all networks, in which what they share is once.
        precisions: Of `PRECISIONS`, beside float32, which every format has; others are ONNX's.
        inputs: What networks read: images of 0 to 255 ("uint8"), or normalised ones ("float32").
        max_loss: Accuracy that float16 and int8 may cost.
        calibration: Training images from which int8 learns the ranges of activations.

    Raises:
        ExportError: They contradict each other.
        MissingLibraryError: They need a library that is not installed.
    """

    formats: tuple[str, ...] = ("onnx", "pt2", "merged")
    precisions: tuple[str, ...] = ()
    inputs: str = "uint8"
    max_loss: float = 0.01
    calibration: int = 512

    def __post_init__(self) -> None:
        for what, given, known in (
            ("a format", self.formats, FORMATS),
            ("a precision", self.precisions, PRECISIONS),
            ("an input", (self.inputs,), INPUTS),
        ):
            for name in given:
                if name not in known:
                    raise ExportError(f"{name!r} is not {what}: there are {', '.join(known)}")
        if not self.formats:
            raise ExportError(f"an export needs a format: {', '.join(FORMATS)}")
        if not 0 <= self.max_loss <= 1:
            raise ExportError(f"the accuracy that may be lost is from 0 to 1, got {self.max_loss}")
        if self.calibration < 1:
            raise ExportError(f"int8 needs images to calibrate with, got {self.calibration}")
        small = [name for name in self.precisions if name != "float32"]
        if small and "onnx" not in self.formats:
            raise ExportError(f"{' and '.join(small)} need the format onnx")
        if "onnx" in self.formats:
            require_onnx()


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written.

    Attributes:
        networks: By virtual network: what it is and costs, and by file its bytes and checks, as
            `network.json` has it.
        checks: By virtual network, then file: how it compares with the masked network.
        merged_bytes: Of the file of all networks; None where there is none.
        merged_macs: Multiply-accumulates of all networks for an image, when that file is run.
        added_bytes: By virtual network: what it adds to those before it there.
    """

    networks: Mapping[str, Mapping[str, Any]]
    checks: Mapping[str, Mapping[str, ExportCheck]]
    merged_bytes: int | None = None
    merged_macs: int | None = None
    added_bytes: Mapping[str, int] = field(default_factory=dict)

    def summary(self) -> dict[str, Any]:
        """What was written, as JSON has it: costs, and of the first file of each network its proof.

        Latencies are of an image at a time on one thread, the undivided network's in the same
        runtime and turns.
        """
        tasks = {}
        for name, own in self.checks.items():
            about = self.networks.get(name, {})
            for file, check in list(own.items())[:1]:
                one = about.get("files", {}).get(file, {})
                taken = one.get("latency_ms", {})
                tasks[name] = {
                    "file": file,
                    "params": about.get("parameters"),
                    "macs": about.get("macs"),
                    "bytes": one.get("bytes"),
                    "latency_ms": taken.get("batch_1"),
                    "latency_full_ms": taken.get("undivided_batch_1"),
                    "max_rel_diff": check.relative_difference,
                    "accuracy_masked": check.masked_accuracy,
                    "accuracy_exported": check.accuracy,
                    "split": about.get("split"),
                }
        sizes = [one["bytes"] for one in tasks.values() if one["bytes"] is not None]
        return {
            "tasks": tasks,
            "merged_bytes": self.merged_bytes,
            "merged_macs": self.merged_macs,
            "sum_of_parts_bytes": sum(sizes) if sizes else None,
            "added_bytes": dict(self.added_bytes),
        }

    def bytes_of(self, file: str) -> int | None:
        """Of this file of all networks together; None where there is none."""
        files = [own["files"][file] for own in self.networks.values() if file in own["files"]]
        return sum(one["bytes"] for one in files) if files else None


def export_networks(
    network: Network,
    tasks: Mapping[str, Task],
    folder: Path,
    config: ExportConfig | None = None,
    *,
    beside: Mapping[str, Mapping[str, float]] = MappingProxyType({}),
) -> Exported:
    """Write one compact network per virtual network, each checked as it would be loaded.

    Every `<folder>/<network>/` holds its files, and `network.json`: input, classes, costs, checks.

    Args:
        network: A trained network, on the CPU.
        tasks: Its tasks; the test split is used for the check where there is one.
        folder: Created if missing.
        config: Which files; None for a program for torch.
        beside: Accuracies on the same images, by what has them, then virtual network.

    Raises:
        ExportError: A compact network differs from the masked one, or costs too much accuracy.
    """
    config = config or ExportConfig(formats=("pt2",))
    folder.mkdir(parents=True, exist_ok=True)
    network.eval()
    rows = list(enumerate(network.masks.networks))
    classes = [tasks[virtual.task].num_classes for _, virtual in rows]
    counted = costs(network.backbone, network.masks, classes)
    checks: dict[str, dict[str, ExportCheck]] = {}
    about: dict[str, dict[str, Any]] = {}
    for row, virtual in rows:
        name, task = str(virtual), tasks[virtual.task]
        before = _before_head(network.heads[row])
        about[name] = {
            **described(task, virtual.level, config.inputs),
            "parameters": counted.parameters[name] + before[0],
            "macs": counted.macs[name] + before[1],
            "use": counted.use[name],
            "split": checked_split(task),
            "beside": {what: by[name] for what, by in beside.items() if name in by},
        }
        (folder / name).mkdir(parents=True, exist_ok=True)
        checks[name] = _write(network, row, task, folder / name, config, about[name])
    added: dict[str, int] = {}
    merged: dict[str, Any] = {}
    if "merged" in config.formats:
        added, proven, trunks = _write_merged(network, tasks, folder, config)
        again = len(rows) - trunks  # trunks that are not computed again
        macs = sum(one["macs"] for one in about.values()) - again * _trunk_macs(network, tasks)
        merged = {**_said(folder / MERGED), "macs": macs}
        for name, check in proven.items():
            checks[name][MERGED] = check
    taken = _latencies(network, tasks[rows[0][1].task], folder, config, list(about))
    files = {name: _files(folder / name, checks[name], taken[name]) for name in about}
    for name, own in checks.items():
        description = {
            **about[name],
            **({"latency": {"processor": processor(), "threads": 1}} if taken[name] else {}),
            "files": files[name],
        }
        if merged:
            description["merged"] = {**merged, **_proof(own[MERGED])}
        if own:
            first = next(iter(own.values()))
            description["accuracy"] = first.accuracy
            description["max_logit_difference"] = first.max_difference
        write_json(folder / name / MANIFEST, description)
    return Exported(
        networks={name: {**about[name], "files": files[name]} for name in about},
        checks=checks,
        merged_bytes=merged.get("bytes"),
        merged_macs=merged.get("macs"),
        added_bytes=added,
    )


def _files(
    folder: Path, checks: Mapping[str, ExportCheck], taken: Mapping[str, Mapping[str, float]]
) -> dict[str, dict[str, Any]]:
    """What is said of a network's files."""
    found = {}
    for path in sorted(folder.iterdir()):
        found[path.name] = _said(path)
        if path.name in checks:
            found[path.name] |= _proof(checks[path.name])
        if path.name in taken:
            found[path.name]["latency_ms"] = taken[path.name]
    return found


def _said(path: Path) -> dict[str, Any]:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}


def _proof(check: ExportCheck) -> dict[str, Any]:
    return {
        **asdict(check), "loss": check.loss, "loss_interval": list(check.loss_interval)
    }  # fmt: skip


def _latencies(
    network: Network, task: Task, folder: Path, config: ExportConfig, names: Sequence[str]
) -> dict[str, dict[str, dict[str, float]]]:
    """By network and file, then batch: milliseconds, and those of the undivided network.

    All of a format and precision take turns, each on one thread.
    """
    raw = config.inputs == "uint8"
    found: dict[str, dict[str, dict[str, float]]] = {name: {} for name in names}
    kinds = [file for file in (ONNX, INT8, PROGRAM) if (folder / names[0] / file).is_file()]
    if not kinds:
        return found
    with tempfile.TemporaryDirectory() as made, torch_threads(1), torch.no_grad():
        whole = Path(made)
        _write_files(undivided(network, task, raw=raw), task, whole, config, {})
        for file in kinds:
            loaded = {name: load_file(folder / name / file, threads=1) for name in names}
            loaded[""] = load_file(whole / file, threads=1)
            for batch in BATCHES:
                one, _ = task.splits["train"].batch(0, 1)
                images = one.expand(batch, -1, -1, -1).contiguous()
                read = images if raw else normalise(images, task)
                taken = latencies({n: functools.partial(run, read) for n, run in loaded.items()})
                for name in names:
                    own = found[name].setdefault(file, {})
                    own[f"batch_{batch}"] = taken[name]
                    own[f"undivided_batch_{batch}"] = taken[""]
    return found


def load_file(path: Path, threads: int = 0) -> Callable[[Tensor], Tensor]:
    """An exported network as its runtime loads it, from images to logits.

    Args:
        path: network.pt2 or an ONNX file.
        threads: Of ONNX Runtime; 0 for all. Torch's are set by `torch_threads`.

    Raises:
        MissingLibraryError: ONNX Runtime is not installed.
        OSError: There is no such file, or it is damaged.
    """
    if path.suffix == ".onnx":
        return OnnxNetwork(path, threads)
    module: Callable[[Tensor], Tensor] = torch.export.load(path).module()
    return module


def _write(
    network: Network,
    row: int,
    task: Task,
    target: Path,
    config: ExportConfig,
    about: Mapping[str, Any],
) -> dict[str, ExportCheck]:
    """Write a row's files, each of which is read back and compared on images."""
    compact = CompactNetwork(network, row, task, raw=config.inputs == "uint8").eval()
    _write_files(compact, task, target, config, about)
    if "safetensors" in config.formats:
        state = {name: tensor.contiguous() for name, tensor in compact.state_dict().items()}
        arrays = {name: tensor.numpy() for name, tensor in state.items()}
        save_arrays(arrays, target / WEIGHTS, {"about": json.dumps(about)})
    return {
        path.name: check_export(
            load_file(path),
            lambda images: network(images, row),
            task,
            checked_split(task),
            network.backbone.batch,
            raw=config.inputs == "uint8",
            max_loss=None if path.name in (ONNX, PROGRAM) else config.max_loss,
        )
        for path in (target / name for name in (ONNX, PROGRAM, FLOAT16, INT8))
        if path.is_file()
    }


def _write_files(
    compact: CompactNetwork,
    task: Task,
    target: Path,
    config: ExportConfig,
    about: Mapping[str, Any],
) -> None:
    """Write the files of a network that can be run."""
    raw = config.inputs == "uint8"
    if not {"onnx", "pt2"} & {*config.formats}:
        return
    program = program_of(compact, example_images(task, raw=raw), folded=True)
    if "pt2" in config.formats:
        torch.export.save(program, target / PROGRAM)
    if "onnx" in config.formats:
        model = to_onnx(program, about)
        (target / ONNX).write_bytes(model.SerializeToString())
        if "float16" in config.precisions:
            (target / FLOAT16).write_bytes(to_float16(model).SerializeToString())
        if "int8" in config.precisions:
            small = to_int8(model, _calibration(task, config, raw=raw))
            describe(small, about)
            (target / INT8).write_bytes(small.SerializeToString())


def _calibration(task: Task, config: ExportConfig, *, raw: bool) -> Tensor:
    """Training images, evenly spaced, as the network reads them."""
    data = task.splits["train"]
    count = min(config.calibration, len(data))
    rows = torch.linspace(0, len(data) - 1, count).round().long()
    images, _ = data.take(rows)
    return images if raw else normalise(images, task)


def _write_merged(
    network: Network, tasks: Mapping[str, Task], folder: Path, config: ExportConfig
) -> tuple[dict[str, int], dict[str, ExportCheck], int]:
    """Write the file of all networks, which is read back.

    Returns:
        Bytes that each adds, its check, and how many trunks are computed for all.
    """
    raw = config.inputs == "uint8"
    names = [str(virtual) for virtual in network.masks.networks]
    about = {
        name: described(tasks[virtual.task], virtual.level, config.inputs)
        for name, virtual in zip(names, network.masks.networks, strict=True)
    }
    added = save_merged(network, tasks, folder / MERGED, {"networks": about}, raw=raw)
    merged = Merged(folder / MERGED)
    checks: dict[str, ExportCheck] = {}
    for row, virtual in enumerate(network.masks.networks):
        task, name = tasks[virtual.task], names[row]
        checks[name] = check_export(
            lambda images, name=name: merged(images, [name])[name],  # type: ignore[misc]
            lambda images, row=row: network(images, row),  # type: ignore[misc]
            task,
            checked_split(task),
            network.backbone.batch,
            raw=raw,
        )
    return added, checks, merged.trunks


def _trunk_macs(network: Network, tasks: Mapping[str, Task]) -> int:
    """Multiply-accumulates of the trunk for an image."""
    size = tasks[network.masks.networks[0].task].size
    return module_macs(network.trunks[0], torch.zeros(2, 3, size, size))


def described(task: Task, level: int, inputs: str = "uint8") -> dict[str, Any]:
    """What `network.json` says of any network of a task."""
    raw = inputs == "uint8"
    return {
        **EXPORT.header,
        "task": task.name,
        "level": level,
        "classes": list(task.classes),
        "input": {
            "size": task.size,
            "channels": "RGB",
            "type": inputs,
            "values": "0..255" if raw else "(value / 255 - mean) / std",
            "layout": "NCHW",
            "mean": [float(value) for value in task.mean],
            "std": [float(value) for value in task.std],
            # The shorter side to `size`, so interpolated, and the centre kept.
            "interpolation": task.inputs.interpolation,
            # By type of values, which of them are black and white.
            "scales": {k: [s.black, s.white] for k, s in task.understood.scales.items()},
        },
    }


def _before_head(head: nn.Module) -> tuple[int, int]:
    """Parameters and multiply-accumulates of the layers that a head has before its last."""
    *layers, _ = (module for module in head.modules() if isinstance(module, nn.Linear))
    weights = sum(layer.weight.numel() for layer in layers)
    return weights + sum(layer.bias.numel() for layer in layers), weights
