"""Every source yields the same tensors for the same images, and says what is wrong with a split."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from trainers.data import DataConfig, Task, TaskConfig, check_tasks, load_task
from trainers.data.sources import SOURCES
from trainers.data.sources.pixels import to_rgb, to_square
from trainers.data.tasks import DataError

SIZE = 8
SPLITS = {"train": 6, "validation": 4, "test": 3}
NAMES = ("bird", "cat")


def pictures(split: str) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (N, S, S, 3) of noise, and labels 0, 1, 0, 1 ..."""
    rng = np.random.default_rng([SPLITS[split]])
    images = rng.integers(0, 256, (SPLITS[split], SIZE, SIZE, 3)).astype(np.uint8)
    return images, np.arange(SPLITS[split]) % 2


def encode(image: np.ndarray | Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, kind)
    return buffer.getvalue()


def write_table(
    file: Path,
    images: object,
    labels: object,
    names: tuple[str, ...] | None = None,
    columns: tuple[str, str] = ("image", "label"),
) -> None:
    table = pa.table({columns[0]: images, columns[1]: labels})
    if names is not None:
        label = {"names": list(names), "_type": "ClassLabel"}
        features = {columns[0]: {"_type": "Image"}, columns[1]: label}
        info = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": info})
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, file)


def structs(images: np.ndarray) -> list[dict[str, object]]:
    return [{"bytes": encode(image), "path": None} for image in images]


def make_parquet(top: Path) -> TaskConfig:
    for split in SPLITS:
        images, labels = pictures(split)
        write_table(top / "animals" / f"{split}.parquet", structs(images), labels, NAMES)
    return TaskConfig(name="animals", source="parquet")


def make_hub(top: Path) -> TaskConfig:
    for split in SPLITS:
        images, labels = pictures(split)
        file = top / "owner" / "animals" / "data" / f"{split}-00000-of-00001.parquet"
        write_table(file, structs(images), labels, NAMES)
    return TaskConfig(name="animals", source="hub", path="owner/animals")


def make_folder(top: Path) -> TaskConfig:
    for split in SPLITS:
        for index, (image, label) in enumerate(zip(*pictures(split), strict=True)):
            file = top / "animals" / split / NAMES[label] / f"{index:03}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(encode(image))
    return TaskConfig(name="animals", source="folder")


def make_npz(top: Path) -> TaskConfig:
    arrays = {}
    for split in SPLITS:
        images, labels = pictures(split)
        prefix = {"validation": "val"}.get(split, split)
        arrays |= {f"{prefix}_images": images, f"{prefix}_labels": labels[:, None]}
    top.mkdir(exist_ok=True)
    np.savez(top / "animals.npz", **arrays)
    return TaskConfig(name="animals", source="npz")


MAKERS: dict[str, Callable[[Path], TaskConfig]] = {
    "parquet": make_parquet,
    "hub": make_hub,
    "folder": make_folder,
    "npz": make_npz,
}


def config_of(task: TaskConfig, root: Path) -> DataConfig:
    return DataConfig(tasks=(task,), root=str(root), input_size=SIZE)


def load(task: TaskConfig, root: Path) -> Task:
    """Loads, having made sure that the cheap check agrees."""
    config = config_of(task, root)
    check_tasks(config)
    return load_task(task, config)


def refused(task: TaskConfig, root: Path) -> str:
    """The message with which both the check and the loading refuse a task."""
    config = config_of(task, root)
    with pytest.raises(DataError) as loading:
        load_task(task, config)
    if SOURCES[task.source].probe is None:
        with pytest.raises(DataError) as checking:
            check_tasks(config)
        assert str(checking.value) == str(loading.value)
    assert task.name in str(loading.value)
    return str(loading.value)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "hf_cache"))


def test_every_source_is_under_test() -> None:
    assert {*MAKERS, "toy"} == set(SOURCES)


