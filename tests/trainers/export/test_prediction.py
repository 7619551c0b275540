"""Exported networks on pictures: read as those of training, and what is wrong said."""

import builtins
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from partitioning import DamagedFileError
from search.cli import main
from search.commands.benchmark import benchmark_export, draw_timings
from search.commands.predict import predict_pictures, write_rows
from search.report import write_card
from tests.helpers.small_networks import BUILT, candidate
from trainers.data import (
    DataConfig,
    DataError,
    Task,
    TaskConfig,
    find_pictures,
    load_task,
    normalise,
)
from trainers.export import ExportConfig, ExportError, export_networks, open_networks, predict
from trainers.joint import initial_network
from trainers.libraries import MissingLibraryError
from trainers.network import Network
from trainers.teachers import Trained


def save_pictures(folder: Path) -> None:
    """Of two classes, of every kind: turned, with a palette, grey, transparent, of 16 bits."""
    rng = np.random.default_rng(0)
    for label in ("left", "right"):
        own = folder / label
        own.mkdir(parents=True)
        for number in range(4):
            pixels = rng.integers(0, 256, (12, 20, 3), dtype=np.uint8)
            picture = Image.fromarray(pixels)
            turned = picture.getexif()
            turned[0x0112] = 6
            picture.save(own / f"turned{number}.jpg", exif=turned)
            picture.convert("P").save(own / f"palette{number}.png")
            picture.convert("L").save(own / f"grey{number}.png")
            clear = np.dstack([pixels, rng.integers(0, 256, (12, 20), dtype=np.uint8)])
            Image.fromarray(clear).save(own / f"clear{number}.png")
            deep = rng.integers(0, 4096, (12, 20)).astype(np.uint16)
            Image.fromarray(deep).save(own / f"deep{number}.png")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures") / "photos"
    save_pictures(folder)
    return folder


@pytest.fixture(scope="module")
def loaded(pictures: Path) -> Task:
    """The pictures as training has them."""
    task = TaskConfig(name="a", source="folder", path=pictures.name, test=None)
    return load_task(task, DataConfig(root=str(pictures.parent), input_size=8, tasks=(task,)))


@pytest.fixture(scope="module")
def network(loaded: Task, tasks: dict[str, Task], trunk: Trained, teachers: Any) -> Network:
    found = initial_network(
        candidate(0), {**tasks, "a": loaded}, trunk, teachers, BUILT, 0, torch.device("cpu"),
        initial="teachers",
    )  # fmt: skip
    found.eval()
    return found


@pytest.fixture(scope="module")
def export(network: Network, loaded: Task, tasks: dict[str, Task], tmp_path_factory: Any) -> Path:
    folder: Path = tmp_path_factory.mktemp("export") / "networks"
    export_networks(
        network, {**tasks, "a": loaded}, folder,
        ExportConfig(formats=("onnx", "pt2"), precisions=("int8",), max_loss=1),
    )  # fmt: skip
    return folder


@pytest.mark.parametrize("file", ["network.onnx", "network.pt2"])
def test_pictures_are_seen_as_in_training(
    file: str, export: Path, pictures: Path, loaded: Task, network: Network, tmp_path: Path
) -> None:
    """Every picture is one of the task's, pixel by pixel, and has the evaluation's labels."""
    if file == "network.pt2":
        (tmp_path / "a").mkdir()
        for name in ("network.pt2", "network.json"):
            (tmp_path / "a" / name).write_bytes((export / "a" / name).read_bytes())
        export = tmp_path
    (opened,) = open_networks(export, ["a"])
    assert opened.file == file
    images = torch.cat([split.images for split in loaded.splits.values()])
    with torch.no_grad():
        chances = network(normalise(images, loaded), 0).softmax(1)
    known = {image.numpy().tobytes(): chance for image, chance in zip(images, chances, strict=True)}
    found = predict([opened], find_pictures([str(pictures)]), top=2, keep=True)
    assert len(found) == len(images) == 40
    for one in found:
        assert one.image is not None
        wanted = known[one.image.numpy().tobytes()]
        for label, chance in one.labels["a"]:
            assert chance == pytest.approx(float(wanted[loaded.classes.index(label)]), abs=1e-4)
        assert one.labels["a"][0][0] == loaded.classes[int(wanted.argmax())]


