"""Images of any mode, depth, size and encoding -> uint8 RGB squares.

What a person sees in a viewer is what comes out: the orientation that a camera noted is applied,
what is transparent shows white behind it, colours go by the image's colour profile, and of several
frames the first is taken.

Legend: H, W height and width of an image, S the input size, B images that are decoded together.
"""

from __future__ import annotations

import io
import os
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps, TiffTags

from trainers.data.sources.base import ByteArray, DataError, Picture, Pictures
from trainers.data.sources.fits import MEANING, physical, read_header
from trainers.data.sources.scale import BYTES, Ranges, Scale, widen

Image.init()
_COMMON = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
#: All that Pillow decodes by itself. EPS it runs through Ghostscript, the others it only names.
FORMATS = (
    *_COMMON,
    *sorted(set(Image.OPEN) - {*_COMMON, "EPS", "WMF", "MPEG", "BUFR", "GRIB", "HDF5"}),
)
#: How the names of their files end, in small letters.
SUFFIXES = frozenset(
    suffix for suffix, kind in Image.registered_extensions().items() if kind in (*FORMATS, "MPO")
)

#: Images that a thread decodes at a time.
TOGETHER = 16

#: Ways of resizing.
INTERPOLATIONS: Mapping[str, Image.Resampling] = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "hamming": Image.Resampling.HAMMING,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}

_TAGS = {info.name: number for number, info in TiffTags.TAGS_V2.items()}


@dataclass(frozen=True, kw_only=True, eq=False)
class Values:
    """An image whose type does not say which value is white.

    Attributes:
        array: (H, W) or (H, W, 3) numbers.
        inverted: whether the smallest value is white and the largest black.
        clear: (H, W), where the image is transparent; None is nowhere.
    """

    array: NDArray[Any]
    inverted: bool = False
    clear: NDArray[np.bool_] | None = None


class Extent(NamedTuple):
    """The type of the values of an image, as NumPy names it, the smallest and the largest."""

    kind: str
    low: float
    high: float


#: What images of 8 bits say of themselves.
PLAIN = Extent(BYTES, 0, 255)


def to_rgb(image: Image.Image) -> Image.Image:
    """An image of any mode of 8 bits or fewer as 8-bit RGB."""
    _set_upright(image)
    profile = image.info.get("icc_profile")
    if image.mode in ("La", "RGBa"):  # colours that are multiplied by their opacity
        image = image.convert({"La": "LA", "RGBa": "RGBA"}[image.mode])
    if image.mode in ("CMYK", "LAB"):
        return _by_profile(image, profile) if profile or image.mode == "LAB" else _rgb(image)
    if image.has_transparency_data:
        marked = image.info.get("transparency")
        if isinstance(marked, tuple) and max(marked) > 255:  # of 16 bits, as the pixels once were
            image.info["transparency"] = tuple(value >> 8 for value in marked)
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    if profile and image.mode not in ("L", "LA", "1"):
        return _by_profile(_rgb(image), profile)
    return _rgb(image)


def to_values(image: Image.Image) -> Values | None:
    """The numbers of an image of more than 8 bits; None of one whose type says what is white."""
    if image.format == "FITS":
        return _fits_values(image)
    tags = dict(getattr(image, "tag_v2", {}))
    bits, form = tags.get(_TAGS["BitsPerSample"]), tags.get(_TAGS["SampleFormat"], (1,))
    signed = image.mode == "L" and form == (2,)
    if not (image.mode.startswith(("I", "F")) or signed):
        return None
    _set_upright(image)
    array = np.asarray(image)
    if signed:
        array = array.view(np.int8)
    elif image.mode == "I" and bits == (32,) and form == (1,):  # read into int32
        array = array.view(np.uint32)
    elif image.mode == "I" and image.format == "PPM":  # stretched to 16 bits when it is read
        array = array.astype(np.uint16)
    marked = image.info.get("transparency")
    return Values(
        array=array,
        inverted=tags.get(_TAGS["PhotometricInterpretation"]) == 0,
        clear=array == marked if isinstance(marked, int) else None,
    )


def _fits_values(image: Image.Image) -> Values | None:
    header = read_header(image.fp)  # type: ignore[attr-defined]
    if image.mode == "L" and not header.keys() & MEANING:
        return None
    array = physical(np.asarray(image), header)
    return None if array.dtype == np.uint8 else Values(array=array)


def to_square(image: Image.Image, size: int, interpolation: str = "bilinear") -> ByteArray:
    """Resizes the shorter side to `size` pixels and keeps the centre.

    Args:
        image: an RGB image.
        size: S.
        interpolation: key of `INTERPOLATIONS`; all but nearest are antialiased.

    Returns:
        uint8 (3, S, S).
    """
    return np.asarray(_resized(image, size, interpolation)).transpose(2, 0, 1)


def values_to_square(
    values: Values, scale: Scale, size: int, interpolation: str = "bilinear"
) -> ByteArray:
    """Scales values so that white is 255, then does as `to_square`; what is no number is black.

    Returns:
        uint8 (3, S, S).
    """
    share = (values.array.astype(np.float64) - scale.black) / (scale.white - scale.black)
    share = np.clip(np.nan_to_num(share, nan=0.0), 0.0, 1.0)
    if values.inverted:
        share = 1 - share
    if values.clear is not None:
        share[values.clear] = 1
    layers = np.atleast_3d(255 * share).astype(np.float32)  # (H, W, 1) or (H, W, 3)
    square = np.stack(
        [
            np.asarray(_resized(Image.fromarray(np.ascontiguousarray(layer)), size, interpolation))
            for layer in layers.transpose(2, 0, 1)
        ]
    )
    rounded = np.clip(np.rint(square), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(rounded, (3, size, size)))


