"""The trunk and teachers: what they learn, what decides them, and how they are stored."""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tests.helpers.small_networks import BACKBONE, BUILT, COMPUTE, SGD
from tests.helpers.tasks import bright_task
from trainers.data import Task, augment, draw_batch
from trainers.network import Whole, accuracy
from trainers.networks import BackboneConfig, BackboneError, build_model
from trainers.optim import learning_rate_at
from trainers.teachers import (
    TeacherConfig,
    Trained,
    given_weights,
    load,
    pretrain_trunk,
    store,
    teacher_digest,
    train_single,
    train_teacher,
)

TRUNK = set(BUILT.trunk.state_dict())


def test_teachers_learn_and_leave_the_shared_trunk_alone(
    trunk: Trained, teachers: dict[str, Trained]
) -> None:
    assert {name.split(".")[0] for name in TRUNK} == {"conv", "bn", "stage1", "stage2"}
    for teacher in teachers.values():
        assert teacher.accuracy > 0.9
        for name in TRUNK - BUILT.own:
            assert torch.equal(teacher.state[name], trunk.state[name]), name
        for name in ("bn.weight", "bn.running_mean", "stage2.1.bn2.bias", "stage3.0.conv1.weight"):
            assert not torch.equal(teacher.state[name], trunk.state[name]), name


def test_teacher_with_a_frozen_trunk_keeps_its_norms(
    tasks: dict[str, Task], trunk: Trained
) -> None:
    config = TeacherConfig(sgd=replace(SGD, steps=3), adapt_norms=False)
    teacher = train_teacher(BACKBONE, trunk, tasks["a"], config, seed=0, compute=COMPUTE)
    for name in TRUNK:
        assert torch.equal(teacher.state[name], trunk.state[name]), name
    for name in ("stage3.0.bn1.weight", "stage3.0.bn1.running_mean", "stage3.1.conv2.weight"):
        assert not torch.equal(teacher.state[name], trunk.state[name]), name


def test_states_are_the_networks_own(trunk: Trained, teachers: dict[str, Trained]) -> None:
    """Under its names: the network itself takes them, and gives what was measured."""
    for state in (trunk.state, teachers["a"].state):
        model = build_model("resnet14", {"width": 4, "classes": 2})
        model.load_state_dict(dict(state))
        images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        whole = Whole(BUILT, state, torch.device("cpu")).eval()
        with torch.no_grad():
            torch.testing.assert_close(whole(images), model(images))
        assert whole.state().keys() == state.keys()
        assert all(torch.equal(whole.state()[name], value) for name, value in state.items())


def test_training_is_that_of_a_plain_loop(tasks: dict[str, Task]) -> None:
    """Over the network itself; weight decay pulls on its layers alone."""
    sgd = replace(SGD, steps=4, weight_decay=0.1, label_smoothing=0.1)
    state = BUILT.initial(2, 0)
    network = Whole(BUILT, state, torch.device("cpu"))
    train_single(network, tasks["a"], sgd, frozen="nothing", seed=3, compute=COMPUTE)
    model = build_model("resnet14", {"width": 4, "classes": 2})
    model.load_state_dict(state)
    decayed = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    others = [p for p in model.parameters() if all(p is not each for each in decayed)]
    optimizer = torch.optim.SGD(
        [{"params": decayed, "weight_decay": 0.1}, {"params": others}],
        lr=1.0, momentum=sgd.momentum, nesterov=True,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(3)
    model.train()
    for step in range(4):
        images, labels = draw_batch(tasks["a"].splits["train"], sgd.batch_size, generator)
        logits = model(augment(images, tasks["a"], generator))
        optimizer.zero_grad()
        nn.functional.cross_entropy(logits, labels, label_smoothing=0.1).backward()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(sgd, step)
        optimizer.step()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(network.state()[name], value, rtol=1e-4, atol=1e-5)


def test_training_begins_with_given_weights(tmp_path: Path, trunk: Trained) -> None:
    save_file(dict(trunk.state), tmp_path / "w.safetensors")
    config = replace(BACKBONE, weights=str(tmp_path / "w.safetensors"))
    start = given_weights(config, input_size=8)
    assert config.pretrained
    assert np.isnan(start.accuracy)
    sgd = replace(SGD, steps=1, learning_rate=1e-9, weight_decay=0.0)
    task = bright_task("trunk", 5)
    first, again = (
        pretrain_trunk(each, task, sgd, seed=0, compute=COMPUTE, start=start)
        for each in (config, BACKBONE)
    )
    fresh = pretrain_trunk(BACKBONE, task, sgd, seed=0, compute=COMPUTE)
    for name, value in trunk.state.items():
        if not name.startswith("head.") and name.endswith("weight"):
            torch.testing.assert_close(first.state[name], value, rtol=1e-5, atol=1e-6)
            if value.ndim == 4:
                assert not torch.allclose(fresh.state[name], value, atol=1e-3)
    # It is the weights that count, not where they lie.
    assert first.digest == again.digest != fresh.digest
    assert not torch.equal(first.state["head.weight"], trunk.state["head.weight"])


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
        digest(config=replace(BACKBONE, args={"width": 8})),
        digest(config=replace(BACKBONE, partition=("stage2.*",))),
        digest(trunk=replace(trunk, digest="other")),
        digest(task=tasks["b"]),
        digest(teacher=TeacherConfig(sgd=replace(SGD, steps=31))),
        digest(seed=1),
        digest(precision="bf16"),
    ]
    for same in ({"weights": "elsewhere.safetensors"}, {"stream": True}):
        assert digest() == digest(config=replace(BACKBONE, **same))
    assert len({digest(), *others}) == len(others) + 1


