"""All measures of the batch report for one state of the features."""

from typing import Any

import numpy as np
import numpy.typing as npt

from milkit.atlas.sample import Sampled
from milkit.probe_settings import AtlasSettings
from milkit.progress import Advance
from milkit.statistics import batch_effects
from milkit.statistics.cell_intervals import Outcomes, Scores
from milkit.statistics.linear_probe import linear_probe
from milkit.statistics.neighbours import nearest, nearest_of_others, vote

Floats = npt.NDArray[np.floating[Any]]


def measure(sampled: Sampled, features: Floats, settings: AtlasSettings) -> dict[str, Any]:
    """Silhouette, mixing of neighbours and variance explained, of ``features`` (n, dim) of the sampled cells.

    What concerns classes is measured on the cells that have one. A cell's neighbours are never of its own patient,
    field or image. How the classes are mixed within sources is accounted for where sources share classes and every
    cell has one.
    """
    sources, groups = sampled.sources, sampled.groups.of_cell
    k = min(settings.neighbours, len(sources) - int(np.bincount(groups).max()))
    neighbours = nearest_of_others(features, groups, k)
    measures = {
        "silhouette_source": batch_effects.silhouette(features, sources),
        "variance_source": batch_effects.variance_explained(features, sources),
        "same_source_share": batch_effects.same_source_share(sources, neighbours),
        "same_source_chance": batch_effects.chance_of_same_source(sources, neighbours, groups=groups),
        "effective_sources": batch_effects.effective_sources(sources, neighbours),
    }
    typed = sampled.classes >= 0
    if 1 < len(np.unique(sampled.classes[typed])) < typed.sum():
        own, classes = features[typed], sampled.classes[typed]
        measures["silhouette_class"] = batch_effects.silhouette(own, classes)
        measures["variance_class"] = batch_effects.variance_explained(own, classes)
        if sampled.shared_classes:
            measures["variance_source_beyond_class"] = batch_effects.variance_beyond(own, sources[typed], classes)
        if sampled.shared_classes and typed.all():
            chance = batch_effects.chance_of_same_source(sources, neighbours, classes, groups)
            measures["same_source_chance_within_classes"] = chance
    return measures


def source_probe(sampled: Sampled, settings: AtlasSettings, advance: Advance, *, standardised: bool) -> dict[str, Any]:
    """Balanced accuracy with which the source of held-out cells is predicted, linearly and by their neighbours.

    Features are brought to mean 0 and spread 1 over the training cells, so that the largest do not decide alone; with
    ``standardised``, within each source first. The means and spreads are those of training cells alone: tested cells
    that help to centre their source would lie opposite to its training cells, and a linear classifier would be worse
    than chance. Since sources with the same means leave nothing to a linear classifier, it is the neighbours that show
    what standardisation leaves.
    """
    sources, everywhere = sampled.sources, np.zeros_like(sampled.sources)
    fold = sampled.fold
    guesses = np.empty((2, len(sources)), dtype=np.int64)
    for number in range(settings.folds):
        train, features = fold != number, sampled.features
        if standardised:
            features = batch_effects.standardise(features, sources, train)
        features = batch_effects.standardise(features, everywhere, train)
        near = sources[train][nearest(features[train], features[~train], min(settings.neighbours, int(train.sum())))]
        guesses[0, ~train] = linear_probe(features[train], sources[train], features[~train]).predicted
        guesses[1, ~train] = vote(near, len(sampled.source_names))
        advance()
    outcomes = Outcomes.of(sources, guesses, len(sampled.source_names), sampled.groups.to_draw)
    scores = Scores(outcomes, n_bootstrap=settings.bootstrap, level=settings.level, seed=settings.seed)
    return {name: scores.figure(row, "balanced_accuracy") for row, name in enumerate(("linear", "neighbours"))}
