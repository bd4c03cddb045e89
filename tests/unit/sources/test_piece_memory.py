"""Small files that are read to more than they are: refused before they fill memory."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dynacor_ray.core import storage
from dynacor_ray.core.errors import DataError, DynacorError
from dynacor_ray.core.progress import Progress
from dynacor_ray.core.storage import locate
from dynacor_ray.engine.data import ingest
from dynacor_ray.sources import image_files, json_tables, piece_memory, row_files, text_rows, webdataset
from dynacor_ray.sources.base import Source
from dynacor_ray.sources.box_files import _listed_names
from tests.opened_sources import opened, png, write


@pytest.fixture
def little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(piece_memory, "MAX_BYTES", 1 << 20)


def read(source: Source) -> pa.Table:
    """All rows at once."""
    (shard,) = source.shards(1 << 20)
    return shard.read()


@pytest.mark.usefixtures("little")
def test_one_large_file_many_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table is short, however large what it names; fewer rows at a time do fit."""
    write(tmp_path / "x.png", png() + bytes(100_000))
    write(tmp_path / "t.csv", b"uri,label\n" + b"x.png,a\nx.png,b\n" * 20)
    with pytest.raises(DataError, match=r"rows of .* that fit into memory, but got more than 1 MiB in fewer"):
        read(opened(tmp_path / "t.csv"))
    monkeypatch.setattr(ingest, "PART_BYTES", 1 << 18)
    packed = ingest.ingest(opened(tmp_path / "t.csv"), locate(str(tmp_path / "packed")), 0.0, Progress(quiet=True))
    assert packed.manifest.num_rows == 40
    assert len(packed.manifest.parts) == 20, "2 rows each, as make a file, since more than 10 would fill the memory"


@pytest.mark.parametrize("kind", ["folder", "table", "tar"])
def test_a_file_beyond_the_limit_is_quarantined(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it is read: what is refused below is only what all rows of a piece hold together."""
    for module in (image_files, webdataset):
        monkeypatch.setattr(module, "MAX_FILE_BYTES", 1 << 20)
    files = {f"{name}/{row}.png": png() for name in "ab" for row in range(3)}
    files["a/0.png"] += bytes(1 << 20)
    for name, content in files.items():
        write(tmp_path / "set" / name, content)
    data = tmp_path / "set"
    if kind == "table":
        data = write(tmp_path / "t.csv", "uri,label\n" + "".join(f"set/{name},{name[0]}\n" for name in files))
    if kind == "tar":
        data = tmp_path / "t.tar"
        with tarfile.open(data, "w") as packed:
            for name in files:
                packed.add(tmp_path / "set" / name, name.replace("/", "-"))
                packed.add(write(tmp_path / "label", name[0]), name.replace("/", "-").replace("png", "cls"))
    monkeypatch.setattr(piece_memory, "MAX_BYTES", 1 << 20)
    rows = read(opened(data))
    assert rows["image"].to_pylist() == [None, *[png()] * 5]
    assert rows["error"][0].as_py() == "file has 1 MiB; the limit is 1 MiB"


@pytest.mark.usefixtures("little")
def test_later_rows_that_are_larger(tmp_path: Path) -> None:
    """The first rows tell how many are packed together; fewer are where more do not fit."""
    write(tmp_path / "x.png", png())
    write(tmp_path / "y.png", png(9) + bytes(30_000))
    write(tmp_path / "t.csv", b"uri,label\n" + b"x.png,a\nx.png,b\n" * 32 + b"y.png,a\ny.png,b\n" * 40)
    packed = ingest.ingest(opened(tmp_path / "t.csv"), locate(str(tmp_path / "packed")), 0.0, Progress(quiet=True))
    assert packed.manifest.num_rows == 144
    assert len(packed.manifest.parts) == 8


def test_large_pieces_wait_for_one_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small ones do not, whatever is large."""
    monkeypatch.setattr(piece_memory, "LARGE_BYTES", 10)
    at_once, most = [0], [0]

    def pack(size: int) -> None:
        with piece_memory.one_large_at_a_time():
            held = piece_memory.Held("x")
            with ThreadPoolExecutor(4) as readers:
                list(readers.map(held.add, [size] * 4))
            at_once[0] += 1
            most[0] = max(most[0], at_once[0])
            time.sleep(0.05)
            at_once[0] -= 1

    for size, together in ((1, True), (9, False)):
        most[0] = 0
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(pack, [size] * 6))
        assert (most[0] > 1) == together


