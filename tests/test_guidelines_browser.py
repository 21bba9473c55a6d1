"""The drafts as a person meets them: headless chromium opens them with the network cut off."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from guidelines_toys import make_run

from milkit.guidelines.write import write_guidelines

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.browser, pytest.mark.slow]

PAGES = ("tripod_ai", "claim", "model_card", "table1", "numbers")
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_guidelines(make_run(tmp_path_factory.mktemp("browser"), covariates=["age", "sex"])).folder


def _open(browser: "Browser", path: Path, width: int, complaints: list[str]) -> "Page":
    page = browser.new_page(viewport={"width": width, "height": 900}, offline=True)
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(path.as_uri())
    return page


@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_every_width_and_paper_and_complains_of_nothing(
    browser: "Browser", folder: Path, name: str
) -> None:
    complaints: list[str] = []
    for width in (1400, 820, 390):
        page = _open(browser, folder / f"{name}.html", width, complaints)
        assert page.evaluate(OVERFLOW) == 0
        page.close()
    page = _open(browser, folder / f"{name}.html", 703, complaints)  # A4 less its margins
    page.emulate_media(media="print")
    assert page.evaluate(OVERFLOW) == 0
    page.close()
    assert complaints == []


def test_only_what_is_open_is_left_by_the_keyboard_and_paper_shows_all(browser: "Browser", folder: Path) -> None:
    page = _open(browser, folder / "claim.html", 1400, [])
    page.get_by_label("Only what is open").focus()
    page.keyboard.press("Space")
    shown = page.locator(".item:visible")
    assert 0 < shown.count() < 44
    assert page.locator(".item.open:visible").count() == shown.count()
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator(".item:visible").count() == 44
    page.close()


def test_a_number_leads_to_its_row(browser: "Browser", folder: Path) -> None:
    page = _open(browser, folder / "tripod_ai.html", 820, [])
    link = page.locator("#item-23a a.number").first
    text = link.inner_text()
    link.click()
    assert page.locator("tr:target th").inner_text() == text
    page.close()
