"""Answers on the rows of a run: what follows from a class, which of two counts, and what fits no row."""

from __future__ import annotations

from pathlib import Path

import pytest

from dynacor_ray.core.errors import DataError
from dynacor_ray.report.answers import Answers, read_answers
from tests.made_runs import at, issues, make_run

NAMES = ("7", "=dog", "a\x1bb")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    uris = [f"{('a', 'b')[i % 2]}/{i // 2}.png" for i in range(60)]
    return make_run(tmp_path_factory.mktemp("answers") / "run", rows=60, names=NAMES, uris=list(uris))


@pytest.fixture(scope="module")
def given(run: Path) -> dict[int, str]:
    return {row["instance_id"]: NAMES[row["given_label"]] for row in issues(run)}


def read(run: Path, path: Path, text: str) -> Answers:
    path.write_text(text)
    return read_answers(at(run), NAMES, at(path))


def test_a_class_says_wrong_or_right(run: Path, given: dict[int, str], tmp_path: Path) -> None:
    row = next(row for row, name in given.items() if name != "7")
    other = next(row for row, name in given.items() if name == "7")
    text = f"instance_id,mark,label\n{row},,7.0\n{other},,7\n"
    assert read(run, tmp_path / "a.csv", text) == Answers({row: "wrong", other: "right"}, {row: "7"})
    text = f"instance_id,mark,label\n{row},unsure,7\n{other},wrong,7\n"
    assert read(run, tmp_path / "a.csv", text) == Answers({row: "unsure", other: "wrong"})
    with pytest.raises(DataError, match=r"marked right with '7' instead of .*; keep one"):
        read(run, tmp_path / "a.csv", f"instance_id,mark,label\n{row},right,7\n")
    with pytest.raises(DataError, match=r"classes of .* but got 'emu'; choose among"):
        read(run, tmp_path / "a.csv", f"instance_id,mark,label\n{row},,emu\n")


def test_names_are_the_same_in_spite_of_what_makes_them_safe(run: Path, given: dict[int, str], tmp_path: Path) -> None:
    said = {"7": "7.0", "=dog": "'=dog", "a\x1bb": "a?b"}
    text = "".join(f"{row},right,{said[name]}\n" for row, name in given.items())
    assert len(read(run, tmp_path / "a.csv", "instance_id,mark,given_label\n" + text).marks) == 60
    with pytest.raises(DataError, match="instance_id 3 with given label 'emu', which is"):
        read(run, tmp_path / "a.csv", "instance_id,mark,given_label\n3,right,emu\n")


def test_the_latest_answer_counts(run: Path, given: dict[int, str], tmp_path: Path) -> None:
    row = next(row for row, name in given.items() if name == "7")
    head, later, earlier = "instance_id,given_label,label,updated_at\n", f"{row},7,7,t2\n", f"{row},7,=dog,t1\n"
    for text in (later + earlier, earlier + later):
        assert read(run, tmp_path / "a.csv", head + text) == Answers({row: "right"})
    with pytest.raises(DataError, match=f"'wrong' and 'right' for instance_id {row}; keep one"):
        read(run, tmp_path / "a.csv", f"instance_id,mark\n{row},wrong\n{row},right\n")


def test_a_class_that_nobody_may_have_looked_at_is_no_answer(run: Path, given: dict[int, str], tmp_path: Path) -> None:
    place, cat = tmp_path / "annotations.xml", "a/3.png"
    row = 6
    other = next(name for name in NAMES[:2] if name != given[row])
    tag = '<annotations><image name="{}"><tag source="file" label="{}"/></image></annotations>'
    assert read(run, place, tag.format(cat, other)) == Answers({row: "wrong"}, {row: other})
    if given[row] in NAMES[:2]:
        with pytest.raises(DataError, match=r"answers in .*, but got none"):
            read(run, place, tag.format(cat, given[row]))


def test_images_by_the_end_of_their_path(run: Path, tmp_path: Path) -> None:
    text = "path,mark\na/3.png,wrong\ndata\\b\\3.png,right\n"
    assert read(run, tmp_path / "a.csv", text).marks == {6: "wrong", 7: "right"}
    with pytest.raises(DataError, match=r"but got '3\.png', which is the end of 2 paths; name the rows by instance_id"):
        read(run, tmp_path / "a.csv", "path,mark\n3.png,wrong\n")
    with pytest.raises(DataError, match=r"but got 'c/3\.png', which is none"):
        read(run, tmp_path / "a.csv", "path,mark\nc/3.png,wrong\n")


def test_newer_answers_win() -> None:
    before = Answers({1: "wrong", 2: "wrong"}, {1: "cat", 2: "dog"})
    assert before.updated(Answers({1: "right"})) == Answers({1: "right", 2: "wrong"}, {2: "dog"})


def test_links_of_tools_lead_to_their_rows(tmp_path: Path) -> None:
    """Encoding is undone behind ?d= and in URLs, not in the names of a bucket's objects."""
    uris = ["a/b c#.png", "a/b%20c.png", "s3://k/d%20e.png", "up.png", "https://h/f%20g.png", *map(str, range(55))]
    made = make_run(tmp_path / "run", rows=60, names=NAMES, uris=uris)
    rows = {row["uri"]: row["instance_id"] for row in issues(made)}
    links = {
        "/data/local-files/?d=root/a/b%20c%23.png": "a/b c#.png",
        "http://host:8080/data/local-files/?d=root/a/b%2520c.png": "a/b%20c.png",
        "s3://k/d%20e.png": "s3://k/d%20e.png",
        "/data/upload/3/0f2c9a1b-up.png": "up.png",
        "https://h/f%20g.png": "https://h/f%20g.png",
    }
    for link, uri in links.items():
        text = f"image,label,annotator\n{link},7,1\n"
        assert list(read(made, tmp_path / "a.csv", text).marks) == [rows[uri]]
    with pytest.raises(DataError, match=r"'s3://other/d e\.png', which is none"):
        read(made, tmp_path / "a.csv", "image,label,annotator\ns3://other/d e.png,7,1\n")
