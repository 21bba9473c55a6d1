"""Clinical tables as hospitals export them."""

from pathlib import Path

import pandas as pd
import pytest

from cohorts.clinical_tables import column_named, read_table
from milkit.clinical_tables import sheet_names
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


def test_the_line_in_which_excel_names_its_separator_is_no_header(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("sep=;\nid;Befund, kurz\nP1;APL, hypergranular\n")
    assert read_table(tmp_path / "t.csv").to_dict("list") == {"id": ["P1"], "Befund, kurz": ["APL, hypergranular"]}


@pytest.mark.parametrize("suffix", ["xls", "ods", "sav"])
def test_a_kind_of_table_that_is_not_read_is_named_and_not_taken_for_text(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"t.{suffix}").write_bytes(b"\xd0\xcf\x11\xe0")
    with pytest.raises(
        CohortError, match=rf"is a .{suffix} file, where CSV, TSV, .xlsx or Parquet was expected; save it"
    ):
        read_table(tmp_path / f"t.{suffix}")


def test_a_damaged_excel_file_is_refused(tmp_path: Path) -> None:
    pd.DataFrame({"id": ["P1"]}).to_excel(tmp_path / "t.xlsx", index=False)
    content = (tmp_path / "t.xlsx").read_bytes()
    (tmp_path / "t.xlsx").write_bytes(content[: len(content) // 2])
    with pytest.raises(CohortError, match=r"t.xlsx cannot be read as a table \(.*; save it as CSV in UTF-8"):
        read_table(tmp_path / "t.xlsx")
    assert sheet_names(tmp_path / "t.xlsx") == []
