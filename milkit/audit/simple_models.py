"""Logistic regressions on what needs no network, fitted and tested on the splits of a run.

All that is estimated, the moments of standardisation and the encoding of covariates among them, comes from a split's
training patients; a penalty that is chosen is chosen by its validation patients; nothing looks at its tested ones.
Letters: n patients, S splits, C classes, d inputs.
"""

import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from milkit.covariates import CovariateEncoding
from milkit.errors import FoldError
from milkit.folds import Split

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Inputs = Callable[[Ints], Floats]
"""Rows of the training patients -> the inputs of all patients, (n, d), encoded by what the training patients say."""

PENALTIES = (0.1, 1.0, 10.0)
"""Tried for features, from the heaviest penalty on: C times d, since the squared length of standardised inputs is d."""
LIGHT = (10.0,)
"""For a few inputs, such as age and sex, which many patients can bear."""

_MOST_ITERATIONS = 1000


class Rows(NamedTuple):
    """A split, as rows of the table of patients."""

    repeat: int
    fold: int
    train: Ints
    validation: Ints
    test: Ints


def rows_of(splits: Iterable[Split], patients: Sequence[str]) -> list[Rows]:
    """Each split's patients by their position in ``patients``."""
    position = {name: row for row, name in enumerate(patients)}

    def rows(names: Sequence[str]) -> Ints:
        return np.array([position[name] for name in names], dtype=np.int64)

    return [Rows(split.repeat, split.fold, *map(rows, split[2:])) for split in splits]


def places_of(table: pd.DataFrame, splits: Sequence[Rows], patients: Iterable[str]) -> tuple[Ints, Ints]:
    """Of each row of predictions its split's position in ``splits``, and its patient's in ``patients``."""
    numbers = {(split.repeat, split.fold): number for number, split in enumerate(splits)}
    position = {name: row for row, name in enumerate(patients)}
    where = [numbers[int(r), int(f)] for r, f in zip(table["repeat"], table["fold"], strict=True)]
    rows = [position[str(name)] for name in table["patient_id"]]
    return np.array(where, dtype=np.int64), np.array(rows, dtype=np.int64)


def standardised(features: Floats) -> Inputs:
    """Inputs (n, d) centred and scaled by the training patients; one that does not vary among them is left out."""

    def inputs(train: Ints) -> Floats:
        mean, spread = features[train].mean(axis=0), features[train].std(axis=0)
        varies = spread > 1e-9 * np.maximum(1.0, np.abs(mean))
        return np.asarray((features[:, varies] - mean[varies]) / spread[varies])

    return inputs


def of_sizes(sizes: Ints) -> Inputs:
    """The logarithm z of the number of cells, standardised, and z² - 1, by which a class in the middle can be told."""
    logarithm = np.log(np.maximum(sizes, 1).astype(np.float64))

    def inputs(train: Ints) -> Floats:
        spread = logarithm[train].std()
        z = (logarithm - logarithm[train].mean()) / (spread if spread > 1e-9 else 1.0)
        return np.stack([z, z**2 - 1], axis=1)

    return inputs


def of_covariates(patients: pd.DataFrame, columns: Sequence[str]) -> Inputs:
    """Columns of the table of patients, encoded as for a head that is given them; see ``CovariateEncoding``."""

    def inputs(train: Ints) -> Floats:
        return CovariateEncoding.fit(patients.iloc[train], columns).encode(patients)

    return inputs


def logistic(
    inputs: Inputs, labels: Ints, n_classes: int, splits: Sequence[Rows], penalties: Sequence[float], *, balanced: bool
) -> tuple[Floats, list[float]]:
    """Probabilities of everybody who is held out of a split's training, and the penalty that each split chose.

    Args:
        inputs: Of a split.
        labels: (n,) position of each patient's class.
        n_classes: C; a class without a training patient has probability 0.
        splits: Who is fitted on and tested.
        penalties: Values of C d (C as in scikit-learn, large where the penalty is light), of which the one with the
            least cross-entropy on the validation patients is taken, the first of equally good ones; a single one is
            taken as it is.
        balanced: Whether patients weigh by the inverse frequency of their class in training.

    Returns:
        (S, n, C), NaN for the training patients; and S values of C d.
    """
    held_out = np.full((len(splits), len(labels), n_classes), np.nan)
    chosen = []
    for number, split in enumerate(splits):
        values, others = inputs(split.train), np.concatenate([split.validation, split.test])
        coordinates = rotated(values, split.train)
        best = float("inf")
        for penalty in penalties:
            own, c = (coordinates[split.train], labels[split.train]), penalty / max(values.shape[1], 1)
            fitted = _fit(*own, coordinates[others], c, n_classes, balanced=balanced)
            first = fitted[: len(split.validation)]
            loss = cross_entropy(first, labels[split.validation]) if len(penalties) > 1 else 0.0
            if loss < best:
                best, best_penalty, held_out[number, others] = loss, penalty, fitted
        chosen.append(best_penalty)
    return held_out, chosen


