"""CIFAR-10, CIFAR-100 and their human labels, on miniature archives pickled as Python 2 did. Nothing is downloaded."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import shutil
import struct
import tarfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from dynacor_ray.core.errors import ConfigError, DataError, StorageError
from dynacor_ray.core.schema import INSTANCE_ID
from dynacor_ray.sources import cifar
from dynacor_ray.sources.base import Source, SourceOptions
from dynacor_ray.sources.registry import open_source
from dynacor_ray.sources.validate import build_vocabulary, validate_rows

ROWS = 20
TEN = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
HUNDRED = tuple(f"class {i}" for i in range(100))
FOLDERS = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}
ARCHIVES = {"cifar10": "cifar-10-python.tar.gz", "cifar100": "cifar-100-python.tar.gz"}
HUMAN = {"cifar10": "CIFAR-10_human.pt", "cifar100": "CIFAR-100_human.pt"}
NAMES = ("cifar10", "cifar100")


class Python2Pickler(pickle._Pickler):
    """Writes bytes as Python 2's strings."""

    dispatch: ClassVar[dict[type, Any]] = dict(pickle._Pickler.dispatch)

    def save_string(self, value: bytes) -> None:
        short = len(value) < 256
        head = (
            pickle.SHORT_BINSTRING + bytes([len(value)]) if short else pickle.BINSTRING + struct.pack("<i", len(value))
        )
        self.write(head + value)  # type: ignore[attr-defined]
        self.memoize(value)  # type: ignore[attr-defined]

    dispatch[bytes] = save_string


