"""Which cells a review shows, in which order and under which codes."""

import secrets

import numpy as np
import numpy.typing as npt
import pandas as pd

from milkit.explain.ranking import choose_cells

CODE_DIGITS = 6
"""Of a code: a letter and digits, which no spreadsheet takes for a number and which spell no word."""
GROUPS = ("top", "random", "bottom")


def choose(cells: pd.DataFrame, labels: "pd.Series[str]", n_cells: int, seed: int) -> pd.DataFrame:
    """About ``n_cells`` cells in threes of one patient: weighed most, drawn at random from between, weighed least.

    The threes are dealt out evenly. Where there are fewer of them than patients, classes take turns, so that a small
    review is not all of the largest class (of a risk or a number, its higher and its lower half). A patient with few
    cells gives fewer.

    Args:
        cells: patient_id, cell_id, rank and what else a cell has.
        labels: The class of each patient, or the half, by patient id.
        n_cells: Rounded up to whole threes, of which the last gives only what is still lacking.
        seed: Determines patients and random cells.

    Returns:
        The chosen rows with the columns ``group`` and ``n_cells`` (the patient's).
    """
    generator = np.random.default_rng(seed)
    bags = {str(name): bag for name, bag in cells.groupby("patient_id", sort=True)}
    patients = _in_turns(labels[labels.index.isin(list(bags))], generator)
    n_threes = -(-n_cells // len(GROUPS))
    each, more = divmod(n_threes, len(patients))
    chosen = []
    for position, name in enumerate(patients):
        n = each + (position < more)
        if n:
            bag, own = bags[name], int(generator.integers(2**32))
            picked = choose_cells(bag, top=n, random=n, bottom=n, seed=own)
            chosen.append(picked.assign(n_cells=len(bag)))
    return pd.concat(chosen, ignore_index=True).head(n_cells)


def _in_turns(labels: "pd.Series[str]", generator: np.random.Generator) -> list[str]:
    """The patients, classes taking turns, in random order within each."""
    shuffled = labels.sort_index().iloc[generator.permutation(len(labels))]
    turn = shuffled.groupby(shuffled).cumcount()
    return [str(name) for name in turn.sort_values(kind="stable").index]


def stands_for(chosen: pd.DataFrame, shown: npt.NDArray[np.bool_]) -> "pd.Series[float]":
    """How many cells of its patient each chosen cell was drawn for: 1, and for random cells their share of the rest.

    Args:
        chosen: From ``choose``.
        shown: Which of them could be shown; those that could not leave their share to the other random ones.
    """
    random = chosen["group"] == GROUPS[1]
    extremes = (~random).groupby(chosen["patient_id"]).transform("sum")
    sample = (random & shown).groupby(chosen["patient_id"]).transform("sum")
    between = (chosen["n_cells"] - extremes) / sample.where(sample > 0)
    return between.where(random, 1.0)


def arrange(n_cells: int, n_twice: int, seed: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """A shuffled order in which some of the first third of the cells come again in the second half.

    Returns:
        The position of the cell that is shown at each place, and whether this is its 1st or 2nd showing; both
        (n_cells + n_twice,).
    """
    generator = np.random.default_rng(seed)
    order = generator.permutation(n_cells)
    again = generator.permutation(order[: -(-n_cells // 3)])[:n_twice]
    half = n_cells // 2
    late = generator.permutation(np.concatenate([order[half:], -1 - again]))
    places = np.concatenate([order[:half], late])
    return np.where(places < 0, -1 - places, places), np.where(places < 0, 2, 1)


def new_codes(n: int) -> list[str]:
    """Codes that follow from nothing: no seed, no order, no id."""
    codes: dict[str, None] = {}
    while len(codes) < n:
        codes[f"c{secrets.randbelow(10**CODE_DIGITS):0{CODE_DIGITS}d}"] = None
    return list(codes)


def new_review() -> str:
    """The id of a review, as random as its codes."""
    return f"r{secrets.randbelow(10**8):08d}"
