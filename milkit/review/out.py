"""VERB run -> blinded review: one page for readers, and the key that stays behind."""

import re
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from markupsafe import escape

from milkit.bags import source_texts
from milkit.errors import ReviewError
from milkit.explain.question import read_question
from milkit.privacy.gate import judge, keep_allowed
from milkit.privacy.scan import scan_page
from milkit.progress import progress
from milkit.report.gallery import encode
from milkit.report.results import Results, read_results
from milkit.report.target_results import read_targets
from milkit.review.key import Key
from milkit.review.page import Shown, review_page
from milkit.review.sample import arrange, choose, new_codes, new_review, stands_for
from milkit.runs import write_text
from milkit.taxonomy import Taxonomy

KEPT = ("patient_id", "cell_id", "group", "stands_for", "class", "rank", "percentile")
"""What the key keeps of a cell."""


class Review(NamedTuple):
    """What was written.

    Attributes:
        review: The id.
        page: The blinded HTML file.
        key: What unblinds it.
        n_cells: Different cells.
        n_twice: Those that are shown twice.
        n_patients: Whose cells they are.
        n_unreadable: Chosen cells that were left out, as their images could not be read.
    """

    review: str
    page: Path
    key: Path
    n_cells: int
    n_twice: int
    n_patients: int
    n_unreadable: int


def write_review(
    run: Path,
    *,
    n_cells: int = 200,
    n_twice: int | None = None,
    seed: int = 0,
    readers: Sequence[str] = (),
    taxonomy: str = "blood",
    allow_identifiers: str = "",
) -> Review:
    """Write ``<run>/review/<id>.html`` and its key; every call makes a review of its own.

    Args:
        run: A finished run whose images can be read.
        n_cells: Cells to show, see ``sample.choose``.
        n_twice: How many of them come a second time, for each reader's agreement with themselves; a tenth by default,
            at most a third.
        seed: Determines cells and order; ids and codes follow from nothing.
        readers: Names to choose from; without any, readers type theirs.
        taxonomy: Its name in ``configs/taxonomies``, or a file's path.
        allow_identifiers: Why the page may tell who a patient is, if it does; empty: it may not.
    """
    tree, names = Taxonomy.load(taxonomy), _names(readers)
    targets = read_targets(run)
    results = read_results(run, targets)
    if results.root is None:
        msg = f"The store {results.store.path} knows no images to show; make the run from a store that `extract` made."
        raise ReviewError(msg)
    sides = read_question(run, None).predicted if targets else results.patients["label"].astype(str)
    chosen = choose(results.cells, sides.reindex(results.patients.index, fill_value=""), n_cells, seed)
    uris = _pictures(chosen, results)
    readable = np.array([bool(uri) for uri in uris])
    if not readable.any():
        msg = f"None of the {len(chosen)} chosen images in {results.root} could be read; put the images back there."
        raise ReviewError(msg)
    cells = chosen.assign(stands_for=stands_for(chosen, readable), uri=uris)[readable].reset_index(drop=True)
    n_twice = min(len(cells) // 10 if n_twice is None else n_twice, -(-len(cells) // 3))
    places, showing = arrange(len(cells), n_twice, seed)
    items = cells.loc[places, [*KEPT, "uri"]].reset_index(drop=True)
    items.insert(0, "code", new_codes(len(items)))
    items.insert(3, "showing", showing)
    created = datetime.now(UTC).isoformat(timespec="seconds")
    key = Key(new_review(), created, seed, names, tree, items.drop(columns="uri"))
    page = run / "review" / f"{key.review}.html"
    shown = [Shown(code, uri) for code, uri in zip(items["code"], items["uri"], strict=True)]
    content = review_page(key.review, shown, tree, names)
    without_readers = re.sub("|".join(map(re.escape, [*map(escape, names), "\0"])), "", content)
    found = scan_page(without_readers, source_texts(results.store))
    keep_allowed(run / "provenance.json", judge(found, "review", reason=allow_identifiers))
    kept = key.save(run)  # first: a page without its key could never be unblinded
    write_text(page, content)
    counts: tuple[int, ...] = (len(cells), n_twice, int(cells["patient_id"].nunique()), int((~readable).sum()))
    return Review(key.review, page, kept, *counts)


def _names(readers: Sequence[str]) -> tuple[str, ...]:
    names = [name.strip() for name in readers]
    if not all(names) or len(set(names)) < len(names):
        msg = f"The readers {list(readers)} were given, expected names that differ; give each with its own --readers."
        raise ReviewError(msg)
    return tuple(names)


def _pictures(chosen: pd.DataFrame, results: Results) -> list[str]:
    """The true pixels of each cell, encoded anew; empty where an image cannot be read."""
    pictures: Any = encode(chosen, results.root, reduced=False)
    uris = []
    with progress("review", len(chosen), "images") as advance, closing(pictures):
        for picture in pictures:
            uris.append(picture.uri)
            advance(1)
    return uris