@pytest.mark.parametrize("source", MAKERS)
def test_source_yields_the_images_it_was_given(source: str, tmp_path: Path) -> None:
    task = load(MAKERS[source](tmp_path), tmp_path)
    assert list(task.splits) == ["train", "validation", "test"]
    assert task.classes == (("0", "1") if source == "npz" else NAMES)
    for name, split in task.splits.items():
        images, labels = pictures(name)
        # A folder is read class by class, the others in the order of their rows.
        order = np.argsort(labels, kind="stable") if source == "folder" else slice(None)
        expected = torch.from_numpy(images[order].transpose(0, 3, 1, 2).copy())
        assert split.images.dtype == torch.uint8
        assert split.labels.dtype == torch.int64
        assert torch.equal(split.images, expected)
        assert torch.equal(split.labels, torch.from_numpy(labels[order]))


@pytest.mark.parametrize("source", MAKERS)
def test_missing_split_is_refused_and_may_be_declared_absent(source: str, tmp_path: Path) -> None:
    given = MAKERS[source](tmp_path)
    asked = TaskConfig(name=given.name, source=source, path=given.path, test="tset")
    message = refused(asked, tmp_path)
    assert "'tset'" in message
    assert "test" in message.replace("'tset'", "")
    absent = TaskConfig(name=given.name, source=source, path=given.path, test=None)
    assert list(load(absent, tmp_path).splits) == ["train", "validation"]


@pytest.mark.parametrize("source", ["parquet", "folder", "npz"])
def test_missing_dataset_is_refused(source: str, tmp_path: Path) -> None:
    message = refused(TaskConfig(name="absent", source=source), tmp_path)
    assert str(tmp_path / "absent") in message
    assert "does not exist" in message


# ---------------------------------------------------------------------------- parquet


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
def test_parquet_accepts_raw_bytes(kind: pa.DataType, tmp_path: Path) -> None:
    for split in SPLITS:
        images, labels = pictures(split)
        column = pa.array([encode(image) for image in images], kind)
        write_table(tmp_path / "animals" / f"{split}.parquet", column, labels)
    task = load(TaskConfig(name="animals"), tmp_path)
    assert torch.equal(
        task.splits["train"].images.permute(0, 2, 3, 1), torch.from_numpy(pictures("train")[0])
    )
    assert task.classes == ("0", "1")


def test_parquet_reads_shards_in_order_and_images_by_path(tmp_path: Path) -> None:
    make_parquet(tmp_path)
    folder = tmp_path / "animals"
    (folder / "train.parquet").unlink()
    images, labels = pictures("train")
    for shard, rows in enumerate((slice(0, 2), slice(2, 6))):
        values = structs(images[rows])
        if shard == 1:
            (folder / "data").mkdir(exist_ok=True)
            (folder / "data" / "first.png").write_bytes(encode(images[2]))
            values[0] = {"bytes": None, "path": "first.png"}
        file = folder / "data" / f"train-0000{shard}-of-00002.parquet"
        write_table(file, values, labels[rows], NAMES)
    task = load(TaskConfig(name="animals"), tmp_path)
    assert torch.equal(task.splits["train"].images.permute(0, 2, 3, 1), torch.from_numpy(images))


def test_parquet_without_class_names_numbers_the_distinct_labels(tmp_path: Path) -> None:
    for split in SPLITS:
        images, labels = pictures(split)
        file = tmp_path / "animals" / f"{split}.parquet"
        write_table(file, structs(images), np.where(labels == 0, 30, 7))
    task = load(TaskConfig(name="animals"), tmp_path)
    assert task.classes == ("7", "30")
    assert task.splits["train"].labels.tolist() == [1, 0, 1, 0, 1, 0]


@pytest.mark.parametrize("dictionary", [False, True])
def test_parquet_labels_may_be_strings(dictionary: bool, tmp_path: Path) -> None:
    for split in SPLITS:
        images, labels = pictures(split)
        column = pa.array([("zebra", "ape")[label] for label in labels])
        column = column.dictionary_encode() if dictionary else column
        write_table(tmp_path / "animals" / f"{split}.parquet", structs(images), column)
    task = load(TaskConfig(name="animals"), tmp_path)
    assert task.classes == ("ape", "zebra")
    assert task.splits["test"].labels.tolist() == [1, 0, 1]


