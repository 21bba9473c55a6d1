"""What hazards are explained by: what a run predicted, and covariates, as columns of numbers."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from milkit.covariates import CovariateEncoding, check_columns
from milkit.survival.outcome import Outcome
from milkit.survival.predicted import Risks

Bools = npt.NDArray[np.bool_]
Names = npt.NDArray[np.object_]


class Terms(NamedTuple):
    """What hazards are explained by.

    Attributes:
        values: By patient, a column a term; numbers are standardised.
        units: By term, what its hazard ratio compares.
        of_model: Terms that the run predicted; the others are covariates.
    """

    values: pd.DataFrame
    units: dict[str, str]
    of_model: tuple[str, ...]


def make_terms(
    outcome: Outcome, risks: Risks | None, groups: Names, covariates: Sequence[str]
) -> tuple[Terms, dict[str, int], list[str]]:
    """The terms of patients who have all covariates, how many lack each of these, and warnings in sentences.

    The risk and numeric covariates become (x - mean) / spread over these patients; a text becomes a 0 or 1 for each of
    its values but the first. A predicted class becomes one for each class but the largest. Terms that do not vary, and
    patients of predicted classes without an event, whose hazard ratio would be 0 or infinite, are left out. Patients
    who lack a covariate are left out, because a value in its place biases hazard ratios.
    """
    told, patients = list[str](), outcome.patients
    check_columns(patients, covariates)
    there = {name: _has_value(patients[name]) for name in covariates}
    missing = {name: int((~own).sum()) for name, own in there.items()}
    kept = np.all([np.ones(len(patients), dtype=np.bool_), *there.values()], axis=0)
    for name in sorted(set(groups[kept])) if risks is None else ():
        if not (outcome.event & kept & (groups == name)).any():
            kept &= groups != name
            told.append(f"Nobody predicted as {name} had an event: these patients are left out of Cox's model.")
    if not kept.any():
        return Terms(pd.DataFrame(index=patients.index[:0]), {}, ()), missing, told
    model, units = _classes(groups[kept]) if risks is None else _risk(risks.mean[kept])
    model.index = patients.index[kept]
    others, compared = _covariates(patients[kept], covariates)
    together = pd.concat([model, others], axis=1)
    constant = [str(name) for name in together if together[name].nunique() < 2]
    told += [f"The term '{name}' is the same in all patients and is left out of Cox's model." for name in constant]
    of_model = tuple(name for name in units if name not in constant)
    return Terms(together.drop(columns=constant), units | compared, of_model), missing, told


def _risk(risk: npt.NDArray[np.float64]) -> tuple[pd.DataFrame, dict[str, str]]:
    spread = float(risk.std())
    values = (risk - risk.mean()) / spread if len(np.unique(risk)) > 1 else np.zeros(len(risk))
    unit = f"one spread ({spread:.3g}) of the out-of-fold risks"
    return pd.DataFrame({"predicted risk": values}), {"predicted risk": unit}


def _classes(groups: Names) -> tuple[pd.DataFrame, dict[str, str]]:
    counts = pd.Series(groups).value_counts()
    largest = min(counts.index[counts == counts.max()])
    others = sorted(set(groups) - {largest})
    values = pd.DataFrame({f"predicted {name}": np.asarray(groups == name, dtype=np.float64) for name in others})
    units = {f"predicted {name}": f"predicted {name} against {largest}" for name in others}
    return values.reindex(range(len(groups))), units


def _covariates(patients: pd.DataFrame, columns: Sequence[str]) -> tuple[pd.DataFrame, dict[str, str]]:
    """The first value of a text is what its others are compared with."""
    encoding = CovariateEncoding.fit(patients, columns)
    table = pd.DataFrame(encoding.encode(patients), index=patients.index, columns=list(encoding.names))
    first, units = dict[str, str](), dict[str, str]()
    for part, scale in zip(encoding.parts, encoding.scale, strict=True):
        if part.kind == "value":
            units[part.name] = f"one spread ({1 / scale:.3g}) of {part.column}"
        elif part.column not in first:
            first[part.column] = part.level
        else:
            units[part.name] = f"{part.name} against {first[part.column]}"
    return table[list(units)], units


def _has_value(column: "pd.Series[Any]") -> Bools:
    """Where it is neither missing nor empty, nor, of numbers, infinite."""
    filled = column.notna() & (column.astype(str).str.strip() != "")
    if pd.api.types.is_numeric_dtype(column):
        filled &= np.isfinite(column.astype(np.float64))
    return filled.to_numpy(dtype=np.bool_)
