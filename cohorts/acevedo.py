"""Acevedo: 17,092 single cells of the blood of healthy people, in 8 folders and 13 finer prefixes; no patients.

Published as PBC_dataset_normal_DIB in Mendeley Data, https://doi.org/10.17632/snkd93bnjr.1 (Acevedo et al. 2020, Data
in Brief 30: 105474), under CC BY 4.0. DinoBloom was not trained on it: it is the external test of its paper.

    <root>/<folder>/<PREFIX>_<digits>.jpg        mostly 360 x 363 px, RGB; CellaVision DM96, May Grünwald-Giemsa

    folder        prefix and images
    basophil      BA 1,218
    eosinophil    EO 3,117
    erythroblast  ERB 1,551
    ig            MMY 1,015 (metamyelocyte), MY 1,137 (myelocyte), PMY 592 (promyelocyte), IG 151 (not told apart)
    lymphocyte    LY 1,214
    monocyte      MO 1,420
    neutrophil    BNE 1,633 (band), SNE 1,646 (segmented), NEUTROPHIL 50 (not told apart)
    platelet      PLATELET 2,348

The prefix says what a cell is, so that any folder above the images may be the root. ``classes`` chooses the labels: all
13 prefixes; the 11 classes of the DinoBloom paper, without NEUTROPHIL and IG and their 201 images (the list in
DinoBloom's code is without PLATELET, too); or the 8 folders.

``part`` divides the images by a hash of their names, copies of an image together, so that every copy of the data set,
whole or not, is divided alike: ``test`` (a fifth of the images) is the hold-out that milkit's own encoder,
``milkit-mini``, has never seen; ``validation`` (a twentieth) is for choosing among its trainings, ``train`` for these.
Where one field was cut twice, a little shifted, the same cell would be on two sides: such images are in no part
(``SHOWN_ELSEWHERE``). No patients were published, so that cells of one patient, and of one slide, are on all sides.

Traps: ``neutrophil/.DS_169665.jpg`` is no image; folders ``wbc_resized`` and ``PBC_dataset_split`` of mirrors repeat
the images; 17 pairs of images are the same file, one of them with two labels (BNE_191112 is EO_225902). Sizes differ
(366 x 369, 360 x 360 and a few odd ones), and the pixel size was not published.

Verified: on published files, 13,675 of them reduced to 128 x 128 px and 130 as they are, and on the full list of names.
"""

import hashlib
from pathlib import Path
from typing import Literal

import pandas as pd

from cohorts.cell_folders import image_count_note, images_below, label_cells, numbered
from cohorts.published_sets import given_folder, without_patients
from milkit.cohort import Cohort
from milkit.errors import CohortError

FOLDERS = {
    "basophil": {"BA": 1_218},
    "eosinophil": {"EO": 3_117},
    "erythroblast": {"ERB": 1_551},
    "ig": {"IG": 151, "MMY": 1_015, "MY": 1_137, "PMY": 592},
    "lymphocyte": {"LY": 1_214},
    "monocyte": {"MO": 1_420},
    "neutrophil": {"BNE": 1_633, "NEUTROPHIL": 50, "SNE": 1_646},
    "platelet": {"PLATELET": 2_348},
}
"""Published images by folder and prefix."""
COUNTS = {prefix: number for counts in FOLDERS.values() for prefix, number in counts.items()}
"""Published images by prefix."""
UNSPECIFIC = ("IG", "NEUTROPHIL")
"""Prefixes of cells that were not told apart further; none of the 11 classes of the DinoBloom paper."""
COPIES = (
    ("BA_20201", "BA_809918"), ("BA_225540", "BA_786369"), ("BA_251042", "BA_988506"), ("BA_381452", "BA_80990"),
    ("BA_435917", "BA_858229"), ("BA_546746", "BA_685720"), ("BNE_191112", "EO_225902"), ("EO_220125", "EO_433229"),
    ("EO_284748", "EO_738445"), ("EO_621854", "EO_728356"), ("EO_65638", "EO_873756"), ("EO_890163", "EO_918881"),
    ("EO_941266", "EO_994040"), ("MO_145357", "MO_997225"), ("PMY_187173", "PMY_225787"), ("PMY_497134", "PMY_586364"),
    ("PMY_538541", "PMY_753076"),
)  # fmt: skip
"""Pairs of published images that are the same file, each in alphabetical order."""
SHOWN_ELSEWHERE = (
    "BNE_489079", "EO_246684", "EO_29874", "EO_4246", "EO_738318", "EO_823567", "EO_926339", "ERB_232473",
    "ERB_270286", "ERB_279050", "ERB_287222", "ERB_298962", "ERB_31041", "ERB_499441", "ERB_633119", "ERB_690949",
    "ERB_740140", "ERB_846578", "ERB_916745", "LY_192261", "MMY_270313", "MY_471812", "NEUTROPHIL_501624",
    "PLATELET_237971", "PLATELET_56621", "PLATELET_588056", "PMY_705579",
)  # fmt: skip
"""Images that would be in ``test`` or ``validation``, and show cells of an image of the training, or of validation.

Among the 13,675 files at 128 x 128 px, 63 pairs that are no copies correlate above 0.9 where they overlap best (shifts
up to 48 px; the highest of cells that differ is 0.90); 27 of them lie in two parts. The other 3,417 were not compared.
"""
TEST, VALIDATION = 0.20, 0.05
"""Shares of the images that are in these parts."""

