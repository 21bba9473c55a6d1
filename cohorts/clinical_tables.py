"""What a recipe says of a clinical table's columns, and their values as it says: codes, numbers, dates, classes.

Names on the left are ours; in a recipe's ``columns`` each is the table's own name, or more about it:

    age: Alter
    leucocytes: {column: WBC, missing: [99, k.A.]}          # these codes mean that the value is not known
    sex: {column: Geschlecht, values: {weiblich: F, männlich: M}}
    birth_date: {column: Geb., date: "%d.%m.%Y"}            # several formats as a list; the first that fits counts
    reference_date: {constant: 2021-06-30}                  # one value for all
    risk: {column: Group, kind: text}                       # codes that look like numbers
    scanner: null                                           # leave out a column of this name
"""

import datetime
import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from pydantic import Field, StrictFloat, StrictInt, StrictStr, model_validator

from milkit.clinical_tables import plain, read_table
from milkit.cohort import numeric
from milkit.errors import CohortError, first_rows
from milkit.settings import Settings

__all__ = ["ClinicalTable", "Code", "Column", "column_named", "plain", "read_table"]

Code = StrictStr | StrictInt | StrictFloat
"""A value as a recipe writes it: 99 and "99" are the same; true and false, as YAML reads yes and no, are refused."""

NUMBERS = frozenset({"age", "time", "event"})
TEXTS = frozenset({"sex", "site", "scanner"})

_DATES = ("%Y-%m-%d", "%d.%m.%Y")
"""Formats that leave no doubt which number is the month; any other must be declared."""
_NUMBER = re.compile(r"(?:[+-]?(?:\d+(?:[.,]\d*)?|[.,]\d+)(?:e[+-]?\d+)?|nan|na|none|null)?", re.IGNORECASE)
_TIME_OF_DAY = re.compile(r"[T ]\d{1,2}:\d\d.*")
_OLDEST = 120
"""Years; an age above is a mistake, or a code such as 01.01.1900 for a date that is not known."""


class Column(Settings):
    """Where one of our columns comes from, and how it is read; a name alone is short for ``{column: name}``."""

    column: str | None = None
    """The table's own name; ours, where it is left out."""
    constant: Code | datetime.date | None = None
    """One value for all rows, instead of a column."""
    missing: tuple[Code, ...] = ()
    """Codes for a value that is not known."""
    values: dict[Code, str] = Field(default_factory=dict)
    """Raw value to ours; what is not listed stays as it is."""
    date: str | tuple[str, ...] = ()
    """The format of dates, as of strptime, or several; without it 1951-08-27 and 27.08.1951 are read."""
    kind: Literal["number", "text"] | None = None
    """Without it, a column is numeric where every value is a number."""

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"column": value} if isinstance(value, str) else value

    @property
    def formats(self) -> tuple[str, ...]:
        """The declared formats of dates."""
        return (self.date,) if isinstance(self.date, str) else self.date


def column_named(table: pd.DataFrame, name: str, path: Path) -> str:
    """``name`` if the table has such a column; ``CohortError`` lists those it has, the nearest first."""
    if name in table.columns:
        return name
    known = [str(column) for column in table.columns]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"nearest: '{near[0]}'; " if near else ""
    msg = f"{path} has no column '{name}' ({hint}found: {', '.join(known)}); mend the recipe's columns or the table."
    raise CohortError(msg)


