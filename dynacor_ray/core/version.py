"""The version of this package, as stated in `pyproject.toml`."""

from __future__ import annotations

import importlib.metadata

try:
    __version__ = importlib.metadata.version("dynacor-ray")
except importlib.metadata.PackageNotFoundError:  # run from a working directory, e.g. `ray job submit --working-dir .`
    __version__ = "0+unknown"
