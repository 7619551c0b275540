"""The trunk and teachers: what they learn, what decides them, and how they are stored."""

import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.helpers.small_networks import BACKBONE, COMPUTE, SGD
from trainers.data import Task
from trainers.network import accuracy
from trainers.teachers import (
    CheckpointError,
    TeacherConfig,
    Trained,
    load,
    load_checkpoint,
    new_network,
    store,
    teacher_digest,
    train_teacher,
)


def test_teachers_learn_and_leave_the_shared_trunk_alone(
    trunk: Trained, teachers: dict[str, Trained]
) -> None:
    for teacher in teachers.values():
        assert teacher.accuracy > 0.9
        for name, tensor in trunk.state.items():
            if name.startswith("trunk.") and name.endswith("weight") and tensor.ndim == 4:
                assert torch.equal(teacher.state[name], tensor)
        assert not torch.equal(teacher.state["trunk.bn.0.weight"], trunk.state["trunk.bn.0.weight"])
        assert not torch.equal(
            teacher.state["tail.blocks.0.conv1.weight"], trunk.state["tail.blocks.0.conv1.weight"]
        )


def test_teacher_with_a_frozen_trunk_keeps_its_norms(
    tasks: dict[str, Task], trunk: Trained
) -> None:
    config = TeacherConfig(sgd=replace(SGD, steps=3), adapt_norms=False)
    teacher = train_teacher(BACKBONE, trunk, tasks["a"], config, seed=0, compute=COMPUTE)
    for name, tensor in trunk.state.items():
        if name.startswith("trunk.") and tensor.is_floating_point():
            assert torch.equal(teacher.state[name], tensor), name


def test_digests_follow_what_determines_a_teacher(tasks: dict[str, Task], trunk: Trained) -> None:
    def digest(**changed: object) -> str:
        arguments: dict[str, object] = {
            "config": BACKBONE,
            "trunk": trunk,
            "task": tasks["a"],
            "teacher": TeacherConfig(sgd=SGD),
            "seed": 0,
            "precision": "fp32",
        }
        return teacher_digest(**(arguments | changed))  # type: ignore[arg-type]

    others = [
        digest(config=replace(BACKBONE, width=8)),
        digest(trunk=replace(trunk, digest="other")),
        digest(task=tasks["b"]),
        digest(teacher=TeacherConfig(sgd=replace(SGD, steps=31))),
        digest(seed=1),
        digest(precision="bf16"),
    ]
    assert digest() == digest()
    assert len({digest(), *others}) == len(others) + 1


def test_weights_survive_storing(tmp_path: Path, trunk: Trained) -> None:
    store(trunk, tmp_path / "new" / "trunk.safetensors")
    back = load(tmp_path / "new" / "trunk.safetensors")
    assert back.accuracy == trunk.accuracy
    assert back.digest == trunk.digest
    assert all(torch.equal(back.state[name], tensor) for name, tensor in trunk.state.items())
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["trunk.safetensors"]


def test_checkpoints(tmp_path: Path, trunk: Trained) -> None:
    good = tmp_path / "trunk.safetensors"
    save_file(dict(trunk.state), good)
    torch.save(dict(trunk.state), tmp_path / "trunk.pt")
    for path in (good, tmp_path / "trunk.pt"):
        loaded = load_checkpoint(BACKBONE, path)
        assert torch.equal(loaded.state["trunk.conv.weight"], trunk.state["trunk.conv.weight"])
    with pytest.raises(CheckpointError, match=r"another width.*backbone.width 8"):
        load_checkpoint(replace(BACKBONE, width=8), good)
    with pytest.raises(CheckpointError, match="does not exist"):
        load_checkpoint(BACKBONE, tmp_path / "missing.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        load_checkpoint(BACKBONE, tmp_path / "broken.safetensors")
    infinite = dict(trunk.state) | {"trunk.conv.weight": trunk.state["trunk.conv.weight"] / 0}
    save_file(infinite, tmp_path / "infinite.safetensors")
    with pytest.raises(
        CheckpointError, match=r"trunk\.conv\.weight has values that are not finite"
    ):
        load_checkpoint(BACKBONE, tmp_path / "infinite.safetensors")
    short = {k: v for k, v in trunk.state.items() if k != "trunk.conv.weight"}
    save_file(short, tmp_path / "short.safetensors")
    with pytest.raises(CheckpointError, match=r"no tensor 'trunk\.conv\.weight'"):
        load_checkpoint(BACKBONE, tmp_path / "short.safetensors")


class Malicious:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (Path.touch, (self.path,))


def test_a_checkpoint_that_needs_unpickling_is_refused_and_not_run(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    (tmp_path / "evil.pt").write_bytes(pickle.dumps(Malicious(trap)))
    torch.save({"trunk.conv.weight": Malicious(trap)}, tmp_path / "evil2.pt")
    for name in ("evil.pt", "evil2.pt"):
        with pytest.raises(CheckpointError, match="would have to be unpickled"):
            load_checkpoint(BACKBONE, tmp_path / name)
    assert not trap.exists()


def test_weights_that_the_last_step_made_infinite_have_no_accuracy(tasks: dict[str, Task]) -> None:
    network = new_network(BACKBONE, tasks["a"], seed=0)
    with torch.no_grad():
        next(network.tail.parameters()).fill_(torch.inf)
    with pytest.raises(FloatingPointError, match="network of a gives outputs that are not finite"):
        accuracy(network, tasks["a"], 0)
