"""The command line: `dynacor detect`, `doctor`, `sweep`, `compare`, and what is done with a finished run."""

from __future__ import annotations

import atexit
import gc
import inspect
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass
from typing import Any, Literal, NoReturn, get_type_hints

from rich.console import Console
from rich.text import Text

from dynacor_ray.config.analyze_signals import AnalyzeSignalsConfig
from dynacor_ray.config.command_line import CommandParser
from dynacor_ray.config.compare import CompareConfig
from dynacor_ray.config.detect import DetectConfig
from dynacor_ray.config.options import Checked, make_config, option, wrong_choice
from dynacor_ray.config.review import ReviewConfig
from dynacor_ray.config.sweep import SweepConfig
from dynacor_ray.config.train import TrainRunConfig
from dynacor_ray.core.errors import ConfigError, DynacorError, counted, expected_got
from dynacor_ray.core.redaction import redacted
from dynacor_ray.core.storage import locate
from dynacor_ray.core.streams import lasting_output
from dynacor_ray.core.version import __version__
from dynacor_ray.report.terminal import clean

BAD_INPUT = 2
"""Exit status when the message says what to correct."""


@dataclass(frozen=True, kw_only=True)
class DoctorConfig(Checked):
    """Options of `dynacor doctor`: those of the run, and what only its estimate needs."""

    detect: DetectConfig
    """The run that is looked at."""
    price_per_hour: float | None = option(None, "cluster", within="[0, inf)", hint="give what the cluster costs")
    """Price of the whole cluster per hour, in any currency, for an estimate of what the run costs."""


@dataclass(frozen=True, kw_only=True)
class _FinishedRun(Checked):
    """What every command on a finished run is told."""

    run: str = option(MISSING, "arguments", positional=True)
    """Directory of a finished `dynacor detect` or `dynacor sweep`."""
    data: str | None = option(None, "options")
    """Where the data are now, if they were moved since the run; they must be the same files."""


@dataclass(frozen=True, kw_only=True)
class ShowConfig(Checked):
    """Options of `dynacor show`."""

    run: str = option(MISSING, "arguments", positional=True)
    """Directory of a finished `dynacor detect`, `sweep`, `compare` or `analyze-signals`."""


@dataclass(frozen=True, kw_only=True)
class ReportConfig(_FinishedRun):
    """Options of `dynacor report`."""

    thumbnails: bool | None = option(None, "options")
    """Small copies of the images. Default: as the run was configured."""


@dataclass(frozen=True, kw_only=True)
class ExportConfig(_FinishedRun):
    """Options of `dynacor export`."""

    out: str = option(MISSING, "arguments", positional=True)
    """File to write: .csv or .parquet with cleanlab's column names, or .json with Label Studio tasks; or the folder of
    another --format."""
    format: Literal["csv", "parquet", "json", "label-studio", "fiftyone", "datumaro", "datasets"] | None = option(
        None, "options"
    )
    """What to write; `json`: rows instead of tasks; `fiftyone`, `datumaro`: a new folder that this tool imports;
    `datasets`: one that Hugging Face's `load_dataset` takes. Default: by the ending of the file."""
    flagged: bool = option(False, "options")
    """Only flagged rows; tasks are always of flagged rows."""
    limit: int | None = option(None, "options", within="[0, inf)")
    """Most rows, the most suspicious first."""
    prefix: str = option("", "options")
    """What Label Studio needs before each path, such as `/data/local-files/?d=images/`; the path is encoded for it."""


@dataclass(frozen=True, kw_only=True)
class CleanConfig(_FinishedRun):
    """Options of `dynacor clean`."""

    out: str = option(MISSING, "arguments", positional=True)
    """Where to write the copy; a log of the changes comes beside it."""
    drop: bool = option(False, "options")
    """Leave flagged rows out."""
    relabel: bool = option(False, "options")
    """Give rows that a person confirmed to be wrong the class that the person chose, else the suggested one."""
    all_flagged: bool = option(False, "options")
    """With --relabel: also flagged rows that nobody looked at."""
    marks: str | None = option(None, "options")
    """Answers as `dynacor review` takes them, beside those it has taken: rows marked wrong are changed, those marked
    right or unsure stay as they are."""
    hard_links: bool = option(False, "options")
    """Of an image folder: names for the same files instead of copies, which need no space."""


