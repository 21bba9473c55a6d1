"""Folds: which patients a model learns from, which stop its training, and which test it. Patients, never cells."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from milkit.errors import FoldError
from milkit.tables import read_table, write_table

ROLES = ("train", "validation", "test")


class Split(NamedTuple):
    """One fold of one repeat: ids of the patients in each role."""

    repeat: int
    fold: int
    train: list[str]
    validation: list[str]
    """Early stopping looks here …"""
    test: list[str]
    """… and nothing looks here before the model is final."""

    @property
    def name(self) -> str:
        """What files and logs of a run call it."""
        return f"repeat{self.repeat}-fold{self.fold}"

    def seed(self, base: int, number: int) -> int:
        """That of its training ``number``, from the one of the run."""
        return int(np.random.SeedSequence([base, self.repeat, self.fold, number]).generate_state(1)[0])


@dataclass(frozen=True, slots=True)
class Folds:
    """Every split of every repeat, as a table: patient_id, repeat, fold, role."""

    table: pd.DataFrame

    @classmethod
    def stratified(cls, labels: "pd.Series[str]", k: int, *, seed: int, repeats: int = 1) -> "Folds":
        """Partition the patients into ``k`` folds of like class shares, ``repeats`` times.

        Each fold is tested once per repeat; the next one is the validation fold, the other ``k - 2`` train. ``labels``
        is indexed by patient id. ``FoldError`` when ``k`` exceeds the patients of the smallest class: then some test
        fold would hold no patient of it.
        """
        from sklearn.model_selection import StratifiedKFold

        counts = labels.value_counts()
        if len(counts) < 2:
            msg = f"All {len(labels)} patients have the label '{counts.index[0]}'; training needs two classes or more."
            raise FoldError(msg)
        if counts.min() < 3:
            msg = (
                f"The smallest class, '{counts.idxmin()}', has {so_many(int(counts.min()))}, where training, "
                "validation and test need one each; merge it with another class, or leave its patients out."
            )
            raise FoldError(msg)
        if k < 3 or k > counts.min():
            msg = (
                f"{k} folds were asked for and the smallest class, '{counts.idxmin()}', has {counts.min()} patients; "
                "give --folds from 3 to that number."
            )
            raise FoldError(msg)
        fold_of = np.empty((repeats, len(labels)), dtype=np.int64)
        for repeat in range(repeats):
            random_state = int(np.random.default_rng([seed, repeat]).integers(2**31))
            splitter = StratifiedKFold(k, shuffle=True, random_state=random_state)
            for fold, (_, held_out) in enumerate(splitter.split(labels.index, labels.to_numpy())):
                fold_of[repeat, held_out] = fold
        return cls.partition(labels.index, fold_of)

    @classmethod
    def partition(cls, patients: "pd.Index[str]", fold_of: npt.NDArray[np.int64]) -> "Folds":
        """Test each fold once, with the next one for validation and the others for training.

        Args:
            patients: (n,) ids.
            fold_of: (repeats, n) the fold that tests each patient, counted from 0.
        """
        parts = []
        for repeat, own in enumerate(fold_of):
            k = int(own.max()) + 1
            for fold in range(k):
                role = np.where(own == fold, "test", np.where(own == (fold + 1) % k, "validation", "train"))
                parts.append(pd.DataFrame({"patient_id": patients, "repeat": repeat, "fold": fold, "role": role}))
        return cls(pd.concat(parts, ignore_index=True))

    @classmethod
    def load(cls, path: Path) -> "Folds":
        """Read ``folds.csv``; unknown roles, and patients in two roles of one fold, are a ``FoldError``."""
        table = read_table(path)
        missing = {"patient_id", "repeat", "fold", "role"} - set(table.columns)
        if missing or not table["role"].isin(ROLES).all():
            msg = f"{path} is no table of folds; give one with the columns patient_id, repeat, fold, role."
            raise FoldError(msg)
        twice = table[table.duplicated(["patient_id", "repeat", "fold"])]
        if len(twice):
            name = twice["patient_id"].iloc[0]
            msg = f"{path} gives patient '{name}' two roles in one fold; leave one of the two rows."
            raise FoldError(msg)
        return cls(table)

    def save(self, path: Path) -> None:
        """Write ``folds.csv``."""
        write_table(path, self.table)

    def splits(self) -> Iterator[Split]:
        """All splits, repeat by repeat and fold by fold."""
        for key, part in self.table.groupby(["repeat", "fold"], sort=True):
            repeat, fold = (int(str(number)) for number in key)
            ids = {role: part.loc[part["role"] == role, "patient_id"].astype(str).tolist() for role in ROLES}
            yield Split(repeat, fold, ids["train"], ids["validation"], ids["test"])

    @property
    def tested(self) -> pd.DataFrame:
        """The rows of tested patients."""
        return self.table[self.table["role"] == "test"]

    @property
    def digest(self) -> str:
        """SHA-256 over the table: equal digests mean that two runs were tested on the same splits."""
        return hashlib.sha256(self.table.to_csv(index=False).encode()).hexdigest()


def refuse_unequal_repeats(tested: pd.DataFrame) -> None:
    """``FoldError`` unless every repeat tests the same patients, each once: then no figure could pool them.

    Args:
        tested: patient_id and repeat of each test, as the folds plan them, or as predictions have them.
    """
    times = pd.crosstab(tested["patient_id"].astype(str), tested["repeat"]).to_numpy()
    if times.size and (times == 1).all():
        return
    several, absent = int((times > 1).any(axis=1).sum()), int((times == 0).any(axis=1).sum())
    msg = (
        f"Of the {len(times)} patients that the splits test, {several} are tested several times in a repeat and "
        f"{absent} not in every repeat, where each repeat must test the same ones once; make splits that do."
    )
    raise FoldError(msg)


def so_many(n: int) -> str:
    """``1 patient``, ``2 patients``."""
    return f"{n} patient{'' if n == 1 else 's'}"


def patients_digest(patients: Sequence[str]) -> str:
    """SHA-256 over ids in any order: on whom a step was fitted, for files that must hold no ids."""
    return hashlib.sha256("\n".join(sorted(patients)).encode()).hexdigest()
