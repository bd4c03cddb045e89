"""Images of every odd kind decode to what they show; unusable ones say why."""

from __future__ import annotations

import io
import struct
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dynacor_ray.core import image_decoding
from dynacor_ray.core.image_decoding import ImageError, ImageInfo, center_crop_resize, flip, load_rgb, probe
from tests.opened_sources import png

RAMP = np.linspace(0, 255, 40 * 30).reshape(30, 40).astype(np.uint8)


def encode(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    """A part of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def photo(width: int = 64, height: int = 48) -> Image.Image:
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM"])
def test_probe_tells_size(kind: str) -> None:
    assert probe(encode(photo(), kind)) == ImageInfo(64, 48, 3)


def test_probe_counts_channels() -> None:
    assert probe(encode(Image.fromarray(RAMP))).channels == 1
    assert probe(encode(Image.fromarray(RAMP.astype(np.uint16) * 257))).channels == 1
    assert probe(encode(photo().convert("RGBA"))).channels == 4


@pytest.mark.parametrize(("kind", "share"), [("JPEG", 0.5), ("JPEG", 0.98), ("PNG", 0.5), ("WEBP", 0.5), ("BMP", 0.5)])
def test_truncated_image_is_caught(kind: str, share: float) -> None:
    data = encode(photo(), kind)
    with pytest.raises(ImageError, match=r"truncated image|broken image|not an image"):
        probe(data[: int(len(data) * share)])


def test_truncated_jpeg_says_so() -> None:
    data = encode(photo(200, 200), "JPEG")
    with pytest.raises(ImageError, match=r"^truncated image$"):
        probe(data[: len(data) // 2])
    with pytest.raises(ImageError, match=r"^truncated image$"):
        load_rgb(data[: len(data) // 2], 16)


def test_unusable_bytes() -> None:
    with pytest.raises(ImageError, match=r"^empty file$"):
        probe(b"")
    with pytest.raises(ImageError, match=r"^not an image$"):
        probe(b"hello, this is text")
    with pytest.raises(ImageError, match=r"^not an image$"):
        probe(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n")
    with pytest.raises(ImageError, match=r"^image is 1x1 pixels; at least 2x2 needed$"):
        probe(encode(Image.new("RGB", (1, 1))))


def test_corrupt_png_is_broken() -> None:
    data = bytearray(encode(photo()))
    data[60] ^= 0xFF
    with pytest.raises(ImageError, match="broken image"):
        probe(bytes(data))


@pytest.mark.parametrize("side", [20_000, 10_000])
def test_bomb_is_refused_at_error_and_warning_level(side: int) -> None:
    data = png()[:8] + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)) + png()[33:]
    with pytest.raises(ImageError, match=rf"^image has {side * side:,} pixels; the limit is 89,478,485$"):
        probe(data)
    with pytest.raises(ImageError, match="the limit is"):
        load_rgb(data, 32)


def test_gray_and_16_bits_agree() -> None:
    gray = load_rgb(encode(Image.fromarray(RAMP)))
    assert gray.shape == (30, 40, 3)
    assert gray.dtype == np.uint8
    np.testing.assert_array_equal(gray[..., 0], RAMP)
    for kind in ("PNG", "TIFF"):
        deep = load_rgb(encode(Image.fromarray(RAMP.astype(np.uint16) * 257), kind))
        np.testing.assert_array_equal(deep, gray)


def test_float_and_wide_integers_are_scaled() -> None:
    unit = load_rgb(encode(Image.fromarray((RAMP / 255).astype(np.float32)), "TIFF"))
    np.testing.assert_array_equal(unit[..., 0], RAMP)
    wide = load_rgb(encode(Image.fromarray(RAMP.astype(np.int32) * 1_000_000), "TIFF"))
    np.testing.assert_array_equal(wide[..., 0], RAMP)


def test_alpha_is_laid_on_white() -> None:
    for mode in ("RGBA", "LA"):
        clear = Image.new(mode, (4, 4), 0)
        assert (load_rgb(encode(clear)) == 255).all()
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([10, 20, 30])
    assert (load_rgb(encode(palette)) == [10, 20, 30]).all()
    assert (load_rgb(encode(palette, transparency=0)) == 255).all()


def test_cmyk_and_bilevel() -> None:
    red = Image.new("RGB", (16, 16), (255, 0, 0)).convert("CMYK")
    found = load_rgb(encode(red, "JPEG", quality=95))
    assert np.abs(found.astype(int) - [255, 0, 0]).max() < 12
    assert (load_rgb(encode(Image.new("1", (4, 4), 1))) == 255).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_exif_orientation(orientation: int, kind: str) -> None:
    upright = np.zeros((16, 32, 3), dtype=np.uint8)
    upright[:8, :16] = 255
    undo = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    stored = Image.fromarray(upright) if undo is None else Image.fromarray(upright).transpose(undo)
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = load_rgb(encode(stored, kind, exif=exif))
    assert found.shape == upright.shape
    assert np.abs(found.astype(int) - upright).mean() < 3


TIFF = b"Exif\0\0II*\0"
ODD: dict[str, dict[str, bytes]] = {
    "a profile of nothing": {"icc_profile": b"\xff" * 5000},
    "a profile of 200 kB": {"icc_profile": bytes(200_000)},
    "a folder beyond the end": {"exif": TIFF + b"\xff\xff\xff\xff"},
    "a folder that is its own next": {"exif": TIFF + b"\x08\0\0\0\0\0\x08\0\0\0"},
    "a ninth orientation": {"exif": TIFF + b"\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\x63\0\0\0\0\0\0\0"},
    "half a header": {"exif": TIFF[:7]},
}


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("name", ODD)
def test_odd_profiles_and_exif_are_ignored(name: str, kind: str) -> None:
    assert np.array_equal(load_rgb(encode(photo(), kind, **ODD[name])), load_rgb(encode(photo(), kind)))


def test_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (load_rgb(data) == [255, 0, 0]).all()


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_size_keeps_the_center(kind: str) -> None:
    wide = np.zeros((100, 300, 3), dtype=np.uint8)
    wide[:, 100:200] = 255
    found = load_rgb(encode(Image.fromarray(wide), kind), 20)
    assert found.shape == (20, 20, 3)
    assert found[:, 2:-2].min() > 200


def test_long_thin_image_costs_nothing() -> None:
    assert load_rgb(encode(Image.new("L", (200_000, 2))), 64).shape == (64, 64, 3)


def test_small_image_is_enlarged() -> None:
    assert load_rgb(encode(photo(8, 8)), 224).shape == (224, 224, 3)


def test_flip_is_its_own_inverse() -> None:
    image = load_rgb(encode(photo()))
    np.testing.assert_array_equal(flip(image)[:, 0], image[:, -1])
    np.testing.assert_array_equal(flip(flip(image)), image)


def test_center_crop_resize_cuts_an_eighth() -> None:
    image = np.zeros((32, 64, 3), dtype=np.uint8)
    image[4:-4, 8:-8] = 200
    assert (center_crop_resize(image) == 200).all()
    assert center_crop_resize(np.zeros((2, 3, 3), dtype=np.uint8)).shape == (2, 3, 3)


@pytest.mark.parametrize("value", [5.0, -3.0])
def test_a_blank_float_image_is_black(value: float) -> None:
    """A constant outside 0..1 has no range to scale by; it must not stop a run after it was let in."""
    data = io.BytesIO()
    Image.fromarray(np.full((4, 6), value, np.float32)).save(data, "TIFF")
    assert probe(data.getvalue()).width == 6
    assert not load_rgb(data.getvalue(), 4).any()


@pytest.mark.parametrize("kind", [b"zTXt", b"iCCP", b"iTXt"])
def test_a_bomb_in_the_notes_of_a_png(kind: bytes) -> None:
    packed = zlib.compress(b"\0" * (16 << 20), 1)
    note = b"k\0\1\0\0\0" if kind == b"iTXt" else b"k\0\0"
    image = png()
    with pytest.raises(ImageError, match="not an image"):
        probe(image[:33] + chunk(kind, note + packed) + image[33:])


def test_a_jpeg_of_many_passes_over_its_pixels() -> None:
    """10,000 scans of 180 bytes each over 89 million pixels took more than six minutes."""
    data = encode(photo(), "JPEG", progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    first = data.count(b"\xff\xda")
    most = data[:-2] + last * (image_decoding.MAX_SCANS - first) + b"\xff\xd9"
    assert probe(most).width == load_rgb(most).shape[1] == 64
    for read in (probe, load_rgb):
        with pytest.raises(ImageError, match="image has 101 scans; the limit is 100"):
            read(most[:-2] + last + b"\xff\xd9")


def test_a_text_of_pixels_with_many_comments() -> None:
    """A megabyte of them took ten seconds, two took forty."""
    start, pixels = b"P2\n# by hand\n2 2\n255\n", b"0 255 0 255"
    assert load_rgb(start + b"#\n" * 90 + pixels)[..., 0].tolist() == [[0, 255], [0, 255]]
    with pytest.raises(ImageError, match="image has 500,001 comments; the limit is 100"):
        probe(start + b"#\n" * 500_000 + pixels)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "I;16", "I", "F"])
def test_large_images_are_converted_piece_by_piece(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same pixels as at once; 89 million gray values would take 2 GB more."""
    values = np.random.default_rng(0).integers(0, 255, (50, 40, 4), dtype=np.uint8)
    if mode == "P":
        image = Image.fromarray(values).convert("RGB").convert("P", palette=Image.Palette.ADAPTIVE)
        data = encode(image, transparency=5)
    elif mode in ("RGBA", "LA"):
        data = encode(Image.fromarray(values).convert(mode))
    else:
        kind = {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]
        grays = values[..., 0].astype(np.float32) * 300 - 5 * (mode == "F")
        data = encode(Image.fromarray(grays.astype(kind)), "TIFF")
    whole = load_rgb(data)
    monkeypatch.setattr(image_decoding, "_STRIP", 7 * 40)
    assert np.array_equal(load_rgb(data), whole)
    probe(data)


def test_large_images_wait_for_one_another(monkeypatch: pytest.MonkeyPatch) -> None:
    at_once, most, load = [0], [0], image_decoding._load

    def counted(image: Image.Image) -> None:
        at_once[0] += 1
        most[0] = max(most[0], at_once[0])
        time.sleep(0.02)
        load(image)
        at_once[0] -= 1

    monkeypatch.setattr(image_decoding, "_load", counted)
    data = encode(photo())
    for limit, expected in ((0, 1), (1 << 24, 4)):
        monkeypatch.setattr(image_decoding, "_LARGE", limit)
        most[0] = 0
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(load_rgb, [data] * 8))
        assert (most[0] > 1) == (expected > 1)
