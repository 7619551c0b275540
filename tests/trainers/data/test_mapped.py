"""Images that are mapped from files: the same pixels, little to send, whole or made anew."""

import dataclasses
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from search.study.basis import data_basis
from tests.helpers.sources import (
    MAKERS,
    NAMES,
    config_of,
    encode,
    make_folder,
    make_parquet,
    pictures,
    structs,
    write_table,
)
from tests.trainers.data.test_images import noise_task
from trainers.data import (
    DataConfig,
    Inputs,
    Split,
    Task,
    TaskConfig,
    draw_batch,
    load_task,
    load_tasks,
    loading,
)
from trainers.data.sources import DataError, pixels

#: Training images, and their height and width.
COUNT, SIDE = 24, 32


@pytest.fixture(autouse=True)
def _everything_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "MAPPED_ABOVE", 1000)


def write(top: Path, count: int = COUNT) -> DataConfig:
    """A task of noise in files, some of 16 bits, larger than the input size."""
    rng = np.random.default_rng(0)
    for split, number in (("train", count), ("validation", 6)):
        for index in range(number):
            file = top / "data" / "t" / split / "ab"[index % 2] / f"{index:03}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            deep = Image.fromarray(rng.integers(0, 65536, (40, 48)).astype(np.uint16))
            plain = rng.integers(0, 256, (40, 48, 3)).astype(np.uint8)
            file.write_bytes(encode(deep if index % 3 == 0 else plain))
    task = TaskConfig(name="t", source="folder", test=None)
    return DataConfig(tasks=(task,), root=str(top / "data"), input_size=SIDE)


def load(config: DataConfig, folder: Path | None) -> Task:
    return load_task(config.tasks[0], config, folder)


def files(folder: Path) -> dict[str, int]:
    """The files of images, and when they were written."""
    return {file.name: file.stat().st_mtime_ns for file in folder.glob("*.npy")}


@pytest.mark.parametrize("source", [*MAKERS, "toy"])
def test_mapped_images_are_those_in_memory(source: str, tmp_path: Path) -> None:
    task = TaskConfig(name="digits", source="toy") if source == "toy" else MAKERS[source](tmp_path)
    config = config_of(task, tmp_path)
    memory, mapped = load(config, None), load(config, tmp_path / "kept" / "images")
    for name, split in memory.splits.items():
        other = mapped.splits[name]
        assert split.path is None
        assert other.path is not None
        assert other.path.parent == tmp_path / "kept" / "images"
        assert torch.equal(split.images, other.images)
        assert torch.equal(split.labels, other.labels)
        assert np.array_equal(np.load(other.path), split.images.numpy())
        assert split.digests() == other.digests()
    assert torch.equal(memory.mean, mapped.mean)
    assert torch.equal(memory.std, mapped.std)
    assert memory.summary() == mapped.summary()
    assert data_basis({"t": memory}) == data_basis({"t": mapped})
    assert mapped.fingerprint() == load(config, tmp_path / "elsewhere").fingerprint()
    assert load_tasks(config, tmp_path / "kept" / "images")[task.name].splits["train"].path


def test_only_what_is_large_is_mapped_and_only_where_there_is_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write(tmp_path)
    assert load(config, None).splits["train"].path is None
    monkeypatch.setattr(loading, "MAPPED_ABOVE", (COUNT + 6) * 3 * SIDE**2)
    assert load(config, tmp_path / "kept").splits["train"].path is None
    assert not (tmp_path / "kept").exists()
    monkeypatch.setattr(loading, "MAPPED_ABOVE", (COUNT + 6) * 3 * SIDE**2 - 1)
    assert load(config, tmp_path / "kept").splits["validation"].path is not None


def test_images_are_decoded_once_and_found_again(tmp_path: Path) -> None:
    config, kept = write(tmp_path), tmp_path / "kept"
    first = load(config, kept)
    before = files(kept)
    assert len(before) == 2
    again = load(dataclasses.replace(config, inputs=Inputs(mean=(0.1, 0.2, 0.3))), kept)
    assert files(kept) == before  # what does not decide pixels makes no other file
    assert torch.equal(first.splits["train"].images, again.splits["train"].images)
    assert sorted(file.suffix for file in kept.iterdir()) == [".json", ".json", ".npy", ".npy"]


