"""The command line: `dynacor detect`, `doctor`, `sweep`, `compare`, and what is done with a finished run."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import tyro
from rich.console import Console
from rich.text import Text

from dynacor_ray.config.analyze_signals import AnalyzeSignalsConfig
from dynacor_ray.config.compare import CompareConfig
from dynacor_ray.config.detect import DetectConfig
from dynacor_ray.config.recipes import recipe_options
from dynacor_ray.config.sweep import SweepConfig
from dynacor_ray.core.errors import ConfigError, DynacorError, expected_got
from dynacor_ray.core.storage import locate
from dynacor_ray.core.version import __version__
from dynacor_ray.report.terminal import clean

COMMANDS = {
    "detect": "find the wrong labels of a data set",
    "doctor": "check data, encoder, storage and cluster, and say what `detect` would do",
    "sweep": "try corruption rates and alignment weights, and choose among them without labels",
    "compare": "compare detectors on data with known true labels, as given or with noise made from them",
    "analyze-signals": "say what training signals and corruption rates are worth, bounded by known true labels",
    "report": "make report.html of a finished run or sweep",
    "export": "write the rows of a finished run as CSV, parquet, Label Studio tasks or for FiftyOne",
    "review": "measure the precision of a finished run with a person's marks",
    "apply": "write a copy of the data without the flagged rows, or with their suggested labels",
}
_SWITCHES = {f"--{no}thumbnails": ["--thumbnails", str(not no)] for no in ("", "no-")}
"""tyro makes a switch of a bool only if it has two values; this one has a default that depends on the data."""
BAD_INPUT = 2
"""Exit status when the message says what to correct."""


class _Unchecked(DetectConfig):
    """The options before they are checked: tyro would put the message of a failed check into a frame, and cut it up."""

    def __post_init__(self) -> None:
        pass


@dataclass(frozen=True, kw_only=True)
class _UncheckedDoctor(_Unchecked):
    """The options of a run, and what only its estimate needs."""

    price_per_hour: float | None = None
    """Price of the whole cluster per hour, in any currency, for an estimate of what the run costs."""


@dataclass(frozen=True, kw_only=True)
class _UncheckedSweep(SweepConfig):
    """The same for a sweep."""

    detect: tyro.conf.OmitArgPrefixes[_Unchecked]

    def __post_init__(self) -> None:
        pass


@dataclass(frozen=True, kw_only=True)
class _UncheckedCompare(CompareConfig):
    """The same for a comparison."""

    detect: tyro.conf.OmitArgPrefixes[_Unchecked]

    def __post_init__(self) -> None:
        pass


@dataclass(frozen=True, kw_only=True)
class _UncheckedAnalyzeSignals(AnalyzeSignalsConfig):
    """The same for an analysis of signals."""

    detect: tyro.conf.OmitArgPrefixes[_Unchecked]

    def __post_init__(self) -> None:
        pass


@dataclass(frozen=True, kw_only=True)
class _Report:
    """Options of `dynacor report`."""

    run: tyro.conf.Positional[str]
    """Directory of a finished `dynacor detect` or `dynacor sweep`."""
    thumbnails: bool | None = None
    """Small copies of the images: `--thumbnails` or `--no-thumbnails`. Default: as the run was configured."""


@dataclass(frozen=True, kw_only=True)
class _Export:
    """Options of `dynacor export`."""

    run: tyro.conf.Positional[str]
    """Directory of a finished `dynacor detect` or `dynacor sweep`."""
    out: tyro.conf.Positional[str]
    """File to write: .csv or .parquet with cleanlab's column names, or .json with Label Studio tasks; or the folder of
    another --format."""
    format: Literal["csv", "parquet", "label-studio", "fiftyone"] | None = None
    """What to write; `fiftyone`: a new folder that FiftyOne imports. Default: by the ending of the file."""
    flagged: bool = False
    """Only flagged rows; tasks are always of flagged rows."""
    limit: int | None = None
    """Most rows, the most suspicious first."""
    prefix: str = ""
    """What Label Studio needs before each path, such as `/data/local-files/?d=images/`."""


@dataclass(frozen=True, kw_only=True)
class _Review:
    """Options of `dynacor review`."""

    run: tyro.conf.Positional[str]
    """Directory of a finished `dynacor detect` or `dynacor sweep`."""
    marks: tyro.conf.Positional[str]
    """CSV with the columns instance_id and mark (wrong, right or unsure), as the report saves it."""


@dataclass(frozen=True, kw_only=True)
class _Apply:
    """Options of `dynacor apply`."""

    run: tyro.conf.Positional[str]
    """Directory of a finished `dynacor detect` or `dynacor sweep`."""
    out: tyro.conf.Positional[str]
    """Where to write the copy; a log of the changes comes beside it."""
    drop: bool = False
    """Leave flagged rows out."""
    relabel: bool = False
    """Give flagged rows their suggested label."""
    marks: str | None = None
    """CSV of marks: rows marked right or unsure stay as they are."""
    hard_links: bool = False
    """Of an image folder: names for the same files instead of copies, which need no space."""


_UNCHECKED: dict[str, type[Any]] = {
    "doctor": _UncheckedDoctor,
    "sweep": _UncheckedSweep,
    "compare": _UncheckedCompare,
    "analyze-signals": _UncheckedAnalyzeSignals,
}


def main(argv: Sequence[str] | None = None, adjust: Callable[[DetectConfig], DetectConfig] = lambda c: c) -> None:
    """Run a command and leave with its exit status: 0 done, 1 checks failed, 2 wrong input or a failed run.

    `adjust`: a job's last word on the options.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    if not args or args[0] in ("-h", "--help"):
        print(usage())
        raise SystemExit(0 if args else BAD_INPUT)
    if args[0] == "--version":
        print(f"dynacor_ray {__version__}")
        raise SystemExit(0)
    if args[0] not in COMMANDS:
        close = difflib.get_close_matches(args[0], COMMANDS, n=1)
        remedy = f"perhaps {close[0]!r} is meant" if close else "see dynacor --help"
        _fail(expected_got(f"a command, one of {', '.join(COMMANDS)}", repr(args[0]), remedy))
    try:
        raise SystemExit(_run(args[0], args[1:], adjust))
    except DynacorError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        _fail("Stopped. The same command resumes where it was.", 130)


