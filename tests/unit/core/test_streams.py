"""Output that nobody reads, and characters that a terminal lacks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dynacor_ray.core.streams import lasting_output

CODE = """
import sys
from dynacor_ray.core.streams import lasting_output
with lasting_output():
    from rich.console import Console
    print("a" * 100_000)
    Console().print("b\\n" * 9_000, highlight=False)
    print("c", file=sys.stderr)
    Console(stderr=True).print("d \\u2500")
    open(sys.argv[1], "w").write("done")
"""


@pytest.mark.parametrize("closed", ["stdout", "stderr"])
def test_work_goes_on_when_the_reader_has_left(closed: str, tmp_path: object) -> None:
    place = f"{tmp_path}/out"
    done = subprocess.Popen([sys.executable, "-c", CODE, place], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with done:
        getattr(done, closed).close()  # as `head` does when it has seen enough
        other = done.stderr if closed == "stdout" else done.stdout
        assert other is not None
        said = other.read().decode()
    assert done.returncode == 0
    assert "Error" not in said
    with open(place) as file:
        assert file.read() == "done"


def test_a_character_that_the_terminal_lacks(capfd: pytest.CaptureFixture[str]) -> None:
    code = "from dynacor_ray.core.streams import lasting_output\nwith lasting_output(): print('50 ± 2')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env={"PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stdout) == (0, b"50 ? 2\n")


def test_the_streams_come_back(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout, sys.stderr
    with pytest.raises(ZeroDivisionError), lasting_output():
        print(1, 1 / (print("out") or 0))
    assert (sys.stdout, sys.stderr) == before
    assert capsys.readouterr().out == "out\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no such device")
def test_a_disk_that_is_full_is_told_in_one_line() -> None:
    code = "from dynacor_ray.cli import main; main()"
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-c", code, "--version"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    told = "dynacor: Expected output that can be written, but got 'No space left on device'; lead it elsewhere.\n"
    assert (done.returncode, done.stderr) == (2, told)