@pytest.mark.usefixtures("little")
def test_many_boxes_of_one_picture(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, "JPEG", quality=10)
    write(tmp_path / "x.jpg", stream.getvalue())
    boxes = [{"image_id": 1, "category_id": number % 2, "bbox": [0, 0, 200, 200]} for number in range(20)]
    content = {"images": [{"id": 1, "file_name": "x.jpg"}], "annotations": boxes}
    content["categories"] = [{"id": 0, "name": "a"}, {"id": 1, "name": "b"}]
    write(tmp_path / "instances.json", json.dumps(content).encode())
    with pytest.raises(DataError, match="that fit into memory"):
        read(opened(tmp_path / "instances.json"))


@pytest.mark.usefixtures("little")
def test_wide_rows_of_zeros(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros((4, 100_000)), y=np.arange(4) % 2)
    assert (tmp_path / "a.npz").stat().st_size < 10_000
    with pytest.raises(DataError, match="that fit into memory"):
        read(opened(tmp_path / "a.npz"))


def test_arrays_that_are_packed_too_tightly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each piece of an array is unpacked from its start: 4 GB of zeros took more than six minutes."""
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros((1000, 1000)), y=np.arange(1000) % 2)
    assert opened(tmp_path / "a.npz").num_rows == 1000
    monkeypatch.setattr(storage, "_UNPACKED_BYTES", 1 << 20)
    with pytest.raises(DataError, match=r"x\.npy in .*a\.npz to be no decompression bomb, but got more than 1 MiB; if"):
        opened(tmp_path / "a.npz")


TEXTS = {
    "t.csv.gz": b"uri,label\nx.png,b\n" + b"x.png,a\n" * 100_000,
    "n.csv.gz": b"label,x0,x1\na,1,2\n" + b"b,1,1\n" * 100_000,
    "t.jsonl.gz": b'{"file_name": "x.png", "label": "a"}\n' * 20_000,
}


@pytest.mark.parametrize("name", TEXTS)
def test_text_that_is_packed_too_tightly(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "_UNPACKED_BYTES", 1 << 18)
    write(tmp_path / "x.png", png())
    write(tmp_path / name, gzip.compress(TEXTS[name]))
    with pytest.raises(DynacorError, match=r"to be no decompression bomb, but got more than .*, unpack it yourself"):
        opened(tmp_path / name)
    monkeypatch.setattr(storage, "_UNPACKED_BYTES", 1 << 20)
    assert opened(tmp_path / name).num_rows >= 20_000


def test_endless_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_rows, "_LONGEST_LINE", 1 << 20)
    write(tmp_path / "t.csv", b"label,x0,x1\n" + b"a,1,2\nb,1,2\n" * 50_000 + b"1" * (10 << 20))
    with pytest.raises(DataError, match=r"lines in .*, but got one of more than 1 MiB"):
        opened(tmp_path / "t.csv")
    write(tmp_path / "w.csv", b"label," + b",".join(b"x%d" % i for i in range(30_000)) + b"\na,1\n")
    with pytest.raises(DataError, match=r"a first line of at most 100,000 characters .* \.parquet or \.npz"):
        opened(tmp_path / "w.csv")


def test_an_export_of_endless_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_tables, "_MOST_LINES", 100)
    write(tmp_path / "t.csv", b"image,id,choice,annotation_id,annotator\n" + b"x.png,1,a,1,1\n" * 101)
    with pytest.raises(DataError, match=r"an export of Label Studio in t\.csv, but got more than 100 lines"):
        opened(tmp_path / "t.csv")


@pytest.mark.parametrize(("left", "right"), [(b'{"a":', b"}"), (b"[", b"]")])
def test_lines_of_json_that_are_nested_too_deeply(left: bytes, right: bytes, tmp_path: Path) -> None:
    """20,000 levels end the process in Arrow's parser. Brackets in texts are none."""
    write(tmp_path / "x.png", png())
    row = b'{"file_name": "x.png", "label": "a", "more": %s}\n'
    last = row.removesuffix(b"\n")
    write(tmp_path / "t.jsonl", row.replace(b"%s", b'"' + b"[{" * 1000 + b'\\""') * 3 + row.replace(b"%s", b'"b"'))
    assert opened(tmp_path / "t.jsonl").num_rows == 4
    for text in (row * 2, row * 2 + last):
        deep = text.replace(b"%s", b"1", 1).replace(b"%s", left * 20_000 + b"1" + right * 20_000)
        write(tmp_path / "t.jsonl", deep)
        with pytest.raises(DataError, match=r"t\.jsonl to hold one JSON object per line, but got values .* 200 deep"):
            opened(tmp_path / "t.jsonl")