def test_parquet_missing_column_lists_the_columns_found(tmp_path: Path) -> None:
    make_parquet(tmp_path)
    message = refused(TaskConfig(name="animals", label_column="labels"), tmp_path)
    assert "no column 'labels'; did you mean 'label'?" in message
    assert "'image', 'label'" in message
    assert "'picture'" in refused(TaskConfig(name="animals", image_column="picture"), tmp_path)


def test_parquet_columns_of_another_type_are_refused(tmp_path: Path) -> None:
    make_parquet(tmp_path)
    swapped = TaskConfig(name="animals", image_column="label", label_column="image")
    assert "is int64; set image_column" in refused(swapped, tmp_path)
    both = TaskConfig(name="animals", image_column="image", label_column="image")
    assert "labels must be integers or strings" in refused(both, tmp_path)


def test_parquet_row_without_a_label_is_named(tmp_path: Path) -> None:
    make_parquet(tmp_path)
    images, _ = pictures("test")
    write_table(tmp_path / "animals" / "test.parquet", structs(images), [0, 1, None], NAMES)
    assert "test.parquet, row 2 has no label" in refused(TaskConfig(name="animals"), tmp_path)


def test_parquet_file_that_is_none_is_refused(tmp_path: Path) -> None:
    make_parquet(tmp_path)
    (tmp_path / "animals" / "test.parquet").write_bytes(b"PAR1 but not really")
    message = refused(TaskConfig(name="animals"), tmp_path)
    assert "test.parquet cannot be read as parquet" in message


@pytest.mark.parametrize(
    "value",
    [
        {"bytes": b"GIF89a?", "path": None},
        {"bytes": encode(pictures("test")[0][0])[:-30], "path": None},
        {"bytes": encode(pictures("test")[0][0], "EPS"), "path": None},
        {"bytes": encode(pictures("test")[0][0], "PCX"), "path": None},  # Pillow could read it
        {"bytes": None, "path": "absent.png"},
        {"bytes": None, "path": None},
        None,
    ],
    ids=["no image", "truncated", "PostScript", "PCX", "no such file", "neither", "null"],
)
def test_undecodable_image_names_file_and_row(value: object, tmp_path: Path) -> None:
    task = make_parquet(tmp_path)
    images, labels = pictures("test")
    column = [*structs(images[:2]), value]
    write_table(tmp_path / "animals" / "test.parquet", column, labels, NAMES)
    check_tasks(config_of(task, tmp_path))  # cheap: it decodes nothing
    with pytest.raises(DataError, match=r"'animals': .*test\.parquet, row 2 cannot be decoded"):
        load_task(task, config_of(task, tmp_path))


# ---------------------------------------------------------------------------- the Hub


def test_hub_split_may_be_a_slice(tmp_path: Path) -> None:
    make_hub(tmp_path)
    task = TaskConfig(
        name="animals",
        source="hub",
        path="owner/animals",
        train="train[:4]",
        validation="train[4:]",
        test=None,
    )
    splits = load(task, tmp_path).splits
    images, labels = pictures("train")
    for name, rows in {"train": slice(0, 4), "validation": slice(4, 6)}.items():
        expected = torch.from_numpy(images[rows])
        assert torch.equal(splits[name].images.permute(0, 2, 3, 1), expected)
        assert splits[name].labels.tolist() == labels[rows].tolist()


def test_hub_subset_and_column_names(tmp_path: Path) -> None:
    top = tmp_path / "owner" / "animals"
    for split in SPLITS:
        images, labels = pictures(split)
        file = top / "wild" / f"{split}-00000-of-00001.parquet"
        write_table(file, structs(images), labels, NAMES, columns=("img", "fine_label"))
    files = [{"split": split, "path": f"wild/{split}-*"} for split in SPLITS]
    card = {"configs": [{"config_name": "wild", "data_files": files}]}
    (top / "README.md").write_text(f"---\n{json.dumps(card)}\n---\n")

    def ask(**changes: str) -> TaskConfig:
        fields = {"subset": "wild", "image_column": "img", "label_column": "fine_label"}
        return TaskConfig(name="animals", source="hub", path="owner/animals", **fields | changes)

    assert load(ask(), tmp_path).classes == NAMES
    assert "'img', 'fine_label'" in refused(ask(label_column="label"), tmp_path)
    assert "'tame'" in refused(ask(subset="tame"), tmp_path)


