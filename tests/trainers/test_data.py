"""Configs refused, splits chosen, images augmented; the mini-Decathlon where it is at hand."""

import dataclasses
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from trainers.data import (
    DataConfig,
    Split,
    Task,
    TaskConfig,
    augment,
    check_tasks,
    draw_batch,
    load_task,
    load_tasks,
    normalise,
)
from trainers.data.sources.labels import stratified
from trainers.data.tasks import DataError

SIZE = 8


def write_task(
    top: Path, name: str = "animals", names: Sequence[str] | None = None, **labels: Sequence[int]
) -> None:
    """A parquet task; the images of each split are plain squares of the gray values 0, 1, 2 ..."""
    for split, values in labels.items():
        images = []
        for index in range(len(values)):
            buffer = io.BytesIO()
            Image.new("L", (SIZE, SIZE), index).save(buffer, "PNG")
            images.append({"bytes": buffer.getvalue(), "path": None})
        kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
        table = pa.table({"image": pa.array(images, kind), "label": pa.array(values, pa.int64())})
        if names is not None:
            label = {"names": list(names), "_type": "ClassLabel"}
            info = json.dumps({"info": {"features": {"label": label}}})
            table = table.replace_schema_metadata({"huggingface": info})
        (top / name).mkdir(exist_ok=True)
        pq.write_table(table, top / name / f"{split}.parquet")


def load(top: Path, *, seed: int = 0, **fields: object) -> Task:
    task = TaskConfig(name="animals", **{"test": None} | fields)
    config = DataConfig(tasks=(task,), root=str(top), input_size=SIZE, seed=seed)
    check_tasks(config)
    return load_task(task, config)


def refused(top: Path, **fields: object) -> str:
    """The message with which the check refuses a task, before anything is decoded."""
    task = TaskConfig(name="animals", **{"test": None} | fields)
    with pytest.raises(DataError) as error:
        check_tasks(DataConfig(tasks=(task,), root=str(top), input_size=SIZE))
    assert "'animals'" in str(error.value)
    return str(error.value)


def drawn_rows(split: Split) -> list[int]:
    """Which rows of the written split these are: the images' gray values."""
    return split.images[:, 0, 0, 0].tolist()


