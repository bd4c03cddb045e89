"""Small data sets of every kind whose bytes are changed at random, and what a run does with their rows.

`python -m tests.fuzzing FIRST LAST FOLDER` reads the inputs of these numbers in a process of its own.
"""

from __future__ import annotations

import io
import json
import random
import re
import resource
import shutil
import signal
import struct
import sys
import tarfile
import warnings
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
from PIL import Image, features

from dynacor_ray.core.errors import DynacorError
from dynacor_ray.core.image_decoding import load_rgb
from dynacor_ray.engine.data.ingest import count_labels
from dynacor_ray.sources.base import SourceOptions
from dynacor_ray.sources.cifar_human_labels import read_human_labels
from dynacor_ray.sources.registry import open_source
from dynacor_ray.sources.validate import build_vocabulary, check_unique_ids, feature_dim_of, validate_rows

LABELS = [*"abababab"]
FEATURES = np.arange(32, dtype=np.float32).reshape(8, 4)


@dataclass(frozen=True)
class Original:
    """A sound data set.

    Attributes:
        files: path -> content.
        data: what is opened, below the folder of the files.
        changed: the files that are changed at random.
    """

    files: dict[str, bytes]
    data: str
    changed: tuple[str, ...]


def _saved(save: Callable[[Any], None]) -> bytes:
    stream = io.BytesIO()
    save(stream)
    return stream.getvalue()


def picture(form: str, **options: Any) -> bytes:
    """A small picture in one of Pillow's formats."""
    pixels = np.random.default_rng(0).integers(0, 255, (12, 9, 3), dtype=np.uint8)
    return _saved(lambda stream: Image.fromarray(pixels).save(stream, form, **options))


def _pictures() -> dict[str, bytes]:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a picture"
    found = {
        "x.png": picture("PNG", exif=exif, icc_profile=b"0" * 200),
        "p.png": _saved(lambda stream: Image.new("P", (9, 9), 3).save(stream, "PNG", transparency=3)),
        "i.png": _saved(lambda stream: Image.fromarray(np.full((9, 9), 999, np.uint16)).save(stream, "PNG")),
        "x.jpg": picture("JPEG", exif=exif, icc_profile=b"0" * 200),
        "p.jpg": picture("JPEG", progressive=True),
        "x.webp": picture("WEBP", exif=exif),
        "l.webp": picture("WEBP", lossless=True),
        "x.gif": picture("GIF", save_all=True, append_images=[Image.new("RGB", (9, 12))] * 2),
        "x.bmp": picture("BMP"),
        "x.tif": picture("TIFF", compression="tiff_lzw"),
        "d.tif": picture("TIFF", compression="tiff_adobe_deflate"),
        "x.ppm": picture("PPM"),
    }
    if features.check("avif"):
        found["x.avif"] = picture("AVIF")
    if features.check("jpg_2000"):
        found["x.jp2"] = picture("JPEG2000")
    return found


def _tar() -> bytes:
    def save(stream: Any) -> None:
        with tarfile.open(fileobj=stream, mode="w") as archive:
            for number, label in enumerate(LABELS):
                content = {"png": picture("PNG")}
                content |= {"json": json.dumps({"label": label}).encode()} if number % 2 else {"cls": label.encode()}
                for ending, data in content.items():
                    info = tarfile.TarInfo(f"{number:03d}.{ending}")
                    info.size = len(data)
                    archive.addfile(info, io.BytesIO(data))

    return _saved(save)


def _one(name: str, content: bytes, beside: dict[str, bytes] | None = None) -> Original:
    return Original((beside or {}) | {name: content}, name, (name,))


