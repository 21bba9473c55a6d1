"""Whether a higher risk means an earlier event: concordance of risks with censored times.

**A higher risk is an earlier event**: 1 where all events come in the order of the risks, 0.5 by chance, below 0.5 where
the sign is wrong. lifelines and others expect a score that is higher for a longer survival; a figure below 0.5 is that
mistake more often than a model worse than chance.

Every function takes many weightings of the patients, as ``discrimination`` does; intervals come from
``bca.bca_estimate`` with zeros as strata, since the number of events is left to chance. Risks of a Cox model are known
up to a constant that each fold has its own of; give the folds as ``groups``, and only patients of a fold are compared.
Assumption: independent patients, censored for reasons that have nothing to do with how they will do. Pairs take n²
memory. Letters: n patients, B weightings.
"""

import numpy as np
import numpy.typing as npt

from milkit.statistics.survival import still_followed

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


def harrell(time: Floats, event: Bools, risk: Floats, weights: Floats, groups: Ints | None = None) -> Floats:
    """Harrell's c: of the pairs whose order is known, the share in which the earlier one had the higher risk, (B,).

        c = Σ w_i w_j [risk_i > risk_j] / Σ w_i w_j,    over i with an event before j's event or censoring

    Equal risks count half. Of a death and a censoring at the same time the death was first; two deaths at the same time
    have no order (Harrell, Lee and Mark 1996, Statistics in Medicine 15:361). It depends on how the cohort was
    censored, since long-lived patients are compared less often; between cohorts of other follow-up compare ``uno``.
    NaN where no pair has a known order.

    Args:
        time: (n,) until the event or the end of follow-up.
        event: (n,) whether it was the event.
        risk: (n,) higher for an earlier event.
        weights: (B, n).
        groups: (n,) only pairs within a group are compared; all by default.
    """
    return _share_of_pairs(_ordered(time, event, groups), risk, weights, weights)


def uno(
    time: Floats, event: Bools, risk: Floats, weights: Floats, horizon: float, groups: Ints | None = None
) -> Floats:
    """Uno's c up to a horizon: Harrell's with each event weighted by 1 / G(t_i-)², (B,).

    G is the Kaplan-Meier estimate of still being followed (``survival.still_followed``), so that events stand for those
    whom censoring hid, and the figure does not depend on the follow-up (Uno et al. 2011, Statistics in Medicine
    30:1105). G is estimated anew under every weighting. The horizon (in units of ``time``) must lie where patients are
    still followed: G near 0 gives few patients all the weight. Assumes that censoring depends on nothing at all.
    """
    left = still_followed(time, event, time, weights, before=True)
    counted = event & (time < horizon)
    inverse = np.divide(1.0, left**2, out=np.zeros_like(left), where=(left > 0) & counted)
    return _share_of_pairs(_ordered(time, event, groups), risk, weights * inverse, weights)


def _ordered(time: Floats, event: Bools, groups: Ints | None) -> Bools:
    """(n, n) whether row i is known to have had its event before column j."""
    earlier = (time[:, None] < time) | ((time[:, None] == time) & ~event)
    known = event[:, None] & earlier
    return np.asarray(known if groups is None else known & (groups[:, None] == groups))


def _share_of_pairs(ordered: Bools, risk: Floats, earlier: Floats, later: Floats) -> Floats:
    """Share of the ordered pairs that the risks order alike; (B, n) weights of the earlier and of the later one."""
    wins = ordered * ((risk[:, None] > risk) + 0.5 * (risk[:, None] == risk))
    won, compared = (((earlier @ pairs) * later).sum(axis=1) for pairs in (wins, ordered.astype(np.float64)))
    result: Floats = np.divide(won, compared, out=np.full_like(won, np.nan), where=compared > 0)
    return result
