"""Networks by name: libraries, functions, weights, and what cannot be built."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tests.helpers.foreign import with_operators
from trainers.networks import ModelError, build_model, cut, find_division

RESIDUAL = "tests.helpers.foreign:Residual"


def test_a_function_and_its_weights(tmp_path: Path) -> None:
    model = build_model(RESIDUAL)
    assert not model.training
    state = {name: value + 1 for name, value in model.state_dict().items()}
    save_file(state, tmp_path / "weights.safetensors")
    torch.save(state, tmp_path / "weights.pt")
    for file in ("weights.safetensors", "weights.pt"):
        filled = build_model(RESIDUAL, weights=tmp_path / file).state_dict()
        assert all(torch.equal(filled[name], value) for name, value in state.items())


def test_a_folder_in_the_hubs_format(tmp_path: Path) -> None:
    """What `from_pretrained` is given by name lies in such a folder, too."""
    with_operators()
    import transformers

    config = transformers.ResNetConfig(depths=[1, 1], hidden_sizes=[8, 16], embedding_size=8)
    config.num_labels = 4
    saved = transformers.ResNetForImageClassification(config).eval()
    saved.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").is_file()
    model = build_model(f"transformers:{tmp_path}")
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(model(images), saved(pixel_values=images).logits)
    assert find_division(model, images).groups
    assert cut(model, images).blocks


@pytest.mark.parametrize("name", ["timm:resnet18", "torchvision:resnet18"])
def test_libraries(name: str) -> None:
    with_operators()
    model = build_model(name, {"num_classes": 3})
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 3)


@pytest.mark.parametrize(
    ("model", "args", "words"),
    [
        ("resnet50", {}, "a network is named as timm:NAME"),
        ("timm:resnet51", {}, "timm has no network resnet51; did you mean"),
        ("torchvision:resnet51", {}, "torchvision has no network resnet51; did you mean"),
        ("transformers:/no/such/folder", {}, "cannot be built"),
        ("nothing.here:build", {}, "needs nothing.here, which cannot be imported"),
        ("torch.nn:Lineer", {}, "torch.nn has no function Lineer; did you mean Linear"),
        ("torch.nn:Linear", {"width": 3}, "cannot be built: .*width"),
        ("pathlib:Path", {}, "must return a torch.nn.Module, got a PosixPath"),
    ],
)
def test_what_cannot_be_built(model: str, args: dict[str, object], words: str) -> None:
    with_operators()
    with pytest.raises(ModelError, match=words):
        build_model(model, args)


class Trap:
    """Unpickling it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    state = build_model(RESIDUAL).state_dict()
    path = tmp_path / "weights.safetensors"

    def refused(words: str, file: Path = path) -> None:
        with pytest.raises(ModelError, match=words):
            build_model(RESIDUAL, weights=file)

    refused("do not exist")
    path.write_text("no weights")
    refused("no safetensors file")
    save_file({name: value for name, value in state.items() if name != "head.bias"}, path)
    refused("do not fit: 1 tensors are missing, such as head.bias")
    save_file(state | {"head.scale": torch.ones(1)}, path)
    refused("1 tensors are not the network's, such as head.scale")
    save_file(state | {"head.bias": torch.ones(3)}, path)
    refused(r"head\.bias is \(3,\) for \(10,\)")
    save_file(state | {"head.bias": torch.full((10,), torch.nan)}, path)
    refused("not finite: head.bias")
    pickled = tmp_path / "weights.pt"
    torch.save({"trap": Trap(tmp_path / "sprung")}, pickled)
    refused("which can run code", pickled)
    assert not (tmp_path / "sprung").exists()
    torch.save(nn.Linear(2, 2), pickled)
    refused("which can run code", pickled)
