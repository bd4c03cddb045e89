"""Progress of long stages: a bar on a terminal, a line now and then elsewhere, nothing when quiet."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.text import Text

from dynacor_ray.errors import printable

LINE_SECONDS = 15.0


class Stage:
    """One running stage; `advance` or `update` says how far it is."""

    def __init__(self, name: str, total: int, unit: str, console: Console | None, bars: Bars | None) -> None:
        self._name, self._total, self._unit = name, total, unit
        self._console, self._bars = console, bars
        self._task = bars.add_task(name, total=total, unit=unit) if bars else None
        self._start = self._last = time.monotonic()
        self.done = 0

    def advance(self, amount: int) -> None:
        """Add `amount` units."""
        self.update(self.done + amount)

    def update(self, done: int) -> None:
        """Say that `done` units are finished."""
        self.done = done
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, completed=done)
        elif self._console is not None and time.monotonic() - self._last >= LINE_SECONDS and done:
            self._last = time.monotonic()
            rate = done / (self._last - self._start)
            left = max(self._total - done, 0) / rate
            text = f"{self._name}: {done:,}/{self._total:,} {self._unit}, {rate:,.1f}/s, about {left:,.0f} s left"
            self._console.print(Text(text), soft_wrap=True)


class Progress:
    """Shows stages on stderr and keeps how long each took, in seconds, in `seconds`."""

    def __init__(self, quiet: bool = False) -> None:
        self.seconds: dict[str, float] = {}
        self._console = None if quiet else Console(stderr=True)

    @contextmanager
    def stage(self, name: str, total: int, unit: str) -> Iterator[Stage]:
        """Show one stage of `total` units while the block runs."""
        if self._console is not None and self._console.is_terminal:
            name_column, unit_column = TextColumn("{task.description:<10}"), TextColumn("{task.fields[unit]}")
            columns = (name_column, BarColumn(), MofNCompleteColumn(), unit_column, TimeRemainingColumn())
            with Bars(*columns, console=self._console) as bars:
                yield Stage(name, total, unit, self._console, bars)
        else:
            yield Stage(name, total, unit, self._console, None)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Add the time that the block takes to `seconds[name]`."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = round(self.seconds.get(name, 0.0) + time.monotonic() - start, 3)

    def say(self, text: str) -> None:
        """One line for the user, on stderr."""
        if self._console is not None:
            self._console.print(Text(printable(text)), soft_wrap=True)
