"""Folds that never part patients who belong together: those of a family, a batch, or a site.

Patients of one site are alike for reasons of their own (stain, scanner, referral), and a model that has seen some of
them knows the others better than the next hospital's. Two ways to test without that: sites are kept whole, while every
fold has like shares of the classes (site-preserved cross-validation: Howard et al. 2021, Nature Communications 12:4423,
who solve it by quadratic programming; a local search serves here), or each site is tested once by models of the others.
"""

import numpy as np
import numpy.typing as npt
import pandas as pd

from milkit.errors import FoldError, first_rows
from milkit.folds import Folds, so_many

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_STARTS = 20
"""Random beginnings of the local search, of which the best end is taken."""
_MOST_FOR_SWAPS = 300
"""Groups above which only moves are tried, since so many even each other out."""


def grouped(labels: "pd.Series[str]", groups: "pd.Series[str]", k: int, *, seed: int, repeats: int = 1) -> Folds:
    """Partition groups into ``k`` folds, so that each has a like share of every class, ``repeats`` times.

    Args:
        labels: Index patient_id.
        groups: The same index; patients of one value are never parted.
        k: Folds; each is tested once a repeat, with the next one for validation.
        seed: Determines the beginnings of the search.
        repeats: With few groups, several may be alike.

    Raises:
        FoldError: A patient has no group; there are fewer groups than folds, or fewer than three of a class; or some
            training would have no patient of a class.
    """
    _require_values(groups)
    names, group_of = np.unique(groups.to_numpy(dtype=str), return_inverse=True)
    classes, label_of = np.unique(labels.to_numpy(dtype=str), return_inverse=True)
    if k < 3 or len(names) < k:
        msg = (
            f"{k} folds were asked for and the column '{groups.name}' has {len(names)} values, which are not parted; "
            "give --folds from 3 to that number."
        )
        raise FoldError(msg)
    counts = np.zeros((len(names), len(classes)))
    np.add.at(counts, (group_of, label_of), 1.0)
    of_class = (counts > 0).sum(axis=0)
    if of_class.min() < 3:
        few = int(of_class.argmin())
        msg = (
            f"Patients of the class '{classes[few]}' have {of_class[few]} values of '{groups.name}', where training, "
            "validation and test need one each; split by another column, or without one."
        )
        raise FoldError(msg)
    folds = [assign_groups(counts, k, np.random.default_rng([seed, repeat])) for repeat in range(repeats)]
    result = Folds.partition(labels.index, np.stack(folds)[:, group_of])
    _require_classes(result, labels, f"'{groups.name}' is not parted")
    return result


def leave_site_out(
    labels: "pd.Series[str]", sites: "pd.Series[str]", *, inner: int, seed: int, repeats: int = 1
) -> Folds:
    """Test each site once, by models that never saw it; folds are the sites in alphabetical order.

    The validation patients are drawn from the other sites, one in ``inner`` of each class (at least one where there are
    two), and anew in every repeat. ``FoldError`` where a patient has no site, there is only one, or no patient of a
    class is left for training.
    """
    _require_values(sites)
    names = sorted(set(sites))
    if len(names) < 2:
        msg = (
            f"All {len(sites)} patients have '{names[0]}' in the column '{sites.name}', where two values are needed to "
            "leave one out; name another column with --by."
        )
        raise FoldError(msg)
    parts = []
    for repeat in range(repeats):
        for fold, name in enumerate(names):
            generator = np.random.default_rng([seed, repeat, fold])
            role = pd.Series("train", index=labels.index)
            role[sites == name] = "test"
            for label in sorted(set(labels[sites != name])):
                others = labels.index[(sites != name) & (labels == label)]
                n = max(round(len(others) / inner), int(len(others) > 1))
                role[generator.permutation(others)[:n]] = "validation"
            table = pd.DataFrame({"patient_id": labels.index, "repeat": repeat, "fold": fold, "role": role.to_numpy()})
            parts.append(table)
    result = Folds(pd.concat(parts, ignore_index=True))
    _require_classes(result, labels, f"one value of '{sites.name}' is left out")
    return result