@dataclass(frozen=True, kw_only=True)
class CompletionConfig(Checked):
    """Options of `dynacor completion`."""

    shell: Literal["bash", "zsh", "fish"] = option(MISSING, "arguments", positional=True)
    """Shell that is to complete: bash, zsh or fish."""


# Each command: its help is the text of the function, its options are the parameter's class. What it does loads Ray or
# torch, which `dynacor --help` need not wait for.


def _detect(config: DetectConfig) -> None:
    """Find the wrong labels of a data set."""
    from dynacor_ray.workflows.detect import run_detect

    run_detect(config)


def _doctor(config: DoctorConfig) -> int:
    """Check data, encoder, storage and cluster before a run."""
    from dynacor_ray.workflows.doctor import run_doctor

    return 0 if run_doctor(config.detect, config.price_per_hour).ok else 1


def _sweep(config: SweepConfig) -> None:
    """Choose corruption rate and alignment weight without labels."""
    from dynacor_ray.workflows.sweep import run_sweep

    run_sweep(config)


def _compare(config: CompareConfig) -> None:
    """Compare detectors on data with known true labels."""
    from dynacor_ray.workflows.compare import run_compare

    run_compare(config)


def _analyze_signals(config: AnalyzeSignalsConfig) -> None:
    """Measure training signals and corruption rates by true labels."""
    from dynacor_ray.workflows.analyze_signals import run_analyze_signals

    run_analyze_signals(config)


def _train(config: TrainRunConfig) -> None:
    """Train a classifier in spite of wrong labels, and test it."""
    from dynacor_ray.workflows.train import run_train

    run_train(config)


def _show(config: ShowConfig) -> None:
    """Print the tables of a finished run again."""
    from dynacor_ray.workflows.show import show_run

    show_run(locate(config.run))


def _report(config: ReportConfig) -> None:
    """Make report.html of a finished run or sweep."""
    from dynacor_ray.report.build import make_report

    _bring_data(config)
    _say(f"Report: {make_report(locate(config.run), config.thumbnails)}")


def _bring_data(config: _FinishedRun) -> None:
    """Check moved data; without any the engine need not be loaded."""
    if config.data is not None:
        from dynacor_ray.workflows.moved_data import bring_data

        bring_data(locate(config.run), config.data)


def _export(config: ExportConfig) -> None:
    """Write a run's rows as a table or for another tool."""
    from dynacor_ray.export.tables import export_run

    _bring_data(config)
    run, out = locate(config.run), locate(config.out)
    rows = export_run(run, out, config.flagged, config.limit, config.prefix, config.format, config.data)
    _say(f"{counted(rows, 'row')} written to {config.out}")


def _review(config: ReviewConfig) -> None:
    """Ask a person about a sample, and use the answers."""
    from dynacor_ray.workflows.review import run_review

    _say(*run_review(config).sentences())


def _clean(config: CleanConfig) -> None:
    """Write a cleaned copy of the data: rows dropped or relabeled."""
    from dynacor_ray.export.cleaned_copy import clean_run
    from dynacor_ray.report.answers import read_answers
    from dynacor_ray.runs.directory import finished_run
    from dynacor_ray.runs.records import RunSummary

    if config.drop == config.relabel:
        got = "both" if config.drop else "neither"
        raise ConfigError(expected_got("--drop or --relabel", got, "say which of the two"))
    if config.all_flagged and config.drop:
        raise ConfigError(expected_got("--relabel for --all-flagged", "--drop", "--drop takes all flagged rows anyway"))
    run, answers = finished_run(locate(config.run)), None
    if config.marks:
        answers = read_answers(run, RunSummary.read(run).class_names, locate(config.marks))
    action: Literal["drop", "relabel"] = "drop" if config.drop else "relabel"
    done = clean_run(run, locate(config.out), action, answers, config.hard_links, config.all_flagged, config.data)
    did = "Left out" if config.drop else "Relabeled"
    _say(f"{did}: {done.changed:,}; flagged and kept: {done.left:,}. Copy: {config.out}", f"Changes: {done.log}")


