"""What data sets of one cell an image share: images below a folder, and labels in the names of folders or files."""

import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path, PurePosixPath

import pandas as pd

from cohorts.published_sets import count_note, missing_note
from milkit.cohort import IMAGE_SUFFIXES, is_image
from milkit.errors import CohortError

WHITE_CELLS = ("Basophil", "Eosinophil", "Lymphocyte", "Monocyte", "Neutrophil")
"""The five classes of a plain differential count, as folders are called."""

Labelling = Callable[[PurePosixPath], tuple[str, str] | None]
"""From an image's path below the root to its cell id and raw label; None where it is none of the data set."""


def images_below(root: Path, passed_over: Collection[str] = ()) -> list[PurePosixPath]:
    """Paths of all images below a folder, relative to it, without litter and without folders called ``passed_over``."""
    found = []
    for place, folders, files in os.walk(root, followlinks=True):
        folders[:] = [name for name in folders if name not in passed_over]
        relative = PurePosixPath(Path(place).relative_to(root).as_posix())
        found += [relative / name for name in files if is_image(Path(relative, name))]
    return found


def label_cells(
    root: Path, paths: Iterable[PurePosixPath], labelling: Labelling, published: str
) -> tuple[pd.DataFrame, list[str]]:
    """The cells (cell_id, path, cell_type) of the images that have a label, and a note on those that have none.

    ``published`` ends the refusal of a root without any: what was expected in it, and where to get it.
    """
    rows, foreign = [], []
    for path in paths:
        labelled = labelling(path)
        if labelled is None:
            foreign.append(str(path))
        else:
            rows.append((labelled[0], str(path), labelled[1]))
    if not rows:
        msg = f"{root} holds no image with the names of the data set, where {published}"
        raise CohortError(msg)
    cells = pd.DataFrame(rows, columns=["cell_id", "path", "cell_type"], dtype=object)
    return cells, missing_note("Images that are named unlike those of the data set were not read", foreign)


def numbered(prefixes: Collection[str]) -> Labelling:
    """The labelling of ``<prefix>_<number>.<suffix>`` anywhere below the root: the prefix is the label."""
    name = re.compile(rf"({'|'.join(map(re.escape, prefixes))})_\d+")

    def labelling(path: PurePosixPath) -> tuple[str, str] | None:
        match = name.fullmatch(stem(path))
        return (match[0], match[1]) if match else None

    return labelling


def foldered(names: Iterable[str]) -> Callable[[PurePosixPath], str | None]:
    """A function that tells which of these names the nearest folder above an image has; None where no folder has one.

    Case, separators and a plural s do not count: copies of a data set differ in them.
    """
    known = {_folded(name): name for name in names}

    def name_of(path: PurePosixPath) -> str | None:
        return next((known[_folded(folder.name)] for folder in path.parents if _folded(folder.name) in known), None)

    return name_of


def stem(path: PurePosixPath) -> str:
    """The file's name without its suffix, or without both where it was appended twice (``BAS_0001.tiff.tiff``)."""
    while path.suffix.lower() in IMAGE_SUFFIXES:
        path = path.with_suffix("")
    return path.name


def image_count_note(found: Iterable[str], published: Mapping[str, int]) -> list[str]:
    """One sentence where the images, in all or of a label, are not as many as published."""
    counts = Counter(found)
    counts["images"] = counts.total()
    return count_note(counts, {"images": sum(published.values()), **published})


def _folded(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower()).removesuffix("s")
