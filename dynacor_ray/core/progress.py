"""Progress of long stages: a bar on a terminal, a line now and then elsewhere, nothing when quiet."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, Task, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.text import Text

from dynacor_ray.core.errors import printable
from dynacor_ray.core.redaction import redact

LINE_SECONDS = 15.0
"""Minimum seconds between two lines of one stage."""
LINE_SHARE, MOST_LINE_SECONDS = 0.25, 300.0
"""The interval between lines grows to this share of the stage's running time, up to 5 minutes."""


class _Amount(ProgressColumn):
    """Units done, total and rate."""

    def render(self, task: Task) -> Text:
        if task.total is None:
            return Text("")
        speed = task.finished_speed or task.speed
        rate = f", {_rate(speed)}/s" if speed else ""
        return Text(f"{int(task.completed):,}/{int(task.total):,} {task.fields['unit']}{rate}")


class Stage:
    """One running stage, moved on by `advance` or `update`.

    Args:
        name: shown to the user.
        total: number of units, None if unknown.
        unit: plural name of a unit.
        console: where to print, None for nowhere.
        bars: the progress bar, None to print lines.
        before: units finished before the stage began, which do not count toward its rate.
    """

    def __init__(
        self, name: str, total: int | None, unit: str, console: Console | None, bars: Bars | None, before: int = 0
    ) -> None:
        self._name, self._total, self._unit, self._before = name, total, unit, before
        self._console, self._bars = console, bars
        self._task = bars.add_task(name, total=total, completed=before, unit=unit) if bars else None
        self._start = self._last = time.monotonic()
        self.done = before

    def advance(self, amount: int) -> None:
        """Add `amount` units."""
        self.update(self.done + amount)

    def update(self, done: int) -> None:
        """Set the number of finished units to `done`."""
        self.done = done
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, completed=done)
        elif self._console is not None and self._total is not None and done > self._before and self._is_due():
            self._last = time.monotonic()
            rate = (done - self._before) / (self._last - self._start)
            left = max(self._total - done, 0) / rate
            text = f"{self._name}: {done:,}/{self._total:,} {self._unit}, {_rate(rate)}/s, about {left:,.0f} s left"
            self._console.print(Text(text), soft_wrap=True)

    def _is_due(self) -> bool:
        now = time.monotonic()
        interval = min(max(LINE_SECONDS, LINE_SHARE * (now - self._start)), MOST_LINE_SECONDS)
        return now - self._last >= interval


def _rate(rate: float) -> str:
    """Units per second.

    >>> [_rate(rate) for rate in (12345.6, 3.21, 0.049)]
    ['12,346', '3.2', '0.049']
    """
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.1f}" if rate >= 1 else f"{rate:.2g}"


class Progress:
    """Shows stages on stderr, and adds up in `seconds` how long each took."""

    def __init__(self, quiet: bool = False) -> None:
        self.seconds: dict[str, float] = {}
        self.processor_seconds: dict[str, float] = {}
        """Of work that several processors share, by its name."""
        self._console = None if quiet else Console(stderr=True)

    @contextmanager
    def stage(self, name: str, total: int | None, unit: str, before: int = 0) -> Iterator[Stage]:
        """Show one stage while the block runs; arguments as in `Stage`.

        A bar is drawn only on an interactive terminal: not in a pipe, a file or a notebook, nor where CI is set.
        """
        if self._console is not None and self._console.is_interactive and not os.environ.get("CI"):
            times = (TimeElapsedColumn(), TimeRemainingColumn())
            columns = (TextColumn("{task.description:<10}"), BarColumn(20), _Amount(), *times)
            with Bars(*columns, console=self._console) as bars:
                yield Stage(name, total, unit, self._console, bars, before)
        else:
            yield Stage(name, total, unit, self._console, None, before)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Add the duration of the block to `seconds[name]`."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = round(self.seconds.get(name, 0.0) + time.monotonic() - start, 3)

    def worked(self, name: str, seconds: float) -> None:
        """Add to `processor_seconds[name]`."""
        self.processor_seconds[name] = round(self.processor_seconds.get(name, 0.0) + seconds, 3)

    def say(self, text: str) -> None:
        """Print one line for the user on stderr."""
        if self._console is not None:
            self._console.print(Text(printable(redact(text))), soft_wrap=True)
