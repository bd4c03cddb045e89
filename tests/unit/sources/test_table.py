"""Tables of paths, local and through fsspec."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from dynacor_ray.core.errors import DataError
from dynacor_ray.core.storage import locate
from dynacor_ray.sources.base import SourceOptions
from dynacor_ray.sources.image_files import LFS_HEAD
from dynacor_ray.sources.image_paths import PathRule, find_rule
from dynacor_ray.sources.validate import build_vocabulary, validate_rows
from tests.opened_sources import opened, png, save, whole, write


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
    assert table["true_label"].to_pylist() == ["1", None, "0"]
    assert table["instance_id"].to_pylist() == [5, 7, 6], "a broken line keeps its place"
    assert table["error"].to_pylist() == [
        None,
        "line with 1 instead of 4 columns",
        "label '-1' taken for a missing one",
    ]


def test_parquet_of_paths(pictures: Path) -> None:
    path = save(pictures / "t.parquet", {"image": ["img/0,0.png", "img/1,1.png"], "label": ["a", "b"]})
    source = opened(path)
    assert source.name == "table"
    assert whole(source)["image"].to_pylist() == [png(0), png(1)]
    assert source.fingerprint() != opened(path, classes=("a", "b")).fingerprint()


def test_likely_names_of_labels_come_after_usual_ones(pictures: Path) -> None:
    source = opened(save(pictures / "t.parquet", {"file": ["img/0,0.png"], "category": ["a"], "note": ["n"]}))
    assert whole(source)["label"].to_pylist() == ["a"]
    assert source.notes == ("Column 'category' taken for the labels.",)
    source = opened(save(pictures / "t.parquet", {"file": ["img/0,0.png"], "category": ["a"], "label": ["b"]}))
    assert whole(source)["label"].to_pylist() == ["b"]


def test_measurements_without_a_clear_label(tmp_path: Path) -> None:
    measured = {"length": [0.5], "width": [1.5], "island": ["a"], "sex": ["f"]}
    with pytest.raises(DataError, match=r"exactly one label column .* got the columns length, width, island, sex"):
        opened(save(tmp_path / "t.parquet", measured))
    assert opened(save(tmp_path / "t.parquet", measured | {"Species": ["b"]})).kind == "feature"


def test_bad_tables(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("uri,kind,part\na.png,x,b\n")
    with pytest.raises(DataError, match=r"exactly one label column .* but got the columns uri, kind, part"):
        opened(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text("uri,label\n")
    with pytest.raises(DataError, match=r"labeled rows in .*, but got 0 rows"):
        opened(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text("")
    with pytest.raises(DataError, match=r"t.csv to be a table, but got an empty file"):
        opened(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_bytes(b"RIFF\0\0")
    with pytest.raises(DataError, match=r"t.csv to be a table in text, but got binary data"):
        opened(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_bytes(LFS_HEAD + b"v1\noid sha256:0\nsize 1\n")
    with pytest.raises(DataError, match=r"a table in t.csv, but got a pointer of Git LFS; run git lfs pull"):
        opened(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text("uri,label,instance_id\na.png,x,1.5\n")
    with pytest.raises(DataError, match=r"integers in column 'instance_id' of t.csv, but got type double; convert or"):
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


ROWS = [("img/a.png", "one"), ("img/b.png", "two"), ("img/c.png", "one"), ("img/d.png", "two")]


def written(head: str = "path,label\n", line: str = "{0},{1}\n", **changes: str) -> str:
    return head + "".join(line.format(path, changes.get(label, label)) for path, label in ROWS)


TABLES: dict[str, tuple[bytes | str, str]] = {
    "plain.csv": (written(), ""),
    "semicolon.csv": (written("path;label\r\n", "{0};{1}\r\n").encode("utf-8-sig"), "fields as divided by ';'"),
    "utf16.csv": (written("path\tlabel\r\n", "{0}\t{1}\r\n").encode("utf-16"), "text as utf-16"),
    "utf16bare.csv": (written().encode("utf-16-le"), "text as utf-16-le"),
    "noheader.csv": (written(""), "the first line as data, with the columns path, label"),
    "lines.txt": (written("", "{0} {1}\n"), "fields as divided by 'blank'"),
    "upper.csv": (written("Image Path,LABEL\n"), ""),
    "blanks.csv": (written("path , label\n", "{0} , {1}\n"), ""),
    "index.csv": (written(",path,label\n", "1,{0},{1}\n"), ""),
    "comma.csv": (written("path,label,\n", "{0},{1},\n"), ""),
    "comment.csv": ("# by tool X\n" + written(), ""),
    "mac.csv": (written().replace("\n", "\r"), ""),
    "quoted.csv": (written("'path','label'\n", "'{0}','{1}'\n"), ""),
    "empty lines.csv": ("\n" + written(line="{0},{1}\n\n") + "\n", ""),
    "packed.csv.gz": (gzip.compress(written().encode()), ""),
    "back.csv": (written().replace("/", "\\"), "Paths are read with / for"),
    "other machine.csv": (written(line="/home/x/data/{0},{1}\n"), "Paths are used without their first 4 parts"),
    "windows.csv": (written().replace("img/", "D:\\data\\img\\"), "without their first 2 parts, read with / for"),
    "names.csv": (
        written(head="id,breed\n").replace("img/", "").replace(".png", ""),
        "below 'img/', given the ending '.png'",
    ),
    "lines.jsonl": (written("", '{{"file_name": "{0}", "label": "{1}"}}\n'), ""),
    "T.CSV": (written(), ""),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_read_as_it_comes(tmp_path: Path, name: str) -> None:
    for place, shade in zip("abcd", range(4), strict=True):
        write(tmp_path / "img" / f"{place}.png", png(shade))
    content, note = TABLES[name]
    source = opened(write(tmp_path / name, content))
    table = whole(source)
    assert table["label"].to_pylist() == ["one", "two", "one", "two"]
    assert table["image"].to_pylist() == [png(shade) for shade in range(4)]
    assert table["error"].null_count == 4
    assert note in " ".join(source.notes)
    assert bool(note) == bool(source.notes)


def test_text_of_windows(tmp_path: Path) -> None:
    data = write(tmp_path / "t.csv", ("x" * 300_000 + ".png,no\n").join(["path,label\n", ""]).encode())
    data.write_bytes(data.read_bytes() + written("", one="K\u00fcche").encode("cp1252"))
    source = opened(data)
    assert source.shards(9)[0].read_labels().to_pylist() == ["no", "K\u00fcche", "two", "K\u00fcche", "two"]
    assert source.notes == ("Read text as cp1252.",)


def test_where_images_are(tmp_path: Path) -> None:
    data = write(tmp_path / "t.csv", written("image_id,label\n").replace("img/", "").replace(".png", ""))
    with pytest.raises(DataError, match=r"images below --image-root, but got no file at /absent/a for 'a'; say where"):
        opened(data, image_root="/absent")
    source = opened(data)
    assert (
        f"--image-root, and with --image-suffix which ending the names lack (no file at {tmp_path}/a for" in source.hint
    )
    for folder in ("train", "train2"):
        for name in "abcd":
            write(tmp_path / folder / f"{name}.jpg", png())
    with pytest.raises(DataError, match=r"one folder in .* with the images, but got 'train' and 'train2'; choose --im"):
        opened(data)
    source = opened(data, image_root=str(tmp_path / "train2"), image_suffix=".jpg")
    assert source.hint == ""
    assert whole(source)["uri"][0].as_py() == f"{tmp_path}/train2/a.jpg"
    assert whole(source)["error"].null_count == 4


def test_paths_encoded_as_in_addresses(tmp_path: Path) -> None:
    data = write(tmp_path / "t.csv", "path,label\nimg/a%20b%25.png,x\nimg/%C3%BC.png,y\n")
    for name in ("a b%.png", "ü.png"):
        write(tmp_path / "img" / name, png())
    source = opened(data)
    assert source.notes == ("Paths are decoded, as %20 is a blank in an address.",)
    assert whole(source)["uri"].to_pylist() == ["img/a b%.png", "img/ü.png"]
    write(tmp_path / "img" / "a%20b%25.png", png())
    assert opened(data).notes == (), "what is written so is meant so"


def test_endings_in_the_other_case_are_found(tmp_path: Path) -> None:
    """As written where names in either case are the same file."""
    data = write(tmp_path / "t.csv", "path,label\nimg/a.jpg,x\nD.B.jpg,y\n")
    for name in ("a.JPG", "D.B.JPG"):
        write(tmp_path / "img" / name, png())
    source = opened(write(data, "path,label\nimg/a.jpg,x\nimg/D.B.jpg,y\n"))
    assert whole(source)["error"].null_count == 2
    assert source.notes == ("Paths are used with their endings in the other case, as .JPG for .jpg.",)
    source = opened(write(data, "path,label\na.jpg,x\nD.B.jpg,y\n"))
    assert whole(source)["error"].null_count == 2
    assert source.notes[0].startswith("Paths are looked for below 'img/', used with their endings in the other case")


def test_few_files_are_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a store each is a request."""
    asked = list[str]()

    def is_file(path: str) -> bool:
        asked.append(path)
        return "/b/" in path

    monkeypatch.setattr("dynacor_ray.sources.image_paths.os.path.isfile", is_file)
    folder, names = locate(str(tmp_path)), pa.array([f"{row}.png" for row in range(16)])
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    rule = find_rule(names, folder, SourceOptions())
    assert (rule.prefix, len(asked)) == ("b/", 16 + 9 + 8), "nowhere beside the table, too few in a/, enough in b/"
    asked.clear()
    assert find_rule(pa.array([f"b/{row}.png" for row in range(16)]), folder, SourceOptions()) == PathRule()
    assert len(asked) == 1


