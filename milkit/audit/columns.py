"""Which columns of the table of patients are covariates, and which a differential count."""

import re
from typing import Any

import pandas as pd

from milkit.covariates import OUTCOMES

NO_COVARIATES = frozenset({*OUTCOMES, "patient_id", "sample_id", "site", "scanner", "split", "fold"})
"""Columns that are predicted, name somebody, or say where a patient comes from, which ``milkit audit`` looks at."""

_DIFFERENTIAL = re.compile(r"(pb|bm)_\w+")
_TOTAL = re.compile(r"(pb|bm)_total")


def covariate_columns(patients: pd.DataFrame) -> tuple[str, ...]:
    """Age, sex and every other column of numbers that varies, in the table's order.

    Left out are outcomes, names, site and scanner, and the differential count. A number that codes a diagnosis cannot
    be told from a measurement; its control is then the one that is too good.
    """
    return tuple(
        str(name)
        for name in patients
        if name not in NO_COVARIATES
        and not _DIFFERENTIAL.fullmatch(str(name))
        and (name == "sex" or _is_number(patients[name]))
        and patients[name].nunique() > 1
    )


def differential_columns(patients: pd.DataFrame) -> tuple[str, ...]:
    """Columns of numbers called ``pb_<cell type>`` or ``bm_<cell type>``: of peripheral blood, or of bone marrow.

    So does AML-Hehr's table name them. Their sum, ``pb_total``, is left out, and what has no value or only one.
    """
    return tuple(
        str(name)
        for name in patients
        if _DIFFERENTIAL.fullmatch(str(name))
        and not _TOTAL.fullmatch(str(name))
        and _is_number(patients[name])
        and patients[name].nunique() > 1
    )


def _is_number(column: "pd.Series[Any]") -> bool:
    return pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
