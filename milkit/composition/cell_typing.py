"""Type cells by a linear probe of labelled ones, and leave unknown those that it cannot type.

A cell is unknown for one of two reasons. It is *unsure* where the probability of its likeliest type is below the one
from which labelled cells, each typed by cells of other patients, were typed as accurately as was asked. It is *unlike*
where it lies farther from the nearest labelled cell of that type than all but few of these do from each other, again
across patients. Probabilities are made fit by one temperature, of 1 or more, since probes of few cells are too sure.

What is assumed: that the run's cells look like the labelled ones of their type (stain, scanner, crop), and that types
are about as frequent; otherwise probabilities do not hold. What is measured: the accuracy on labelled cells that chose
no threshold, the share of the run's cells that are unlike, where as many as among the labelled ones should be, and how
many cells of a type stay unknown that the probe was not taught. Letters: n labelled cells, Q others, C types, d
features.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from milkit.composition.reference import Reference
from milkit.composition.settings import DifferentialSettings
from milkit.progress import Advance
from milkit.statistics.linear_probe import LinearProbe, fit_linear_probe
from milkit.statistics.neighbours import nearest
from milkit.statistics.selective import Threshold, conformal_p, probability_threshold
from milkit.statistics.temperature import fit_temperature, scaled

Floats = npt.NDArray[np.float64]
Features = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

EVEN = 0.5
"""A type that is less likely than not is given to no cell, however accurate the labelled ones are."""
_NEVER_SEEN = 16.0
"""How far the logit of a type that a training lacks lies below the lowest of the others: a probability of 1e-7."""


class Typed(NamedTuple):
    """What is said of cells: the likeliest type (Q,), its probability, and whether that is too little to go by.

    ``usual`` is the conformal p of a cell's distance to the labelled ones of its type, small for one unlike them.
    """

    likeliest: Ints
    probability: Floats
    usual: Floats
    unsure: Bools
    unlike: Bools

    @property
    def known(self) -> Bools:
        """(Q,) which cells are given their likeliest type."""
        return np.asarray(~(self.unsure | self.unlike))


@dataclass(frozen=True, slots=True)
class Rules:
    """From what a probe says to a type or none.

    Attributes:
        temperature: Divides the logits.
        threshold: Below it a cell is unsure.
        distances: For each type, those of its labelled cells to the nearest one of another group.
        unlike: At which conformal p, and below, a cell is unlike.
    """

    temperature: float
    threshold: Threshold
    distances: tuple[Floats, ...]
    unlike: float

    @classmethod
    def of(cls, logits: Floats, labels: Ints, own: Floats, settings: DifferentialSettings) -> "Rules":
        """From labelled cells: (n, C), (n,), and (n,) distances to other groups' cells of the same type."""
        temperature = max(1.0, fit_temperature(labels, logits))
        probability = scaled(logits, temperature).max(axis=1)
        found = probability_threshold(probability, logits.argmax(axis=1) == labels, settings.accuracy)
        threshold = Threshold(max(found.value, EVEN), found.attained)
        distances = tuple(own[labels == number] for number in range(logits.shape[1]))
        return cls(temperature, threshold, distances, settings.unlike)

    def apply(self, logits: Floats, distances: Floats) -> Typed:
        """To cells of these logits (Q, C) and distances to the labelled cells of their likeliest type (Q,)."""
        shares, likeliest = scaled(logits, self.temperature), logits.argmax(axis=1)
        probability, usual = shares.max(axis=1), np.ones(len(logits))
        for number, known in enumerate(self.distances):
            usual[likeliest == number] = conformal_p(distances[likeliest == number], known)
        return Typed(likeliest, probability, usual, probability < self.threshold.value, usual <= self.unlike)


class CrossTyped(NamedTuple):
    """The labelled cells as typed by others.

    Attributes:
        typed: Each cell by probes, and by rules, of other folds.
        rules: Of all folds together, for cells without a label.
        not_converged: Trainings that reached the limit of iterations.
    """

    typed: Typed
    rules: Rules
    not_converged: int