def pickled(content: dict[bytes, Any]) -> bytes:
    """A dictionary as in the published files: strings of Python 2, arrays of the numpy of 2009."""
    buffer = io.BytesIO()
    Python2Pickler(buffer, protocol=2).dump(content)
    data = buffer.getvalue().replace(b"numpy._core.multiarray\n", b"numpy.core.multiarray\n")
    flags = pickle.NEWFALSE + pickle.NEWTRUE + pickle.TUPLE3
    return data.replace(flags, b"K\x00K\x01" + pickle.TUPLE3, 1)


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test opens the network, and no batch outlives its test."""

    def refuse(*_args: Any, **_options: Any) -> NoReturn:
        raise urllib.error.URLError("no network here")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    cifar._batch.cache_clear()


class Miniature:
    """Pixels and labels of a small data set, and its files unpacked in `root`."""

    def __init__(self, name: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        rng = np.random.default_rng(7)
        self.name, self.root, self.folder = name, root, root / FOLDERS[name]
        self.pixels = rng.integers(0, 256, (ROWS, 3, 32, 32), dtype=np.uint8)
        classes = 10 if name == "cifar10" else 100
        self.labels: NDArray[np.int64] = rng.permutation(np.arange(classes).repeat(2))[:ROWS]
        self.folder.mkdir(parents=True)
        flat = self.pixels.reshape(ROWS, 3072)
        import torchvision  # takes seconds

        reader = torchvision.datasets.CIFAR10 if name == "cifar10" else torchvision.datasets.CIFAR100
        if name == "cifar10":
            edges = (0, 3, 8, 12, 16, 20)
            for number in range(5):
                rows = slice(edges[number], edges[number + 1])
                content = {b"data": flat[rows], b"labels": self.labels[rows].tolist(), b"batch_label": b"training"}
                (self.folder / f"data_batch_{number + 1}").write_bytes(pickled(content))
            (self.folder / "batches.meta").write_bytes(pickled({b"label_names": [name.encode() for name in TEN]}))
        else:
            content = {b"data": flat, b"fine_labels": self.labels.tolist(), b"coarse_labels": [0] * ROWS}
            (self.folder / "train").write_bytes(pickled(content))
            names = [name.encode() for name in HUNDRED]
            (self.folder / "meta").write_bytes(pickled({b"fine_label_names": names, b"coarse_label_names": [b"all"]}))
        # The published sums give way to those of the miniature; the test batch is not needed.
        sums = [[file, self.md5(self.folder / file)] for file, _ in reader.train_list]
        monkeypatch.setattr(reader, "train_list", sums)
        monkeypatch.setattr(reader, "meta", {**reader.meta, "md5": self.md5(self.folder / reader.meta["filename"])})
        self.archive = root / ARCHIVES[name]
        with tarfile.open(self.archive, "w:gz") as tar:
            tar.add(self.folder, FOLDERS[name])
        monkeypatch.setattr(reader, "tgz_md5", self.md5(self.archive))

    @staticmethod
    def md5(path: Path) -> str:
        return hashlib.md5(path.read_bytes()).hexdigest()

    def human(self, place: str = "", clean: NDArray[np.int64] | None = None, rows: int = ROWS) -> dict[str, Any]:
        """Write the file of human labels; returns its content."""
        clean = self.labels if clean is None else clean
        kinds = cifar.DATA_SETS[self.name].kinds
        classes = len(TEN) if self.name == "cifar10" else len(HUNDRED)
        content = {"clean_label": clean} | {kind: (clean + 1 + i) % classes for i, kind in enumerate(kinds)}
        content = {key: values[:rows] for key, values in content.items()}
        (self.root / place).mkdir(exist_ok=True)
        torch.save(content, self.root / place / HUMAN[self.name])
        return content


@pytest.fixture(params=NAMES)
def mini(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Miniature:
    return Miniature(request.param, tmp_path / "root", monkeypatch)


@pytest.fixture
def ten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Miniature:
    return Miniature("cifar10", tmp_path / "root", monkeypatch)


def opened(data: Any, **options: Any) -> Source:
    return open_source(str(data), SourceOptions(**options))


def check_rows(source: Source, mini: Miniature, given: NDArray[Any], max_rows: int = 7) -> None:
    """All rows in the order of the archive, read shard by shard after a journey through pickle."""
    assert (source.name, source.kind, source.num_rows, source.has_truth) == (mini.name, "image", ROWS, True)
    assert source.class_names == (TEN if mini.name == "cifar10" else HUNDRED)
    start = 0
    for shard in source.shards(max_rows):
        packed = pickle.dumps(shard)
        assert len(packed) < 2000  # no pixels in it
        table = pickle.loads(packed).read()
        rows = range(start, start + shard.num_rows)
        assert table["row"].to_pylist() == list(rows)
        assert INSTANCE_ID not in table.column_names  # so it is the row
        assert table["uri"].to_pylist() == [f"{mini.name}/train/{row:05d}" for row in rows]
        assert table["error"].null_count == shard.num_rows
        assert table["label"].to_pylist() == shard.read_labels().to_pylist() == [str(given[row]) for row in rows]
        assert table["true_label"].to_pylist() == [str(mini.labels[row]) for row in rows]
        for row, data in zip(rows, table["image"].to_pylist(), strict=True):
            image = Image.open(io.BytesIO(data))
            assert image.format == "PNG"
            np.testing.assert_array_equal(np.asarray(image), mini.pixels[row].transpose(1, 2, 0))
        start += shard.num_rows
    assert start == ROWS


# --- images and own labels ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["unpacked", "archive"])
@pytest.mark.parametrize("prefixed", [True, False])
def test_rows(mini: Miniature, form: str, prefixed: bool) -> None:
    if form == "archive":
        shutil.rmtree(mini.folder)
    else:
        mini.archive.unlink()
    source = opened(f"{mini.name}:{mini.root}" if prefixed else mini.root)
    check_rows(source, mini, mini.labels)
    checked = validate_rows(source.shards(ROWS)[0].read(), "image", build_vocabulary({}, source), None)
    np.testing.assert_array_equal(checked.rows["given_label"].to_numpy(), mini.labels)
    assert checked.truth is not None
    np.testing.assert_array_equal(checked.truth["true_label"].to_numpy(), mini.labels)


def test_any_cut_gives_the_same_rows(ten: Miniature) -> None:
    for max_rows in (1, 6, 64):
        check_rows(opened(ten.root), ten, ten.labels, max_rows)


def test_both_data_sets_in_one_folder(ten: Miniature, monkeypatch: pytest.MonkeyPatch) -> None:
    hundred = Miniature("cifar100", ten.root / "other", monkeypatch)
    hundred.folder.rename(ten.root / FOLDERS["cifar100"])
    with pytest.raises(
        DataError, match=r"one data set in .* cifar10 and cifar100; say --data cifar10:.* or --data cif"
    ):
        opened(ten.root)
    assert opened(f"cifar100:{ten.root}").class_names == HUNDRED
    assert opened(f"cifar10:{ten.root}").class_names == TEN


def test_fingerprint(ten: Miniature) -> None:
    ten.human()
    prints = {opened(ten.root, label_column=kind).fingerprint() for kind in (None, "worse_label", "aggre_label")}
    assert len(prints) == 3
    plain, worse = (opened(ten.root, label_column=kind).fingerprint() for kind in (None, "worse_label"))
    assert opened(f"cifar10:{ten.root}").fingerprint() == plain
    (ten.root / HUMAN["cifar10"]).touch()
    assert opened(ten.root).fingerprint() == plain
    assert opened(ten.root, label_column="worse_label").fingerprint() != worse
    opening = opened(ten.root)
    (ten.folder / "data_batch_2").touch()
    assert opened(ten.root).fingerprint() != opening.fingerprint() == plain


def test_options_that_do_not_apply(mini: Miniature) -> None:
    options: dict[str, Any] = {"image_column": "x", "truth_column": "y", "classes": ("a", "b"), "balanced_sample": 20}
    for option, value in options.items():
        flag = f"--{option.replace('_', '-')}"
        with pytest.raises(ConfigError, match=f"data of kind '{mini.name}', but got {flag}; leave them out"):
            opened(mini.root, **{option: value})


# --- human labels -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["", "data"])
def test_human_labels(mini: Miniature, place: str) -> None:
    content = mini.human(place)
    assert len(content) == (6 if mini.name == "cifar10" else 2)
    for kind in cifar.DATA_SETS[mini.name].kinds:
        check_rows(opened(mini.root, label_column=kind), mini, content[kind])
    check_rows(opened(mini.root), mini, mini.labels)


def test_unknown_kind_of_labels(mini: Miniature) -> None:
    valid = {
        "cifar10": "aggre_label, random_label1, random_label2, random_label3, worse_label",
        "cifar100": "noisy_label",
    }
    with pytest.raises(
        ConfigError, match=f"--label-column among {valid[mini.name]}, but got 'worst'; pass one of these"
    ):
        opened(mini.root, label_column="worst")


def test_missing_human_file(ten: Miniature) -> None:
    with pytest.raises(DataError, match=r"CIFAR-10_human\.pt in .*root or in its data/, but got no such file; put it"):
        opened(ten.root, label_column="worse_label")


def test_human_labels_of_another_length(ten: Miniature) -> None:
    ten.human(rows=19)
    with pytest.raises(DataError, match=r"20 labels in .*CIFAR-10_human\.pt, one per training image, but got 19;"):
        opened(ten.root, label_column="worse_label")


def test_human_labels_in_another_order(ten: Miniature) -> None:
    assert ten.labels[4] != ten.labels[5]
    clean = ten.labels.copy()
    clean[[4, 5]] = clean[[5, 4]]
    ten.human(clean=clean)
    with pytest.raises(
        DataError, match=r"clean_label of .* archive, but got 2 that differ, the first one at row 4; use"
    ):
        opened(ten.root, label_column="worse_label")


def test_human_labels_of_the_other_data_set(ten: Miniature) -> None:
    ten.human(clean=ten.labels * 9)
    with pytest.raises(
        DataError, match=r"label in 0\.\.9 in .* use the file that was made for the data set of 10 classes"
    ):
        opened(ten.root, label_column="worse_label")


# --- what can be wrong with the files -----------------------------------------------------------------------------


class Trap:
    """Leaves a trace where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return Path.mkdir, (self.path,)


