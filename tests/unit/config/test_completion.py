"""What the shells complete."""

from __future__ import annotations

import shutil
import subprocess
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
    ("dynacor completion _", "bash zsh"),
    ("dynacor report _", ""),
)
TRY = """
try() { COMP_WORDS=("$@"); COMP_CWORD=$(($#-1)); _dynacor; echo "${COMPREPLY[*]}"; }
"""


@pytest.fixture(scope="module")
def scripts() -> dict[str, str]:
    kinds = {name: cli.config_class(name) for name in cli.COMMANDS}
    return {shell: completion_script(shell, kinds) for shell in ("bash", "zsh")}


def test_bash_completes_commands_options_and_choices(scripts: dict[str, str], tmp_path: Path) -> None:
    if shutil.which("bash") is None:
        pytest.skip("no bash")
    tries = "\n".join(f"try {words.replace('_', chr(34) * 2, words.endswith('_'))}" for words, _ in CASES)
    (tmp_path / "script").write_text(scripts["bash"] + TRY + tries)
    done = subprocess.run(["bash", str(tmp_path / "script")], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [wanted for _, wanted in CASES]


def test_zsh_reads_the_same_after_its_own_start(scripts: dict[str, str]) -> None:
    bash, zsh = (scripts[shell].partition("\n")[2] for shell in ("bash", "zsh"))
    start, _, rest = zsh.partition("_dynacor() {")
    assert bash == f"_dynacor() {{{rest}"
    assert start.endswith("bashcompinit\n")


def test_a_new_command_or_option_is_completed_by_itself(scripts: dict[str, str]) -> None:
    for command in cli.COMMANDS:
        (line,) = [line for line in scripts["bash"].splitlines() if line.startswith(f"      {command}) ")]
        parser = cli.CommandParser("dynacor", "", cli.config_class(command))
        assert set(parser.flags) <= set(line.partition("words=")[2].strip(";'").split())
