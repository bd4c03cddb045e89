"""Files of boxes as COCO, YOLO and Pascal VOC write them: where they lie, and their boxes as rows."""

from __future__ import annotations

import itertools
import json
import posixpath
import re
from collections.abc import Container, Iterable, Iterator, Sequence
from typing import Any
from xml.etree import ElementTree

import pyarrow as pa

from dynacor_ray.core.errors import DataError, expected_got, first_line
from dynacor_ray.core.schema import RAW_LABEL, URI
from dynacor_ray.core.storage import Location
from dynacor_ray.sources.folder import is_split_name
from dynacor_ray.sources.folder_scan import scan_folder
from dynacor_ray.sources.image_files import is_image_name

PATH, BOX, UNIT = "path", "box", "unit"
"""Columns of a box beside uri and label."""
_YAML = (".yaml", ".yml")
_TEXT_BYTES, _YAML_BYTES = 64 << 20, 1 << 20
"""Most of a file of text, and of one of YAML or XML."""
_DARKNET, _LINE_BYTES, _FEW = "obj_train_data", 4096, 8
_VOC_SIDES = ("xmin", "ymin", "xmax", "ymax")
_AT_ONCE = 1 << 16
"""Boxes that are held as Python's values."""
_SIDES, _POLYGON = 4, 7
"""Numbers of a box; least fields of a line with a polygon: the class and three points."""

Boxes = tuple[Location, pa.Table, list[str], list[Location]]
"""Where paths start, the boxes, the names of the classes, and the files that were read."""


def find_coco(place: Location, names: Sequence[str]) -> list[str]:
    """COCO's files of annotations in a folder, its annotations/, or else its splits. names: what the folder holds."""
    inner = [f"annotations/{name}" for name in (place / "annotations").names()] if "annotations" in names else []
    return _coco_names([*names, *inner]) or _coco_names(_in_splits(place, names))


def _coco_names(names: Iterable[str]) -> list[str]:
    return [name for name in names if re.fullmatch(r"(.*/)?(instances.*|_annotations\.coco)\.json", name)]


def _in_splits(place: Location, names: Sequence[str]) -> Iterator[str]:
    """What the folders of splits hold, with their names."""
    for split in filter(is_split_name, names):
        yield from (f"{split}/{name}" for name in (place / split).names())


def is_yolo(place: Location, names: Sequence[str]) -> bool:
    """Whether a folder holds YOLO's texts: in labels/ beside images/, also below splits, or beside the images."""
    return bool(_yolo_parts(place, names))


def _yolo_parts(place: Location, names: Sequence[str]) -> list[tuple[str, str]]:
    """Where texts and where pictures lie, below the folder and with a slash at the end."""
    pairs = [("labels/", "images/")] if {"images", "labels"} <= set(names) else []
    if not pairs:
        inner = [name for name in names if is_split_name(name) and {"images", "labels"} <= set((place / name).names())]
        pairs = [(f"{name}/labels/", f"{name}/images/") for name in inner]
    found = [pair for pair in pairs if next(_texts(place / pair[0]), None) is not None]
    for part in ("", *(f"{name}/" for name in names if name == _DARKNET)) if not pairs else ():
        listed = _below(place, part).names() if part else names
        if any(_holds_boxes(_below(place, part) / name) for name in _beside_images(listed, ".txt")[:_FEW]):
            found.append((part, part))
    return found


def _beside_images(names: Sequence[str], ending: str) -> list[str]:
    """The files that are called as an image beside them is, where half of the images or more have one."""
    stems = {posixpath.splitext(name)[0] for name in names if is_image_name(name)}
    beside = [name for name in names if name.endswith(ending) and posixpath.splitext(name)[0] in stems]
    return beside if 2 * len(beside) >= len(stems) else []


def _holds_boxes(file: Location) -> bool:
    """Whether a text beside an image holds boxes, not a caption or nothing."""
    with file.stream() as stream:
        line = bytes(stream.read(_LINE_BYTES)).decode(errors="replace").partition("\n")[0]
    try:
        return bool(_yolo_box(line.split(), has_points=True))
    except (ValueError, IndexError):
        return False


def is_voc(place: Location, names: Sequence[str]) -> bool:
    """Whether a folder holds .xml files in Annotations/ beside JPEGImages/ or images/, or beside images."""
    return bool(_voc_files(place, names))


def _voc_files(place: Location, names: Sequence[str]) -> dict[str, str]:
    """Files of annotations -> the folder of their pictures, with its slash; paths are told from `place`."""
    plain = {name.lower(): name for name in names}
    notes, pictures = plain.get("annotations"), plain.get("jpegimages") or plain.get("images")
    if notes and pictures:
        return {f"{notes}/{name}": f"{pictures}/" for name in (place / notes).names() if _is_xml(name)}
    for listed in (names, list(_in_splits(place, names))):
        if beside := _beside_images(listed, ".xml"):
            return {name: name[: name.rfind("/") + 1] for name in beside}
    return {}


def _is_xml(name: str) -> bool:
    return name.endswith(".xml")


