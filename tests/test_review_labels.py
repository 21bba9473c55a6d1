"""What readers send back: read as the page saved it and as spreadsheets leave it, and refused in a sentence."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from review_toys import key_of, review_run, save_json
from typer.testing import CliRunner

from milkit.cli import app
from milkit.errors import ReviewError
from milkit.review.key import Key
from milkit.review.labels import check_readings, read_labels, to_table, with_formulas
from milkit.review.out import Review, write_review

HEADER = ["review", "reader", "number", "code", "label", "comment", "time"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return review_run(tmp_path_factory.mktemp("labels"))


@pytest.fixture(scope="module")
def made(run: Path) -> Review:
    return write_review(run, n_cells=6, n_twice=0)


@pytest.fixture(scope="module")
def codes(made: Review) -> list[str]:
    return [item["code"] for item in key_of(made)["items"]]


def rows_of(made: Review, codes: list[str], **other: str) -> list[list[str]]:
    row = {"review": made.review, "reader": "Müller; A.", "label": "myeloblast", "comment": "", "time": "now"} | other
    return [[{**row, "code": code, "number": str(n)}[name] for name in HEADER] for n, code in enumerate(codes, 1)]


def csv_text(rows: list[list[str]], delimiter: str = ",", quoting: int = csv.QUOTE_MINIMAL) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, delimiter=delimiter, quoting=quoting).writerows([HEADER, *rows])  # type: ignore[call-overload]
    return buffer.getvalue()


SPREADSHEETS: dict[str, Callable[[list[list[str]]], bytes]] = {
    "as saved": lambda rows: csv_text(rows).encode("utf-8-sig"),
    "semicolons": lambda rows: csv_text(rows, ";").encode("utf-8-sig"),
    "tabs in UTF-16": lambda rows: csv_text(rows, "\t").encode("utf-16"),
    "an old encoding": lambda rows: csv_text(rows, ";").encode("cp1252"),
    "all quoted": lambda rows: csv_text(rows, ",", csv.QUOTE_ALL).encode(),
    "rows reordered": lambda rows: csv_text(rows[::-1]).encode(),
    "empty rows and a hint": lambda rows: ("sep=;\r\n" + csv_text(rows, ";") + ";;;;;;\r\n\r\n").encode(),
    "unix lines": lambda rows: csv_text(rows).replace("\r\n", "\n").encode(),
    "columns turned round and more of them": lambda rows: "".join(
        ",".join(f'"{field}"' for field in ["mine", *row[::-1]]) + "\r\n" for row in [[*map(str.upper, HEADER)], *rows]
    ).encode(),
}


@pytest.mark.parametrize("way", SPREADSHEETS)
def test_a_spreadsheet_s_habits_change_no_label(made: Review, codes: list[str], tmp_path: Path, way: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes(SPREADSHEETS[way](rows_of(made, codes)))
    reading = read_labels(path)
    assert (reading.review, reading.reader) == (made.review, "Müller; A.")
    assert sorted(row["code"] for row in reading.rows) == sorted(codes)
    assert {row["label"] for row in reading.rows} == {"myeloblast"}


def test_csv_and_json_of_the_same_labels_are_the_same(made: Review, codes: list[str], tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(csv_text(rows_of(made, codes, time="")), encoding="utf-8")
    saved = save_json(tmp_path / "a.json", made, dict.fromkeys(codes, "myeloblast"), reader="Müller; A.")
    assert read_labels(tmp_path / "a.csv").rows == read_labels(saved).rows


@pytest.mark.parametrize("text", ["=1+1", "+49", "-", "@me", "'=1", "''-x", "'quoted'", "plain"])
def test_apostrophes_against_formulas_go_and_others_stay(
    made: Review, codes: list[str], tmp_path: Path, text: str
) -> None:
    guarded = f"'{text}" if text.lstrip("'")[0] in "=+-@" else text
    (tmp_path / "a.csv").write_text(csv_text(rows_of(made, codes, comment=guarded)), encoding="utf-8")
    assert {row["comment"] for row in read_labels(tmp_path / "a.csv").rows} == {text}
    assert with_formulas(pd.DataFrame({"x": [guarded, 1.5]}))["x"].tolist() == [text, 1.5]


def test_comments_may_have_lines_and_quotes(made: Review, codes: list[str], tmp_path: Path) -> None:
    comment = 'two, "lines";\r\nof it'
    (tmp_path / "a.csv").write_bytes(csv_text(rows_of(made, codes, comment=comment)).encode())
    assert {row["comment"] for row in read_labels(tmp_path / "a.csv").rows} == {comment}


def refusal(made: Review, run: Path, *paths: Path, partial: bool = False) -> str:
    with pytest.raises(ReviewError) as refused:
        check_readings([read_labels(path) for path in paths], Key.load(run, made.review), partial=partial)
    assert str(refused.value).count("\n") == 0
    return str(refused.value)


def test_unknown_codes_are_refused(made: Review, run: Path, codes: list[str], tmp_path: Path) -> None:
    path = save_json(tmp_path / "a.json", made, dict.fromkeys([*codes, "c1"], "monocyte"))
    assert refusal(made, run, path) == (
        f"{path} has 1 codes that the review {made.review} did not give out: c1; give the file as the page saved it."
    )


def test_a_code_with_two_rows_is_refused(made: Review, run: Path, codes: list[str], tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(csv_text([*rows_of(made, codes), *rows_of(made, codes[:1])]))
    assert refusal(made, run, path).endswith(
        f"more than one row for {codes[0]}, expected one a code; leave one of them."
    )


@pytest.mark.parametrize(("label", "meant"), [("Myelo blast", "myeloblast"), ("object", ""), ("blast?", "")])
def test_unknown_labels_are_refused(
    made: Review, run: Path, codes: list[str], tmp_path: Path, label: str, meant: str
) -> None:
    path = save_json(tmp_path / "a.json", made, dict.fromkeys(codes, "monocyte") | {codes[2]: label})
    text = refusal(made, run, path)
    assert f"has 1 labels that the taxonomy 'blood' does not have: {label} for {codes[2]}" in text
    assert text.endswith("; correct them in the file.")
    assert (f"(did the reader mean '{meant}'?)" in text) == bool(meant)


def test_missing_cells_are_refused_unless_asked_for(made: Review, run: Path, codes: list[str], tmp_path: Path) -> None:
    labels = dict.fromkeys(codes[:4], "monocyte") | {codes[4]: ""}  # the last has no row, the one before no label
    path = save_json(tmp_path / "a.json", made, labels)
    assert refusal(made, run, path) == (
        f"{path} lacks the labels of 2 of 6 cells: {codes[4]}, {codes[5]}; let the reader finish, or take what is "
        "there with --partial."
    )
    key, reading = Key.load(run, made.review), read_labels(path)
    check_readings([reading], key, partial=True)
    assert to_table([reading], key)["code"].tolist() == codes[:4]
    empty = save_json(tmp_path / "b.json", made, dict.fromkeys(codes, ""))
    sentence = f"{empty} has no label at all; let the reader give some, and save the file again."
    assert refusal(made, run, empty, partial=True) == sentence


def test_two_files_of_one_reader_are_refused(made: Review, run: Path, codes: list[str], tmp_path: Path) -> None:
    paths = [save_json(tmp_path / name, made, dict.fromkeys(codes, "monocyte")) for name in ("a.json", "b.json")]
    assert "are both of the reader 'A'; give one file of each reader" in refusal(made, run, *paths)


def test_a_reader_who_was_not_asked_is_refused(run: Path, tmp_path: Path) -> None:
    made = write_review(run, n_cells=3, n_twice=0, readers=("B", "C"))
    path = save_json(tmp_path / "a.json", made, {item["code"]: "monocyte" for item in key_of(made)["items"]})
    assert f"{path} is of the reader 'A', expected one of B, C; correct the name" in refusal(made, run, path)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", r"lacks the columns review, reader, code, label of a reader's labels; give the CSV or JSON file"),
        ("cell,label\n1,2\n", r"lacks the columns review, reader, code of a reader's labels"),
        ("{}", r"is no JSON file of a review of version 1; give the file that the review page saved"),
        ('{"format": "milkit-review", "version": 2}', r"is no JSON file of a review of version 1"),
        ('{"format": "milkit-review", "version": 1, "review": "r", "reader": "A", "cells": 1}', r"is no JSON file"),
        ("review,reader,code,label\n", r"is of these reviews: none, expected one"),
        ("review,reader,code,label\nr1,A,c1,x\nr2,A,c2,x\n", r"is of these reviews: r1, r2, expected one; give each"),
        ("review,reader,code,label\nr1,A,c1,x\nr1,B,c2,x\n", r"is of these readers: A, B, expected one"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: str, sentence: str) -> None:
    (tmp_path / "labels").write_text(content)
    with pytest.raises(ReviewError, match=sentence):
        read_labels(tmp_path / "labels")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReviewError, match=r"cannot be read \(No such file or directory\); give the files"):
        read_labels(tmp_path / "none.csv")


def test_files_of_two_reviews_are_refused_by_the_command(
    made: Review, run: Path, codes: list[str], tmp_path: Path
) -> None:
    one = save_json(tmp_path / "a.json", made, dict.fromkeys(codes, "monocyte"))
    values = json.loads(one.read_text()) | {"review": "r0", "reader": "B"}
    (tmp_path / "b.json").write_text(json.dumps(values))
    refused = CliRunner().invoke(app, ["review", "in", str(one), str(tmp_path / "b.json"), "--run", str(run)])
    assert refused.exit_code == 2
    assert refused.stderr.endswith(f"is of the review r0, and {one} of {made.review}; give the files of one review at "
                                   "a time.\n")  # fmt: skip
    alone = CliRunner().invoke(app, ["review", "in", str(tmp_path / "b.json"), "--run", str(run)])
    assert alone.exit_code == 2
    assert f"The key of the review r0 is not in {run}; name the run" in alone.stderr