def test_hub_path_that_is_neither_id_nor_folder_is_refused_by_the_check(tmp_path: Path) -> None:
    for path in ("a/b/c", str(tmp_path / "absent")):
        task = TaskConfig(name="animals", source="hub", path=path)
        with pytest.raises(DataError, match="must be a dataset id"):
            check_tasks(config_of(task, tmp_path))


def test_hub_dataset_that_cannot_be_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets
    import huggingface_hub

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    task = TaskConfig(name="animals", source="hub", path="nobody/nothing-of-the-kind")
    assert "could not be loaded" in refused(task, tmp_path)


# ---------------------------------------------------------------------------- folders


def test_folder_takes_images_only(tmp_path: Path) -> None:
    task = make_folder(tmp_path)
    train = tmp_path / "animals" / "train"
    (train / "cat" / "notes.txt").write_text("not an image")
    (train / "empty").mkdir()
    (train / ".thumbnails").mkdir()
    (train / ".thumbnails" / "0.png").write_bytes(b"not an image")
    Image.fromarray(pictures("train")[0][0]).save(train / "cat" / "9.JPEG")
    loaded = load(task, tmp_path)
    assert loaded.classes == NAMES
    assert len(loaded.splits["train"]) == SPLITS["train"] + 1


def test_folder_class_unknown_to_training_is_refused(tmp_path: Path) -> None:
    task = make_folder(tmp_path)
    (tmp_path / "animals" / "validation" / "cat").rename(
        tmp_path / "animals" / "validation" / "cats"
    )
    message = refused(task, tmp_path)
    assert "cats does not; its classes are bird, cat" in message


def test_folder_names_the_file_that_cannot_be_decoded(tmp_path: Path) -> None:
    task = make_folder(tmp_path)
    (tmp_path / "animals" / "train" / "cat" / "001.png").write_bytes(b"")
    check_tasks(config_of(task, tmp_path))
    with pytest.raises(DataError, match=r"'animals': .*cat/001\.png cannot be decoded"):
        load_task(task, config_of(task, tmp_path))


# ---------------------------------------------------------------------------- npz


