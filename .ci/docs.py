"""Render guides and docstrings into a folder: `python .ci/docs.py build/docs`."""

import sys
import warnings
from pathlib import Path

import pdoc

import dynacor_ray

# What a user or an author of a detector or source calls; the command line and the plumbing are left out.
SHOWN = ("config", "core.schema", "method", "decision", "detectors", "ground_truth", "sources", "export.datalab")

for name in dynacor_ray.__all__:
    setattr(dynacor_ray, name, getattr(dynacor_ray, name))  # pdoc shows only what is already loaded
tasks = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8").removeprefix("# dynacor_ray")
dynacor_ray.__doc__ = f"{dynacor_ray.__doc__}\n\n{tasks}"  # the first page
warnings.filterwarnings("ignore", "Error parsing type annotation pa", UserWarning)  # generic in the stubs only
warnings.filterwarnings("error", module="pdoc")
pdoc.render.configure(docformat="markdown", show_source=False)
pdoc.pdoc("dynacor_ray", *(f"dynacor_ray.{name}" for name in SHOWN), output_directory=Path(sys.argv[1]))
