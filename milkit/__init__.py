"""milkit: from single-cell images of blood, with a label per patient, to ranked cells that a haematologist can review.

The data flow, one noun or verb a module:

    cohort -> encoder -> extract -> bags                       cells to features, once (milkit.extract)
    bags.patients -> folds -> mil.crossval -> predictions      each patient predicted by a model that never saw them
                                           -> attention        how much each cell weighed in that prediction
    predictions -> statistics -> metrics.json                  patients are the unit; every estimate has an interval
    run folder + images -> report                              one HTML file, offline

Encoders and cohorts live in the sibling packages ``encoders`` and ``cohorts`` and are found by name (milkit.registry).
"""

from importlib.metadata import version

__version__ = version("milkit")
