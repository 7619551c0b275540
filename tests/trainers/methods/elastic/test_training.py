"""Networks and selector trained in turn, what is measured of choices, and what is exported."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch

from tests.trainers.methods.conftest import Finished
from tests.trainers.methods.elastic.test_networks import backbone_of, images
from tests.trainers.methods.elastic.test_networks import networks_of as elastic_of
from tests.trainers.methods.helpers import (
    PER_IMAGE,
    first_phases,
    networks_of,
    plan_of,
    toy_tasks,
    trained,
)
from trainers.data import DataConfig, TaskConfig, load_tasks, normalise
from trainers.export import read_export
from trainers.methods.elastic import (
    ChosenPerImage,
    ElasticNetworks,
    ElasticPhase,
    draws_of,
    export_chosen,
    measure_choices,
)
from trainers.methods.elastic.export import ExportedNetwork


def elastic(networks: Mapping[str, object]) -> ElasticNetworks:
    part = networks["all"]
    assert isinstance(part, ElasticNetworks)
    return part


@pytest.mark.parametrize("method", PER_IMAGE)
def test_networks_and_selector_are_trained_in_turn(
    method: str, finished: Callable[..., Finished], tmp_path: Path
) -> None:
    plan = plan_of(method)
    states = [
        trained(first_phases(plan, count), toy_tasks(), tmp_path).state for count in range(1, 5)
    ]
    for before, after, phase in zip(states, states[1:], plan.phases[1:], strict=False):
        assert isinstance(phase, ElasticPhase)
        changed = {name for name in after if not torch.equal(before[name], after[name])}
        assert changed
        assert all(name.startswith("all/selector.") for name in changed) == (
            phase.trains == "selector"
        )
        assert any(name.startswith("all/selector.") for name in changed) == (
            phase.trains == "selector"
        )
    assert [phase.draw for phase in plan.phases if phase.trains == "networks"][1:] == ["selector"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("draw", ["whole_or_any", "each_whole_or_any", "selector"])
def test_models_are_drawn_as_a_phase_says(draw: str) -> None:
    part = elastic_of(backbone_of("resnet14"))
    phase = ElasticPhase(part="all", rows=(0,), draw=draw, whole=0.5)
    many = images(8).repeat(50, 1, 1, 1)
    found = draws_of(phase, part, many, "one", torch.Generator().manual_seed(0))[:, 0]
    assert found.shape == (400, 6)
    assert (found.min(), found.max()) == (0, 3)
    whole = (found == 3).float().mean(1)
    if draw == "whole_or_any":
        assert 0.4 < (whole == 1).float().mean() < 0.6
    else:  # the selector begins with tau .75
        wanted = 0.5 + 0.5 / 4 if draw == "each_whole_or_any" else 0.75 + 0.25 / 4
        assert float(whole.mean()) == pytest.approx(wanted, abs=0.04)


def test_a_heavy_cost_makes_networks_small(tmp_path: Path) -> None:
    """With a rho beside which the loss is nothing, the selector learns to leave all out."""
    tasks, macs = toy_tasks(), []
    for weight in (0.0, 100.0):
        plan = plan_of("den", cost_weight=weight, stages=1, selector_steps=10.0, selector_rate=0.05)
        result = trained(plan, tasks, tmp_path / str(weight))
        macs.append(result.choices["validation"]["digits@4"]["macs"])
    assert macs[1] < 0.5 * macs[0]


@torch.no_grad()
def let_images_differ(part: ElasticNetworks) -> None:
    """Have the selector go by the image: features' differences from their mean, at random."""
    generator = torch.Generator().manual_seed(1)
    for parameter in part.selector.parameters():
        parameter.normal_(generator=generator)
    for number, head in enumerate(part.selector.heads):
        data, _ = toy_tasks()[part.tasks[number]].splits["test"].batch(0, 40)
        seen: list[torch.Tensor] = []
        hook = head.register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args[0]))
        part.choose(normalise(data, toy_tasks()[part.tasks[number]]), part.tasks[number])
        hook.remove()
        head.bias.copy_(-head.weight @ seen[0].mean(0))


