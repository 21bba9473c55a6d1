"""False discovery rate: of many tests, which to believe when a known share of those believed may be wrong."""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def adjusted(p_values: Floats) -> Floats:
    """p-values adjusted by Benjamini and Hochberg, of any shape; NaN, where there was no test, stays and is no test.

        q_(i) = min over j >= i of p_(j) m / j,    m tests, p_(1) <= … <= p_(m)

    Believing the tests with q <= α makes at most the share α of these wrong, on average, where the tests are
    independent or depend on each other positively (Benjamini and Hochberg 1995, JRSS B 57:289; Benjamini and Yekutieli
    2001, Annals of Statistics 29:1165).
    """
    from scipy.stats import false_discovery_control

    result = np.full(p_values.shape, np.nan)
    tested = ~np.isnan(p_values)
    if tested.any():
        result[tested] = false_discovery_control(p_values[tested], method="bh")
    return result
