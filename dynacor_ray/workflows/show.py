"""The tables of a finished run, as they stood on the terminal at its end."""

from __future__ import annotations

from rich.console import Console

from dynacor_ray.core.storage import Location
from dynacor_ray.core.table_files import first_rows
from dynacor_ray.report.comparison_table import print_comparison
from dynacor_ray.report.reviews import review_sentences
from dynacor_ray.report.sweep import print_sweep
from dynacor_ray.report.terminal import clean, print_summary
from dynacor_ray.report.training_summary import print_training
from dynacor_ray.runs.audit import issues_in_use, read_review
from dynacor_ray.runs.directory import COMPARISON, MODEL, SIGNAL_ANALYSIS, SUMMARY, TRIALS, finished_run
from dynacor_ray.runs.records import RunSummary
from dynacor_ray.workflows.results import WORST


def show_run(run: Location, console: Console | None = None) -> None:
    """Print the tables of a finished run of detect, train, sweep, compare or analyze-signals; starts nothing.

    Of a run that a person reviewed, the tables hold what follows from the answers.

    Args:
        run: The run's directory.
        console: Where to print, None for stdout.

    Raises:
        RunDirectoryError: The run is not finished.
    """
    if (run / SUMMARY).exists():
        if (run / TRIALS).exists():
            return print_sweep((run / SUMMARY).read_json(), (run / TRIALS).read_table().to_pylist(), str(run), console)
        if (run / COMPARISON).exists():
            return print_comparison((run / SUMMARY).read_json(), str(run), console)
        if (run / SIGNAL_ANALYSIS).exists():
            from dynacor_ray.report.signal_analysis import NOTE  # it brings torch

            return print_comparison((run / SUMMARY).read_json(), str(run), console, SIGNAL_ANALYSIS.split(".")[0], NOTE)
        if (run / MODEL).exists():
            return print_training((run / SUMMARY).read_json(), str(run), console)
    run, console = finished_run(run), console or Console()
    summary, review = RunSummary.read(run), read_review(run)
    worst = first_rows(issues_in_use(run), WORST).to_pylist()
    print_summary(summary if review is None else review.revise(summary), worst, str(run), console)
    for sentence in [] if review is None else review_sentences(review, summary):
        console.print(clean(sentence), soft_wrap=True)
