"""The atlas as a person meets it: chromium opens the file with the network cut off, draws gates and looks at cells."""

import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from atlas_toys import PATIENTS, SIDE, first_two, make_run

from milkit.atlas.cell_map import write_map
from milkit.atlas.settings import MapSettings

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Route

pytestmark = [pytest.mark.browser, pytest.mark.slow]

WIDTHS = (1400, 820, 390)
HOSTILE = "<script>alert(1)</script>"
FORMULA = "=cmd|' /C calc'!A0"
CLASSES = ('a,"b"', "</div><img src=x onerror=alert(1)>", "control")

OpenPage = Callable[..., "Page"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("кровь")
    run = make_run(root, patients=[HOSTILE, FORMULA, *PATIENTS[2:]], classes=CLASSES, n_cells=30)
    (root / "images" / "0" / "3.png").write_text("no image")
    settings = MapSettings(run=run, neighbours=5, allow_identifiers="drawn pictures, and nobody's")
    write_map(settings, run / "atlas", embed=first_two)
    return run / "atlas"


@pytest.fixture
def opened(browser: "Browser", folder: Path) -> Iterator[OpenPage]:
    """Open the page offline; whatever it complains of or asks the network for fails the test."""
    contexts, complaints = [], []

    def route(route: "Route") -> None:
        if route.request.url.startswith(("file:", "data:", "blob:")):
            route.continue_()
        else:
            complaints.append(f"asked for {route.request.url}")
            route.abort()

    def open_page(width: int = 1400, **more: Any) -> "Page":
        context = browser.new_context(offline=True, viewport={"width": width, "height": 900}, **more)
        contexts.append(context)
        context.route("**/*", route)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(f"dialog: {dialog.message}"))
        page.goto((folder / "atlas.html").as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def overflow(page: "Page") -> int:
    return page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")


def drag(page: "Page", tool: str, shape: list[tuple[float, float]]) -> None:
    """Draw a gate through these points, given as shares of the map's width and height."""
    page.locator(f"button[data-tool={tool}]").click()
    page.locator("#map").scroll_into_view_if_needed()
    box = page.locator("#map").bounding_box()
    assert box
    places = [(box["x"] + box["width"] * a, box["y"] + box["height"] * b) for a, b in shape]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=8)
    page.mouse.up()


def saved(page: "Page", button: str) -> str:
    with page.expect_download() as download:
        page.locator(button).click()
    return download.value.path().read_text(encoding="utf-8-sig")


def in_polygon(points: np.ndarray, polygon: np.ndarray) -> np.ndarray:
    """Even-odd rule: how often a ray to the right crosses an edge."""
    crossings = np.zeros(len(points), dtype=int)
    for (xi, yi), (xj, yj) in zip(polygon, np.roll(polygon, 1, axis=0), strict=True):
        spans = (yi > points[:, 1]) != (yj > points[:, 1])
        with np.errstate(divide="ignore", invalid="ignore"):
            meets = (xj - xi) * (points[:, 1] - yi) / (yj - yi) + xi
        crossings += spans & (points[:, 0] < meets)
    return crossings % 2 == 1


RECTANGLE = [(0.15, 0.2), (0.6, 0.7)]
LASSO = [(0.4, 0.3), (0.85, 0.25), (0.6, 0.5), (0.9, 0.8), (0.45, 0.85)]


def unapostrophed(text: str) -> str:
    return text.removeprefix("'")


@pytest.mark.parametrize("width", WIDTHS)
def test_the_exported_counts_are_those_of_an_oracle(opened: OpenPage, folder: Path, width: int) -> None:
    page = opened(width)
    drag(page, "rectangle", RECTANGLE)
    drag(page, "lasso", LASSO)
    page.get_by_label("Name of the gate").first.fill('=blasts, "low"')
    page.get_by_label("Name of the gate").first.press("Enter")
    gates = json.loads(saved(page, "#json"))["gates"]
    text = saved(page, "#csv")
    assert [gate["name"] for gate in gates] == ['=blasts, "low"', "Gate 2"]
    cells = pd.read_parquet(folder / "atlas.parquet")
    inside = [in_polygon(cells[["x", "y"]].to_numpy(), np.array(gate["points"])) for gate in gates]
    assert all(0 < mask.sum() < len(cells) for mask in inside)
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == len(PATIENTS)
    for row in rows:
        own = (cells["patient_id"] == unapostrophed(row["patient_id"])).to_numpy()
        assert int(row["cells_on_map"]) == int(row["cells_shown"]) == own.sum()
        names = ['\'=blasts, "low"', "Gate 2", "any gate"]
        for name, mask in zip(names, [*inside, inside[0] | inside[1]], strict=True):
            assert int(row[f"{name}: cells"]) == (mask & own).sum()
            assert float(row[f"{name}: share"]) == (mask & own).sum() / own.sum()
    assert not [line for line in text.splitlines() if line.startswith("=")]
    assert f"'{FORMULA}" in text
    assert page.locator("#counts tbody tr").count() == len(PATIENTS)
    assert overflow(page) <= 0


