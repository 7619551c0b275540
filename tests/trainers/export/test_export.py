"""Compact networks: exported, checked, and refused where they differ."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.helpers.small_networks import BACKBONE, BUILT, COMPUTE, NAMES, SGD, candidate
from trainers.data import Task
from trainers.export import (
    ExportCheck,
    ExportConfig,
    ExportError,
    check_export,
    export_networks,
    read_export,
)
from trainers.export.compact import CompactNetwork
from trainers.joint import TrainConfig, initial_network, train_jointly, trained_network
from trainers.teachers import Trained


def test_export_writes_checked_networks_that_need_only_torch(
    tmp_path: Path, tasks: dict[str, Task], trunk: Trained, teachers: dict[str, Trained]
) -> None:
    result = train_jointly(
        candidate(1), tasks, trunk, teachers, TrainConfig(sgd=SGD),
        backbone=BACKBONE, seed=0, compute=COMPUTE,
    )  # fmt: skip
    network = trained_network(result.state, candidate(1), tasks, trunk, teachers, BUILT)
    config = ExportConfig(formats=("pt2", "safetensors"))
    checks = export_networks(network, tasks, tmp_path, config).checks
    assert set(checks) == set(NAMES)
    for row, name in enumerate(NAMES):
        program = torch.export.load(tmp_path / name / "network.pt2").module()
        images = tasks[name].splits["test"].images
        predicted = program(images).argmax(1)
        hits = float((predicted == tasks[name].splits["test"].labels).float().mean())
        assert hits == checks[name]["network.pt2"].accuracy == result.accuracy["test"][name]
        assert program(images[:1]).shape == (1, 2)
        description = read_export(tmp_path / name)
        assert description["classes"] == ["left", "right"]
        assert description["accuracy"] == hits
        weights = load_file(tmp_path / name / "weights.safetensors")
        used = network.masks.forward["stage3.0.conv1"][row].sum()
        assert weights["tail.stage3.0.conv1.weight"].shape[0] == used


def test_a_wrong_compact_network_is_not_exported(
    tasks: dict[str, Task], trunk: Trained, teachers: dict[str, Trained]
) -> None:
    network = initial_network(candidate(0), tasks, trunk, teachers, BUILT, 0, torch.device("cpu"))
    compact = CompactNetwork(network, 0, tasks["a"]).eval()

    def compared(compact: CompactNetwork) -> ExportCheck:
        network.eval()
        return check_export(compact, lambda images: network(images, 0), tasks["a"], "test", 64)

    assert compared(compact).max_difference < 1e-4
    with torch.no_grad():
        compact.head.weight.add_(0.05)
    with pytest.raises(ExportError, match="task a differs"):
        compared(compact)
    with torch.no_grad():
        compact.head.weight.fill_(float("nan"))
    with pytest.raises(ExportError, match="not finite"):
        compared(compact)
