"""The report as a person meets it: headless chromium opens the file with the network cut off."""

import json
import os
import runpy
import shutil
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from milkit.bags import SCALE
from milkit.bags.files import write_attributes
from milkit.patient_flow import Exclusion, flow_notes
from milkit.report import write
from milkit.report.settings import ReportSettings
from milkit.tables import read_table, write_table

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Route

pytestmark = [pytest.mark.browser, pytest.mark.slow]

WIDTHS = (1400, 820, 390)

OpenPage = Callable[..., "Page"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    make_run = runpy.run_path(str(Path(__file__).with_name("test_report.py")))["make_run"]
    long_name = "RUNX1_RUNX1T1_and_a_very_long_name_of_a_class"
    run: Path = make_run(tmp_path_factory.mktemp("browser"), classes=("control", "NPM1", long_name))
    table = read_table(run / "predictions.csv").set_index("patient_id")
    table.loc["P1", "p_control"] = 0.5996  # printed as 0.60
    table.loc["P9", ["p_control", "p_NPM1", f"p_{long_name}"]] = [0.8, 0.1, 0.1]
    write_table(run / "predictions.csv", table.reset_index())
    source = run.parent.parent / "noise.zarr" / "source.json"
    steps = [Exclusion(f"a reason with {long_name}", 2, 9, 3, 11), Exclusion("age missing", 0, 9, 1, 10)]
    source.write_text(json.dumps(json.loads(source.read_text()) | {"notes": flow_notes(11, steps, 14)}))
    return run


@pytest.fixture(scope="module")
def report(run: Path) -> str:
    return write.write_report(run, ReportSettings()).as_uri()


@pytest.fixture
def opened(browser: "Browser") -> Iterator[OpenPage]:
    """Open pages offline; whatever a page complains of or asks the network for fails the test."""
    context = browser.new_context(offline=True)
    complaints = []

    def route(route: "Route") -> None:
        if route.request.url.startswith(("file:", "data:")):
            route.continue_()
        else:
            complaints.append(f"asked for {route.request.url}")
            route.abort()

    def open_page(url: str, width: int = 1400) -> "Page":
        page = context.new_page()
        page.set_viewport_size({"width": width, "height": 900})
        page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(url)
        return page

    context.route("**/*", route)
    yield open_page
    context.close()
    assert complaints == []


def overflow(page: "Page") -> int:
    return page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")


def shown(page: "Page") -> list[str]:
    return page.locator("details.patient:visible .who").all_inner_texts()


@pytest.mark.parametrize("width", WIDTHS)
def test_pictures_of_an_opened_patient_are_seen_and_nothing_overflows(
    report: str, opened: OpenPage, width: int
) -> None:
    page = opened(report, width)
    assert overflow(page) <= 0
    page.locator("details.patient summary").first.click()
    page.evaluate("Promise.all([...document.querySelectorAll('details[open] img')].map((image) => image.decode()))")
    widths = page.locator("details.patient[open] img").evaluate_all(
        "images => images.map((image) => image.naturalWidth)"
    )
    assert widths == [36] * 12
    assert overflow(page) <= 0


def test_search_filters_by_id(report: str, opened: OpenPage) -> None:
    page = opened(report)
    page.get_by_label("Patient", exact=True).fill("p3")
    assert shown(page) == ["P3"]
    assert page.locator("output").inner_text() == "1 of 9 shown"


def test_filters_by_label_and_by_error_work_together(report: str, opened: OpenPage) -> None:
    page = opened(report)
    page.get_by_label("Prediction", exact=True).select_option("wrong")
    assert shown(page) == ["P3", "P6", "P9"]
    page.get_by_label("Label", exact=True).select_option("control")
    assert shown(page) == []
    page.get_by_label("Prediction", exact=True).select_option("right")
    assert shown(page) == ["P1", "P4", "P7"]
    page.get_by_role("button", name="Clear").click()
    assert len(shown(page)) == 9


RANGES = [("0.6", "", 9), ("0.61", "", 1), ("0.8", "0.8", 1), ("", "0.60", 8), ("0.9", "", 0), ("0.7", "0.5", 0)]


@pytest.mark.parametrize(("least", "most", "found"), RANGES)
def test_confidence_filters_by_what_is_printed(
    report: str, opened: OpenPage, least: str, most: str, found: int
) -> None:
    page = opened(report)
    page.get_by_label("from", exact=True).fill(least)
    page.get_by_label("to", exact=True).fill(most)
    assert len(shown(page)) == found


@pytest.mark.parametrize("width", WIDTHS)
def test_keyboard_alone_reaches_every_filter_and_the_patients(report: str, opened: OpenPage, width: int) -> None:
    page = opened(report, width)
    page.get_by_label("Patient", exact=True).focus()
    for key in ("p", "Tab", "r", "Tab", "w", "Tab", "ArrowUp", "Tab", "1", *["Tab"] * 4, "Enter"):
        page.keyboard.press(key)
    values = page.locator("form.filter").evaluate("form => [...new FormData(form).values()]")
    assert [value[:5] for value in values] == ["p", "RUNX1", "wrong", "0.05", "1"]
    assert page.locator("details.patient[open] .who").all_inner_texts() == ["P3"]
    assert overflow(page) <= 0


def test_linked_patient_is_shown_though_the_filter_hides_it(report: str, opened: OpenPage) -> None:
    page = opened(report)
    page.get_by_label("Patient", exact=True).fill("p3")
    anchor = page.locator("details.patient").nth(4).get_attribute("id")
    page.evaluate("(anchor) => { location.hash = anchor; }", anchor)
    page.wait_for_function("document.querySelector('details.patient[open]')")
    assert len(shown(page)) == 9
    assert page.locator("details.patient[open] .who").all_inner_texts() == ["P5"]


def test_keyboard_opens_a_patient_and_shows_where_it_is(report: str, opened: OpenPage) -> None:
    page = opened(report)
    page.get_by_role("button", name="Close all").focus()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.tagName") == "SUMMARY"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    assert page.locator("details.patient[open] .who").all_inner_texts() == ["P1"]


def test_page_works_without_scripts(report: str, browser: "Browser") -> None:
    context = browser.new_context(offline=True, java_script_enabled=False)
    page = context.new_page()
    page.goto(report)
    assert page.locator("form.filter").is_hidden()
    page.locator("details.patient summary").nth(1).click()
    assert page.locator("details.patient[open] img").count() == 11
    context.close()


def test_malformed_hash_does_not_break_the_filter(report: str, opened: OpenPage) -> None:
    page = opened(f"{report}#%E0%A4%A")
    page.get_by_label("Patient", exact=True).fill("p3")
    assert shown(page) == ["P3"]


def test_hash_opens_the_patient_that_it_names(report: str, opened: OpenPage) -> None:
    page = opened(report)
    anchor = page.locator("details.patient").nth(4).get_attribute("id")
    page = opened(f"{report}#{anchor}")
    assert page.locator("details.patient[open] .who").all_inner_texts() == ["P5"]


@pytest.mark.parametrize("width", WIDTHS)
def test_keyboard_stops_at_regions_that_scroll_and_at_no_others(report: str, opened: OpenPage, width: int) -> None:
    page = opened(report, width)
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    regions = page.locator(".scroll").evaluate_all(
        "all => all.map((region) => [region.scrollWidth > region.clientWidth, region.tabIndex === 0])"
    )
    assert [stops for _, stops in regions] == [scrolls for scrolls, _ in regions]


def test_keyboard_scrolls_a_wide_table_on_a_phone(report: str, opened: OpenPage) -> None:
    page = opened(report, 390)
    table = page.locator("#cohort .scroll")
    table.evaluate("(node) => { window.scrolled = new Promise((done) => node.addEventListener('scroll', done)); }")
    table.focus()
    page.keyboard.press("ArrowRight")
    assert table.evaluate("(node) => window.scrolled.then(() => node.scrollLeft)") > 0


@pytest.mark.parametrize("width", WIDTHS)
def test_boxes_of_the_flow_stand_below_each_other_within_their_frame(report: str, opened: OpenPage, width: int) -> None:
    page = opened(report, width)
    frame = page.get_by_role("figure", name="Flow of patients")
    outer = frame.bounding_box()
    boxes = [box.bounding_box() for box in frame.locator(".box").all()]
    assert outer
    assert len(boxes) == 4
    assert all(upper["y"] + upper["height"] < lower["y"] for upper, lower in pairwise(boxes))
    assert all(outer["x"] < box["x"] and box["x"] + box["width"] < outer["x"] + outer["width"] for box in boxes)
    assert frame.get_by_role("listitem").count() == 4


@pytest.mark.parametrize("width", WIDTHS)
def test_cell_ids_can_be_read_without_hovering(report: str, opened: OpenPage, width: int) -> None:
    page = opened(report, width)
    page.locator("details.patient summary").first.click()
    ids = page.locator("details.patient[open] .cell-id:visible")
    assert sorted(ids.all_inner_texts()) == sorted(f"c0/{number}" for number in range(12))


@pytest.mark.parametrize("page_of", ["index", "patient"])
def test_headings_jump_no_level(run: Path, opened: OpenPage, monkeypatch: pytest.MonkeyPatch, page_of: str) -> None:
    folder = run.with_name(f"headings-{page_of}-{os.getpid()}")
    shutil.copytree(run, folder)
    if page_of == "patient":
        monkeypatch.setattr(write, "CARDS_LIMIT", 1000)
    index = write.write_report(folder, ReportSettings())
    page = opened((index if page_of == "index" else next((index.parent / "patients").iterdir())).as_uri())
    levels = page.locator("h1, h2, h3, h4").evaluate_all("all => all.map((heading) => Number(heading.tagName[1]))")
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


UNNAMED = """() => {
  const labels = (node) => [...(node.labels || [])].map((label) => label.textContent);
  const names = (node) => [node.getAttribute("aria-label"), ...labels(node), node.textContent];
  const name = (node) => names(node).find((text) => text && text.trim());
  const controls = "a, button, input, select, summary, [tabindex], [role=img], [role=group], [role=search]";
  const unnamed = [...document.querySelectorAll(controls)].filter((node) => !name(node)).map((node) => node.outerHTML);
  const images = [...document.querySelectorAll("img")].filter((image) => !image.alt.trim());
  return [...unnamed, ...images.map((image) => image.outerHTML)].map((text) => text.slice(0, 120));
}"""
"""Controls and pictures that a screen reader could not name."""

FAINT = """() => {
  const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const part = (value) => (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const light = ([red, green, blue]) => 0.2126 * part(red) + 0.7152 * part(green) + 0.0722 * part(blue);
  const ground = (node) => {
    for (; node; node = node.parentElement) {
      const colour = channels(getComputedStyle(node).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), faint = new Set();
  while (texts.nextNode()) {
    const node = texts.currentNode.parentElement, style = getComputedStyle(node);
    const seen = texts.currentNode.textContent.trim() && node.checkVisibility({ visibilityProperty: true });
    if (!seen || node.closest("script, style, [aria-label^=Confusion]")) continue;
    const [one, other] = [channels(node.closest("svg") ? style.fill : style.color), ground(node)].map(light);
    const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    if (contrast < 4.5) faint.add(`${contrast.toFixed(2)} ${node.outerHTML.slice(0, 100)}`);
  }
  return [...faint];
}"""
"""Texts with less contrast than 4.5 (WCAG 2.2, 1.4.3); those in the squares of the confusion matrix are left out."""


@pytest.mark.parametrize("page_of", ["index", "patient"])
def test_everything_has_a_name_and_every_text_enough_contrast(
    run: Path, opened: OpenPage, monkeypatch: pytest.MonkeyPatch, page_of: str
) -> None:
    folder = run.with_name(f"named-{page_of}-{os.getpid()}")
    shutil.copytree(run, folder)
    write_attributes(run.parent.parent / "noise.zarr", {SCALE: 0.2})
    if page_of == "patient":
        monkeypatch.setattr(write, "CARDS_LIMIT", 1000)
    index = write.write_report(folder, ReportSettings())
    page = opened((index if page_of == "index" else next((index.parent / "patients").iterdir())).as_uri())
    page.locator("details").evaluate_all("all => all.forEach((details) => { details.open = true; })")
    assert page.locator("img").count() > 10
    assert page.evaluate(UNNAMED) == []
    assert page.evaluate(FAINT) == []
    assert page.evaluate("document.documentElement.lang") == "en"


def test_the_checks_of_names_and_contrast_see_what_lacks_them(report: str, opened: OpenPage) -> None:
    page = opened(report)
    lacking = '<button></button><img alt="" src="data:,"><p style="color:#999;background:#fff">faint</p>'
    page.evaluate("(markup) => document.querySelector('#care').insertAdjacentHTML('beforeend', markup)", lacking)
    assert [text[:4] for text in page.evaluate(UNNAMED)] == ["<but", "<img"]
    assert [text[:4] for text in page.evaluate(FAINT)] == ["2.85"]


@pytest.mark.parametrize("width", WIDTHS)
def test_a_bar_is_as_long_as_its_share_of_the_picture_above_it(run: Path, opened: OpenPage, width: int) -> None:
    folder = run.with_name(f"bars-{width}-{os.getpid()}")
    shutil.copytree(run, folder)
    write_attributes(run.parent.parent / "noise.zarr", {SCALE: 0.2})  # 36 px are 7.2 µm, and the bar is 2
    page = opened(write.write_report(folder, ReportSettings()).as_uri(), width)
    page.locator("details.patient summary").first.click()
    image, bar = (page.locator(f"details[open] .picture > {part}").first.bounding_box() for part in ("img", ".scale"))
    assert image
    assert bar
    assert bar["width"] / image["width"] == pytest.approx(2 / 7.2, abs=0.01)
    assert bar["y"] >= image["y"] + image["height"]  # no pixel of the cell is hidden


def test_print_opens_all_patients(report: str, opened: OpenPage, tmp_path: Path) -> None:
    page = opened(report)
    count = "document.querySelectorAll('details.patient[open]').length"
    page.evaluate(f"window.addEventListener('beforeprint', () => {{ window.printed = {count}; }})")
    page.pdf(path=tmp_path / "report.pdf", prefer_css_page_size=True)
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")
    assert page.evaluate("window.printed") == 9
    assert page.locator("details[open]").count() == 0  # closed again


@pytest.mark.parametrize("width", [1400, 390])
def test_pages_of_patients_lead_there_and_back(
    run: Path, opened: OpenPage, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setattr(write, "CARDS_LIMIT", 1000)
    folder = run.with_name(f"split-{width}-{os.getpid()}")
    shutil.copytree(run, folder)
    page = opened(write.write_report(folder, ReportSettings()).as_uri(), width)
    page.locator("details.patient summary").nth(2).click()
    page.get_by_role("link", name="Show the cells of P3").click()
    assert page.locator("h1").inner_text() == "P3"
    assert page.locator("img").count() == 12
    assert overflow(page) <= 0
    page.get_by_role("link", name="Next: P4").click()
    page.get_by_role("link", name="Previous: P3").click()
    page.get_by_role("link", name="All patients").click()
    assert page.locator("details.patient[open] .who").all_inner_texts() == ["P3"]


def test_way_back_from_a_patient_s_page_finds_the_list_as_it_was(
    run: Path, opened: OpenPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write, "CARDS_LIMIT", 1000)
    folder = run.with_name(f"back-{os.getpid()}")
    shutil.copytree(run, folder)
    page = opened(write.write_report(folder, ReportSettings()).as_uri())
    page.get_by_label("Prediction", exact=True).select_option("wrong")
    page.get_by_label("to", exact=True).fill("0.7")
    before = shown(page)
    page.locator("details.patient:visible summary").nth(1).click()
    page.get_by_role("link", name=f"Show the cells of {before[1]}").click()
    assert page.locator("h1").inner_text() == before[1]
    page.go_back()
    assert shown(page) == before
    assert page.get_by_label("Prediction", exact=True).input_value() == "wrong"
    assert page.locator("details.patient[open] .who").all_inner_texts() == [before[1]]
    page.reload()
    assert shown(page) == before
