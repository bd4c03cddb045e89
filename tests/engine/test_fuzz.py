"""Ten thousand files that were changed at random; FUZZ_FIRST=10000 takes the next ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import psutil
import pytest

INPUTS, AT_ONCE = 10_000, 1000
PEAK = 2048
"""MiB that a process which reads a thousand inputs may take."""


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_ten_thousand_changed_files(tmp_path: Path) -> None:
    """Only errors of ours, within time and memory; no library is crashed, no file and no process is left."""
    start, outcomes = int(os.environ.get("FUZZ_FIRST", "0")), Counter[str]()
    for first in range(start, start + INPUTS, AT_ONCE):
        command = [sys.executable, "-m", "tests.fuzzing", str(first), str(first + AT_ONCE), str(tmp_path)]
        environment = os.environ | {"PYTHONPATH": os.getcwd()}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, ((tmp_path / "last").read_text(), done.returncode, done.stderr[-2000:])
        told = json.loads(done.stdout)
        assert told["defects"] == {}
        assert told["peak"] < PEAK
        assert told["left"] == ["last"]
        outcomes.update(told["outcomes"])
    assert sum(outcomes.values()) == INPUTS
    assert min(outcomes["read"], outcomes["refused"]) > INPUTS // 4, outcomes
    assert not psutil.Process().children()
