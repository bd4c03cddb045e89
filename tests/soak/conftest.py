"""`pytest tests/soak --seed 7 --kills 8` (or `make soak SEED=7 KILLS=8`): not part of what every change runs."""

from __future__ import annotations

import pytest
import ray  # noqa: F401  (brings psutil)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, default=0, help="what is killed, and when")
    parser.addoption("--kills", type=int, default=30, help="how often, over all tests")


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("--seed"))


@pytest.fixture
def kills(request: pytest.FixtureRequest) -> int:
    """Of one test, and at least one."""
    return -(-int(request.config.getoption("--kills")) // 6)