def test_what_is_switched_off_is_neither_in_a_gate_nor_in_the_total(opened: OpenPage, folder: Path) -> None:
    page = opened()
    drag(page, "rectangle", [(0.01, 0.01), (0.99, 0.99)])
    page.get_by_label("Colour by").select_option(label="Cell type")
    page.get_by_role("button", name="blast").click()
    rows = list(csv.DictReader(io.StringIO(saved(page, "#csv"))))
    for row in rows:
        assert int(row["cells_shown"]) == int(row["Gate 1: cells"]) < int(row["cells_on_map"])
    cells = len(pd.read_parquet(folder / "atlas.parquet"))
    assert "switched off: blast (Cell type)" in page.locator("#drawn").inner_text()
    page.get_by_label("Colour by").select_option(label="Class")  # it stays off when another colour is chosen
    assert not page.locator("#drawn").inner_text().startswith(f"{cells} of")
    page.get_by_role("button", name="Show all").click()
    assert page.locator("#drawn").inner_text() == f"{cells} of {cells} cells drawn"


def test_pointing_at_a_cell_shows_its_decoded_picture_and_what_is_known_of_it(opened: OpenPage, folder: Path) -> None:
    page = opened()
    cells = pd.read_parquet(folder / "atlas.parquet").set_index("cell_id")
    box = page.locator("#map").bounding_box()
    assert box
    for share in np.linspace(0.05, 0.95, 40):  # somewhere on the way is a cell
        page.mouse.move(box["x"] + box["width"] * share, box["y"] + box["height"] * 0.5)
        if page.locator("#picture").is_visible():
            break
    page.evaluate("document.getElementById('picture').decode()")
    assert page.evaluate("document.getElementById('picture').naturalWidth") == SIDE
    told = dict(
        zip(page.locator("#about dt").all_inner_texts(), page.locator("#about dd").all_inner_texts(), strict=True)
    )
    assert told["Patient"] == cells.loc[told["Cell"], "patient_id"]
    attention = pd.read_parquet(folder.parent / "attention.parquet").set_index("cell_id")
    assert float(told["Weight"]) == pytest.approx(attention.loc[told["Cell"], "weight"], rel=0.01)
    assert {"Class", "Cell type", "Percentile of attention", "Site", "Training and held out"} <= told.keys()
    assert page.locator("#picture").get_attribute("alt") == f"Cell {told['Cell']} of patient {told['Patient']}"


def test_arrow_keys_reach_cells_and_a_gate_without_a_pointer(opened: OpenPage, folder: Path) -> None:
    page = opened()
    page.locator("#map").focus()
    reached = []
    for key in ("ArrowRight", "ArrowRight", "r", "ArrowDown", "ArrowDown", "ArrowRight", "ArrowRight", "r"):
        page.keyboard.press(key)
        reached.append(page.locator("#about dd").first.inner_text())
    assert len(set(reached)) >= 4
    assert reached[-1] in page.locator("#said").text_content() or "corner" in page.locator("#said").text_content()
    cells = pd.read_parquet(folder / "atlas.parquet").set_index("cell_id")
    corners = cells.loc[[reached[1], reached[-1]], ["x", "y"]]
    low, high = corners.min(), corners.max()
    expected = ((cells["x"].between(low["x"], high["x"])) & (cells["y"].between(low["y"], high["y"]))).sum()
    assert page.locator("#gate-list .n").inner_text() == f"{expected} cells"


def test_arrow_keys_go_where_they_point(opened: OpenPage, folder: Path) -> None:
    page = opened()
    cells = pd.read_parquet(folder / "atlas.parquet").set_index("cell_id")
    page.locator("#map").focus()
    page.keyboard.press("ArrowRight")
    before = cells.loc[page.locator("#about dd").first.inner_text()]
    for key, column, sign in (
        ("ArrowRight", "x", 1),
        ("ArrowUp", "y", 1),
        ("ArrowLeft", "x", -1),
        ("ArrowDown", "y", -1),
    ):
        page.keyboard.press(key)
        after = cells.loc[page.locator("#about dd").first.inner_text()]
        assert (after[column] - before[column]) * sign > 0
        before = after


def test_a_cell_whose_image_cannot_be_read_says_so(opened: OpenPage) -> None:
    page = opened()
    page.get_by_label("Show one patient").select_option(label=HOSTILE)
    page.locator("#map").focus()
    for key in ["ArrowRight"] + ["ArrowLeft"] * 40 + ["ArrowDown"] * 40 + ["ArrowRight", "ArrowUp"] * 40:
        page.keyboard.press(key)
        if page.locator("#absent").is_visible():
            assert page.locator("#about dd").first.inner_text() == f"{HOSTILE}/c3"
            return
    pytest.fail("the keys did not come by that cell")


