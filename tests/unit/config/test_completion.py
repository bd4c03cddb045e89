"""What the shells complete."""

from __future__ import annotations

import os
import pty
import select
import shlex
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from dynacor_ray import cli
from dynacor_ray.config.completion import completion_script

CASES = (
    ("dynacor de", "detect"),
    ("dynacor detect --ga", "--gamma"),
    ("dynacor detect --gpu _", "auto yes no"),
    ("dynacor detect --gpu = y", "yes"),
    ("dynacor compare --detectors aum simifeat_r", "simifeat_r simifeat_r_at_noise_rate"),
    ("dynacor export run out --format f", "fiftyone"),
    ("dynacor report --no", "--no-thumbnails"),
    ("dynacor completion _", "bash zsh fish"),
    ("dynacor report _", ""),
)
TRY = """
try() { COMP_WORDS=("$@"); COMP_CWORD=$(($#-1)); _dynacor; echo "${COMPREPLY[*]}"; }
"""


@pytest.fixture(scope="module")
def scripts() -> dict[str, str]:
    kinds = {name: cli.config_class(name) for name in cli.COMMANDS}
    return {shell: completion_script(shell, kinds) for shell in ("bash", "zsh", "fish")}


def test_bash_completes_commands_options_and_choices(scripts: dict[str, str], tmp_path: Path) -> None:
    if shutil.which("bash") is None:
        pytest.skip("no bash")
    tries = "\n".join(f"try {words.replace('_', chr(34) * 2, words.endswith('_'))}" for words, _ in CASES)
    (tmp_path / "script").write_text(scripts["bash"] + TRY + tries)
    done = subprocess.run(["bash", str(tmp_path / "script")], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [wanted for _, wanted in CASES]


def test_zsh_completes_in_a_terminal(scripts: dict[str, str], tmp_path: Path) -> None:
    """Its completion works in a line that is typed only, so keys are sent to one."""
    if shutil.which("zsh") is None:
        pytest.skip("no zsh")
    (tmp_path / "data.csv").touch()
    (tmp_path / ".zshrc").write_text(f"PS1='ready> '\n{scripts['zsh']}")
    for typed, wanted in (
        ("dynacor det", "dynacor detect "),
        ("dynacor detect --flag-ru", "dynacor detect --flag-rule "),
        ("dynacor detect --flag-rule noi", "dynacor detect --flag-rule noise_rate "),
        ("dynacor detect --flag-rule=noi", "dynacor detect --flag-rule=noise_rate"),
        ("dynacor detect --data da", "dynacor detect --data data.csv "),
        ("dynacor completion z", "dynacor completion zsh "),
    ):
        assert wanted in screen_of_zsh(tmp_path, f"{typed}\t", wanted), typed


def screen_of_zsh(home: Path, keys: str, wanted: str) -> str:
    """What a zsh shows when keys are pressed; waits for what is wanted, at most a minute."""
    terminal, inner = pty.openpty()
    environment = {"PATH": os.environ["PATH"], "ZDOTDIR": str(home), "TERM": "dumb"}
    shell = subprocess.Popen(
        ["zsh", "-i"], stdin=inner, stdout=inner, stderr=inner, cwd=home, env=environment, start_new_session=True
    )
    shown, sent, deadline = "", False, time.monotonic() + 60
    try:
        while wanted not in shown and time.monotonic() < deadline:
            if select.select([terminal], [], [], 1)[0]:
                shown += os.read(terminal, 1 << 16).decode(errors="replace")
            if not sent and "ready> " in shown:
                os.write(terminal, keys.encode())
                sent = True
        return shown
    finally:
        shell.kill()
        shell.wait()
        os.close(inner)
        os.close(terminal)


def test_fish_completes_commands_options_and_choices(scripts: dict[str, str], tmp_path: Path) -> None:
    if shutil.which("fish") is None:
        pytest.skip("no fish")
    (tmp_path / "script").write_text(scripts["fish"])
    for typed, wanted in (
        ("dynacor det", ["detect"]),
        ("dynacor detect --flag-ru", ["--flag-rule"]),
        ("dynacor detect --flag-rule noi", ["noise_rate"]),
        ("dynacor detect --flag-rule=noi", ["--flag-rule=noise_rate"]),
        ("dynacor export run --format da", ["datasets", "datumaro"]),
        ("dynacor completion z", ["zsh"]),
    ):
        command = ["fish", "--no-config", "-c", f"source {tmp_path}/script; complete -C {shlex.quote(typed)}"]
        done = subprocess.run(
            command, env=os.environ | {"HOME": str(tmp_path)}, capture_output=True, text=True, check=True
        )
        assert sorted(line.split("\t")[0] for line in done.stdout.splitlines()) == wanted, typed


def test_a_new_command_or_option_is_completed_by_itself(scripts: dict[str, str]) -> None:
    for command in cli.COMMANDS:
        (line,) = [line for line in scripts["bash"].splitlines() if line.startswith(f"      {command}) ")]
        parser = cli.CommandParser("dynacor", "", cli.config_class(command))
        assert set(parser.flags) <= set(line.partition("words=")[2].strip(";'").split())
