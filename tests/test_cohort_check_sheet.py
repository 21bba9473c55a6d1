"""The contact sheet of a check: the worst cells of each finding, offline, escaped, nothing that others must not see."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from check_toys import draw_cell, drawn_cohort, jpeg
from PIL import Image, ImageFilter

from milkit.check import sheet as module
from milkit.check.files import CELLS, SHEET, write_check
from milkit.check.sheet import contact_sheet
from milkit.check.verb import check_cohort
from milkit.cohort import Cohort


class Page(HTMLParser):
    """Tags with their attributes, and the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += f"{data} "

    def pictures(self) -> list[str]:
        return [(given["alt"] or "").removeprefix("Cell ") for tag, given in self.tags if tag == "img"]


@pytest.fixture
def drawn(tmp_path: Path) -> Cohort:
    """Thirty drawn cells: one that cannot be read, two clipped ones, a copy."""
    cohort = drawn_cohort(tmp_path / "drawn")
    (cohort.root / "cell_2.jpg").write_bytes(b"no image")
    for number, rows in ((5, 12), (6, 40)):
        image = draw_cell(number)
        image.paste("white", (0, 0, 128, rows))
        (cohort.root / f"cell_{number}.jpg").write_bytes(jpeg(image))
    (cohort.root / "cell_20.jpg").write_bytes((cohort.root / "cell_8.jpg").read_bytes())
    return cohort


def test_each_finding_shows_its_cells_the_worst_first(drawn: Cohort) -> None:
    page = Page(contact_sheet(check_cohort(drawn)))
    assert page.pictures() == ["cell_8", "cell_20", "cell_6", "cell_5"]
    text = " ".join(page.text.split())
    assert "unreadable 1 cell" in text
    assert "cell_2 BNE" not in text
    assert "cell_2 EO the file is not an image" in text
    assert "cell_20 EO copy of cell_8" in text
    assert re.search(r"cell_6 EO (2[5-9]|3[01])% white or black", text)


def test_the_page_loads_nothing_and_runs_nothing(drawn: Cohort) -> None:
    page = contact_sheet(check_cohort(drawn))
    tags = Page(page).tags
    assert all((given["src"] or "").startswith("data:image/") for tag, given in tags if tag == "img")
    assert {tag for tag, _ in tags}.isdisjoint({"script", "link", "iframe", "object", "a", "form"})
    assert "default-src 'none'" in page
    assert "http://" not in page
    assert "https://" not in page


def test_text_from_data_never_becomes_markup(drawn: Cohort) -> None:
    evil = "<script>alert(1)</script>\"'"
    cells = drawn.cells.assign(cell_id=[f"{evil}{name}" for name in drawn.cells["cell_id"]], cell_type=evil)
    (drawn.root / "cell_2.jpg").unlink()
    page = contact_sheet(check_cohort(replace(drawn, name="drawn", cells=cells, notes=(evil,))))
    assert "<script" not in page
    assert Page(page).text.count("<script>alert(1)</script>") > 4


def test_the_page_has_no_path_of_the_machine_and_no_id_beyond_the_table(drawn: Cohort) -> None:
    page = contact_sheet(check_cohort(drawn))
    assert str(drawn.root) not in page
    assert "patient" not in re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)


def test_only_the_worst_cells_are_shown_and_the_number_of_the_others_is_said(
    drawn: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SHOWN", 1)
    page = Page(contact_sheet(check_cohort(drawn)))
    assert page.pictures() == ["cell_8", "cell_6"]
    assert "2 cells, 1 shown" in page.text


def test_patients_are_named_where_there_are_any(toy_cohort: Cohort) -> None:
    Image.new("RGB", (12, 12)).save(toy_cohort.root / "P5/image_1.png")
    text = " ".join(Page(contact_sheet(check_cohort(toy_cohort))).text.split())
    assert "P5/image_1 patient P5 brightest value 0" in text


def test_a_sound_cohort_has_an_empty_sheet(tmp_path: Path) -> None:
    assert "Nothing was found." in Page(contact_sheet(check_cohort(drawn_cohort(tmp_path / "sound")))).text


def test_cells_of_a_field_are_shown_and_not_the_field(tmp_path: Path) -> None:
    cohort = drawn_cohort(tmp_path / "fields", 2)
    blurred = draw_cell(0).filter(ImageFilter.GaussianBlur(3))
    field = Image.new("RGB", (256, 128), "white")
    field.paste(blurred, (0, 0))
    field.save(cohort.root / "field.png")
    cells = cohort.cells.assign(path="field.png", box=["0 0 128 128", "128 0 128 128"])
    page = Page(contact_sheet(check_cohort(replace(cohort, cells=cells))))
    assert page.pictures() == ["cell_1"]


def test_table_and_sheet_are_replaced_by_the_next_check(drawn: Cohort, tmp_path: Path) -> None:
    write_check(check_cohort(drawn), tmp_path / "check")
    (drawn.root / "cell_2.jpg").write_bytes(jpeg(draw_cell(2)))
    write_check(check_cohort(drawn), tmp_path / "check")
    assert "unreadable" not in (tmp_path / "check" / SHEET).read_text(encoding="utf-8")
    assert sorted(path.name for path in (tmp_path / "check").iterdir()) == [CELLS, SHEET]