def test_another_file_is_not_unpickled(mini: Miniature, tmp_path: Path) -> None:
    for file in ("data_batch_3", "batches.meta") if mini.name == "cifar10" else ("train", "meta"):
        original = (mini.folder / file).read_bytes()
        (mini.folder / file).write_bytes(pickle.dumps(Trap(tmp_path / "trace")))
        cifar._batch.cache_clear()
        with pytest.raises(DataError, match=rf"{file}.* in .*root as published, but got missing or damaged files"):
            opened(mini.root)
        (mini.folder / file).write_bytes(original)
    assert not (tmp_path / "trace").exists()
    cifar._batch.cache_clear()
    assert opened(mini.root).num_rows == ROWS


def test_file_that_changes_after_opening(ten: Miniature) -> None:
    source = opened(ten.root)
    cifar._batch.cache_clear()
    (ten.folder / "data_batch_1").write_bytes(b"other")
    with pytest.raises(DataError, match=r"data_batch_1 and batches\.meta in .* as published"):
        source.shards(5)[0].read()


def test_damaged_archive_is_kept_and_not_replaced(mini: Miniature) -> None:
    shutil.rmtree(mini.folder)
    mini.archive.write_bytes(mini.archive.read_bytes()[:-50])
    with pytest.raises(DataError, match=r"\.tar\.gz as published, but got a damaged file .*delete it, and copy"):
        opened(mini.root)
    assert mini.archive.exists()
    assert not mini.folder.exists()


def test_missing_batch_is_unpacked_again(ten: Miniature) -> None:
    (ten.folder / "data_batch_4").unlink()
    check_rows(opened(ten.root), ten, ten.labels)


def test_offline(mini: Miniature) -> None:
    shutil.rmtree(mini.folder)
    mini.archive.unlink()
    folder, archive = FOLDERS[mini.name], ARCHIVES[mini.name]
    expected = rf"Expected {folder}/ or {archive} in .*root, but got neither, and https://.*{archive} cannot be downl"
    with pytest.raises(DataError, match=rf"{expected}.*no network here.*; put {archive} into .*root\."):
        opened(f"{mini.name}:{mini.root}")
    assert list(mini.root.iterdir()) == []


class Response(io.BytesIO):
    """What a server answers."""

    def __init__(self, data: bytes, url: str) -> None:
        super().__init__(data)
        self.url, self.length = url, len(data)


