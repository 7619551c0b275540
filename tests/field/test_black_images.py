"""Images came out black or white where their type does not say what white is, without a word."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from tests.helpers.sources import SIZE, encode
from trainers.data import DataConfig, Task, TaskConfig, check_tasks, load_task
from trainers.data.sources import DataError

#: Encodes an image whose pixels are given as shares of white, (S, S) in [0, 1].
Encoder = Callable[[np.ndarray], bytes]


def shares() -> dict[str, np.ndarray]:
    """By split, (4, S, S) from 0 to 1 in steps of 1/255."""
    rng = np.random.default_rng(0)
    splits = {name: rng.integers(0, 256, (4, SIZE, SIZE)) for name in ("train", "test")}
    for images in splits.values():
        images[:, 0, :2] = 0, 255
    return {name: images / 255 for name, images in splits.items()}


def write_folder(top: Path, encoder: Encoder, suffix: str = ".img") -> None:
    for split, images in shares().items():
        for index, image in enumerate(images):
            file = top / "t" / split / "ab"[index % 2] / f"{index}{suffix}"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(encoder(image))


def load(top: Path, **fields: object) -> Task:
    task = TaskConfig(
        **{"name": "t", "source": "folder", "validation": "test", "test": None} | fields
    )
    config = DataConfig(tasks=(task,), root=str(top), input_size=SIZE)
    check_tasks(config)
    return load_task(task, config)


def expected(split: str = "train") -> torch.Tensor:
    """uint8 (4, 3, S, S), in the order in which a folder is read."""
    pixels = np.rint(255 * shares()[split][[0, 2, 1, 3]]).astype(np.uint8)
    return torch.from_numpy(pixels)[:, None].expand(-1, 3, -1, -1)


def numbers(
    kind: str, low: float, high: float, form: str = "TIFF", *, white_is_zero: bool = False
) -> Encoder:
    """Values of a NumPy type, from that of black to that of white."""

    def write(share: np.ndarray) -> bytes:
        values = low + share * (high - low)
        array = values.astype(kind) if "f" in kind else np.rint(values).astype(kind)
        image = Image.fromarray(array.view({"u4": "i4", "i1": "u1"}.get(kind, array.dtype)))
        buffer = io.BytesIO()
        tags = {262: 0} if white_is_zero else {339: 2} if kind == "i1" else {}
        image.save(buffer, form, **{"tiffinfo": tags} if tags else {})
        # Pillow writes the sample format (tag 339) "signed" (2), where these are not (1).
        tag = b"\x53\x01\x03\x00\x01\x00\x00\x00"
        data = buffer.getvalue()
        return data.replace(tag + b"\x02", tag + b"\x01") if kind == "u4" else data

    return write


def in_mode(mode: str, form: str, **options: object) -> Encoder:
    """Gray pixels in an 8-bit mode, which says itself what is white."""

    def write(share: np.ndarray) -> bytes:
        gray = Image.fromarray(np.rint(255 * share).astype(np.uint8))
        image = gray.convert("RGB").convert(mode) if mode != "L" else gray
        if mode == "LAB":
            srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
            transform = ImageCms.buildTransform(srgb, lab, "RGB", "LAB")
            image = ImageCms.applyTransform(gray.convert("RGB"), transform)
        if mode == "P":
            image = gray.convert("P")
        buffer = io.BytesIO()
        image.save(buffer, form, **options)
        return buffer.getvalue()

    return write


def animated(form: str) -> Encoder:
    """The image, and a frame of its negative after it."""

    def write(share: np.ndarray) -> bytes:
        first, second = (np.rint(255 * each).astype(np.uint8) for each in (share, 1 - share))
        buffer = io.BytesIO()
        Image.fromarray(first).save(
            buffer, form, save_all=True, append_images=[Image.fromarray(second)]
        )
        return buffer.getvalue()

    return write


NUMBERS = {
    "16-bit png": (numbers("u2", 0, 65535, "PNG"), ".png"),
    "12 bits in a 16-bit png": (numbers("u2", 0, 4095, "PNG"), ".png"),
    "10 bits in a 16-bit png": (numbers("u2", 0, 1023, "PNG"), ".png"),
    "8 bits in a 16-bit png": (numbers("u2", 0, 255, "PNG"), ".png"),
    "16-bit tiff, big-endian": (numbers(">u2", 0, 65535), ".tif"),
    "16-bit tiff, white is zero": (numbers("u2", 65535, 0, white_is_zero=True), ".tif"),
    "32-bit tiff": (numbers("i4", 0, 2**31 - 1), ".tif"),
    "32-bit tiff of few bits": (numbers("i4", 0, 4095), ".tif"),
    "32-bit tiff without sign": (numbers("u4", 0, 2**32 - 1), ".tiff"),
    "signed tiff": (numbers("i4", -32768, 32767), ".tif"),
    "float tiff from 0 to 1": (numbers("f4", 0, 1), ".tif"),
    "float tiff from 0 to 255": (numbers("f4", 0, 255), ".tif"),
    "float tiff from -1 to 1": (numbers("f4", -1, 1), ".TIF"),
    "float tiff of degrees": (numbers("f4", 273, 303), ".tif"),
    "8-bit tiff with a sign": (numbers("i1", -128, 127), ".tif"),
    "16-bit pgm": (numbers("i4", 0, 65535, "PPM"), ".pgm"),
    "float pfm": (numbers("f4", 0, 1, "PPM"), ".pfm"),
    "16-bit jpeg 2000": (numbers("u2", 0, 65535, "JPEG2000"), ".jp2"),
}
MODES = {
    "L": (in_mode("L", "PNG"), ".png", 0),
    "LA": (in_mode("LA", "PNG"), ".png", 0),
    "P": (in_mode("P", "PNG"), ".png", 0),
    "RGBA": (in_mode("RGBA", "WEBP", lossless=True), ".webp", 0),
    "CMYK": (in_mode("CMYK", "TIFF"), ".tif", 1),
    "CMYK jpeg": (in_mode("CMYK", "JPEG", quality=100), ".jpg", 12),
    "YCbCr": (in_mode("YCbCr", "TIFF"), ".tif", 1),
    "LAB": (in_mode("LAB", "TIFF"), ".tif", 3),
    "gif": (animated("GIF"), ".gif", 0),
    "apng": (animated("PNG"), ".apng", 0),
    "ppm": (in_mode("RGB", "PPM"), ".ppm", 0),
    "tga": (in_mode("RGB", "TGA"), ".tga", 0),
    "pcx": (in_mode("L", "PCX"), ".pcx", 0),
    "ico": (in_mode("RGB", "ICO", sizes=[(SIZE, SIZE)]), ".ico", 0),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_values_of_every_type_reach_from_black_to_white(name: str, tmp_path: Path) -> None:
    encoder, suffix = NUMBERS[name]
    write_folder(tmp_path, encoder, suffix)
    task = load(tmp_path)
    difference = task.splits["train"].images.int() - expected().int()
    assert difference.abs().max() <= (1 if "8 bits" not in name else 0)
    assert "white is" in task.summary()
    assert "values from" in task.summary()


@pytest.mark.parametrize("name", MODES)
def test_modes_of_eight_bits_are_as_a_viewer_shows_them(name: str, tmp_path: Path) -> None:
    encoder, suffix, tolerance = MODES[name]
    write_folder(tmp_path, encoder, suffix)
    task = load(tmp_path)
    difference = task.splits["train"].images.int() - expected().int()
    assert difference.abs().max() <= tolerance
    assert "white is 255" in task.summary()


@pytest.mark.parametrize(
    ("kind", "high", "white"),
    [
        ("bool", 1, "255"),
        ("uint8", 255, "255"),
        ("uint16", 4095, "4095"),
        ("uint16", 65535, "65535"),
        ("int16", 255, "255"),
        ("int64", 1, "1"),
        ("uint64", 255, "255"),
        ("float16", 1, "1"),
        ("float32", 255, "255"),
        ("float64", 16, "16"),
    ],
)
def test_arrays_of_every_type(kind: str, high: float, white: str, tmp_path: Path) -> None:
    arrays = {}
    for split, share in shares().items():
        share = np.rint(share) if kind == "bool" or (kind, high) == ("int64", 1) else share
        values = share * high
        values = np.rint(values) if "int" in kind else values
        arrays |= {f"{split}_images": values.astype(kind), f"{split}_labels": [0, 1, 0, 1]}
    np.savez(tmp_path / "t.npz", **arrays)
    task = load(tmp_path, source="npz")
    images = arrays["train_images"].astype(float) / high
    difference = task.splits["train"].images[:, 0].numpy() - np.rint(255 * images)
    assert np.abs(difference).max() <= 1
    assert f"white is {white}" in task.summary()


def test_one_dark_image_does_not_get_a_scale_of_its_own(tmp_path: Path) -> None:
    write_folder(tmp_path, numbers("u2", 0, 65535, "PNG"), ".png")
    dark = encode(np.full((SIZE, SIZE), 257, np.uint16))
    (tmp_path / "t" / "train" / "a" / "0.png").write_bytes(dark)
    assert load(tmp_path).splits["train"].images[0].unique().tolist() == [1]


def test_the_scale_is_that_of_all_splits(tmp_path: Path) -> None:
    write_folder(tmp_path, numbers("u2", 0, 15000, "PNG"), ".png")
    bright = encode(np.full((SIZE, SIZE), 65535, np.uint16))
    (tmp_path / "t" / "test" / "a" / "0.png").write_bytes(bright)
    task = load(tmp_path)
    assert "white is 65535 (uint16 values from 0 to 65535)" in task.summary()
    assert task.splits["train"].images.max() == round(255 * 15000 / 65535)


def test_splits_on_two_scales_are_refused(tmp_path: Path) -> None:
    arrays = {
        f"{split}_images": share * (1 if split == "train" else 255)
        for split, share in shares().items()
    }
    labels = {f"{split}_labels": [0, 1, 0, 1] for split in shares()}
    np.savez(tmp_path / "t.npz", **arrays, **labels)
    with pytest.raises(DataError, match="reach 255 in validation but only 1 in train"):
        load(tmp_path, source="npz")


def test_white_and_black_can_be_set(tmp_path: Path) -> None:
    write_folder(tmp_path, numbers("i4", -1000, 3000), ".tif")
    images = load(tmp_path, black=-1000, white=1000).splits["train"].images
    assert torch.equal(images, (2 * expected().float()).clamp(max=255).round().byte())
    dim = np.rint(shares()["train"]).astype(np.uint8)
    labels = np.array([0, 1, 0, 1])
    np.savez(tmp_path / "u.npz", train_images=dim, train_labels=labels,
             test_images=1 - dim, test_labels=labels)  # fmt: skip
    task = load(tmp_path, source="npz", path="u.npz")
    assert "hardly any contrast; set black and white" in task.summary()
    task = load(tmp_path, source="npz", path="u.npz", white=1)
    assert task.splits["train"].images.unique().tolist() == [0, 255]
    with pytest.raises(DataError, match="white is 4095, but all images have values of 8 bits"):
        load(tmp_path, source="npz", path="u.npz", white=4095)
    with pytest.raises(ValueError, match="black must be below white, got 5 and 4"):
        load(tmp_path, black=5, white=4)


def test_one_broken_pixel_that_makes_all_others_black_is_said(tmp_path: Path) -> None:
    arrays = {}
    for split, share in shares().items():
        images = np.pad(np.rint(4000 * share), ((0, 0), (0, 80), (0, 80)), mode="wrap")
        images[0, 5, 5] = 65535
        arrays |= {f"{split}_images": images.astype(np.uint16), f"{split}_labels": [0, 1, 0, 1]}
    np.savez(tmp_path / "t.npz", **arrays)
    task = TaskConfig(name="t", source="npz", validation="test", test=None)
    config = DataConfig(tasks=(task,), root=str(tmp_path), input_size=SIZE + 80)
    summary = load_task(task, config).summary()
    assert "white is 65535 (uint16 values from 0 to 65535)" in summary
    assert "hardly any contrast" in summary


def test_what_is_no_number_is_black_and_changes_no_scale(tmp_path: Path) -> None:
    def write(share: np.ndarray) -> bytes:
        values = share.astype(np.float32)
        values[-1, :3] = np.nan, np.inf, -np.inf
        return encode(Image.fromarray(values), "TIFF")

    write_folder(tmp_path, write, ".tif")
    images = load(tmp_path).splits["train"].images
    assert images[:, 0, -1, :3].tolist() == [[0, 255, 0]] * 4
    assert (images[:, :, :-1].int() - expected()[:, :, :-1].int()).abs().max() <= 1


def test_images_that_are_all_alike_are_refused(tmp_path: Path) -> None:
    write_folder(tmp_path, lambda share: encode(np.zeros((SIZE, SIZE), np.uint8)), ".png")
    with pytest.raises(DataError, match=r"all 4 train images are alike .every pixel is 0 of 255"):
        load(tmp_path)


def png(values: np.ndarray, *, colour: int, chunk: bytes) -> bytes:
    """A PNG of 16-bit values with a tRNS chunk, which Pillow does not write."""

    def part(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    height, width = values.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in values)
    return (
        b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"tRNS", chunk)
        + part(b"IDAT", zlib.compress(lines)) + part(b"IEND", b"")
    )  # fmt: skip


@pytest.mark.parametrize("colour", [0, 2], ids=["gray", "colour"])
def test_transparent_of_sixteen_bits_shows_white(colour: int, tmp_path: Path) -> None:
    def write(share: np.ndarray) -> bytes:
        values = np.rint(share * 65535).astype(np.uint16)
        values[2, :] = 5000
        layers = 1 if colour == 0 else 3
        stack = np.repeat(values[:, :, None], layers, axis=2)
        return png(stack, colour=colour, chunk=struct.pack(">" + "H" * layers, *[5000] * layers))

    write_folder(tmp_path, write, ".png")
    images = load(tmp_path).splits["train"].images
    assert images[:, :, 2].unique().tolist() == [255]
    others = expected()[:, :, 3:] != 5000 >> 8  # all that Pillow keeps of the marked colour
    difference = images[:, :, 3:].int() - expected()[:, :, 3:].int()
    assert difference[others].abs().max() <= 1


@pytest.mark.parametrize("fits", [True, False])
def test_a_colour_profile_is_followed_where_it_fits(fits: bool, tmp_path: Path) -> None:
    kind = "sRGB" if fits else "LAB"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile(kind)).tobytes()
    if fits:  # one in which the light of red is blue and that of blue is red
        swapped = profile.replace(b"rXYZ", b"????", 1).replace(b"bXYZ", b"rXYZ", 1)
        profile = swapped.replace(b"????", b"bXYZ", 1)

    def write(share: np.ndarray) -> bytes:
        image = np.rint(255 * share).astype(np.uint8)[..., None] * np.array([1, 0, 0], np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "PNG", icc_profile=profile)
        return buffer.getvalue()

    write_folder(tmp_path, write, ".png")
    images = load(tmp_path).splits["train"].images.int()
    lit = 2 if fits else 0
    assert (images[:, lit] - expected()[:, 0].int()).abs().max() <= 1
    assert images[:, 2 - lit].max() <= 1


def test_damaged_orientation_turns_no_image(tmp_path: Path) -> None:
    def write(share: np.ndarray) -> bytes:
        buffer = io.BytesIO()
        image = Image.fromarray(np.rint(255 * share).astype(np.uint8))
        image.save(buffer, "PNG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x05\x01\x12")
        return buffer.getvalue()

    write_folder(tmp_path, write, ".png")
    assert torch.equal(load(tmp_path).splits["train"].images, expected())


def test_bomb_of_an_array_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = {f"{split}_images": np.zeros((4, 9, 9), np.uint8) for split in ("train", "test")}
    labels = {f"{split}_labels": [0, 1, 0, 1] for split in ("train", "test")}
    np.savez_compressed(tmp_path / "t.npz", **arrays, **labels)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 70)
    with pytest.raises(DataError, match=r"train_images of .* refused as a decompression bomb"):
        load(tmp_path, source="npz")


@pytest.mark.filterwarnings("ignore")  # as outside of tests, where a warning is no error
def test_decompression_bomb_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path, numbers("u2", 0, 65535, "PNG"), ".png")
    bomb = tmp_path / "t" / "train" / "b" / "1.png"
    for side in (9, 12):  # Pillow warns above its limit, and refuses twice as much
        bomb.write_bytes(encode(np.zeros((side, side), np.uint8)))
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 70)
        with pytest.raises(DataError, match=r"'t': .*b/1\.png is refused as a decompression bomb"):
            load(tmp_path)


def write_one_npz(top: Path, train: np.ndarray, test: np.ndarray) -> None:
    labels = np.array([0, 1, 0, 1])
    np.savez(top / "t.npz", train_images=train, train_labels=labels, test_images=test,
             test_labels=labels)  # fmt: skip


def test_bytes_of_another_scale_in_one_split_are_refused(tmp_path: Path) -> None:
    """0 to 1 of 255 in validation was black."""
    rng = np.random.default_rng(0)
    train, test = rng.random((2, 4, SIZE, SIZE, 3))
    write_one_npz(tmp_path, (255 * train).astype(np.uint8), np.rint(test).astype(np.uint8))
    with pytest.raises(DataError, match="no pixel of validation is above 1 of 255, where train"):
        load(tmp_path, source="npz")


def test_a_split_that_is_brighter_throughout_is_told(tmp_path: Path) -> None:
    """0 to 1 in train beside -1 to 1 in validation: grey to white."""
    train, test = np.random.default_rng(0).random((2, 4, SIZE, SIZE, 3))
    write_one_npz(tmp_path, train, 2 * test - 1)
    said = load(tmp_path, source="npz").summary()
    assert "of 255, where validation has 0: are the values of all splits stored alike?" in said
