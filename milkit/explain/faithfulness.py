"""Whether a ranking of cells is one by which the model goes: deletion and insertion against random rankings.

Cells are added to an empty bag in the order of a ranking, highest first (insertion), and in the same order taken from
the whole one (deletion); after each tenth of the cells the log-odds of the class are read, or what stands in their
place (``parts.Asked``). A ranking that knows what the model goes by makes them rise fast and fall fast:

    area    = mean of the log-odds over the points of a curve
    gap     = area of insertion - area of deletion

A bag of few cells is not like those that the model was trained on, whatever cells they are. Random rankings suffer from
this alike, and their gap is 0 in expectation: that of a ranking is told against theirs. With 20 of them, only a ranking
that beats them all is better than chance at 5%:

    p = (1 + random rankings whose gap is as high or higher) / (1 + random rankings)

Over patients, gaps are averaged first, and the interval of the advantage over random (BCa, over patients) has to lie
above 0 as well. What fails is called not faithful. Equal scores are put in random order, so that they cannot win.

The gap is the "symmetric relevance gain" of Blücher, Vielhaben, Strodthoff, "Decoupling pixel flipping and occlusion
strategy for consistent XAI benchmarks", TMLR 2024; deletion and insertion are from Petsiuk, Das, Saenko, "RISE", BMVC
2018. Letters: R rankings, n cells, P points, N patients.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from milkit.explain.parts import Bagged
from milkit.statistics.bca import bca_estimate

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

ALPHA = 0.05
"""A ranking is faithful where chance would do as well at most so often."""


def order_of(scores: Floats, generator: np.random.Generator) -> Ints:
    """Positions of the cells from the highest score to the lowest, (n,); equal ones in random order."""
    return np.lexsort((generator.random(len(scores)), -scores))


def kept_cells(n: int, points: int) -> list[int]:
    """How many cells of ``n`` are there at each point of a curve: at least one, at last all."""
    return [max(1, round(n * point / points)) for point in range(1, points + 1)]


def curves(bags: list[Bagged], orders: Ints, c: int, points: int) -> Floats:
    """Log-odds of class ``c`` of the first cells of each order, and of the last: (R, n) -> (R, 2, P).

    The first of the two rises with the cells that are there (insertion); the second, read backwards, is deletion: what
    is left when the other cells were taken. Means over the heads of ``bags``, which look at the same cells.
    """
    n_orders, n = orders.shape
    place = torch.from_numpy(np.argsort(orders, axis=1)).to(bags[0].features.device)[:, None, :]  # of each cell
    some = [kept for kept in kept_cells(n, points) if kept < n]
    kept = torch.tensor(some, device=place.device)[None, :, None]
    first, last = place < kept, place >= n - kept  # (R, P, n)
    whole = torch.ones(1, n, dtype=torch.bool, device=place.device)
    masks = torch.cat([torch.stack([first, last], dim=1).flatten(0, 2), whole])
    odds = torch.stack([bag.asked.answers(bag.of_masks(masks))[:, c] for bag in bags]).mean(dim=0).cpu().numpy()
    result = np.full((n_orders, 2, points), odds[-1])
    result[:, :, : len(some)] = odds[:-1].reshape(n_orders, 2, len(some))
    return result


def gaps(curves: Floats) -> Floats:
    """Area of insertion less that of deletion: (…, 2, P) -> (…)."""
    areas = curves.mean(axis=-1)
    return np.asarray(areas[..., 0] - areas[..., 1])


def chance(own: float, random: Floats) -> float:
    """Share of rankings, this one among them, whose gap is as high: the p-value of a gap against random ones."""
    return float((1 + (random >= own).sum()) / (1 + len(random)))


def judge_patient(own: Floats, random: Floats) -> dict[str, Any]:
    """One patient's ranking (2, P) against random ones (R, 2, P)."""
    gap, others = float(gaps(own)), gaps(random)
    insertion, deletion = own.mean(axis=-1).tolist()
    return {
        "insertion": insertion,
        "deletion": deletion,
        "gap": gap,
        "gap_random": float(others.mean()),
        "beats_random": int((gap > others).sum()),
        "faithful": chance(gap, others) <= ALPHA,
    }


def judge(own: Floats, random: Floats, *, level: float, n_bootstrap: int, seed: int) -> dict[str, Any]:
    """A method's rankings of all patients (N, 2, P) against their random ones (N, R, 2, P).

    Returns:
        ``faithful``; ``beats_random`` of ``n_random`` rankings, and its ``p``; ``advantage``, the gap less that of
        random rankings, with its interval; ``insertion`` and ``deletion``, each the ``area``, that of random rankings
        (``random``) and how many of these it beats; and the mean ``curves`` over the patients: ``kept``, the share of
        the cells that are there, beside ``insertion``, ``deletion`` and ``random`` (both of random rankings alike).
    """
    gap, others = float(gaps(own).mean()), gaps(random).mean(axis=0)
    advantages = gaps(own) - gaps(random).mean(axis=1)

    def mean_advantage(weights: Floats) -> Floats:
        result: Floats = weights @ advantages / weights.sum(axis=1)
        return result

    strata = np.zeros(len(advantages), dtype=np.int64)
    interval = bca_estimate(mean_advantage, strata, n_resamples=n_bootstrap, level=level, seed=seed)
    p = chance(gap, others)
    areas, random_areas = own.mean(axis=(0, 2)), random.mean(axis=(0, 3))  # (2,), (R, 2)
    points = own.shape[-1]
    return {
        "faithful": bool(p <= ALPHA and interval.ci_low > 0),
        "beats_random": int((gap > others).sum()),
        "n_random": random.shape[1],
        "p": p,
        "advantage": interval._asdict(),
        "insertion": _area(areas[0], random_areas[:, 0], sign=1),
        "deletion": _area(areas[1], random_areas[:, 1], sign=-1),
        "curves": {
            "kept": [point / points for point in range(1, points + 1)],
            "insertion": own[:, 0].mean(axis=0).tolist(),
            "deletion": own[:, 1].mean(axis=0).tolist(),
            "random": random.mean(axis=(0, 1, 2)).tolist(),
        },
    }


def _area(area: float, random: Floats, *, sign: int) -> dict[str, Any]:
    beaten = int((sign * area > sign * random).sum())
    return {"area": float(area), "random": float(random.mean()), "beats_random": beaten}
