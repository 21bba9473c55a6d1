"""LeukemiaAttri: smear fields of about 47 leukaemia patients with boxes around white cells, imaged in 12 ways.

Published at https://github.com/intelligentMachines-ITU/Blood-Cancer-Dataset-Lukemia-Attri-MICCAI-2024 (Rehman et al.,
MICCAI 2024; extended as LLD, Medical Image Analysis 2025). No licence is stated there; a public user of it names CC
BY-NC-SA 4.0.

    <root>/<domain>/Images/<train|test>/<patient>_<…>_<magnification>_<diagnosis>.png     640 x 640 px
    <root>/<domain>/json_labels/<train|test>.json                                         COCO boxes and types
    <root>/<domain>/labels/<train|test>/<field>.txt                                       YOLO: class x y w h …

A domain is H or L (expensive or cheap microscope), 100X, 40X or 10X, C1 or C2 (camera): ``H_100X_C1``. Diagnoses, from
file names: ALL, AML, APML, CLL, CML. Types, from COCO: myeloblast, lymphoblast, monoblast, promonocyte, monocyte,
lymphocyte, atypical lymphocyte, abnormal promyelocyte, myelocyte, metamyelocyte, neutrophil, eosinophil, basophil, and
none, which boxes without a type have, artefacts among them.

Traps:

* The domains show the same cells again. One domain is read unless more are named; then ``scanner`` and ``sample_id``
  say which domain a cell is from, and a patient's bag holds each cell several times.
* The published train and test sets (the column ``split``) are apart by patient within a domain, not across domains.
* Boxes were drawn on one domain and transferred to the others.
* Fields were squeezed to a square: red cells are about 0.6 times as wide as high (measured by a public user of
  H_100X_C1). Crops are square in the pixels of the field and do not undo it.
* ``Images`` is also ``images``, ``json_labels`` also ``WBC_detection``, or inside a ``labels.zip``; all may lie one
  folder deeper (``LeukemiaAttr/``). COCO files list an image once a box, and repeat boxes.
* The class numbers of the YOLO files are unreliable, so that their boxes have no type here.

Not verified on published files: the layout is as public code reads it.
"""

import re
import zipfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Literal

import pandas as pd

from cohorts.box_files import read_coco, read_yolo
from cohorts.field_crops import Field, Found, cell_table, image_size, images_by_stem, join_fields
from cohorts.published_sets import count_note, given_folder, missing_note
from milkit.cohort import Cohort, natural_key
from milkit.errors import CohortError, first_rows

N_PATIENTS = 47
"""In the domain H_100X_C1."""

_EXPECTED = (
    "LeukemiaAttri (<domain>/Images/<train|test>/*.png and <domain>/json_labels/*.json, domains such as H_100X_C1) was "
    "expected; get it from its authors' repository and give its folder with --root."
)
_DOMAIN = re.compile(r"[HL]_(10|40|100)X_C[12]", re.IGNORECASE)
_NAME = re.compile(r"(\d+)_.*?(?:_([A-Za-z]+))?")
_NOBODY = "no number"
_SPLITS = ("train", "test")
_COCO_FOLDERS = ("json_labels", "wbc_detection", "annotations")


def leukemia_attri(
    root: Path | None = None,
    domains: tuple[str, ...] = ("H_100X_C1",),
    annotations: Literal["coco", "yolo"] = "coco",
) -> Cohort:
    """The patients below ``root``, with the annotated cells of these domains, each a square crop.

    Args:
        root: The folder that holds the domains.
        domains: Microscope, magnification and camera; several of them show the same cells.
        annotations: Which of the published copies of the boxes is read; YOLO's have no type.
    """
    root = given_folder(root, "leukemia_attri", _EXPECTED)
    folders = _domains(root)
    fields: list[Field] = []
    notes: list[str] = []
    for domain in dict.fromkeys(name.upper() for name in domains):
        if domain not in folders:
            there = ", ".join(sorted(folders, key=natural_key)) or "none"
            msg = f"{root} holds no domain '{domain}' (found: {there}), where {_EXPECTED}"
            raise CohortError(msg)
        found, lacking = _read_domain(root, folders[domain], domain, annotations)
        fields += found
        notes += lacking
    cells, left_out = cell_table(fields)
    cells = _with_owners(cells)
    patients, unclear = _patients(cells)
    cells = cells[cells["patient_id"].isin(patients.index)].drop(columns="diagnosis")
    counts = count_note({"patients": len(patients)}, {"patients": N_PATIENTS})
    classes = tuple(sorted(set(patients["label"])))
    told = (*counts, *notes, *left_out, *unclear)
    return Cohort("leukemia_attri", root, patients, cells, classes, notes=told, ids="pseudonymous")


