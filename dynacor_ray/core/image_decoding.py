"""Decoding of untrusted image files to pixels; a file that cannot be used yields a short reason."""

from __future__ import annotations

import io
import re
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray
from PIL import Image

FORMATS = (
    *(("AVIF",) if find_spec("PIL.AvifImagePlugin") else ()),  # new in Pillow 11.3
    *("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP"),
)
"""Formats read, by content and not by file name. None of them starts another program, as EPS would."""
PIXEL_LIMIT = 89_478_485
"""Pillow's decompression bomb limit, at which it only warns. Here it refuses; Pillow's own limit stays on too."""
MIN_SIDE = 2
MAX_SCANS = 100
"""Passes over the pixels of a progressive JPEG. Usual are ten; a scan of a few bytes goes over all of the image."""
_MOST_COMMENTS = 100
"""Of a PNM whose pixels are text: Pillow moves all that follows for each."""
_LARGE, _STRIP = 1 << 24, 1 << 20
"""Pixels from which an image is decoded while no other large one is, and of a piece that is converted at a time."""

_GRAY = {"1", "L", "I", "F", "I;16", "I;16B", "I;16L", "I;16N"}
_COLOR = {"P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV"}
_ALPHA = {"LA", "La", "PA", "RGBA", "RGBa"}
_ORIENTATION_TAG = 0x0112
_WARNINGS = threading.Lock()  # the list of warning filters belongs to all threads
_LARGE_ONE = threading.Lock()
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImageError(ValueError):
    """An image that cannot be used; the message is a short reason, e.g. "truncated image"."""


@dataclass(frozen=True)
class ImageInfo:
    """Size as stored in the file (EXIF orientation not applied) and number of channels (palette images: 3)."""

    width: int
    height: int
    channels: int


