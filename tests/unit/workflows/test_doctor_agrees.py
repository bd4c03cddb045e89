"""doctor and detect say the same of the inputs that people have: "Ready." where training starts, and no other time."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dynacor_ray.config.detect import DetectConfig
from dynacor_ray.core.errors import DynacorError
from dynacor_ray.core.progress import Progress
from dynacor_ray.engine.data.ingest import ingest
from dynacor_ray.engine.runtime.session import one_process
from dynacor_ray.sources.image_files import LFS_HEAD
from dynacor_ray.workflows.doctor import sample_rows
from dynacor_ray.workflows.prepare import prepare
from tests.opened_sources import png, save, write

ROWS = 24
NAMES = ["cat", "dog", "owl"]
LABELS = [NAMES[row % 3] for row in range(ROWS)]
PATHS = [f"img/{row:03d}.png" for row in range(ROWS)]
VECTORS = np.random.default_rng(0).normal(size=(ROWS, 6)).astype(np.float32)


def starts(action: Callable[[], object]) -> bool:
    try:
        action()
    except DynacorError:
        return False
    return True


def check(data: Path, is_ready: bool, tmp_path: Path, **options: Any) -> None:
    """What doctor looks at, and what detect does before it trains, end alike."""
    config = DetectConfig(data=str(data), out=str(tmp_path / "run"), quiet=True, **options)

    def train() -> object:
        prepared = prepare(config)
        return ingest(prepared.source, prepared.packed, config.max_invalid_share, Progress(quiet=True))

    with one_process():
        assert starts(lambda: sample_rows(prepare(config), {})) is is_ready, "doctor"
        assert starts(train) is is_ready, "detect"


def csv(
    paths: list[str] = PATHS, labels: Any = LABELS, head: str = "path,label\n", mark: str = ",", end: str = "\n"
) -> str:
    rows = zip(paths, labels, strict=True)
    return head.replace("\n", end) + "".join(f"{path}{mark}{label}{end}" for path, label in rows)


def pictures(folder: Path) -> None:
    for row, path in enumerate(PATHS):
        write(folder / path, png(row))


TEXTS: dict[str, tuple[str | bytes, bool]] = {
    "semicolon.csv": (csv(head="path;label\n", mark=";", end="\r\n").encode("utf-8-sig"), True),
    "bom.csv": (csv().encode("utf-8-sig"), True),
    "utf16.csv": (csv(head="path\tlabel\n", mark="\t").encode("utf-16"), True),
    "cp1252.csv": (csv(labels=["Küche", "dog"] * 12).encode("cp1252"), True),
    "noheader.csv": (csv(head=""), True),
    "blanks.txt": (csv(head="", mark=" "), True),
    "case.csv": (csv(head="Path, Label\n"), True),
    "index.csv": (csv([f"{row},{path}" for row, path in enumerate(PATHS)], head=",path,label\n"), True),
    "backslash.csv": (csv([path.replace("/", "\\") for path in PATHS]), True),
    "windows.csv": (csv(["D:\\data\\" + path.replace("/", "\\") for path in PATHS]), True),
    "dots.csv": (csv([f"./{path}" for path in PATHS]), True),
    "nan.csv": (csv(labels=[*LABELS[:-3], "nan", "NULL", "n/a"]), False),
    "minus.csv": (csv(labels=[-1, 1] * 12), False),
    "zeros.csv": (csv(labels=["-0.0", "1.0"] * 12), True),
    "several.csv": (csv(labels=["a|b", "b|c", "a|c"] * 8), True),
    "bools.csv": (csv(labels=[True, False] * 12), True),
    "mac.csv": (csv(end="\r"), True),
    "comment.csv": ("# made by X\n" + csv(), True),
    "repeated.csv": (csv() + csv(), False),
    "quotes.csv": (csv([f'"{path}"' for path in PATHS]), True),
    "t.tsv": (csv(head="path\tlabel\n", mark="\t"), True),
    "t.csv.gz": (gzip.compress(csv().encode()), True),
    "dupid.csv": (
        csv([f"{row // 2},{path}" for row, path in enumerate(PATHS)], head="instance_id,path,label\n"),
        False,
    ),
    "textid.csv": (csv([f"u{row},{path}" for row, path in enumerate(PATHS)], head="instance_id,path,label\n"), True),
    "broken.csv": (csv(labels=[*LABELS[:-1], "a,b"]), False),
    "header.csv": ("path,label\n", False),
    "empty.csv": ("", False),
    "oneclass.csv": (csv(labels=["cat"] * ROWS), False),
    "unique.csv": (csv(labels=range(ROWS)), False),
    "missing.csv": (csv([f"no/{row}.png" for row in range(ROWS)]), False),
    "lines.jsonl": (
        "".join(json.dumps({"file_name": p, "label": n}) + "\n" for p, n in zip(PATHS, LABELS, strict=True)),
        True,
    ),
    "list.json": (json.dumps([{"path": p, "label": n} for p, n in zip(PATHS, LABELS, strict=True)]), True),
    "iris.data": ("".join(f"{','.join(map(str, row))},{n}\n" for row, n in zip(VECTORS, LABELS, strict=True)), True),
    "ids.csv": ("id,a,b,kind\n" + "".join(f"{i},{i / 7},{i % 5 + 0.5},{LABELS[i]}\n" for i in range(ROWS)), True),
    "thousands.csv": (
        "f0,f1,f2,f3,label\n" + "".join(f'"{1 + i},000",1,2,3,{LABELS[i]}\n' for i in range(ROWS)),
        False,
    ),
    "nan-feature.csv": ("f0,f1,f2,f3,label\n" + "".join(f"{i or ''},1,2,3,{LABELS[i]}\n" for i in range(ROWS)), False),
}


@pytest.mark.parametrize("name", TEXTS)
def test_tables_in_text(name: str, tmp_path: Path) -> None:
    content, is_ready = TEXTS[name]
    if any(word in name for word in ("ids", "iris", "feature", "thousands")):
        check(write(tmp_path / name, content), is_ready, tmp_path)
        return
    pictures(tmp_path)
    check(write(tmp_path / name, content), is_ready, tmp_path, encoder="pixels")


def lists(values: Any, kind: pa.DataType | None = None) -> pa.Array:
    return pa.array(list(values), kind or pa.list_(pa.float32()))


HUGE = VECTORS.copy()
HUGE[5] = 1e30
GAPS = VECTORS.copy()
GAPS[7] = np.nan
TABLES: dict[str, tuple[dict[str, Any], bool]] = {
    "plain": ({"feature": lists(VECTORS)}, True),
    "half": ({"embedding": lists(VECTORS.astype(np.float16), pa.list_(pa.float16()))}, True),
    "nested": ({"embedding": lists(VECTORS.reshape(ROWS, 2, 3).tolist(), pa.list_(pa.list_(pa.float32())))}, True),
    "tensor": ({"embedding": pa.FixedShapeTensorArray.from_numpy_ndarray(VECTORS.reshape(ROWS, 2, 3))}, True),
    "wide": ({f"f{column}": VECTORS[:, column] for column in range(6)}, True),
    "bytes": ({"embedding": [row.tobytes() for row in VECTORS]}, False),
    "json text": ({"embedding": [json.dumps(row.tolist()) for row in VECTORS]}, False),
    "short": ({"feature": lists([*VECTORS[:-1], VECTORS[-1][:3]])}, False),
    "nan": ({"feature": lists(GAPS)}, False),
    "huge row": ({"feature": lists(HUGE)}, True),
    "huge all": ({"feature": lists(VECTORS.astype(np.float64) * 1e30, pa.list_(pa.float64()))}, True),
    "over": ({"feature": lists(VECTORS.astype(np.float64) * 1e300, pa.list_(pa.float64()))}, False),
    "constant": ({"feature": lists(np.ones_like(VECTORS))}, False),
    "two": ({"feature": lists(VECTORS), "embedding": lists(VECTORS)}, False),
    "big ids": ({"feature": lists(VECTORS), "instance_id": [2**53 + 1 + row for row in range(ROWS)]}, True),
    "negative ids": ({"feature": lists(VECTORS), "instance_id": range(-1, ROWS - 1)}, False),
    "images": ({"image": [png(row) for row in range(ROWS)]}, True),
    "broken images": ({"image": [png(row) if row else b"no" for row in range(ROWS)]}, False),
    "lists of labels": ({"feature": lists(VECTORS), "label": [["a"], ["b"]] * 12}, False),
    "labels of bytes": ({"feature": lists(VECTORS), "label": [b"a", b"b"] * 12}, True),
    "categories": ({"feature": lists(VECTORS), "label": pa.array(LABELS).dictionary_encode()}, True),
    "missing labels": ({"feature": lists(VECTORS), "label": [None, *LABELS[1:]]}, False),
    "times": ({"feature": lists(VECTORS), "label": np.array(["2026-01-01"] * ROWS, "datetime64[D]")}, False),
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_of_values(name: str, tmp_path: Path) -> None:
    columns, is_ready = TABLES[name]
    columns = {"label": LABELS} | {key: pa.array(column) for key, column in columns.items()}
    encoder = "pixels" if "image" in columns else "auto"
    check(save(tmp_path / "t.parquet", columns), is_ready, tmp_path, encoder=encoder)


def folder(root: Path, names: list[str], sub: str = "", ending: str = "png") -> None:
    for row in range(ROWS):
        write(root / names[row % len(names)] / sub / f"{row}.{ending}", png(row))


def splits(root: Path) -> None:
    folder(root, ["train/cat", "train/dog", "val/cat", "val/dog"])


def linked(root: Path) -> None:
    folder(root, ["cat", "dog"])
    folder(root.parent, ["elsewhere"])
    (root / "owl").symlink_to(root.parent / "elsewhere")


def annexed(root: Path) -> None:
    folder(root.parent / "store", ["cat", "dog"])
    for file in (root.parent / "store").rglob("*.png"):
        link = root / file.parent.name / file.name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(file)


def thumbnails(root: Path) -> None:
    folder(root, ["cat", "dog"])
    folder(root, ["cat", "dog"], "@eaDir")


def odd_files(root: Path) -> None:
    folder(root, ["cat", "dog"])
    write(root / "cat" / "zero.png", b"")
    write(root / "dog" / "page.png", "<html>")


def coco(root: Path) -> None:
    pictures(root)
    items = [{"id": row, "file_name": path, "width": 4, "height": 4} for row, path in enumerate(PATHS)]
    boxes = [{"image_id": row, "category_id": row % 3, "bbox": [0, 0, 4, 4]} for row in range(ROWS)]
    kinds = [{"id": code, "name": name} for code, name in enumerate(NAMES)]
    content = {"images": items, "annotations": boxes, "categories": kinds}
    write(root / "annotations" / "instances.json", json.dumps(content))


def yolo(root: Path) -> None:
    for row in range(ROWS):
        write(root / "images" / f"{row}.png", png(row))
        write(root / "labels" / f"{row}.txt", f"{row % 3} 0.5 0.5 1 1\n")


def webdataset(root: Path) -> None:
    root.mkdir()
    with tarfile.open(root / "a.tar", "w") as archive:
        for row in range(ROWS):
            for ending, content in (("png", png(row)), ("cls", str(row % 3).encode())):
                member = tarfile.TarInfo(f"{row:06d}.{ending}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))


def partitions(root: Path) -> None:
    table = pa.table({"feature": lists(VECTORS), "label": LABELS})
    for number, part in enumerate((table.slice(0, 0), table.slice(0, 12), table.slice(12))):
        save(root / f"part-{number}.parquet", {name: part[name] for name in part.column_names})


def hive(root: Path) -> None:
    pq.write_to_dataset(pa.table({"feature": lists(VECTORS), "label": LABELS}), root, partition_cols=["label"])


def arrays(root: Path) -> None:
    root.mkdir()
    np.save(root / "x.npy", VECTORS)
    np.save(root / "y.npy", np.arange(ROWS) % 3)


FOLDERS: dict[str, tuple[Callable[[Path], object], bool]] = {
    "classes": (lambda root: folder(root, NAMES), True),
    "splits": (splits, True),
    "link to a class": (linked, False),
    "links to images": (annexed, False),
    "deep": (lambda root: folder(root, NAMES, "sub/sub"), True),
    "parent": (lambda root: folder(root / "images" / "Images", NAMES), False),
    "jfif": (lambda root: folder(root, NAMES, ending="jfif"), True),
    "svg": (lambda root: folder(root, NAMES, ending="svg"), False),
    "awkward names": (lambda root: folder(root, ["café au lait", "a#b%20c", '"q"', "-dash"]), True),
    "thumbnails": (thumbnails, True),
    "broken files": (odd_files, False),
    "flat": (pictures, False),
    "empty": (Path.mkdir, False),
    "list beside": (lambda root: (pictures(root), write(root / "metadata.csv", csv(head="file_name,label\n"))), True),
    "kaggle": (lambda root: (pictures(root), write(root / "labels.csv", csv())), False),
    "coco": (coco, True),
    "yolo": (yolo, True),
    "webdataset": (webdataset, True),
    "partitions": (partitions, True),
    "hive": (hive, True),
    "arrays": (arrays, True),
    "pointer": (lambda root: write(root / "a.parquet", LFS_HEAD + b" https://git-lfs.github.com/spec/v1\n"), False),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_folders(name: str, tmp_path: Path) -> None:
    make, is_ready = FOLDERS[name]
    make(tmp_path / "data")
    images = name not in ("partitions", "hive", "arrays")
    check(tmp_path / "data", is_ready, tmp_path, **({"encoder": "pixels"} if images else {}))