def test_images_in_several_folders_are_found_by_their_names(tmp_path: Path) -> None:
    """As HAM10000 and the chest X-rays of the NIH are published."""
    for part, stem in enumerate("abc"):
        write(tmp_path / f"part_{part}" / "images" / f"{stem}.jpg", png(part))
    for rows in ("image_id,dx\na,x\nb,y\nc,x\n", "image_id,dx\na.jpg,x\nb.jpg,y\nc.jpg,x\n"):
        source = opened(write(tmp_path / "t.csv", rows), label_column="dx")
        assert whole(source)["image"].to_pylist() == [png(0), png(1), png(2)]
        assert source.notes[0].startswith("Paths are looked for by name in 3 folders, such as 'part_0/images'")
    for stem in "abc":
        write(tmp_path / "masks" / f"{stem}.jpg", png())
    (tmp_path / "part_1" / "images" / "b.jpg").rename(tmp_path / "part_0" / "images" / "b.jpg")
    with pytest.raises(DataError, match=r"one folder in .* with the images"):
        opened(tmp_path / "t.csv", label_column="dx")


def test_repeated_headers_keep_their_place(pictures: Path) -> None:
    lines = 'path,label\n"img/0,0.png",a\n"img/1,1.png",b\n'
    table = whole(opened(write(pictures / "t.csv", lines + lines)))
    assert table["error"].to_pylist() == [None, None, "repeated header", None, None]
    assert table["label"].to_pylist() == ["a", "b", None, "a", "b"]