def test_measuring_changes_nothing_and_choices_are_each_images_own(
    finished: Callable[..., Finished],
) -> None:
    done = finished("den")
    part = elastic(networks_of(done.plan, done.result.state))
    before = part.state()
    task = toy_tasks()["digits"]
    row = part.row_of("digits", part.part.levels)
    let_images_differ(part)
    moved = part.state()
    measure_choices(part, row, task, "test")
    assert all(torch.equal(tensor, moved[name]) for name, tensor in part.state().items())
    data, _ = task.splits["test"].batch(0, 40)
    images = normalise(data, task)
    together = part.choose(images, "digits")
    assert len(together.unique(dim=0)) > 1
    alone = torch.cat([part.choose(images[at : at + 1], "digits") for at in range(40)])
    assert torch.equal(together, alone)
    assert before.keys() == moved.keys()


def test_what_is_measured_of_choices(finished: Callable[..., Finished]) -> None:
    done = finished("auto_virtualnet")
    part = elastic(networks_of(done.plan, done.result.state))
    let_images_differ(part)
    task = toy_tasks()["digits"]
    row = part.row_of("digits", part.part.levels + 1)
    found = measure_choices(part, row, task, "test")
    assert found["images"] == 40
    assert sum(count for _, count in found["structures"]) <= 40
    assert found["different"] > 1
    for shares in found["levels"]:
        assert sum(shares) == pytest.approx(1)
    data, _ = task.splits["test"].batch(0, 40)
    levels = part.choose(normalise(data, task), "digits")[:, 1].numpy()
    counted = part.backbone.counter.count(part.kept_by("digits", levels))
    assert found["macs"] == pytest.approx(
        float(counted.macs.mean()) + part.backbone.features * task.num_classes
    )
    assert found["parameters"] == pytest.approx(
        float(counted.parameters.mean()) + (part.backbone.features + 1) * task.num_classes
    )
    for (structure, _), positions in zip(found["structures"], found["examples"], strict=True):
        assert (levels[positions] == structure).all()
    assert found["random_macs"] == pytest.approx(found["macs"], rel=0.1)
    parameters, macs = part.selector.costs(task.size)
    head = part.selector.heads[0]
    assert macs < sum(p.numel() for p in part.selector.parameters()) * 64
    assert parameters == sum(p.numel() for p in part.selector.parameters()) - 2 * sum(
        p.numel() for p in head.parameters()
    )


@pytest.mark.parametrize("method", ["auto_virtualnet"])
def test_the_exported_selector_chooses_what_was_chosen(
    method: str, finished: Callable[..., Finished], tmp_path: Path
) -> None:
    done = finished(method)
    part = elastic(networks_of(done.plan, done.result.state))
    let_images_differ(part)
    task = toy_tasks()["colours"]
    row = part.row_of("colours", part.part.levels)
    check = export_chosen(part, row, task, tmp_path / "colours")
    assert check.accuracy == check.masked_accuracy
    said = read_export(tmp_path / "colours")
    assert said["chosen_per_image"]
    assert said["macs"] < part.backbone.counter.count(part.backbone.kept(part.part.masks)).macs[3]
    raw, _ = task.splits["test"].batch(0, 9)
    exported = ChosenPerImage(tmp_path / "colours")
    levels = part.choose(normalise(raw, task), "colours")[:, 0]
    assert torch.equal(exported.selector(raw), levels)
    assert len(levels.unique(dim=0)) > 1
    with torch.no_grad():
        wanted = part(normalise(raw, task), row)
    torch.testing.assert_close(exported(raw), wanted, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(exported(raw[:1]), wanted[:1], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_what_a_level_does_not_have_is_not_computed() -> None:
    """Of an exported program, by what the profiler sees."""
    part = elastic_of(backbone_of("wrn32"))
    data = DataConfig(tasks=(TaskConfig(name="digits", source="toy", limit=20),), input_size=32)
    task = load_tasks(data)["digits"]
    part.tasks = ("digits", "two")
    part._first["digits"] = part._first["one"]
    raw = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    example = raw, torch.zeros(15, dtype=torch.int64)
    network = torch.export.export(ExportedNetwork(part, 4, task).eval(), example).module()
    counted = []
    for level in range(4):
        with torch.profiler.profile(with_flops=True) as profile:
            network(raw, torch.full((15,), level))
        events = [e for e in profile.key_averages() if e.key in ("aten::conv2d", "aten::addmm")]
        counted.append(sum(event.flops or 0 for event in events) / 2)
    kept = [part.kept_by("digits", torch.full((1, 15), level).numpy()) for level in range(4)]
    wanted = [int(part.backbone.counter.count(each).macs[0]) for each in kept]
    head = part.backbone.features * 3
    assert counted == pytest.approx([each + head for each in wanted])
