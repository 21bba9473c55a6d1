"""Numbers and texts of the page are found in the files beside it, from which a program can read them."""

import json
import re
import runpy
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from milkit.report.settings import ReportSettings
from milkit.report.tables import METRICS
from milkit.report.write import write_report

_PAGE_TESTS: dict[str, Any] = runpy.run_path(str(Path(__file__).with_name("test_report.py")))
make_run: Callable[..., Path] = _PAGE_TESTS["make_run"]
text_of: Callable[[str], str] = _PAGE_TESTS["text_of"]
read: Callable[[Path], str] = _PAGE_TESTS["read"]
_VERDICTS: dict[str, Any] = runpy.run_path(str(Path(__file__).with_name("test_report_rankings.py")))

CLASSES = ("control", "AML", "APL")
PATIENTS = ("qaa", "qab", "qac", "qad", "qae", "qaf", "qag", "qah", "qai")
"""Ids without digits, so that every digit on the page is of a number."""
IN_WORDS = {20.0, 100.0, 1.0, 2.0}
"""Of the page's own sentences: the cells of a top, limits of warnings, `1 - specificity`, pixels in whole multiples."""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two repeats of thirty cells, explained, so that agreement, stability and verdicts are there."""
    run = make_run(tmp_path_factory.mktemp("beside"), classes=CLASSES, patients=PATIENTS, repeats=2, n_cells=30)
    _VERDICTS["explained"](run, attention=_VERDICTS["method"]())
    return write_report(run, ReportSettings()).parent


def numbers(text: str) -> list[str]:
    """As they are printed, without those of cell ids; a percentile's P goes."""
    plain = re.sub(r"c\d+/\d+", " ", text)
    plain = re.sub(r"\bP(?=\d)", "", plain).replace("#", " ")
    return re.findall(r"(?<![\w.])[+-]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?!\w)", plain)


def strangers(text: str, known: Iterable[float]) -> list[str]:
    """Numbers that are no known value, rounded as they are printed, itself or in per cent."""
    values = np.array([value for value in known if value is not None and np.isfinite(value)])
    values = np.concatenate([values, 100 * values, sorted(IN_WORDS)])
    found = []
    for number in numbers(text):
        digits = len(number.partition(".")[2])
        own = float(number.replace(",", ""))
        near = np.abs(np.abs(values) - abs(own)) <= 0.5 * 10.0**-digits + 1e-9
        down = np.isclose(np.floor(values * 10**digits) / 10**digits, own)  # percentiles are rounded down
        if not (near | down).any():
            found.append(number)
    return found


def values(content: Any) -> list[float]:
    """All numbers of a file of figures, also those that texts and keys hold."""
    if isinstance(content, dict):
        return [value for key, inner in content.items() for value in values(key) + values(inner)]
    if isinstance(content, list):
        return [value for inner in content for value in values(inner)]
    if isinstance(content, str):
        return [float(number.replace(",", "")) for number in numbers(content)]
    return [] if content is None else [float(content)]


def rows_of(page: str, caption: str) -> dict[str, str]:
    """The text of each row of a table, by its first cell."""
    table = re.search(rf"<caption>{caption}</caption>.*?<tbody>(.*?)</tbody>", page, re.DOTALL)
    assert table
    rows = re.findall(r'<tr><th scope="row">(.*?)</th>(.*?)</tr>', table[1], re.DOTALL)
    return {name: text_of(rest.replace("</td>", " ")) for name, rest in rows}


def test_a_number_that_is_in_no_file_is_seen() -> None:
    assert strangers("0.87 (0.80 to 0.93), 12 of 1,234 cells, P98.9 #3, 45.6 %", [0.871, 0.8, 0.931, 12, 1234]) == [
        "98.9", "3", "45.6"
    ]  # fmt: skip


def test_numbers_of_a_patient_are_in_the_rows_of_the_patient(report: Path) -> None:
    page = read(report / "report.html")
    cards = re.findall(r'<details class="patient[^>]*data-id="(\w+)".*?</details>', page, re.DOTALL)
    assert tuple(cards) == PATIENTS
    patients, cells = pd.read_csv(report / "patients.csv"), pd.read_csv(report / "shown_cells.csv")
    verdict = json.loads(read(report / "faithfulness.json"))["methods"]["attention"]
    for name, card in zip(cards, re.findall(r"<details class=\"patient.*?</details>", page, re.DOTALL), strict=True):
        own, shown = patients[patients["patient_id"] == name], cells[cells["patient_id"] == name]
        known = values(json.loads(own.to_json(orient="records"))) + values(json.loads(shown.to_json(orient="records")))
        known += [verdict["beats_random"], verdict["n_random"], *shown["group"].value_counts()]
        assert strangers(text_of(re.sub(r"</(dd|td|th|span|h3)>", " ", card)), known) == []
        assert len(numbers(text_of(card))) > 30


