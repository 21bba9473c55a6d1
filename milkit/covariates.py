"""Columns of the patient table (age, sex, blood counts) as numbers that a head or a regression can take.

Everything that is estimated (means, spreads, the levels of a text) comes from the patients that ``fit`` is given, which
are the training patients of one fold.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from milkit.errors import SettingsError
from milkit.registry import unknown_name

OUTCOMES = ("label", "time", "event")
"""Columns that are predicted, and therefore no covariates."""

MOST_LEVELS = 20
"""A text with more values among the training patients is free text, or an id."""


@dataclass(frozen=True, slots=True)
class Part:
    """One encoded covariate.

    Attributes:
        column: Of the patient table.
        kind: The column's ``value``; 1 where it has the ``level``; 1 where it is ``missing``.
        level: Which text, of a level.
    """

    column: str
    kind: Literal["value", "level", "missing"]
    level: str = ""

    @property
    def name(self) -> str:
        """As tables and logs call it: ``age``, ``sex=F``, ``age missing``."""
        return {"value": self.column, "level": f"{self.column}={self.level}", "missing": f"{self.column} missing"}[
            self.kind
        ]


@dataclass(frozen=True, slots=True)
class CovariateEncoding:
    """How columns of the patient table become numbers.

    A number x becomes (x - m) / s with the mean m and the spread s (with divisor n) of the training patients who have
    it; s is 1 where it does not vary. Where it is missing (or not finite) the mean stands in, which is 0. A text, a
    category or a truth value becomes one 0 or 1 for each level that a training patient has; a level that none has, and
    a missing one, is 0 throughout. Where a column is missing in a training patient, a further 0 or 1 says so; where it
    is missing in none, nothing could be learned from that, and there is no such column.

    Attributes:
        parts: The encoded covariates, in the order of the columns that were asked for.
        mean: (n_covariates,) m of a value, 0 for the others.
        scale: (n_covariates,) 1 / s of a value, 1 for the others.
        missing: Training patients without it, for each column that was asked for.
    """

    parts: tuple[Part, ...]
    mean: npt.NDArray[np.float64]
    scale: npt.NDArray[np.float64]
    missing: Mapping[str, int]

    @classmethod
    def fit(cls, patients: pd.DataFrame, columns: Sequence[str]) -> "CovariateEncoding":
        """Estimate the encoding from training patients.

        Args:
            patients: The patient table, cut down to the training patients.
            columns: Which covariates.

        Raises:
            UnknownName: A column that the table does not have.
            SettingsError: A column that is predicted, is named twice, has no value in any of these patients, or is
                free text.
        """
        check_columns(patients, columns)
        parts: list[Part] = []
        mean, scale = list[float](), list[float]()
        missing = count_missing(patients, columns)
        for name in columns:
            if missing[name] == len(patients):
                msg = (
                    f"The covariate '{name}' has no value in any of the {len(patients)} training patients of a fold; "
                    "leave it out of covariates."
                )
                raise SettingsError(msg)
            own = _parts(patients[name], name)
            parts += [*own, Part(name, "missing")] if missing[name] else own
            for part in parts[len(mean) :]:
                m, s = _moments(patients[name]) if part.kind == "value" else (0.0, 1.0)
                mean.append(m)
                scale.append(1.0 / s)
        return cls(tuple(parts), np.array(mean), np.array(scale), missing)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the encoded covariates, in order."""
        return tuple(part.name for part in self.parts)

    def encode(self, patients: pd.DataFrame) -> npt.NDArray[np.float64]:
        """Any patients' covariates, (n, n_covariates), all finite."""
        check_columns(patients, list(self.missing))
        raw = [_raw(patients[part.column], part) for part in self.parts]
        values = np.array(raw).reshape(len(self.parts), len(patients)).T
        return np.nan_to_num((values - self.mean) * self.scale, nan=0.0)

    def description(self) -> list[dict[str, str]]:
        """What each encoded covariate is, as plain values; mean and scale are kept with the weights."""
        return [asdict(part) for part in self.parts]

    @classmethod
    def described(
        cls, description: Sequence[Mapping[str, Any]], mean: npt.NDArray[np.float64], scale: npt.NDArray[np.float64]
    ) -> "CovariateEncoding":
        """The encoding of a saved head; how many were missing is not known of it."""
        parts = tuple(Part(**part) for part in description)
        return cls(parts, mean, scale, {part.column: 0 for part in parts})


def check_columns(patients: pd.DataFrame, columns: Sequence[str]) -> None:
    """Refuse what cannot be a covariate of these patients; see ``CovariateEncoding.fit``."""
    for name in columns:
        if name in OUTCOMES:
            msg = f"The covariate '{name}' is what is predicted; name columns that are known beforehand, such as age."
            raise SettingsError(msg)
        if name not in patients:
            known = [str(column) for column in patients if column not in OUTCOMES]
            raise unknown_name("covariate", name, known)  # noqa: EM101
        if list(columns).count(name) > 1:
            msg = f"The covariate '{name}' was named {list(columns).count(name)} times; name it once."
            raise SettingsError(msg)


def count_missing(patients: pd.DataFrame, columns: Sequence[str]) -> dict[str, int]:
    """How many patients lack each covariate."""
    return {name: int(_is_missing(patients[name]).sum()) for name in columns}


def _is_number(column: "pd.Series[Any]") -> bool:
    return pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)


def _numbers(column: "pd.Series[Any]") -> npt.NDArray[np.float64]:
    """NaN where missing or not finite."""
    values: npt.NDArray[np.float64] = column.to_numpy(dtype=np.float64, na_value=np.nan)
    return np.asarray(np.where(np.isfinite(values), values, np.nan))


def _texts(column: "pd.Series[Any]") -> npt.NDArray[np.object_]:
    """An empty text where missing."""
    return np.array(["" if pd.isna(value) else str(value).strip() for value in column], dtype=object)


def _is_missing(column: "pd.Series[Any]") -> npt.NDArray[np.bool_]:
    return np.isnan(_numbers(column)) if _is_number(column) else np.asarray(_texts(column) == "", dtype=np.bool_)


def _parts(column: "pd.Series[Any]", name: str) -> list[Part]:
    if _is_number(column):
        return [Part(name, "value")]
    levels = sorted(set(_texts(column)) - {""})
    if len(levels) > MOST_LEVELS:
        msg = (
            f"The covariate '{name}' has {len(levels)} different texts among {len(column)} training patients, expected "
            f"at most {MOST_LEVELS}; group its values, or leave it out of covariates."
        )
        raise SettingsError(msg)
    return [Part(name, "level", level) for level in levels]


def _moments(column: "pd.Series[Any]") -> tuple[float, float]:
    """Mean and spread of the values that are there; the spread is 1 where they do not vary."""
    values = _numbers(column)
    values = values[~np.isnan(values)]
    varies = len(np.unique(values)) > 1
    return float(values.mean()), float(values.std()) if varies else 1.0


def _raw(column: "pd.Series[Any]", part: Part) -> npt.NDArray[np.float64]:
    if part.kind == "missing":
        return _is_missing(column).astype(np.float64)
    if part.kind == "level":
        return np.asarray(_texts(column) == part.level, dtype=np.float64)
    if not _is_number(column) and not _is_missing(column).all():
        msg = (
            f"The covariate '{part.column}' was a number in the training patients and is text in these; mend the "
            "table of patients."
        )
        raise SettingsError(msg)
    return _numbers(column if _is_number(column) else column.astype(np.float64))
