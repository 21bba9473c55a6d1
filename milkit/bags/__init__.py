"""The noun BagStore: features of every cell of a cohort under one encoder; ``store`` documents the files."""

from milkit.bags.of_run import store_of_run
from milkit.bags.seen import cohort_names, seen_in_pretraining
from milkit.bags.store import BLOCK, Bag, BagStore
from milkit.bags.study import image_paths, open_patients, source_texts, study_cells, study_patients

SCALE = "micrometres_per_pixel"
"""The attribute that says how large a pixel of the images is; null or absent where that is unknown."""

__all__ = [
    "BLOCK",
    "SCALE",
    "Bag",
    "BagStore",
    "cohort_names",
    "image_paths",
    "open_patients",
    "seen_in_pretraining",
    "source_texts",
    "store_of_run",
    "study_cells",
    "study_patients",
]
