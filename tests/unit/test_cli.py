"""The command line: exit statuses, and errors on stderr in one piece."""

from __future__ import annotations

import gc
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import dynacor_ray
from dynacor_ray import cli
from dynacor_ray.config.detect import DetectConfig
from dynacor_ray.config.options import all_options, make_config
from dynacor_ray.core.errors import DataError, StorageError
from dynacor_ray.detectors.registry import DETECTORS
from dynacor_ray.method.signals import SIGNALS
from dynacor_ray.report import build as reports
from dynacor_ray.workflows import detect as pipeline
from dynacor_ray.workflows import doctor as checks
from tests.made_runs import make_run


@pytest.fixture
def configs(monkeypatch: pytest.MonkeyPatch) -> list[DetectConfig]:
    """What `detect` would be run with."""
    seen: list[DetectConfig] = []
    monkeypatch.setattr(pipeline, "run_detect", seen.append)
    return seen


def status_of(*args: str) -> Any:
    with pytest.raises(SystemExit) as left:
        cli.main(args)
    return left.value.code


def help_of(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert status_of(command, "--help") == 0
    return capsys.readouterr().out


def raising(error: BaseException) -> Any:
    def run(_: DetectConfig) -> None:
        raise error

    return run


def test_no_arguments_show_the_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of() == 2
    said = capsys.readouterr().out
    assert all(command in said for command in ("usage: dynacor", "detect", "doctor"))


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(flag) == 0
    said = capsys.readouterr().out
    assert said.startswith("usage: dynacor COMMAND")
    assert max(map(len, said.splitlines())) <= 80


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of("--version") == 0
    assert capsys.readouterr().out == f"dynacor_ray {dynacor_ray.__version__}\n"


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_help_of_a_command_explains_every_option(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    said = help_of(command, capsys)
    assert said.startswith(f"usage: dynacor {command} ")
    assert max(map(len, said.splitlines())) <= 80
    for one in all_options(cli.config_class(command)).values():
        (place,) = re.findall(rf"^  {one.flag}(?![\w-])", said, re.MULTILINE)
        assert place


def test_help_shows_what_most_people_need_first_and_the_rest_by_groups(capsys: pytest.CaptureFixture[str]) -> None:
    said = help_of("detect", capsys)
    assert re.findall(r"^([a-z ]+):$", said, re.MULTILINE) == [
        *("most used", "data", "encoder", "corruption", "training", "decision", "clustering", "cluster", "output")
    ]
    first = said[: said.index("\ndata:\n")]
    names = ("data", "label-column", "encoder", "gamma", "epochs", "seed", "workers", "gpu", "cluster", "out")
    assert re.findall(r"^  --([a-z-]+)", first, re.MULTILINE) == list(names)
    assert re.findall(r"^([a-z ]+):$", help_of("sweep", capsys), re.MULTILINE)[:3] == ["most used", "sweep", "data"]


def test_help_tells_defaults_choices_and_limits(capsys: pytest.CaptureFixture[str]) -> None:
    said = " ".join(help_of("sweep", capsys).split())
    assert "--gpu {auto,yes,no} Use GPUs" in said
    assert "mislabeled copy. Range: (0, 1]. (default: 0.1)" in said
    assert "--alphas FLOAT [FLOAT ...] Weights of the alignment loss" in said
    assert "no more than it takes to catch 98% of the planted errors" in said
    assert "at each milestone. Only with --lr-schedule multistep. Range: (0, 1]. (default: 0.1)" in said


@pytest.mark.parametrize(("command", "names"), [("compare", DETECTORS), ("analyze-signals", SIGNALS)])
def test_help_names_every_detector_and_signal(
    command: str, names: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    said = help_of(command, capsys)
    assert not [name for name in names if f"`{name}`" not in said]


def test_help_is_quick_and_may_be_cut_off() -> None:
    code = (
        "import sys; from dynacor_ray.cli import main\n"
        "try: main(['compare', '--help'])\n"
        "finally: sys.stderr.write(str([m for m in ('torch', 'ray', 'sklearn', 'scipy') if m in sys.modules]))"
    )
    done = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert done.stdout is not None
    assert done.stderr is not None
    done.stdout.close()  # as `head` does when it has seen enough
    with done.stderr:
        assert done.stderr.read() == "[]"
    assert done.wait(60) == 0


@pytest.mark.parametrize("held", [True, False])
def test_a_command_ends_without_a_page_about_triton(held: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frozen, its objects would be reported as leaked; without it, a second is spared."""
    monkeypatch.delitem(sys.modules, "triton", raising=False)
    if held:
        monkeypatch.setitem(sys.modules, "triton", ModuleType("triton"))
    before = gc.get_freeze_count()
    cli._end_soon()
    assert (gc.get_freeze_count() > before) is not held
    gc.unfreeze()


def test_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of("detct", "--data", "demo") == 2
    told = capsys.readouterr().err
    assert told.startswith(
        f"dynacor: Expected the command to be one of {', '.join(cli.COMMANDS)}, --help, --version, but"
    )
    assert told.endswith("perhaps 'detect' is meant.\n")
    assert status_of("help") == 2
    assert capsys.readouterr().err.endswith("perhaps '--help' is meant.\n")
    assert status_of("Analyze_Signals") == 2
    assert capsys.readouterr().err.endswith("perhaps 'analyze-signals' is meant.\n")
    assert status_of("xyz") == 2
    assert capsys.readouterr().err.endswith("; choose one of these.\n")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--gama 0.2", "a known option, but got '--gama'; perhaps '--gamma' is meant.\n"),
        ("--gama=0.2", "a known option, but got '--gama'; perhaps '--gamma' is meant."),
        ("more", "a known option, but got 'more'; valid options: --data, "),
        ("--no-thumbnail", "but got '--no-thumbnail'; perhaps '--no-thumbnails' is meant."),
        ("--GPU yes", "a known option, but got '--GPU'; perhaps '--gpu' is meant."),
        ("--learning_rate 1", "perhaps '--learning-rate' is meant."),
        ("--epochs ten", "--epochs to be a whole number, but got 'ten'; the default is 20."),
        ("--variant published", "--variant to be one of paper, released, but got 'published'; choose one of these."),
        ("--lr-milestones 0.5 x", "each of --lr-milestones to be a finite number, but got 'x'; leave it out."),
        ("--alpha -1", "--alpha of at least 0, but got -1.0; the paper uses 0.5 or 0.05."),
        (
            "--gamma",
            "Expected a value after --gamma, but got none; `dynacor detect --help` says what it takes.",
        ),
        ("--classes", "Expected a value after --classes, but got none; "),
        ("--quiet=yes", "but got argument --quiet: ignored explicit argument 'yes'; "),
    ],
)
def test_wrong_options(words: str, told: str, configs: list[DetectConfig], capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of("detect", "--data", "demo", *words.split()) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert told in said.err
    assert said.err.startswith("dynacor: Expected ")
    assert said.err.count("\n") == 1
    assert not configs


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("detect",), "Expected --data, but got none; pass e.g. --data demo."),
        (("detect", "demo"), "Expected the data after --data, but got 'demo' without it; say --data demo."),
        (("report",), "Expected RUN, but got none; the command is: dynacor report RUN [options]."),
        (("export", "runs/a"), "Expected OUT, but got none; the command is: dynacor export RUN OUT [options]."),
        (("doctor", "--data", "demo", "--price-per-hour", "-1"), "--price-per-hour of at least 0, but got -1.0; give"),
    ],
)
def test_what_is_missing(args: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(*args) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("command", ["detect", "doctor", "sweep", "compare", "analyze-signals"])
def test_a_value_out_of_range_is_told_in_one_line(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(command, "--data", "demo", "--gamma", "nan") == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "dynacor: Expected --gamma to be a finite number, but got nan; the paper uses 0.1.\n"


def test_detect_runs_with_the_options(configs: list[DetectConfig]) -> None:
    assert status_of("detect", "--data", "demo", "--gamma", "0.2", "--classes", "a", "b", "--quiet") == 0
    assert configs == [DetectConfig(data="demo", gamma=0.2, classes=("a", "b"), quiet=True)]


def test_only_what_is_given_is_passed_on() -> None:
    parser = cli.CommandParser("dynacor sweep", "Try.", cli.config_class("sweep"))
    words = "--data demo --gammas 0.1 1 --vary epochs=2,3 --seed 0 --thumbnails --alpha=5e-1 --quiet"
    assert parser.given(words.split()) == {
        **{"data": "demo", "gammas": [0.1, 1.0], "vary": ["epochs=2,3"], "seed": 0},
        **{"thumbnails": True, "alpha": 0.5, "quiet": True},
    }
    assert parser.given([]) == {}


@pytest.mark.parametrize("named", [["--recipe", "cifar_resnet34"], ["--recipe=cifar_resnet34"]])
def test_options_win_over_a_recipe_wherever_they_stand(named: list[str], configs: list[DetectConfig]) -> None:
    own = ["--epochs", "3", "--lr-milestones", "0.25"]
    assert status_of("detect", "--data", "demo", *named, *own) == 0
    assert status_of("detect", *own, *named, "--data", "demo") == 0
    expected = make_config(DetectConfig, "demo", recipe="cifar_resnet34", epochs=3, lr_milestones=(0.25,))
    assert configs == [expected, expected]
    assert status_of("detect", "--data", "demo", *named, "--lr-schedule", "cosine", "--epochs", "20") == 0
    assert (configs[-1].network, configs[-1].lr_schedule, configs[-1].epochs) == ("cifar_resnet34", "cosine", 20)
    assert (expected.network, expected.learning_rate, expected.lr_schedule) == ("cifar_resnet34", 0.1, "multistep")


def test_an_unknown_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of("detect", "--data", "demo", "--recipe", "resnet") == 2
    assert capsys.readouterr().err.startswith("dynacor: Expected --recipe to be one of frozen_clip, ")


def test_a_job_has_the_last_word(configs: list[DetectConfig]) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(["detect", "--data", "demo"], adjust=lambda config: DetectConfig(data=config.data + "!"))
    assert left.value.code == 0
    assert configs == [DetectConfig(data="demo!")]


@pytest.mark.parametrize("error", [DataError, StorageError])
def test_a_failed_run_ends_with_its_reason(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reason = "Expected [bold]rows[/bold] in /a:key:b/" + "long/" * 40 + ", but got \x1b[31mnone\u202e; add some."
    monkeypatch.setattr(pipeline, "run_detect", raising(error(reason)))
    assert status_of("detect", "--data", "demo") == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == f"dynacor: {reason}\n".replace("\x1b", "?").replace("\u202e", "?")


def test_lines_of_a_message_are_kept(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(pipeline, "run_detect", raising(DataError("one\ntwo")))
    assert status_of("detect", "--data", "demo") == 2
    assert capsys.readouterr().err == "dynacor: one\ntwo\n"


def test_no_color(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert status_of("xyz") == 2
    assert "\x1b[31m" in capsys.readouterr().err
    monkeypatch.setenv("NO_COLOR", "1")
    assert status_of("xyz") == 2
    assert "\x1b" not in capsys.readouterr().err


def test_interrupted(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(pipeline, "run_detect", raising(KeyboardInterrupt()))
    assert status_of("detect", "--data", "demo") == 130
    assert capsys.readouterr().err == "dynacor: Stopped. The same command resumes where it was.\n"


def test_a_defect_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "run_detect", raising(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        cli.main(["detect", "--data", "demo"])


@pytest.mark.parametrize("ok", [True, False])
def test_doctor_tells_by_its_status(ok: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    report = checks.DoctorReport([checks.Check("data", True, ""), checks.Check("cluster", ok, "")])
    prices: list[float | None] = []
    monkeypatch.setattr(checks, "run_doctor", lambda _, price: prices.append(price) or report)
    assert status_of("doctor", "--data", "demo") == (0 if ok else 1)
    assert status_of("doctor", "--data", "demo", "--price-per-hour", "4.5") == (0 if ok else 1)
    assert prices == [None, 4.5]


def test_as_a_program() -> None:
    code = "from dynacor_ray.cli import main; main()"
    command = [sys.executable, "-c", code, "detect", "--data", "demo", "--epochs", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("dynacor: Expected --epochs of at least 1, but got 0; ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(("flags", "wanted"), [((), None), (("--thumbnails",), True), (("--no-thumbnails",), False)])
def test_thumbnails_are_a_switch(
    flags: tuple[str, ...], wanted: bool | None, configs: list[DetectConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert status_of("detect", *flags, "--data", "demo") == 0
    assert configs == [DetectConfig(data="demo", thumbnails=wanted)]
    asked: list[Any] = []
    monkeypatch.setattr(reports, "make_report", lambda run, thumbnails: asked.append((str(run), thumbnails)))
    assert status_of("report", "/runs/a", *flags) == 0
    assert asked == [("/runs/a", wanted)]


def test_report_names_its_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "run")
    assert status_of("report", str(run)) == 0
    assert capsys.readouterr().out == f"Report: {run}/report.html\n"
    assert status_of("report", str(tmp_path)) == 2
    assert "Expected the directory of a finished run or sweep, but got" in capsys.readouterr().err


def test_a_run_that_is_told_to_end_says_how_to_resume(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:

    def told_to_end(config: object) -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)  # once more while it gives the lock back
            ended.append("cleanly")

    monkeypatch.setitem(cli.COMMANDS, "detect", told_to_end)
    monkeypatch.setattr(cli, "config_class", lambda _: DetectConfig)
    # Not the handler there is: without one of ours, it would end the process that runs the tests.
    before, ended = signal.signal(signal.SIGTERM, lambda *_: None), list[str]()
    try:
        with pytest.raises(SystemExit) as left:
            cli.main(["detect", "--data", "demo"])
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (left.value.code, ended) == (143, ["cleanly"])
    assert capsys.readouterr().err == "dynacor: Told to end (SIGTERM). The same command resumes where it was.\n"
