"""Who is analysed: declared rules, applied one after the other, and what each of them took away.

    include: [{column: age, at_least: 18}, {column: n_cells, at_least: 50}]
    exclude: [{column: Consent, in: [withdrawn], reason: consent withdrawn}, {column: label, missing: true}]

A rule names one of our columns or one of the table's own; ``n_cells`` is the number of a row's cells. Its conditions
must all hold. Who has no value does not meet an inclusion, which is a step of its own, and is not met by an exclusion.
Dates are compared where the column is declared with ``date``.
"""

import datetime
from collections.abc import Callable, Sequence
from typing import Any, Literal, Self

import pandas as pd
from pydantic import Field, model_validator

from cohorts.clinical_tables import Code, plain
from milkit.errors import CohortError, first_rows
from milkit.patient_flow import Exclusion
from milkit.settings import Settings

Bound = float | datetime.date


class Rule(Settings):
    """One condition, or several of which all must hold, on one column."""

    column: str
    one_of: tuple[Code, ...] = Field((), alias="in")
    at_least: Bound | None = None
    at_most: Bound | None = None
    missing: Literal[True] | None = None
    """The value is not known."""
    reason: str = ""
    """What the flow diagram says; made from the rule where it is left out."""

    @model_validator(mode="after")
    def _has_a_condition(self) -> Self:
        if not self.conditions and not self.missing:
            msg = "a rule needs `in`, `at_least`, `at_most` or `missing: true`"
            raise ValueError(msg)
        return self

    @property
    def conditions(self) -> list[str]:
        """In words."""
        return [
            *([f"one of {', '.join(map(str, self.one_of))}"] if self.one_of else []),
            *([f"at least {_words(self.at_least)}"] if self.at_least is not None else []),
            *([f"at most {_words(self.at_most)}"] if self.at_most is not None else []),
        ]

    def holds(self, values: "pd.Series[Any]") -> "pd.Series[bool]":
        """Where the rule holds; not where a value is missing, unless that is the rule."""
        held = pd.Series(data=True, index=values.index)
        if self.missing:
            held &= values.isna()
        if self.one_of:
            held &= values.notna() & values.map(plain).isin([plain(code) for code in self.one_of])
        if self.at_least is not None:
            held &= self._comparable(values, self.at_least) >= _key(self.at_least)
        if self.at_most is not None:
            held &= self._comparable(values, self.at_most) <= _key(self.at_most)
        return held

    def _comparable(self, values: "pd.Series[Any]", bound: Bound) -> "pd.Series[float]":
        """Numbers, or days since the year 1 where the bound is a date; missing stays missing."""
        measured = values.map(lambda value: _measured(value, bound), na_action="ignore").astype(float)
        wrong = values[measured.isna() & values.notna()].unique()
        if len(wrong):
            kind = "dates, declared with `date`" if isinstance(bound, datetime.date) else "numbers"
            some = first_rows([f"'{value}'" for value in wrong])
            msg = (
                f"A rule holds '{self.column}' against {_words(bound)}, where {kind} were expected, not {some}; "
                "mend the rule, or declare the column under `columns`."
            )
            raise CohortError(msg)
        return measured


def select(
    ids: "pd.Series[str]",
    include: Sequence[Rule],
    exclude: Sequence[Rule],
    values_of: Callable[[str], "pd.Series[Any]"],
) -> tuple["pd.Series[bool]", list[Exclusion]]:
    """Which rows stay, and the steps; patients are counted, who leave with the last of their rows.

    Where patients have several rows, which are samples then, these are counted as well.

    Args:
        ids: The patient of each row.
        include: Rows stay where the rule holds.
        exclude: Rows leave where the rule holds.
        values_of: A column's values by its name, missing where they are not known.
    """
    kept = pd.Series(data=True, index=ids.index)
    steps: list[Exclusion] = []
    several = ids.duplicated().any()

    def take_away(rows: "pd.Series[bool]", reason: str) -> None:
        before, samples_before = ids[kept].nunique(), int(kept.sum())
        kept[rows] = False
        left, samples = ids[kept].nunique(), int(kept.sum())
        of_samples = (samples_before - samples, samples) if several else ()
        steps.append(Exclusion(reason, before - left, left, *of_samples))
        if not left:
            msg = f"The recipe's rules leave no patient of {ids.nunique():,}: the last went with '{reason}'; mend them."
            raise CohortError(msg)

    for rule in include:
        values = values_of(rule.column)
        if (kept & values.isna()).any() and not rule.missing:
            take_away(values.isna(), f"{rule.column} missing")
        take_away(~rule.holds(values), rule.reason or f"{rule.column} not {_all(rule)}")
    for rule in exclude:
        take_away(rule.holds(values_of(rule.column)), rule.reason or f"{rule.column} {_all(rule)}")
    return kept, steps


def _all(rule: Rule) -> str:
    return " and ".join([*(["missing"] if rule.missing else []), *rule.conditions])


def _words(bound: Bound | None) -> str:
    return f"{bound:g}" if isinstance(bound, float) else str(bound)


def _key(bound: Bound) -> float:
    return float(bound.toordinal()) if isinstance(bound, datetime.date) else bound


def _measured(value: Any, bound: Bound) -> float:
    """A value in the unit of the bound; NaN where it has none."""
    try:
        if isinstance(bound, datetime.date):
            return _key(datetime.date.fromisoformat(str(value)))
        return float(str(value).replace(",", "."))
    except ValueError:
        return float("nan")