def test_numbers_of_the_metrics_tables_are_those_of_their_metric_and_class(report: Path) -> None:
    page, metrics = read(report / "report.html"), json.loads(read(report / "metrics.json"))
    rows = rows_of(page, "Metrics over all patients")
    for key, (name, _) in METRICS.items():
        assert strangers(rows[name], values(metrics[key])) == []
    for name, row in rows_of(page, "Results of each class").items():
        own = values(metrics["per_class"][name]) + values(metrics["sensitivity"]["per_class"][name])
        assert strangers(row, own) == []
    for name, row in rows_of(page, "Calibration of each class").items():
        assert strangers(row, values(metrics["calibration"][name])) == []


def test_every_other_number_of_the_page_is_in_a_file_beside_it(report: Path) -> None:
    page = read(report / "report.html")
    page = re.sub(r"<(style|script|svg|footer)\b.*?</\1>", " ", page, flags=re.DOTALL)
    page = re.sub(r'<details class="patient.*?</details>', " ", page, flags=re.DOTALL)
    page = re.sub(r"</(td|th|p|li|span|option|dd)>", " ", page)
    known = [
        *values(json.loads(read(report / "metrics.json"))),
        *values(json.loads(read(report / "faithfulness.json"))),
    ]
    for name in ("patients", "cohort", "predictions"):
        table = pd.read_csv(report / f"{name}.csv")
        known += values(json.loads(table.to_json(orient="records")))
    patients = pd.read_csv(report / "patients.csv")
    known += [len(patients), (patients["label"] != patients["predicted"]).sum(), len(CLASSES), 1 / len(CLASSES)]
    known += [patients["n_unreadable"].sum(), patients["n_images"].sum(), patients["order_faithful"].sum()]
    assert strangers(text_of(page), known) == []
    assert len(numbers(text_of(page))) > 100


def test_the_cohort_s_table_is_the_page_s(report: Path) -> None:
    table = pd.read_csv(report / "cohort.csv", dtype=str)
    rows = rows_of(read(report / "report.html"), "The cohort")
    for row in table.to_dict("records"):
        cells = [str(value) for value in row.values()]
        assert rows[cells[0]].split() == " ".join(cells[1:]).split()


def test_shown_cells_are_those_of_the_galleries(report: Path) -> None:
    page, cells = read(report / "report.html"), pd.read_csv(report / "shown_cells.csv")
    shown = re.findall(r'alt="Cell (\S+), group (\w+), rank (\d+) of', page)
    assert shown == list(zip(cells["cell_id"], cells["group"], cells["rank"].astype(str), strict=True))


def test_agreement_and_stability_are_told_of_several_models(report: Path) -> None:
    top, patients = pd.read_csv(report / "top_cells.csv"), pd.read_csv(report / "patients.csv")
    assert top["agreement"].str.fullmatch(r"[0-2] of 2").all()
    assert (patients["n_models"] == 2).all()
    attention = pd.read_parquet(report.parent / "attention.parquet").query("patient_id == 'qaa'")
    tops = [set(own.loc[own["rank"] <= 20, "cell_id"]) for _, own in attention.groupby("repeat")]
    mean = attention.groupby("cell_id")["weight"].mean().nlargest(20).index
    expected = np.mean([np.mean([cell in own for own in tops]) for cell in mean])
    assert patients.set_index("patient_id").loc["qaa", "stability"] == pytest.approx(expected)


def test_labels_with_commas_quotes_and_formulas_come_back_from_a_cyrillic_folder(tmp_path: Path) -> None:
    classes = ('AML, "other"', "=cmd|' /C calc'!A0", "контроль")
    run = make_run(tmp_path / "Отчёт пациента", classes=classes, patients=PATIENTS)
    folder = write_report(run, ReportSettings()).parent
    table = pd.read_csv(folder / "patients.csv", dtype=str)
    assert set(table["label"]) == {classes[0], f"'{classes[1]}", classes[2]}
    page = read(folder / "report.html")
    assert "AML, &#34;other&#34;" in page
    assert page.count("<img src=") == 9 * 12 - 1
