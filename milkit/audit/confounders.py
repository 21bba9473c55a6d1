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
from milkit.audit.verdicts import exceeds, matters
from milkit.figure_text import with_interval
from milkit.folds import Folds
from milkit.statistics.association import cramers_v
from milkit.statistics.out_of_fold import Resamples
from milkit.survival.curves import log_rank

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


def tie(levels: "pd.Series[str]", predictions: pd.DataFrame, level: float) -> str:
    """How closely a column is tied to what the run predicts, in words.

    Of classes and of numbers, above their median or not, Cramér's V; of survival the p value of the log-rank test.

    Args:
        levels: The column's categories by patient.
        predictions: Rows of ``predictions.csv``.
        level: Of the interval.
    """
    known = predictions.groupby("patient_id")[["time", "event"] if "time" in predictions else ["label"]].first()
    known = known[known.index.isin(levels.index)]
    own = levels.reindex(known.index)
    if "time" in known:
        time, event = known["time"].to_numpy(dtype=np.float64), known["event"].to_numpy() > 0
        found = log_rank(time, event, own.to_numpy(dtype=object))
        return "its tie to survival cannot be told" if found is None else f"survival differs with p {_p(found['p'])}"
    label, what = known["label"], "label"
    if pd.api.types.is_numeric_dtype(label):
        label, what = label > label.median(), "value that is predicted, above its median or not,"
    v = cramers_v(own, label, level)._asdict()
    return f"its tie to the {what} is {with_interval(v, level=level, nothing='undefined')} (Cramér's V)"


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
    apart = matters(accuracy, chance)
    level: Level = "warning" if apart and (name in SERIOUS or name == settings.by) else "note"
    what = f"whether the {name} is above the median" if "above the median" in classes else f"the {name}"
    verb = "tell" if apart else "hardly tell" if exceeds(accuracy, chance) else "are not shown to tell"
    return AuditFinding(
        level,
        "confounder",
        f"The bags {verb} {what}: balanced accuracy {with_interval(accuracy, level=settings.level)}, chance "
        f"{chance:.2f}, macro AUROC {auroc['estimate']:.2f}, over {len(levels)} patients; "
        f"{tie(levels, audited.tables[0], settings.level)}.",
    )


def _p(value: float) -> str:
    return "below 0.001 (log-rank)" if value < 0.001 else f"{value:.3f} (log-rank)"
