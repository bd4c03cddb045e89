from __future__ import annotations

import io
import itertools
import re
from collections.abc import Callable

import pytest
from rich.console import Console

from dynacor_ray.core import progress as module
from dynacor_ray.core.progress import LINE_SECONDS, MOST_LINE_SECONDS, Progress


@pytest.fixture
def wait(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """A clock that moves when told."""
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])

    def forward(seconds: float) -> None:
        now[0] += seconds

    return forward


def test_quiet_says_nothing(wait: Callable[[float], None], capfd: pytest.CaptureFixture[str]) -> None:
    progress = Progress(quiet=True)
    progress.say("hello")
    with progress.stage("train", 10, "epochs") as stage:
        wait(100)
        stage.advance(1)
    assert stage.done == 1
    assert capfd.readouterr() == ("", "")


def test_lines_now_and_then(wait: Callable[[float], None], capsys: pytest.CaptureFixture[str]) -> None:
    with Progress().stage("embed", 10_000, "images") as stage:
        stage.advance(100)
        wait(LINE_SECONDS - 0.5)
        stage.advance(100)
        assert capsys.readouterr().err == ""
        wait(0.5)
        stage.advance(1300)
        # 1,500 in 15 s
        assert capsys.readouterr().err == "embed: 1,500/10,000 images, 100/s, about 85 s left\n"
        wait(LINE_SECONDS - 1)
        stage.update(2000)
        assert capsys.readouterr().err == ""
        wait(1)
        stage.update(12_000)
        assert capsys.readouterr().err == "embed: 12,000/10,000 images, 400/s, about 0 s left\n"
    assert capsys.readouterr().out == ""


def test_what_was_done_before_says_nothing_of_the_speed(
    wait: Callable[[float], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """A resumed training: 1,500 of 10,000 rows in 15 s, after 7,000."""
    with Progress().stage("train", 10_000, "rows", before=7000) as stage:
        wait(LINE_SECONDS)
        stage.update(7000)
        assert capsys.readouterr().err == ""
        stage.update(8500)
        assert capsys.readouterr().err == "train: 8,500/10,000 rows, 100/s, about 15 s left\n"


def test_nothing_done_is_no_line(wait: Callable[[float], None], capsys: pytest.CaptureFixture[str]) -> None:
    with Progress().stage("train", 10, "epochs") as stage:
        wait(2 * LINE_SECONDS)
        stage.update(0)
        assert capsys.readouterr().err == ""
        stage.update(1)
        assert "train: 1/10 epochs, 0.033/s, about 270 s left" in capsys.readouterr().err


def test_a_line_stays_one_line(wait: Callable[[float], None], capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress()
    with progress.stage("a stage of many words", 10**12, "[bold]images[/bold] or so") as stage:
        wait(LINE_SECONDS)
        stage.update(15 * 10**9)
    line = "a stage of many words: 15,000,000,000/1,000,000,000,000 [bold]images[/bold] or so, 1,000,000,000/s, "
    assert capsys.readouterr().err == line + "about 985 s left\n"
    progress.say("/a:key:b/[red]" + "long/" * 40)
    assert capsys.readouterr().err == "/a:key:b/[red]" + "long/" * 40 + "\n"


def test_the_longer_a_stage_takes_the_fewer_its_lines(
    wait: Callable[[float], None], capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress().stage("embed", 10**6, "images") as stage:
        for _ in range(4 * 3600):
            wait(1)
            stage.advance(1)
    said = [int(line.split()[1].partition("/")[0].replace(",", "")) for line in capsys.readouterr().err.splitlines()]
    gaps = [later - earlier for earlier, later in itertools.pairwise([0, *said])]
    assert gaps[:4] == [15, 15, 15, 15]
    assert gaps == sorted(gaps)
    assert max(gaps) == MOST_LINE_SECONDS
    assert len(said) < 80


@pytest.fixture
def terminal() -> tuple[Progress, io.StringIO]:
    progress, stream = Progress(), io.StringIO()
    progress._console = Console(file=stream, force_terminal=True, force_interactive=True, width=100)
    return progress, stream


def test_a_bar_on_a_terminal(terminal: tuple[Progress, io.StringIO], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    progress, stream = terminal
    with progress.stage("embed", 4000, "images") as stage:
        stage.advance(3000)
        stage.advance(1000)
    last = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue()).strip().splitlines()[-1]
    assert re.search(r"4,000/4,000 images, [0-9,.]+/s 0:00:0\d 0:00:00", last), last
    with progress.stage("cluster", None, "rows"):
        pass
    assert "cluster" in stream.getvalue()


def test_no_bar_in_ci(
    terminal: tuple[Progress, io.StringIO], wait: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI", "true")
    progress, stream = terminal
    with progress.stage("embed", 40, "images") as stage:
        stage.advance(10)
        assert stream.getvalue() == ""
        wait(LINE_SECONDS)
        stage.advance(10)
    with progress.stage("cluster", None, "rows") as stage:
        wait(LINE_SECONDS)
        stage.advance(10)
    assert "".join(stream.getvalue().split("\x1b[0m")).count("\n") == 1


def test_seconds_add_up_also_after_a_failure(wait: Callable[[float], None]) -> None:
    progress = Progress(quiet=True)

    def fail() -> None:
        with progress.timed("start"):
            wait(0.5)
            raise RuntimeError

    with progress.timed("total"), progress.timed("start"):
        wait(1.25)
    with pytest.raises(RuntimeError):
        fail()
    assert progress.seconds == {"start": 1.75, "total": 1.25}


def test_lines_of_progress_are_printable(capsys: pytest.CaptureFixture[str]) -> None:
    Progress().say("12 rows quarantined; see /runs/\x1b[31mred[bold]:smile:")
    assert capsys.readouterr().err == "12 rows quarantined; see /runs/\\x1b[31mred[bold]:smile:\n"
