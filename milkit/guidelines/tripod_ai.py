"""The items of TRIPOD+AI, by their numbers, with topics in our own words, and what a run answers.

Collins, Moons, Dhiman et al., TRIPOD+AI statement: updated guidance for reporting clinical prediction models that use
regression or machine learning methods. BMJ 2024; 385: e078378 (CC BY 4.0): 27 items, 52 with their parts. The
numbering was compared with a public transcription of the checklist that had been checked against the statement, not
with the publisher's own file, so the page calls itself "after TRIPOD+AI"; a journal wants its own form filled in.
"""

from milkit.guidelines import facts_data as data
from milkit.guidelines import facts_model as model
from milkit.guidelines import facts_results as results
from milkit.guidelines.items import Item

TITLE = "Draft after TRIPOD+AI"
CITATION = (
    "Collins GS, Moons KGM, Dhiman P, et al. TRIPOD+AI statement: updated guidance for reporting clinical prediction "
    "models that use regression or machine learning methods. BMJ 2024; 385: e078378."
)
_METHODS, _OPEN, _RESULTS, _DISCUSSION = "Methods", "Open science", "Results", "Discussion"

ITEMS = (
    Item("1", "Title", "What the title says of model, patients and outcome", asks=("title",)),
    Item("2", "Abstract", "Structured abstract", asks=("abstract",)),
    Item("3a", "Introduction", "Clinical context and earlier models", asks=("background",)),
    Item("3b", "Introduction", "For whom, by whom and when it would be used", asks=("intended_use",)),
    Item("3c", "Introduction", "Known inequalities between groups", asks=("inequalities",)),
    Item("4", "Introduction", "Aims: development, evaluation or both", asks=("objectives",)),
    Item("5a", _METHODS, "Sources of the data, and whom they represent", (data.cohort, data.notes), ("data_source",)),
    Item("5b", _METHODS, "Dates of entry and follow-up", asks=("dates",)),
    Item("6a", _METHODS, "Setting and centres", asks=("setting",)),
    Item("6b", _METHODS, "Who was eligible", (data.eligibility,), ("eligibility",)),
    Item("6c", _METHODS, "Treatments", asks=("treatments",)),
    Item("7", _METHODS, "Preparation and quality of the data", (data.images, data.unreadable), ("quality_checks",)),
    Item("8a", _METHODS, "What is predicted, how and when it was found", (data.outcomes,), ("outcome",)),
    Item("8b", _METHODS, "Who judged the outcome", asks=("outcome_assessors",)),
    Item("8c", _METHODS, "Blinding of those who judged it", asks=("outcome_blinding",)),
    Item("9a", _METHODS, "How inputs were chosen", (data.covariates,), ("predictor_choice",)),
    Item(
        "9b",
        _METHODS,
        "What the inputs are and how they were measured",
        (model.encoder, model.precision),
        ("acquisition", "predictor_blinding"),
    ),
    Item("9c", _METHODS, "Inputs that rest on somebody's judgement", asks=("cell_selection",)),
    Item("10", _METHODS, "Number of patients and its reason", (data.outcomes,), ("sample_size",)),
    Item("11", _METHODS, "Missing data", (data.missing_covariates, data.unreadable), ("missing_data",)),
    Item("12a", _METHODS, "How the data were used and parted", (model.partitions,), otherwise="protocol"),
    Item(
        "12b",
        _METHODS,
        "How inputs entered the model",
        (data.images, data.missing_covariates),
        otherwise="model_rationale",
    ),
    Item(
        "12c",
        _METHODS,
        "Kind of model, how it was built and validated internally",
        (model.encoder, model.head, model.training, model.selection, model.seeds),
        ("model_rationale",),
    ),
    Item(
        "12d", _METHODS, "Differences between clusters such as hospitals", (results.between_sites,), ("heterogeneity",)
    ),
    Item("12e", _METHODS, "Measures of performance", (results.measures, results.intervals), ("measures_rationale",)),
    Item("12f", _METHODS, "Updating of the model after evaluation", (results.recalibration,), ("updating",)),
    Item(
        "12g",
        _METHODS,
        "How predictions were calculated",
        (model.ensemble, model.heads_files),
        otherwise="model_availability",
    ),
    Item("13", _METHODS, "Class imbalance", (model.imbalance,), otherwise="model_rationale"),
    Item("14", _METHODS, "Fairness", asks=("fairness",)),
    Item("15", _METHODS, "Output of the model and thresholds", (model.output, results.decisions), ("thresholds",)),
    Item("16", _METHODS, "Differences between development and evaluation data", (model.partitions,), ("differences",)),
    Item("17", _METHODS, "Ethics approval and consent", asks=("ethics",)),
    Item("18a", _OPEN, "Funding", asks=("funding",)),
    Item("18b", _OPEN, "Conflicts of interest", asks=("conflicts",)),
    Item("18c", _OPEN, "Protocol", asks=("protocol",)),
    Item("18d", _OPEN, "Registration", asks=("registration",)),
    Item("18e", _OPEN, "Data", asks=("data_sharing",)),
    Item("18f", _OPEN, "Code", (model.software,), ("code_sharing",)),
    Item("19", "Patient and public involvement", "Who took part, beside researchers", asks=("involvement",)),
    Item("20a", _RESULTS, "Flow of patients", (data.eligibility, data.flow, data.outcomes), otherwise="flow_before"),
    Item(
        "20b",
        _RESULTS,
        "Characteristics of the patients",
        (data.characteristics, data.lacking_characteristics),
        otherwise="characteristics",
    ),
    Item("20c", _RESULTS, "Development and evaluation data compared", (model.partitions,), ("differences",)),
    Item("21", _RESULTS, "Patients and events in each analysis", (data.flow, data.outcomes), otherwise="sample_size"),
    Item(
        "22",
        _RESULTS,
        "The full model, for others to use",
        (model.heads_files, model.digests),
        ("model_availability",),
    ),
    Item(
        "23a",
        _RESULTS,
        "Performance with intervals, also in subgroups",
        (results.performance, results.per_class, results.calibration, results.controls),
        ("subgroups",),
    ),
    Item("23b", _RESULTS, "Performance between clusters", (results.between_sites,), otherwise="heterogeneity"),
    Item("24", _RESULTS, "Results of updating", (results.recalibration,), otherwise="updating"),
    Item("25", _DISCUSSION, "Interpretation", asks=("interpretation",)),
    Item("26", _DISCUSSION, "Limitations", (data.overlap,), ("limitations",)),
    Item("27a", _DISCUSSION, "Poor or missing inputs in use", asks=("input_quality",)),
    Item("27b", _DISCUSSION, "What users do and must know", asks=("expertise",)),
    Item("27c", _DISCUSSION, "Next steps", asks=("next_steps",)),
)
"""All items, in order."""
