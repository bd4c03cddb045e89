"""`report.html` as a person uses it: filters, matrix, keyboard, themes, widths, marks; silent console, no network."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.select import Select
from selenium.webdriver.support.wait import WebDriverWait

from dynacor_ray.report.answer_files import read_answer_file
from dynacor_ray.runs.audit import open_round
from dynacor_ray.runs.records import RunSummary
from tests.made_runs import NAMES, at

Opened = Callable[..., WebDriver]


def one(page: WebDriver | WebElement, selector: str) -> WebElement:
    return page.find_element(By.CSS_SELECTOR, selector)


def texts(page: WebDriver, selector: str) -> list[str]:
    return [element.text for element in page.find_elements(By.CSS_SELECTOR, selector)]


def shown_ids(page: WebDriver) -> list[int]:
    cards = page.find_elements(By.CSS_SELECTOR, "#cards > li")
    return [int(card.get_attribute("data-id") or -1) for card in cards]


def issues(tmp_path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(tmp_path / "run" / "issues.parquet").to_pylist()
    return rows


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 820, 390])
def test_it_fits_every_width_in_both_themes(width: int, theme: str, opened: Opened) -> None:
    names = ("a rather long name of a class", "dog", "owl", "x" * 60)
    page = opened(width, theme, names=names, images=True, warnings=["Mind " + "this" * 60], rows=400)
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    background = page.execute_script("return getComputedStyle(document.body).backgroundColor")
    red = int(background.removeprefix("rgb(").split(",")[0])
    assert (red > 200) == (theme == "light")
    assert one(page, "h1").text == "40 of 400 labels look wrong"
    first = "const image = document.querySelector('.card img');"
    assert page.execute_script(f"{first} return image.decode().then(() => image.naturalWidth)") == 24
    for chart in ("dynamics", "histogram", "metric"):
        drawn = page.find_elements(By.CSS_SELECTOR, f"#{chart}-chart path, #{chart}-chart rect")
        assert drawn, chart
    one(page, ".card").click()
    box = one(page, "dialog").rect
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= width


def test_filters(opened: Opened, tmp_path: Path) -> None:
    page = opened(rows=3000)
    rows = {row["instance_id"]: row for row in issues(tmp_path)}
    flagged = [i for i, row in rows.items() if row["is_label_issue"]]
    assert shown_ids(page) == flagged[:40], "the most suspicious first"
    one(page, "#more").click()
    assert shown_ids(page) == flagged[:80]

    Select(one(page, "#given")).select_by_visible_text("cat")
    Select(one(page, "#suggested")).select_by_visible_text("owl")
    pair = [i for i in flagged if (rows[i]["given_label"], rows[i]["predicted_label"]) == (0, 2)]
    assert shown_ids(page) == pair[:40]
    assert one(page, "#count").text == f"{len(pair)} rows."
    one(page, "#clear").click()
    assert shown_ids(page) == flagged[:40]

    Select(one(page, "#order")).select_by_value("id")
    ids = shown_ids(page)
    assert ids == sorted(ids)
    Select(one(page, "#order")).select_by_value("near")
    distance = [round(abs(rows[i]["label_quality"] - 0.5), 6) for i in shown_ids(page)]
    assert distance == sorted(distance)
    assert not one(page, "#audit-note").is_displayed()
    Select(one(page, "#order")).select_by_value("audit")
    assert one(page, "#count").text == "100 rows."
    run = at(tmp_path / "run")
    assert shown_ids(page) == open_round(run, RunSummary.read(run)).ids[:40]
    assert {rows[i]["is_label_issue"] for i in shown_ids(page)} == {True, False}
    assert "dynacor review RUN" in one(page, "#audit-note").text

    one(page, "#clear").click()
    one(page, "#query").send_keys(str(flagged[7]))
    assert flagged[7] in shown_ids(page)
    assert all(str(flagged[7]) in rows[i]["uri"] for i in shown_ids(page))
    one(page, "#query").clear()
    one(page, "#query").send_keys("999999")
    assert shown_ids(page) == []
    assert "not in the report" in one(page, "#count").text


def test_matrix(opened: Opened, tmp_path: Path) -> None:
    """A cell shows as many rows as it says, again all of them; arrows go from cell to cell."""
    page = opened(rows=600)
    rows = {row["instance_id"]: row for row in issues(tmp_path)}
    cell = one(page, '.cell[data-given="1"][data-suggested="2"]')
    cell.click()
    assert cell.get_attribute("aria-pressed") == "true"
    assert Select(one(page, "#given")).first_selected_option.text == "dog"
    assert len(shown_ids(page)) == int(cell.text)
    assert {(rows[i]["given_label"], rows[i]["predicted_label"]) for i in shown_ids(page)} == {(1, 2)}
    cell.click()
    assert cell.get_attribute("aria-pressed") == "false"
    assert len(shown_ids(page)) == 40

    first = one(page, ".cell")
    assert (first.get_attribute("data-given"), first.get_attribute("data-suggested")) == ("0", "1")
    first.send_keys(Keys.ARROW_RIGHT)
    focused = page.switch_to.active_element
    assert (focused.get_attribute("data-given"), focused.get_attribute("data-suggested")) == ("0", "2")
    focused.send_keys(Keys.ARROW_DOWN)
    focused = page.switch_to.active_element
    assert (focused.get_attribute("data-given"), focused.get_attribute("data-suggested")) == ("1", "2")
    focused.send_keys(Keys.ENTER)
    assert {rows[i]["given_label"] for i in shown_ids(page)} == {1}
    one(page, '.matrix th button[data-given="2"]').click()
    assert {rows[i]["given_label"] for i in shown_ids(page)} == {2}


def test_detail_by_keyboard_and_marks(opened: Opened, tmp_path: Path) -> None:
    """Enter opens a row, arrows go on, w and r mark, Escape leads back; the marks come as CSV."""
    page = opened(rows=600)
    page.execute_script("localStorage.clear()")
    flagged = [row["instance_id"] for row in issues(tmp_path) if row["is_label_issue"]]
    one(page, ".card").send_keys(Keys.ENTER)
    dialog = one(page, "dialog")
    assert dialog.is_displayed()
    assert one(dialog, "h2").text == f"Row {flagged[0]}"
    assert "epochs" in one(dialog, "#detail-why").text
    assert len(one(dialog, "#detail-chart").find_elements(By.CSS_SELECTOR, "path.line")) == 4, (
        "three groups and the row"
    )
    assert one(page, "#dynamics-key .row").get_attribute("textContent") == f"row {flagged[0]}"
    keys = page.switch_to.active_element
    keys.send_keys("w", Keys.ARROW_RIGHT)
    assert one(dialog, "h2").text == f"Row {flagged[1]}"
    page.switch_to.active_element.send_keys("r")
    assert texts(page, "dialog [aria-pressed=true]") == ["right"]
    page.switch_to.active_element.send_keys(Keys.ESCAPE)
    focused = "return document.activeElement.getAttribute('aria-label')"  # set by an event that may come a little later
    WebDriverWait(page, 20).until(lambda p: f"Row {flagged[1]}:" in (p.execute_script(focused) or ""))
    assert not dialog.is_displayed()
    assert texts(page, ".card .mark") == ["wrong", "right"]
    assert one(page, "#marks-text").text == "2 rows marked: 1 wrong, 1 right, 0 unsure."

    behavior = {"behavior": "allow", "downloadPath": str(tmp_path)}
    page.execute_cdp_cmd("Browser.setDownloadBehavior", behavior)
    one(page, "#save").click()
    saved, deadline = tmp_path / "reviewed.csv", time.monotonic() + 20
    while not saved.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    names = {row["instance_id"]: NAMES[row["given_label"]] for row in issues(tmp_path)}
    first, second = (
        f'{row},{mark},"{names[row]}"\n' for row, mark in zip(flagged[:2], ("wrong", "right"), strict=True)
    )
    assert saved.read_text() == f"instance_id,mark,given_label\n{first}{second}"
    assert {answer.row: answer.mark for answer in read_answer_file(at(saved))} == {
        flagged[0]: "wrong",
        flagged[1]: "right",
    }
    page.refresh()
    assert texts(page, ".card .mark") == ["wrong", "right"], "kept by the browser"
    one(page, "#forget").click()
    assert texts(page, ".card .mark") == []


def test_class_table_is_sorted_by_its_heads(opened: Opened) -> None:
    page = opened(rows=900, names=tuple("edcba"))
    flagged = [int(text) for text in texts(page, "#class-table tbody td:nth-child(3)")]
    assert flagged == sorted(flagged, reverse=True)
    one(page, "#class-table thead button").click()
    assert texts(page, "#class-table tbody th") == list("abcde")
    one(page, "#class-table thead th:nth-child(2) button").click()
    rows = [int(text) for text in texts(page, "#class-table tbody td:nth-child(2)")]
    assert rows == sorted(rows, reverse=True)
    one(page, "#class-table tbody .link").click()
    assert Select(one(page, "#given")).first_selected_option.text in "abcde"
    assert len(shown_ids(page)) > 0


def test_nothing_from_data_runs(opened: Opened) -> None:
    names = (
        "<img src=x onerror=window.hit=1>",
        "</script><script>window.hit=2</script>",
        "'\"><svg onload=window.hit=3>",
    )
    page = opened(names=names, uris=["javascript:window.hit=4"] * 300, warnings=[f"Odd: {names[0]}"])
    for row in page.find_elements(By.CSS_SELECTOR, ".card")[:3]:
        row.click()
        one(page, "#close").click()
    assert page.execute_script("return window.hit") is None
    assert page.execute_script("return document.querySelectorAll('main svg[onload], main img[onerror]').length") == 0
    assert names[0] in one(page, ".notes").text
    assert set(texts(page, "#class-table tbody th")) == set(names)
    page.execute_script("document.querySelector('h1').innerHTML = '<img src=data:,x onerror=window.hit=5>'")
    said = json.dumps(page.get_log("browser"))
    assert "Content Security Policy" in said, "even if markup got in, it would not run"
    assert page.execute_script("return window.hit") is None


def test_rows_without_pictures_show_their_dynamics(opened: Opened) -> None:
    page = opened(rows=200)
    assert len(page.find_elements(By.CSS_SELECTOR, ".card svg path")) == 20
    assert not page.find_elements(By.CSS_SELECTOR, ".card img")


def test_one_epoch_one_metric_and_no_flag(opened: Opened) -> None:
    """The least that a run can have: nothing to draw a line through, no estimate, nothing found."""
    validation = {"chosen_epoch": 0, "epochs": [{"epoch": 0, "validation_metric": 0.0}]}
    page = opened(epochs=1, noise=0.0, validation=validation, estimated_noise_rate=None, noise_rate_range=None)
    assert one(page, "h1").text == "None of 300 labels looks wrong"
    assert "Too few epochs" in one(page, ".tiles").text
    assert one(page, "#count").text.endswith(" rows, none of them flagged.")
    one(page, ".card").click()
    assert one(page, "#detail-why").text.startswith("Seen as ")
    assert len(page.find_elements(By.CSS_SELECTOR, "#detail-chart .dot.row")) == 1


def test_it_can_be_printed(opened: Opened) -> None:
    """On white paper, whatever the theme of the screen."""
    page = opened(rows=200, images=True, theme="dark")
    color = "return getComputedStyle(document.querySelector('h1')).color"
    on_screen = page.execute_script(color)
    features = [{"name": "prefers-color-scheme", "value": "dark"}]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", "features": features})
    on_paper = page.execute_script(color)
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": features})
    red_on_screen, red_on_paper = (int(c.removeprefix("rgb(").split(",")[0]) for c in (on_screen, on_paper))
    assert red_on_paper < 100 < red_on_screen
    pdf = base64.b64decode(page.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})["data"])
    assert pdf.startswith(b"%PDF")
    assert len(pdf) > 10_000
