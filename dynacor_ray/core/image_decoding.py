"""From the bytes of an image file to pixels: what can be read is read, what cannot says why in a few words."""

from __future__ import annotations

import io
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Formats read, by content and not by file name; none of them starts another program (EPS would)."""
PIXEL_LIMIT = 89_478_485
"""Pillow's bomb limit, at which it only warns; here it refuses. Pillow's own limit stays on too."""
MIN_SIDE = 2

_GREY = {"1", "L", "I", "F", "I;16", "I;16B", "I;16L", "I;16N"}
_COLOUR = {"P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV"}
_ALPHA = {"LA", "La", "PA", "RGBA", "RGBa"}
_ORIENTATION_TAG = 0x0112
_WARNINGS = threading.Lock()  # the list of warning filters belongs to all threads
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
    """Decode the image to its end, as coarsely as its format allows, and tell its size.

    data: content of an image file. Raises ImageError with the reason when the image is of no use.
    """
    image = _open(data)
    channels = 3 if image.mode == "P" else len(image.getbands())
    info = ImageInfo(image.width, image.height, channels)
    if image.format in ("JPEG", "MPO"):
        image.draft(image.mode, (max(1, image.width // 8), max(1, image.height // 8)))
    _load(image)
    _rgb(image)
    return info


def load_rgb(data: bytes, size: int | None = None) -> NDArray[np.uint8]:
    """Decode to RGB, upright: EXIF orientation is applied, alpha is laid on white, 16 bits are scaled to 8.

    data: content of an image file; only the first frame of an animation counts. size: side of the result, which is the
    center square of the image (shorter side resized to `size`, bicubic, rest cropped); None keeps the image's own size.
    Returns uint8 (H, W, 3), or (size, size, 3). Raises ImageError when the image cannot be decoded.
    """
    image = _open(data)
    if size is not None and image.format in ("JPEG", "MPO") and min(image.size) >= 2 * size:
        scale = size / min(image.size)
        image.draft(image.mode, (int(np.ceil(image.width * scale)), int(np.ceil(image.height * scale))))
    _load(image)
    rgb = _rgb(image)
    if size is not None:
        rgb = _centre_square(rgb, size)
    return np.array(rgb, dtype=np.uint8)


def flip(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Mirror left and right. uint8 (H, W, 3) -> uint8 (H, W, 3)."""
    return np.ascontiguousarray(image[:, ::-1])


def centre_crop_resize(image: NDArray[np.uint8], margin: int = 4) -> NDArray[np.uint8]:
    """Cut a margin off each side and resize back (bicubic), the weak augmentation of §4.2.

    image: uint8 (H, W, 3). margin: pixels of a 32x32 image; scaled to the image's own height and width, at least 1.
    Returns uint8 (H, W, 3).
    """
    height, width = image.shape[0], image.shape[1]
    top, left = _scaled_margin(height, margin), _scaled_margin(width, margin)
    box = (left, top, width - left, height - top)
    resized = Image.fromarray(image).crop(box).resize((width, height), Image.Resampling.BICUBIC)
    return np.array(resized, dtype=np.uint8)


def _scaled_margin(side: int, margin: int) -> int:
    return min(max(1, round(side * margin / 32)), (side - 1) // 2)


@contextmanager
def _quiet() -> Iterator[None]:
    """Pillow's warnings about damaged metadata tell nothing that is not checked here."""
    with _WARNINGS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _open(data: bytes) -> Image.Image:
    """Read the header only, and refuse what is no image, too large, too small or of an unknown color mode."""
    if not data:
        raise ImageError("empty file")
    try:
        with _quiet():
            image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        found = re.search(r"\((\d+) pixels\)", str(error))
        raise _too_large(int(found.group(1)) if found else 2 * PIXEL_LIMIT) from error
    except MemoryError:
        raise
    except Exception as error:  # decoders raise whatever they like on hostile bytes
        raise ImageError("not an image") from error
    if image.width * image.height > PIXEL_LIMIT:
        raise _too_large(image.width * image.height)
    if min(image.size) < MIN_SIDE:
        raise ImageError(f"image is {image.width}x{image.height} pixels; at least {MIN_SIDE}x{MIN_SIDE} needed")
    if image.mode not in _GREY | _COLOUR | _ALPHA:
        raise ImageError(f"color mode {image.mode} is not supported")
    return image


def _too_large(pixels: int) -> ImageError:
    return ImageError(f"image has {pixels:,} pixels; the limit is {PIXEL_LIMIT:,}")


def _load(image: Image.Image) -> None:
    try:
        image.load()
    except MemoryError:
        raise
    except Exception as error:  # decoders raise whatever they like on hostile bytes
        cut = re.search("truncated|unexpected end|end of file", str(error), re.IGNORECASE)
        reason = "truncated image" if cut or isinstance(error, EOFError) else f"broken image: {error}"
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
        return Image.fromarray(_to_8_bits(np.asarray(image))).convert("RGB")
    if image.mode in _ALPHA or "transparency" in image.info:
        alpha = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", alpha.size, "white"), alpha).convert("RGB")
    return image.convert("RGB")


def _to_8_bits(gray: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Gray values of any range as uint8 (H, W): 0..65535 for integers and 0..1 for floats, else the range found."""
    values = np.nan_to_num(gray.astype(np.float64), posinf=0.0, neginf=0.0)
    low, high = 0.0, (65535.0 if np.issubdtype(gray.dtype, np.integer) else 1.0)
    if values.min() < low or values.max() > high:
        low, high = float(values.min()), float(values.max())
    if high == low:  # a blank image of a value outside the usual range
        return np.zeros(gray.shape, dtype=np.uint8)
    return np.round((values - low) * (255.0 / (high - low))).astype(np.uint8)


def _upright(rgb: Image.Image, image: Image.Image) -> Image.Image:
    """Turn `rgb` as the EXIF data of the loaded `image` says; damaged EXIF data is ignored."""
    try:
        with _quiet():
            method = _TRANSPOSE.get(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # EXIF parsing fails in many ways; the pixels are good all the same
        return rgb
    return rgb if method is None else rgb.transpose(method)


def _centre_square(rgb: Image.Image, size: int) -> Image.Image:
    """Shorter side resized to `size`, center cropped; done in one step, so a long thin image costs nothing extra."""
    side = min(rgb.size)
    left, top = (rgb.width - side) / 2, (rgb.height - side) / 2
    return rgb.resize((size, size), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))