def measure(pictures: Pictures) -> list[Extent]:
    """Finds which types of values images have, and how far those extend, and refuses bombs.

    Only the headers are read of images of 8 bits, which say their white themselves.

    Raises:
        DataError: saying where, when an image cannot be decoded, or is too large to be.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        return [_extent(where, picture) for where, picture in pictures]


def ranges_of(extents: Iterable[Extent]) -> Ranges:
    """The range of each type of values, over all images."""
    ranges: Ranges = {}
    for kind, low, high in set(extents):
        widen(ranges, kind, low, high)
    return ranges


def decode(
    pictures: Pictures,
    put: Callable[[ByteArray], object],
    *,
    size: int,
    scales: Mapping[str, Scale],
    interpolation: str = "bilinear",
) -> None:
    """Decodes images that `measure` has not refused, as many at once as there are cores.

    Args:
        pictures: the images.
        put: called with the next images, uint8 (B, 3, S, S), until it has had all in their order.
        size: S.
        scales: what is black and white, by type of values.
        interpolation: key of `INTERPOLATIONS`.

    Raises:
        DataError: saying where, when an image cannot be decoded; the first of those that cannot.
    """
    plain = scales.get(BYTES, Scale())
    steps = np.clip((np.arange(256) - plain.black) / (plain.white - plain.black), 0, 1)
    table = np.rint(255 * steps).astype(np.uint8).tolist() * 3

    def square(where: str, picture: Picture) -> ByteArray:
        with _named(where), _opened(picture) as opened:
            values = to_values(opened) if isinstance(opened, Image.Image) else opened
            if values is not None:
                scale = scales[values.array.dtype.name]
                return values_to_square(values, scale, size, interpolation)
            image = to_rgb(opened)
            return to_square(image if plain.plain else image.point(table), size, interpolation)

    def squares(batch: Sequence[tuple[str, Picture]]) -> ByteArray:
        pixels = np.empty((len(batch), 3, size, size), dtype=np.uint8)
        for index, (where, picture) in enumerate(batch):
            pixels[index] = square(where, picture)
        return pixels

    threads = os.cpu_count() or 1  # Pillow leaves Python's lock where it works
    left, waiting = iter(pictures), deque[Future[ByteArray]]()
    with ThreadPoolExecutor(threads) as pool:
        while batch := list(islice(left, TOGETHER)):
            waiting.append(pool.submit(squares, batch))
            if len(waiting) > 2 * threads:
                put(waiting.popleft().result())
        while waiting:
            put(waiting.popleft().result())


def _extent(where: str, picture: Picture) -> Extent:
    with _named(where), _opened(picture) as opened:
        values = to_values(opened) if isinstance(opened, Image.Image) else opened
        if values is None:
            return PLAIN
        finite = values.array[np.isfinite(values.array)]
        if not finite.size:
            raise ValueError("none of its values is a number")
        return Extent(values.array.dtype.name, float(finite.min()), float(finite.max()))


@contextmanager
def _opened(picture: Picture) -> Iterator[Any]:
    """A Pillow image, of which the header alone is read so far, or Values."""
    if picture is None:
        raise ValueError("there is no image")
    if isinstance(picture, np.ndarray):
        if picture.dtype == np.bool_:
            picture = picture.astype(np.uint8) * np.uint8(255)
        is_plain = picture.dtype == np.uint8
        yield Image.fromarray(picture) if is_plain else Values(array=picture)
        return
    with Image.open(
        io.BytesIO(picture) if isinstance(picture, bytes) else picture, formats=FORMATS
    ) as image:
        yield image


@contextmanager
def _named(where: str) -> Iterator[None]:
    """Says where the image is that cannot be decoded."""
    try:
        yield
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(
            f"{where} is refused as a decompression bomb: {error} Make the image smaller, or take "
            "it out"
        ) from error
    # Pillow raises whatever a damaged file leads it into: OSError, SyntaxError, struct.error.
    except Exception as error:
        raise DataError(f"{where} cannot be decoded as an image: {error}") from error


def _set_upright(image: Image.Image) -> None:
    image.load()  # first, since what is wrong with the pixels must not pass for a wrong note
    try:
        ImageOps.exif_transpose(image, in_place=True)
    except Exception:  # a note that cannot be read turns no image
        return


def _resized(image: Image.Image, size: int, interpolation: str) -> Image.Image:
    width, height = image.size
    if (width, height) == (size, size):
        return image
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    return image.resize((size, size), INTERPOLATIONS[interpolation], box=box)


def _rgb(image: Image.Image) -> Image.Image:
    return image if image.mode == "RGB" else image.convert("RGB")


def _by_profile(image: Image.Image, profile: bytes | None) -> Image.Image:
    """RGB by the image's colour profile; a profile that does not fit is not looked at."""
    try:
        return ImageCms.applyTransform(image, _transform(profile, image.mode)) or image
    except (ImageCms.PyCMSError, OSError):
        return _rgb(image)


@lru_cache(maxsize=16)
def _transform(profile: bytes | None, mode: str) -> Any:
    source = (
        ImageCms.createProfile("LAB")
        if profile is None
        else ImageCms.ImageCmsProfile(io.BytesIO(profile))
    )
    return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