def probe(data: bytes) -> ImageInfo:
    """Decode the whole image, as coarsely as its format allows, and return its size.

    Args:
        data: content of an image file.

    Raises:
        ImageError: the image cannot be used; the message is the reason.
    """
    image = _open(data)
    channels = 3 if image.mode == "P" else len(image.getbands())
    info = ImageInfo(image.width, image.height, channels)
    if image.format in ("JPEG", "MPO"):
        image.draft(image.mode, (max(1, image.width // 8), max(1, image.height // 8)))
    with _in_turn(image):
        _load(image)
        _rgb(image)
    return info


def load_rgb(data: bytes, size: int | None = None) -> NDArray[np.uint8]:
    """Decode to upright RGB: EXIF orientation applied, alpha laid on white, 16 bits scaled to 8.

    Args:
        data: content of an image file; of an animation, the first frame counts.
        size: side of the result in pixels: the image's center square, its shorter side resized (bicubic) and the rest
            cropped. None keeps the image's own size.

    Returns:
        uint8 (H, W, 3), or (size, size, 3).

    Raises:
        ImageError: the image cannot be decoded.
    """
    image = _open(data)
    if size is not None and image.format in ("JPEG", "MPO") and min(image.size) >= 2 * size:
        scale = size / min(image.size)
        image.draft(image.mode, (int(np.ceil(image.width * scale)), int(np.ceil(image.height * scale))))
    with _in_turn(image):
        _load(image)
        rgb = _rgb(image)
        if size is not None:
            rgb = _center_square(rgb, size)
        return np.array(rgb, dtype=np.uint8)


def flip(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Mirror left and right. uint8 (H, W, 3) -> uint8 (H, W, 3)."""
    return np.ascontiguousarray(image[:, ::-1])


def center_crop_resize(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Crop an eighth, at least a pixel, on each side and resize back (bicubic): the weak augmentation of §4.2.

    uint8 (H, W, 3) -> uint8 (H, W, 3).
    """
    height, width = image.shape[0], image.shape[1]
    top, left = (min(max(1, round(side / 8)), (side - 1) // 2) for side in (height, width))
    box = (left, top, width - left, height - top)
    resized = Image.fromarray(image).crop(box).resize((width, height), Image.Resampling.BICUBIC)
    return np.array(resized, dtype=np.uint8)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Pillow's warnings about damaged metadata, which is checked here anyway."""
    with _WARNINGS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _in_turn(image: Image.Image) -> Iterator[None]:
    """Large images one after the other: some hundred bytes of a file become a gigabyte."""
    with _LARGE_ONE if image.width * image.height > _LARGE else nullcontext():
        yield


def _open(data: bytes) -> Image.Image:
    """Read the header; refuse what is no image, too large, too small or of an unknown color mode."""
    if not data:
        raise ImageError("empty file")
    if data[:2] in (b"P1", b"P2", b"P3") and (comments := data.count(b"#")) > _MOST_COMMENTS:
        raise ImageError(f"image has {comments:,} comments; the limit is {_MOST_COMMENTS}")
    try:
        with _quiet():
            image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        pixels = re.search(r"\((\d+) pixels\)", str(error))
        raise _too_large(int(pixels.group(1)) if pixels else 2 * PIXEL_LIMIT) from error
    except MemoryError:
        raise
    except Exception as error:  # decoders raise any type on untrusted bytes
        raise ImageError("not an image") from error
    if image.width * image.height > PIXEL_LIMIT:
        raise _too_large(image.width * image.height)
    if min(image.size) < MIN_SIDE:
        raise ImageError(f"image is {image.width}x{image.height} pixels; at least {MIN_SIDE}x{MIN_SIDE} needed")
    if image.format in ("JPEG", "MPO") and (scans := data.count(b"\xff\xda")) > MAX_SCANS:
        raise ImageError(f"image has {scans:,} scans; the limit is {MAX_SCANS}")
    if image.mode not in _GRAY | _COLOR | _ALPHA:
        raise ImageError(f"color mode {image.mode} is not supported")
    return image


def _too_large(pixels: int) -> ImageError:
    return ImageError(f"image has {pixels:,} pixels; the limit is {PIXEL_LIMIT:,}")


def _load(image: Image.Image) -> None:
    try:
        image.load()
    except MemoryError:
        raise
    except Exception as error:  # decoders raise any type on untrusted bytes
        is_truncated = re.search("truncated|unexpected end|end of file", str(error), re.IGNORECASE)
        reason = "truncated image" if is_truncated or isinstance(error, EOFError) else f"broken image: {error}"
        raise ImageError(_short(reason)) from error


def _rgb(image: Image.Image) -> Image.Image:
    """A loaded image as upright RGB. Raises ImageError when it cannot be converted."""
    try:
        return _upright(_to_rgb(image), image)
    except (ValueError, OSError, ArithmeticError) as error:
        raise ImageError(_short(f"broken image: {error}")) from error


def _short(reason: str, length: int = 100) -> str:
    return reason if len(reason) <= length else reason[: length - 3] + "..."


def _to_rgb(image: Image.Image) -> Image.Image:
    """Any supported mode as RGB."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        low, high = _gray_range(image)
        return _by_strips(image, lambda part: Image.fromarray(_to_8_bits(_grays(part), low, high)).convert("RGB"))
    if image.mode in _ALPHA or "transparency" in image.info:
        return _by_strips(image, _on_white)
    return image if image.mode == "RGB" else image.convert("RGB")


def _strips(image: Image.Image) -> Iterator[tuple[int, int, int, int]]:
    step = max(1, _STRIP // image.width)
    return ((0, top, image.width, min(image.height, top + step)) for top in range(0, image.height, step))


def _by_strips(image: Image.Image, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """An image as RGB by a function of each pixel, which takes several times the memory of its part only."""
    if image.width * image.height <= _STRIP:
        return convert(image)
    made = Image.new("RGB", image.size)
    for box in _strips(image):
        made.paste(convert(image.crop(box)), box[:2])
    return made


def _on_white(image: Image.Image) -> Image.Image:
    alpha = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", alpha.size, "white"), alpha).convert("RGB")


def _grays(image: Image.Image) -> NDArray[np.float64]:
    return np.nan_to_num(np.asarray(image).astype(np.float64), posinf=0.0, neginf=0.0)


def _gray_range(image: Image.Image) -> tuple[float, float]:
    """0..65535 for integers and 0..1 for floats, else the values' own range."""
    ends = np.array([(values.min(), values.max()) for values in (_grays(image.crop(box)) for box in _strips(image))])
    low, high = float(ends[:, 0].min()), float(ends[:, 1].max())
    usual = 1.0 if image.mode == "F" else 65535.0
    return (0.0, usual) if low >= 0.0 and high <= usual else (low, high)


def _to_8_bits(values: NDArray[np.float64], low: float, high: float) -> NDArray[np.uint8]:
    """Gray values as uint8 (H, W): low is black, high is white."""
    if high == low:  # a blank image of a value outside the usual range
        return np.zeros(values.shape, dtype=np.uint8)
    return np.round((values - low) * (255.0 / (high - low))).astype(np.uint8)


def _upright(rgb: Image.Image, image: Image.Image) -> Image.Image:
    """Rotate `rgb` as the EXIF data of the loaded `image` says; damaged EXIF data is ignored."""
    try:
        with _quiet():
            method = _TRANSPOSE.get(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # EXIF parsing fails in many ways; the pixels are good all the same
        return rgb
    return rgb if method is None else rgb.transpose(method)


def _center_square(rgb: Image.Image, size: int) -> Image.Image:
    """Shorter side resized to `size`, center cropped; in one step, so a long thin image costs nothing extra."""
    side = min(rgb.size)
    left, top = (rgb.width - side) / 2, (rgb.height - side) / 2
    return rgb.resize((size, size), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))
