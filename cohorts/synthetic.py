"""A cohort of drawn cells in AML-Hehr's layout, whose every cell's kind is known: for demonstrations and for tests.

    <root>/metadata.csv                              one row a patient, the 20 columns of the published table
    <root>/data/<class>/<patient_id>/image_<N>.tif   144 x 144 px RGB; N counts from 0 and says nothing about the kind
    <root>/planted.csv                               patient_id, cell_id, kind, planted (0 or 1), for every cell
    <root>/survival.csv                              patient_id, time (days), event (1 died, 0 censored); leukaemias
    <root>/synthetic.json                            the parameters; a folder is completed with the same ones only

What is planted is the answer: nothing that trains reads it. Leukaemias have times and events. What the data hold:

* Differential, age, sex and leucocytes of each patient follow the real patients of the class (``BLOOD``), and the cells
  are drawn from the differential. So blasts tell leukaemia from control, as they do in reality.
* A share of each leukaemia's cells, Beta distributed with mean 0.17 and held between 0.05 and 0.4, is of the kinds that
  no other class has (``cell_kinds.PLANTED``), in place of blasts (in CBFB_MYH11 of eosinophils and monocytes first), as
  which the differential counts them. They tell the leukaemias apart, whose differentials overlap widely.
* Unlike reality, Auer rods occur in PML_RARA only, abnormal eosinophils are frequent in blood, and bags are small.
* Death comes at a constant hazard that differs by class; the study ends one to five years after a patient's diagnosis.

The same parameters give the same bytes on one machine, in any folder, however often the writing was interrupted.
"""

import io
import json
import os
import string
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from cohorts.aml_hehr import aml_hehr
from cohorts.cell_drawing import draw_cell, draw_stain
from cohorts.cell_kinds import KIND_OF, PLANTED
from cohorts.cell_shapes import PIXEL
from milkit.cohort import Cohort
from milkit.errors import CohortError

VERSION = 1
"""Of what is drawn from the same parameters; raise it with any change of the pictures or the tables."""
_BLASTS = ("pb_myeloblast", "pb_promyelocyte", "pb_myelocyte")
_OWN_PROCESS = 400
"""Cells that are worth a process of their own, which takes about a second to start."""


@dataclass(frozen=True, slots=True)
class Blood:
    """The patients of one class: means and spreads of the published ones.

    Attributes:
        differential: Mean per cent of each cell type, in the order of ``KIND_OF``.
        concentration: Of the Dirichlet around it, matched to the variances: the smaller, the more patients differ.
        age: Mean, spread, youngest and oldest, years.
        women: Share of women.
        leucocytes: Mean and spread of log10 of the count in 10³ per µl; None where it is not recorded.
        replaced: The kinds whose place the planted cells take, first choice first.
        hazard: Planted deaths per patient-year, not from the published table, which has no follow-up; 0 for donors.
    """

    differential: tuple[float, ...]
    concentration: float
    age: tuple[float, float, float, float]
    women: float
    leucocytes: tuple[float, float] | None
    replaced: tuple[str, ...] = ("myeloblast", "promyelocyte")
    hazard: float = 0.0


BLOOD = {
    "CBFB_MYH11": Blood(
        (54.9, 0.3, 0.6, 0.1, 0.3, 4.5, 0.9, 0.2, 21.7, 16.4, 0.0, 0.0, 0.3), 4.9, (55.7, 18.1, 20.0, 81.6), 0.54,
        (1.49, 0.43), replaced=("eosinophil", "monocyte", "myeloblast"), hazard=0.15,
    ),
    "NPM1": Blood(
        (67.3, 0.5, 0.8, 0.2, 0.6, 11.1, 0.3, 0.2, 5.6, 13.2, 0.0, 0.0, 0.4), 5.1, (62.2, 16.6, 27.7, 86.1), 0.58,
        (1.52, 0.50), hazard=0.45,
    ),
    "PML_RARA": Blood(
        (68.3, 5.9, 0.9, 0.3, 0.2, 7.8, 0.0, 0.0, 1.5, 15.1, 0.0, 0.0, 0.0), 2.0, (57.1, 18.4, 20.6, 85.1), 0.67,
        (1.27, 0.77), hazard=0.08,
    ),
    "RUNX1_RUNX1T1": Blood(
        (53.4, 2.4, 3.5, 0.2, 1.0, 12.7, 0.2, 0.1, 3.1, 23.2, 0.2, 0.0, 0.0), 5.4, (56.7, 13.4, 29.4, 80.8), 0.38,
        (1.09, 0.38), hazard=0.25,
    ),
    "control": Blood(
        (0.0, 0.0, 0.0, 0.0, 0.0, 61.4, 2.3, 0.6, 7.0, 28.5, 0.1, 0.0, 0.0), 29.5, (34.4, 10.4, 19.8, 67.8), 0.13, None,
    ),
}  # fmt: skip
"""Computed from the metadata of the 189 published patients (doi 10.7937/6ppe-4020, CC BY 4.0), rounded."""