def test_the_command_writes_tables_and_a_sheet(
    export: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.png").write_text("no picture")
    arguments = ["predict", str(export), str(pictures / "left"), str(tmp_path / "broken.png")]
    outputs = ["--csv", str(tmp_path / "t.csv"), "--sheet", str(tmp_path / "sheet.png"), "--json"]
    assert main([*arguments, *outputs, "--int8", "--task", "b", "--top", "2"]) == 1
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == 20 * 2 + 1
    assert {row["network"] for row in rows[:-1]} == {"b"}
    assert "broken.png cannot be decoded" in rows[-1]["error"]
    assert len((tmp_path / "t.csv").read_text().splitlines()) == len(rows) + 1
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 1000
    assert main(arguments[:-1]) == 0
    assert "turned0.jpg" in capsys.readouterr().out


def test_names_are_printed_as_they_are(
    export: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a[copy].png", "b[red].png", "c$x$_{.png"):
        (tmp_path / name).write_bytes((pictures / "left" / "grey0.png").read_bytes())
    assert main(["predict", str(export), str(tmp_path), "--sheet", str(tmp_path / "s.png")]) == 0
    printed = "".join(line.strip("│ ") for line in capsys.readouterr().out.splitlines())
    assert "a[copy].png" in printed
    for sheet, message in (("s.xyz", "must end in one of .png"), ("none/s.png", "in no folder")):
        arguments = ["predict", str(export), str(tmp_path), "--sheet", str(tmp_path / sheet)]
        assert main(arguments) == 2
        assert message in capsys.readouterr().err


def test_pictures_are_found(pictures: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(pictures)
    assert len(find_pictures(["left", "left/*.jpg", "right/deep0.png"])) == 21
    assert len(find_pictures([f"{pictures}/*/grey*.png"])) == 8
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "x.png").write_bytes(b"")
    for name, message in ((str(tmp_path), "has no images"), ("none*.png", r"no none\*")):
        with pytest.raises(DataError, match=message):
            find_pictures([name])


def test_what_cannot_be_run(export: Path, pictures: Path, tmp_path: Path, monkeypatch: Any) -> None:
    names = [str(pictures / "left" / "grey0.png")]
    with pytest.raises(ExportError, match="no network digits: there are a, b"):
        predict_pictures(export, names, networks=["digits"])
    with pytest.raises(ExportError, match="has no network of float16"):
        predict_pictures(export, names, precision="float16")
    with pytest.raises(ExportError, match="has no exported networks"):
        predict_pictures(tmp_path, names)
    with pytest.raises(ValueError, match="--top must be at least 1"):
        predict_pictures(export, names, top=0)
    imported = builtins.__import__

    def without(name: str, *more: Any) -> Any:
        if name == "onnxruntime":
            raise ImportError(name)
        return imported(name, *more)

    monkeypatch.setattr(builtins, "__import__", without)
    assert open_networks(export)[0].file == "network.pt2"
    with pytest.raises(MissingLibraryError, match=r"pip install 'apportion\[onnx\]'"):
        predict_pictures(export, names, precision="int8")


def test_the_card_runs_as_it_says(
    export: Path, pictures: Path, monkeypatch: Any, tmp_path: Path, capsys: Any
) -> None:
    """Its lines, which know nothing of Apportion, name pictures as `predict` does."""
    write_card(export, "photos", {"study": "x"})
    text = (export / "README.md").read_text()
    assert text.startswith("---\nlibrary_name: onnx\n")
    assert (export / "accuracy.png").stat().st_size > 1000
    assert "| a | validation | " in text
    first, second = re.findall(r"```python\n(.*?)```", text, re.S)
    assert "trainers" not in text
    monkeypatch.chdir(export)
    eight_bits = [p for p in find_pictures([str(pictures)]) if not p.name.startswith("deep")]
    found = predict(open_networks(export, ["a"]), eight_bits)
    for one in found:
        exec(first.replace("photo.jpg", str(one.path)), {})
        assert capsys.readouterr().out == f"{one.labels['a'][0][0]}\n"
    exec(second, {})
    assert capsys.readouterr().out.startswith("tensor([")


def test_networks_are_timed(
    export: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    timings = benchmark_export(
        export, precisions=["float32", "int8"], batches=[1, 4], threads=[1], seconds=0
    )
    assert [(t.network, t.file, t.batch) for t in timings] == [
        (name, file, batch)
        for batch in (1, 4)
        for file in ("network.onnx", "network.int8.onnx")
        for name in ("a", "b")
    ]
    assert all(one.ms > 0 for one in timings)
    assert timings[0].images_per_second == pytest.approx(1000 / timings[0].ms)
    draw_timings(timings, tmp_path / "latency.png")
    assert (tmp_path / "latency.png").stat().st_size > 1000
    arguments = ["benchmark", str(export), "--task", "a", "--batch", "2"]
    assert main([*arguments, "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["network"], row["batch"], row["threads"]) == ("a", 2, 1)
    assert main([*arguments[:-1], "0"]) == 2
    assert "at least 1" in capsys.readouterr().err


def test_a_changed_file_is_refused(export: Path, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for path in (export / "a").iterdir():
        (tmp_path / "a" / path.name).write_bytes(path.read_bytes())
    with (tmp_path / "a" / "network.onnx").open("r+b") as file:
        file.seek(200)
        file.write(b"x")
    with pytest.raises(DamagedFileError, match=r"network\.onnx was changed since"):
        open_networks(tmp_path)


def test_normalised_input_is_normalised_here(
    network: Network, loaded: Task, tasks: dict[str, Task], pictures: Path, tmp_path: Path
) -> None:
    config = ExportConfig(formats=("onnx",), inputs="float32")
    export_networks(network, {**tasks, "a": loaded}, tmp_path / "x", config)
    raw = ExportConfig(formats=("pt2",))
    export_networks(network, {**tasks, "a": loaded}, tmp_path / "y", raw)
    first, second = (
        predict(open_networks(tmp_path / name, ["a"]), find_pictures([str(pictures)]))
        for name in "xy"
    )
    for one, other in zip(first, second, strict=True):
        assert one.labels["a"][0][0] == other.labels["a"][0][0]
        assert one.labels["a"][0][1] == pytest.approx(other.labels["a"][0][1], abs=1e-4)
    write_rows([replace(first[0], labels={}, reason="why")], tmp_path / "t.csv")
    assert "why" in (tmp_path / "t.csv").read_text()