def test_download(mini: Miniature, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(mini.folder)
    content = mini.archive.read_bytes()
    mini.archive.unlink()
    answers = {"content": b"a login page"}

    def urlopen(request: urllib.request.Request) -> Response:
        return Response(answers["content"] if request.get_method() == "GET" else b"", request.full_url)

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    with pytest.raises(DataError, match=r"cannot be downloaded \(File not found or corrupted"):
        opened(f"{mini.name}:{mini.root}")
    assert list(mini.root.iterdir()) == []
    answers["content"] = content
    check_rows(opened(f"{mini.name}:{mini.root}"), mini, mini.labels)
    assert sorted(path.name for path in mini.root.iterdir()) == sorted((FOLDERS[mini.name], ARCHIVES[mini.name]))


def test_archive_that_cannot_be_unpacked(ten: Miniature, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(ten.folder)

    def refuse(*_args: Any) -> NoReturn:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("torchvision.datasets.utils.extract_archive", refuse)
    with pytest.raises(StorageError, match=r"to write .*root, but got 'Permission denied'; check path and rights"):
        opened(ten.root)


def test_root_that_is_no_local_folder(tmp_path: Path) -> None:
    for root in (tmp_path / "absent", ""):
        with pytest.raises(DataError, match=r"a folder for CIFAR-10, but got no folder '.*'; check the path, or make"):
            opened(f"cifar10:{root}")
    with pytest.raises(DataError, match=r"a local folder for CIFAR-100, but got memory://x; copy cifar-100-python"):
        opened("cifar100:memory://x")


def test_an_archive_that_leads_out_is_not_unpacked(tmp_path: Path) -> None:
    """CIFAR's archive must be the published one before anything of it is unpacked."""
    (tmp_path / "root").mkdir()
    with tarfile.open(tmp_path / "root" / "cifar-10-python.tar.gz", "w:gz") as tar:
        for name in ("../trace", f"{tmp_path}/trace", "cifar-10-batches-py/data_batch_1"):
            tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    with pytest.raises(DataError, match="as published, but got a damaged file"):
        open_source(f"cifar10:{tmp_path / 'root'}", SourceOptions())
    assert not (tmp_path / "trace").exists()
    assert [path.name for path in (tmp_path / "root").iterdir()] == ["cifar-10-python.tar.gz"]


def test_a_good_archive_is_not_unpacked_through_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, precious = tmp_path / "root", tmp_path / "precious"
    root.mkdir()
    precious.mkdir()
    (precious / "data_batch_1").write_text("precious")
    with tarfile.open(root / "cifar-10-python.tar.gz", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("cifar-10-batches-py/data_batch_1"), io.BytesIO())
    digest = hashlib.md5((root / "cifar-10-python.tar.gz").read_bytes()).hexdigest()
    monkeypatch.setattr("torchvision.datasets.CIFAR10.tgz_md5", digest)
    os.symlink(precious, root / "cifar-10-batches-py")
    cifar._batch.cache_clear()
    with pytest.raises(DataError, match=r"to unpack .* below .*root, but got a link to .*precious; remove the link"):
        open_source(f"cifar10:{root}", SourceOptions())
    assert [path.name for path in precious.iterdir()] == ["data_batch_1"]
    assert (precious / "data_batch_1").read_text() == "precious"


# --- test images --------------------------------------------------------------------------------------------------


def test_the_test_images_are_another_data_set(mini: Miniature, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the archive's labels, also where people's are asked for: those are of the training images."""
    reader = cifar._reader(mini.name)
    first, file = mini.folder / reader.train_list[0][0], "test_batch" if mini.name == "cifar10" else "test"
    content = pickle.loads(first.read_bytes(), encoding="bytes")
    content[b"data"] = content[b"data"][::-1]
    (mini.folder / file).write_bytes(pickled(content))
    monkeypatch.setattr(reader, "test_list", [[file, mini.md5(mini.folder / file)]])
    mini.archive.unlink()
    source = opened(f"{mini.name}_test:{mini.root}", label_column="worse_label")
    assert (source.name, source.num_rows) == (f"{mini.name}_test", len(content[b"data"]))
    assert source.class_names == opened(f"{mini.name}:{mini.root}").class_names
    assert source.fingerprint() != opened(f"{mini.name}:{mini.root}").fingerprint()
    table = pickle.loads(pickle.dumps(source.shards(1000)[0])).read()
    assert table["uri"].to_pylist()[0] == f"{mini.name}/test/00000"
    assert table["label"].to_pylist() == table["true_label"].to_pylist()
    assert table["label"].to_pylist() == [str(label) for label in mini.labels[: source.num_rows]]
    image = np.asarray(Image.open(io.BytesIO(table["image"][0].as_py())))
    np.testing.assert_array_equal(image, mini.pixels[source.num_rows - 1].transpose(1, 2, 0))
