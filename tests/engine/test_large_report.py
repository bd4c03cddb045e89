"""The page of a large run, of many classes, and of hostile names stays small and is made at once."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from dynacor_ray.core.storage import locate
from dynacor_ray.report.build import make_report
from tests.made_runs import make_run

MOST_BYTES = 1_500_000
HOSTILE = ["\u202e" + "שלום/" * 1000 + f"{'x' * 5000}{number}.png" for number in range(2000)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rows", "names", "uris"),
    [
        pytest.param(1_000_000, [f"class {number}" for number in range(1000)], None, id="a million rows"),
        pytest.param(200_000, [f"class {number}" for number in range(100_000)], None, id="100,000 classes"),
        pytest.param(2000, ["شعب שלום " * 40 + str(number) for number in range(50)], HOSTILE, id="right to left"),
    ],
)
def test_size_and_time(rows: int, names: list[str], uris: list[str | None] | None, tmp_path: Path) -> None:
    """Seconds are those of the processor, after one page, whose imports are not counted."""
    make_report(locate(str(make_run(tmp_path / "first"))))
    run = make_run(tmp_path / "run", rows=rows, names=tuple(names), uris=uris)
    began = time.process_time()
    page = Path(make_report(locate(str(run))).path)
    assert page.stat().st_size < MOST_BYTES
    assert time.process_time() - began < 2.0, "1 s on an idle machine"
    assert "\u202e" not in page.read_text(encoding="utf-8")
