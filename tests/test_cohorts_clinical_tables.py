"""Clinical tables as hospitals export them."""

from pathlib import Path

import pandas as pd
import pytest

from cohorts.clinical_tables import column_named, read_table
from milkit.errors import CohortError


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16"])
def test_umlauts_survive_every_usual_encoding(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "t.csv").write_text("Name;Größe\nMüller;3\n", encoding=encoding)
    assert read_table(tmp_path / "t.csv").to_dict("list") == {"Name": ["Müller"], "Größe": ["3"]}


def test_nothing_is_taken_for_missing(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text("id\tx\nNA\t\nnull\t1\n\t\n")
    assert read_table(tmp_path / "t.tsv").to_dict("list") == {"id": ["NA", "null"], "x": ["", "1"]}


def test_a_trailing_separator_shifts_no_column(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,x\nP1,3,\nP2,4,\n")
    assert read_table(tmp_path / "t.csv")["id"].tolist() == ["P1", "P2"]


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,age, age\nP1,3,4\n")
    with pytest.raises(CohortError, match=r"has two columns called 'age', where every name was expected once; rename"):
        read_table(tmp_path / "t.csv")


def test_a_missing_column_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("Patient,Diagnosis\nP1,x\n")
    table = read_table(tmp_path / "t.csv")
    with pytest.raises(
        CohortError, match=r"has no column 'Diagnose' \(nearest: 'Diagnosis'; found: Patient, Diagnosis"
    ):
        column_named(table, "Diagnose", tmp_path / "t.csv")


def test_the_named_sheet_of_an_excel_file_is_read_or_its_first(tmp_path: Path) -> None:
    with pd.ExcelWriter(tmp_path / "t.xlsx") as book:
        pd.DataFrame({"x": ["first"]}).to_excel(book, sheet_name="dictionary", index=False)
        pd.DataFrame({"id": ["NA"], "age": [44.5]}).to_excel(book, sheet_name="metadata", index=False)
    assert read_table(tmp_path / "t.xlsx", sheet="metadata").to_dict("list") == {"id": ["NA"], "age": ["44.5"]}
    assert read_table(tmp_path / "t.xlsx")["x"].tolist() == ["first"]
