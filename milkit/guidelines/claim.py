"""The items of CLAIM as updated in 2024, by their numbers, with topics in our own words, and what a run answers.

Tejani, Klontzas, Gatti et al., Checklist for Artificial Intelligence in Medical Imaging (CLAIM): 2024 update.
Radiology: Artificial Intelligence 2024; 6 (4): e240300: 44 items. The numbering was compared with two public
transcriptions of the checklist, which agree, not with the publisher's own form, so the page calls itself "after CLAIM";
a journal wants its own form filled in. The update says reference standard for ground truth, and testing where others
say validation.
"""

from milkit.guidelines import facts_data as data
from milkit.guidelines import facts_model as model
from milkit.guidelines import facts_results as results
from milkit.guidelines.items import Item

TITLE = "Draft after CLAIM 2024"
CITATION = (
    "Tejani AS, Klontzas ME, Gatti AA, et al. Checklist for Artificial Intelligence in Medical Imaging (CLAIM): 2024 "
    "Update. Radiology: Artificial Intelligence 2024; 6 (4): e240300."
)
_DATA, _REFERENCE, _PARTS = "Methods: data", "Methods: reference standard", "Methods: data partitions"
_MODEL, _TRAINING, _EVALUATION = "Methods: model", "Methods: training", "Methods: evaluation"

ITEMS = (
    Item("1", "Title and abstract", "The title names artificial intelligence and its kind", asks=("title",)),
    Item("2", "Title and abstract", "Structured abstract", asks=("abstract",)),
    Item("3", "Introduction", "Background and role of the model", asks=("background", "intended_use")),
    Item("4", "Introduction", "Aims and hypotheses", asks=("objectives",)),
    Item("5", "Methods: design", "Prospective or retrospective", asks=("design",)),
    Item("6", "Methods: design", "Goal of the study", asks=("objectives",)),
    Item("7", _DATA, "Sources of the data", (data.cohort, data.notes), ("data_source",)),
    Item("8", _DATA, "Who was included and excluded", (data.eligibility,), ("eligibility",)),
    Item("9", _DATA, "Preprocessing", (data.images, model.precision), ("quality_checks",)),
    Item("10", _DATA, "Selection of parts of the data", (data.unreadable,), ("cell_selection",)),
    Item("11", _DATA, "De-identification", asks=("deidentification",)),
    Item("12", _DATA, "Missing data", (data.missing_covariates, data.unreadable), ("missing_data",)),
    Item("13", _DATA, "How images were acquired", asks=("acquisition",)),
    Item("14", _REFERENCE, "Definition of the reference standard", asks=("outcome",)),
    Item("15", _REFERENCE, "Why this reference standard", asks=("reference_rationale",)),
    Item("16", _REFERENCE, "Who made it", asks=("outcome_assessors",)),
    Item("17", _REFERENCE, "How tested cases were annotated", asks=("outcome_blinding",)),
    Item("18", _REFERENCE, "Variability between and within raters", asks=("outcome_variability",)),
    Item(
        "19", _PARTS, "How data were assigned to partitions", (model.partitions, model.imbalance), otherwise="protocol"
    ),
    Item("20", _PARTS, "Level at which partitions are disjoint", (model.partitions,), otherwise="protocol"),
    Item("21", "Methods: testing data", "Intended number of tested patients", (data.flow,), ("sample_size",)),
    Item("22", _MODEL, "The model in detail", (model.encoder, model.head, model.output), ("model_rationale",)),
    Item("23", _MODEL, "Software and versions", (model.software,), otherwise="code_sharing"),
    Item("24", _MODEL, "Initial parameters", (model.seeds, data.overlap), otherwise="model_rationale"),
    Item("25", _TRAINING, "How it was trained", (model.training, model.imbalance), otherwise="model_rationale"),
    Item("26", _TRAINING, "How the final model was selected", (model.selection,), ("model_rationale",)),
    Item("27", _TRAINING, "Ensembles", (model.ensemble,), otherwise="model_rationale"),
    Item("28", _EVALUATION, "Measures of performance", (results.measures,), ("measures_rationale",)),
    Item(
        "29",
        _EVALUATION,
        "Uncertainty and significance",
        (results.intervals, results.variance),
        otherwise="measures_rationale",
    ),
    Item("30", _EVALUATION, "Robustness", (results.between_folds, results.controls), ("robustness",)),
    Item(
        "31", _EVALUATION, "Explainability, and how it was checked", (results.faithfulness,), otherwise="explainability"
    ),
    Item("32", _EVALUATION, "Internal testing", (model.partitions, results.performance), otherwise="protocol"),
    Item("33", _EVALUATION, "External testing", asks=("external_testing",)),
    Item("34", _EVALUATION, "Registration as a trial", asks=("registration",)),
    Item(
        "35", "Results: data", "Numbers included and excluded", (data.eligibility, data.flow), otherwise="flow_before"
    ),
    Item(
        "36",
        "Results: data",
        "Characteristics of the patients",
        (data.characteristics, data.lacking_characteristics),
        otherwise="characteristics",
    ),
    Item("37", "Results: performance", "Performance and its uncertainty", (results.performance,), ("subgroups",)),
    Item(
        "38",
        "Results: performance",
        "Estimates for each class and their precision",
        (results.per_class, results.calibration),
        otherwise="subgroups",
    ),
    Item("39", "Results: performance", "Analysis of failures", (results.confusions,), ("failures",)),
    Item("40", "Discussion", "Limitations", (data.overlap,), ("limitations",)),
    Item("41", "Discussion", "Meaning for practice", asks=("interpretation", "intended_use")),
    Item("42", "Other information", "Protocol and technical details", (model.digests,), ("protocol",)),
    Item(
        "43",
        "Other information",
        "Availability of software, model and data",
        (model.heads_files,),
        ("model_availability", "code_sharing", "data_sharing"),
    ),
    Item("44", "Other information", "Funding", asks=("funding",)),
)
"""All items, in order."""