# ---------------------------------------------------------------------------- configs


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "a/b"}, "must start with a letter or digit .* got 'a/b'"),
        ({"name": ""}, "must start with a letter or digit"),
        ({"source": "parqet"}, "got 'parqet'; did you mean 'parquet'"),
        ({"source": "zzz"}, "one of toy, parquet, hub, folder, npz, got 'zzz'$"),
        ({"validation": None}, "validation is null and validation_fraction"),
        ({"validation_fraction": 0.1}, "got validation='validation' and validation_fraction=0.1"),
        ({"validation": None, "validation_fraction": 0.0}, "between 0 and 1, got 0.0"),
        ({"validation": None, "validation_fraction": 1.0}, "between 0 and 1, got 1.0"),
        ({"validation": "test"}, "different splits, .* got train, test, test"),
        ({"train": "validation"}, "different splits"),
        ({"limit": 1}, "limit must be at least 2, .* got 1"),
        ({"shift": -1}, "shift must be 0 or more pixels, got -1"),
    ],
)
def test_task_config_refuses(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        TaskConfig(**{"name": "animals"} | fields)
    assert "name" in fields or "'animals'" in str(error.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tasks": ()}, "at least one task"),
        ({"tasks": (TaskConfig(name="a"),) * 2}, "listed once, got a more than once"),
        ({"input_size": 4}, "at least 8 pixels, got 4"),
        ({"seed": -1}, "seed must be 0 or more"),
        ({"tasks": (TaskConfig(name="a", shift=32),)}, "'a': shift must be smaller .* 32, got 32"),
    ],
)
def test_data_config_refuses(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DataConfig(**{"tasks": (TaskConfig(name="a"),)} | fields)


def test_configs_cannot_be_changed_and_take_keywords_only() -> None:
    task = TaskConfig(name="a")
    with pytest.raises(dataclasses.FrozenInstanceError):
        task.name = "b"  # type: ignore[misc]
    with pytest.raises(TypeError):
        TaskConfig("a")  # type: ignore[misc]


# ---------------------------------------------------------------------------- labels


@pytest.mark.parametrize(
    ("labels", "names", "message"),
    [
        (
            {"train": [1, 1, 1], "validation": [1, 0]},
            "ab",
            "at least two classes, all 3 training labels are 1",
        ),
        ({"train": [0, 1], "validation": [0, 2]}, "ab", "from 0 to 1, row 1 has 2 .1 such rows"),
        ({"train": [0, 1, -1, -1], "validation": [0, 1]}, "ab", "row 2 has -1 .2 such rows"),
        ({"train": [0, 1], "validation": [0, -1]}, None, "must be 0 or more, row 1 has -1"),
        ({"train": [0, 1, 3], "validation": [0, 2]}, None, "training split, 2 does not"),
        ({"train": [], "validation": [0, 1]}, "ab", r"train\.parquet: .* empty"),
        ({"train": [0, 1], "validation": []}, "ab", r"validation\.parquet: .* empty"),
    ],
)
def test_labels_are_checked_before_anything_is_decoded(
    labels: dict[str, list[int]], names: str | None, message: str, tmp_path: Path
) -> None:
    write_task(tmp_path, names=names, **labels)
    with pytest.raises(DataError, match=message):
        raise DataError(refused(tmp_path))


def test_splits_with_other_classes_are_refused(tmp_path: Path) -> None:
    write_task(tmp_path, names=["cat", "dog"], train=[0, 1])
    write_task(tmp_path, names=["dog", "cat"], validation=[0, 1])
    message = refused(tmp_path)
    assert "must be those of the training split, cat, dog, got dog, cat" in message
    write_task(tmp_path, names=None, validation=[1, 0])  # no names: nothing to contradict
    assert load(tmp_path).splits["validation"].labels.tolist() == [1, 0]


def test_unlabelled_test_split_is_refused_and_may_be_left_out(tmp_path: Path) -> None:
    write_task(tmp_path, names="ab", train=[0, 1], validation=[0, 1], test=[-1, -1])
    assert "set test to null" in refused(tmp_path, test="test")
    assert list(load(tmp_path).splits) == ["train", "validation"]


def test_declared_class_that_no_training_image_has_keeps_its_number(tmp_path: Path) -> None:
    write_task(tmp_path, names="abc", train=[0, 2], validation=[2, 1])
    task = load(tmp_path)
    assert task.classes == ("a", "b", "c")
    assert task.num_classes == 3
    assert task.splits["validation"].labels.tolist() == [2, 1]


def test_first_bad_task_is_named(tmp_path: Path) -> None:
    write_task(tmp_path, name="good", train=[0, 1], validation=[0, 1])
    tasks = tuple(TaskConfig(name=name, test=None) for name in ("good", "bad"))
    with pytest.raises(DataError, match=r"'bad': folder .*bad does not exist"):
        check_tasks(DataConfig(tasks=tasks, root=str(tmp_path)))


# ---------------------------------------------------------------------------- choosing rows


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=2, max_size=8),
    part=st.floats(0, 1),
    seed=st.integers(0, 9),
)
def test_stratified_keeps_every_class_and_its_share(
    sizes: list[int], part: float, seed: int
) -> None:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    count = len(sizes) + round(part * (len(labels) - len(sizes)))
    rows = stratified(labels, count, np.random.default_rng(seed))
    assert len(rows) == count
    assert (np.diff(rows) > 0).all()
    taken = np.bincount(labels[rows], minlength=len(sizes))
    assert (taken >= 1).all()
    # Every class takes its quantiles below one threshold t: between t n and t n + 1 images.
    share = np.array(sizes) / len(labels)
    assert (taken <= count * share + 1 + 1e-9).all()
    assert (taken >= (count - len(sizes)) * share - 1 - 1e-9).all()


