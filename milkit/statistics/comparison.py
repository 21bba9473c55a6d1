"""Two models of the same patients and folds, compared in the ways that answer different questions.

*Would other patients change which of these models is better?* Paired permutation for the balanced accuracy, DeLong for
AUROCs: the models stay as they are. *Would models trained on other patients?* Nadeau and Bengio's corrected t-test over
the folds: the procedures are compared, with far less power at one cross-validation. See ``paired_tests``.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from milkit.statistics import discrimination
from milkit.statistics.delong import Comparison, delong_test
from milkit.statistics.intervals import without_nan
from milkit.statistics.macro_delong import macro_delong_test
from milkit.statistics.out_of_fold import OutOfFold, Resamples
from milkit.statistics.paired_tests import corrected_t_test, holm, permutation_test
from milkit.statistics.summary import balanced_accuracy_of

Floats = npt.NDArray[np.float64]

HEADLINES = ("balanced_accuracy", "balanced_accuracy_folds", "auroc_macro")
"""The three comparisons of a pair over all classes; AUROCs of single classes stand beside them."""


class Plan(NamedTuple):
    """How comparisons are made.

    Attributes:
        n_test: Patients in a tested fold, on average.
        n_train: Patients that a model was fitted on, on average, without those that stopped it.
        n_bootstrap: Resamples behind the intervals of the balanced accuracy.
        n_permutations: Drawn where all are too many.
        level: Of the intervals.
        seed: Of resamples and permutations.
    """

    n_test: float
    n_train: float
    n_bootstrap: int = 2000
    n_permutations: int = 10_000
    level: float = 0.95
    seed: int = 0


def compare_all(models: Sequence[OutOfFold], plan: Plan) -> list[dict[str, Any]]:
    """Every pair of models, first less second, with the p values of each kind of test adjusted over all of its kind.

    Holm's adjustment counts the pairs for each of ``HEADLINES``, and pairs times classes for the AUROCs of single
    classes. The kinds are not adjusted for each other: they ask different things of the same models.

    Returns:
        By pair: ``first`` and ``second`` (positions), ``HEADLINES`` and ``per_class``, each comparison with
        ``difference``, ``ci_low``, ``ci_high``, ``p`` and ``p_holm``; None where undefined.
    """
    pairs = [(a, b) for a in range(len(models)) for b in range(a + 1, len(models))]
    found = [{"first": a, "second": b, **_compare(models[a], models[b], plan)} for a, b in pairs]
    for name in HEADLINES:
        adjust([pair[name] for pair in found])
    adjust([one for pair in found for one in pair["per_class"].values()])
    result: list[dict[str, Any]] = without_nan(found)
    return result


def _compare(first: OutOfFold, second: OutOfFold, plan: Plan) -> dict[str, Any]:
    folds = corrected_t_test(_fold_gaps(first, second), plan.n_test, plan.n_train, plan.level)
    per_class = {}
    for c, name in enumerate(first.classes):
        own, others = first.probabilities[:, :, c], second.probabilities[:, :, c]
        per_class[name] = row_of(delong_test(first.labels == c, own, others, plan.level))
    return {
        "balanced_accuracy": _balanced(first, second, plan),
        "balanced_accuracy_folds": row_of(Comparison(*folds)),
        "auroc_macro": row_of(macro_delong_test(first.labels, first.probabilities, second.probabilities, plan.level)),
        "per_class": per_class,
    }


def _fold_gaps(first: OutOfFold, second: OutOfFold) -> Floats:
    """Differences of the balanced accuracy by fold, (R, folds).

    Where all repeats test the same folds (sites that are left out, or one fixed test), further repeats test nobody
    else, and their mean is taken. Of one fixed test that leaves a single value, on which no test can be made.
    """
    metric, n_repeats = balanced_accuracy_of(first), len(first.folds)
    gaps = (first.fold_values(metric) - second.fold_values(metric))[:, 0]
    return gaps if first.redealt else np.asarray(gaps.reshape(n_repeats, -1).mean(axis=0))


def _balanced(first: OutOfFold, second: OutOfFold, plan: Plan) -> dict[str, float]:
    """The difference with its paired BCa interval and the p of a paired permutation test."""
    metrics = [model.mean_of(balanced_accuracy_of(model)) for model in (first, second)]
    resamples = Resamples.of(first.labels, plan.n_bootstrap, plan.level, plan.seed)
    (gap,) = resamples.estimates(lambda weights: metrics[0](weights) - metrics[1](weights))
    labels, n_classes = np.tile(first.labels, 2), len(first.classes)
    stacked = np.concatenate([first.predicted, second.predicted], axis=1)

    def of_chosen(weights: Floats) -> Floats:
        repeats = [discrimination.balanced_accuracy(labels, row, weights, n_classes) for row in stacked]
        result: Floats = np.mean(repeats, axis=0)
        return result

    tested = permutation_test(of_chosen, len(first.labels), n_permutations=plan.n_permutations, seed=plan.seed)
    return row_of(Comparison(*gap, tested.p_value))


def row_of(found: Comparison) -> dict[str, float]:
    """What is told of a comparison."""
    return {"difference": found.difference, "ci_low": found.ci_low, "ci_high": found.ci_high, "p": found.p_value}


def adjust(rows: list[dict[str, float]]) -> None:
    """Add ``p_holm``, over all of the rows."""
    adjusted = holm(np.array([row["p"] for row in rows]))
    for row, p_value in zip(rows, adjusted, strict=True):
        row["p_holm"] = float(p_value)