@dataclass(frozen=True, slots=True)
class _Parameters:
    seed: int
    patients_per_class: int
    cells_per_patient: tuple[int, int]

    def __post_init__(self) -> None:
        fewest, most = self.cells_per_patient
        if self.seed < 0 or not 1 <= self.patients_per_class <= 2000 or not 1 <= fewest <= most:
            msg = (
                f"The synthetic cohort got {self.dump()}, expected a seed from 0, 1 to 2000 patients_per_class and "
                "cells_per_patient as fewest and most; correct the recipe's arguments."
            )
            raise CohortError(msg)

    def dump(self) -> dict[str, Any]:
        """What ``synthetic.json`` holds."""
        return {"version": VERSION} | asdict(self)


@dataclass(frozen=True, slots=True)
class _Patient:
    """One patient, fully determined before anything is drawn."""

    patient_id: str
    label: str
    key: tuple[int, int, int]
    row: dict[str, Any]
    kinds: tuple[str, ...]
    follow_up: dict[str, Any] | None

    def planted(self) -> list[dict[str, Any]]:
        """What each of the patient's images shows."""
        own, name = PLANTED.get(self.label, ()), self.patient_id
        return [
            {"patient_id": name, "cell_id": f"{name}/image_{n}", "kind": kind, "planted": int(kind in own)}
            for n, kind in enumerate(self.kinds)
        ]


def synthetic(
    root: Path, seed: int = 0, patients_per_class: int = 12, cells_per_patient: tuple[int, int] = (60, 100)
) -> Cohort:
    """Write what is missing of the cohort under ``root``, and read it as AML-Hehr is read.

    Args:
        root: A folder of its own, made if need be.
        seed: The one number that determines everything that is drawn.
        patients_per_class: Patients of each of the five classes.
        cells_per_patient: Fewest and most cells of a patient.
    """
    parameters = _Parameters(seed, patients_per_class, cells_per_patient)
    _claim(root := root.expanduser(), parameters)
    patients = _plan(parameters)
    follow_up = pd.DataFrame([patient.follow_up for patient in patients if patient.follow_up])
    _draw_missing(root, parameters, patients)
    _write_table(root / "planted.csv", pd.DataFrame([row for patient in patients for row in patient.planted()]))
    _write_table(root / "survival.csv", follow_up)
    _write_table(root / "metadata.csv", pd.DataFrame([patient.row for patient in patients]))
    note = "The cells are drawn and the patients invented; nothing here says how well a model does on blood."
    people = (cohort := aml_hehr(root)).patients.join(follow_up.set_index("patient_id"))
    return replace(cohort, name="synthetic", patients=people, notes=(note,), micrometres_per_pixel=PIXEL)


def draw_differential(label: str, rng: np.random.Generator) -> dict[str, int]:
    """Draw one patient's differential: whole per cent of each cell type, 100 in all.

    A leukaemia with fewer than 20 per cent of blasts and early forms is drawn again: none was published.
    """
    blood = BLOOD[label]
    mean = np.array(blood.differential)
    present = np.flatnonzero(mean)
    while True:
        share = np.zeros(len(mean))
        share[present] = 100 * rng.dirichlet(blood.concentration * mean[present] / mean.sum())
        whole = np.floor(share).astype(int)
        whole[np.argsort(whole - share, kind="stable")[: 100 - whole.sum()]] += 1
        differential = dict(zip(KIND_OF, whole.tolist(), strict=True))
        if label == "control" or sum(differential[name] for name in _BLASTS) >= 20:
            return differential


def draw_kinds(label: str, differential: dict[str, int], number: int, rng: np.random.Generator) -> tuple[str, ...]:
    """Draw the kinds of a patient's cells, in random order, the planted ones among them."""
    columns = list(differential)
    chances = np.array([differential[name] for name in columns]) / 100
    kinds = [KIND_OF[columns[i]] for i in rng.choice(len(columns), number, p=chances)]
    if label in PLANTED:
        share = float(np.clip(rng.beta(3.4, 16.6), 0.05, 0.4))
        order = BLOOD[label].replaced
        ranks = [order.index(kind) if kind in order else len(order) for kind in kinds]
        for place in np.argsort(ranks, kind="stable")[: max(1, round(share * number))]:
            kinds[place] = str(rng.choice(PLANTED[label]))
    return tuple(kinds[i] for i in rng.permutation(number))


def draw_share(root: str, parameters: dict[str, Any], first: int, step: int) -> None:
    """Draw what is missing of every ``step``-th patient from the ``first`` on; parameters as in ``synthetic.json``."""
    given = {name: value for name, value in parameters.items() if name != "version"}
    for patient in _plan(_Parameters(**given))[first::step]:
        _draw_patient(Path(root), patient)


