"""Anyone's data, declared in a recipe and without code: a table of patients, and images found by a pattern or a table.

    name: my_study
    factory: tabular
    arguments:
      images: smears/{patient_id}/{cell_id}.png     # or   cells: cells.csv   with patient_id, cell_id and path
      patients: patients.csv
      columns: {patient_id: Case, label: Diagnosis, age: Age, lymphocyte_count: LYMPH_COUNT}
      labels: {APL: PML_RARA, "AML t(8;21)": RUNX1_RUNX1T1}
      values: {sex: {weiblich: F, männlich: M}}

All paths are relative to the cohort's root. ``*`` in the pattern stands for any part of one file or folder name.
"""

import glob
import re
from pathlib import Path

import pandas as pd

from cohorts.clinical_tables import column_named, read_table
from milkit.cohort import Cohort, is_image, numeric
from milkit.errors import CohortError, first_rows

_FIELDS = {"patient_id", "cell_id"}
_NUMBERS = {"age", "time", "event"}
_TEXTS = {"sex", "site", "scanner"}


def tabular(
    root: Path | None = None,
    images: str | None = None,
    cells: Path | None = None,
    patients: Path | None = None,
    columns: dict[str, str] | None = None,
    labels: dict[str, str] | None = None,
    values: dict[str, dict[str, str]] | None = None,
) -> Cohort:
    """The patients of a table, with the images that a pattern or a second table gives them.

    Args:
        root: The folder that all other paths are relative to.
        images: Path pattern with the fields ``{patient_id}`` and ``{cell_id}``; its suffix is read in any case.
        cells: Instead of ``images``, a table with a row per cell: patient_id, cell_id, path, optionally cell_type.
        patients: The table of patients.
        columns: Our column name to the tables' own, where they differ; further names become covariates, numeric where
            every value is a number. Age, time and event must be numbers; site and scanner stay text.
        labels: Raw label to class; its order is the order of the classes. Without it every raw label is a class.
        values: For a column (our name), raw value to ours.
    """
    if root is None or not root.expanduser().is_dir():
        given = "No folder was given" if root is None else f"The folder {root} does not exist"
        msg = f"{given}, where the files of the recipe were expected; give the folder that holds them with --root."
        raise CohortError(msg)
    if patients is None or (images is None) == (cells is None):
        msg = "The recipe must name `patients` and one of `images` or `cells`; see configs/cohorts for an example."
        raise CohortError(msg)
    root, names = root.expanduser(), columns or {}
    patient_table = _patient_table(root / patients, names, labels, values or {})
    classes = tuple(dict.fromkeys(labels.values())) if labels else tuple(sorted(set(patient_table["label"])))
    cell_table = _cells_by_pattern(root, images) if images else _cells_by_table(root / str(cells), names)
    foreign = sorted(set(cell_table["patient_id"]) - set(patient_table.index))
    if foreign:
        msg = (
            f"{len(foreign)} patients have images but no row in {root / patients} ({first_rows(foreign)}); "
            "add their rows, or move their images away."
        )
        raise CohortError(msg)
    present = tuple(name for name in classes if name in set(patient_table["label"]))
    return Cohort("tabular", root, patient_table, cell_table, present)


def _patient_table(
    path: Path,
    names: dict[str, str],
    labels: dict[str, str] | None,
    values: dict[str, dict[str, str]],
) -> pd.DataFrame:
    table = read_table(path)
    ids = table[column_named(table, names.get("patient_id", "patient_id"), path)].map(_plain)
    result = pd.DataFrame(index=pd.Index(ids, name="patient_id"))
    raw = table[column_named(table, names.get("label", "label"), path)].map(_plain)
    result["label"] = _classes(raw.tolist(), labels, path, ids.tolist())
    wanted = {ours: theirs for ours, theirs in names.items() if ours not in {*_FIELDS, "label", "path", "cell_type"}}
    wanted |= {name: name for name in table.columns if name in _NUMBERS | _TEXTS and name not in wanted}
    for ours, theirs in wanted.items():
        column = table[column_named(table, theirs, path)].str.strip().replace(values.get(ours, {}))
        result[ours] = _typed(column, ours, path).to_numpy()
    return result


