"""The linear probe: how well a linear classifier tells cells apart by frozen features."""

import warnings
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.int64]


class Probe(NamedTuple):
    """What a linear probe says.

    Attributes:
        predicted: (Q,) class of each tested row.
        inverse_penalty: C, by which the sum of the losses is multiplied against half the squared weights.
        converged: Whether the optimiser ended before its limit of iterations.
    """

    predicted: Ints
    inverse_penalty: float
    converged: bool


class LinearProbe(NamedTuple):
    """A fitted linear probe.

    Attributes:
        classes: (C,) the classes that it knows, in the order of the columns.
        weights: (C, d); of two classes the first has zeros.
        intercepts: (C,).
        inverse_penalty: C, as of ``Probe``.
        converged: As of ``Probe``.
    """

    classes: Ints
    weights: Floats
    intercepts: Floats
    inverse_penalty: float
    converged: bool

    def logits(self, features: Floats) -> Floats:
        """Up to what is added to a row, logarithms of the classes' probabilities: (Q, d) -> (Q, C), float64."""
        result: Floats = features.astype(np.float64) @ self.weights.T + self.intercepts
        return result


def fit_linear_probe(train: Floats, labels: Ints, max_iterations: int = 1000) -> LinearProbe:
    """Multinomial logistic regression with C = d x classes / 100 on features as they are: (n, d), (n,).

    As DinoBloom's released evaluation has it (Koch et al. 2024): L-BFGS from zero, an intercept, tolerance 1e-4, double
    precision; the number of classes is that of the training rows. The paper's sentence names another coefficient, with
    the number of samples; the published figures come from the code. scikit-learn fits two classes with one set of
    weights, not two. Half precision of stored features is not undone by the double precision here.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    penalty = train.shape[1] * len(np.unique(labels)) / 100
    model = LogisticRegression(C=penalty, max_iter=max_iterations)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # said once for all folds, by ``converged``
        model.fit(train.astype(np.float64), labels)
    weights, intercepts = np.asarray(model.coef_), np.asarray(model.intercept_)
    if len(weights) == 1:
        weights, intercepts = np.vstack([0 * weights, weights]), np.append(0.0, intercepts)
    converged = int(model.n_iter_.max()) < max_iterations
    return LinearProbe(np.asarray(model.classes_, dtype=np.int64), weights, intercepts, penalty, converged)


def linear_probe(train: Floats, labels: Ints, tested: Floats, max_iterations: int = 1000) -> Probe:
    """What ``fit_linear_probe`` says of tested rows: (n, d), (n,), (Q, d); of equally likely classes the first."""
    probe = fit_linear_probe(train, labels, max_iterations)
    predicted = probe.classes[probe.logits(tested).argmax(axis=1)]
    return Probe(predicted, probe.inverse_penalty, probe.converged)