def test_held_out_validation_is_stratified_seeded_and_apart(tmp_path: Path) -> None:
    labels = [0] * 60 + [1] * 30 + [2] * 10
    write_task(tmp_path, train=labels, test=[0, 1])
    fields = {"validation": None, "validation_fraction": 0.2, "test": "test"}
    task = load(tmp_path, **fields)
    train, validation = (drawn_rows(task.splits[name]) for name in ("train", "validation"))
    assert sorted(train + validation) == list(range(100))
    assert task.splits["validation"].labels.bincount().tolist() == pytest.approx([12, 6, 2], abs=1)
    for name, rows in (("train", train), ("validation", validation)):
        assert task.splits[name].labels.tolist() == [labels[row] for row in rows]
    assert drawn_rows(load(tmp_path, **fields).splits["validation"]) == validation
    assert drawn_rows(load(tmp_path, seed=1, **fields).splits["validation"]) != validation
    assert list(task.splits) == ["train", "validation", "test"]


def test_limit_cuts_training_images_only(tmp_path: Path) -> None:
    labels = [0] * 60 + [1] * 30 + [2] * 2
    write_task(tmp_path, train=labels, validation=[0, 1, 2])
    task = load(tmp_path, limit=20)
    rows = drawn_rows(task.splits["train"])
    assert len(set(rows)) == len(rows) == 20
    assert task.splits["train"].labels.tolist() == [labels[row] for row in rows]
    assert set(task.splits["train"].labels.tolist()) == {0, 1, 2}
    assert len(task.splits["validation"]) == 3
    assert drawn_rows(load(tmp_path, limit=20).splits["train"]) == rows
    assert drawn_rows(load(tmp_path, limit=20, seed=1).splits["train"]) != rows
    assert len(load(tmp_path, limit=1000).splits["train"]) == len(labels)


def test_limit_and_held_out_validation_do_not_overlap(tmp_path: Path) -> None:
    write_task(tmp_path, train=[0, 1] * 50)
    task = load(tmp_path, validation=None, validation_fraction=0.3, limit=20)
    train, validation = (drawn_rows(task.splits[name]) for name in ("train", "validation"))
    assert (len(train), len(validation)) == (20, 30)
    assert not set(train) & set(validation)


def test_too_small_limits_and_fractions_are_refused(tmp_path: Path) -> None:
    write_task(tmp_path, train=[0, 1, 2] * 3, validation=[0, 1])
    assert "limit must be at least 3" in refused(tmp_path, limit=2)
    held_out = {"validation": None}
    assert "leaves 0 and 9" in refused(tmp_path, validation_fraction=0.01, **held_out)
    assert "leaves 8 and 1" in refused(tmp_path, validation_fraction=0.9, **held_out)


# ---------------------------------------------------------------------------- tensors


def noise_task(count: int = 64, size: int = 9, **fields: object) -> Task:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, size, size), generator=generator, dtype=torch.uint8)
    split = Split(images=images, labels=torch.arange(count) % 2)
    mean, std = torch.tensor([0.2, 0.5, 0.7]), torch.tensor([0.1, 0.3, 0.2])
    settings = {"name": "noise", "classes": ("a", "b"), "mean": mean, "std": std}
    return Task(splits={"train": split, "validation": split}, **settings | fields)