def _claim(root: Path, parameters: _Parameters) -> None:
    """Refuse a folder that holds anything else than the cohort of these parameters."""
    path, asked = root / "synthetic.json", json.dumps(parameters.dump())
    if path.is_file():
        found = path.read_text(encoding="utf-8").strip()
        if found != asked:
            msg = f"{root} holds the synthetic cohort {found}, expected {asked}; give another --root or delete it."
            raise CohortError(msg)
    elif (root / "metadata.csv").exists() or (root / "data").exists():
        msg = f"{root} holds a cohort that was not drawn here, expected an empty or new folder; give another --root."
        raise CohortError(msg)
    else:
        _write(path, f"{asked}\n".encode())


def _plan(parameters: _Parameters) -> list[_Patient]:
    """All patients, sorted by id."""
    ids = _ids(parameters.patients_per_class * len(BLOOD), np.random.default_rng(parameters.seed))
    groups = range(len(BLOOD))
    keys = [(parameters.seed, group, number) for group in groups for number in range(parameters.patients_per_class)]
    plan = [_plan_patient(name, key, parameters.cells_per_patient) for name, key in zip(ids, keys, strict=True)]
    return sorted(plan, key=lambda patient: patient.patient_id)


def _ids(number: int, rng: np.random.Generator) -> list[str]:
    """Different ids of three capital letters; NAN is left out, which spreadsheets read as a blank."""
    letters = string.ascii_uppercase
    codes = rng.permutation(len(letters) ** 3)[: number + 1].tolist()
    ids = [letters[code // 676] + letters[code // 26 % 26] + letters[code % 26] for code in codes]
    return [name for name in ids if name != "NAN"][:number]


def _plan_patient(patient_id: str, key: tuple[int, int, int], cells: tuple[int, int]) -> _Patient:
    label, blood = list(BLOOD.items())[key[1]]
    rng = np.random.default_rng((*key, 1))
    number = int(rng.integers(cells[0], cells[1] + 1))
    ages = rng.normal(*blood.age[:2], 64)
    age = float(ages[(ages >= blood.age[2]) & (ages <= blood.age[3])][0])
    sex = 1 if rng.random() < blood.women else 2
    leucocytes = "" if blood.leucocytes is None else f"{np.clip(10 ** rng.normal(*blood.leucocytes), 0.5, 800):.2f}"
    differential = draw_differential(label, rng)
    kinds = draw_kinds(label, differential, number, rng)
    follow_up = None
    if blood.hazard:
        death, end = rng.exponential(365.25 / blood.hazard), rng.uniform(365, 5 * 365)
        time = max(1, round(min(death, end)))
        follow_up = {"patient_id": patient_id, "time": time, "event": int(death <= end)}
    row = {"patient_id": patient_id, "sex_1f_2m": sex, "age": f"{age:.1f}", "bag_label": label}
    row |= {"instance_count": number, "leucocytes_per_µl": leucocytes, **differential, "pb_total": 100}
    return _Patient(patient_id, label, key, row, kinds, follow_up)


def _draw_missing(root: Path, parameters: _Parameters, patients: list[_Patient]) -> None:
    """Share the drawing among processes of our own; multiprocessing would run the caller's main module once more."""
    missing = sum(len(_missing(root, patient)) for patient in patients)
    shares = max(1, min(os.cpu_count() or 1, missing // _OWN_PROCESS))
    code = "import json, sys; from cohorts.synthetic import draw_share; draw_share(*json.loads(sys.argv[1]))"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(part or str(Path.cwd()) for part in sys.path)}
    tasks = [json.dumps([str(root), parameters.dump(), first, shares]) for first in range(1, shares)]
    others = [subprocess.Popen([sys.executable, "-c", code, task], env=environment) for task in tasks]
    try:
        draw_share(str(root), parameters.dump(), 0, shares)
        if sum(process.wait() != 0 for process in others):
            msg = f"A process that draws cells into {root} failed; its traceback is above."
            raise RuntimeError(msg)
    finally:
        for process in others:
            process.kill()
            process.wait()


def _folder(root: Path, patient: _Patient) -> Path:
    return root / "data" / patient.label / patient.patient_id


def _missing(root: Path, patient: _Patient) -> list[int]:
    folder = _folder(root, patient)
    found = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    return [n for n in range(len(patient.kinds)) if f"image_{n}.tif" not in found]


def _draw_patient(root: Path, patient: _Patient) -> None:
    stain = draw_stain(np.random.default_rng((*patient.key, 2)))
    for n in _missing(root, patient):
        image = draw_cell(patient.kinds[n], stain, np.random.default_rng((*patient.key, 3, n)))
        content = io.BytesIO()
        Image.fromarray(image).save(content, "TIFF")  # uncompressed: a third the time of LZW, for half as much again
        _write(_folder(root, patient) / f"image_{n}.tif", content.getvalue())


def _write_table(path: Path, table: pd.DataFrame) -> None:
    if not path.exists():
        _write(path, table.to_csv(index=False, lineterminator="\n").encode())


def _write(path: Path, content: bytes) -> None:
    """Write under a temporary name and rename, so that a file that exists is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_bytes(content)
    temporary.replace(path)
