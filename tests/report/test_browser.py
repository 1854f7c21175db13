"""The report's page in a real Chromium: no error, no request, links and disclosures work, nothing sticks out."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import ABLATION

from senet_ablate.analysis.study import assess
from senet_ablate.report.write import write_report
from senet_ablate.results.store import Study

pytestmark = pytest.mark.browser
sync_api = pytest.importorskip("playwright.sync_api", reason="the extra `browser` is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


@pytest.fixture
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield started
        started.close()


@pytest.fixture
def address(full: Study, tmp_path: Path) -> str:
    write_report(assess([ABLATION], full), tmp_path / "reports")
    return (tmp_path / "reports" / "first" / "index.html").as_uri()


def opened(browser: Any, address: str, **context: Any) -> tuple[Any, list[str]]:
    """A page, and a list to which errors and requests for anything but the page itself are added."""
    page = browser.new_context(**context).new_page()
    troubles: list[str] = []
    page.on("console", lambda message: troubles.append(message.text))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on(
        "request",
        lambda request: None if request.url.startswith((address, "data:")) else troubles.append(request.url),
    )
    page.goto(address)
    return page, troubles


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 390])
def test_the_page_loads_without_error_or_request_and_fits_the_screen(
    browser: Any, address: str, width: int, scheme: str
) -> None:
    page, troubles = opened(browser, address, viewport={"width": width, "height": 900}, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    figures = page.query_selector_all("figure svg")
    assert figures
    for figure in figures:
        shown = figure.get_attribute("class") == ("page" if width > 640 else "column")
        assert figure.is_visible() == shown, "one form of each figure, by the width of the screen"
        assert not shown or 200 < figure.bounding_box()["width"] <= width
    assert troubles == []


def test_every_disclosure_opens_and_closes(browser: Any, address: str) -> None:
    page, troubles = opened(browser, address)
    summaries = page.query_selector_all("summary")
    assert len(summaries) >= 4  # a finding at least, the setting, two networks
    for summary in summaries:
        state = summary.evaluate_handle("s => s.parentElement")
        summary.evaluate(
            "s => { for (let d = s.parentElement; d = d.parentElement?.closest('details');) d.open = true; }"
        )
        summary.click()
        assert state.get_property("open").json_value() is True
        summary.press("Enter")
        assert state.get_property("open").json_value() is False
    assert troubles == []


def test_a_click_on_a_heading_sorts_a_table_by_value_and_another_turns_it_round(browser: Any, address: str) -> None:
    page, troubles = opened(browser, address)
    heading = page.query_selector("#ratio thead th:nth-child(3)")
    names = "[...document.querySelectorAll('#ratio tbody tr')].map(row => row.cells[0].textContent)"
    rising = ["r = 16", "r_4, 25%", "no SE"]  # 12, 13 and 15 %
    heading.click()
    assert page.evaluate(names) == rising
    heading.press("Enter")
    assert page.evaluate(names) == rising[::-1]
    assert heading.get_attribute("aria-sort") == "descending"
    assert troubles == []


def test_every_link_within_the_page_shows_what_it_names(browser: Any, address: str) -> None:
    page, troubles = opened(browser, address)
    targets = {link.get_attribute("href") for link in page.query_selector_all('a[href^="#"]')}
    assert len(targets) > 5
    for target in targets:
        page.goto(address + target)
        found = page.query_selector(f'[id="{target[1:]}"]')
        assert found.is_visible(), target
        if found.evaluate("e => e.tagName") == "DETAILS":
            assert found.get_property("open").json_value() is True
    assert troubles == []


def test_print_shows_what_is_folded_on_the_screen(browser: Any, address: str) -> None:
    page, _ = opened(browser, address)
    page.emulate_media(media="print")
    folded = "[...document.querySelectorAll('details > *:not(summary)')]"
    assert page.evaluate(f"{folded}.length") >= 4
    assert page.evaluate(f"{folded}.filter(e => e.getBoundingClientRect().height === 0).length") == 0