def _domains(root: Path) -> dict[str, Path]:
    """The folders of domains, directly below the root or one folder deeper."""
    folders = [path for path in sorted(root.iterdir()) if path.is_dir()]
    deeper = [inner for path in folders for inner in sorted(path.iterdir()) if inner.is_dir()]
    return {path.name.upper(): path for path in (*deeper, *folders) if _DOMAIN.fullmatch(path.name)}


def _read_domain(
    root: Path, folder: Path, domain: str, annotations: Literal["coco", "yolo"]
) -> tuple[list[Field], list[str]]:
    images: dict[str, Path] = {}
    objects: dict[str, list[Found]] = {}
    twice: set[str] = set()
    for split in _SPLITS:
        place = _inside(_inside(folder, ("images",)), (split,))
        here = images_by_stem(place) if place else {}
        twice |= images.keys() & here.keys()
        images = here | images
    for split in _SPLITS:
        objects = (_coco(folder, split) if annotations == "coco" else _yolo(folder, split, images)) | objects
    if not objects:
        msg = f"{folder} holds no {annotations.upper()} boxes of train or test, where {_EXPECTED}"
        raise CohortError(msg)
    fields, lacking = join_fields(
        root,
        {f"{domain}/{stem}": path for stem, path in images.items()},
        {f"{domain}/{stem}": boxes for stem, boxes in objects.items()},
    )
    both = [f"{domain}/{stem}" for stem in twice]
    return fields, [*missing_note("Fields that are in train and in test were read as those of train", both), *lacking]


def _inside(folder: Path | None, names: Iterable[str]) -> Path | None:
    """The first folder inside that has one of these names, whatever the case of its letters."""
    if folder is None:
        return None
    there = {path.name.lower(): path for path in sorted(folder.iterdir()) if path.is_dir()}
    return next((there[name] for name in names if name in there), None)


def _coco(folder: Path, split: str) -> dict[str, list[Found]]:
    """Objects by the name of their field, from a JSON in the domain's folder or in a zip there."""
    place = _inside(folder, _COCO_FOLDERS)
    content = None
    if place and (place / f"{split}.json").is_file():
        content = (place / f"{split}.json").read_bytes()
    for path in filter(zipfile.is_zipfile, sorted(folder.glob("[!.]*.zip")) if content is None else []):
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if Path(name).name == f"{split}.json" and Path(name).parent.name.lower() in _COCO_FOLDERS:
                    content = archive.read(name)
    if content is None:
        return {}
    return {Path(name).stem: found for name, found in read_coco(content, f"{split}.json of {folder}").items()}


def _yolo(folder: Path, split: str, images: dict[str, Path]) -> dict[str, list[Found]]:
    place = _inside(_inside(folder, ("labels",)), (split,))
    files = sorted(place.glob("[!.]*.txt")) if place else []
    return {
        path.stem: [found._replace(label=None) for found in read_yolo(path, image_size(images[path.stem]))]
        if path.stem in images
        else []
        for path in files
    }


def _with_owners(cells: pd.DataFrame) -> pd.DataFrame:
    """The cells with their patient, diagnosis, domain and split, which the paths of their fields have."""
    fields = [str(cell_id).split("/") for cell_id in cells["cell_id"]]
    names = [_NAME.fullmatch(stem) for _, stem, _ in fields]
    owners = pd.Series([match[1] if match else _NOBODY for match in names], dtype=object, index=cells.index)
    diagnoses = [(match[2] or "").upper() if match else "" for match in names]
    domains = [domain for domain, _, _ in fields]
    splits = [PurePosixPath(path).parent.name.lower() for path in cells["path"]]
    return cells.assign(patient_id=owners, diagnosis=diagnoses, sample_id=domains, scanner=domains, split=splits)


def _patients(cells: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """A row a patient whose fields name one diagnosis; and a sentence on those who have none, or several."""
    rows, unclear = {}, []
    for patient in sorted(set(cells["patient_id"]), key=natural_key):
        group = cells[cells["patient_id"] == patient]
        diagnoses = sorted(set(group["diagnosis"]) - {""})
        if patient == _NOBODY or len(diagnoses) != 1:
            unclear.append(f"{patient} ({' and '.join(diagnoses) or 'none'})")
        else:
            rows[patient] = (diagnoses[0], "+".join(sorted(set(group["scanner"]), key=natural_key)))
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["label", "scanner"]).rename_axis("patient_id")
    n_cells = int((~cells["patient_id"].isin(table.index)).sum())
    what = f"Patients whose file names do not give one diagnosis were left out, with {n_cells:,} cells"
    return table, [f"{what}: {first_rows(unclear)}."] if unclear else []