def permuted(
    inputs: Inputs,
    labels: Ints,
    splits: Sequence[Rows],
    penalties: Sequence[float],
    n_permutations: int,
    seed: int,
    *,
    balanced: bool,
) -> Floats:
    """Like ``logistic`` with each split's penalty, from labels that are shuffled among its training patients.

    Returns:
        (n_permutations, S, n, C). Nothing that was learned from such labels can be true, so that what remains above
        chance comes from the folds or the figures.
    """
    n_classes = int(labels.max()) + 1
    held_out = np.full((n_permutations, len(splits), len(labels), n_classes), np.nan)
    for number, (split, penalty) in enumerate(zip(splits, penalties, strict=True)):
        raw = inputs(split.train)
        values, c = rotated(raw, split.train), penalty / max(raw.shape[1], 1)
        for permutation in range(n_permutations):
            shuffled = np.random.default_rng([seed, number, permutation]).permutation(labels[split.train])
            fitted = _fit(values[split.train], shuffled, values[split.test], c, n_classes, balanced=balanced)
            held_out[permutation, number, split.test] = fitted
    return held_out


def tested(held_out: Floats, splits: Sequence[Rows], rows: Ints) -> Floats:
    """Each repeat's probabilities of the patients ``rows`` when they were tested, (S, n, C) -> (R, len(rows), C).

    ``FoldError`` where a repeat does not test one of them.
    """
    repeats = sorted({split.repeat for split in splits})
    result = np.full((len(repeats), held_out.shape[1], held_out.shape[2]), np.nan)
    for split, probabilities in zip(splits, held_out, strict=True):
        result[repeats.index(split.repeat), split.test] = probabilities[split.test]
    if absent := int(np.isnan(result[:, rows]).any(axis=(0, 2)).sum()):
        msg = f"{absent} of {len(rows)} patients are not tested in every repeat; give folds that test each one once."
        raise FoldError(msg)
    return result[:, rows]


def cross_entropy(probabilities: Floats, labels: Ints) -> float:
    """Mean of -log p of the true class, (n, C), (n,); classes weigh alike, whatever their share of the patients."""
    if not len(labels):
        return 0.0
    of_patient = -np.log(np.maximum(probabilities[np.arange(len(labels)), labels], 1e-12))
    return float(np.mean([of_patient[labels == label].mean() for label in np.unique(labels)]))


def rotated(values: Floats, train: Ints) -> Floats:
    """The same inputs in coordinates of the training patients' span, where they have fewer numbers.

    A penalty on the squared weights does not see a rotation, and weights outside the span are 0, so that the fit is the
    same (Hastie and Tibshirani 2004, Biostatistics 5:329).
    """
    if values.shape[1] <= len(train):
        return values
    _, _, axes = np.linalg.svd(values[train], full_matrices=False)
    return np.asarray(values @ axes.T)


def _fit(train: Floats, labels: Ints, others: Floats, c: float, n_classes: int, *, balanced: bool) -> Floats:
    """Probabilities of others, (m, C), by a multinomial logistic regression with an intercept."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    present = np.unique(labels)
    result = np.zeros((len(others), n_classes))
    if len(present) == 1 or not train.shape[1]:  # nothing to learn from: the shares of the classes
        shares = np.bincount(labels, minlength=n_classes) / len(labels)
        result[:] = (shares > 0) / len(present) if balanced else shares
        return result
    model = LogisticRegression(C=c, class_weight="balanced" if balanced else None, max_iter=_MOST_ITERATIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a control that has almost converged is a control
        result[:, present] = model.fit(train, labels).predict_proba(others)
    return result
