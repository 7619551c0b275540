"""The card of an export: what its networks are, how good, what they cost, how to run them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

CARD, PICTURE = "README.md", "accuracy.png"

ONNX_LINES = """\
import json

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession("{file}")
about = json.loads(session.get_modelmeta().custom_metadata_map["apportion"])
size = about["input"]["size"]
image = ImageOps.exif_transpose(Image.open("photo.jpg")).convert("RGBA")
image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
image = ImageOps.fit(image, (size, size), Image.Resampling.{interpolation})
(logits,) = session.run(None, {{"images": np.asarray(image).transpose(2, 0, 1)[None]}})
print(about["classes"][logits[0].argmax()])
"""
TORCH_LINES = """\
import torch

network = torch.export.load("{file}").module()
images = torch.zeros(1, 3, {size}, {size}, dtype=torch.{type})  # {values}
print(network(images).argmax(1))
"""
MERGED_LINES = """\
import torch
from merged import Merged

network = Merged("merged.pt")
images = torch.zeros(1, 3, {size}, {size}, dtype=torch.{type})  # {values}
print({{task: logits.argmax(1) for task, logits in network(images).items()}})
"""


def write_card(folder: Path, title: str, made_of: Mapping[str, Any]) -> None:
    """Write README.md and a picture into an export, in the layout that the Hugging Face Hub has.

    Args:
        folder: Of the export.
        title: What it is called.
        made_of: What else is said of it, by name.
    """
    networks = {
        path.parent.name: json.loads(path.read_text())
        for path in sorted(folder.glob("*/network.json"))
    }
    accuracy_figure(networks, folder / PICTURE)
    (folder / CARD).write_text(_text(folder, title, made_of, networks))


def _text(
    folder: Path, title: str, made_of: Mapping[str, Any], networks: Mapping[str, Mapping[str, Any]]
) -> str:
    first = next(iter(networks))
    own = networks[first]
    has_onnx = "network.onnx" in own["files"]
    lines = [
        "---",
        f"library_name: {'onnx' if has_onnx else 'pytorch'}",
        "pipeline_tag: image-classification",
        "tags: [multi-task-learning, apportion]",
        "---",
        "",
        f"# {title}",
        "",
        f"{_count(len(networks), 'network')} for {_count(len(networks), 'task')}, each the part "
        "that its task has of one network whose channels all tasks share out among them.",
        "",
        *(f"- {name}: {value}" for name, value in made_of.items()),
        "",
        "## How good, and what it costs",
        "",
        *_table(networks),
        "",
        f"![Accuracy of every network]({PICTURE})",
        "",
        "Accuracies are of the files themselves, each run in its own runtime on all images of the "
        "split. Float32 computes what the trained network did, to 1e-4 of the largest logit.",
        *_timed(own),
        *_merged(networks),
        "",
        "## Data",
        "",
        *(
            f"- {name}: {_count(len(about['classes']), 'class')} ({_few(about['classes'])})"
            for name, about in networks.items()
        ),
        "",
        f"Images are RGB of {own['input']['size']} pixels: turned as the camera noted, white "
        "behind what is transparent, the shorter side resized "
        f"({own['input']['interpolation']}, antialiased), the centre kept. Colours go by the "
        "image's profile, which the lines below leave out. "
        + (
            "Networks read values of 0 to 255."
            if own["input"]["type"] == "uint8"
            else "Networks read (value / 255 - mean) / std, with mean and std in `network.json`."
        ),
        "",
        "## How to run it",
        "",
        *_how(folder, first, own),
    ]
    return "\n".join(lines) + "\n"


def _count(number: int, what: str) -> str:
    plural = f"{what}es" if what.endswith("s") else f"{what}s"
    return f"{number} {what if number == 1 else plural}"


def _few(names: Sequence[str]) -> str:
    return ", ".join(names if len(names) <= 12 else [*names[:10], "..."])


def _table(networks: Mapping[str, Mapping[str, Any]]) -> list[str]:
    files = _all_files(networks)
    beside = list(dict.fromkeys(w for about in networks.values() for w in about.get("beside", {})))
    names = ["network", "split", *files, *beside, "parameters", "MACs", "bytes", "ms", "undivided"]
    rows = [names, ["---"] * len(names)]
    for name, about in networks.items():
        compared = _compared(about)
        accuracies = [_share(compared.get(file, {}).get("accuracy")) for file in files]
        others = [_share(about.get("beside", {}).get(what)) for what in beside]
        file: Mapping[str, Any] = next(iter(compared.values()), {})
        taken = file.get("latency_ms", {})
        rows.append(
            [
                name, about["split"], *accuracies, *others, f"{about['parameters']:,}",
                f"{about['macs']:,}", f"{file['bytes']:,}" if file else "",
                _ms(taken.get("batch_1")), _ms(taken.get("undivided_batch_1")),
            ]
        )  # fmt: skip
    return [f"| {' | '.join(row)} |" for row in rows]


def _compared(about: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """What is said of a network's files that were compared, float32 first, that of all last."""
    own = {name: file for name, file in about["files"].items() if "accuracy" in file}
    found = {name: own[name] for name in sorted(own, key=lambda name: (name.count("."), name))}
    return found | ({"merged.pt": about["merged"]} if "merged" in about else {})