def test_all_that_decides_pixels_makes_another_file(tmp_path: Path) -> None:
    config, kept = write(tmp_path), tmp_path / "kept"
    (task,), prints = config.tasks, set()
    rescaled = dataclasses.replace(task, white=50000)
    fewer = dataclasses.replace(task, limit=10)
    for other in (
        config,
        dataclasses.replace(config, input_size=SIDE - 1),
        dataclasses.replace(config, inputs=Inputs(interpolation="bicubic")),
        dataclasses.replace(config, tasks=(rescaled,)),
        dataclasses.replace(config, tasks=(fewer,)),
    ):
        before = files(kept)
        mapped, memory = load(other, kept), load(other, None)
        assert torch.equal(mapped.splits["train"].images, memory.splits["train"].images)
        new = set(files(kept)) - set(before)
        assert any("train" in name for name in new)
        assert files(kept).items() >= before.items()
        prints.add(mapped.fingerprint())
    assert len(prints) == 5
    # Another file of the same size and time of writing may have other pixels.
    file = next((tmp_path / "data" / "t" / "train" / "a").iterdir())
    said = file.stat()
    other = tmp_path / "copy.png"
    other.write_bytes(file.read_bytes())
    os.utime(other, ns=(said.st_atime_ns, said.st_mtime_ns))
    other.replace(file)
    before = files(kept)
    load(config, kept)
    assert len(files(kept)) == len(before) + 1


def test_content_of_tables_decides(tmp_path: Path) -> None:
    task = make_parquet(tmp_path)
    config, kept = config_of(task, tmp_path), tmp_path / "kept"
    load(config, kept)
    before = files(kept)
    for file in (tmp_path / "animals").iterdir():
        os.utime(file, (0, 0))
    load(config, kept)
    assert files(kept) == before
    images, labels = pictures("train")
    images[0, 0, 0] ^= 1
    write_table(tmp_path / "animals" / "train.parquet", structs(images), labels, NAMES)
    load(config, kept)
    assert len(files(kept)) == len(before) + 1


def cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1000])


def change(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1000] ^= 1
    file.write_bytes(content)


def reshape(file: Path) -> None:
    np.save(file, np.load(file).reshape(COUNT * 3, 1, SIDE, SIDE))


@pytest.mark.parametrize(
    "damage",
    [
        cut_short,
        change,
        reshape,
        lambda file: file.write_bytes(b""),
        lambda file: file.unlink(),
        lambda file: file.with_suffix(".json").unlink(),
        lambda file: file.with_suffix(".json").write_text("{"),
        lambda file: file.with_suffix(".json").write_text("{}"),
    ],
)
def test_a_damaged_file_is_made_anew(damage: object, tmp_path: Path) -> None:
    config, kept = write(tmp_path), tmp_path / "kept"
    first = load(config, kept)
    path = first.splits["train"].path
    assert path is not None
    wanted, images = path.read_bytes(), first.splits["train"].images.clone()
    del first
    damage(path)  # type: ignore[operator]
    again = load(config, kept)
    assert torch.equal(again.splits["train"].images, images)
    assert path.read_bytes() == wanted
    before = files(kept)
    load(config, kept)
    assert files(kept) == before


def test_nothing_is_left_of_what_cannot_be_decoded(tmp_path: Path) -> None:
    config, kept = write(tmp_path), tmp_path / "kept"
    broken = sorted((tmp_path / "data" / "t" / "train").glob("*/*"))
    for file in (broken[7], broken[-1]):
        file.write_bytes(file.read_bytes()[:300])
    with pytest.raises(DataError, match=f"{broken[7].parent.name}/{broken[7].name} cannot"):
        load(config, kept)
    assert list(kept.iterdir()) == []


def test_a_mapped_split_is_sent_as_its_path(tmp_path: Path) -> None:
    """Another process reads the same images, and none of them is in what it is sent."""
    task = load(write(tmp_path), tmp_path / "kept")
    sent = pickle.dumps(task)
    assert len(sent) < task.splits["train"].images.numel() / 10
    (tmp_path / "task").write_bytes(sent)
    program = (
        "import pickle, sys; task = pickle.loads(open(sys.argv[1], 'rb').read()); "
        "train = task.splits['train']; "
        "print(task.fingerprint(), train.path, int(train.images.sum()))"
    )
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, tmp_path / "task"],
        capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3],
    )  # fmt: skip
    train = task.splits["train"]
    assert ran.stdout.split() == [task.fingerprint(), str(train.path), str(int(train.images.sum()))]


