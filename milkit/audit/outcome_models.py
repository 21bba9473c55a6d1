"""Ridge regressions of a number or of survival on what needs no network, fitted and tested on the splits of a run.

What ``simple_models`` is to classes. All that is estimated comes from a split's training patients; a penalty that is
chosen is chosen by its validation patients; nothing looks at its tested ones. Both models minimise

    Σ_i loss_i + d / (2 p) |w|²

over w, where d is the number of inputs and p the penalty's value (large where it is light), as the logistic regressions
do. Letters: n patients, S splits, d inputs, k columns of the outcome.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from milkit.audit.simple_models import Inputs, Rows, rotated

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


class Model(NamedTuple):
    """A kind of regression.

    Attributes:
        fit: Inputs (m, d) and outcomes (m, k) of training patients, inputs of others (l, d) and the weight of |w|² / 2
            -> their predictions (l,).
        loss: Predictions (l,) and outcomes (l, k) -> a number, lower is better.
    """

    fit: Callable[[Floats, Floats, Floats, float], Floats]
    loss: Callable[[Floats, Floats], float]


def held_out(
    model: Model, inputs: Inputs, outcomes: Floats, splits: Sequence[Rows], penalties: Sequence[float]
) -> tuple[Floats, list[float]]:
    """Predictions of everybody whom a split validates or tests, and the penalty that each split chose.

    Args:
        model: Which regression.
        inputs: Of a split.
        outcomes: (n, k), a row of NaN where it is unknown; such patients are not fitted on.
        splits: Who is fitted on and tested.
        penalties: Of which the one of the least validation loss is taken, the first of equally good ones.

    Returns:
        (S, n), NaN for training patients; and S values of p.
    """
    known = outcome_known(outcomes)
    result, chosen = np.full((len(splits), len(outcomes)), np.nan), []
    for number, split in enumerate(splits):
        own, others = split.train[known[split.train]], np.concatenate([split.validation, split.test])
        judged = known[split.validation]
        raw = inputs(own)
        values, best = rotated(raw, own), float("inf")
        for penalty in penalties:
            ridge = max(raw.shape[1], 1) / penalty
            found = model.fit(values[own], outcomes[own], values[others], ridge)
            validated = found[: len(split.validation)][judged]
            loss = model.loss(validated, outcomes[split.validation][judged]) if len(penalties) > 1 else 0.0
            if loss < best:
                best, best_penalty, result[number, others] = loss, penalty, found
        chosen.append(best_penalty)
    return result, chosen


def shuffled(
    model: Model,
    inputs: Inputs,
    outcomes: Floats,
    splits: Sequence[Rows],
    penalties: Sequence[float],
    seeds: Sequence[tuple[int, int]],
) -> Floats:
    """Like ``held_out`` with each split's penalty, from outcomes that are shuffled among its training patients.

    Args:
        model: Which regression.
        inputs: Of a split.
        outcomes: As above.
        splits: As above.
        penalties: Of the splits.
        seeds: Of the shuffles.

    Returns:
        (len(seeds), S, n).
    """
    known = outcome_known(outcomes)
    result = np.full((len(seeds), len(splits), len(outcomes)), np.nan)
    for number, (split, penalty) in enumerate(zip(splits, penalties, strict=True)):
        own = split.train[known[split.train]]
        raw = inputs(own)
        values, ridge = rotated(raw, own), max(raw.shape[1], 1) / penalty
        for position, seed in enumerate(seeds):
            order = np.random.default_rng([*seed, number]).permutation(own)
            result[position, number, split.test] = model.fit(values[own], outcomes[order], values[split.test], ridge)
    return result


def outcome_known(outcomes: Floats) -> Bools:
    """Whose outcome is known, (n, k) -> (n,)."""
    return np.asarray(np.isfinite(outcomes).all(axis=1), dtype=np.bool_)


def ridge_regression(train: Floats, outcomes: Floats, others: Floats, ridge: float) -> Floats:
    """A number by least squares: (m, d), (m, 1), (l, d) -> (l,).

    The outcome counts in spreads of the training patients, and the intercept is not penalised. Where it does not vary,
    or nothing is there to learn from, everybody gets the mean.
    """
    mean, spread = float(outcomes.mean()), float(outcomes.std())
    if spread < 1e-12 or not train.shape[1]:
        return np.full(len(others), mean)
    centre = train.mean(axis=0)
    x, y = train - centre, (outcomes[:, 0] - mean) / spread
    weights = np.linalg.solve(x.T @ x + ridge * np.eye(x.shape[1]), x.T @ y)
    return np.asarray((others - centre) @ weights * spread + mean)


def ridge_cox(train: Floats, outcomes: Floats, others: Floats, ridge: float) -> Floats:
    """Log hazards by Cox's partial likelihood: (m, d), (m, 2) of time and event, (l, d) -> (l,).

    0 for everybody without an event.
    """
    return np.asarray((others - train.mean(axis=0)) @ cox_weights(train, outcomes, ridge))


def cox_weights(x: Floats, outcomes: Floats, ridge: float, lowest: float = -np.inf) -> Floats:
    """Cox's regression with Breslow's ties and a penalty: (m, d), (m, 2) -> (d,), none below ``lowest``.

    The loss is minus the log partial likelihood (Cox 1972, JRSS B 34:187; ridge: Verweij and van Houwelingen 1994,
    Statistics in Medicine 13:2427). Convex, so that it has one minimum. 0 without an event.
    """
    from scipy.optimize import minimize

    event = outcomes[:, 1] > 0
    if not event.any() or not x.shape[1]:
        return np.zeros(x.shape[1])
    order = np.argsort(-outcomes[:, 0], kind="stable")  # who was followed longest first: a risk set is a beginning
    x, time, event = (x - x.mean(axis=0))[order], outcomes[order, 0], event[order]
    ends = np.searchsorted(-time, -time, side="right") - 1

    def loss(weights: Floats) -> tuple[float, Floats]:
        risk = x @ weights
        top = float(risk.max())
        share = np.exp(risk - top)
        total = np.cumsum(share)[ends]
        # Each patient stands in the risk sets of all events up to the own time.
        hazard = np.zeros(len(x))
        np.add.at(hazard, ends[event], 1 / total[event])
        exposed = share * np.cumsum(hazard[::-1])[::-1]
        value = float((np.log(total[event]) + top - risk[event]).sum() + ridge / 2 * weights @ weights)
        return value, x.T @ (exposed - event) + ridge * weights

    bounds = [(lowest, np.inf)] * x.shape[1] if np.isfinite(lowest) else None
    found = minimize(loss, np.zeros(x.shape[1]), jac=True, bounds=bounds, method="L-BFGS-B", options={"maxiter": 500})
    return np.asarray(found.x)


def squared_loss(predicted: Floats, outcomes: Floats) -> float:
    """The mean squared error, (l,), (l, 1); 0 of nobody."""
    return float(((predicted - outcomes[:, 0]) ** 2).mean()) if len(predicted) else 0.0


def cox_loss(risk: Floats, outcomes: Floats) -> float:
    """Minus the log partial likelihood an event, with Breslow's ties: (l,), (l, 2); 0 without an event."""
    time, event = outcomes[:, 0], outcomes[:, 1] > 0
    if not event.any():
        return 0.0
    top = float(risk.max())
    total = ((time[None, :] >= time[event][:, None]) * np.exp(risk - top)).sum(axis=1)
    return float((np.log(total) + top - risk[event]).mean())


RIDGE = Model(ridge_regression, squared_loss)
COX = Model(ridge_cox, cox_loss)
