"""What fills a run directory, and the one way in which that is done: once, by one driver, and resumed by the same."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import ExitStack
from typing import Generic, TypeVar

from dynacor_ray.core.leftovers import no_empty_folders
from dynacor_ray.core.progress import Progress
from dynacor_ray.core.storage import Location
from dynacor_ray.runs.lock import run_lock

Made = TypeVar("Made")
Result = TypeVar("Result")


class ResumableRun(ABC, Generic[Made, Result]):
    """A checked configuration with everything opened that can be opened without work, and what is to be done."""

    run: Location
    """The run directory."""

    @abstractmethod
    def finished(self) -> Result | None:
        """The result, when just this was completed here before."""

    @abstractmethod
    def execute(self, progress: Progress) -> Made:
        """All work but the writing of the last files; goes on where an earlier driver was stopped."""

    @abstractmethod
    def release_if_empty(self) -> None:
        """After a failure before any training: leave the directory free for the corrected command."""

    @abstractmethod
    def write(self, made: Made, seconds: dict[str, float]) -> Result:
        """Write the last files, and last of all `summary.json`: its presence says that the run is complete.

        seconds: spent per stage.
        """

    def on_already_complete(self, result: Result) -> None:
        """Called when there was nothing to do: put back what can be made anew at no cost."""


def run_once(plan: Callable[[], ResumableRun[Made, Result]], progress: Progress) -> Result:
    """The result of a run: from its directory when it is complete there, else by the work of this driver.

    Args:
        plan: Checks the configuration and opens what can be opened without work.
        progress: Where the stages are timed and shown.

    Raises:
        RunDirectoryError: A living driver holds the directory, or took it.
    """
    with ExitStack() as holding:
        with progress.timed("total"):
            with progress.timed("start"):
                planned = plan()
                result = planned.finished()
                if result is None:
                    holding.enter_context(no_empty_folders(planned.run))
                    check_held = holding.enter_context(run_lock(planned.run, progress))
                    result = planned.finished()  # another driver may have held it until now
            if result is None:
                try:
                    made = planned.execute(progress)
                except BaseException:
                    planned.release_if_empty()
                    raise
        if result is None:
            check_held()
            return planned.write(made, dict(progress.seconds))
        progress.say(f"{planned.run} is complete: nothing to do. Choose another --out to run again.")
        planned.on_already_complete(result)
        return result