def test_normalised_training_images_have_mean_0_and_deviation_1(tmp_path: Path) -> None:
    write_task(tmp_path, train=[0, 1] * 100, validation=[0, 1])
    task = load(tmp_path)
    images = normalise(task.splits["train"].images, task)
    assert images.dtype == torch.float32
    torch.testing.assert_close(images.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    deviation = images.square().mean(dim=(0, 2, 3)).sqrt()
    torch.testing.assert_close(deviation, torch.ones(3), atol=1e-4, rtol=0)


def test_moments_do_not_depend_on_chunks_and_a_constant_image_stays_finite(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "animals.npz",
        train_images=np.full((1500, 8, 8), 51, np.uint8),
        train_labels=np.arange(1500) % 2,
        val_images=np.zeros((2, 8, 8), np.uint8),
        val_labels=np.arange(2),
    )
    task = load(tmp_path, source="npz")
    torch.testing.assert_close(task.mean, torch.full((3,), 0.2))
    assert normalise(task.splits["train"].images, task).abs().max() < 1e-4
    assert normalise(task.splits["validation"].images, task).isfinite().all()


def one_by_one(image: torch.Tensor, mirrored: bool, down: int, right: int) -> torch.Tensor:
    """What augmenting does to one normalised image (3, S, S), pixel by pixel."""
    image = image.flip(2) if mirrored else image
    moved = torch.zeros_like(image)
    size = image.shape[1]
    for row in range(size):
        for column in range(size):
            if 0 <= row - down < size and 0 <= column - right < size:
                moved[:, row, column] = image[:, row - down, column - right]
    return moved


@pytest.mark.parametrize(("flip", "shift"), [(False, 0), (True, 0), (False, 1), (True, 1)])
def test_augment_draws_every_variant_of_each_image_and_nothing_else(flip: bool, shift: int) -> None:
    task = noise_task(count=6, flip=flip, shift=shift)
    images = task.splits["train"].images
    plain = normalise(images, task)
    generator = torch.Generator().manual_seed(1)
    steps = range(-shift, shift + 1)
    variants = [
        torch.stack([one_by_one(image, mirrored, down, right) for image in plain])
        for mirrored in ([False, True] if flip else [False])
        for down in steps
        for right in steps
    ]
    seen, alike = torch.zeros(len(variants)), 0
    for _ in range(60):
        out = augment(images, task, generator)
        assert out.dtype == torch.float32
        same = torch.stack([(out == variant).flatten(1).all(dim=1) for variant in variants])
        assert (same.sum(dim=0) == 1).all()  # each image is just one of its own variants
        seen += same.sum(dim=1)
        alike += int(same.all(dim=1).any())
    # 360 draws over at most 18 variants: 20 each, deviation below 4.4 (50 % +- 9.5 for two).
    expected = 360 / len(variants)
    deviation = (expected * (1 - 1 / len(variants))) ** 0.5
    assert ((seen - expected).abs() <= 4.5 * deviation).all()
    # Six coins fall alike in 2 batches of 60; that images are varied each by itself, not together.
    assert len(variants) == 1 or alike < 15


def test_augment_follows_its_generator_and_leaves_the_images_alone() -> None:
    task = noise_task(flip=True, shift=2)
    images = task.splits["train"].images
    before = images.clone()
    first, again, other = (
        augment(images, task, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(images, before)
    state = torch.random.get_rng_state()
    augment(images, task, torch.Generator().manual_seed(0))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_batches_are_uniform_and_keep_images_with_their_labels() -> None:
    task = noise_task(count=5)
    split = Split(images=task.splits["train"].images, labels=torch.arange(5))
    images, labels = draw_batch(split, 1000, torch.Generator().manual_seed(0))
    assert torch.equal(images, split.images[labels])
    assert (labels.bincount() - 200).abs().max() < 4.5 * (1000 * 0.2 * 0.8) ** 0.5
    again = draw_batch(split, 1000, torch.Generator().manual_seed(0))[1]
    assert torch.equal(labels, again)


def test_to_moves_every_tensor() -> None:
    task = noise_task().to("meta")
    tensors = [task.mean, task.std]
    for split in task.splits.values():
        tensors += [split.images, split.labels]
    assert {tensor.device.type for tensor in tensors} == {"meta"}


@pytest.mark.gpu
def test_batches_are_drawn_and_augmented_on_the_device() -> None:
    task = noise_task(flip=True, shift=2).to("cuda")
    images, labels = draw_batch(task.splits["train"], 16, torch.Generator("cuda").manual_seed(0))
    assert images.is_cuda
    assert labels.is_cuda
    out = augment(images, task, torch.Generator("cuda").manual_seed(0))
    assert out.is_cuda
    assert out.shape == images.shape
    assert task.fingerprint() == task.to("cpu").fingerprint()


def test_fingerprint_changes_with_all_that_matters_and_nothing_else() -> None:
    task = noise_task()
    train = task.splits["train"]
    images, labels = train.images.clone(), train.labels.clone()
    images[3, 2, 1, 0] += 1
    labels[5] = 1 - labels[5]
    changed = [
        task,
        dataclasses.replace(task, name="other"),
        dataclasses.replace(task, classes=("a", "c")),
        dataclasses.replace(task, flip=True),
        dataclasses.replace(task, shift=1),
        dataclasses.replace(task, splits={"train": train}),
        dataclasses.replace(task, splits=task.splits | {"test": train}),
        dataclasses.replace(
            task, splits=task.splits | {"train": Split(images=images, labels=train.labels)}
        ),
        dataclasses.replace(
            task, splits=task.splits | {"train": Split(images=train.images, labels=labels)}
        ),
    ]
    assert len({one.fingerprint() for one in changed}) == len(changed)
    assert noise_task().fingerprint() == task.fingerprint()
    strided = Split(images=train.images.flip(0).flip(0).mT.contiguous().mT, labels=train.labels)
    reordered = {"validation": task.splits["validation"], "train": strided}
    assert dataclasses.replace(task, splits=reordered).fingerprint() == task.fingerprint()


def test_tasks_keep_their_order_and_do_not_depend_on_each_other(tmp_path: Path) -> None:
    for name in ("b", "a"):
        write_task(tmp_path, name=name, train=[0, 1] * 50, validation=[0, 1])
    tasks = tuple(TaskConfig(name=name, test=None, limit=30) for name in ("b", "a"))
    both = load_tasks(DataConfig(tasks=tasks, root=str(tmp_path), input_size=SIZE))
    assert list(both) == ["b", "a"]
    alone = load_tasks(DataConfig(tasks=tasks[1:], root=str(tmp_path), input_size=SIZE))
    assert alone["a"].fingerprint() == both["a"].fingerprint()


# ---------------------------------------------------------------------------- real images

DECATHLON = Path(
    os.environ.get("APPORTION_DATA", Path(__file__).parents[2].parent / "shared" / "data")
)
EXPECTED = {  # training, validation and test images, classes
    "cifar10": (4000, 1000, 1000, 10),
    "gtsrb": (3000, 800, 1000, 43),
    "chars74k36": (3000, 700, 800, 36),
    "sign_digits": (1422, 290, 350, 10),
    "fashion_mnist": (5000, 1000, 1000, 10),
    "omniglot100": (1400, 300, 300, 100),
    "dtd10": (770, 190, 240, 10),
    "trashnet6": (1613, 403, 505, 6),
    "kannada_mnist": (4000, 1000, 1000, 10),
}
needs_decathlon = pytest.mark.skipif(
    not DECATHLON.is_dir(), reason=f"no mini-Decathlon in {DECATHLON}; set APPORTION_DATA"
)


@needs_decathlon
def test_mini_decathlon_passes_the_check() -> None:
    tasks = tuple(TaskConfig(name=name) for name in EXPECTED)
    check_tasks(DataConfig(tasks=tasks, root=str(DECATHLON)))


@needs_decathlon
@pytest.mark.parametrize("name", ["dtd10", "omniglot100"])
def test_mini_decathlon_loads(name: str) -> None:
    task = load_task(
        TaskConfig(name=name), DataConfig(tasks=(TaskConfig(name=name),), root=str(DECATHLON))
    )
    sizes = tuple(len(task.splits[split]) for split in ("train", "validation", "test"))
    assert (*sizes, task.num_classes) == EXPECTED[name]
    for split in task.splits.values():
        assert split.images.shape[1:] == (3, 32, 32)
        assert len(split.labels.unique()) == task.num_classes
    images = task.splits["train"].images
    assert (images.float().std(dim=(1, 2, 3)) > 1).float().mean() > 0.99  # pictures, not blanks
    is_gray = bool((images[:, 0] == images[:, 1]).all())
    assert is_gray == (name == "omniglot100")
    train, test = (
        {image.numpy().tobytes() for image in task.splits[split].images}
        for split in ("train", "test")
    )
    assert not train & test


@needs_decathlon
def test_a_size_of_ones_own_and_the_hub_reader_agree_on_real_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path))
    fields = {"name": "dtd10", "limit": 50, "test": None}
    tasks = [TaskConfig(**fields, source=source) for source in ("parquet", "hub")]
    parquet, hub = (
        load_task(task, DataConfig(tasks=(task,), root=str(DECATHLON), input_size=20))
        for task in tasks
    )
    assert parquet.splits["train"].images.shape == (50, 3, 20, 20)
    assert parquet.fingerprint() == hub.fingerprint()