def _originals() -> dict[str, Original]:
    png = picture("PNG")
    labels, vectors = pa.array(LABELS), pa.array(FEATURES.tolist(), pa.list_(pa.float32(), 4))
    images = [png, picture("JPEG")] * 4
    structs = pa.array([{"bytes": image, "path": None} for image in images])
    described = json.dumps({"info": {"features": {"label": {"names": ["a", "b"], "_type": "ClassLabel"}}}})
    coded = pa.table({"label": [0, 1] * 4, "image": structs}).replace_schema_metadata({"huggingface": described})
    rows = pa.table({"label": labels, "feature": vectors, "instance_id": range(8), "true_label": labels})

    def parquet(table: pa.Table, **options: Any) -> bytes:
        return _saved(lambda stream: pq.write_table(table, stream, **options))

    def stream_of(table: pa.Table) -> bytes:
        def save(stream: Any) -> None:
            with pa.ipc.new_stream(stream, table.schema) as writer:
                writer.write_table(table)

        return _saved(save)

    table = "uri,label,instance_id\n" + "".join(f"x.png,{label},{row}\n" for row, label in enumerate(LABELS))
    numbers = "label,feature_0,feature_1,feature_2,feature_3\n" + "".join(
        f"{label},{','.join(map(str, row))}\n" for label, row in zip(LABELS, FEATURES.tolist(), strict=True)
    )
    lines = "".join(json.dumps({"file_name": "x.png", "label": label}) + "\n" for label in LABELS)
    coco = {
        "images": [{"id": 1, "file_name": "x.png"}],
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
        "annotations": [{"id": i, "image_id": 1, "category_id": 1 + i % 2, "bbox": [1, 1, 5, 6]} for i in range(8)],
    }
    keys = "".join(f"images/{row}.png\n" for row in range(8))
    values = "".join(f"images/{row}.png {row % 2}\n" for row in range(8))
    cloth = {f"images/{row}.png": png for row in range(8)}
    yolo = {f"labels/{row}.txt": b"0 0.5 0.5 0.8 0.8\n1 0.4 0.4 0.5 0.5\n" for row in range(3)}
    yolo |= {f"images/{row}.png": png for row in range(3)}
    pair = {"x.npy": _saved(lambda s: np.save(s, FEATURES)), "y.npy": _saved(lambda s: np.save(s, np.arange(8) % 2))}
    found = {
        "features": _one("a.parquet", parquet(rows)),
        "plain features": _one("a.parquet", parquet(rows, compression="none", use_dictionary=False, row_group_size=3)),
        "images": _one("a.parquet", parquet(pa.table({"label": labels, "image": images}), compression="zstd")),
        "structs": _one("a.parquet", parquet(coded)),
        "parquet of paths": _one(
            "a.parquet", parquet(pa.table({"uri": ["x.png"] * 8, "label": labels})), {"x.png": png}
        ),
        "columns": _one(
            "a.parquet", parquet(pa.table({"label": labels} | {f"feature_{i}": FEATURES[:, i] for i in range(4)}))
        ),
        "arrow stream": _one("a.arrow", stream_of(rows)),
        "arrow file": _one("a.feather", _saved(lambda stream: feather.write_feather(rows, stream))),
        "table": _one("t.csv", table.encode(), {"x.png": png}),
        "utf-16": _one("t.tsv", table.replace(",", "\t").encode("utf-16"), {"x.png": png}),
        "numbers": _one("t.csv", numbers.encode()),
        "json lines": _one("t.jsonl", lines.encode(), {"x.png": png}),
        "npz": _one("a.npz", _saved(lambda stream: np.savez(stream, x=FEATURES, y=np.arange(8) % 2))),
        "packed npz": _one(
            "a.npz", _saved(lambda s: np.savez_compressed(s, x=np.ones((8, 4, 4, 3), np.uint8), y=np.array(LABELS)))
        ),
        "npy": Original(pair, "x.npy", tuple(pair)),
        "tar": _one("a.tar", _tar()),
        "coco": _one("instances.json", json.dumps(coco).encode(), {"x.png": png}),
        "yolo": Original(yolo | {"classes.txt": b"a\nb\n"}, "", ("labels/0.txt", "classes.txt", "images/0.png")),
        "yolo yaml": Original(yolo | {"data.yaml": b"names:\n  0: a\n  1: 'b'\n"}, "", ("data.yaml",)),
        "metadata": Original(
            {"x.png": png, "y.png": png, "metadata.csv": b"file_name,label\n" + b"x.png,a\ny.png,b\n" * 4},
            "",
            ("metadata.csv",),
        ),
        "clothing1m": Original(
            cloth | {"noisy_train_key_list.txt": keys.encode(), "noisy_label_kv.txt": values.encode()},
            "",
            ("noisy_train_key_list.txt", "noisy_label_kv.txt"),
        ),
        "human labels": _one("CIFAR-10_human.pt", _human_labels()),
    }
    others = {"a/y.png": png, "b/y.png": png, "b/z.png": png}
    for name, content in _pictures().items():
        found[name] = Original(others | {f"a/{name}": content}, "", (f"a/{name}",))
    return found


