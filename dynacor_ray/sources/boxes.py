"""Boxes of COCO and YOLO: one row per box, its image the part of the picture inside, its label the class of the box."""

from __future__ import annotations

import io
import itertools
import json
import posixpath
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from dynacor_ray.core.errors import DataError, expected_got, first_line
from dynacor_ray.core.hashing import digest
from dynacor_ray.core.image_decoding import ImageError, load_rgb
from dynacor_ray.core.schema import RAW_LABEL, URI
from dynacor_ray.core.storage import Location, locate
from dynacor_ray.sources.base import Shard, Source, SourceOptions
from dynacor_ray.sources.class_names import check_class_names
from dynacor_ray.sources.folder_scan import scan_folder
from dynacor_ray.sources.image_files import cut, file_stamp, is_image_name, raw_images, read_below, some_rows
from dynacor_ray.sources.piece_memory import Held

_PATH, _BOX, _UNIT = "path", "box", "unit"
_SIDE = 2
_TEXT_BYTES, _YAML_BYTES = 64 << 20, 1 << 20


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
        paths, boxes, units = (self.rows[name].to_pylist() for name in (_PATH, _BOX, _UNIT))
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
            for row in rows:
                images[row], errors[row] = (None, error) if pixels is None else _crop(pixels, boxes[row], units[row])
                held.add(len(images[row] or b""))
        return raw_images(self.first_row, self.rows[URI].to_pylist(), self.read_labels(), errors, images)


def _crop(pixels: np.ndarray, box: Sequence[float], unit: str) -> tuple[bytes | None, str | None]:
    """The part of a picture (H, W, 3) inside a box as PNG, or the reason why there is none."""
    height, width = pixels.shape[:2]
    scale = np.array([width, height, width, height]) if unit == "share" else np.ones(4)
    if not np.isfinite(box).all():
        return None, "box is no numbers"
    left, top, wide, high = np.asarray(box) * scale
    x = np.clip([np.floor(left), np.ceil(left + wide)], 0, width).astype(int)
    y = np.clip([np.floor(top), np.ceil(top + high)], 0, height).astype(int)
    if x[1] - x[0] < _SIDE or y[1] - y[0] < _SIDE:
        return None, f"box has fewer than {_SIDE} x {_SIDE} pixels in the image"
    stream = io.BytesIO()
    Image.fromarray(pixels[y[0] : y[1], x[0] : x[1]]).save(stream, "PNG")
    return stream.getvalue(), None


class BoxSource(Source):
    """The boxes of COCO's instances*.json, or of YOLO's labels/*.txt beside images/."""

    kind = "image"

    def __init__(self, data: str, options: SourceOptions, form: str) -> None:
        """List the boxes. form: "coco" or "yolo". Raises DataError when the annotations cannot be read."""
        self.uri, self.name, self._options = data, form, options
        place = locate(data)
        read = _coco if form == "coco" else _yolo
        self._root, rows, names, self._files = read(place, options.split)
        self._rows = pa.Table.from_pylist(rows) if rows else pa.table({RAW_LABEL: pa.array([], pa.string())})
        self.num_rows = len(rows)
        known = check_class_names(options.classes or names, "--classes" if options.classes else data)
        used = set(self._rows[RAW_LABEL].to_pylist())
        self.class_names = known if options.classes else tuple(name for name in known if name in used)
        self.label_codes = {name: code for code, name in enumerate(self.class_names)}
        self.notes = (f"{self.num_rows:,} boxes, each with the part of its picture inside.",)

    def fingerprint(self) -> str:
        """See `Source.fingerprint`; covers the annotations, not the pictures."""
        stamps = [file_stamp(str(file), file.info()) for file in self._files[:1000]]
        return digest([self.name, self._root.uri, stamps, len(self._files), self.num_rows, self._options.classes])

    def shards(self, max_rows: int) -> list[Shard]:
        """See `Source.shards`."""

        def make(first: int, count: int) -> Shard:
            return BoxShard(first, count, self._root, some_rows(self._rows, first, count))

        return cut(self.num_rows, max_rows, make)


Boxes = tuple[Location, list[dict[str, Any]], list[str], list[Location]]


def find_coco(place: Location, names: Sequence[str]) -> list[str]:
    """COCO's files of annotations in a folder or its annotations/. names: what the folder holds."""
    inner = [f"annotations/{name}" for name in (place / "annotations").names()] if "annotations" in names else []
    return [name for name in [*names, *inner] if re.fullmatch(r"(.*/)?(instances.*|_annotations\.coco)\.json", name)]


def is_yolo(place: Location, names: Sequence[str]) -> bool:
    """Whether a folder holds images/ and labels/ with text files."""
    return {"images", "labels"} <= set(names) and next(_texts(place / "labels"), None) is not None


def _texts(labels: Location) -> Iterator[str]:
    for name in labels.names():
        if name.endswith(".txt") and name != "classes.txt":
            yield name
        elif "." not in name:
            yield from (f"{name}/{inner}" for inner in (labels / name).names() if inner.endswith(".txt"))


