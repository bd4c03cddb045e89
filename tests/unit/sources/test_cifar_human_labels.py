"""Human label files: as written today and by old numpy; hostile and damaged ones."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dynacor_ray.core.errors import DataError
from dynacor_ray.core.storage import locate
from dynacor_ray.sources.cifar_human_labels import read_human_labels

CLEAN = np.array([3, 0, 9, 1], dtype=np.int64)
WORSE = np.array([3, 1, 9, 2], dtype=np.int64)


def saved(path: Path, content: Any, *, zipped: bool = True) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


def aged(data: bytes) -> bytes:
    """A pickle of numpy arrays as numpy 1 wrote it: another module, and integers for the flags of a type."""
    assert b"numpy._core.multiarray\n" in data
    data = data.replace(b"numpy._core.multiarray\n", b"numpy.core.multiarray\n")
    flags = pickle.NEWFALSE + pickle.NEWTRUE + pickle.TUPLE3
    assert data.count(flags) == 1  # the type is pickled once, then referred to
    return data.replace(flags, b"K\x00K\x01" + pickle.TUPLE3)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.int32, np.int64])
def test_reads_what_torch_saves(tmp_path: Path, zipped: bool, dtype: Any) -> None:
    content = {"clean_label": CLEAN.astype(dtype), "worse_label": WORSE.astype(dtype)}
    path = saved(tmp_path / "h.pt", content, zipped=zipped)
    for place in (str(path), locate(str(path))):
        given, true = read_human_labels(place, "worse_label", 10)
        np.testing.assert_array_equal(given, WORSE)
        np.testing.assert_array_equal(true, CLEAN)
        assert given.dtype == true.dtype == np.int32


def test_reads_what_old_numpy_wrote(tmp_path: Path) -> None:
    content = {"clean_label": CLEAN, "worse_label": WORSE}
    old = tmp_path / "legacy.pt"
    old.write_bytes(aged(saved(tmp_path / "new.pt", content, zipped=False).read_bytes()))
    np.testing.assert_array_equal(read_human_labels(str(old), "worse_label", 10)[0], WORSE)
    with zipfile.ZipFile(saved(tmp_path / "z.pt", content)) as source, zipfile.ZipFile(tmp_path / "o.pt", "w") as to:
        for name in source.namelist():
            data = source.read(name)
            to.writestr(name, aged(data) if name.endswith("data.pkl") else data)
    np.testing.assert_array_equal(read_human_labels(str(tmp_path / "o.pt"), "worse_label", 10)[0], WORSE)


def test_reads_tensors_lists_and_columns(tmp_path: Path) -> None:
    content = {"clean_label": torch.from_numpy(CLEAN), "noisy_label": WORSE[:, None], "listed": WORSE.tolist()}
    path = str(saved(tmp_path / "h.pt", content))
    for kind in ("noisy_label", "listed"):
        given, true = read_human_labels(path, kind, 10)
        np.testing.assert_array_equal(given, WORSE)
        np.testing.assert_array_equal(true, CLEAN)


class Hostile:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_is_refused_and_not_executed(tmp_path: Path, zipped: bool) -> None:
    trace = tmp_path / "trace"
    content = {"clean_label": CLEAN, "worse_label": WORSE, "more": Hostile(trace)}
    path = str(saved(tmp_path / "h.pt", content, zipped=zipped))
    with pytest.raises(DataError, match=r"nothing else in .*h\.pt, but got a pickle with code \(\S*\.mkdir\);"):
        read_human_labels(path, "worse_label", 10)
    assert not trace.exists()
    torch.load(path, weights_only=False)
    assert trace.exists()


def test_code_in_a_bare_pickle_and_in_an_object_array(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    array = np.empty(1, dtype=object)
    array[0] = Hostile(trace)
    (tmp_path / "bare.pt").write_bytes(pickle.dumps({"clean_label": Hostile(trace)}))
    saved(tmp_path / "object.pt", {"clean_label": array, "worse_label": array})
    for name in ("bare.pt", "object.pt"):
        with pytest.raises(DataError, match=rf"nothing else in .*{name}, but got a pickle .*code"):
            read_human_labels(str(tmp_path / name), "worse_label", 10)
    assert not trace.exists()


def test_allow_list_does_not_outlive_the_call(tmp_path: Path) -> None:
    path = str(saved(tmp_path / "h.pt", {"clean_label": CLEAN}))
    before = set(torch.serialization.get_safe_globals())  # listed in any order
    read_human_labels(path, "clean_label", 10)
    assert set(torch.serialization.get_safe_globals()) == before


@pytest.mark.parametrize("length", [0, 3, 100, 500])
def test_damaged_file(tmp_path: Path, length: int) -> None:
    for zipped in (True, False):
        path = saved(tmp_path / "h.pt", {"clean_label": CLEAN, "worse_label": WORSE}, zipped=zipped)
        path.write_bytes(path.read_bytes()[:length])
        with pytest.raises(DataError, match=r"Expected integer arrays by name and nothing else in .*download it again"):
            read_human_labels(str(path), "worse_label", 10)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "but got a list"),
        ({"clean_label": CLEAN, "aggre_label": WORSE}, "'worse_label' in .*, but got the keys aggre_label, clean_l"),
        ({"worse_label": WORSE}, "a key 'clean_label' in .*, but got the keys worse_label; name one of these"),
        ({}, "but got the keys none"),
        ({"clean_label": CLEAN, "worse_label": WORSE[:3]}, "as many worse_label as clean_label in .*, but got 3 and 4"),
        ({"clean_label": CLEAN, "worse_label": WORSE + 1}, r"worse_label in 0\.\.9 in .* a range of 2\.\.10; use the"),
        ({"clean_label": CLEAN - 1, "worse_label": WORSE}, r"clean_label in 0\.\.9 in .*, but got a range of -1\.\.8"),
        ({"clean_label": CLEAN, "worse_label": []}, r"worse_label of type float64 and shape \(0,\)"),
        ({"clean_label": CLEAN, "worse_label": WORSE.reshape(2, 2)}, r"worse_label of .* shape \(2, 2\)"),
        ({"clean_label": CLEAN, "worse_label": [1.5, 2.0]}, "worse_label of type float64"),
        ({"clean_label": CLEAN, "worse_label": [[1], [1, 2]]}, "no array as worse_label"),
        ({"clean_label": CLEAN, "worse_label": "text"}, "worse_label of type <U4"),
    ],
)
def test_unfit_content(tmp_path: Path, content: Any, message: str) -> None:
    path = str(saved(tmp_path / "h.pt", content))
    with pytest.raises(DataError, match=message):
        read_human_labels(path, "worse_label", 10)


def test_missing_or_huge_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"a file of human labels at .*absent\.pt, but got no such file"):
        read_human_labels(str(tmp_path / "absent.pt"), "worse_label", 10)
    buffer = io.BytesIO()
    torch.save({"clean_label": CLEAN}, buffer)
    (tmp_path / "h.pt").write_bytes(buffer.getvalue())
    monkeypatch.setattr("dynacor_ray.sources.cifar_human_labels._MAX_BYTES", 10)
    with pytest.raises(DataError, match="but got a file of 0 MiB"):
        read_human_labels(str(tmp_path / "h.pt"), "clean_label", 10)


def test_bombs_of_human_labels(tmp_path: Path) -> None:
    """An archive that unpacks to more than it may, and a view that claims more values than its file has bytes."""
    plain, packed, view = (tmp_path / name for name in ("plain.pt", "packed.pt", "view.pt"))
    torch.save({"clean_label": torch.zeros(9 << 20, dtype=torch.int64), "worse_label": torch.zeros(1)}, plain)
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for member in old.infolist():
            new.writestr(member.filename, old.read(member))
    assert packed.stat().st_size < 1 << 20
    with pytest.raises(DataError, match="a file that unpacks to 72 MiB"):
        read_human_labels(str(packed), "worse_label", 10)
    endless = torch.zeros(1, dtype=torch.int64).expand(10**11)
    torch.save({"clean_label": endless, "worse_label": endless}, view)
    with pytest.raises(DataError, match=r"shape \(100000000000,\)"):
        read_human_labels(str(view), "worse_label", 10)