def _completion(config: CompletionConfig) -> None:
    """Print a script that completes commands and options."""
    from dynacor_ray.config.completion import completion_script

    _say(*completion_script(config.shell, {name: config_class(name) for name in COMMANDS}).splitlines())


COMMANDS: dict[str, Callable[[Any], int | None]] = {
    "detect": _detect,
    "doctor": _doctor,
    "sweep": _sweep,
    "compare": _compare,
    "analyze-signals": _analyze_signals,
    "train": _train,
    "show": _show,
    "report": _report,
    "export": _export,
    "review": _review,
    "clean": _clean,
    "completion": _completion,
}


def main(argv: Sequence[str] | None = None, adjust: Callable[[Any], Any] = lambda config: config) -> NoReturn:
    """Run a command and leave with its exit status.

    0 done, 1 checks failed, 2 wrong input or a failed run, 130 stopped by Ctrl-C, 143 by SIGTERM.

    Args:
        argv: The words after `dynacor`. Default: those of this process.
        adjust: A job's last word on the options.
    """
    told: list[int] = []

    def leave(number: int, _frame: object) -> NoReturn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # some send it twice; the lock is given back all the same
        told.append(number)  # Ray makes a KeyboardInterrupt of its own of whatever is raised while it waits
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, leave)
    atexit.register(_end_soon)
    with lasting_output():
        try:
            raise SystemExit(_run(sys.argv[1:] if argv is None else argv, adjust))
        except DynacorError as error:
            _fail(str(error))
        except Exception as error:  # a traceback shows the texts of libraries
            raise redacted(error)  # noqa: B904
        except KeyboardInterrupt:
            how = "Told to end (SIGTERM)" if told else "Stopped"
            status = 128 + (signal.SIGTERM if told else signal.SIGINT)
            _fail(f"{how}. The same command resumes where it was.", status)


def _end_soon() -> None:
    """Keep Python from looking once more at every object of torch before it ends, which takes a second."""
    if "triton" not in sys.modules:  # it would print a page about what was left unseen; timm brings it
        gc.freeze()


def config_class(command: str) -> type[Any]:
    """The class of a command's options."""
    found: type[Any] = get_type_hints(COMMANDS[command])["config"]
    return found


def usage() -> str:
    """What `dynacor --help` prints."""
    commands = "\n".join(f"  {name:<15}  {inspect.getdoc(run)}" for name, run in COMMANDS.items())
    return f"""usage: dynacor COMMAND [OPTIONS]

Find wrong labels in large labeled data sets.

{commands}

`dynacor COMMAND --help` lists the options. Try: dynacor detect --data demo"""


def _run(args: Sequence[str], adjust: Callable[[Any], Any]) -> int:
    name, words = (args[0], args[1:]) if args else ("--help", ())
    if name in ("-h", "--help", "--version"):
        _say(*(f"dynacor_ray {__version__}" if name == "--version" else usage()).splitlines())
        return 0 if args else BAD_INPUT
    if name not in COMMANDS:
        raise wrong_choice("the command", name, [*COMMANDS, "--help", "--version"])
    run, kind = COMMANDS[name], config_class(name)
    parser = CommandParser(f"dynacor {name}", inspect.getdoc(run) or "", kind)
    if {"-h", "--help"} & set(words):
        _say(*parser.format_help().splitlines())
        return 0
    return run(adjust(make_config(kind, **parser.given(words)))) or 0


def _say(*lines: str) -> None:
    print(*map(clean, lines), sep="\n", flush=True)


def _fail(message: str, status: int = BAD_INPUT) -> NoReturn:
    lines = [clean(line) for line in f"dynacor: {message}".splitlines()]
    Console(stderr=True).print(Text("\n").join(lines), style="red", soft_wrap=True)
    raise SystemExit(status)
