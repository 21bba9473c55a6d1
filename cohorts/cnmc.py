"""C-NMC 2019: lymphoblasts of 47 subjects with B-cell acute lymphoblastic leukaemia, and precursors of 26 healthy ones.

Published in The Cancer Imaging Archive, https://doi.org/10.7937/tcia.2019.dc64i46r, under CC BY 3.0 (Gupta and Gupta
2019; the ISBI challenge of that year).

    <root>/…/fold_<0..2>/<all or hem>/UID_<subject>_<image>_<cell>_<all or hem>.bmp    450 x 450 px, on black
    <root>/…/C-NMC_test_prelim_phase_data/<number>.bmp
    <root>/…/C-NMC_test_prelim_phase_data_labels.csv     Patient_ID (a file name as above), new_names, labels (1: all)

    part                       images      all     hem   subjects (ALL + healthy)
    training, three folds      10,661    7,272   3,389   73 (47 + 26); a subject is in one fold only (28, 14, 31)
    preliminary test            1,867    1,219     648   28
    final test                  2,586   not labelled, and not read here

``label`` is ALL or healthy; ``cell_type`` is all or hem, as published; ``fold`` is 0, 1, 2 or preliminary. The folders
above ``fold_<n>`` differ between copies (``C-NMC_Leukemia/training_data/``, ``C-NMC_training_data/``).

Traps: healthy subjects are H<n>, and 36 files spell ``h3`` for H3. Every cell of a subject has the subject's label, so
that what is learned may be the subject. Cells are cut out along their outline, on black, unlike those of other cohorts.

Verified on a fake of the published layout, whose names and counts are known from its listing; no image was at hand.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import pandas as pd

from cohorts.cell_folders import images_below
from cohorts.clinical_tables import column_named, read_table
from cohorts.published_sets import count_note, given_folder, missing_note
from milkit.cohort import Cohort
from milkit.errors import CohortError, first_rows

CLASSES = ("healthy", "ALL")
TRAINING = {"training subjects": 73, "training images": 10_661}
PRELIMINARY = {"preliminary images": 1_867}

_EXPECTED = (
    "the training data of C-NMC 2019 (fold_0 to fold_2, in them all and hem with UID_<…>.bmp) were expected; download "
    "them from The Cancer Imaging Archive, doi 10.7937/tcia.2019.dc64i46r, and give their folder with --root."
)
_NAME = re.compile(r"UID_(?P<subject>\w+?)_\d+_\d+_(?P<type>all|hem)", re.IGNORECASE)
_FOLD = re.compile(r"fold_(\d)")


class _Cell(NamedTuple):
    """One image: whose, what it shows, and of which fold."""

    cell_id: str
    patient_id: str
    path: str
    cell_type: str
    fold: str


def cnmc(root: Path | None = None) -> Cohort:
    """The labelled subjects and cells below ``root``: the training folds, and the preliminary test where it is."""
    root = given_folder(root, "cnmc", _EXPECTED)
    images = images_below(root)
    training = [cell for image in images if (cell := _training_cell(image))]
    if not training:
        msg = f"{root} holds no UID_<subject>_<image>_<cell>_<all or hem> below fold_<n>, where {_EXPECTED}"
        raise CohortError(msg)
    preliminary = list(_preliminary_cells(root, images))
    cells = [*training, *preliminary]
    found = {"training subjects": len({cell.patient_id for cell in training}), "training images": len(training)}
    found["preliminary images"] = len(preliminary)
    notes = count_note(found, TRAINING | (PRELIMINARY if preliminary else {}))
    table = pd.DataFrame(cells, columns=_Cell._fields, dtype=object)
    patients, several = _patients(table, root)
    present = tuple(name for name in CLASSES if name in set(patients["label"]))
    return Cohort("cnmc", root, patients, table.drop(columns="fold"), present, (*notes, *several), ids="pseudonymous")


def _named(name: str) -> tuple[str, str] | None:
    """Subject and type of cell of a file name without suffix."""
    match = _NAME.fullmatch(name)
    return (match["subject"].upper(), match["type"].lower()) if match else None


def _training_cell(image: PurePosixPath) -> _Cell | None:
    fold = next((match[1] for folder in image.parts if (match := _FOLD.fullmatch(folder))), None)
    named = _named(image.stem)
    if fold is None or named is None:
        return None
    return _Cell(f"{named[0]}/{image.stem}", named[0], str(image), named[1], fold)


def _preliminary_cells(root: Path, images: Sequence[PurePosixPath]) -> Iterator[_Cell]:
    """The cells of the preliminary test, whose files have numbers and whose names stand in a table."""
    for path in sorted(root.rglob("*prelim*labels*.csv")):
        table = read_table(path)
        columns = [table[column_named(table, name, path)].str.strip() for name in ("new_names", "Patient_ID")]
        wanted = {new: PurePosixPath(old).stem for new, old in zip(*columns, strict=True)}
        wrong = [name for name in wanted.values() if not _named(name)]
        if wrong:
            msg = (
                f"Patient_ID of {path} holds {first_rows(wrong)}, expected UID_<subject>_<…>_<all or hem>; get it anew."
            )
            raise CohortError(msg)
        for image in images:
            named = _named(wanted.get(image.name, ""))
            if named and "prelim" in str(image.parent).lower():
                yield _Cell(f"{named[0]}/{wanted[image.name]}", named[0], str(image), named[1], "preliminary")
        return


def _patients(cells: pd.DataFrame, root: Path) -> tuple[pd.DataFrame, list[str]]:
    """One row a subject, whose cells must agree; and a note on those that are in several folds."""
    groups = cells.groupby("patient_id")
    mixed = groups["cell_type"].nunique() > 1
    if mixed.any():
        names = first_rows(sorted(mixed.index[mixed]))
        msg = f"Subjects of {root} have cells in all/ and in hem/ ({names}), expected one of them; mend the folders."
        raise CohortError(msg)
    first = groups[["cell_type", "fold"]].first()
    labels = first["cell_type"].map({"all": "ALL", "hem": "healthy"})
    several = groups["fold"].nunique() > 1
    notes = missing_note("Subjects with cells in several folds have the first one", list(several.index[several]))
    return pd.DataFrame({"label": labels, "fold": first["fold"]}), notes