def _coco(place: Location, split: str | None) -> Boxes:
    """Boxes of one file of annotations; pictures are found by their names wherever they lie in the folder."""
    root = place if place.is_dir() else place.parent
    files = [place] if root is not place else [place / name for name in find_coco(place, place.names())]
    files = [file for file in files if split is None or split in file.path]
    if len(files) != 1:
        got = ", ".join(posixpath.basename(file.path) for file in files) or "none"
        raise DataError(expected_got(f"one file of annotations in {place}", got, "name it with --data or --split"))
    if posixpath.basename(root.path) == "annotations":
        root = root.parent
    try:
        content = files[0].read_json()
        names = {item["id"]: str(item["name"]) for item in content["categories"]}
        pictures = {item["id"]: str(item["file_name"]) for item in content["images"]}
        lying = _by_name(root)
        pictures = {key: lying.get(posixpath.basename(path), path) for key, path in pictures.items()}
        boxes = [(pictures[a["image_id"]], names[a["category_id"]], a["bbox"]) for a in content["annotations"]]
        rows = [
            _row(path, label, [float(value) for value in box], "pixels") for path, label, box in boxes if len(box) == 4
        ]
    except (KeyError, TypeError, ValueError) as error:
        got = f"{type(error).__name__} {first_line(error)}"
        raise DataError(
            expected_got(f"COCO's images, annotations and categories in {files[0]}", got, "correct it")
        ) from error
    return root, rows, list(dict.fromkeys(names.values())), files


def _by_name(root: Location) -> dict[str, str]:
    """Name of a picture -> its path below the root, where only one has this name."""
    found: dict[str, str] = {}
    for file in scan_folder(root).files:
        name = posixpath.basename(file.path)
        found[name] = "" if name in found else file.path
    return {name: path for name, path in found.items() if path}


def _yolo(place: Location, split: str | None) -> Boxes:
    """Boxes of all text files: class, center and size as shares of the sides."""
    names, texts = _yolo_names(place), list(_texts(place / "labels"))
    texts = [text for text in texts if split is None or text.startswith(f"{split}/")]
    pictures = {posixpath.splitext(file.path)[0]: file.path for file in scan_folder(place / "images").files}
    pictures |= {posixpath.splitext(name)[0]: name for name in (place / "images").names() if is_image_name(name)}
    rows, files = [], [place / "labels" / text for text in texts]
    for text, file in zip(texts, files, strict=True):
        stem = posixpath.splitext(text)[0]
        for line in file.read_bytes(_TEXT_BYTES).decode(errors="replace").splitlines():
            fields = line.split()
            if not fields:
                continue
            try:
                code, (x, y, wide, high) = int(fields[0]), map(float, fields[1:5])
            except ValueError as error:
                expected = f"lines of class, x, y, width and height in {file}"
                raise DataError(expected_got(expected, repr(line[:80]), "correct the file")) from error
            label = names.get(code, str(code))
            path = f"images/{pictures.get(stem, stem + '.jpg')}"
            rows.append(_row(path, label, [x - wide / 2, y - high / 2, wide, high], "share"))
    return place, rows, list(names.values()) or sorted({row[RAW_LABEL] for row in rows}, key=int), files


def _yolo_names(place: Location) -> dict[int, str]:
    """Class names by number, of `names:` in a .yaml, as a list or as lines `0: name`, or of classes.txt."""
    for name in place.names():
        if name.endswith((".yaml", ".yml")):
            text = (place / name).read_bytes(_YAML_BYTES).decode(errors="replace")
            if names := _listed_names(text):
                return names
    for folder in (place, place / "labels"):
        if (folder / "classes.txt").exists():
            lines_of = (folder / "classes.txt").read_bytes(_TEXT_BYTES).decode(errors="replace").splitlines()
            return dict(enumerate(line.strip() for line in lines_of if line.strip()))
    return {}


def _listed_names(text: str) -> dict[int, str]:
    """The first `names:` of a text in YAML; every pattern takes time in proportion to the text, whatever it holds."""
    start = re.search(r"^names:", text, re.MULTILINE)
    here = text[start.end() :] if start else ""
    listed = re.match(r"\s*\[([^\]]*)\]", here)
    if listed:
        items = re.findall(r"'((?:[^']|'')*)'|\"((?:[^\"\\]|\\.)*)\"|([^,\[\]\s][^,\[\]]*)", listed.group(1))
        return dict(enumerate(next(filter(None, item), "").strip() for item in items))
    first, *rest = here.split("\n")
    block = itertools.takewhile(lambda line: not line.strip() or line[0] in " \t-", rest if not first.strip() else [])
    lines = [found for line in block if (found := re.match(r"[ \t]*(?:-|(\d{1,18}):)(.*)", line)) and found[2].strip()]
    return {int(found[1] or i): found[2].strip().strip("'\"") for i, found in enumerate(lines)}


def _row(path: str, label: str, box: list[float], unit: str) -> dict[str, Any]:
    """One box; its uri is the picture's with a media fragment (W3C), in pixels or in percent."""
    shown = ",".join(f"{value * (100 if unit == 'share' else 1):.6g}" for value in box)
    fragment = f"xywh={'percent:' if unit == 'share' else ''}{shown}"
    return {URI: f"{path}#{fragment}", RAW_LABEL: label, _PATH: path, _BOX: box, _UNIT: unit}


def is_coco_file(place: Location) -> bool:
    """Whether a JSON file holds COCO's annotations, by its first bytes."""
    with place.stream() as stream:
        head = bytes(stream.read(1 << 16)).decode(errors="replace")
    return head.lstrip().startswith("{") and any(
        json.dumps(key) in head for key in ("images", "annotations", "categories")
    )