@pytest.mark.parametrize("channels", [(), (1,)])
def test_npz_gray_images_become_rgb(channels: tuple[int, ...], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    gray = rng.integers(0, 256, (4, SIZE, SIZE)).astype(np.uint8)
    arrays = {}
    for split in ("train", "val"):
        arrays[f"{split}_images"] = gray.reshape(*gray.shape, *channels)
        arrays[f"{split}_labels"] = np.array([0, 1, 1, 0])
    np.savez(tmp_path / "gray.npz", **arrays)
    task = load(TaskConfig(name="g", source="npz", path="gray.npz", test=None), tmp_path)
    expected = torch.from_numpy(gray)[:, None].expand(-1, 3, -1, -1)
    assert torch.equal(task.splits["train"].images, expected)


@pytest.mark.parametrize(
    ("key", "array", "message"),
    [
        ("train_images", np.zeros((6, 8, 8), np.float32), "must be uint8"),
        ("train_images", np.zeros((6, 8, 8, 4), np.uint8), r"\(6, 8, 8, 4\)"),
        ("train_images", np.zeros((5, 8, 8), np.uint8), "each of the 5 images"),
        ("train_labels", np.zeros((6, 14), np.int64), r"\(6, 14\)"),
        ("train_labels", np.zeros(6), "float64"),
        ("train_labels", np.array([{}] * 6), "cannot be read as plain arrays"),
    ],
)
def test_npz_arrays_of_another_kind_are_refused(
    key: str, array: np.ndarray, message: str, tmp_path: Path
) -> None:
    task = make_npz(tmp_path)
    with np.load(tmp_path / "animals.npz") as archive:
        arrays = dict(archive)
    np.savez(tmp_path / "animals.npz", **arrays | {key: array})
    with pytest.raises(DataError, match=message):
        raise DataError(refused(task, tmp_path))


def test_npz_that_is_none_is_refused(tmp_path: Path) -> None:
    task = make_npz(tmp_path)
    whole = (tmp_path / "animals.npz").read_bytes()
    with (tmp_path / "animals.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    assert "must be an npz file" in refused(task, tmp_path)
    damaged = whole.replace(b"NUMPY", b"NUMBY")
    (tmp_path / "animals.npz").write_bytes(damaged)
    assert "cannot be read as plain arrays" in refused(task, tmp_path)


# ---------------------------------------------------------------------------- pixels


def palette() -> Image.Image:
    image = Image.new("P", (2, 2), 1)
    image.putpalette([0, 0, 0, 10, 200, 30])
    return image


def transparent_palette() -> Image.Image:
    image = palette()
    image.info["transparency"] = 1
    return image


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.new("1", (2, 2), 1), (255, 255, 255)),
        (Image.new("L", (2, 2), 77), (77, 77, 77)),
        (Image.new("LA", (2, 2), (77, 255)), (77, 77, 77)),
        (Image.new("LA", (2, 2), (77, 0)), (255, 255, 255)),
        (palette(), (10, 200, 30)),
        (transparent_palette(), (255, 255, 255)),
        (Image.new("RGB", (2, 2), (10, 200, 30)), (10, 200, 30)),
        (Image.new("RGBA", (2, 2), (10, 200, 30, 255)), (10, 200, 30)),
        (Image.new("RGBA", (2, 2), (10, 200, 30, 0)), (255, 255, 255)),
        (Image.new("CMYK", (2, 2), (0, 255, 255, 0)), (255, 0, 0)),
        (Image.fromarray(np.full((2, 2), 0x9C40, np.uint16)), (0x9C, 0x9C, 0x9C)),
        (Image.fromarray(np.full((2, 2), 0x9C40, np.int32)), (0x9C, 0x9C, 0x9C)),
        (Image.fromarray(np.full((2, 2), 99.0, np.float32)), (99, 99, 99)),
    ],
    ids=lambda value: value.mode if isinstance(value, Image.Image) else "",
)
def test_every_mode_becomes_rgb(image: Image.Image, expected: tuple[int, int, int]) -> None:
    converted = to_rgb(image)
    assert converted.mode == "RGB"
    assert converted.getpixel((1, 1)) == expected


def test_sixteen_bits_and_orientation_survive_the_file(tmp_path: Path) -> None:
    task = make_folder(tmp_path)
    for file in (tmp_path / "animals" / "train").glob("*/*"):
        file.unlink()
    deep = np.zeros((SIZE, SIZE), np.uint16)
    deep[: SIZE // 2] = 40000
    turned = Image.fromarray(np.repeat((deep >> 8).astype(np.uint8)[..., None], 3, axis=2))
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    Image.fromarray(deep).save(tmp_path / "animals" / "train" / "bird" / "0.png")
    turned.save(tmp_path / "animals" / "train" / "cat" / "0.png", exif=exif)
    bird, cat = load(task, tmp_path).splits["train"].images
    assert torch.equal(bird[0, :, 0], torch.tensor([156] * 4 + [0] * 4, dtype=torch.uint8))
    assert torch.equal(cat, bird.flip(1))


@pytest.mark.parametrize("wide", [True, False])
def test_square_keeps_the_centre_and_the_proportions(wide: bool) -> None:
    bands = np.zeros((32, 96, 3), np.uint8)
    bands[:, 32:64] = (200, 100, 50)
    bands[8:24, 40:56] = (0, 0, 255)
    square = to_square(
        Image.fromarray(bands if wide else bands.transpose(1, 0, 2).copy()), 16
    ).transpose(1, 2, 0)
    # A pixel beside each edge may mix with what the antialiasing filter sees.
    assert (square[2, 2:-2] == (200, 100, 50)).all()
    assert (square[2:-2, 2] == (200, 100, 50)).all()
    assert (square[5:11, 5:11] == (0, 0, 255)).all()


def test_square_is_antialiased() -> None:
    checks = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)
    square = to_square(Image.fromarray(checks).convert("RGB"), 8)
    assert np.abs(square.astype(int) - 127).max() <= 3
