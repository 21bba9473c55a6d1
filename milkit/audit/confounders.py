"""Whether the bags tell site, scanner, age, sex or their own size: what a model could learn in place of the disease.

A logistic regression on the mean of a patient's cells is cross-validated over patients, stratified by what it predicts;
of numbers it predicts whether they lie above the cohort's median. That a thing can be told does not say that a model
uses it; where it is also tied to the label, nothing in the data could tell the two apart.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from milkit.audit.findings import AuditFinding, Level
from milkit.audit.pooled import Pooled, pool
from milkit.audit.scores import AUROC_MACRO, BALANCED_ACCURACY, Scorer
from milkit.audit.simple_models import PENALTIES, logistic, rows_of, standardised, tested
from milkit.audit.subject import Audited
from milkit.folds import Folds
from milkit.statistics.out_of_fold import Resamples

SERIOUS = ("site", "scanner", "number of cells")
"""What says nothing of a patient, so that a model must not use it; age and sex are only noted."""
FEWEST = 5
"""Patients of a value; values of fewer are left out."""

_FOLDS = 5


def about_confounders(audited: Audited) -> Iterator[AuditFinding]:
    """What the bags tell beside the label, a sentence each."""
    bags = pool(audited.store)
    took_part = bags.patients.index.isin(audited.patients) & (bags.sizes > 0)
    bags = Pooled(bags.patients[took_part], bags.means[took_part], bags.sizes[took_part])
    columns = dict.fromkeys(["site", "scanner", *([audited.settings.by] if audited.settings.by else []), "age", "sex"])
    absent = []
    for name in columns:
        values = bags.patients[name] if name in bags.patients else pd.Series(np.nan, index=bags.patients.index)
        finding = _told(audited, bags, name, _levels(values))
        if finding:
            yield finding
        else:
            absent.append(name)
    size = _told(audited, bags, "number of cells", _levels(pd.Series(bags.sizes.astype(float), bags.patients.index)))
    if size:
        yield size
    else:
        absent.append("number of cells")
    if absent:
        text = (
            f"Whether the bags tell {', '.join(absent)} cannot be said: the patients have no such column, or fewer "
            f"than two values of it that {FEWEST} patients have."
        )
        yield AuditFinding("note", "not-assessed", text)


def association(first: "pd.Series[Any]", second: "pd.Series[Any]") -> float:
    """Cramér's V of two columns of categories, 0 to 1: sqrt(chi² / (n min(rows - 1, columns - 1))); NaN for one row."""
    table = pd.crosstab(first, second).to_numpy(dtype=np.float64)
    if min(table.shape) < 2:
        return float("nan")
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0, keepdims=True) / table.sum()
    chi_square = float(((table - expected) ** 2 / expected).sum())
    return float(np.sqrt(chi_square / (table.sum() * (min(table.shape) - 1))))


def _levels(values: "pd.Series[Any]") -> "pd.Series[str]":
    """The known values as categories that enough patients have; numbers as above the median or not."""
    known = values.dropna()
    if pd.api.types.is_numeric_dtype(known) and known.nunique() > 2:
        known = (known > known.median()).map({True: "above the median", False: "up to the median"})
    known = known.astype(str).str.strip()
    counts = known[known != ""].value_counts()
    return known[known.isin(counts.index[counts >= FEWEST])]


def _told(audited: Audited, bags: Pooled, name: str, levels: "pd.Series[str]") -> AuditFinding | None:
    """How well the bags tell a column; None where there is nothing to tell."""
    if levels.nunique() < 2:
        return None
    settings = audited.settings
    rows = np.flatnonzero(bags.patients.index.isin(levels.index))
    classes = tuple(sorted(set(levels)))
    labels: npt.NDArray[np.int64] = np.array([classes.index(value) for value in levels], dtype=np.int64)
    splits = rows_of(Folds.stratified(levels, _FOLDS, seed=settings.seed).splits(), list(levels.index))
    means = standardised(bags.means[rows])
    held_out, _ = logistic(means, labels, len(classes), splits, PENALTIES, balanced=True)
    scorer = Scorer(labels, classes, Resamples.of(labels, settings.bootstrap, settings.level, settings.seed))
    scores = scorer.score(tested(held_out, splits, np.arange(len(labels))))
    accuracy, auroc = scorer.figure(scores, BALANCED_ACCURACY), scorer.figure(scores, AUROC_MACRO)
    chance = 1 / len(classes)
    above = accuracy["ci_low"] is not None and accuracy["ci_low"] > chance
    tie = association(levels, bags.patients.loc[levels.index, "label"])
    level: Level = "warning" if above and (name in SERIOUS or name == settings.by) else "note"
    what = f"whether the {name} is above the median" if "above the median" in classes else f"the {name}"
    told = f"The bags tell {what}" if above else f"The bags are not shown to tell {what}"
    return AuditFinding(
        level,
        "confounder",
        f"{told}: balanced accuracy {_figure(accuracy, settings.level)}, chance {chance:.2f}, macro AUROC "
        f"{auroc['estimate']:.2f}, over {len(levels)} patients; its tie to the label is {tie:.2f} (Cramér's V).",
    )


def _figure(figure: dict[str, float | None], level: float) -> str:
    return f"{figure['estimate']:.2f} ({100 * level:g} % CI {figure['ci_low']:.2f} to {figure['ci_high']:.2f})"