def assign_groups(counts: Floats, k: int, generator: np.random.Generator) -> Ints:
    """A fold for each group, (G, C) patients of each class -> (G,), none of the k folds empty.

    Sought is the least sum over folds f and classes c of (n_fc - N_c / k)² / N_c, n_fc the patients of the class in the
    fold and N_c all of them: by moving one group, or exchanging two, while that helps, from several random beginnings.
    """
    best, least = np.zeros(len(counts), dtype=np.int64), float("inf")
    scaled = counts / np.sqrt(np.maximum(counts.sum(axis=0), 1.0))
    for _ in range(_STARTS):
        fold_of = np.empty(len(counts), dtype=np.int64)
        fold_of[generator.permutation(len(counts))] = np.arange(len(counts)) % k
        fold_of, cost = _improved(scaled, fold_of, k)
        if cost < least - 1e-9:
            best, least = fold_of, cost
    return best


def imbalance(scaled: Floats, fold_of: Ints, k: int) -> float:
    """What ``assign_groups`` seeks to make small, of counts that are divided by the square root of N_c."""
    in_fold = np.eye(k)[fold_of].T @ scaled
    return float(((in_fold - scaled.sum(axis=0) / k) ** 2).sum())


def _improved(scaled: Floats, fold_of: Ints, k: int) -> tuple[Ints, float]:
    """The end of a local search: no move of a group and no exchange of two makes the sum less."""
    n_groups, fold_of = len(scaled), fold_of.copy()
    squares = (scaled**2).sum(axis=1)
    while True:
        in_fold = np.eye(k)[fold_of].T @ scaled
        inner = scaled @ in_fold.T  # (G, k)
        own = inner[np.arange(n_groups), fold_of]
        moves = 2 * (squares[:, None] + inner - own[:, None])  # what the sum gains when g goes to f
        moves[np.arange(n_groups), fold_of] = 0.0
        alone = np.bincount(fold_of, minlength=k)[fold_of] == 1
        moves[alone] = np.inf  # no fold is emptied
        g, f = np.unravel_index(moves.argmin(), moves.shape)
        swap, pair = _best_swap(scaled, inner, own, fold_of) if n_groups <= _MOST_FOR_SWAPS else (0.0, (0, 0))
        if min(moves[g, f], swap) > -1e-9:
            return fold_of, imbalance(scaled, fold_of, k)
        if moves[g, f] <= swap:
            fold_of[g] = f
        else:
            fold_of[list(pair)] = fold_of[list(pair)[::-1]]


def _best_swap(scaled: Floats, inner: Floats, own: Floats, fold_of: Ints) -> tuple[float, tuple[int, int]]:
    """What the sum gains at least when two groups g and h exchange their folds a and b, and which two.

    With d = h - g, the folds become n_a + d and n_b - d: 2 d·(n_a - n_b) + 2 |d|².
    """
    elsewhere = inner[:, fold_of]  # of group g with the fold of h
    towards = elsewhere.T - own[:, None] - own[None, :] + elsewhere  # (h - g)·(n_a - n_b), row g, column h
    squares = (scaled**2).sum(axis=1)
    gains = 2 * (towards + squares[:, None] + squares[None, :] - 2 * scaled @ scaled.T)
    gains[fold_of[:, None] == fold_of[None, :]] = 0.0
    g, h = np.unravel_index(gains.argmin(), gains.shape)
    return float(gains[g, h]), (int(g), int(h))


def _require_values(groups: "pd.Series[str]") -> None:
    blank = groups.isna() | (groups.astype(str).str.strip() == "")
    if blank.any():
        n, names = int(blank.sum()), first_rows([str(name) for name in groups.index[blank]])
        msg = (
            f"{so_many(n)} {'has' if n == 1 else 'have'} no value in the column '{groups.name}' ({names}), where each "
            "belongs to a group; complete the table of patients, or leave these patients out."
        )
        raise FoldError(msg)


def _require_classes(folds: Folds, labels: "pd.Series[str]", why: str) -> None:
    for split in folds.splits():
        if lacking := sorted(set(labels) - set(labels[split.train])):
            msg = (
                f"Since {why}, no patient of the class '{lacking[0]}' is left for a fold's training; merge the class "
                "with another one, or split otherwise."
            )
            raise FoldError(msg)