def test_commas_are_decimal_points_where_spreadsheets_write_them(tmp_path: Path) -> None:
    text = "f0;f1;f2;f3;label\r\n1,5;2;-3,25;4E-1;one\r\n;2,5;3;1;two\r\n"
    source = opened(write(tmp_path / "t.csv", text.encode("utf-8-sig")))
    values = np.array(whole(source)["feature"].to_pylist())
    assert np.array_equal(values, np.float32([[1.5, 2, -3.25, 0.4], [np.nan, 2.5, 3, 1]]), equal_nan=True)
    assert source.notes[0] == "Read fields as divided by ';', commas in numbers as decimal points."


def test_commas_before_three_digits_are_no_decimal_points_among_commas(tmp_path: Path) -> None:
    rows = "".join(f'"{number},000",1,2,3,{"ab"[number % 2]}\n' for number in range(1, 9))
    data = write(tmp_path / "t.csv", f"f0,f1,f2,f3,label\n{rows}")
    with pytest.raises(DataError, match=r"numbers in f0 to f3 of t\.csv, but got column 'f0' of type string"):
        opened(data)
    source = opened(write(data, data.read_text().replace(",000", ",50")))
    assert whole(source)["feature"][0].as_py() == [1.5, 1.0, 2.0, 3.0]


def test_numbers_that_name_rows_are_no_paths(tmp_path: Path) -> None:
    rows = "".join(f"{number},{number / 7},{number / 3},{'ab'[number % 2]}\n" for number in range(8))
    source = opened(write(tmp_path / "t.csv", f"id,length,width,kind\n{rows}"))
    table = whole(source)
    assert table["uri"].to_pylist() == [str(number) for number in range(8)]
    assert table["feature"][7].as_py() == pytest.approx([1.0, 7 / 3])


def test_numbers_and_a_word_need_no_header(tmp_path: Path) -> None:
    """As in the tables of UCI's repository."""
    rows = "".join(f"{number},{number / 3},0,{number + 1},{'ab'[number % 2]}\n" for number in range(8))
    source = opened(write(tmp_path / "iris.data", rows))
    assert (
        source.notes[0]
        == "Read the first line as data, with the columns column_1, column_2, column_3, column_4, label."
    )
    table = whole(source)
    assert table["feature"][3].as_py() == [3.0, 1.0, 0.0, 4.0]
    assert table["label"].to_pylist() == list("abababab")


def test_a_header_alone_has_no_rows(tmp_path: Path) -> None:
    for head in ("path,label\n", "f0,f1,f2,f3,label\n"):
        with pytest.raises(DataError, match=r"labeled rows in .*t.csv, but got 0 rows"):
            opened(write(tmp_path / "t.csv", head))


