"""Debian's chromium without a window, driven over WebDriver; skipped where it is not installed."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.remote.webdriver import WebDriver

from dynacor_ray.core.storage import locate
from dynacor_ray.report.build import make_report
from tests.made_runs import make_run

FLAGS = (
    "--headless=new",
    "--no-sandbox",  # tests may run as root, where the sandbox cannot
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--force-device-scale-factor=1",
)


@pytest.fixture(scope="session")
def browser() -> Iterator[WebDriver]:
    """A browser that keeps what pages say on its console."""
    chromium = next((found for name in ("chromium", "chromium-browser") if (found := shutil.which(name))), None)
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("needs a browser: apt-get install chromium chromium-driver")
    options = Options()
    options.binary_location = chromium
    for flag in FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    session = webdriver.Chrome(options=options, service=Service(driver))
    yield session
    session.quit()


@pytest.fixture
def opened(browser: WebDriver, tmp_path: Path) -> Iterator[Callable[..., WebDriver]]:
    """Open the report of a run made by `make_run`; at the end, the console must be empty and nothing was fetched."""

    def open_run(width: int = 1280, theme: str = "light", **options: Any) -> WebDriver:
        report = make_report(locate(str(make_run(tmp_path / "run", **options))))
        show(browser, report.path, width, theme)
        return browser

    yield open_run
    assert browser.get_log("browser") == []
    fetched = browser.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert [name for name in fetched if not name.startswith("data:")] == []


def show(browser: WebDriver, path: str, width: int, theme: str) -> None:
    """Load a page in a window of some width, as someone sees it who prefers a light or dark theme."""
    features = [
        {"name": "prefers-color-scheme", "value": theme},
        {"name": "prefers-reduced-motion", "value": "reduce"},  # else a click may come while the page still scrolls
    ]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get(f"file://{path}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents and sys.platform != "linux":
            item.add_marker(pytest.mark.skip(reason="tested with Debian's chromium only"))
