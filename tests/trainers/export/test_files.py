"""The files of an export: each in its own runtime, beside the masked network."""

import importlib.util
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from search.report import write_card
from tests.helpers.small_networks import BUILT, NAMES, candidate
from trainers.data import Task, normalise
from trainers.export import ExportConfig, Exported, ExportError, check_export, export_networks
from trainers.export.compact import program_of
from trainers.export.onnx_files import to_onnx
from trainers.joint import initial_network
from trainers.network import Network
from trainers.teachers import Trained

FILES = ("network.float16.onnx", "network.int8.onnx", "network.onnx", "network.pt2")


@pytest.fixture(scope="module")
def network(tasks: dict[str, Task], trunk: Trained, teachers: dict[str, Trained]) -> Network:
    """With heads and norms of teachers, so that it names most images rightly."""
    found = initial_network(
        candidate(0), tasks, trunk, teachers, BUILT, 0, torch.device("cpu"), initial="teachers"
    )
    found.eval()
    return found


@pytest.fixture(scope="module")
def made(
    network: Network, tasks: dict[str, Task], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Exported, Path]:
    """Everything that can be written."""
    folder = tmp_path_factory.mktemp("networks")
    config = ExportConfig(
        formats=("onnx", "pt2", "safetensors", "merged"), precisions=("float16", "int8"), max_loss=1
    )
    return export_networks(network, tasks, folder, config), folder


def session_of(path: Path) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def test_every_file_computes_what_the_masked_network_does(
    made: tuple[Exported, Path], network: Network, tasks: dict[str, Task]
) -> None:
    exported, folder = made
    for row, name in enumerate(NAMES):
        assert sorted(exported.checks[name]) == sorted([*FILES, "merged.pt"])
        images, _ = tasks[name].splits["test"].batch(0, 5)
        with torch.no_grad():
            wanted = network(normalise(images, tasks[name]), row).numpy()
        close = {"network.onnx": 1e-4, "network.float16.onnx": 1e-2, "network.int8.onnx": 0.2}
        for file, tolerance in close.items():
            (logits,) = session_of(folder / name / file).run(["logits"], {"images": images.numpy()})
            scale = max(1.0, np.abs(wanted).max())
            assert np.abs(logits - wanted).max() <= tolerance * scale
        described = json.loads((folder / name / "network.json").read_text())
        for file in FILES:
            own = described["files"][file]
            assert own["bytes"] == (folder / name / file).stat().st_size
            check = exported.checks[name][file]
            assert own["accuracy"] == check.accuracy
            low, high = check.loss_interval
            assert low <= check.loss <= high
            if file != "network.float16.onnx":
                assert own["latency_ms"].keys() == {
                    "batch_1", "batch_64", "undivided_batch_1", "undivided_batch_64"
                }  # fmt: skip
        small = (folder / name / "network.int8.onnx").stat().st_size
        assert small < (folder / name / "network.onnx").stat().st_size


def test_an_onnx_file_says_what_it_is(made: tuple[Exported, Path], tasks: dict[str, Task]) -> None:
    _, folder = made
    for file in ("network.onnx", "network.int8.onnx", "network.float16.onnx"):
        session = session_of(folder / "a" / file)
        (images,), (logits,) = session.get_inputs(), session.get_outputs()
        assert (images.name, images.shape, images.type) == (
            "images", ["batch", 3, 8, 8], "tensor(uint8)"
        )  # fmt: skip
        assert (logits.name, logits.shape) == ("logits", ["batch", 2])
        about = json.loads(session.get_modelmeta().custom_metadata_map["apportion"])
        assert about["classes"] == ["left", "right"]
        assert about["input"]["mean"] == pytest.approx(tasks["a"].mean.tolist())
        assert b"/trainers/" not in (folder / "a" / file).read_bytes()
        assert session.run(None, {"images": np.zeros((1, 3, 8, 8), np.uint8)})[0].shape == (1, 2)


