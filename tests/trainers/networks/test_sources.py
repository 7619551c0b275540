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
    bare = build_model(f"transformers:{tmp_path}", structure=True)
    assert not torch.equal(bare(images), model(images))
    assert bare.state_dict().keys() == model.state_dict().keys()
    assert build_model(f"transformers:{tmp_path}", {"num_labels": 3}, structure=True)(
        images
    ).shape == (2, 3)
    assert find_division(model, images).groups
    assert cut(model, images).blocks


@pytest.mark.parametrize("name", ["timm:resnet18", "torchvision:resnet18"])
def test_libraries(name: str) -> None:
    with_operators()
    model = build_model(name, {"num_classes": 3})
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 3)


@pytest.mark.parametrize(("name", "blocks"), [("resnet14", 2), ("resnet26", 4), ("resnet38", 6)])
def test_the_built_in_networks(name: str, blocks: int) -> None:
    model = build_model(name, {"width": 4, "classes": 3})
    assert not model.training
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(layers) == 2 + 6 * blocks == int(name.removeprefix("resnet"))
    assert [len(getattr(model, f"stage{stage}")) for stage in (1, 2, 3)] == [blocks] * 3
    assert [layer.weight.shape[0] for layer in layers[:: 2 * blocks]] == [4, 4, 8, 16]
    assert model(torch.zeros(2, 3, 8, 8)).shape == (2, 3)


@pytest.mark.parametrize("args", [{"stem_width": 3}, {"strides": (2, 2, 2)}, {"stem_stride": 2}])
@pytest.mark.parametrize("size", [8, 9, 14])
def test_odd_sizes_and_narrow_stems(args: dict[str, object], size: int) -> None:
    assert (
        build_model("resnet14", {"width": 4, **args})(torch.zeros(2, 3, size, size)).shape[0] == 2
    )


def test_the_structure_has_no_trained_weights(tmp_path: Path) -> None:
    """Neither read nor downloaded, which is forbidden in tests."""
    with_operators()
    state = build_model("timm:resnet18", {"num_classes": 3}).state_dict()
    torch.save(state, tmp_path / "weights.pth")
    args = {"num_classes": 3, "checkpoint_path": str(tmp_path / "weights.pth")}
    filled, bare = (
        build_model("timm:resnet18", args, structure=structure).state_dict()
        for structure in (False, True)
    )
    assert torch.equal(filled["conv1.weight"], state["conv1.weight"])
    assert not torch.equal(bare["conv1.weight"], state["conv1.weight"])
    assert {n: v.shape for n, v in bare.items()} == {n: v.shape for n, v in state.items()}
    for name, asked in (
        ("timm:resnet18", {"pretrained": True}),
        ("torchvision:resnet18", {"weights": "DEFAULT", "progress": False}),
    ):
        assert build_model(name, asked, structure=True)(torch.zeros(1, 3, 32, 32)).shape[1] == 1000


def test_weights_of_another_head(tmp_path: Path) -> None:
    """A file need not have the head's, nor of as many classes."""
    state = build_model(RESIDUAL).state_dict()
    path = tmp_path / "weights.safetensors"
    trained = {name: value + 1 for name, value in state.items()}
    for head in (
        {},
        {"head.weight": torch.ones(3, 12), "head.bias": torch.ones(3)},
        {"head.scale": torch.ones(1)},
    ):
        rest = {name: value for name, value in trained.items() if not name.startswith("head.")}
        save_file(rest | head, path)
        filled = build_model(RESIDUAL, weights=path, head="head").state_dict()
        assert all(torch.equal(filled[name], value) for name, value in rest.items())
        assert filled["head.weight"].shape == (10, 12)
        with pytest.raises(ModelError, match=r"do not fit: .*head"):
            build_model(RESIDUAL, weights=path)
    save_file({n: v for n, v in trained.items() if n != "stem.bias"}, path)
    with pytest.raises(ModelError, match=r"1 tensors are missing, such as stem\.bias"):
        build_model(RESIDUAL, weights=path, head="head")


@pytest.mark.parametrize(
    ("model", "args", "words"),
    [
        (
            "resnet27",
            {},
            "a network is named resnet14, resnet26, .*, timm:NAME, .*, got 'resnet27'; "
            "did you mean .*resnet26",
        ),
        ("perceptron", {}, "got 'perceptron'$"),
        ("timm:", {}, "a network is named .*, got 'timm:'"),
        ("resnet14", {"widht": 4}, "resnet14 cannot be built: .*widht"),
        ("resnet14", {"width": 0}, "width must be at least 1, got 0"),
        ("resnet14", {"width": 4, "stem_width": 8}, "stem_width must be at most width, 4: .* 8"),
        ("resnet14", {"strides": [1, 2]}, r"strides three of them.*got 1 and \[1, 2\]"),
        ("resnet14", {"stem_stride": 3}, r"must be 1 or 2.*got 3 and"),
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
    torch.save({"epoch": 3, "model": state}, pickled)
    refused("must be a mapping of names to tensors; save what is under 'model' in it", pickled)


def test_weights_of_a_parallel_training(tmp_path: Path) -> None:
    state = build_model(RESIDUAL).state_dict()
    path = tmp_path / "weights.safetensors"
    save_file({f"module.{name}": torch.ones_like(value) for name, value in state.items()}, path)
    assert (build_model(RESIDUAL, weights=path).state_dict()["head.weight"] == 1).all()
