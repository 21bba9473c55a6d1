"""Where the uncertainty of a cross-validated metric comes from: the split, the seed, or the patients.

One run's figure has an error of three parts: how patients were dealt into folds, the random numbers of the training,
and which patients were in the cohort. The first two shrink with repeats and seeds, which cost computing time; the third
only with patients. A figure ± its spread over seeds alone shows the smallest and hides the largest.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


class VarianceParts(NamedTuple):
    """Variances of a metric, in its units squared.

    Attributes:
        patients: Of the mean over all repeats and seeds, over cohorts of the same size.
        split: Of one run, over ways to deal the patients into folds; NaN where there is one repeat.
        seed: Of one run, over seeds within a split; NaN where there is one seed.
        one_run: patients + split + seed: of one split and seed, as most studies have. NaN where a part cannot be told.
        of_mean: patients + split / R + seed / (R S): of the mean that is reported.
    """

    patients: float
    split: float
    seed: float
    one_run: float
    of_mean: float


def variance_parts(values: Floats, resamples: Floats) -> VarianceParts:
    """Split the variance of a metric: values (R, S) of R repeats and S seeds, resamples (B,) of their mean.

    Each value pools all patients of a repeat. One-way random effects, seeds nested in splits, since a seed does not
    mean the same under another split (Searle, Casella and McCulloch 1992, Variance Components, chapter 3):

        seed = MS_within,    split = max(0, (MS_between - MS_within) / S),    patients = variance of the resamples

    With one seed, ``split`` is the variance over repeats and holds the seed's as well. The resamples weight the same
    patients in all repeats and seeds (``intervals.bootstrap_weights``, within classes), the models staying as they are.

    Assumes that splits and seeds act alike on all patients: what they do to single patients is counted in split and
    seed, and by 1 / (R S) of it again in patients. Splits redeal one cohort, so ``split`` is less than what training on
    other patients would change. With few repeats the parts are themselves rough: from 5, a variance is estimated at 0.1
    to 2.8 times its true value (95 of 100 times, normal errors).
    """
    n_repeats, n_seeds = values.shape
    between = n_seeds * float(values.mean(axis=1).var(ddof=1)) if n_repeats > 1 else float("nan")
    within = float(values.var(axis=1, ddof=1).mean()) if n_seeds > 1 else float("nan")
    split = max(0.0, (between - within) / n_seeds) if n_seeds > 1 and n_repeats > 1 else between
    patients = float(np.var(resamples[~np.isnan(resamples)], ddof=1))
    seed = 0.0 if n_seeds == 1 else within  # with one seed it is in the split's part
    total = patients + split + seed
    return VarianceParts(patients, split, within, total, patients + split / n_repeats + seed / values.size)
