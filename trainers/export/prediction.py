"""Exported networks on pictures."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from partitioning import DamagedFileError
from trainers.data import Scale, read_pictures
from trainers.export.description import read_export
from trainers.export.proof import ExportError
from trainers.export.writing import FLOAT16, INT8, MANIFEST, ONNX, PROGRAM, load_file
from trainers.libraries import MissingLibraryError

#: The files that can be run, by precision, those first that are looked for first.
RUN: Mapping[str, tuple[str, ...]] = {
    "float32": (ONNX, PROGRAM),
    "float16": (FLOAT16,),
    "int8": (INT8,),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Loaded:
    """An exported network that can be run.

    Attributes:
        name: That of its folder.
        file: What of it is run.
        about: What it is, as `network.json` has it.
        run: From images, as it reads them, to logits (B, classes).
    """

    name: str
    file: str
    about: Mapping[str, Any]
    run: Callable[[Tensor], Tensor]

    @torch.no_grad()
    def probabilities(self, images: Tensor) -> Tensor:
        """Map uint8 RGB images (B, 3, S, S) to probabilities of classes (B, classes)."""
        own = self.about["input"]
        if own["type"] == "float32":
            mean, std = (torch.tensor(own[name]).view(3, 1, 1) for name in ("mean", "std"))
            images = (images.float() / 255 - mean) / std
        return self.run(images).float().softmax(dim=1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Predicted:
    """What networks say of a picture.

    Attributes:
        path: Of the picture.
        image: As it was read, uint8 (3, S, S); None where it was not, or was not to be kept.
        labels: By network: its classes with their probabilities, the likeliest first.
        reason: Why it was not read; empty where it was.
    """

    path: Path
    image: Tensor | None = None
    labels: Mapping[str, Sequence[tuple[str, float]]]
    reason: str = ""


def open_networks(
    folder: str | Path, names: Sequence[str] = (), *, precision: str = "float32", threads: int = 0
) -> list[Loaded]:
    """Load exported networks.

    Args:
        folder: Of an export, or of one of its networks.
        names: Which; none for all.
        precision: float32, float16 or int8.
        threads: Of ONNX Runtime; 0 for all.

    Raises:
        ExportError: There is no export, no such network, or none of this precision.
        DamagedFileError: A file was changed since it was exported.
        MissingLibraryError: A runtime is not installed.
    """
    folder = Path(folder).resolve()
    found = {p.parent.name: p.parent for p in [folder / MANIFEST] if p.is_file()}
    found |= {path.parent.name: path.parent for path in sorted(folder.glob(f"*/{MANIFEST}"))}
    if not found:
        raise ExportError(f"{folder} has no exported networks: `apportion export` writes them")
    if unknown := [name for name in names if name not in found]:
        raise ExportError(f"{folder} has no network {unknown[0]}: there are {', '.join(found)}")
    return [_load(found[name], precision, threads) for name in names or found]


def _load(folder: Path, precision: str, threads: int) -> Loaded:
    about = read_export(folder)
    if about.get("chosen_per_image"):
        raise ExportError(f"{folder} is chosen per image, which `ChosenPerImage` runs")
    files = [name for name in RUN[precision] if (folder / name).is_file()]
    if not files:
        raise ExportError(f"{folder} has no network of {precision}: export it so")
    missing: MissingLibraryError | None = None
    for name in files:
        content = (folder / name).read_bytes()
        known = about["files"].get(name, {}).get("sha256")
        if hashlib.sha256(content).hexdigest() != known:
            raise DamagedFileError(f"{folder / name} was changed since it was exported")
        try:
            run = load_file(folder / name, threads)
        except MissingLibraryError as error:
            missing = error
            continue
        return Loaded(name=folder.name, file=name, about=about, run=run)
    assert missing is not None
    raise missing


def predict(
    networks: Sequence[Loaded], paths: Sequence[Path], *, top: int = 1, keep: bool = False
) -> list[Predicted]:
    """What networks say of pictures, which are read as those of training were.

    Args:
        networks: Of one export.
        paths: Of image files.
        top: Classes of each.
        keep: Keep what networks saw of each picture, which takes room for all of them.
    """
    alike: dict[tuple[Any, ...], list[Loaded]] = {}
    for one in networks:
        alike.setdefault(_reading(one.about["input"]), []).append(one)
    found: dict[Path, dict[str, list[tuple[str, float]]]] = {path: {} for path in paths}
    images: dict[Path, Tensor] = {}
    reasons: dict[Path, str] = {}
    for group in alike.values():
        own = group[0].about["input"]
        scales = {k: Scale(black=b, white=w) for k, (b, w) in own["scales"].items()}
        for good, batch, bad in read_pictures(
            paths, size=own["size"], interpolation=own["interpolation"], scales=scales
        ):
            reasons |= bad
            if keep:
                images |= dict(zip(good, batch, strict=True))
            for network in group if good else ():
                chances, classes = network.probabilities(batch).topk(
                    min(top, len(network.about["classes"]))
                )
                for path, chance, at in zip(good, chances.tolist(), classes.tolist(), strict=True):
                    labels = [network.about["classes"][number] for number in at]
                    found[path][network.name] = list(zip(labels, chance, strict=True))
    return [
        Predicted(
            path=path,
            image=images.get(path),
            labels=found[path],
            reason=reasons.get(path, ""),
        )
        for path in paths
    ]


def _reading(own: Mapping[str, Any]) -> tuple[Any, ...]:
    """What decides how a picture is read."""
    return own["size"], own["interpolation"], repr(sorted(own["scales"].items()))
