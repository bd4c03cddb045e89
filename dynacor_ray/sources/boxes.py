"""Boxes of COCO, YOLO and Pascal VOC, one per row: its image is the part of the picture inside, its label its class."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from PIL import Image

from dynacor_ray.core.errors import counted
from dynacor_ray.core.hashing import digest
from dynacor_ray.core.image_decoding import ImageError, load_rgb
from dynacor_ray.core.schema import RAW_LABEL, URI
from dynacor_ray.core.storage import Location, locate
from dynacor_ray.sources.base import Shard, Source, SourceOptions
from dynacor_ray.sources.box_files import BOX, PATH, UNIT, read_coco, read_voc, read_yolo
from dynacor_ray.sources.class_names import check_class_names
from dynacor_ray.sources.folder import read_together
from dynacor_ray.sources.image_files import file_stamp, png, raw_images, read_below, some_rows
from dynacor_ray.sources.piece_memory import Held

_SIDE, _MOST_PIXELS = 2, 1 << 22
"""Least side of a part, and pixels from which it is made smaller by a whole factor: no encoder sees as many."""
_COVERED, _LEAST_COVERED = 64, 1 << 28
"""How often the boxes of a picture may cover it, and the pixels in all that they may always have."""


@dataclass(frozen=True)
class BoxShard(Shard):
    """Some boxes.

    Attributes:
        root: where paths of pictures start.
        rows: uri, label, path, box (left, top, width, height; float64), and its unit: pixels, or shares of the sides.
    """

    root: Location
    rows: pa.Table

    def read_labels(self) -> pa.StringArray:
        """See `Shard.read_labels`."""
        return self.rows[RAW_LABEL].combine_chunks()

    def read(self) -> pa.Table:
        """See `Shard.read`: every picture is read once, and each of its boxes cut out."""
        paths, boxes, units = (self.rows[name].to_pylist() for name in (PATH, BOX, UNIT))
        images: list[bytes | None] = [None] * self.num_rows
        errors: list[str | None] = [None] * self.num_rows
        of_picture, held = defaultdict[str, list[int]](list), Held(self.root)
        for row, path in enumerate(paths):
            of_picture[path].append(row)
        for path, rows in of_picture.items():
            (content,), (error,) = read_below(self.root, [path], [None])
            try:
                pixels = None if content is None else load_rgb(content)
            except ImageError as failure:
                pixels, error = None, str(failure)
            left = max(_COVERED * (0 if pixels is None else pixels[..., 0].size), _LEAST_COVERED)
            for row in rows:
                part = error if pixels is None else _part(pixels, boxes[row], units[row])
                if isinstance(part, np.ndarray) and (left := left - part[..., 0].size) < 0:
                    part = f"boxes cover their image more than {_COVERED} times"
                if isinstance(part, np.ndarray):
                    images[row] = content = png(_reduced(part))
                    held.add(len(content))
                else:
                    errors[row] = part
        return raw_images(self.first_row, self.rows[URI].to_pylist(), self.read_labels(), errors, images)


def _part(pixels: np.ndarray, box: Sequence[float], unit: str) -> np.ndarray | str:
    """The part of a picture (H, W, 3) inside a box, or the reason why there is none."""
    height, width = pixels.shape[:2]
    scale = np.array([width, height, width, height]) if unit == "share" else np.ones(4)
    if not np.isfinite(box).all():
        return "box is no numbers"
    left, top, wide, high = np.asarray(box) * scale
    x = np.clip([np.floor(left), np.ceil(left + wide)], 0, width).astype(int)
    y = np.clip([np.floor(top), np.ceil(top + high)], 0, height).astype(int)
    if x[1] - x[0] < _SIDE or y[1] - y[0] < _SIDE:
        return f"box has fewer than {_SIDE} x {_SIDE} pixels in the image"
    return pixels[y[0] : y[1], x[0] : x[1]]


def _reduced(pixels: np.ndarray) -> np.ndarray:
    """Pixels (H, W, 3), made smaller where they are more than any encoder sees."""
    height, width = pixels.shape[:2]
    factor = math.ceil(math.sqrt(height * width / _MOST_PIXELS))
    if factor < 2 or min(height, width) < 2 * factor:
        return pixels
    return np.asarray(Image.fromarray(pixels).reduce(factor))


class BoxSource(Source):
    """The boxes of COCO's instances*.json, YOLO's labels/*.txt beside images/, or Pascal VOC's Annotations/*.xml."""

    kind = "image"

    def __init__(self, data: str, options: SourceOptions, form: str) -> None:
        """List the boxes. form: "coco", "yolo" or "voc". Raises DataError when the annotations cannot be read."""
        self.uri, self.name, self._options = data, form, options
        place = locate(data)
        read = {"coco": read_coco, "yolo": read_yolo, "voc": read_voc}[form]
        self._root, self._rows, names, self._files = read(place, options.split)
        self.num_rows = self._rows.num_rows
        known = check_class_names(options.classes or names, "--classes" if options.classes else data)
        used = set(self._rows[RAW_LABEL].unique().to_pylist())
        self.class_names = known if options.classes else tuple(name for name in known if name in used)
        self.label_codes = {name: code for code, name in enumerate(self.class_names)}
        together = read_together(file.path[len(place.path) :] for file in self._files)
        self.notes = (f"{counted(self.num_rows, 'box')}, each with the part of its picture inside.", *together)

    def fingerprint(self) -> str:
        """See `Source.fingerprint`; covers the annotations, not the pictures."""
        stamps = [file_stamp(str(file), file.info()) for file in self._files[:1000]]
        return digest([self.name, self._root.uri, stamps, len(self._files), self.num_rows, self._options.classes])

    def _shard(self, first: int, count: int) -> Shard:
        return BoxShard(first, count, self._root, some_rows(self._rows, first, count))
