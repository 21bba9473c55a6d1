"""What readers send back: the CSV or JSON file that the page saved, also after a spreadsheet has had it.

A CSV may come back with a byte order mark, semicolons or tabs for commas, other quotes, rows and columns in another
order, empty rows, and in an older encoding than UTF-8; the apostrophes that keep formulas from being computed go. What
cannot be told apart from a mistake (codes of another review, labels that no one could choose) is a ``ReviewError``.
"""

import csv
import difflib
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from milkit.errors import ReviewError, first_rows
from milkit.review.key import UNCLEAR, Key

COLUMNS = ("review", "reader", "code", "label", "comment", "time")
"""What is read of a file; other columns, such as the number of a cell on the page, are passed over."""

Row = dict[str, str]


@dataclass(frozen=True, slots=True)
class Reading:
    """One reader's labels.

    Attributes:
        path: The file that they were read from.
        review: The id of the review.
        reader: The name that the reader gave.
        rows: One a cell that was shown, see ``COLUMNS``; the label is empty where the reader gave none.
    """

    path: Path
    review: str
    reader: str
    rows: tuple[Row, ...]


def read_labels(path: Path) -> Reading:
    """Read one reader's file; one that the page cannot have saved is a ``ReviewError``."""
    text = _text(path)
    rows = _from_json(text, path) if text.lstrip().startswith("{") else _from_csv(text, path)
    found = {name: list(dict.fromkeys(row[name] for row in rows)) for name in ("review", "reader")}
    for name, values in found.items():
        if len(values) != 1 or not values[0]:
            there = first_rows(values) if any(values) else "none"
            msg = f"{path} is of these {name}s: {there}, expected one; give each reader's file as the page saved it."
            raise ReviewError(msg)
    return Reading(path, found["review"][0], found["reader"][0], tuple(rows))


def check_readings(readings: Sequence[Reading], key: Key, *, partial: bool = False) -> None:
    """Hold files against the key of their review: every mistake is a ``ReviewError`` that says where it is.

    Args:
        readings: Of one review.
        key: Of that review.
        partial: Whether readers may have left cells without a label.
    """
    for position, reading in enumerate(readings):
        for earlier in readings[:position]:
            if earlier.reader == reading.reader:
                msg = (
                    f"{earlier.path} and {reading.path} are both of the reader '{reading.reader}'; give one file of "
                    "each reader, or correct the name in one of them."
                )
                raise ReviewError(msg)
        if key.readers and reading.reader not in key.readers:
            msg = (
                f"{reading.path} is of the reader '{reading.reader}', expected one of {', '.join(key.readers)}; "
                "correct the name in the file, or make the review for other readers."
            )
            raise ReviewError(msg)
        _check_rows(reading, key, partial=partial)


def to_table(readings: Sequence[Reading], key: Key) -> pd.DataFrame:
    """One row a reader and cell that was labelled: the key's columns, and reader, label, comment and time."""
    rows = [{**row, "reader": reading.reader} for reading in readings for row in reading.rows if row["label"]]
    table = pd.DataFrame(rows, columns=[*COLUMNS]).merge(key.items, on="code", how="left", validate="many_to_one")
    order = {code: position for position, code in enumerate(key.items["code"])}
    return table.sort_values("code", key=lambda codes: codes.map(order), kind="stable").reset_index(drop=True)


def _check_rows(reading: Reading, key: Key, *, partial: bool) -> None:
    known, path = set(key.items["code"]), reading.path
    codes = [row["code"] for row in reading.rows]
    if strange := [code for code in codes if code not in known]:
        msg = (
            f"{path} has {len(strange)} codes that the review {key.review} did not give out: {first_rows(strange)}; "
            "give the file as the page saved it."
        )
        raise ReviewError(msg)
    if twice := sorted({code for code in codes if codes.count(code) > 1}):
        msg = f"{path} has more than one row for {first_rows(twice)}, expected one a code; leave one of them."
        raise ReviewError(msg)
    allowed = [*key.taxonomy.nodes[1:], UNCLEAR]
    if wrong := [(row["label"], row["code"]) for row in reading.rows if row["label"] and row["label"] not in allowed]:
        near = difflib.get_close_matches(wrong[0][0].replace(" ", "_").lower(), allowed, n=1)
        meant = f" (did the reader mean '{near[0]}'?)" if near else ""
        msg = (
            f"{path} has {len(wrong)} labels that the taxonomy '{key.taxonomy.name}' does not have: "
            f"{first_rows([f'{label} for {code}' for label, code in wrong])}{meant}; correct them in the file."
        )
        raise ReviewError(msg)
    labelled = {row["code"] for row in reading.rows if row["label"]}
    if (missing := [code for code in key.items["code"] if code not in labelled]) and not partial:
        msg = (
            f"{path} lacks the labels of {len(missing)} of {len(known)} cells: {first_rows(missing)}; let the reader "
            "finish, or take what is there with --partial."
        )
        raise ReviewError(msg)
    if not labelled:
        msg = f"{path} has no label at all; let the reader give some, and save the file again."
        raise ReviewError(msg)


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        msg = f"{path} cannot be read ({error.strerror}); give the files that the review page saved."
        raise ReviewError(msg) from None
    encodings = ("utf-16",) if content[:2] in (b"\xff\xfe", b"\xfe\xff") else ("utf-8-sig", "cp1252", "latin-1")
    for encoding in encodings:
        try:
            return content.decode(encoding)
        except UnicodeDecodeError:
            continue
    return ""


def _from_json(text: str, path: Path) -> list[Row]:
    try:
        values: Any = json.loads(text)
        if values["format"] != "milkit-review" or values["version"] != 1:
            raise KeyError
        whole = {"review": values["review"], "reader": values["reader"]}
        return [_row({**cell, **whole}) for cell in values["cells"]]
    except (ValueError, KeyError, TypeError):
        msg = f"{path} is no JSON file of a review of version 1; give the file that the review page saved."
        raise ReviewError(msg) from None


def _from_csv(text: str, path: Path) -> list[Row]:
    lines = text.splitlines(keepends=True)
    if lines and re.fullmatch(r"sep=.\s*", lines[0]):  # a hint that some spreadsheets write
        lines = lines[1:]
    header = lines[0] if lines else ""
    delimiter = max(",;\t", key=header.count)
    try:
        table = list(csv.reader(io.StringIO("".join(lines), newline=""), delimiter=delimiter))
    except csv.Error:
        table = []
    names = [name.strip().lower() for name in table[0]] if table else []
    if lacking := [name for name in ("review", "reader", "code", "label") if name not in names]:
        msg = (
            f"{path} lacks the columns {', '.join(lacking)} of a reader's labels; give the CSV or JSON file that the "
            "review page saved."
        )
        raise ReviewError(msg)
    filled = [row for row in table[1:] if any(field.strip() for field in row)]
    return [_row(dict(zip(names, row, strict=False))) for row in filled]


def _row(values: dict[str, Any]) -> Row:
    """The columns that are read, as text without blanks around it and without a formula's apostrophe."""
    return {name: _with_formula(str(values.get(name) or "").strip()) for name in COLUMNS}


def with_formulas(table: pd.DataFrame) -> pd.DataFrame:
    """The table without the apostrophes that ``report.folder.without_formulas`` put before texts."""
    return table.map(lambda value: _with_formula(value) if isinstance(value, str) else value)


def _with_formula(text: str) -> str:
    return re.sub(r"^'('*[=+\-@\t\r])", r"\1", text)
