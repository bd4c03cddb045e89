"""A local Ray cluster with a dashboard, as a user's head node would be, in processes of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import ray  # noqa: F401  (brings psutil)

ROOT = Path(__file__).parents[2]
HEAD = """
import sys
import ray
ray.init(address="local", num_cpus=4, include_dashboard=True, dashboard_host="127.0.0.1",
         dashboard_port=int(sys.argv[1]), object_store_memory=300 << 20, log_to_driver=False)
print("ready", flush=True)
sys.stdin.read()
"""


def _wait_for_jobs(environment: dict[str, str]) -> None:
    """The node's agent takes jobs only some time after the dashboard answers; on a busy machine that can be long."""
    deadline = time.monotonic() + 180
    submit = ["ray", "job", "submit", "--no-wait", "--", "true"]
    while subprocess.run(submit, env=environment, capture_output=True, check=False).returncode != 0:
        assert time.monotonic() < deadline, "the cluster takes no jobs; does another one run on this machine?"
        time.sleep(1)


@contextmanager
def running_head(python: Path, folder: Path, home: Path, **more: str) -> Iterator[dict[str, str]]:
    """A head node of this Python, started in a folder; yields what makes `ray job submit` find it.

    home: Its home directory; more: variables of its environment.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", "PYTHONPATH")}
    path = os.pathsep.join(map(str, dict.fromkeys([python.parent, Path(sys.executable).parent])))
    environment |= {"RAY_AUTH_MODE": "disabled", "HOME": str(home), "PATH": f"{path}{os.pathsep}{environment['PATH']}"}
    log = home / "head.log"
    with log.open("wb") as said:
        process = subprocess.Popen(
            [python, "-c", HEAD, str(port)],
            env=environment | {"RAY_DASHBOARD_STARTUP_TIMEOUT_S": "300"} | more,  # a busy machine takes its time
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
        )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        while b"ready" not in (line := process.stdout.readline()):
            assert line, f"the cluster did not start: {log.read_text()[-2000:]}"
        environment |= {"RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{port}"}
        _wait_for_jobs(environment)
        yield environment
    finally:
        process.stdin.close()  # the head ends, and its cluster with it
        process.wait(timeout=60)
        process.stdout.close()


@pytest.fixture(scope="session")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Environment variables that make `ray job submit` find the cluster. It was started in the repository's root."""
    with running_head(Path(sys.executable), ROOT, tmp_path_factory.mktemp("home")) as environment:
        yield environment
