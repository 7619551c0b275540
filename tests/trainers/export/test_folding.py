"""Batch norms within the weights of convolutions."""

import pytest
import torch
from torch import Tensor, nn

from trainers.export.compact import program_of
from trainers.export.folding import fold_norms


class Net(nn.Module):
    """Norms behind a convolution, behind one that is read twice, and before one."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, bias=False)
        self.third = nn.Conv2d(4, 2, 1)
        self.folds, self.stays, self.before = (nn.BatchNorm2d(4) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 3, H, W) to (B, 2, H - 4, W - 4)."""
        x = self.folds(self.first(x)).relu()
        y = self.second(x)
        mapped: Tensor = self.third(self.before((self.stays(y) + y).relu()))
        return mapped


def with_statistics(net: nn.Module) -> nn.Module:
    """In evaluation mode, with statistics that matter."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            module.weight.data.normal_()
            module.bias.data.normal_()
    return net.eval()


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return with_statistics(Net())


def test_what_is_computed_stays_the_same(network: nn.Module) -> None:
    images = torch.randn(4, 3, 9, 9)
    module = program_of(network, images).module()
    assert fold_norms(module) == 1
    torch.testing.assert_close(module(images), network(images), rtol=1e-4, atol=1e-5)
    names = [name for name, _ in [*module.named_parameters(), *module.named_buffers()]]
    assert not [name for name in names if name.startswith(("folds", "first"))]
    assert [name for name in names if name.startswith("stays")]
    assert [name for name in names if name.startswith("before")]


def test_a_program_says_nothing_of_where_it_was_made(network: nn.Module, tmp_path) -> None:
    program = program_of(network, torch.randn(4, 3, 9, 9), folded=True)
    path = tmp_path / "network.pt2"
    torch.export.save(program, path)
    assert b"test_folding.py" not in path.read_bytes()
    again = torch.export.load(path).module()
    for count in (1, 5):
        images = torch.randn(count, 3, 9, 9)
        torch.testing.assert_close(again(images), network(images), rtol=1e-4, atol=1e-5)


def test_a_norm_that_is_trained_stays(network: nn.Module) -> None:
    network.train()
    module = torch.export.export(network, (torch.randn(4, 3, 9, 9),)).module()
    assert fold_norms(module) == 0


class Twice(nn.Module):
    """A convolution that is read by two norms, each time by one alone, and names that are alike."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.a = nn.ModuleDict({"b": nn.Conv2d(3, 3, 1)})
        self.a_b = nn.Conv2d(3, 3, 1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(3) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 3, H, W) to as much."""
        for norm, conv in zip(
            self.norms, (self.conv, self.conv, self.a["b"], self.a_b), strict=True
        ):
            x = norm(conv(x)).relu()
        return x


def test_weights_that_are_used_twice_are_folded_twice() -> None:
    torch.manual_seed(0)
    net = with_statistics(Twice())
    images = torch.randn(4, 3, 9, 9)
    module = program_of(net, images).module()
    assert fold_norms(module) == 4
    torch.testing.assert_close(module(images), net(images), rtol=1e-4, atol=1e-5)
