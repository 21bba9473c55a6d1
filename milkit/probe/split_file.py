"""A published split of cells into training and test: a table that its authors give, or a column of the cells."""

import hashlib
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from milkit.errors import FoldError, first_rows
from milkit.labelled_cells import labels_of

TRAIN, NEITHER = -1, -2
"""In place of a fold's number: cells that are only trained on, and cells that the split does not mention."""

MOST_FOLDS = 20
"""A column with more values is none of folds."""


def split_of(split: Path, cells: pd.DataFrame) -> tuple[npt.NDArray[np.int64], dict[str, Any], list[str]]:
    """The role of each cell by a file, or by a column of the cells or their patients where no file is called so.

    Returns:
        The fold in which each cell is tested, 0 where there is one, else ``TRAIN`` or ``NEITHER``; where that comes
        from, for a result; and notes, one sentence each.
    """
    if str(split) in cells and not split.is_file():
        return _column_split(str(split), labels_of(cells, str(split)))
    roles, absent = read_split(split, cells)
    facts = {"kind": "published", "file": split.name, "sha256": hashlib.sha256(split.read_bytes()).hexdigest()}
    return roles, facts, [f"{absent} cells of the split are not in the store."] if absent else []


def _column_split(column: str, values: "pd.Series[Any]") -> tuple[npt.NDArray[np.int64], dict[str, Any], list[str]]:
    """By values that begin with train and test, whatever their case; else each value is a fold. A blank is neither."""
    names = sorted(values.dropna().unique())
    train, test = ([name for name in names if name.lower().startswith(word)] for word in ("train", "test"))
    if not train and not test and 2 <= len(names) <= MOST_FOLDS:
        folds = values.map({name: number for number, name in enumerate(names)})
        facts: dict[str, Any] = {"kind": "column", "column": column, "folds": names}
        return folds.fillna(NEITHER).to_numpy(dtype=np.int64), facts, []
    if not train or not test:
        msg = (
            f"The column {column} has {first_rows(names)}, expected train and test, or a value for each fold; give "
            "another column."
        )
        raise FoldError(msg)
    roles = values.map(dict.fromkeys(train, TRAIN) | dict.fromkeys(test, 0)).fillna(NEITHER).to_numpy(dtype=np.int64)
    others = [f"'{name}'" for name in names if name not in {*train, *test}]
    notes = [f"Cells of {first_rows(others)} in the column {column} neither train nor are tested."] if others else []
    return roles, {"kind": "column", "column": column, "train": train, "test": test}, notes


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
        msg = (
            f"The split {path} cannot be read as CSV; give a table with a column cell_id, path or Image Path, "
            "or a column of the cells."
        )
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
