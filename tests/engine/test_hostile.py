"""A hostile data directory: a whole run executes nothing of it and changes nothing outside its own directory."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dynacor_ray.core.errors import DataError
from dynacor_ray.workflows.detect import detect

ESCAPE = "\x1b]0;owned\x07\x1b[31m"
NAMES = (f"cat {ESCAPE}", "<script>alert(1)</script>"[:-9], "[red]dog[link=x]", "$\\frac{ |_*")


class Trap:
    """Makes a directory where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


def png(random: np.random.Generator, shade: int) -> bytes:
    pixels = np.clip(random.normal(shade, 10, (8, 8)), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def claimed(image: bytes, side: int) -> bytes:
    """A PNG that says it has side x side pixels."""
    head = struct.pack(">II", side, side) + image[24:29]
    return image[:16] + head + struct.pack(">I", zlib.crc32(b"IHDR" + head)) + image[33:]


def seen(root: Path, out: Path) -> dict[str, tuple[Any, ...]]:
    """Every entry below `root` but not below `out`: kind, content or target, time of change."""
    found: dict[str, tuple[Any, ...]] = {}
    for folder, inner, files in os.walk(root):
        inner[:] = [name for name in inner if Path(folder, name) != out]
        for name in (*inner, *files):
            path = Path(folder, name)
            stat = path.lstat()
            content: Any = os.readlink(path) if path.is_symlink() else None
            if path.is_file() and not path.is_symlink():
                content = hashlib.sha256(path.read_bytes()).hexdigest()
            found[str(path)] = (stat.st_mode, content, stat.st_mtime_ns if not path.is_dir() else None)
    return found


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("cluster_option", ["none", "auto"])
def test_a_hostile_folder(tmp_path: Path, capfd: pytest.CaptureFixture[str], cluster_option: str) -> None:
    random, root, out = np.random.default_rng(0), tmp_path / "data", tmp_path / "run"
    for place, name in enumerate(NAMES):
        (root / name).mkdir(parents=True)
        for number in range(40):
            (root / name / f"{number} {ESCAPE}<b>[bold]{number}.png").write_bytes(png(random, 40 + 50 * place))
    bad = root / NAMES[0]
    secret = png(random, 255)
    (tmp_path / "secret.png").write_bytes(secret)
    (bad / "pickle.png").write_bytes(pickle.dumps(Trap(tmp_path / "trace")))
    (bad / "weights.pt").write_bytes(pickle.dumps(Trap(tmp_path / "trace")))
    (bad / "page.png").write_text(f"<html><script>{ESCAPE}</script></html>")
    (bad / "bomb.png").write_bytes(claimed(png(random, 0), 60_000))
    (root / "sitecustomize.py").write_text(f"import os; os.mkdir({str(tmp_path / 'trace')!r})")
    os.symlink(tmp_path / "secret.png", bad / "out.png")
    os.symlink(tmp_path, bad / "everything")
    os.symlink("/etc", root / "etc")
    os.symlink("/dev/zero", bad / "zero.png")
    os.mkfifo(bad / "pipe.png")
    options: dict[str, Any] = {"encoder": "pixels:8", "epochs": 2, "clustering_epochs": 1, "gamma": 0.3}
    options |= {"max_invalid_share": 0.2, "cluster": cluster_option}
    for link in (root / "etc", bad / "everything"):
        with pytest.raises(DataError, match=rf"the link '.*{link.name}' to a folder outside of the data"):
            detect(str(root), out=str(out), **options)
        link.unlink()
    before = seen(tmp_path, out)
    result = detect(str(root), out=str(out), **options)
    assert seen(tmp_path, out) == before
    assert not (tmp_path / "trace").exists()
    assert (result.summary.num_rows, result.summary.num_classes) == (160, 4)
    assert result.summary.data.quarantine_reasons == {
        "points outside the data root; --follow-links reads it": 2,
        "not an image": 2,
        "image has 3,600,000,000 pixels; the limit is 89,478,485": 1,
        "not a regular file": 1,
    }
    packed = pa.concat_tables([pq.read_table(path) for path in out.rglob("part-*.parquet") if "image" in names(path)])
    assert secret not in packed["image"].to_pylist()
    assert not [path for path in out.rglob("*") if path.is_symlink()]
    page = (out / "report.html").read_text()
    assert "<script>alert" not in page
    assert "<b>[bold]" not in page
    assert all(char.isprintable() or char == "\n" for char in page)
    said = "".join(capfd.readouterr())
    assert "<script>alert" in said
    assert "[red]dog[link=x]" in said
    assert all(char.isprintable() or char == "\n" for char in said), "nothing steers the terminal"


def names(path: Path) -> list[str]:
    found: list[str] = pq.read_schema(path).names
    return found
