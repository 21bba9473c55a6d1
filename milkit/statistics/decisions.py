"""What decisions a run supports, once somebody declares what the cohort cannot tell: prevalence and thresholds.

Which thresholds a clinician would act at, and how frequent a class is where the model would be used, are not in the
data of a cohort of cases and controls. So there are decision curves only over a declared range, and predictive values
only at a declared prevalence, each for the class that it was declared for.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from milkit.errors import SettingsError
from milkit.statistics.decision_curve import decision_curve, interventions_avoided
from milkit.statistics.operating_point import predictive_values
from milkit.statistics.out_of_fold import OutOfFold

Floats = npt.NDArray[np.float64]

_THRESHOLDS = 40
"""Points of a curve."""


class Declared(NamedTuple):
    """What is declared before results are seen.

    Attributes:
        prevalence: Share of patients with the class where the model would be used, by class.
        thresholds: Lowest and highest probability from which somebody would act, by class.
        specificity: At which sensitivities are given.
        class_weights: Whether the models were trained with classes weighted to equal shares.
    """

    prevalence: Mapping[str, float] = {}
    thresholds: Mapping[str, tuple[float, float]] = {}
    specificity: float = 0.9
    class_weights: bool = False

    def check(self, classes: Sequence[str]) -> None:
        """Refuse what cannot be used, before anything is computed.

        Args:
            classes: Of the run, those of all its targets.

        Raises:
            SettingsError: Something was declared for a class that is not there, or for one of several targets' that
                cannot be told apart, or a range is empty.
        """
        for setting, names in (("prevalence", self.prevalence), ("thresholds", self.thresholds)):
            for name in names:
                there = classes.count(name)
                if there == 1:
                    continue
                ending = f"the classes are {', '.join(classes)}; name one of these."
                if not classes:
                    ending = f"the run predicts no classes; leave {setting} out."
                elif there:
                    ending = f"{there} targets have a class of that name; train on one of them at a time."
                msg = f"{setting} was declared for the class '{name}', and {ending}"
                raise SettingsError(msg)
        for name, (low, high) in self.thresholds.items():
            if low >= high:
                msg = f"thresholds of '{name}' were given as {low:g} to {high:g}; give the lower one first."
                raise SettingsError(msg)

    def of(self, classes: Sequence[str]) -> "Declared":
        """What of it is about these classes."""
        prevalence = {name: share for name, share in self.prevalence.items() if name in classes}
        thresholds = {name: limits for name, limits in self.thresholds.items() if name in classes}
        return self._replace(prevalence=prevalence, thresholds=thresholds)


NOTHING_DECLARED = Declared()
"""No curves, no predictive values; sensitivity at a specificity of 0.9."""


def for_other_shares(probabilities: Floats, before: Floats, after: Floats) -> Floats:
    """Probabilities (…, C) that were learned where classes had the shares ``before``, for where they have ``after``.

    p'_c = p_c after_c / before_c, scaled to sum to 1, by Bayes' rule (Saerens, Latinne and Decaestecker 2002, Neural
    Computation 14:21). A model trained with weighted classes has learned of equal shares.
    """
    moved = probabilities * (after / before)
    result: Floats = moved / moved.sum(axis=-1, keepdims=True)
    return result


def decision_curves(
    pooled: OutOfFold, declared: Declared, n_bootstrap: int, level: float, seed: int
) -> dict[str, dict[str, Any]]:
    """Net benefit over the declared range of each class that has one, means over the repeats.

    Probabilities of models that were trained with weighted classes are first brought to the cohort's shares. The
    prevalence is the declared one, or the cohort's, which is a clinic's only where patients came one after the other.
    """
    probabilities, n_classes = pooled.probabilities, len(pooled.classes)
    if declared.class_weights:
        shares = pooled.counts / pooled.counts.sum()
        probabilities = for_other_shares(probabilities, np.full(n_classes, 1 / n_classes), shares)
    curves = {}
    for name, (low, high) in declared.thresholds.items():
        c = pooled.classes.index(name)
        curve = decision_curve(
            pooled.labels == c,
            probabilities[:, :, c],
            np.linspace(low, high, _THRESHOLDS),
            prevalence=declared.prevalence.get(name),
            n_resamples=n_bootstrap,
            level=level,
            seed=seed,
        )
        avoided = interventions_avoided(curve.model, curve.everybody, curve.thresholds)
        curves[name] = {
            **{field: np.asarray(values).tolist() for field, values in curve._asdict().items()},
            "prevalence_declared": name in declared.prevalence,
            "avoided_per_100": avoided.tolist(),
        }
    return curves


def predictive(pooled: OutOfFold, declared: Declared, level: float) -> dict[str, dict[str, Any]]:
    """What the prediction of a class, or of another one, is worth at each declared prevalence.

    The decision is whether the class has the highest probability, as in ``predicted``; with several repeats, the share
    of them that decide so.
    """
    found = {}
    for name, prevalence in declared.prevalence.items():
        c = pooled.classes.index(name)
        values = predictive_values(pooled.labels == c, (pooled.predicted == c).mean(axis=0), prevalence, level)
        found[name] = {
            "prevalence": prevalence,
            "positive": values.positive._asdict(),
            "negative": values.negative._asdict(),
        }
    return found
