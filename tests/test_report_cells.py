"""What stands beside a cell's picture and a patient's cells: scale bars, artefacts, and how attention is spread."""

import re
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from milkit.bags import SCALE, BagStore
from milkit.bags.files import write_attributes
from milkit.report.artefacts import Artefacts, artefact_sentence, read_flags, summed
from milkit.report.scale import scale_bar
from milkit.report.settings import ReportSettings
from milkit.report.weights_plot import HEIGHT, WIDTH, cells_with_half, weights_plot
from milkit.report.write import write_report

_PAGE_TESTS: dict[str, Any] = runpy.run_path(str(Path(__file__).with_name("test_report.py")))
make_run: Callable[..., Path] = _PAGE_TESTS["make_run"]
text_of: Callable[[str], str] = _PAGE_TESTS["text_of"]
read: Callable[[Path], str] = _PAGE_TESTS["read"]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run whose store lies where `milkit extract` puts it, so that a check can lie beside it."""
    first = make_run(tmp_path)
    place = tmp_path / "stores" / "noise" / "noise.zarr"
    place.parent.mkdir(parents=True)
    (tmp_path / "noise.zarr").rename(place)
    settings = first / "settings.yaml"
    settings.write_text(settings.read_text().replace(str(tmp_path / "noise.zarr"), str(place)))
    return first


def store_of(run: Path) -> Path:
    return run.parent.parent / "stores" / "noise" / "noise.zarr"


def check(run: Path, flags: dict[str, str], *, without: int = 0) -> None:
    """A table as `milkit cohort check` leaves it, without the last cells."""
    cells = BagStore.open(store_of(run)).cells[["cell_id", "patient_id", "path"]]
    table = cells.assign(flags=cells["cell_id"].map(flags).fillna(""))
    folder = run.parent.parent / "checks" / "noise"
    folder.mkdir(parents=True)
    table.iloc[: len(table) - without].to_csv(folder / "cells.csv", index=False)


@pytest.mark.parametrize(
    ("width", "size", "label", "share"),
    [
        (144, 24.9 / 144, "10 µm", 40.2),
        (288, 25 / 288, "10 µm", 40.0),
        (360, 0.1, "10 µm", 27.8),
        (36, 0.05, "0.5 µm", 27.8),
        (720, 0.3, "100 µm", 46.3),
    ],
)
def test_the_bar_is_the_longest_round_one_that_half_a_picture_holds(
    width: int, size: float, label: str, share: float
) -> None:
    bar = scale_bar(width, size)
    assert bar is not None
    assert bar.label == label
    assert bar.share == pytest.approx(share, abs=0.05)


@pytest.mark.parametrize("size", [None, 0.0, 0.001])
def test_where_no_size_is_known_or_no_bar_fits_there_is_none(size: float | None) -> None:
    assert scale_bar(100, size) is None


def test_pictures_have_a_bar_where_the_store_knows_the_size_of_a_pixel(run: Path) -> None:
    assert 'class="scale"' not in read(write_report(run, ReportSettings()))
    write_attributes(store_of(run), {SCALE: 0.2})
    page = read(write_report(run, ReportSettings()))  # 36 px are 7.2 µm
    assert page.count('<span class="scale" style="width:27.8%">') == page.count("<img") == 107
    assert page.count('<span class="length">2 µm</span>') == 107
    assert "The bar below a picture is as long as it says." in text_of(page)


def test_reduced_pictures_have_bars_of_the_same_share(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_attributes(store_of(run), {SCALE: 0.2})
    monkeypatch.setattr("milkit.report.write.CARDS_LIMIT", 100_000)
    page = read(write_report(run, ReportSettings(single_file=True)))
    assert page.count('<span class="scale" style="width:27.8%">') == 107


def test_without_a_check_only_unreadable_cells_are_known(run: Path) -> None:
    text = text_of(read(write_report(run, ReportSettings())))
    assert "1 of 108 cells could not be read. Whether some are blurred, clipped or damaged is not known" in text
    assert "Unreadable1 of 12 (8.3 %)" in text
    assert "Artefacts" not in text


def test_flagged_cells_are_counted_and_marked(run: Path) -> None:
    check(run, {"c0/0": "blurred", "c0/5": "clipped copy", "c3/2": "copy", "c1/0": "unreadable"})
    page = read(write_report(run, ReportSettings()))
    text = text_of(page)
    assert "Of all cells, 3 of 108 (2.8 %) are artefacts: 1 could not be read, and 2 were flagged" in text
    assert "that weigh most they are 2 of 107 (1.9 %)" in text
    assert "Artefacts2 of 12 (16.7 %)" in text
    assert "Artefacts1 of 12 (8.3 %)" in text
    assert sorted(re.findall(r'badge doubt">(\w+)<', page)) == ["blurred", "clipped"]
    assert re.search(r'alt="Cell c0/0, group \w+, rank \d+ of 12, blurred"', page)
    cells = pd.read_csv(run / "report" / "shown_cells.csv", keep_default_na=False)
    assert dict(cells.loc[cells["flags"] != "", ["cell_id", "flags"]].to_numpy()) == {
        "c0/0": "blurred",
        "c0/5": "clipped",
    }


@pytest.mark.parametrize("fault", ["part", "other", "empty"])
def test_a_check_of_some_cells_or_a_damaged_one_is_none(run: Path, fault: str) -> None:
    check(run, {"c0/0": "blurred"}, without=1 if fault == "part" else 0)
    table = run.parent.parent / "checks" / "noise" / "cells.csv"
    if fault != "part":
        table.write_text("a,b\n1,2\n" if fault == "other" else "")
    assert read_flags(BagStore.open(store_of(run))).checked is False


def test_artefacts_of_all_patients_are_summed() -> None:
    total = summed({"a": Artefacts(10, 1, 2, 5, 1, True), "b": Artefacts(30, 0, 1, 5, 0, True)})
    assert total == Artefacts(40, 1, 3, 10, 1, True)
    assert total.share == 0.1
    assert "Among the 20 cells of each patient that weigh most they are 1 of 10 (10.0 %)" in artefact_sentence(total)
    assert summed({"a": total, "b": total._replace(checked=False)}).checked is False


@pytest.mark.parametrize(
    ("weights", "expected"),
    [([], 0), ([1.0], 1), ([0.25] * 4, 2), ([0.2] * 5, 3), ([0.1, 0.7, 0.2], 1), ([0.3, 0.3, 0.4], 2)],
)
def test_the_fewest_cells_with_half_of_the_weight_are_counted(weights: list[float], expected: int) -> None:
    assert cells_with_half(np.array(weights)) == expected


def outline(plot: str, name: str) -> list[tuple[str, float]]:
    found = re.search(rf'class="{name}" d="([^"]*)"', plot)
    assert found
    return [(letter, float(value)) for letter, value in re.findall(r"([HV])([\d.]+)", found[1])]


def test_the_plot_falls_from_the_highest_weight_and_marks_half() -> None:
    weights = np.array([0.1, 0.5, 0.15, 0.25])
    plot = str(weights_plot(weights))
    quarter = WIDTH / 4
    assert outline(plot, "half") == [("H", 0), ("V", 0), ("H", quarter), ("V", HEIGHT)]
    tops = [value for letter, value in outline(plot, "rest") if letter == "V"]
    assert tops == [HEIGHT * (1 - share) for share in (0.5, 0.3, 0.2)] + [HEIGHT]
    assert f'd="M0 {HEIGHT / 2:.1f}H{WIDTH}"' in plot  # 1/4 is half of the highest weight
    assert 'aria-label="Weights of 4 cells from the highest to the lowest; half of the weight lies on 1."' in plot


def test_the_plot_of_many_cells_stays_small_and_of_none_is_empty() -> None:
    weights = np.random.default_rng(0).dirichlet(np.full(20_000, 0.3))
    assert len(str(weights_plot(weights))) < 3000
    assert weights_plot(np.array([])) == ""
