"""FITS files that keep numbers without a sign as numbers with one came out wrapped."""

from pathlib import Path

import numpy as np
import pytest

from tests.helpers.sources import SIZE
from trainers.data import DataConfig, Task, TaskConfig, load_task
from trainers.data.sources import DataError

RAMP = np.linspace(0, 1, SIZE * SIZE).reshape(SIZE, SIZE)


def fits(stored: np.ndarray, *, front: bool = False, **cards: object) -> bytes:
    """A FITS file of numbers as they are stored, with further lines in its header."""
    bits = stored.dtype.itemsize * (-8 if stored.dtype.kind == "f" else 8)
    size = {"BITPIX": bits, "NAXIS": 2, "NAXIS1": stored.shape[1], "NAXIS2": stored.shape[0]}
    head = header(SIMPLE="T", **size, **cards)
    if front:  # a header without pixels before it
        empty = header(SIMPLE="T", BITPIX=8, NAXIS=0, BZERO=7)
        head = empty + header(XTENSION="'IMAGE   '", **size, **cards)
    data = stored[::-1].astype(stored.dtype.newbyteorder(">")).tobytes()
    return head + data + b"\0" * (-len(data) % 2880)


def header(**cards: object) -> bytes:
    lines = [f"{key:8}= {value!s:>20} / BZERO = 1" for key, value in cards.items()]
    text = "".join(line.ljust(80) for line in (*lines, "END"))
    return text.ljust(-(-len(text) // 2880) * 2880).encode()


def load(top: Path, *files: bytes) -> Task:
    """A task whose images of both classes and splits are these, moved along a little."""
    for split in ("train", "test"):
        for index, content in enumerate(files):
            file = top / "t" / split / "ab"[index % 2] / f"{index}.fits"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
    task = TaskConfig(name="t", source="folder", validation="test", test=None)
    return load_task(task, DataConfig(tasks=(task,), root=str(top), input_size=SIZE))


def two(meant: np.ndarray, kind: str, zero: float = 0, scale: float = 1, **cards: object) -> list:
    """Files of an image and of its upper half that is white, as the header says them."""
    white = meant.copy()
    white[: SIZE // 2] = meant.max()
    named = {"BZERO": zero, "BSCALE": scale}
    return [
        fits(np.rint((image - zero) / scale).astype(kind), **named, **cards)
        for image in (meant, white)
    ]


def ramp_of(task: Task) -> np.ndarray:
    return task.splits["train"].images[0, 0].numpy()


@pytest.mark.parametrize(
    ("kind", "zero", "scale", "low", "high", "name"),
    [
        ("i2", 32768, 1, 0, 65535, "uint16"),
        ("i2", "3.2768D4", 1, 0, 65535, "uint16"),
        ("i4", 2147483648, 1, 0, 2**32 - 1, "uint32"),
        ("u1", -128, 1, -128, 127, "int8"),
        ("i2", 0, 1, -300, 300, "int16"),
        ("i2", 100, 0.5, 0, 255, "float64"),
        ("i2", 1, 1, 0, 4095, "float64"),
        ("u1", 0, 2, 0, 255 * 2, "float64"),
    ],
)
@pytest.mark.parametrize("front", [False, True])
def test_numbers_are_what_the_header_says(
    kind: str, zero: float | str, scale: float, low: float, high: float, name: str, front: bool,
    tmp_path: Path,
) -> None:  # fmt: skip
    meant = low + RAMP * (high - low)
    number = float(str(zero).replace("D", "E"))
    files = two(meant, kind, number, scale, front=front)
    if number != zero:
        files = [file.replace(b"%20s" % str(number).encode(), b"%20s" % zero.encode())
                 for file in files]  # fmt: skip
        assert zero.encode() in files[0]
    task = load(tmp_path, *files)
    white = {510: 1023}.get(high, high)
    expected = np.rint(255 * (meant - low) / (white - low))
    assert np.abs(ramp_of(task).astype(int) - expected).max() <= 1
    assert f"({name} values from" in task.summary()


def test_numbers_of_eight_bits_are_as_ever(tmp_path: Path) -> None:
    task = load(tmp_path, *two(np.rint(RAMP * 255), "u1"))
    assert np.array_equal(ramp_of(task), np.rint(RAMP * 255))
    assert "white is 255" in task.summary()


def test_floats_are_scaled_too(tmp_path: Path) -> None:
    task = load(tmp_path, *(fits((image / 8).astype("f4"), BSCALE=8.0)
                            for image in (RAMP, 1 - RAMP)))  # fmt: skip
    assert np.abs(ramp_of(task).astype(int) - 255 * RAMP).max() <= 1


def test_blank_is_black_and_changes_no_scale(tmp_path: Path) -> None:
    files = []
    for image in (RAMP, 1 - RAMP):
        stored = np.rint(image * 4095).astype("i2")
        stored[0, 0] = -32768
        files.append(fits(stored, BLANK=-32768))
    task = load(tmp_path, *files)
    assert "white is 4095 (float64 values from" in task.summary()
    assert task.splits["train"].images[:, 0, 0, 0].tolist() == [0, 0]


@pytest.mark.parametrize("value", ["'much'", "NaN", "1E999"])
def test_a_header_without_sense_is_refused_by_name(value: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"0\.fits cannot be decoded .* BZERO of its header must"):
        load(tmp_path, *(fits((image * 9).astype("i2"), BZERO=value) for image in (RAMP, 1 - RAMP)))
