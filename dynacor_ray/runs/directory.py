"""The run directory: tied to one configuration, resumed by the same, refused to any other."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from typing import Any

from dynacor_ray.core.errors import RunDirectoryError, StorageError, expected_got
from dynacor_ray.core.storage import Location, locate
from dynacor_ray.core.version import __version__
from dynacor_ray.runs.lock import is_lock

CONFIG, SUMMARY, REPORT = "config.json", "summary.json", "report.html"
AUDIT, REVIEW, REVIEWED = "audit.json", "review.json", "reviewed_issues.parquet"
ISSUES, DYNAMICS, QUARANTINE = "issues.parquet", "dynamics.parquet", "quarantine.parquet"
CELLS, COMPARISON, SIGNAL_ANALYSIS = "cells", "comparison.parquet", "signal_analysis.parquet"
MODEL, PREDICTIONS = "model", "predictions.parquet"
TRIALS, HEAT_MAP, BEST, TRAININGS = "trials.parquet", "heatmap.png", "best", "trainings"


def check(run: Location, identity: dict[str, Any]) -> None:
    """Raise RunDirectoryError unless the directory is new, empty, or was begun with the same identity.

    identity: {"options": ..., "data": fingerprint}; what the outputs depend on, as JSON knows it.
    """
    if not (run / CONFIG).exists():
        others = [name for name in run.names() if not (name == "cache" or name.endswith(".part") or is_lock(name))]
        if others:
            got = f"{run} with {', '.join(others[:3])} and no {CONFIG}"
            raise RunDirectoryError(expected_got("a new or empty run directory", got, "choose another --out"))
        return
    held, now = _held(run)["identity"], as_json(identity)
    if held["options"] == now["options"] and held["data"] == now["data"]:
        return
    names = sorted({*held["options"], *now["options"]})
    changed = [name for name in names if held["options"].get(name) != now["options"].get(name)]
    details = [f"{n}={held['options'].get(n)!r} there, {now['options'].get(n)!r} here" for n in changed]
    got = "; ".join(details) or "the data changed since that run began"
    raise RunDirectoryError(expected_got(f"the configuration that {run} was begun with", got, "choose another --out"))


def claim(run: Location, identity: dict[str, Any], config: dict[str, Any]) -> None:
    """Write config.json, which ties the directory to this configuration; what it says of the encoder stays.

    Half-written files of a driver that was killed are removed.
    """
    run.make_dir()
    for name in run.names():
        if name.endswith(".part"):
            (run / name).delete()
    encoder = _held(run)["identity"].get("encoder") if (run / CONFIG).exists() else None
    names = ("ray", "torch", "numpy", "pyarrow")
    versions = {name: importlib.metadata.version(name) for name in names}
    (run / CONFIG).write_json(
        {
            "config": as_json(config),
            "identity": as_json(identity) | {"encoder": encoder},
            "versions": {"dynacor_ray": __version__, "python": platform.python_version(), **versions},
        }
    )


def tie_encoder(run: Location, encoder: str) -> None:
    """Note which encoder made the features, weights included. Raises RunDirectoryError when it was another one."""
    held = _held(run)
    known = held["identity"].get("encoder")
    if known not in (None, encoder):
        got = f"{encoder}: its weights or an installed package changed"
        raise RunDirectoryError(
            expected_got(f"the encoder {known} that {run} was begun with", got, "choose another --out")
        )
    held["identity"]["encoder"] = encoder
    (run / CONFIG).write_json(held)


def versions(run: Location) -> dict[str, str]:
    """Versions of this package and of what it stands on, as of the last start."""
    found: dict[str, str] = _held(run)["versions"]
    return found


def fingerprint(run: Location) -> Any:
    """What the source said of its data when the run began."""
    return _held(run)["identity"]["data"]


def as_json(value: Any) -> Any:
    """A value as it comes back from a JSON file: tuples are lists."""
    return json.loads(json.dumps(value))


def _held(run: Location) -> dict[str, Any]:
    """config.json. Raises RunDirectoryError when it is none of ours."""
    try:
        held = (run / CONFIG).read_json()
    except StorageError as error:
        got = f"{run / CONFIG} that cannot be read"
        raise RunDirectoryError(expected_got("a run directory of dynacor", got, "choose another --out")) from error
    if not (isinstance(held, dict) and isinstance(held.get("identity"), dict) and "options" in held["identity"]):
        got = f"{run} with a {CONFIG} of another program"
        raise RunDirectoryError(expected_got("a new or empty run directory", got, "choose another --out"))
    return held


def finished_run(place: Location) -> Location:
    """The run directory itself, or that of a sweep's chosen run. Raises RunDirectoryError when it is not finished."""
    for run in (place, place / BEST):
        if (run / SUMMARY).exists() and (run / ISSUES).exists():
            return run
    got = f"{place} without {SUMMARY} and {ISSUES}" if place.exists() else f"no directory {place}"
    raise RunDirectoryError(
        expected_got("the directory of a finished run or sweep", got, "run dynacor detect to its end")
    )


def packed_name(run: Location, dataset: Location) -> str:
    """How `summary.json` names the packed data: below the run directory where it is, so that both may move."""
    return dataset.uri.removeprefix(run.uri + "/")


def packed_place(run: Location, name: str) -> Location:
    """Inverse of `packed_name`."""
    return locate(name) if "://" in name or name.startswith("/") else run / name