def test_a_split_in_memory_is_sent_whole(tmp_path: Path) -> None:
    split = load(write(tmp_path), None).splits["train"]
    again = pickle.loads(pickle.dumps(split))
    assert torch.equal(split.images, again.images)
    assert torch.equal(split.labels, again.labels)


@pytest.mark.parametrize("folder", [None, "kept"])
def test_rows_are_had_beside_their_labels(folder: str | None, tmp_path: Path) -> None:
    split = load(write(tmp_path), folder and tmp_path / folder).splits["train"]
    images, labels = split.images.clone(), split.labels
    found = split.batch(20, 30)
    assert torch.equal(found[0], images[20:])
    assert torch.equal(found[1], labels[20:])
    rows = torch.tensor([7, 0, 7, 23])
    found = split.take(rows)
    assert torch.equal(found[0], images[rows])
    assert torch.equal(found[1], labels[rows])
    drawn = draw_batch(split, 50, torch.Generator().manual_seed(0))
    index = torch.randint(COUNT, (50,), generator=torch.Generator().manual_seed(0))
    assert torch.equal(drawn[0], images[index])
    assert torch.equal(drawn[1], labels[index])
    chosen = split.select(rows)
    assert torch.equal(chosen.images, images[rows])
    assert torch.equal(chosen.labels, labels[rows])
    assert (chosen.path is None) == (folder is None)
    assert chosen.digests() == Split(images=images[rows], labels=labels[rows]).digests()
    if folder:
        before = files(tmp_path / folder)
        assert split.select(rows).path == chosen.path != split.select(rows[1:]).path
        assert files(tmp_path / folder).items() > before.items()


def test_mapped_images_stay_where_they_are(tmp_path: Path) -> None:
    """Meta stands for an accelerator: what is drawn is moved there, and nothing else."""
    task = load(write(tmp_path), tmp_path / "kept")
    moved = task.to("meta")
    assert moved.mean.is_meta
    train = moved.splits["train"]
    assert train.labels.is_meta
    assert not train.images.is_meta
    assert train.path is not None
    for images, labels in (train.batch(0, 5), train.take(torch.arange(5))):
        assert images.is_meta
        assert labels.is_meta
        assert images.shape == (5, 3, SIDE, SIDE)


@pytest.mark.gpu
def test_batches_of_mapped_images_come_to_the_device(tmp_path: Path) -> None:
    task = load(write(tmp_path), tmp_path / "kept")
    train = task.to("cuda").splits["train"]
    images, labels = draw_batch(train, 50, torch.Generator("cuda").manual_seed(0))
    assert images.is_cuda
    assert labels.is_cuda
    index = torch.randint(
        COUNT, (50,), generator=torch.Generator("cuda").manual_seed(0), device="cuda"
    )
    assert torch.equal(images.cpu(), train.images[index.cpu()])
    assert train.batch(0, 5)[0].is_cuda
    assert task.to("cuda").fingerprint() == task.fingerprint()
    assert torch.equal(train.select(index).images, train.images[index.cpu()])


def test_images_keep_their_order_however_many_threads_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write(tmp_path, count=100)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    monkeypatch.setattr(pixels, "TOGETHER", 200)
    expected = load(config, None).fingerprint()
    for threads, together in ((1, 1), (7, 3), (16, 1)):
        monkeypatch.setattr(os, "cpu_count", lambda number=threads: number)
        monkeypatch.setattr(pixels, "TOGETHER", together)
        assert load(config, None).fingerprint() == expected


def test_the_first_image_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    task = make_folder(tmp_path)
    broken = sorted((tmp_path / "animals" / "train").glob("*/*"))
    for file in broken[1:]:
        file.write_bytes(file.read_bytes()[:60])
    config = config_of(task, tmp_path)
    with pytest.raises(DataError, match=f"{broken[1].name} cannot be decoded"):
        load(config, None)


def test_digests_are_those_that_records_keep() -> None:
    """As they were before images could be mapped: by them a study knows its data again."""
    found = data_basis({"noise": noise_task()})
    assert found["the train images of task noise"] == "c4ac1eccddf39e5732c9"
    assert found["the train labels of task noise"] == "08cf424978b2a11e0847"