@dataclass(frozen=True)
class ClinicalTable:
    """A table with what the recipe says of its columns. Its methods take our names of columns.

    Attributes:
        path: For messages.
        table: As ``read_table`` gives it: all text.
        columns: By our name; None for a column that is to be left out.
        ids: Names the rows in messages.
    """

    path: Path
    table: pd.DataFrame
    columns: Mapping[str, Column | None]
    ids: Sequence[str]

    def text(self, name: str) -> "pd.Series[str]":
        """The values as text: codes for missing ones blank, the others translated."""
        column = self._column(name)
        if column.constant is not None:
            return pd.Series(str(column.constant), index=self.table.index, dtype=object)
        raw = self.table[column_named(self.table, column.column or name, self.path)].str.strip()
        codes = raw.map(plain)
        values = {plain(key): value for key, value in column.values.items()}
        translated = codes.map(values).where(codes.isin(list(values)), raw)
        return translated.mask(codes.isin([plain(code) for code in column.missing]), "")

    def typed(self, name: str) -> "pd.Series[Any]":
        """Floats, dates (ISO) or text, missing where blank: by our name, by what is declared, else by the values.

        A column most of whose values are numbers is meant to be numeric: what is none is a ``CohortError``, as it
        would turn a measurement into names.
        """
        column, text = self._column(name), self.text(name)
        if column.formats:
            return self.dates(name)
        if name == "sex":
            self._refuse(name, text[~text.isin(["F", "M", ""])], "F, M or a blank", "translate it in `values`")
        if name in TEXTS or column.kind == "text":
            return text.mask(text == "")
        is_number = text.map(_NUMBER.fullmatch).notna()
        if name in NUMBERS or column.kind == "number" or (is_number & (text != "")).sum() > (~is_number).sum():
            remedy = "mend the table, or list the codes of missing values in `missing`"
            if name not in NUMBERS:
                remedy += ", or say `kind: text`"
            self._refuse(name, text[~is_number], "a number", remedy)
        return numeric(text) if is_number.all() else text.mask(text == "")

    def dates(self, name: str) -> "pd.Series[Any]":
        """Dates as ISO text (1951-08-27), missing where blank; a time of day is left out."""
        formats, text = self._column(name).formats or _DATES, self.text(name)
        if any("%y" in form for form in formats):
            msg = (
                f"The dates of '{name}' are declared with years of two digits, which leave the century open; write "
                f"four digits in {self.path}, and %Y in the recipe."
            )
            raise CohortError(msg)
        found = text.map(lambda value: _date(value, formats))
        remedy = 'say in `date` how they are written, such as "%m/%d/%Y"'
        self._refuse(name, text[found.isna() & (text != "")], f"a date as {' or '.join(formats)}", remedy)
        return found

    def ages(self) -> "pd.Series[float]":
        """Years from ``birth_date`` to ``reference_date``: days / 365.25, to one decimal."""
        born, seen = self.dates("birth_date"), self.dates("reference_date")
        years = pd.Series([_years(*pair) for pair in zip(born, seen, strict=True)], index=born.index, dtype=float)
        self._refuse(
            "birth_date",
            born[(years < 0) | (years > _OLDEST)],
            f"an age of 0 to {_OLDEST} years at the reference date",
            "mend the dates, or list such codes in `missing`",
        )
        return years.round(1)

    def birth_years(self) -> "pd.Series[float]":
        """The years of ``birth_date``."""
        return self.dates("birth_date").str[:4].astype(float)

    def _column(self, name: str) -> Column:
        return self.columns.get(name) or Column(column=name)

    def _refuse(self, name: str, wrong: "pd.Series[str]", expected: str, remedy: str) -> None:
        """``CohortError`` with the first rows whose value is none of what was expected; nothing where all are."""
        if len(wrong):
            rows = [f"'{value}' ({self.ids[row]})" for row, value in wrong.items()]  # type: ignore[call-overload]
            source = self._column(name).column or name
            called = f"'{name}'" if source == name else f"'{source}' ({name})"
            msg = f"{self.path}: column {called} holds {first_rows(rows)} where {expected} was expected; {remedy}."
            raise CohortError(msg)


def _date(value: str, formats: Iterable[str]) -> str | None:
    for text in (value, _TIME_OF_DAY.sub("", value)):
        for form in formats:
            try:
                return datetime.datetime.strptime(text, form).date().isoformat()
            except ValueError:
                continue
    return None


def _years(born: str | None, seen: str | None) -> float:
    if born is None or seen is None:
        return float("nan")
    return (datetime.date.fromisoformat(seen) - datetime.date.fromisoformat(born)).days / 365.25