def _texts(labels: Location) -> Iterator[str]:
    for name in labels.names():
        if name.endswith(".txt") and name != "classes.txt":
            yield name
        elif "." not in name:
            yield from (f"{name}/{inner}" for inner in (labels / name).names() if inner.endswith(".txt"))


def read_coco(place: Location, split: str | None) -> Boxes:
    """Boxes of one file of annotations, or of one in each split; pictures are found by their names below it."""
    root = place if place.is_dir() else place.parent
    files = [place] if root is not place else [place / name for name in find_coco(place, place.names())]
    files = [file for file in files if split is None or split in file.path[len(root.path) :]]
    folders = {file.parent.path for file in files}
    if not files or len(folders) < len(files):
        got = ", ".join(posixpath.basename(file.path) for file in files) or "none"
        raise DataError(expected_got(f"one file of annotations in {place}", got, "name it with --data or --split"))
    if posixpath.basename(root.path) == "annotations":
        root = root.parent
    found, names = list[pa.Table](), dict[str, None]()
    for file in files:
        part = file.parent.path[len(root.path) :].strip("/")
        rows, known = _coco_rows(file, root, f"{part}/" if is_split_name(part) else "")
        found.append(rows)
        names |= dict.fromkeys(known)
    return root, pa.concat_tables(found).combine_chunks(), list(names), files


def _coco_rows(file: Location, root: Location, part: str) -> tuple[pa.Table, list[str]]:
    """The boxes of a file and the names of its classes. part: folder of a split, with its slash."""
    try:
        content = file.read_json()
        used = sorted({item["category_id"] for item in content["annotations"]})
        listed = content.get("categories") or [{"id": code, "name": code} for code in used]
        names = {item["id"]: str(item["name"]) for item in listed}
        _require_known(file, "category_id", used, names)
        pictures = {item["id"]: str(item["file_name"]) for item in content["images"]}
        _require_known(file, "image_id", (item["image_id"] for item in content["annotations"]), pictures)
        missing = ("bbox" for item in content["annotations"] if len(item.get("bbox") or ()) != _SIDES)
        _require_known(file, "bbox", missing, ())
        lying = _by_name(root / part if part else root)
        pictures = {key: part + lying.get(posixpath.basename(path), path) for key, path in pictures.items()}
        boxes = ((pictures[a["image_id"]], names[a["category_id"]], a["bbox"]) for a in content["annotations"])
        rows = _table(_row(path, label, [float(value) for value in box], "pixels") for path, label, box in boxes)
    except (KeyError, TypeError, ValueError) as error:
        got = f"{type(error).__name__} {first_line(error)}"
        expected = f"COCO's images, annotations and categories in {file}"
        raise DataError(expected_got(expected, got, "correct it")) from error
    return rows, list(names.values())


def _require_known(file: Location, key: str, values: Iterable[Any], known: Container[Any]) -> None:
    """Raise DataError that tells which annotations point to nothing."""
    lost = [value for value in values if value not in known]
    if lost:
        got = f"{len(lost):,} without one" if key == "bbox" else f"{len(lost):,} others, such as {lost[0]!r}"
        expected = "a bbox in every annotation" if key == "bbox" else f"only known values of {key} in the annotations"
        raise DataError(expected_got(f"{expected} of {file}", got, "correct it, or leave these annotations out"))


def _by_name(root: Location) -> dict[str, str]:
    """Name of a picture -> its path below the root, where only one has this name."""
    found = {name: name for name in root.names() if is_image_name(name)}
    for file in scan_folder(root).files:
        name = posixpath.basename(file.path)
        found[name] = "" if name in found else file.path
    return {name: path for name, path in found.items() if path}


def read_yolo(place: Location, split: str | None) -> Boxes:
    """Boxes of all text files: class, center and size as shares of the sides, or the class and the points around it."""
    names, files = _yolo_names(place), list[Location]()
    rows = _table(_yolo_rows(place, split, names, files))
    return place, rows, list(names.values()) or sorted(_labels(rows), key=int), files


def _yolo_rows(
    place: Location, split: str | None, names: dict[int, str], files: list[Location]
) -> Iterator[dict[str, Any]]:
    """The boxes, and in `files` where they stand."""
    has_points = any(
        b"kpt_shape" in (place / name).read_bytes(_YAML_BYTES) for name in place.names() if name.endswith(_YAML)
    )
    for labels, images in _yolo_parts(place, place.names()):
        pictures = {posixpath.splitext(file.path)[0]: file.path for file in scan_folder(_below(place, images)).files}
        pictures |= {posixpath.splitext(n)[0]: n for n in _below(place, images).names() if is_image_name(n)}
        for text in _texts(_below(place, labels)):
            if labels == images and posixpath.splitext(text)[0] not in pictures:  # a list of the images, or a note
                continue
            if split is not None and not f"{labels.removesuffix('labels/')}{text}".startswith(f"{split}/"):
                continue
            stem, file = posixpath.splitext(text)[0], _below(place, labels) / text
            path = f"{images}{pictures.get(stem, stem + '.jpg')}"
            files.append(file)
            for line in filter(str.strip, file.read_bytes(_TEXT_BYTES).decode(errors="replace").splitlines()):
                try:
                    code, box = _yolo_box(line.split(), has_points)
                except ValueError as error:
                    expected = f"lines of class, x, y, width and height in {file}"
                    raise DataError(expected_got(expected, repr(line[:80]), "correct the file")) from error
                yield _row(path, names.get(code, str(code)), box, "share")


