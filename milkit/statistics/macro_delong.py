"""DeLong's test of the macro AUROC: the mean over the classes of their AUROCs against the rest.

Each AUROC is a mean over pairs of patients, so the macro AUROC changes with a patient by a sum of placements: the
share of the rest that the patient exceeds in its own class's score, and the shares of the other classes' patients that
exceed it in theirs (DeLong, DeLong and Clarke-Pearson 1988, Biometrics 44:837, for the two sides of one AUROC). The
patients of each class are one sample of fixed size, as in the bootstrap of ``out_of_fold``; with two classes this is
``delong_test``. For one class against the rest, ``delong`` takes the rest as one sample, its mix of classes being left
to chance.

Assumptions are those of ``delong``. Letters: n patients, C classes, R repeats.
"""

import numpy as np
import numpy.typing as npt

from milkit.statistics.delong import Comparison, comparison

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def macro_delong_test(labels: Ints, first: Floats, second: Floats, level: float = 0.95) -> Comparison:
    """Paired test of two models on the same patients, (n,), (R, n, C), (R', n, C); first less second.

    With f_i the difference of the two influences of patient i and f̄_k its mean over the n_k patients of class k:

        z = (A₁ - A₂) / sqrt(Σ_k n_k / (n_k - 1) Σ_{i in k} (f_i - f̄_k)²)

    NaN where a class that is there has a single patient, or the variance is 0 and the difference is not.
    """
    areas, influences = zip(*(macro_influence(labels, scores) for scores in (first, second)), strict=True)
    own, variance = influences[0] - influences[1], 0.0
    for k in np.unique(labels):
        of_class = own[labels == k]
        variance += float(of_class.var(ddof=1)) * len(of_class) if len(of_class) > 1 else float("nan")
    return comparison(areas[0] - areas[1], variance, level)


def macro_influence(labels: Ints, scores: Floats) -> tuple[float, Floats]:
    """The macro AUROC, mean over the repeats, and by how much each patient moves it, (n,), (R, n, C) -> (n,).

    For class c, with n₊ patients in it and n₋ in the rest: (placement - AUROC_c) / n₊ of those in it, / n₋ of the rest;
    the mean over classes and repeats. Classes without patients are left out.
    """
    from scipy.stats import rankdata

    there = np.unique(labels)
    aurocs, influence = [], np.zeros(len(labels))
    for c in there:
        positive = labels == c
        n_up, n_down = int(positive.sum()), int((~positive).sum())
        if not n_down:
            return float("nan"), np.full(len(labels), np.nan)
        for repeat in scores[:, :, c]:
            ranks = rankdata(repeat)
            above = (ranks[positive] - rankdata(repeat[positive])) / n_down
            below = 1 - (ranks[~positive] - rankdata(repeat[~positive])) / n_up
            aurocs.append(float(above.mean()))
            influence[positive] += (above - aurocs[-1]) / n_up
            influence[~positive] += (below - aurocs[-1]) / n_down
    return float(np.mean(aurocs)), influence / len(aurocs)