def type_labelled(reference: Reference, settings: DifferentialSettings, advance: Advance) -> CrossTyped:
    """Type every labelled cell by cells of other groups, and learn from that how to leave cells unknown."""
    n, labels = len(reference.labels), reference.labels
    logits, own, found = np.empty((n, len(reference.types))), np.empty(n), np.empty(n)
    not_converged = 0
    for number in np.unique(reference.fold):
        tested = reference.fold == number
        probe = fit_linear_probe(reference.features[~tested], labels[~tested], settings.iterations)
        not_converged += not probe.converged
        logits[tested] = _logits(probe, reference.features[tested], len(reference.types))
        own[tested] = _distances(reference, ~tested, reference.features[tested], labels[tested])
        found[tested] = _distances(reference, ~tested, reference.features[tested], logits[tested].argmax(axis=1))
        advance()
    parts = []
    for number in np.unique(reference.fold):
        tested = reference.fold == number
        rules = Rules.of(logits[~tested], labels[~tested], own[~tested], settings)
        parts.append((np.flatnonzero(tested), rules.apply(logits[tested], found[tested])))
    order = np.argsort(np.concatenate([rows for rows, _ in parts]))
    joined = Typed(*(np.concatenate(column)[order] for column in zip(*(typed for _, typed in parts), strict=True)))
    return CrossTyped(joined, Rules.of(logits, labels, own, settings), not_converged)


def type_cells(
    reference: Reference, features: Features, rules: Rules, settings: DifferentialSettings, advance: Advance
) -> tuple[Typed, bool]:
    """Type cells (Q, d) by all labelled ones, and say whether the probe's training converged."""
    probe = fit_linear_probe(reference.features, reference.labels, settings.iterations)
    advance()
    logits = _logits(probe, features, len(reference.types))
    everyone = np.ones(len(reference.labels), dtype=bool)
    distances = _distances(reference, everyone, features, logits.argmax(axis=1))
    return rules.apply(logits, distances), probe.converged


def untaught(
    reference: Reference, rules: Rules, settings: DifferentialSettings, advance: Advance
) -> dict[str, dict[str, float]]:
    """For each type, how many of its cells stay unknown (``n``, ``unknown``) when the probe is not taught the type.

    The probe learns from at most ``left_out_cells`` of each other type; tested is the fold with most cells of the type.
    Empty with fewer than three types, or where the settings ask for none.
    """
    n_types, result = len(reference.types), dict[str, dict[str, float]]()
    if n_types < 3 or not settings.left_out_cells:
        return result
    shuffled = np.random.default_rng(settings.seed).permutation(len(reference.labels))
    for number, name in enumerate(reference.types):
        of_type = reference.labels == number
        tested = of_type & (reference.fold == np.bincount(reference.fold[of_type]).argmax())
        elsewhere = reference.fold != reference.fold[tested][0]
        taught = [shuffled[(elsewhere & (reference.labels == c))[shuffled]] for c in range(n_types) if c != number]
        rows = np.concatenate([some[: settings.left_out_cells] for some in taught])
        if len(np.unique(reference.labels[rows])) > 1:
            probe = fit_linear_probe(reference.features[rows], reference.labels[rows], settings.iterations)
            features = reference.features[tested]
            logits = _logits(probe, features, n_types)
            found = _distances(reference, elsewhere & ~of_type, features, logits.argmax(axis=1))
            typed = rules.apply(logits, found)
            result[name] = {"n": int(tested.sum()), "unknown": float((~typed.known).mean())}
        advance()
    return result


def _logits(probe: LinearProbe, features: Features, n_types: int) -> Floats:
    """Of all types, where a training may have lacked some: (Q, d) -> (Q, C)."""
    known = probe.logits(features)
    logits = np.repeat(known.min(axis=1, keepdims=True) - _NEVER_SEEN, n_types, axis=1)
    logits[:, probe.classes] = known
    return logits


def _distances(reference: Reference, among: Bools, features: Features, types: Ints) -> Floats:
    """Of each cell to the nearest labelled one of its type, among some: (Q, d), (Q,) -> (Q,); infinite without any."""
    result = np.full(len(features), np.inf)
    for number in np.unique(types):
        own, labelled = types == number, reference.features[among & (reference.labels == number)]
        if len(labelled):
            found = nearest(labelled, features[own], 1)[:, 0]
            result[own] = np.linalg.norm(features[own].astype(np.float64) - labelled[found], axis=1)
    return result