def _human_labels() -> bytes:
    import torch

    values = {"clean_label": np.arange(8) % 2, "worse_label": np.arange(8) // 4}
    return _saved(lambda stream: torch.save(values, stream))


def changed(content: bytes, dice: random.Random) -> bytes:
    """The content with one to three changes; checksums of a PNG are made right again, half of the time."""
    data = bytearray(content)
    for _ in range(dice.choice((1, 1, 1, 2, 3))):
        at = dice.randrange(len(data) + 1)
        if dice.random() < 0.3:  # where a file says what it holds
            at = min(len(data), dice.choice((dice.randrange(64), max(len(data) - dice.randrange(1, 400), 0))))
        length = dice.choice((1, 1, 2, 4, 8, 50))
        dice.choice(_CHANGES)(data, at, length, dice)
    if content.startswith(b"\x89PNG") and dice.random() < 0.5:
        data = _with_checksums(bytes(data))
    return bytes(data)


def _overwrite(data: bytearray, at: int, length: int, dice: random.Random) -> None:
    data[at : at + length] = dice.randbytes(length)


def _extreme(data: bytearray, at: int, length: int, dice: random.Random) -> None:
    value = dice.choice((0, 1, -1, 0x7F, 2**31 - 1, -(2**31), 2**32 - 1, 2**63 - 1, -(2**63), 10**6))
    size = dice.choice((1, 2, 4, 8))
    data[at : at + size] = (value % (1 << 8 * size)).to_bytes(size, dice.choice(("little", "big")))


def _cut(data: bytearray, at: int, length: int, dice: random.Random) -> None:
    del data[at : at + length]


def _truncate(data: bytearray, at: int, length: int, dice: random.Random) -> None:
    del data[at:]


def _double(data: bytearray, at: int, length: int, dice: random.Random) -> None:
    data[at:at] = data[at : at + length] * dice.choice((1, 1, 3, 100))


def _move(data: bytearray, at: int, length: int, dice: random.Random) -> None:
    start = dice.randrange(len(data) + 1)
    data[at : at + length] = data[start : start + length]


def _flip(data: bytearray, at: int, length: int, dice: random.Random) -> None:
    if at < len(data):
        data[at] ^= 1 << dice.randrange(8)


def _number(data: bytearray, at: int, length: int, dice: random.Random) -> None:
    """Another number, where there is one in text."""
    found = re.compile(rb"\d+").search(data, at)
    words = (b"-1", b"0", b"1e999", b"nan", b"99999999999999999999999", b"1" * 5000, b"null", b"[]", b"{", b'"', b"\0")
    if found:
        data[found.start() : found.end()] = dice.choice(words)


def _text(data: bytearray, at: int, length: int, dice: random.Random) -> None:
    words = (
        "../../x",
        "/etc/passwd",
        "\u202e",
        "\x1b[31m",
        '"',
        "\n",
        "\r",
        "\t",
        "\ufeff",
        ",",
        "[" * 2000,
        "a" * 9000,
    )
    data[at:at] = dice.choice(words).encode()


_IN_PLACE = (_overwrite, _extreme, _flip, _number)
_CHANGES = (*_IN_PLACE, *_IN_PLACE, _cut, _truncate, _double, _move, _text)


def _with_checksums(data: bytes) -> bytes:
    """A PNG whose chunks all have the right checksum, as far as they can be told apart."""
    made, at = bytearray(data[:8]), 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        body = data[at + 4 : at + 8 + length]
        if at + 12 + length > len(data):
            break
        made += data[at : at + 4] + body + struct.pack(">I", zlib.crc32(body))
        at += 12 + length
    return bytes(made + data[at:])


ORIGINALS = _originals()


def outcome(number: int, folder: Path) -> str:
    """Read input `number`, in a folder that is made for it and removed: "read", or "refused" by an error of ours.

    Whatever else is raised is a defect.
    """
    name = list(ORIGINALS)[number % len(ORIGINALS)]
    original, dice = ORIGINALS[name], random.Random(number)
    files = dict(original.files)
    target = dice.choice(original.changed)
    files[target] = changed(files[target], dice)
    write(files, folder)
    try:
        read(name, folder)
    except DynacorError as error:
        if not str(error).isprintable():
            raise
        return "refused"
    finally:
        shutil.rmtree(folder)
    return "read"


def write(files: dict[str, bytes], folder: Path) -> None:
    """Make the files of a data set."""
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)


def read(name: str, folder: Path) -> None:
    """Read a data set, sound or not."""
    data = str(folder / ORIGINALS[name].data)
    if name == "human labels":
        read_human_labels(data, "worse_label", 10)
    else:
        read_rows(data)


def read_rows(data: str) -> None:
    """All that a run does with the rows of a source before it trains."""
    source = open_source(data, SourceOptions())
    source.fingerprint()
    shards = source.shards(max(5, source.num_rows // 20))
    vocabulary = build_vocabulary(count_labels(shards), source)
    dim, ids = None, []
    for shard in shards:
        table = shard.read()
        if source.kind == "feature":
            dim = dim or feature_dim_of(table)
        checked = validate_rows(table, source.kind, vocabulary, dim)
        ids.append(checked.rows["instance_id"].to_numpy())
        if source.kind == "image":
            for image in checked.rows["image"].to_pylist():
                load_rgb(image, 8)
    check_unique_ids(np.concatenate(ids))


SECONDS = 60
"""In which an input must be read or refused, also on a busy machine."""


def main(first: int, last: int, folder: Path) -> dict[str, Any]:
    """Read the inputs first .. last - 1; one that takes too long, or crashes a library, ends the process.

    Returns:
        Inputs per outcome, the messages of defects, and the peak of memory in MiB.
    """
    warnings.simplefilter("error")
    outcomes, defects = Counter[str](), {}
    for number in range(first, last):
        (folder / "last").write_text(str(number))
        signal.alarm(SECONDS)
        try:
            outcomes[outcome(number, folder / "input")] += 1
        except Exception as error:
            defects[number] = f"{type(error).__name__}: {error}"[:300]
    signal.alarm(0)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    return {
        "outcomes": outcomes,
        "defects": defects,
        "peak": peak,
        "left": sorted(path.name for path in folder.iterdir()),
    }


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))))