def test_one_file_has_all_networks(
    made: tuple[Exported, Path], network: Network, tasks: dict[str, Task], tmp_path: Path
) -> None:
    """Its page needs torch alone, and knows nothing of Apportion."""
    exported, folder = made
    images, _ = tasks["a"].splits["test"].batch(0, 6)
    torch.save(images, tmp_path / "images.pt")
    page = (
        "import sys, torch\n"
        f"sys.path.insert(0, {str(folder)!r})\n"
        "from merged import Merged\n"
        f"network = Merged({str(folder / 'merged.pt')!r})\n"
        f"found = network(torch.load({str(tmp_path / 'images.pt')!r}))\n"
        f"torch.save(found, {str(tmp_path / 'logits.pt')!r})\n"
        "assert not {'trainers', 'partitioning', 'search'} & {*sys.modules}\n"
        "assert list(network(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), ['b'])) == ['b']\n"
    )
    subprocess.run([sys.executable, "-I", "-c", page], check=True, cwd=tmp_path)
    found = torch.load(tmp_path / "logits.pt")
    assert list(found) == list(NAMES)
    for row, name in enumerate(NAMES):
        with torch.no_grad():
            wanted = network(normalise(images, tasks[name]), row)
        torch.testing.assert_close(found[name], wanted, rtol=1e-4, atol=1e-4)
    assert exported.merged_bytes == (folder / "merged.pt").stat().st_size
    apart = [one["macs"] for one in exported.networks.values()]
    assert exported.merged_macs == sum(apart)  # the trunk has norms of each task
    assert list(exported.added_bytes) == list(NAMES)
    assert sum(exported.added_bytes.values()) == pytest.approx(exported.merged_bytes, rel=0.02)


def test_what_tasks_share_is_there_once(made: tuple[Exported, Path], network: Network) -> None:
    """Of a divided weight, the entries that a task or the other has."""
    kept = torch.load(made[1] / "merged.pt")
    used = int(network.masks.forward["stage3.0.conv1"].any(axis=0).sum())
    width = len(network.masks.forward["stage3.0.conv1"][0])
    assert used < width
    read = kept["shapes"]["stage3.0.conv1.weight"][1]
    assert kept["shapes"]["stage3.0.conv1.weight"] == [width, read, 3, 3]
    assert kept["shared"]["stage3.0.conv1.weight"].shape == (used * read, 3, 3)
    assert kept["shared"]["stage3.0.conv2.weight"].shape == (used * width, 3, 3)
    trunks = {repr(parts[0]["shared"]) for parts in kept["networks"].values()}
    assert len(trunks) == 1
    assert len(kept["programs"]) <= 3, "the trunk's once, whatever its norms"


def test_a_trunk_without_norms_of_its_own_is_computed_once(
    tasks: dict[str, Task], trunk: Trained, tmp_path: Path
) -> None:
    same = dict.fromkeys(NAMES, tasks["a"])
    given = dict.fromkeys(NAMES, trunk)
    network = initial_network(candidate(0), same, trunk, given, BUILT, 0, torch.device("cpu"))
    exported = export_networks(network, same, tmp_path, ExportConfig(formats=("merged",)))
    spec = importlib.util.spec_from_file_location("merged", tmp_path / "merged.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    merged = module.Merged(tmp_path / "merged.pt")
    assert len(merged._made) == 3, "a trunk and two tails"
    assert merged.trunks == 1
    apart = [one["macs"] for one in exported.networks.values()]
    with FlopCounterMode(display=False) as counter:
        network.trunks[0](torch.zeros(1, 3, 8, 8))
    assert exported.merged_macs == sum(apart) - counter.get_total_flops() // 2


def test_normalised_images_are_read_where_asked(
    network: Network, tasks: dict[str, Task], tmp_path: Path
) -> None:
    config = ExportConfig(formats=("onnx", "pt2", "merged"), inputs="float32")
    export_networks(network, tasks, tmp_path, config)
    images, _ = tasks["a"].splits["test"].batch(0, 5)
    normalised = normalise(images, tasks["a"])
    program = torch.export.load(tmp_path / "a" / "network.pt2").module()
    with torch.no_grad():
        wanted = network(normalised, 0)
        torch.testing.assert_close(program(normalised), wanted, rtol=1e-4, atol=1e-4)
    (logits,) = session_of(tmp_path / "a" / "network.onnx").run(
        None, {"images": normalised.numpy()}
    )
    np.testing.assert_allclose(logits, wanted.numpy(), rtol=1e-4, atol=1e-4)
    described = json.loads((tmp_path / "a" / "network.json").read_text())
    assert described["input"]["type"] == "float32"


def test_what_costs_too_much_accuracy_is_refused(network: Network, tasks: dict[str, Task]) -> None:
    def wrong(images: torch.Tensor) -> torch.Tensor:
        logits = network(normalise(images, tasks["a"]), 0)
        return logits.roll(1, dims=1)

    def compared(max_loss: float) -> float:
        masked = lambda images: network(images, 0)  # noqa: E731
        return check_export(wrong, masked, tasks["a"], "test", 64, max_loss=max_loss).loss

    assert compared(1.0) > 0.2, "the network must be better than chance for this to say anything"
    with pytest.raises(
        ExportError, match=r"task a loses \d+\.\d+ points of accuracy \[.*more than"
    ):
        compared(0.01)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"formats": ("tflite",)}, "'tflite' is not a format: there are onnx, pt2"),
        ({"formats": ()}, "an export needs a format"),
        ({"precisions": ("int4",)}, "'int4' is not a precision"),
        ({"formats": ("pt2",), "precisions": ("int8",)}, "int8 need the format onnx"),
        ({"max_loss": -0.1}, "from 0 to 1"),
        ({"calibration": 0}, "needs images to calibrate"),
    ],
)
def test_settings_that_contradict_each_other(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ExportError, match=message):
        ExportConfig(**settings)