def usage() -> str:
    """What `dynacor --help` prints."""
    commands = "\n".join(f"  {name:<8} {text}" for name, text in COMMANDS.items())
    return f"""usage: dynacor COMMAND [OPTIONS]

Find wrong labels in large labeled data sets.

{commands}

`dynacor COMMAND --help` lists the options. Try: dynacor detect --data demo"""


def _run(command: str, args: Sequence[str], adjust: Callable[[DetectConfig], DetectConfig]) -> int:
    args = _recipe_words(args) + [word for arg in args for word in _SWITCHES.get(arg, [arg])]
    if command in _AFTERWARDS:
        options, act = _AFTERWARDS[command]
        asked = tyro.cli(options, prog=f"dynacor {command}", description=COMMANDS[command], args=args)
        for line in act(asked):
            print(clean(line))
        return 0
    parsed: Any = tyro.cli(
        _UNCHECKED.get(command, _Unchecked), prog=f"dynacor {command}", description=COMMANDS[command], args=args
    )
    options = dict(vars(getattr(parsed, "detect", parsed)))
    price_per_hour = options.pop("price_per_hour", None)
    config = adjust(DetectConfig(**options))
    if command == "sweep":
        from dynacor_ray.workflows.sweep import run_sweep

        run_sweep(SweepConfig(**vars(parsed) | {"detect": config}))
        return 0
    if command == "compare":
        from dynacor_ray.workflows.compare import run_compare

        run_compare(CompareConfig(**vars(parsed) | {"detect": config}))
        return 0
    if command == "analyze-signals":
        from dynacor_ray.workflows.analyze_signals import run_analyze_signals

        run_analyze_signals(AnalyzeSignalsConfig(**vars(parsed) | {"detect": config}))
        return 0
    if command == "detect":
        from dynacor_ray.workflows.detect import run_detect

        run_detect(config)
        return 0
    from dynacor_ray.workflows.doctor import run_doctor

    return 0 if run_doctor(config, price_per_hour).ok else 1


def _recipe_words(args: Sequence[str]) -> list[str]:
    """The options of a named recipe as words: put before the user's own, which win."""
    pairs = zip([*args, ""], [*args[1:], "", ""], strict=True)
    named = [after for word, after in pairs if word == "--recipe"]
    named += [word.removeprefix("--recipe=") for word in args if word.startswith("--recipe=")]
    words: list[str] = []
    for name, value in (recipe_options(named[-1]) if named else {}).items():
        values = value if isinstance(value, tuple) else (value,)
        words += ["--" + name.replace("_", "-"), *map(str, values)]
    return words


def _report(asked: _Report) -> list[str]:
    from dynacor_ray.report.build import make_report

    return [f"Report: {make_report(locate(asked.run), asked.thumbnails)}"]


def _export(asked: _Export) -> list[str]:
    from dynacor_ray.export.tables import export_run

    run, out = locate(asked.run), locate(asked.out)
    rows = export_run(run, out, asked.flagged, asked.limit, asked.prefix, asked.format)
    return [f"{rows:,} rows written to {asked.out}"]


def _review(asked: _Review) -> list[str]:
    from dynacor_ray.report.reviews import review_run, review_sentences

    return review_sentences(review_run(locate(asked.run), locate(asked.marks)))


def _apply(asked: _Apply) -> list[str]:
    from dynacor_ray.export.cleaned_copy import apply_run
    from dynacor_ray.report.reviews import read_marks

    if asked.drop == asked.relabel:
        got = "both" if asked.drop else "neither"
        raise ConfigError(expected_got("--drop or --relabel", got, "say which of the two"))
    marks = read_marks(locate(asked.marks)) if asked.marks else None
    action: Literal["drop", "relabel"] = "drop" if asked.drop else "relabel"
    done = apply_run(locate(asked.run), locate(asked.out), action, marks, asked.hard_links)
    did = "left out" if asked.drop else "relabeled"
    return [f"{done.changed:,} rows {did}, {done.left:,} flagged rows stay: {asked.out}", f"Changes: {done.log}"]


_AFTERWARDS: dict[str, tuple[Any, Callable[[Any], list[str]]]] = {
    "report": (_Report, _report),
    "export": (_Export, _export),
    "review": (_Review, _review),
    "apply": (_Apply, _apply),
}


def _fail(message: str, status: int = BAD_INPUT) -> None:
    lines = [clean(line) for line in f"dynacor: {message}".splitlines()]
    Console(stderr=True).print(Text("\n").join(lines), style="red", soft_wrap=True)
    raise SystemExit(status)
