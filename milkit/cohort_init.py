"""VERB folder -> recipe: a first YAML for one's own data, with what was guessed marked, for a person to edit."""

import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import yaml

from milkit import archives
from milkit.clinical_tables import plain
from milkit.cohort import numeric
from milkit.errors import CohortError
from milkit.folder_survey import Images, Owner, find_images, find_owner, find_tables, owners, shape
from milkit.runs import write_text

MAX_CLASSES = 20
"""A column with more different values is hardly one of labels."""
MAX_CODES = 3
"""Words among the numbers of an age that may be codes for a missing one."""

_LABEL = re.compile(r"label|diagnos|class|entit|subtyp|group|outcome|target|disease|befund", re.IGNORECASE)
_AGE = re.compile(r"(age|alter|lebensalter)\b.*|age[_ ]?at.*", re.IGNORECASE)
_SEX = re.compile(r"sex|gender|geschlecht", re.IGNORECASE)
_BIRTH = re.compile(r"birth|geburt|\bgeb\b|\bdob\b", re.IGNORECASE)
_SEXES = dict.fromkeys(("f", "female", "w", "weiblich", "frau"), "F")
_SEXES |= dict.fromkeys(("m", "male", "männlich", "maennlich", "mann"), "M")
_READ_ANYWAY = ("age", "sex", "time", "event")
"""The factory takes up columns of these names unasked, and refuses values that are none."""


class _Guess(NamedTuple):
    """Lines of the recipe's ``columns``, the column of the table that they speak of, and ours that they fill."""

    lines: list[str]
    theirs: str | None = None
    ours: str | None = None


def write_recipe(folder: Path, out: Path | None = None) -> Path:
    """Draft a recipe and write it: to ``out``, or to ``<name of the folder>.yaml`` here; no file is overwritten."""
    text = draft_recipe(folder)
    path = out or Path(f"{_name(folder)}.yaml")
    try:
        _write_new(path, text)
    except FileExistsError:
        msg = f"{path} exists already and is not overwritten; give another path with --out, or move it away."
        raise CohortError(msg) from None
    return path


def _write_new(path: Path, text: str) -> None:
    """Write a file that is not there yet, whole or not at all; ``FileExistsError`` where it is."""
    whole = path.with_name(f".{path.name}.new-{os.getpid()}")
    try:
        write_text(whole, text)
        try:
            os.link(whole, path)  # unlike a renamed file, a link never takes the place of another
        except FileExistsError:
            raise
        except OSError:  # no links on this disk
            if path.exists():
                raise FileExistsError from None
            whole.replace(path)
    finally:
        whole.unlink(missing_ok=True)


def draft_recipe(folder: Path) -> str:
    """A recipe of the factory ``tabular`` for what the folder holds; ``CohortError`` where it holds no image.

    The pattern of images comes from the commonest shape of their paths, the table from a column whose values are the
    names of folders (or the beginnings of file names), the label from a column that follows a folder, is called like
    one, or has few values. A column that could be an age or a sex is taken up where all its values can be read.
    """
    if not folder.is_dir():
        msg = f"{folder} is not a folder, where one with images and a table of patients was expected; give its path."
        raise CohortError(msg)
    paths = find_images(folder)
    if not paths:
        msg = f"{folder} holds no image, and no zip or tar with images; give the folder that holds those of the cells."
        raise CohortError(msg)
    images = shape(paths)
    owner = find_owner(images, find_tables(folder))
    lines = [
        "# A first recipe by `milkit cohort init`: what was guessed is marked, so read it, edit it, and then look with",
        "#     milkit cohort check THIS_FILE",
        f"name: {_name(folder)}",
        "factory: tabular",
        "ids: identifying  # or pseudonymous, if nobody can tell from ids and names of files who a patient is",
        f"root: {_scalar(str(folder.resolve()))}",
        "arguments:",
        f"  # {len(images.stems):,} images fit, {images.others:,} lie elsewhere",
        "  # besides {patient_id} and {cell_id} there may be {sample_id}, {cell_type}, and * for any text",
        f"  images: {_scalar(_pattern(images, owner))}",
        *(_table_lines(images, owner) if owner else _no_table_lines()),
    ]
    return "\n".join(lines) + "\n"


