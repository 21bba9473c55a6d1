"""Readers beside each other, beside themselves, and beside the model.

Labels are nodes of a taxonomy, and readers stop at different depths: one says neutrophil where another tells bands
from segmented ones. So agreement is given twice: of the labels as they are, and of their uppermost ancestors that were
used as a label too (``levelled``), where both are neutrophils. That a cell is unclear is a label like any other here.

What all readers of a cell say is the deepest node that holds all their labels (``consensus``): of myeloblast and
monoblast that the cell is myeloid. It is missing where that is no more than the root, or where a reader found the cell
unclear.
"""

from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from milkit.review.key import UNCLEAR
from milkit.statistics.bca import Estimate, bca_estimate
from milkit.statistics.discrimination import auroc
from milkit.statistics.kappa import agreement
from milkit.taxonomy import Taxonomy

Figure = dict[str, Any]
"""JSON: ``estimate``, ``ci_low``, ``ci_high``, None where undefined, and what they are of."""

CELL = ["patient_id", "cell_id"]


def between_readers(labels: pd.DataFrame, taxonomy: Taxonomy, *, seed: int = 0) -> list[Figure]:
    """The agreement of every two readers on the cells that both labelled, at their first showing.

    Args:
        labels: From ``labels.to_table``.
        taxonomy: Whose nodes are the labels.
        seed: Of the resamples.
    """
    first = labels[labels["showing"] == 1]
    readings = {str(name): part.set_index(CELL)["label"] for name, part in first.groupby("reader", sort=True)}
    return [
        {"readers": [one, other], **_agreement(readings[one], readings[other], taxonomy, seed)}
        for one, other in combinations(readings, 2)
    ]


def within_readers(labels: pd.DataFrame, taxonomy: Taxonomy, *, seed: int = 0) -> list[Figure]:
    """The agreement of each reader with themselves on the cells that they labelled twice; readers without any left out.

    Args and figures as of ``between_readers``.
    """
    found = []
    for name, part in labels.groupby("reader", sort=True):
        once, again = (part[part["showing"] == n].set_index(CELL)["label"] for n in (1, 2))
        if len(once.index.intersection(again.index)):
            found.append({"reader": str(name), **_agreement(once, again, taxonomy, seed)})
    return found


def consensus(labels: pd.DataFrame, taxonomy: Taxonomy) -> pd.DataFrame:
    """One row a cell: patient_id, cell_id, cell_type (what its readers all say; may be missing), readers, the key's.

    Of a cell that a reader saw twice, the first label counts.
    """
    first = labels[labels["showing"] == 1]

    def shared(given: "pd.Series[str]") -> str | None:
        node = None if (given == UNCLEAR).any() else taxonomy.lowest_common_ancestor(*given)
        return None if node == taxonomy.root else node

    by_cell = first.groupby(CELL, sort=False)
    table = by_cell[["group", "stands_for", "class", "rank", "percentile"]].first()
    table.insert(0, "cell_type", by_cell["label"].agg(shared))
    table.insert(1, "readers", by_cell["reader"].nunique())
    return table.reset_index()


def against_model(cells: pd.DataFrame, taxonomy: Taxonomy, *, seed: int = 0) -> list[Figure]:
    """For every cell type that occurs: how well the model's weights rank its cells above a patient's other cells.

    The AUC is the probability that a cell of this type (or below it in the taxonomy) has a higher attention percentile
    within its patient than a cell of another type; cells whose label stops above the type may be of it and are left
    out. ``shown`` is over the cells of the review, in which the ends of the ranking are over-represented; ``all_cells``
    counts each as often as it stands for cells of its patient, which estimates the AUC over whole bags. Intervals are
    BCa, whole patients drawn; None with fewer than two patients. Many types are looked at: read them as a list.

    Args:
        cells: From ``consensus``.
        taxonomy: Whose nodes are the types.
        seed: Of the resamples.
    """
    known = cells[cells["cell_type"].notna()]
    counts = {node: known["cell_type"].isin(_below(taxonomy, node)) for node in taxonomy.nodes if node != taxonomy.root}
    figures = []
    for node, positive in counts.items():
        part = known[positive | ~known["cell_type"].isin(taxonomy.ancestors(node))]
        if node in set(known["cell_type"]) and 0 < positive.sum() < len(part):
            figures.append(_ranked(part, positive[part.index].to_numpy(dtype=bool), node, seed))
    return sorted(figures, key=lambda figure: -figure["n_cells"])


def _ranked(part: pd.DataFrame, positive: "np.ndarray[Any, np.dtype[np.bool_]]", node: str, seed: int) -> Figure:
    scores = part["percentile"].to_numpy(dtype=np.float64)
    patients, names = pd.factorize(part["patient_id"])
    each = part["stands_for"].to_numpy(dtype=np.float64)

    def over(counted: "np.ndarray[Any, np.dtype[np.float64]]") -> Figure:
        def metric(weights: "np.ndarray[Any, np.dtype[np.float64]]") -> "np.ndarray[Any, np.dtype[np.float64]]":
            return auroc(positive, scores, weights[:, patients] * counted)

        if len(names) < 2:
            alone = float(metric(np.ones((1, len(names))))[0])
            return _figure(Estimate(alone, float("nan"), float("nan")))
        return _figure(bca_estimate(metric, np.zeros(len(names), dtype=np.int64), seed=seed))

    return {
        "cell_type": node,
        "n_cells": int(positive.sum()),
        "n_others": int((~positive).sum()),
        "n_patients": int(part["patient_id"][positive].nunique()),
        "shown": over(np.ones(len(part))),
        "all_cells": over(each),
    }


def _agreement(first: "pd.Series[str]", second: "pd.Series[str]", taxonomy: Taxonomy, seed: int) -> Figure:
    pairs = pd.concat({"first": first, "second": second}, axis=1, join="inner")
    used = set(pairs["first"]) | set(pairs["second"])
    levels = {label: next((node for node in _line(taxonomy, label) if node in used), label) for label in used}
    patients = pd.factorize(pairs.index.get_level_values("patient_id"))[0].astype(np.int64)
    figures: Figure = {"n_cells": len(pairs), "n_patients": len(set(patients))}
    for name, table in (("as_given", pairs), ("levelled", pairs.replace(levels))):
        both = pd.factorize(pd.concat([table["first"], table["second"]]))[0].astype(np.int64)
        if not len(pairs):
            figures[name] = {"n_equal": 0, **_figure(Estimate(*[float("nan")] * 3))}
            continue
        found = agreement(both[: len(pairs)], both[len(pairs) :], patients, seed=seed)
        figures[name] = {"n_equal": found.n_equal, **_figure(found.kappa)}
    return figures


def _line(taxonomy: Taxonomy, label: str) -> tuple[str, ...]:
    """A label's ancestors from the root down, and itself."""
    return (label,) if label == UNCLEAR else (*taxonomy.ancestors(label), label)


def _below(taxonomy: Taxonomy, node: str) -> set[str]:
    return {name for name in taxonomy.nodes if node in _line(taxonomy, name)}


def _figure(estimate: Estimate) -> Figure:
    return {name: None if np.isnan(value) else value for name, value in estimate._asdict().items()}
