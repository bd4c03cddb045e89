"""Scripts of jobs/ run as from the command line."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run_job(script: str, args: list[str], monkeypatch: pytest.MonkeyPatch, status: int = 0) -> None:
    """Run a script with arguments; it must end with `status`."""
    monkeypatch.setattr(sys, "argv", [script, *args])
    with pytest.raises(SystemExit) as left:
        runpy.run_path(str(ROOT / script), run_name="__main__")
    assert left.value.code == status
