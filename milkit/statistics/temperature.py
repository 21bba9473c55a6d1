"""One number that makes class probabilities less, or more, sure of themselves: temperature scaling.

Networks trained on few patients are too sure. Dividing all logits by one temperature mends that without changing which
class is the likeliest (Guo et al. 2017, ICML, arXiv:1706.04599). It is fitted on patients that neither trained the
model nor are tested: the validation patients of the inner folds. Fitted on the tested ones it would make their
calibration look better than the next patient's.
"""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

LOWEST, HIGHEST = 0.05, 20.0
"""Between these a temperature is sought."""


def fit_temperature(labels: Labels, logits: Floats) -> float:
    """The temperature T of least mean cross-entropy of softmax(logits / T), (n,), (n, C).

    The loss is convex in β = 1 / T, and its slope Σ_i (Σ_c p_ic z_ic - z_i,label) is 0 at the best one. There is none
    where every label has its row's largest logit, when T would go to 0 (``LOWEST`` is returned), or where the logits
    say the opposite of the labels on the whole, when T would go to infinity (``HIGHEST``). 1 where all logits of each
    row are equal. Logarithms of probabilities serve as logits, since softmax does not see what is added to a row.

    Assumes that one temperature suits all classes and folds, which is why it needs few patients.
    """
    from scipy.optimize import brentq

    centred = logits - logits.max(axis=1, keepdims=True)
    if not centred.any():
        return 1.0

    def slope(log_temperature: float) -> float:
        shares = _softmax(centred * np.exp(-log_temperature))
        return float(((shares * centred).sum(axis=1) - centred[np.arange(len(labels)), labels]).mean())

    if slope(np.log(LOWEST)) <= 0:
        return LOWEST
    if slope(np.log(HIGHEST)) >= 0:
        return HIGHEST
    return float(np.exp(brentq(slope, np.log(LOWEST), np.log(HIGHEST), xtol=1e-10)))


def scaled(logits: Floats, temperature: float) -> Floats:
    """softmax(logits / temperature), (n, C): the classes of a row keep their order."""
    return _softmax(logits / temperature)


def logits_of(probabilities: Floats) -> Floats:
    """Logarithms of probabilities, (n, C); a probability of 0 is taken as 1e-7, as one of single precision may be."""
    result: Floats = np.log(np.maximum(probabilities, 1e-7))
    return result


def _softmax(logits: Floats) -> Floats:
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    result: Floats = raised / raised.sum(axis=1, keepdims=True)
    return result