def test_weights_survive_storing(tmp_path: Path, trunk: Trained) -> None:
    store(trunk, tmp_path / "new" / "trunk.safetensors")
    back = load(tmp_path / "new" / "trunk.safetensors")
    assert back.accuracy == trunk.accuracy
    assert back.digest == trunk.digest
    assert all(torch.equal(back.state[name], tensor) for name, tensor in trunk.state.items())
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["trunk.safetensors"]


def test_given_weights(tmp_path: Path, trunk: Trained) -> None:
    good = tmp_path / "trunk.safetensors"
    save_file(dict(trunk.state), good)
    torch.save(dict(trunk.state), tmp_path / "trunk.pt")
    found = []
    for path in (good, tmp_path / "trunk.pt"):
        loaded = given(path)
        for name, value in trunk.state.items():
            assert name.startswith("head.") or torch.equal(loaded.state[name], value), name
        found.append(loaded)
    assert found[0].digest == found[1].digest == found[0].content
    moved = dict(trunk.state) | {"conv.weight": trunk.state["conv.weight"] + 1}
    save_file(moved, tmp_path / "moved.safetensors")
    assert given(tmp_path / "moved.safetensors").digest != found[0].digest
    headless = {n: v for n, v in trunk.state.items() if not n.startswith("head.")}
    save_file(headless, tmp_path / "headless.safetensors")
    assert given(tmp_path / "headless.safetensors").digest == found[0].digest
    other = dict(trunk.state) | {"head.weight": torch.ones(7, 16), "head.bias": torch.ones(7)}
    save_file(other, tmp_path / "other.safetensors")
    assert given(tmp_path / "other.safetensors").digest == found[0].digest


def given(path: Path, config: BackboneConfig = BACKBONE) -> Trained:
    return given_weights(replace(config, weights=str(path)), input_size=8)


def test_given_weights_that_cannot_be_read_or_do_not_fit(tmp_path: Path, trunk: Trained) -> None:
    good = tmp_path / "trunk.safetensors"
    save_file(dict(trunk.state), good)
    wide = replace(BACKBONE, args={"width": 8})
    with pytest.raises(BackboneError, match=r"do not fit: bn\.bias is \(4,\) for \(8,\)"):
        given(good, wide)
    with pytest.raises(BackboneError, match=r"missing\.safetensors do not exist"):
        given(tmp_path / "missing.safetensors")
    path = tmp_path / "broken.safetensors"
    path.write_bytes(b"not safetensors")
    with pytest.raises(BackboneError, match=r"broken\.safetensors are no safetensors file"):
        given(path)
    save_file(dict(trunk.state) | {"conv.weight": trunk.state["conv.weight"] / 0}, path)
    with pytest.raises(BackboneError, match=r"values that are not finite: conv\.weight"):
        given(path)
    save_file({k: v for k, v in trunk.state.items() if k != "conv.weight"}, path)
    with pytest.raises(BackboneError, match=r"1 tensors are missing, such as conv\.weight"):
        given(path)


class Malicious:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (Path.touch, (self.path,))


def test_weights_that_need_unpickling_are_refused_and_not_run(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    (tmp_path / "evil.pt").write_bytes(pickle.dumps(Malicious(trap)))
    torch.save({"conv.weight": Malicious(trap)}, tmp_path / "evil2.pt")
    for name in ("evil.pt", "evil2.pt"):
        with pytest.raises(BackboneError, match="would have to be unpickled"):
            given(tmp_path / name)
    assert not trap.exists()


def test_weights_that_the_last_step_made_infinite_have_no_accuracy(tasks: dict[str, Task]) -> None:
    network = Whole(BUILT, BUILT.initial(2, 0), torch.device("cpu")).eval()
    with torch.no_grad():
        next(network.tail.parameters()).fill_(torch.inf)
    with pytest.raises(FloatingPointError, match="network of a gives outputs that are not finite"):
        accuracy(network, tasks["a"], 16)