def test_gates_are_saved_opened_renamed_and_removed(opened: OpenPage, tmp_path: Path) -> None:
    page = opened()
    drag(page, "lasso", LASSO)
    text, counts = saved(page, "#json"), page.locator("#gate-list .n").inner_text()
    page.get_by_role("button", name="Remove").click()
    assert page.locator("#counts").is_hidden()
    (tmp_path / "gates.json").write_text(text)
    page.locator("#file").set_input_files(tmp_path / "gates.json")
    assert page.locator("#gate-list .n").inner_text() == counts
    assert json.loads(saved(page, "#json"))["gates"] == json.loads(text)["gates"]
    (tmp_path / "other.json").write_text(json.dumps(json.loads(text) | {"points": "of another map"}))
    page.locator("#file").set_input_files(tmp_path / "other.json")
    assert page.locator("#warning").inner_text() == "The gates were not opened: they were drawn on another map."
    assert page.locator("#gate-list li").count() == 1


def test_the_table_sorts_by_share(opened: OpenPage) -> None:
    page = opened()
    drag(page, "rectangle", RECTANGLE)
    page.locator("#counts thead button", has_text="Gate 1").click()
    shares = [
        float(text.split("(")[1].split()[0]) for text in page.locator("#counts tbody td:nth-child(5)").all_inner_texts()
    ]
    assert shares == sorted(shares, reverse=True)
    assert len(set(shares)) > 1


def test_a_finger_draws_a_gate_and_taps_a_cell(opened: OpenPage) -> None:
    page = opened(820, has_touch=True)
    page.locator("button[data-tool=lasso]").click()  # a slow tap would be a long press
    page.locator("canvas[data-tool=lasso]").wait_for()
    assert page.locator("#map").evaluate("map => getComputedStyle(map).touchAction") == "none"
    box = page.locator("#map").bounding_box()
    assert box
    session = page.context.new_cdp_session(page)
    places = [{"x": box["x"] + box["width"] * a, "y": box["y"] + box["height"] * b} for a, b in LASSO]
    for kind, points in [
        ("touchStart", places[:1]),
        *(("touchMove", [place]) for place in places[1:]),
        ("touchEnd", []),
    ]:
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    assert page.locator("#gate-list li").count() == 1
    page.locator("button[data-tool=look]").click()
    page.locator("canvas[data-tool=look]").wait_for()
    assert page.locator("#map").evaluate("map => getComputedStyle(map).touchAction") == "pan-y"
    for share in np.linspace(0.2, 0.8, 20):
        page.touchscreen.tap(box["x"] + box["width"] * share, box["y"] + box["height"] * 0.5)
        if page.locator("#picture").is_visible():
            break
    assert page.locator("#about dd").count() > 0


@pytest.mark.parametrize("width", WIDTHS)
def test_text_from_data_is_text_and_nothing_overflows(opened: OpenPage, width: int) -> None:
    page = opened(width)
    assert HOSTILE in page.locator("#patient").inner_text()
    assert page.locator("#legend span").filter(has_text="<img src=x").count() == 1
    assert page.locator("script").count() == 1
    assert page.locator("img").count() == 1
    assert overflow(page) <= 0


def test_categories_differ_in_more_than_their_colour(opened: OpenPage) -> None:
    page = opened()
    looks = page.locator("#legend i").evaluate_all(
        "all => all.map((swatch) => [swatch.style.background, swatch.style.clipPath])"
    )
    assert len({hue for hue, _ in looks}) == len({shape for _, shape in looks}) == len(looks) == 3


def test_the_map_is_drawn_and_grows(opened: OpenPage) -> None:
    page = opened()
    ink = "document.getElementById('map').toDataURL()"
    page.wait_for_timeout(200)
    whole = page.evaluate(ink)
    assert len(whole) > 5000
    page.get_by_role("button", name="Larger").click()
    page.wait_for_timeout(200)
    assert page.evaluate(ink) != whole
    page.get_by_role("button", name="Whole map").click()
    page.wait_for_timeout(200)
    assert page.evaluate(ink) == whole


def test_the_page_says_what_it_needs_without_its_script(browser: "Browser", folder: Path) -> None:
    context = browser.new_context(offline=True, java_script_enabled=False)
    page = context.new_page()
    page.goto((folder / "atlas.html").as_uri())
    assert "This page needs its script" in (page.locator("noscript").text_content() or "")
    assert page.locator("#map").is_hidden()
    assert page.get_by_role("heading", name="How this map was made").is_visible()
    context.close()
