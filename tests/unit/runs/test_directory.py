"""A run directory belongs to one configuration: resumed by the same, refused to any other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dynacor_ray.core.errors import RunDirectoryError
from dynacor_ray.core.storage import Location, locate
from dynacor_ray.runs import directory

IDENTITY: dict[str, Any] = {"options": {"gamma": 0.1, "classes": ("a", "b")}, "data": {"files": 3}}


@pytest.fixture
def run(tmp_path: Path) -> Location:
    """The directory of a run that has begun."""
    place = locate(str(tmp_path / "run"))
    directory.check(place, IDENTITY)
    directory.claim(place, IDENTITY, {"data": "demo", "classes": ("a", "b")})
    return place


def test_the_same_configuration_goes_on(run: Location) -> None:
    directory.check(run, IDENTITY)
    assert directory.fingerprint(run) == {"files": 3}
    assert {"dynacor_ray", "python", "ray", "torch"} <= directory.versions(run).keys()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"options": {"gamma": 0.2, "classes": ("a", "b")}}, r"gamma=0\.1 there, 0\.2 here; choose another --out"),
        ({"options": {"classes": ("a", "b")}}, r"gamma=0\.1 there, None here"),
        ({"data": {"files": 4}}, "the data changed since that run began"),
    ],
)
def test_another_configuration_is_refused(run: Location, change: dict[str, Any], message: str) -> None:
    with pytest.raises(RunDirectoryError, match=message):
        directory.check(run, IDENTITY | change)


def test_a_folder_of_other_things_is_refused(tmp_path: Path) -> None:
    place = locate(str(tmp_path / "run"))
    for harmless in ("cache/dataset/x", "summary.json.part", "driver-1.lock"):
        (place / harmless).write_bytes(b"x")
    directory.check(place, IDENTITY)
    (place / "thesis.tex").write_bytes(b"x")
    with pytest.raises(RunDirectoryError, match=r"a new or empty run directory, but got .* with thesis\.tex and no"):
        directory.check(place, IDENTITY)
    assert place.names() == ["cache", "driver-1.lock", "summary.json.part", "thesis.tex"], "nothing is touched"


@pytest.mark.parametrize("content", ["{}", "[1]", '{"identity": {}}', "no JSON"])
def test_the_configuration_of_another_program_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(RunDirectoryError, match=r"Expected a (new or empty )?run directory"):
        directory.check(locate(str(tmp_path)), IDENTITY)


def test_half_written_files_are_removed_and_nothing_else(run: Location) -> None:
    for name in ("issues.parquet", "issues.parquet.part"):
        (run / name).write_bytes(b"x")
    directory.claim(run, IDENTITY, {"data": "demo"})
    assert run.names() == ["config.json", "issues.parquet"]
    assert json.loads((run / "config.json").read_bytes())["config"] == {"data": "demo"}


def test_features_of_another_encoder_are_refused(run: Location) -> None:
    assert directory.tied_encoder(run) == (None, None)
    directory.tie_encoder(run, "pixels@8", "they are small")
    directory.claim(run, IDENTITY, {"data": "demo"})
    assert directory.tied_encoder(run) == ("pixels@8", "they are small")
    directory.tie_encoder(run, "pixels@8", "they are small")
    with pytest.raises(RunDirectoryError, match=r"the encoder pixels@8 that .* its weights, an installed package or"):
        directory.tie_encoder(run, "pixels@9")
    directory.check(run, IDENTITY)


def test_a_sweep_is_finished_when_its_chosen_run_is(tmp_path: Path) -> None:
    sweep = locate(str(tmp_path / "sweep"))
    with pytest.raises(RunDirectoryError, match="but got no directory"):
        directory.finished_run(sweep)
    (sweep / "summary.json").write_bytes(b"{}")
    with pytest.raises(RunDirectoryError, match=r"without summary\.json and issues\.parquet"):
        directory.finished_run(sweep)
    for name in ("summary.json", "issues.parquet"):
        (sweep / "best" / name).write_bytes(b"{}")
    assert directory.finished_run(sweep).path == (sweep / "best").path
    (sweep / "issues.parquet").write_bytes(b"{}")
    assert directory.finished_run(sweep).path == sweep.path


def test_a_training_is_no_run_of_detect(tmp_path: Path) -> None:
    """Whether or not a method left its issues there."""
    training = locate(str(tmp_path / "training"))
    (training / "model" / "config.json").write_bytes(b"{}")
    for name in ("summary.json", "issues.parquet"):
        with pytest.raises(RunDirectoryError, match=r"but got a training, .*; name a run of dynacor detect"):
            directory.finished_run(training)
        (training / name).write_bytes(b"{}")
    with pytest.raises(RunDirectoryError, match="but got a training"):
        directory.finished_run(training)


def test_packed_data_are_named_so_that_they_may_move_with_the_run(tmp_path: Path) -> None:
    run, elsewhere = locate(str(tmp_path / "run")), locate(str(tmp_path / "data"))
    inside = run / "cache" / "dataset"
    assert directory.packed_name(run, inside) == "cache/dataset"
    assert directory.packed_place(run, "cache/dataset").path == inside.path
    assert directory.packed_place(run, directory.packed_name(run, elsewhere)).path == elsewhere.path


def test_a_run_that_is_probably_meant(tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "summary.json").write_text("{}")
    for name, told in (
        ("Dmo", f"no directory {tmp_path}/Dmo; perhaps {tmp_path}/demo is meant"),
        ("", "name one of the runs in it: demo"),
        ("demo/summary.json", "run dynacor detect to its end"),
        ("none/of/them", "run dynacor detect to its end"),
    ):
        with pytest.raises(RunDirectoryError, match=told):
            directory.finished_run(locate(str(tmp_path / name)))
