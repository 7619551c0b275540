"""Tasks whose images are of other sizes, with stems of their own."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from tests.trainers.methods.helpers import BUILT, CPU, SGD, plan_of, trained
from trainers.data import DataConfig, Task, TaskConfig, load_tasks, normalise
from trainers.export import export_networks, read_export
from trainers.methods import ElasticNetworks, SharedNetworks, alone, load_parts, make_networks
from trainers.networks import BackboneError

NAMES = ("digits", "colours", "gratings")


@pytest.fixture(scope="module")
def tasks() -> Mapping[str, Task]:
    """Of 8 pixels, which the network reads, of 16 and of 8."""
    sizes = (None, 16, 8)
    return load_tasks(
        DataConfig(
            tasks=tuple(
                TaskConfig(name=name, source="toy", limit=40, size=size)
                for name, size in zip(NAMES, sizes, strict=True)
            ),
            input_size=8,
        )
    )


def networks_of(method: str, tasks: Mapping[str, Task], folder: Path) -> SharedNetworks:
    """A method's networks, trained."""
    plan = plan_of(method)
    found = make_networks(plan, BUILT, tasks, 0, CPU)
    load_parts(found, trained(plan, tasks, folder).state)
    for row in found["all"].rows:
        row.row.module.eval()
    return found["all"]


@pytest.mark.parametrize("method", ["dvn", "packnet", "residual_adapters", "routing"])
def test_each_size_has_a_stem_of_its_own(
    method: str, tasks: Mapping[str, Task], tmp_path: Path
) -> None:
    assert [task.size for task in tasks.values()] == [8, 16, 8]
    part = networks_of(method, tasks, tmp_path)
    assert not torch.equal(part.shared["conv.weight"], part.shared["stem:16.conv.weight"])
    for row, network in enumerate(part.part.masks.networks):
        task = tasks[network.task]
        images, _ = task.splits["validation"].batch(0, 6)
        with torch.no_grad():
            logits = part(normalise(images, task), row)
            one = alone(part, row, task)(normalise(images, task), 0)
        torch.testing.assert_close(one, logits, rtol=1e-4, atol=1e-4)
        used = part.used(row)
        assert bool(used["conv.weight"].any()) == (network.task != "colours")
        assert bool(used["stem:16.conv.weight"].any()) == (network.task == "colours")


def test_a_network_is_exported_with_its_size(tasks: Mapping[str, Task], tmp_path: Path) -> None:
    part = networks_of("shared", tasks, tmp_path / "trained")
    for row, (name, size) in enumerate(zip(NAMES, (8, 16, 8), strict=True)):
        export_networks(alone(part, row, tasks[name]), tasks, tmp_path)
        assert read_export(tmp_path / name)["input"]["size"] == size


def test_networks_are_put_together_for_every_size(
    tasks: Mapping[str, Task], tmp_path: Path
) -> None:
    part = networks_of("den", tasks, tmp_path)
    assert isinstance(part, ElasticNetworks)
    for name in NAMES:
        images, _ = tasks[name].splits["validation"].batch(0, 6)
        images = normalise(images, tasks[name])
        with torch.no_grad():
            for level in range(part.part.levels):
                levels = torch.full((6, len(part.blocks)), level)
                wanted = part(images, part.row_of(name, level))
                found = part.chosen(images, name, levels)
                torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_what_no_stride_makes_fit_is_refused(tasks: Mapping[str, Task], tmp_path: Path) -> None:
    assert (BUILT.stem, BUILT.stem_stride(8), BUILT.stem_stride(24)) == ("conv", 1, 3)
    for size in (12, 4):
        with pytest.raises(BackboneError, match=f"images of {size} pixels as large as those of 8"):
            BUILT.stem_stride(size)
    with pytest.raises(ValueError, match="maps of images of one size"):
        trained(plan_of("cross_stitch"), tasks, tmp_path, SGD)