_FIRST = {second: first for first, second in COPIES}

_EXPECTED = (
    "the folders of PBC_dataset_normal_DIB (basophil/BA_<digits>.jpg and seven more) were expected; download it from "
    "Mendeley Data, doi 10.17632/snkd93bnjr.1, and give its folder with --root."
)
_COPIES = ("wbc_resized", "PBC_dataset_split")
_TWICE = "17 pairs of the published images are the same file, so keep each pair on one side of a split."


Part = Literal["train", "validation", "test"]


def acevedo(
    root: Path | None = None,
    classes: Literal["prefix", "paper", "folder"] = "prefix",
    part: Literal["all", "train", "validation", "test"] = "all",
) -> Cohort:
    """The published cells below ``root``, labelled as ``classes`` says; they belong to no patient.

    Args:
        root: The folder that holds the eight folders, or one above it.
        classes: ``prefix``: the 13 prefixes. ``paper``: the 11 classes of the DinoBloom paper, other cells left out.
            ``folder``: the 8 folders.
        part: All cells, or those that ``part_of`` puts there.
    """
    root = given_folder(root, "acevedo", _EXPECTED)
    cells, notes = label_cells(root, images_below(root, _COPIES), numbered(COUNTS), _EXPECTED)
    notes = [_TWICE, *notes, *image_count_note(cells["cell_type"], COUNTS)]
    if part != "all":
        cells, notes = _only(cells, part, root), [*notes, f"Only the images of part '{part}' were read."]
    if classes == "paper":
        cells = cells[~cells["cell_type"].isin(UNSPECIFIC)]
    elif classes == "folder":
        cells["cell_type"] = cells["cell_type"].map({prefix: name for name in FOLDERS for prefix in FOLDERS[name]})
    return without_patients("acevedo", root, cells, notes)


def part_of(name: str) -> Part | None:
    """The part of an image, by its file's name without suffix, or by the first name of a pair of ``COPIES``.

    h is the first 8 bytes of the name's SHA-256, big-endian, over 2^64: below 0.20 test, below 0.25 validation. Images
    ``SHOWN_ELSEWHERE`` are in no part.
    """
    if name in SHOWN_ELSEWHERE:
        return None
    digest = hashlib.sha256(_FIRST.get(name, name).encode()).digest()
    h = int.from_bytes(digest[:8], "big") / 2**64
    return "test" if h < TEST else "validation" if h < TEST + VALIDATION else "train"


def _only(cells: pd.DataFrame, part: Part, root: Path) -> pd.DataFrame:
    own = cells[cells["cell_id"].map(part_of) == part].copy()
    if own.empty:
        msg = (
            f"None of the {len(cells)} images below {root} is of the part '{part}', where a share of the published "
            "ones was expected; give the folder of all images with --root, or `part: all`."
        )
        raise CohortError(msg)
    return own