def test_the_label_may_be_numbered_like_the_features(tmp_path: Path) -> None:
    data = write(tmp_path / "t.csv", "f1,f2,f3,f4,f5\n1.5,2,3,4,one\n2.5,3,4,5,two\n")
    with pytest.raises(DataError, match="column 'f5' of type string; correct it, name it with --label-column"):
        opened(data)
    table = whole(opened(data, label_column="f5"))
    assert table["label"].to_pylist() == ["one", "two"]
    assert table["feature"].to_pylist() == [[1.5, 2, 3, 4], [2.5, 3, 4, 5]]


def test_ids_that_are_text_name_rows_of_numbers(tmp_path: Path) -> None:
    data = write(tmp_path / "t.csv", "instance_id,f0,f1,f2,f3,label\na,1,2,3,4,one\nb,1,2,3,4,two\n")
    assert whole(opened(data))["uri"].to_pylist() == ["a", "b"]


LABELS = {
    "words": (["nan", "NULL", "one", None], [None, None, "one", None]),
    "whole": (["1.0", "2.0", "1", "2.5"], ["1", "2", "1", "2.5"]),
    "blanks": ([" one", "one ", "ONE", ""], ["one", "one", "ONE", None]),
    "minus": (["-1", "1", "-1.0", "0"], [None, "1", None, "0"]),
    "zeros": (["-0.0", "-0", "0", "-10"], ["0", "0", "0", None]),
    "none": (["none", "NA", "true", "-x"], ["none", "NA", "true", "-x"]),
}


@pytest.mark.parametrize("name", LABELS)
@pytest.mark.parametrize("form", ["csv", "parquet", "jsonl", "bytes"])
def test_labels_are_the_same_from_every_format(tmp_path: Path, name: str, form: str) -> None:
    given, wanted = LABELS[name]
    if form == "csv":
        data = write(tmp_path / "t.csv", "path,label\n" + "".join(f"x.png,{label or ''}\n" for label in given))
    elif form == "jsonl":
        lines = [json.dumps({"path": "x.png", "label": label}) for label in given]
        data = write(tmp_path / "t.jsonl", "\n".join(lines))
    else:
        labels = given if form == "parquet" else [label if label is None else label.encode() for label in given]
        data = save(tmp_path / "t.parquet", {"path": ["x.png"] * 4, "label": labels})
    write(tmp_path / "x.png", png())
    table = whole(opened(data))
    assert table["label"].to_pylist() == wanted
    hidden = [label if want is None else None for label, want in zip(given, wanted, strict=True)]
    said = [f"label '{label.removesuffix('.0')}' taken for a missing one" if label else None for label in hidden]
    assert table["error"].to_pylist() == said
    if name == "words":
        assert whole(opened(data, classes=("nan", "one", "NULL")))["label"].to_pylist() == given


def test_boxes_of_several_classes_are_no_rows_of_whole_images(tmp_path: Path) -> None:
    rows = "filename,class,xmin,ymin,xmax,ymax\na.png,cat,0,0,2,2\na.png,dog,2,2,4,4\nb.png,dog,0,0,2,2\n"
    with pytest.raises(
        DataError, match=r"one class per image in .*, but got 1 image with boxes \(xmin, .*; write the b"
    ):
        opened(write(tmp_path / "t.csv", rows))
    source = opened(write(tmp_path / "t.csv", rows.replace("a.png,dog", "c.png,dog")))
    assert source.num_rows == 3
    assert source.notes[0].startswith("Boxes (xmin, ymin, xmax, ymax) are left aside, and whole images are searched;")


def test_competitions_name_their_columns_as_they_like(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / "train_images" / f"{name}.png", png())
    for rows in ("id_code,diagnosis\na,0\nb,1\n", "Photo No,Finding\na.png,0\nb.png,1\n"):
        source = opened(write(tmp_path / "t.csv", rows))
        assert whole(source)["error"].null_count == 2
        assert whole(source)["label"].to_pylist() == ["0", "1"]
    save(
        tmp_path / "t.parquet",
        {"Photo No": ["a.png", "b.png"], "age": [7, 8], "size": [0.5, 1.5], "Finding": ["x", "y"]},
    )
    table = opened(tmp_path / "t.parquet", label_column="Finding")
    assert (table.kind, whole(table)["error"].null_count) == ("image", 2)


def test_json_may_be_compressed_or_of_fiftyone(tmp_path: Path) -> None:
    write(tmp_path / "data" / "a.png", png())
    write(tmp_path / "t.json.gz", gzip.compress(b'[{"path": "data/a.png", "label": "cat"}]'))
    write(tmp_path / "t.json", b'{"classes": ["cat", "dog"], "labels": {"a": 0}}')
    for name in ("t.json.gz", "t.json"):
        table = whole(opened(tmp_path / name))
        assert (table["label"].to_pylist(), table["error"].to_pylist()) == (["cat"], [None])
