"""How fast networks are in the formats that they are exported in, undivided and divided.

python benchmarks/export_formats.py STUDY|CONFIG [--pick PICK ...] [--uses .25 .06] [--batch 1 64]

Rows are the undivided network, networks that use a share of every divided group, and picks of a
study, of which every size of network is timed and the mean over tasks shown. Columns are a program
for torch, the same with its norms folded, ONNX Runtime, and its 8 bits. Weights play no part in it:
those of the study are not needed, and 8 bits are calibrated on noise. All take turns, on one
thread; shown is the median, and what it is of the undivided network in that format.
"""

import argparse
import functools
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from search.config import load_config
from search.study import Study
from trainers.export import latencies, processor, torch_threads
from trainers.export.compact import row_program
from trainers.export.onnx_files import OnnxNetwork, to_int8, to_onnx
from trainers.networks import Backbone

FORMATS = ("torch", "folded", "onnx", "int8")
Run = Callable[[Tensor], Tensor]


def main() -> None:
    """Print the table; `--json` also writes it to a file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", type=Path, metavar="STUDY|CONFIG")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of CONFIG")
    parser.add_argument("--pick", action="append", default=[], help="of STUDY")
    parser.add_argument("--uses", type=float, nargs="*", default=[0.25, 0.06])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 64])
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=FORMATS)
    parser.add_argument("--seconds", type=float, default=20, help="of turns for each batch")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    is_study = options.study.is_dir()
    study = Study(options.study) if is_study else None
    config = study.config if study else load_config(options.study, options.set)
    backbone = config.network
    rows = {"undivided": np.ones((1, backbone.division.units), dtype=np.bool_)}
    rows |= {f"{use:.0%} use": of_use(backbone, use) for use in options.uses}
    for pick in options.pick:
        assert study is not None, "--pick is of a study"
        found = study.pick(pick)
        rows[f"{pick} ({found.id})"] = backbone.kept(study.masks(found))
    table = measure(
        backbone, rows, config.size, options.formats, options.batch, options.seconds
    )  # fmt: skip
    show(table, options.formats, options.batch)
    if options.json:
        content = {"processor": processor(), "study": str(options.study), "rows": table}
        options.json.write_text(json.dumps(content, indent=2) + "\n")


def of_use(backbone: Backbone, use: float) -> NDArray[np.bool_]:
    """(1, units): a network with a share of every group that masks divide."""
    forward = {g.name: np.arange(g.width) < max(1, round(use * g.width)) for g in backbone.groups}
    return backbone.division.kept(forward)[None]


def measure(
    backbone: Backbone,
    rows: Mapping[str, NDArray[np.bool_]],
    size: int,
    formats: Sequence[str],
    batches: Sequence[int],
    seconds: float,
) -> dict[str, dict[str, float]]:
    """Milliseconds by row, then format and batch."""
    runs: dict[tuple[str, int, str], Run] = {}
    for name, kept_RU in rows.items():
        for number, kept in enumerate(kept_RU):
            for kind, run in programs(backbone, kept, size, formats).items():
                runs[name, number, kind] = run
    found: dict[str, dict[str, float]] = {name: {} for name in rows}
    for batch in batches:
        images = torch.zeros(batch, 3, size, size)
        with torch.no_grad(), torch_threads(1):
            taken = latencies(
                {key: functools.partial(run, images) for key, run in runs.items()}, seconds=seconds
            )
        for name, kept_RU in rows.items():
            for kind in formats:
                own = [taken[name, number, kind] for number in range(len(kept_RU))]
                found[name][f"{kind}/{batch}"] = float(np.mean(own))
    return found


def programs(
    backbone: Backbone, kept: NDArray[np.bool_], size: int, formats: Sequence[str]
) -> dict[str, Run]:
    """A network in every format, as its runtime loads it."""
    example = torch.zeros(2, 3, size, size)
    folded = row_program(backbone, kept, example, folded=True)
    found: dict[str, Run] = {
        "torch": row_program(backbone, kept, example).module(),
        "folded": folded.module(),
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        for kind in ("onnx", "int8"):
            if kind not in formats:
                continue
            model = to_onnx(folded, {})
            if kind == "int8":
                model = to_int8(model, torch.randn(64, 3, size, size))
            path.write_bytes(model.SerializeToString())
            found[kind] = OnnxNetwork(path, 1)
    return {kind: found[kind] for kind in formats}


def show(
    table: Mapping[str, Mapping[str, float]], formats: Sequence[str], batches: Sequence[int]
) -> None:
    """Print the table as Markdown."""
    first = next(iter(table.values()))
    print(f"{processor()}, one thread; milliseconds for {' / '.join(map(str, batches))} images\n")
    print("| | " + " | ".join(formats) + " |\n|---" + "|---" * len(formats) + "|")
    for name, own in table.items():
        cells = []
        for kind in formats:
            ms = " / ".join(f"{own[f'{kind}/{batch}']:.3g}" for batch in batches)
            of = " / ".join(f"{own[f'{kind}/{b}'] / first[f'{kind}/{b}']:.2f}" for b in batches)
            cells.append(f"{ms} ({of})")
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
