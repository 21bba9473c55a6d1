"""Values of clinical tables: codes, numbers, dates and ages, and what is wrong with them, by the first rows."""

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from milkit.cohort import Cohort, load_cohort
from milkit.errors import CohortError, SettingsError
from milkit.settings import CohortRecipe

HEADER = "id;label;age;born;seen;wbc;group"
ROWS = ("P1;A;44,5;27.08.1951;01.03.2020;12,5;1", "P2;B;99;05.01.1990 00:00:00;2020-02-29;k.A.;2")


@pytest.fixture
def root(tmp_path: Path, write_image: Callable[..., Path]) -> Path:
    for name in ("P1/1.png", "P2/1.png"):
        write_image(tmp_path / name)
    (tmp_path / "t.csv").write_text("\n".join((HEADER, *ROWS)))
    return tmp_path


def load(root: Path, table: str = "t.csv", **columns: Any) -> Cohort:
    arguments = {
        "images": "{patient_id}/{cell_id}.png",
        "patients": table,
        "columns": {"patient_id": "id", "age": None} | columns,
    }
    return load_cohort(CohortRecipe(name="study", factory="tabular", root=root, arguments=arguments))


def test_codes_of_missing_values_are_missing_in_their_column_alone(root: Path) -> None:
    patients = load(root, age={"missing": [99, "k.A."]}, wbc={"missing": ["k.A."]}, group="group").patients
    assert patients["age"].dropna().to_dict() == {"P1": 44.5}
    assert patients["wbc"].dropna().to_dict() == {"P1": 12.5}
    assert patients["group"].tolist() == [1.0, 2.0]


def test_a_column_set_to_null_is_left_out(root: Path) -> None:
    assert list(load(root).patients.columns) == ["label"]


def test_a_code_that_looks_like_a_number_stays_text_where_declared(root: Path) -> None:
    assert load(root, group={"kind": "text"}).patients["group"].tolist() == ["1", "2"]


def test_a_measurement_with_a_word_in_it_is_refused_and_not_taken_for_names(root: Path) -> None:
    (root / "t.csv").write_text("\n".join((HEADER, *ROWS)).replace("k.A.", "<0,1") + "\nP3;B;;;;7;1\n")
    with pytest.raises(CohortError, match=r"'wbc' holds '<0,1' \(P2\) where a number was expected; .* `kind: text`"):
        load(root, wbc="wbc")


def test_mostly_words_are_names(root: Path) -> None:
    (root / "t.csv").write_text("id;label;material\nP1;A;blood\nP2;B;12\n")
    assert load(root, material="material").patients["material"].tolist() == ["blood", "12"]


def test_an_age_is_counted_from_birth_to_the_reference_date(root: Path) -> None:
    patients = load(root, birth_date="born", reference_date={"column": "seen"}).patients
    days = [(datetime.date(2020, 3, 1) - datetime.date(1951, 8, 27)).days, (365 * 30 + 7) + 55]
    assert patients["age"].tolist() == [round(days[0] / 365.25, 1), round(days[1] / 365.25, 1)]
    assert list(patients.columns) == ["label", "age"]


def test_the_reference_date_can_be_one_for_all(root: Path) -> None:
    patients = load(root, birth_date="born", reference_date={"constant": datetime.date(1991, 8, 27)}).patients
    assert patients["age"].tolist() == [40.0, 1.6]


def test_without_a_reference_date_there_is_a_birth_year_and_it_is_said(root: Path) -> None:
    cohort = load(root, birth_date="born")
    assert cohort.patients["birth_year"].tolist() == [1951.0, 1990.0]
    assert "age" not in cohort.patients
    assert cohort.notes == (
        "There are dates of birth and no reference date, so patients have a birth year and no age.",
    )


def test_several_formats_of_dates_are_tried_in_their_order(root: Path) -> None:
    (root / "t.csv").write_text("id;label;born\nP1;A;3/25/1951\nP2;B;25-03-1951\n")
    both = {"column": "born", "date": ["%m/%d/%Y", "%d-%m-%Y"]}
    assert load(root, day=both).patients["day"].tolist() == ["1951-03-25", "1951-03-25"]


