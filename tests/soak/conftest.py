"""`pytest tests/soak --seed 7` (or `make soak SEED=7`): not part of what every change runs."""

from __future__ import annotations

import pytest
import ray  # noqa: F401  (brings psutil)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, default=0, help="what is killed, and when")


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("--seed"))