def _name(folder: Path) -> str:
    """The folder's name as a cohort's, which names folders: letters, digits, ``_`` and ``-``."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", folder.resolve().name).strip("_-") or "my_study"


def _pattern(images: Images, owner: Owner | None) -> str:
    level = len(images.levels) - 1 if owner is None else owner.level
    text, below = "", False
    for number, (names, separator) in enumerate(zip(images.levels, images.separators, strict=True)):
        archive = images.archive if separator == archives.SEPARATOR else ""
        if number == level:
            part, below = "{patient_id}", True
        elif len(set(names)) == 1 and not set("{}*") & set(names[0]):
            part = names[0]
        else:
            part = "{sample_id}" if below and "{sample_id}" not in text else "*"
        text += f"{part}{archive}{separator}"
    suffixes = {suffix.lower() for suffix in images.suffixes}
    suffix = suffixes.pop() if len(suffixes) == 1 else ".*"
    if "{patient_id}" not in text:
        return f"{text}{{patient_id}}{owner.separator if owner else '_'}{{cell_id}}{suffix}"
    return f"{text}{_beginning(images.stems)}{{cell_id}}{suffix}"


def _beginning(stems: Sequence[str]) -> str:
    """What all file names begin with, up to a separator: ``image_`` of ``image_0`` and ``image_10``."""
    first, last = min(stems), max(stems)
    same = next((n for n, (one, other) in enumerate(zip(first, last, strict=False)) if one != other), len(first))
    match = re.match(r"[^{}*]*[_ -]", first[:same])
    return match[0] if match else ""


def _no_table_lines() -> list[str]:
    return [
        "  # EDIT: no table was found with ids that are names of folders or beginnings of file names",
        "  patients: patients.csv",
        "  columns: {patient_id: patient_id, label: label}",
    ]


def _table_lines(images: Images, owner: Owner) -> list[str]:
    table = owner.table.values
    ids, found = table[owner.column].map(plain), set(owners(images, owner))
    label = _label(images, owner)
    rules = []
    if (~ids.isin(found)).any():
        rules.append(
            f"    include: [{{column: n_cells, at_least: 1}}]     # {(~ids.isin(found)).sum()} rows have no image"
        )
    if label and (table[label].str.strip() == "").any():
        blank = (table[label].str.strip() == "").sum()
        rules.append(f"    exclude: [{{column: label, missing: true}}]     # {blank} rows have none")
    guesses = [_age(table), _sex(table), _birth(table)]
    filled = {guess.ours for guess in guesses}
    unread = [name for name in _READ_ANYWAY if name in table.columns and name not in filled]
    unread = [name for name in unread if name == "sex" or _words(table[name])]
    known = {owner.column, label, *unread, *(guess.theirs for guess in guesses)}
    rest = [str(name) for name in table.columns if name not in known and str(name).strip()]
    return [
        f"  # {owner.matched} of {owner.names} names in the paths have a row; where rows are samples, add sample_id",
        *_patients(owner, rules),
        "  columns:",
        f"    patient_id: {_scalar(owner.column)}",
        f"    label: {_scalar(label or 'label')}     # {'GUESS' if label else 'EDIT: no column looks like one'}",
        *(line for guess in guesses for line in guess.lines),
        *(f"    {name}: null     # left out, as it is no {name} that can be read" for name in unread),
        *(["    # further columns become covariates: their own names here, theirs on the right"] if rest else []),
        *(f"    # {_scalar(name)}: {_scalar(name)}" for name in rest),
        *(_label_lines(table[label]) if label else []),
    ]


def _patients(owner: Owner, rules: list[str]) -> list[str]:
    path, sheet = _scalar(owner.table.path), owner.table.sheet
    if not rules and sheet is None:
        return [f"  patients: {path}"]
    return [
        "  patients:",
        f"    table: {path}",
        *([f"    sheet: {_scalar(sheet)}"] if sheet is not None else []),
        *rules,
    ]


def _label(images: Images, owner: Owner) -> str | None:
    """The column that looks most like labels: 4 points for following a folder, 3 for its name, 1 for its values."""
    table = owner.table.values
    ids = table[owner.column].map(plain)
    patients = owners(images, owner)
    folders = [set(zip(patients, names, strict=True)) for names in images.levels if len(set(names)) > 1]
    best: tuple[int, str | None] = (0, None)
    for name in map(str, table.columns):
        values = table[name].str.strip()
        counts = values[values != ""].value_counts()
        if name == owner.column or not 2 <= len(counts) <= MAX_CLASSES or _SEX.search(name) or _AGE.fullmatch(name):
            continue
        of_patient = dict(zip(ids, values.map(_folded), strict=True))
        points = 4 * any(_follows(of_patient, pairs) for pairs in folders)
        points += 3 * bool(_LABEL.search(name)) + int(counts.min() > 1)
        best = max(best, (points, name), key=lambda scored: scored[0])
    return best[1]


def _follows(of_patient: dict[str, str], pairs: set[tuple[str, str]]) -> bool:
    """Whether a folder, paired with each patient, says what a column says of everyone who has both."""
    both = [(of_patient[patient], _folded(name)) for patient, name in pairs if of_patient.get(patient)]
    return bool(both) and all(value == name for value, name in both)


def _label_lines(column: "pd.Series[str]") -> list[str]:
    values = sorted({plain(value) for value in column} - {""})
    return [
        "  # raw label on the left, its class on the right (several may share one), in the order of the classes",
        "  labels:",
        *(f"    {_scalar(value)}: {_scalar(value)}" for value in values),
    ]


def _age(table: pd.DataFrame) -> _Guess:
    for name in _called(table, _AGE.fullmatch):
        words = _words(table[name])
        if not words:
            return _Guess([f"    age: {_scalar(name)}"], name, "age")
        if len(words) <= MAX_CODES:
            codes = ", ".join(map(_scalar, words))
            line = f"    age: {{column: {_scalar(name)}, missing: [{codes}]}}     # GUESS: what is missing"
            return _Guess([line], name, "age")
    return _Guess([])


def _sex(table: pd.DataFrame) -> _Guess:
    for name in _called(table, _SEX.search):
        values = sorted({plain(value) for value in table[name]} - {""})
        meant = {value: _SEXES.get(value.lower()) for value in values}
        if all(meant.values()):
            other = ", ".join(f"{_scalar(value)}: {sex}" for value, sex in meant.items() if value != sex)
            line = f"{{column: {_scalar(name)}, values: {{{other}}}}}" if other else _scalar(name)
            return _Guess([f"    sex: {line}"], name, "sex")
        codes = ", ".join(f"{_scalar(value)}: F or M" for value in values[:MAX_CODES])
        return _Guess(
            [f"    # sex: {{column: {_scalar(name)}, values: {{{codes}}}}}     # EDIT: what the codes mean"], name
        )
    return _Guess([])


def _birth(table: pd.DataFrame) -> _Guess:
    for name in _called(table, _BIRTH.search):
        return _Guess(
            [
                "    # dates of birth give a birth year; with a reference_date, a column or a constant, an age",
                f'    # birth_date: {{column: {_scalar(name)}, date: "%d.%m.%Y"}}     # EDIT: how they are written',
                "    # reference_date: {constant: 2021-06-30}",
            ],
            name,
        )
    return _Guess([])


def _called(table: pd.DataFrame, fits: Callable[[str], object]) -> list[str]:
    return [str(name) for name in table.columns if fits(str(name))]


def _words(column: "pd.Series[str]") -> list[str]:
    """The different values of a column that are no numbers."""
    words = []
    for value in sorted({value.strip() for value in column}):
        try:
            numeric(pd.Series([value]))
        except CohortError:
            words.append(value)
    return words


def _folded(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _scalar(text: str) -> str:
    """As YAML reads it back: quoted where it would be something else than this text."""
    try:
        same = yaml.safe_load(f"- {text}") == [text] and not set(text) & set(",[]{}:#\n")
    except yaml.YAMLError:
        same = False
    return text if same else json.dumps(text, ensure_ascii=False)