def test_a_task_without_a_channel_of_a_group(
    tasks: dict[str, Task], trunk: Trained, teachers: dict[str, Trained], tmp_path: Path
) -> None:
    """Its weights there count as 0; the channels of others stay theirs, all but one here."""
    masks = candidate(0)
    forward = {name: mask.copy() for name, mask in masks.forward.items()}
    for mask in forward.values():
        mask[0], mask[1] = False, True
        mask[1, 0] = False
    sparse = replace(masks, forward=forward)
    network = initial_network(sparse, tasks, trunk, teachers, BUILT, 0, torch.device("cpu"))
    config = ExportConfig(formats=("onnx", "pt2", "merged"))
    exported = export_networks(network, tasks, tmp_path / "x", config)
    for name in NAMES:
        assert set(exported.checks[name]) == {"network.onnx", "network.pt2", "merged.pt"}
    export_networks(network, tasks, tmp_path / "y", ExportConfig(formats=("merged",)))
    write_card(tmp_path / "y", "merged alone", {})
    described = json.loads((tmp_path / "y" / "a" / "network.json").read_text())
    assert described["merged"]["bytes"] == (tmp_path / "y" / "merged.pt").stat().st_size
    assert described["accuracy"] == described["merged"]["accuracy"]
    assert "| a | test | " in (tmp_path / "y" / "README.md").read_text()


class Odd(nn.Module):
    """A scalar, a gradient-free region, and images that become rows and images again."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.scale = nn.Parameter(torch.tensor(0.5))
        self.mix = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, 3, H, W) to (B, 4)."""
        y = (self.conv(x) * self.scale).mean(dim=(2, 3))
        with torch.no_grad():
            y = y + 1
        count = y.shape[0]
        rows = self.mix(y.reshape(2 * count, 2)).relu()
        mapped: torch.Tensor = rows.reshape(count, 4)
        return mapped


def test_programs_of_unusual_networks(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Odd().eval()
    program = program_of(network, torch.randn(2, 3, 6, 6))
    torch.export.save(program, tmp_path / "network.pt2")
    for left in (b"test_files.py", b"site-packages"):
        assert left not in (tmp_path / "network.pt2").read_bytes()
    (tmp_path / "network.onnx").write_bytes(to_onnx(program, {}).SerializeToString())
    session = session_of(tmp_path / "network.onnx")
    for count in (1, 5, 64):
        images = torch.randn(count, 3, 6, 6)
        (found,) = session.run(None, {"images": images.numpy()})
        np.testing.assert_allclose(found, network(images).detach().numpy(), rtol=1e-4, atol=1e-5)
