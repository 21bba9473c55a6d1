"""A published split of cells into training and test, read from the table that its authors give."""

from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt
import pandas as pd

from milkit.errors import FoldError

TRAIN, NEITHER = -1, -2
"""In place of a fold's number: cells that are only trained on, and cells that the split does not mention."""


def read_split(path: Path, cells: pd.DataFrame) -> tuple[npt.NDArray[np.int64], int]:
    """The role of each cell: 0 tested, ``TRAIN`` or ``NEITHER``, and how many listed cells the store does not have.

    The table is CSV. It names cells by ``cell_id``, or by ``path`` or ``Image Path``, of which only the file's name
    without its suffix is compared: published paths are those of another machine. With a column ``role``, train or
    test, cells that it does not list are left out; without one, it lists the tested cells, and all others train
    (DinoBloom's ``bm_test.csv``). What does not fit is a ``FoldError``.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError):
        msg = f"The split {path} cannot be read as CSV; give a table with a column cell_id, path or Image Path."
        raise FoldError(msg) from None
    column = next((name for name in ("cell_id", "path", "Image Path") if name in table), None)
    if column is None:
        found = ", ".join(table.columns)
        msg = f"The split {path} has the columns {found}; expected cell_id, path or Image Path, so rename one of them."
        raise FoldError(msg)
    listed = table[column] if column == "cell_id" else table[column].map(_stem)
    own = cells["cell_id"] if column == "cell_id" else cells["path"].map(_stem)
    if twice := sorted(set(own[own.duplicated()]) & set(listed)):
        msg = f"The split {path} names '{twice[0]}', which several cells of the store are called; give their cell_id."
        raise FoldError(msg)
    roles = pd.Series(_roles(path, table).to_numpy(), index=listed)
    if len(conflict := roles.index[roles.groupby(level=0).transform("nunique") > 1]):
        msg = f"The split {path} puts '{conflict[0]}' into training and into test; leave one of the two rows."
        raise FoldError(msg)
    roles = roles[~roles.index.duplicated()]
    rest = NEITHER if "role" in table else TRAIN
    result = np.asarray(own.map(roles).fillna(rest), dtype=np.int64)
    if not (result == 0).any() or not (result == TRAIN).any():
        msg = (
            f"By the split {path}, {int((result == 0).sum())} cells of the store are tested and "
            f"{int((result == TRAIN).sum())} train; give the split of this cohort."
        )
        raise FoldError(msg)
    return result, int((~roles.index.isin(own)).sum())


def _roles(path: Path, table: pd.DataFrame) -> "pd.Series[int]":
    if "role" not in table:
        return pd.Series(0, index=table.index)
    other = table["role"][~table["role"].isin(["train", "test"])]
    if len(other):
        msg = f"The split {path} has the role '{other.iloc[0]}'; expected train or test, so mend the column."
        raise FoldError(msg)
    return table["role"].map({"train": TRAIN, "test": 0}).astype(int)


def _stem(path: str) -> str:
    return PurePosixPath(path.replace("\\", "/")).stem
