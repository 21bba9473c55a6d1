"""Which types are more, or less, frequent at the top of a ranking than in the bags: by class, with false discoveries.

The patients of a class are those whom the models predicted it of, since the rankings are of the predicted class. What
the test assumes stands in ``statistics.enrichment``; the false discovery rate is held over all types and classes of a
ranking.
"""

from typing import Any

import numpy as np
import pandas as pd

from milkit.composition.differential import BAG, Counts
from milkit.composition.settings import DifferentialSettings
from milkit.statistics.enrichment import Strata
from milkit.statistics.false_discovery import adjusted
from milkit.statistics.out_of_fold import Resamples

COLUMNS = (
    *("ranking", "class", "cell_type", "n_patients", "n_informative", "in_top", "expected"),
    *("enrichment", "enrichment_low", "enrichment_high", "odds_ratio", "odds_ratio_low", "odds_ratio_high"),
    *("more", "fewer", "p_within_patients", "p_over_patients", "p_value", "p_adjusted"),
)
"""Of ``enrichment.csv``; ``more`` and ``fewer`` count patients whose top has more, or fewer, than expected. A figure
that no patient changes, such as the 0 of a type that is in no top, has no interval."""


def enrichment_rows(counts: Counts, classes: tuple[str, ...], settings: DifferentialSettings) -> list[dict[str, Any]]:
    """Of every ranking and class, each type that occurs in the bags of patients who have a top."""
    rows: list[dict[str, Any]] = []
    for ranking in counts.rankings:
        own = [row for name in classes for row in _of_class(counts, ranking, name, settings)]
        for row, q in zip(own, adjusted(np.array([row["p_value"] for row in own])), strict=True):
            rows.append({"ranking": ranking, **row, "p_adjusted": float(q)})
    return rows


def enrichment_table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """The rows as ``enrichment.csv`` has them; what is not defined stays empty."""
    return pd.DataFrame(rows, columns=list(COLUMNS)).replace([np.inf, -np.inf], np.nan)


def _of_class(counts: Counts, ranking: str, name: str, settings: DifferentialSettings) -> list[dict[str, Any]]:
    own = (counts.classes == name) & counts.has_top(ranking)
    bag, top = counts.parts[BAG][own], counts.parts[ranking][own]
    there = np.flatnonzero(bag.any(axis=0))
    if not len(there):
        return []
    strata = Strata(bag.sum(axis=1), top.sum(axis=1), bag[:, there], top[:, there])
    nobody = np.zeros(len(bag), dtype=np.int64)
    resamples = Resamples.of(nobody, settings.bootstrap, settings.level, settings.seed)
    ratios, odds = resamples.estimates(strata.enrichment), resamples.estimates(strata.odds_ratio)
    within, over = strata.within_patients(), strata.over_patients(settings.seed)
    excess = strata.both - strata.expected
    rows = []
    for number, column in enumerate(there):
        rows.append(
            {
                "class": name,
                "cell_type": counts.types[column],
                "n_patients": len(bag),
                "n_informative": int(strata.informative[:, number].sum()),
                "in_top": int(strata.both[:, number].sum()),
                "expected": float(strata.expected[:, number].sum()),
                **_figure("enrichment", ratios[number]),
                **_figure("odds_ratio", odds[number]),
                "more": int((excess[:, number] > 1e-9).sum()),
                "fewer": int((excess[:, number] < -1e-9).sum()),
                "p_within_patients": float(within[number]),
                "p_over_patients": float(over[number]),
                "p_value": float(np.maximum(within[number], over[number])),
            }
        )
    return rows


def _figure(name: str, values: tuple[float, float, float]) -> dict[str, float]:
    return dict(zip((name, f"{name}_low", f"{name}_high"), map(float, values), strict=True))