def _below(place: Location, part: str) -> Location:
    return place / part if part else place


def _yolo_box(fields: list[str], has_points: bool) -> tuple[int, list[float]]:
    """Class and box (left, top, width, height) of a line; of a polygon the box around it.

    has_points: whether lines go on with key points after the box. Raises ValueError for another line.
    """
    code, numbers = int(fields[0]), list(map(float, fields[1:]))
    if len(fields) >= _POLYGON and len(fields) % 2 and not has_points:
        left, top = min(numbers[::2]), min(numbers[1::2])
        return code, [left, top, max(numbers[::2]) - left, max(numbers[1::2]) - top]
    if len(numbers) > _SIDES + 1 and not has_points:
        raise ValueError("neither a box nor a polygon")
    x, y, wide, high = numbers[:_SIDES]
    return code, [x - wide / 2, y - high / 2, wide, high]


def read_voc(place: Location, split: str | None) -> Boxes:
    """Boxes of all .xml files; a split is a folder, or a list of names in ImageSets/Main/."""
    found = _voc_files(place, place.names())
    listed = place / "ImageSets" / "Main" / f"{split}.txt"
    if split is not None and listed.exists():
        lines = listed.read_bytes(_TEXT_BYTES).decode(errors="replace").split("\n")
        chosen = {line.split()[0] for line in lines if line.strip()}
        found = {
            name: part for name, part in found.items() if posixpath.splitext(posixpath.basename(name))[0] in chosen
        }
    elif split is not None:
        found = {name: part for name, part in found.items() if part == f"{split}/"}
    rows = _table(_voc_rows(place, found))
    return place, rows, sorted(_labels(rows)), [place / name for name in sorted(found)]


def _voc_rows(place: Location, found: dict[str, str]) -> Iterator[dict[str, Any]]:
    """found: files of annotations -> the folder of their pictures."""
    for name, part in sorted(found.items()):
        file = place / name
        try:
            content = file.read_bytes(_YAML_BYTES)
            if b"<!DOCTYPE" in content or b"<!ENTITY" in content:
                raise ValueError("a document type, which Pascal VOC has not")
            top = ElementTree.fromstring(content)
            path = part + posixpath.basename(_text(top, "filename"))
            for item in top.iter("object"):
                left, upper, right, lower = (float(_text(item, f"bndbox/{side}")) for side in _VOC_SIDES)
                box = [left - 1, upper - 1, right - left + 1, lower - upper + 1]  # counted from 1, the last included
                yield _row(path, _text(item, "name"), box, "pixels")
        except (ValueError, ElementTree.ParseError) as error:
            expected = f"a filename, and name and bndbox of every object, in {file}"
            raise DataError(expected_got(expected, f"'{first_line(error)}'", "correct it")) from error


def _text(element: ElementTree.Element, path: str) -> str:
    found = (element.findtext(path) or "").strip()
    if not found:
        raise ValueError(f"no {path}")
    return found


def _yolo_names(place: Location) -> dict[int, str]:
    """Class names by number, of `names:` in a .yaml, as a list or as lines `0: name`, or of classes.txt."""
    for name in place.names():
        if name.endswith(_YAML):
            text = (place / name).read_bytes(_YAML_BYTES).decode(errors="replace")
            if names := _listed_names(text):
                return names
    lists = (place / "classes.txt", place / "labels" / "classes.txt", place / "obj.names", place.parent / "obj.names")
    for listed in lists:
        if listed.exists():
            lines_of = listed.read_bytes(_TEXT_BYTES).decode(errors="replace").splitlines()
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
    return {URI: f"{path}#{fragment}", RAW_LABEL: label, PATH: path, BOX: box, UNIT: unit}


def _table(rows: Iterator[dict[str, Any]]) -> pa.Table:
    """The boxes as columns, which take a fraction of the memory of Python's values."""
    kinds = pa.schema({name: pa.string() for name in (URI, RAW_LABEL, PATH, UNIT)} | {BOX: pa.list_(pa.float64())})
    parts = [kinds.empty_table()]
    while some := list(itertools.islice(rows, _AT_ONCE)):
        parts.append(pa.Table.from_pylist(some, kinds))
    return pa.concat_tables(parts).combine_chunks()


def _labels(rows: pa.Table) -> list[str]:
    return list(rows[RAW_LABEL].unique().to_pylist())


def is_coco_file(place: Location) -> bool:
    """Whether a JSON file holds COCO's annotations, by its first bytes."""
    with place.stream() as stream:
        head = bytes(stream.read(1 << 16)).decode(errors="replace")
    return head.lstrip().startswith("{") and any(
        json.dumps(key) in head for key in ("images", "annotations", "categories")
    )
