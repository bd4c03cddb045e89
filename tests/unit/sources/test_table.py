"""Tables of paths, local and through fsspec."""

from __future__ import annotations

from pathlib import Path

import pytest

from dynacor_ray.core.errors import DataError
from dynacor_ray.core.storage import locate
from dynacor_ray.sources.validate import build_vocabulary, validate_rows
from tests.opened_sources import opened, png, save, whole


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    (tmp_path / "img").mkdir()
    for i in range(4):
        (tmp_path / "img" / f"{i},{i}.png").write_bytes(png(i))
    return tmp_path


def test_csv_of_paths(pictures: Path, tmp_path: Path) -> None:
    lines = [
        "uri,label,extra",
        '"img/0,0.png",01,a',
        f'"{pictures}/img/1,1.png",2,b',
        f'"file://{pictures}/img/2,2.png",01,c',
        "img/absent.png,2,d",
        "img,2,e",
        ",2,f",
        '"img/3,3.png",,g',
        "nosuchprotocol://x/y.png,2,h",
    ]
    (pictures / "t.csv").write_text("\n".join(lines) + "\n", encoding="utf-8-sig")
    source = opened(pictures / "t.csv")
    assert (source.name, source.kind, source.num_rows, source.has_truth) == ("table", "image", 8, False)
    table = whole(source)
    assert table["label"].to_pylist() == ["01", "2", "01", "2", "2", "2", None, "2"]
    assert table["image"].to_pylist()[:3] == [png(0), png(1), png(2)]
    assert table["error"].to_pylist() == [
        None,
        None,
        None,
        "missing file",
        "not a regular file",
        "missing path",
        None,
        "unknown or unreachable storage",
    ]


def test_csv_with_truth_ids_and_broken_lines(pictures: Path) -> None:
    text = "path\ty\ttrue_label\tinstance_id\nimg/0,0.png\t0\t1\t5\nbroken\nimg/1,1.png\t-1\t0\t6\n"
    (pictures / "t.tsv").write_text(text)
    source = opened(pictures / "t.tsv")
    table = whole(source)
    assert table["label"].to_pylist() == ["0", None, None]
    assert table["true_label"].to_pylist() == ["1", "0", None]
    assert table["instance_id"].to_pylist() == [5, 6, 7]
    assert table["error"].to_pylist() == [None, None, "line with 1 instead of 4 columns"]


def test_parquet_of_paths(pictures: Path) -> None:
    path = save(pictures / "t.parquet", {"image": ["img/0,0.png", "img/1,1.png"], "label": ["a", "b"]})
    source = opened(path)
    assert source.name == "table"
    assert whole(source)["image"].to_pylist() == [png(0), png(1)]
    assert source.fingerprint() != opened(path, classes=("a", "b")).fingerprint()


def test_bad_tables(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("uri,kind\na.png,x\n")
    with pytest.raises(DataError, match=r"exactly one label column .* but got the columns uri, kind"):
        opened(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text("uri,label\n")
    with pytest.raises(DataError, match=r"labeled rows in .*, but got 0 rows"):
        opened(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text("")
    with pytest.raises(DataError, match=r"t.csv to be a table in UTF-8, but got 'Empty CSV file'"):
        opened(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_bytes(b"uri,label\na.png,caf\xe9\n")
    with pytest.raises(DataError, match=r"t.csv to be a table in UTF-8"):
        opened(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text("uri,label,instance_id\na.png,x,one\n")
    with pytest.raises(DataError, match=r"t.csv to be a table in UTF-8, but got .*conversion error to int64"):
        opened(tmp_path / "t.csv")


def test_classes_of_a_csv_may_be_indices_or_names(pictures: Path) -> None:
    (pictures / "t.csv").write_text('uri,label\n"img/0,0.png",0\n"img/1,1.png",dog\n"img/2,2.png",-1\n')
    source = opened(pictures / "t.csv", classes=("cat", "dog"))
    checked = validate_rows(whole(source), "image", build_vocabulary({}, source), None)
    assert checked.rows["given_label"].to_pylist() == [0, 1]
    assert checked.quarantine["reason"].to_pylist() == ["label '-1' is not among the 2 classes"]


def test_table_on_fsspec(memory: str, tmp_path: Path) -> None:
    for name in ("x", "z"):  # two files: fsspec's memory has one place to read at per file, whoever reads
        locate(f"{memory}/img/{name}.png").write_bytes(png(1))
    (tmp_path / "y.png").write_bytes(png(2))
    text = f"uri,label\nimg/x.png,a\n{memory}/img/z.png,b\n{tmp_path}/y.png,a\nlocal://{tmp_path}/y.png,b\nno.png,b\n"
    locate(f"{memory}/t.csv").write_bytes(text.encode())
    table = whole(opened(f"{memory}/t.csv", remote=True))
    assert table["image"].to_pylist() == [png(1), png(1), png(2), png(2), None]
    assert table["error"].to_pylist() == [None] * 4 + ["missing file"]