def _all_files(networks: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for about in networks.values() for name in _compared(about)))


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _timed(about: Mapping[str, Any]) -> list[str]:
    if "latency" not in about:
        return []
    file = next(iter(_compared(about)))
    return [
        f"Bytes and milliseconds are those of `{file}`, for one image on one thread of "
        f"{about['latency']['processor']}, beside the undivided network in the same turns."
    ]


def _merged(networks: Mapping[str, Mapping[str, Any]]) -> list[str]:
    own = next(iter(networks.values())).get("merged")
    if own is None:
        return []
    return [
        f"`merged.pt` has all of them in {own['bytes']:,} bytes; for an image it takes "
        f"{own['macs']:,} MACs for all tasks together."
    ]


def _how(folder: Path, name: str, about: Mapping[str, Any]) -> list[str]:
    own = about["input"]
    values = {"size": own["size"], "type": own["type"], "values": own["values"]}
    found: list[str] = []
    if "network.onnx" in about["files"] and own["type"] == "uint8":
        lines = ONNX_LINES.format(
            file=f"{name}/network.onnx", interpolation=own["interpolation"].upper()
        )
        found += ["With onnxruntime, numpy and Pillow:", "", "```python", lines.rstrip(), "```", ""]
    if "network.pt2" in about["files"]:
        lines = TORCH_LINES.format(file=f"{name}/network.pt2", **values)
        found += ["With torch:", "", "```python", lines.rstrip(), "```", ""]
    if (folder / "merged.pt").is_file():
        lines = MERGED_LINES.format(**values)
        found += ["All of them from one file, with torch:", "", "```python", lines.rstrip(), "```"]
    return found


def accuracy_figure(networks: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Draw the accuracy of every network beside what else was measured on the same images.

    Args:
        networks: By name, as `network.json` has them.
        path: Of the picture.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 1.2 + 0.35 * len(networks)), layout="constrained")
    axis = figure.subplots()
    names = list(networks)
    beside = list(dict.fromkeys(w for about in networks.values() for w in about.get("beside", {})))
    for what, marker in zip(beside, "|x+_", strict=False):
        points = [networks[name].get("beside", {}).get(what, float("nan")) for name in names]
        axis.scatter(points, names, marker=marker, s=60, color="0.4", label=what, zorder=2)
    for file in _all_files(networks):
        found = (_compared(networks[name]).get(file, {}) for name in names)
        points = [one.get("accuracy", float("nan")) for one in found]
        axis.scatter(points, names, s=28, alpha=0.75, label=file, zorder=3)
    axis.set_xlabel("accuracy")
    axis.grid(axis="x", alpha=0.3)
    axis.invert_yaxis()
    axis.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=130)
