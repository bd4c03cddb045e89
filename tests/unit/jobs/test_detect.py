"""The job of detect."""

from __future__ import annotations

import subprocess
import sys

from tests.job_runs import ROOT


def test_a_wrong_option_of_a_job() -> None:
    done = subprocess.run(
        [sys.executable, "jobs/detect.py", "--data", "demo", "--alpha", "-1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == ("dynacor: Expected --alpha of at least 0, but got -1.0; the paper uses 0.5 or 0.05.\n")