@pytest.mark.parametrize("written", ["3/4/1951", "18867", "1951", "31.02.1951"])
def test_a_date_whose_format_is_not_declared_or_not_met_is_refused(root: Path, written: str) -> None:
    (root / "t.csv").write_text(f"id;label;born\nP1;A;{written}\nP2;B;\n")
    expected = (
        rf"column 'born' \(birth_date\) holds '{written}' \(P1\) where a date as %Y-%m-%d or %d.%m.%Y was expected"
    )
    with pytest.raises(CohortError, match=expected):
        load(root, birth_date="born")


def test_years_of_two_digits_are_refused(root: Path) -> None:
    with pytest.raises(CohortError, match=r"years of two digits, which leave the century open; write four digits"):
        load(root, birth_date={"column": "born", "date": "%d.%m.%y"})


@pytest.mark.parametrize("day", ["1951-08-26", "2072-01-01"])
def test_an_age_that_cannot_be_is_refused(root: Path, day: str) -> None:
    (root / "t.csv").write_text("id;label;born\nP1;A;1951-08-27\nP2;B;1951-08-26\n")
    with pytest.raises(CohortError, match=r"holds '1951-08-27' \(P1\).* where an age of 0 to 120 years at the ref"):
        load(root, birth_date="born", reference_date={"constant": day})


def test_two_sources_of_ages_are_refused(root: Path) -> None:
    with pytest.raises(CohortError, match=r"from .*t.csv and from dates of birth; leave out `age` or `birth_date`"):
        load(root, age={"missing": [99]}, birth_date="born", reference_date="seen")


def test_yaml_s_no_is_not_taken_for_a_zero(root: Path) -> None:
    with pytest.raises(SettingsError, match=r"columns.age.missing.0"):
        load(root, age={"missing": [False]})


def test_a_misspelt_word_about_a_column_is_named(root: Path) -> None:
    with pytest.raises(SettingsError, match=r"columns.age.*mising: Extra inputs"):
        load(root, age={"mising": [99]})


def test_accents_that_file_systems_take_apart_are_the_same(root: Path, write_image: Callable[..., Path]) -> None:
    """macOS writes o and two dots for ö in names of folders."""
    write_image(root / "Mo\u0308ller" / "1.png")
    (root / "t.csv").write_text("id;label\nP1;A\nP2;B\nM\u00f6ller;B\n")
    assert "M\u00f6ller/1" in load(root).cells["cell_id"].tolist()


def test_ids_that_lost_their_zeros_in_a_spreadsheet_are_pointed_out(
    root: Path, write_image: Callable[..., Path]
) -> None:
    write_image(root / "0012" / "1.png")
    (root / "t.csv").write_text("id;label\nP1;A\nP2;B\n12;B\n")
    with pytest.raises(CohortError, match=r"no row in .*t.csv \(0012; the table writes '12' for '0012'\); add"):
        load(root)


def _as_frame() -> pd.DataFrame:
    table = pd.DataFrame({"id": ["P1", "P2"], "label": ["A", "B"], "age": [44.5, 99]})
    return table.assign(born=pd.to_datetime(["1951-08-27", "1990-01-05"]))


@pytest.mark.parametrize("indexed", [False, True])
def test_a_parquet_table_is_read_with_its_dates_and_its_index(root: Path, *, indexed: bool) -> None:
    table = _as_frame()
    (table.set_index("id") if indexed else table).to_parquet(root / "t.parquet")
    patients = load(root, "t.parquet", age={"missing": [99]}, birth_date="born").patients
    assert patients["birth_year"].to_dict() == {"P1": 1951.0, "P2": 1990.0}
    assert patients["age"].dropna().to_dict() == {"P1": 44.5}


def test_an_excel_table_is_read_by_its_sheet(root: Path) -> None:
    with pd.ExcelWriter(root / "t.xlsx") as book:
        pd.DataFrame({"note": ["read me"]}).to_excel(book, sheet_name="Info", index=False)
        _as_frame().to_excel(book, sheet_name="Patienten", index=False)
    cohort = load(root, {"table": "t.xlsx", "sheet": "Patienten"}, birth_date="born")  # type: ignore[arg-type]
    assert cohort.patients["birth_year"].tolist() == [1951.0, 1990.0]
    with pytest.raises(CohortError, match=r"t.xlsx has no sheet 'Patients', only Info, Patienten; name one of these"):
        load(root, {"table": "t.xlsx", "sheet": "Patients"})  # type: ignore[arg-type]