def _classes(raw: list[str], labels: dict[str, str] | None, path: Path, ids: list[str]) -> list[str]:
    """The class of each raw label; blanks stay, for the cohort to name their patients."""
    known = {_plain(key): name for key, name in labels.items()} if labels else {name: name for name in raw}
    unknown = [
        f"'{value}' ({patient})" for value, patient in zip(raw, ids, strict=True) if value and value not in known
    ]
    if unknown:
        msg = f"{path} holds labels that the recipe does not list: {first_rows(unknown)}; add them to `labels`."
        raise CohortError(msg)
    return [known.get(value, "") for value in raw]


def _cells_by_pattern(root: Path, pattern: str) -> pd.DataFrame:
    fields = set(re.findall(r"{(\w+)}", pattern))
    if pattern.startswith("/"):
        msg = f"The pattern '{pattern}' is absolute, expected one below the root; give the folder with --root."
        raise CohortError(msg)
    if fields != _FIELDS:
        msg = f"The pattern '{pattern}' has the fields {sorted(fields)}; expected {{patient_id}} and {{cell_id}} in it."
        raise CohortError(msg)
    expression = re.compile(_expression(pattern), re.IGNORECASE)
    rows = []
    for path in root.glob(_wildcards(pattern)):
        relative = path.relative_to(root)
        if is_image(relative) and (match := expression.fullmatch(relative.as_posix())):
            patient = match["patient_id"]
            rows.append((f"{patient}/{match['cell_id']}", patient, relative.as_posix()))
    if not rows:
        msg = f"No image below {root} matches the pattern '{pattern}'; check --root and the recipe's `images`."
        raise CohortError(msg)
    return pd.DataFrame(rows, columns=["cell_id", "patient_id", "path"], dtype=object)


def _wildcards(pattern: str) -> str:
    """The pattern as a glob of the folders in it and of all files in them, as a suffix may be in capitals."""
    folders = "*".join(glob.escape(part) for part in re.split(r"{\w+}|\*", pattern.rpartition("/")[0]))
    return f"{folders}/*" if folders else "*"


def _expression(pattern: str) -> str:
    """The pattern as a regular expression: a field or a star is any text without a slash; a repeated field repeats."""
    seen: set[str] = set()
    parts = []
    for part in re.split(r"({\w+}|\*)", pattern):
        name = part[1:-1]
        if part == "*":
            parts.append("[^/]*")
        elif part.startswith("{") and name in seen:
            parts.append(f"(?P={name})")
        elif part.startswith("{"):
            seen.add(name)
            parts.append(f"(?P<{name}>[^/]+)")
        else:
            parts.append(re.escape(part))
    return "".join(parts)


def _cells_by_table(path: Path, names: dict[str, str]) -> pd.DataFrame:
    table = read_table(path)
    found = {
        ours: table[column_named(table, names.get(ours, ours), path)] for ours in ("patient_id", "cell_id", "path")
    }
    result = pd.DataFrame({"patient_id": found["patient_id"].map(_plain), "path": found["path"].str.strip()})
    result.insert(0, "cell_id", result["patient_id"] + "/" + found["cell_id"].map(_plain))
    if names.get("cell_type", "cell_type") in table.columns:
        result["cell_type"] = table[names.get("cell_type", "cell_type")]
    return result


def _plain(value: str) -> str:
    """``1.0`` and ``1`` are the same code: spreadsheets write either."""
    return re.sub(r"^(-?\d+)\.0+$", r"\1", value.strip())


def _typed(column: "pd.Series[str]", name: str, path: Path) -> "pd.Series[float] | pd.Series[str]":
    """A column as what its name (ours) calls for; a covariate of another name is numeric if all its values are."""
    if name in _NUMBERS:
        return numeric(column)
    unknown = sorted(set(column) - {"F", "M", ""}) if name == "sex" else []
    if unknown:
        msg = f"{path} holds the sex {first_rows(unknown)}, expected F, M or a blank; translate it in `values`."
        raise CohortError(msg)
    text = column.mask(column == "")
    if name in _TEXTS:
        return text
    try:
        return numeric(column)
    except CohortError:
        return text
