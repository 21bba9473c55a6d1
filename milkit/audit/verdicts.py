"""What may be said of a control: whether it beats chance, whether that matters, and whether the model beats it."""

from collections.abc import Mapping
from typing import Any

from milkit.figure_text import with_interval

RELEVANT = 0.2
"""Of the way from chance to 1, that a control must have come to be called one that tells the outcome.

With two classes a balanced accuracy of 0.6, beside an AUROC or a c-index of 0.6 and a Spearman's ρ of 0.2. With many
patients, an interval excludes chance at 0.53, too; that is true and of no consequence.
"""


def exceeds(figure: Mapping[str, Any], chance: float) -> bool:
    """Whether a figure's whole interval lies above chance."""
    low = figure["ci_low"]
    return low is not None and low > chance + 1e-9  # rounding is no finding


def matters(figure: Mapping[str, Any], chance: float) -> bool:
    """Whether it does, and the figure is also far enough from chance."""
    return exceeds(figure, chance) and figure["estimate"] >= chance + RELEVANT * (1 - chance)


def better(gap: Mapping[str, Any]) -> bool:
    """Whether a model is better than a control beyond what other patients would change, by the difference."""
    return exceeds(gap, 0.0)


def verdict(gap: Mapping[str, Any]) -> str:
    """``better, by +0.10 (+0.02 to +0.18)``: of the model, by how much it lies above a control."""
    high = gap["ci_high"]
    word = "better" if better(gap) else "worse" if high is not None and high < 0 else "not shown to be better"
    return f"{word}, by {with_interval(gap, '+.2f', nothing='an undefined amount')}"