@pytest.mark.parametrize("end", [b"}\n", b"}"], ids=["whole lines", "a last line without an end"])
def test_lines_of_json_with_ever_new_keys(end: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """2 MB of them took 3.7 GB; keys in texts are none."""
    monkeypatch.setattr(json_tables, "_MOST_KEYS", 10)
    row = b'{"label": "a", "file_name": "x.png", "text": "%s"'
    write(tmp_path / "t.jsonl", b"".join(row % (rb"\"k%d\": 1" % number) + b"}\n" for number in range(20)))
    assert opened(tmp_path / "t.jsonl").num_rows == 20
    write(tmp_path / "t.jsonl", (row % b"b") + b"".join(b', "k%d": 1' % number for number in range(20)) + end)
    with pytest.raises(DataError, match=r"keys in t\.jsonl, but got more than 10 different ones; write"):
        opened(tmp_path / "t.jsonl")


def test_values_of_json_that_fill_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three bytes of text become an empty list of 56."""
    monkeypatch.setattr(storage, "_JSON_MEMORY", 1 << 20)
    write(tmp_path / "t.json", b"[" + b"[]," * 20_000 + b"1]")
    with pytest.raises(DataError, match=r"JSON in t\.json, but got 'more than 1 MiB of values'"):
        opened(tmp_path / "t.json")


def test_rows_that_must_be_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of 1 MB may say to hold 10^9 rows; each needs a path, a vector or an image of its own."""
    monkeypatch.setattr(row_files, "_FEW_ROWS", 1000)
    rows = 200_000
    columns = {"uri": pa.array(["x.png"]).take(pa.array(np.zeros(rows, int))), "label": pa.array(["a"] * rows)}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet", compression="zstd")
    with pytest.raises(DataError, match=r"^Expected rows that differ in a\.parquet, but got 200,000 in [\d,]+ bytes"):
        opened(tmp_path / "a.parquet")


NAMES = {
    "names: [a, 'b c', \"d\"]\n": {0: "a", 1: "b c", 2: "d"},
    "x: 1\nnames:\n  0: a\n  2: 'b'\nnc: 2\n": {0: "a", 2: "b"},
    "names:\n- a\n\n- b\n": {0: "a", 1: "b"},
    "names: [\n  a,\n  b]\n": {0: "a", 1: "b"},
    "names:\n": {},
    "names: *a\n": {},
    "other: [a]\n": {},
}
LONG = ("names: [\n", "names:\n", "names:\n\n\n", "names:\n  - x y", "names: ['a", "names:\n 1: x ", '"names: ["\\')


@pytest.mark.parametrize("text", NAMES)
def test_class_names_in_yaml(text: str) -> None:
    assert _listed_names(text) == NAMES[text]


@pytest.mark.parametrize("part", LONG)
def test_long_yaml_takes_no_long_time(part: str) -> None:
    began = time.process_time()
    for repeated in (part * (200_000 // len(part)), part + part[-1] * 200_000, part + "\n \n" * 60_000):
        _listed_names(repeated)
    assert time.process_time() - began < 2
