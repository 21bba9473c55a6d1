"""The blinded page as a reader meets it: headless chromium, the network cut off, keyboard and touch."""

import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest
from review_toys import key_of, review_run
from typer.testing import CliRunner

from milkit.cli import app
from milkit.review.labels import read_labels
from milkit.review.out import Review, write_review
from milkit.tables import read_table

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page, Route

pytestmark = [pytest.mark.browser, pytest.mark.slow]

WIDTHS = (1400, 820, 390)
KEYS = "12345678b9mflapetsx0"
NAMED = ["myeloblast", "promyelocyte", "myelocyte", "metamyelocyte", "neutrophil_band", "neutrophil_segmented",
         "lymphocyte", "monocyte", "basophil", "eosinophil", "monoblast", "faggot_cell", "lymphoblast",
         "lymphocyte_atypical", "plasma_cell", "erythroblast", "platelet", "smudge_cell", "artefact",
         "unclear"]  # fmt: skip

OpenPage = Callable[..., "Page"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return review_run(tmp_path_factory.mktemp("browser"))


@pytest.fixture(scope="module")
def made(run: Path) -> Review:
    return write_review(run, n_cells=20, n_twice=0)


@pytest.fixture
def context(browser: "Browser") -> Iterator["BrowserContext"]:
    """A browser of its own, offline; whatever a page complains of or asks the network for fails the test."""
    context = browser.new_context(offline=True, accept_downloads=True)
    complaints: list[str] = []

    def route(route: "Route") -> None:
        if route.request.url.startswith(("file:", "data:", "blob:")):
            route.continue_()
        else:
            complaints.append(f"asked for {route.request.url}")
            route.abort()

    context.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
    context.on("weberror", lambda error: complaints.append(str(error.error)))
    context.route("**/*", route)
    yield context
    context.close()
    assert complaints == []


@pytest.fixture
def opened(context: "BrowserContext", made: Review) -> OpenPage:
    """Open the page, and start as a reader unless none is named."""

    def open_page(reader: str = "", width: int = 1400, path: Path = made.page) -> "Page":
        page = context.new_page()
        page.set_viewport_size({"width": width, "height": 900})
        page.goto(path.as_uri())
        if reader:
            page.get_by_label("Your name or initials").fill(reader)
            page.keyboard.press("Enter")
        return page

    return open_page


def press(page: "Page", keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def place(page: "Page") -> str:
    return page.locator("#place").inner_text()


def marks(page: "Page") -> list[str]:
    return page.locator("#overview .mark").all_inner_texts()


def saved(page: "Page", kind: str, folder: Path) -> Path:
    with page.expect_download() as download:
        page.get_by_role("button", name=f"Save {kind}").click()
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


def overflow(page: "Page") -> int:
    return page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")


@pytest.mark.parametrize("kind", ["CSV", "JSON"])
def test_twenty_labels_by_keyboard_outlive_closing_and_come_back_the_same(
    run: Path, made: Review, opened: OpenPage, tmp_path: Path, kind: str
) -> None:
    page = opened("A. Müller")
    press(page, KEYS[:11])
    assert place(page) == "Cell 12 of 20"
    page.close()
    page = opened()
    page.get_by_role("button", name="A. Müller (11 of 20)").click()
    assert place(page) == "Cell 12 of 20"
    press(page, KEYS[11:15])
    page.reload()
    page.get_by_role("button", name="A. Müller (15 of 20)").click()
    press(page, KEYS[15:])
    assert page.locator("#count").inner_text() == "20 of 20 labelled"
    assert page.get_by_text("All cells are labelled. Save a file and return it.").is_visible()
    path = saved(page, kind, tmp_path)
    assert path.name == f"review-{made.review}-A-Mu-ller.{kind.lower()}"

    result = CliRunner().invoke(app, ["review", "in", str(path), "--run", str(run), "--json"])
    assert result.exit_code == 0, (result.output, result.exception)
    assert json.loads(result.stdout)["readers"] == {"A. Müller": 20}
    labels = read_table(run / "review" / f"{made.review}.labels.csv")
    assert labels["label"].tolist() == NAMED
    assert labels["code"].tolist() == [item["code"] for item in key_of(made)["items"]]
    expert = read_table(run / "expert_labels.csv").set_index("cell_id")["cell_type"]
    expected = pd.DataFrame(key_of(made)["items"]).assign(label=NAMED).set_index("cell_id")["label"]
    assert expert.to_dict() == expected.replace("unclear", None).to_dict() | {
        cell: pytest.approx(float("nan"), nan_ok=True) for cell in expected.index[expected == "unclear"]
    }


def test_every_picture_is_decoded(opened: OpenPage) -> None:
    page = opened("A")
    page.evaluate("Promise.all([...document.images].map((image) => image.decode()))")
    widths = page.locator("img").evaluate_all("images => images.map((image) => image.naturalWidth)")
    assert widths == [36] * 21


def test_pixels_are_shown_in_whole_multiples(opened: OpenPage) -> None:
    page = opened("A")
    width = "document.getElementById('picture').getBoundingClientRect().width / 36"
    assert page.evaluate(width) == 8
    press(page, "---")
    assert page.evaluate(width) == 5
    assert page.locator("#scale").inner_text() == "5 × true pixels"
    press(page, "+")
    assert page.evaluate(width) == 6


def test_undo_takes_back_labels_one_by_one_also_after_a_reload(opened: OpenPage) -> None:
    page = opened("A")
    press(page, "123")
    page.keyboard.press("ArrowLeft")
    press(page, "9")  # the third cell is labelled anew
    page.reload()
    page.get_by_role("button", name="A (3 of 20)").click()
    page.keyboard.press("u")
    assert place(page) == "Cell 3 of 20"
    assert page.locator("#given").inner_text() == "myelocyte"
    page.keyboard.press("Control+z")
    page.get_by_role("button", name="Undo").click()
    assert marks(page)[:3] == ["myeloblast", "", ""]
    assert place(page) == "Cell 2 of 20"


def test_search_finds_every_node_and_enter_takes_the_first(opened: OpenPage) -> None:
    page = opened("A")
    page.keyboard.press("/")
    page.keyboard.type("hairy")
    assert page.locator("#found").inner_text() == "1 found, first: hairy cell"
    page.keyboard.press("Enter")
    assert marks(page)[:2] == ["hairy cell", ""]
    press(page, "1")  # the field has been left
    assert marks(page)[1] == "myeloblast"
    page.keyboard.press("/")
    page.keyboard.type("mature")
    page.get_by_role("button", name="lymphoid mature", exact=True).click()
    assert marks(page)[2] == "lymphoid mature"
    assert page.get_by_label("All labels").input_value() == ""


def test_comments_are_kept_and_their_letters_label_nothing(opened: OpenPage, tmp_path: Path) -> None:
    page = opened("A")
    page.keyboard.press("c")
    page.keyboard.type('=mess, "1" u;')
    page.keyboard.press("Escape")
    press(page, "1")
    assert page.locator("#comment").input_value() == ""  # that of the next cell
    page.reload()
    page.get_by_role("button", name="A (1 of 20)").click()
    page.keyboard.press("ArrowLeft")
    assert page.locator("#comment").input_value() == '=mess, "1" u;'
    path = saved(page, "CSV", tmp_path)
    text = path.read_bytes().decode("utf-8-sig")
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert rows[0]["comment"] == '\'=mess, "1" u;'
    assert read_labels(path).rows[0]["comment"] == '=mess, "1" u;'
    assert [row["label"] for row in rows] == ["myeloblast", *[""] * 19]


def test_two_readers_of_one_browser_do_not_see_each_other_s_labels(opened: OpenPage) -> None:
    page = opened("A")
    press(page, "11")
    page.get_by_role("button", name="Change reader").click()
    page.get_by_label("Your name or initials").fill("B")
    page.keyboard.press("Enter")
    assert marks(page) == [""] * 20
    press(page, "222")
    page.get_by_role("button", name="Change reader").click()
    assert page.locator("#known button").all_inner_texts() == ["A (2 of 20)", "B (3 of 20)"]


def test_two_windows_of_one_reader_do_not_overwrite_each_other(opened: OpenPage) -> None:
    first = opened("A")
    press(first, "1")
    second = opened()
    second.get_by_role("button", name="A (1 of 20)").click()
    press(second, "2")
    first.locator("#overview li:nth-child(2) .mark", has_text="promyelocyte").wait_for()
    first.keyboard.press("ArrowRight")
    press(first, "8")
    second.locator("#overview li:nth-child(3) .mark", has_text="monocyte").wait_for()
    assert marks(first)[:3] == marks(second)[:3] == ["myeloblast", "promyelocyte", "monocyte"]


def test_named_readers_are_chosen_from_a_list(run: Path, opened: OpenPage) -> None:
    page = opened(path=write_review(run, n_cells=3, n_twice=0, readers=("A. Meyer", "B & C")).page)
    page.get_by_label("Your name or initials").select_option("B & C")
    page.get_by_role("button", name="Start").click()
    assert page.locator("#name").inner_text() == "B & C"


def test_a_browser_that_keeps_nothing_warns_and_goes_on_from_a_file(
    context: "BrowserContext", opened: OpenPage, tmp_path: Path
) -> None:
    context.add_init_script("Object.defineProperty(window, 'localStorage', { get() { throw new Error('refused'); } })")
    page = opened("A")
    assert "keeps nothing for this page" in page.get_by_role("alert").inner_text()
    press(page, "1234")
    asked = page.evaluate("!window.dispatchEvent(new Event('beforeunload', { cancelable: true }))")
    path = saved(page, "JSON", tmp_path)
    assert asked
    assert not page.evaluate("!window.dispatchEvent(new Event('beforeunload', { cancelable: true }))")
    page.reload()
    assert not page.locator("#known").is_visible()
    page.get_by_label("Your name or initials").fill("A")
    page.keyboard.press("Enter")
    page.get_by_label("Go on from a JSON file").set_input_files(path)
    page.locator("#count", has_text="4 of 20 labelled").wait_for()
    assert place(page) == "Cell 5 of 20"


def test_files_of_others_are_not_taken(opened: OpenPage, tmp_path: Path) -> None:
    page = opened("B")
    press(page, "1")
    path = saved(page, "JSON", tmp_path)
    page.get_by_role("button", name="Change reader").click()
    page.get_by_label("Your name or initials").fill("A")
    page.keyboard.press("Enter")
    for content, sentence in [(path.read_text(), "another reader"), ("{}", "another review"), ("x", "no JSON file")]:
        (tmp_path / "given.json").write_text(content)
        page.get_by_label("Go on from a JSON file").set_input_files(tmp_path / "given.json")
        page.get_by_role("alert").filter(has_text=sentence).wait_for()
    assert page.locator("#count").inner_text() == "0 of 20 labelled"


def test_single_keys_can_be_switched_off(opened: OpenPage) -> None:
    page = opened("A")
    page.get_by_text("Keyboard", exact=True).click()
    page.get_by_label("Single keys give labels and move").uncheck()
    press(page, "12u")
    assert marks(page) == [""] * 20
    page.get_by_role("button", name="1 myeloblast").click()
    assert marks(page)[0] == "myeloblast"


def test_every_control_is_reached_by_tab_and_shows_it(opened: OpenPage) -> None:
    page = opened("A")
    seen = set()
    for _ in range(75):
        page.keyboard.press("Tab")
        seen.add(page.evaluate("document.activeElement.id || document.activeElement.dataset.label || ''"))
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert {"smaller", "next", "comment", "myeloblast", "unclear", "search", "hairy_cell"} <= seen


@pytest.mark.parametrize("width", WIDTHS)
def test_buttons_are_large_enough_for_fingers_and_nothing_overflows(opened: OpenPage, width: int) -> None:
    page = opened(width=width)
    assert overflow(page) <= 0
    page.get_by_label("Your name or initials").fill("A")
    page.get_by_role("button", name="Start").click()
    press(page, "6")
    assert overflow(page) <= 0
    heights = page.locator(".quick button, .moves button, .save button").evaluate_all(
        "all => all.map((button) => button.getBoundingClientRect().height)"
    )
    assert len(heights) == 25
    assert min(heights) >= 44
    cut = page.locator(".quick span, #overview .mark").evaluate_all(
        "all => all.filter((text) => text.scrollWidth > text.parentElement.clientWidth).length"
    )
    assert cut == 0


def test_on_a_phone_the_picture_stays_beside_the_labels(opened: OpenPage) -> None:
    page = opened("A", width=390)
    page.get_by_role("button", name="0 cannot tell").scroll_into_view_if_needed()
    page.get_by_role("button", name="0 cannot tell").click()
    box = page.locator("#picture").bounding_box()
    assert box
    assert 0 <= box["y"] < box["y"] + box["height"] < 450


def test_contrast_of_all_texts_is_enough(opened: OpenPage) -> None:
    """WCAG 2.2 AA: 4.5 to 1 against the nearest background that is not transparent."""
    page = opened("A")
    press(page, "1")
    page.keyboard.press("ArrowLeft")  # a label is marked as given
    ratios = page.evaluate("""() => {
        const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
        const linear = (v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
        const share = [0.2126, 0.7152, 0.0722];
        const light = (rgb) => share.reduce((sum, part, i) => sum + part * linear(rgb[i] / 255), 0);
        const behind = (node) => {
            for (let at = node; at; at = at.parentElement) {
                const colour = parts(getComputedStyle(at).backgroundColor);
                if (colour.length < 4 || colour[3] > 0.99) return colour;
            }
            return [255, 255, 255];
        };
        return [...document.querySelectorAll("main *")].filter((node) => node.checkVisibility() && !node.disabled
            && [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim())).map((node) => {
            const [a, b] = [light(parts(getComputedStyle(node).color)), light(behind(node))].sort((x, y) => y - x);
            return [(a + 0.05) / (b + 0.05), node.textContent.trim().slice(0, 30)]; });
    }""")
    assert len(ratios) > 80
    assert [text for ratio, text in ratios if ratio < 4.5] == []


def test_screen_readers_hear_where_they_are_and_nothing_of_the_cell(opened: OpenPage) -> None:
    page = opened("A")
    press(page, "8")
    assert page.get_by_role("status").first.inner_text() == "Cell 1: monocyte. Now cell 2."
    assert page.locator("#picture").get_attribute("alt") == "Cell 2"
    assert page.get_by_role("button", name="Cell 1, monocyte", exact=True).count() == 1
    assert page.locator("h1:visible, h2:visible").evaluate_all("all => all.map((h) => h.tagName)") == [
        "H1",
        *["H2"] * 4,
    ]
