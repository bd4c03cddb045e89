"""The run directory: tied to one configuration, resumed by the same, refused to any other."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from typing import Any

from dynacor_ray.core.errors import RunDirectoryError, StorageError, closest, expected_got
from dynacor_ray.core.redaction import redact_all
from dynacor_ray.core.storage import PART, Location, locate
from dynacor_ray.core.table_files import has_table
from dynacor_ray.core.version import __version__
from dynacor_ray.runs.lock import is_lock

CONFIG, SUMMARY, REPORT = "config.json", "summary.json", "report.html"
AUDIT, REVIEW, REVIEWED = "audit.json", "review.json", "reviewed_issues.parquet"
ISSUES, DYNAMICS, QUARANTINE = "issues.parquet", "dynamics.parquet", "quarantine.parquet"
INDEX = "index.parquet"
CELLS, COMPARISON, SIGNAL_ANALYSIS = "cells", "comparison.parquet", "signal_analysis.parquet"
MODEL, PREDICTIONS, EVENTS = "model", "predictions.parquet", "tensorboard"
TRIALS, HEAT_MAP, BEST, TRAININGS = "trials.parquet", "heatmap.png", "best", "trainings"


def check(run: Location, identity: dict[str, Any]) -> None:
    """Raise RunDirectoryError unless the directory is new, empty, or was begun with the same identity.

    identity: {"options": ..., "data": fingerprint, "place": path or URI}; what the outputs depend on, as JSON knows it.
        The place may change: data are the same wherever they lie.
    """
    if not (run / CONFIG).exists():
        others = [name for name in run.names() if not (name == "cache" or name.endswith(PART) or is_lock(name))]
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
    places = [one.get("place") for one in (held, now)]
    if not details and places[0] == places[1]:
        details = ["the data changed since that run began"]
    elif held["data"] != now["data"]:
        remedy = "of moved data names, sizes and times must be the same (mv, cp -p, rsync -a)"
        details.append(f"other data: data={places[0]!r} there, {places[1]!r} here")
        raise RunDirectoryError(
            expected_got(f"what {run} was begun with", "; ".join(details), f"choose another --out; {remedy}")
        )
    got = "; ".join(details)
    raise RunDirectoryError(expected_got(f"the configuration that {run} was begun with", got, "choose another --out"))


def claim(run: Location, identity: dict[str, Any], config: dict[str, Any]) -> None:
    """Write config.json, which ties the directory to this configuration; what it says of the encoder stays.

    Half-written files of a driver that was killed are removed.
    """
    run.make_dir()
    for name in run.names():
        if name.endswith(PART):
            (run / name).delete()
    encoder, reason = tied_encoder(run) if (run / CONFIG).exists() else (None, None)
    names = ("ray", "torch", "numpy", "pyarrow")
    versions = {name: importlib.metadata.version(name) for name in names}
    (run / CONFIG).write_json(
        {
            "config": redact_all(as_json(config)),
            "identity": as_json(identity) | {"encoder": encoder},
            "encoder_reason": reason,
            "versions": {"dynacor_ray": __version__, "python": platform.python_version(), **versions},
        }
    )


def tie_encoder(run: Location, encoder: str, reason: str | None = None) -> None:
    """Note which encoder made the features, weights and back end included, and why this one.

    Raises RunDirectoryError when it was another one.
    """
    held = _held(run)
    known = held["identity"].get("encoder")
    if known not in (None, encoder):
        got = f"{encoder}: its weights, an installed package or the use of a GPU changed"
        raise RunDirectoryError(
            expected_got(f"the encoder {known} that {run} was begun with", got, "choose another --out")
        )
    held["identity"]["encoder"] = encoder
    (run / CONFIG).write_json(held | {"encoder_reason": reason})


def tied_encoder(run: Location) -> tuple[str | None, str | None]:
    """What `tie_encoder` noted; None each before."""
    held = _held(run)
    return held["identity"].get("encoder"), held.get("encoder_reason")


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
    if (place / MODEL).exists():  # what its issues.parquet says was made in another way
        got, remedy = f"a training, {place}", "name a run of dynacor detect"
        raise RunDirectoryError(expected_got("the directory of a finished run or sweep", got, remedy))
    for run in (place, place / BEST):
        if (run / SUMMARY).exists() and has_table(run / ISSUES):
            return run
    got = f"{place} without {SUMMARY} and {ISSUES}" if place.exists() else f"no directory {place}"
    raise RunDirectoryError(expected_got("the directory of a finished run or sweep", got, _near(place)))


def _near(place: Location) -> str:
    """What to do where no finished run is: runs inside, or of a similar name."""
    inside = [name for name in place.names() if (place / name / SUMMARY).exists()] if place.is_dir() else []
    if inside:
        return f"name one of the runs in it: {', '.join(inside[:5])}"
    beside, name = place.parent, place.path.rpartition("/")[2]
    near = None if place.exists() else closest(name, [other for other in beside.names() if other != name])
    return f"perhaps {beside / near} is meant" if near else "run dynacor detect to its end"


def packed_name(run: Location, dataset: Location) -> str:
    """How `summary.json` names the packed data: below the run directory where it is, so that both may move."""
    inside = dataset.filesystem.equals(run.filesystem) and dataset.path.startswith(run.path + "/")
    return dataset.path[len(run.path) + 1 :] if inside else str(dataset)


def packed_place(run: Location, name: str) -> Location:
    """Inverse of `packed_name`."""
    return locate(name) if "://" in name or name.startswith("/") else run / name
