"""What a run tells of its patients, cells and images: sentences for the drafts, each empty where the run lacks it."""

from milkit import settings
from milkit.bags import seen_in_pretraining
from milkit.guidelines.flow_figure import FLOW_NOTE
from milkit.guidelines.sentences import Link, Sentence, listed, told
from milkit.guidelines.study import SOURCE, STORE, Study
from milkit.guidelines.table_one import NAMES
from milkit.patient_flow import flow_table, without_flow

TABLE = Link("Table 1", "table1.html#table1")
FLOW = Link("flow of patients", "table1.html#flow")


def cohort(study: Study) -> list[Sentence]:
    """Its name, size, and where its recipe says that the images are published."""
    patients = study.count("patients.csv of the store", "rows", len(study.store.patients))
    cells = study.count("cells.csv of the store", "rows", len(study.store.cells))
    template = "The data are the cohort {name}: {patients} patients with {cells} images of single cells."
    return told(template, name=study.value(STORE, "cohort"), patients=patients, cells=cells) + _published(study)


def notes(study: Study) -> list[Sentence]:
    """What the cohort's reader notes of it, other than the flow of patients."""
    found = without_flow(map(str, study.value(SOURCE, "notes") or ()))
    return [sentence for note in found for sentence in told("Note on the cohort: {note}", note=note)]


def eligibility(study: Study) -> list[Sentence]:
    """The exclusions that the cohort's recipe declares."""
    steps = flow_table(map(str, study.value(SOURCE, "notes") or ()))
    excluded = steps[steps["step"] == "excluded"].to_dict("records")
    what = [
        (f"{row['reason']} (", study.count(SOURCE, f"{FLOW_NOTE} excluded: {row['reason']}", int(row["patients"])), ")")
        for row in excluded
    ]
    return told("The recipe of the cohort leaves out patients for these reasons: {what}.", what=listed(what))


def flow(study: Study) -> list[Sentence]:
    """How many were tested, with the figure."""
    tested = study.count("folds.csv", "different patient_id with role test", len(study.tested))
    return told("{tested} patients were tested; see the {flow}.", tested=tested, flow=FLOW)


def outcomes(study: Study) -> list[Sentence]:
    """How many patients had which class or event, of each target."""
    sentences = []
    for name, path in study.parts:
        of = f"Target {name}: " if name else ""
        per_class = study.value("metrics.json", *path, "per_class") or {}
        counts = [
            (f"{label} ", number)
            for label in per_class
            if (number := study.quote("metrics.json", *path, "per_class", label, "n")) is not None
        ]
        sentences += told("{of}Patients tested in each class: {counts}.", of=of, counts=listed(counts, ", "))
        events, n = (study.quote("metrics.json", *path, key) for key in ("n_events", "n_patients"))
        sentences += told("{of}{events} of {n} tested patients had the event.", of=of, events=events, n=n)
    return sentences


def characteristics(study: Study) -> list[Sentence]:
    """A link to Table 1, where that has age and sex."""
    if not {"age", "sex"} <= set(study.store.patients):
        return []
    return told("{table} describes the tested patients, all and by class, with missing values.", table=TABLE)


def lacking_characteristics(study: Study) -> list[Sentence]:
    """What Table 1 could not show."""
    lacking = [name for name in NAMES if name not in study.store.patients]
    return told("The patient table lacks {names}; see {table}.", names=", ".join(lacking) or None, table=TABLE)


def images(study: Study) -> list[Sentence]:
    """How an image becomes what the encoder sees."""
    size, how = (study.quote(STORE, "transform", key) for key in ("size", "interpolation"))
    side = told("Every image was resized to {size} x {again} pixels ({how}).", size=size, again=size, how=how)
    mean, std = (
        listed([(part,) for c in range(3) if (part := study.quote(STORE, "transform", key, c))], ", ")
        for key in ("mean", "std")
    )
    channels = told("Channels were centred on {mean} and divided by {std}.", mean=mean, std=std)
    standardised = study.value("settings.yaml", "training", "standardise")
    template = "Features were centred and scaled by the mean and spread of the training patients' cells of each fold."
    return side + channels + (told(template) if standardised else [])


def unreadable(study: Study) -> list[Sentence]:
    """Cells whose image could not be read."""
    failed = study.count("failures.csv of the store", "rows", len(study.store.failures))
    tail = ", and took no part" if failed.value else ""
    return told("{failed} cells could not be read when features were made{tail}.", failed=failed, tail=tail)


def missing_covariates(study: Study) -> list[Sentence]:
    """Missing values of the covariates of the run, and how they were handled."""
    found = study.value("provenance.json", "covariates_missing") or {}
    counts = [
        (f"{name} ", number)
        for name in found
        if (number := study.quote("provenance.json", "covariates_missing", name)) is not None
    ]
    template = (
        "Patients without a value: {counts}. In each fold the mean of the training patients stands in for a missing "
        "number, and a further input says that it is missing; a missing category is none of the levels."
    )
    return told(template, counts=listed(counts, ", "))


def covariates(study: Study) -> list[Sentence]:
    """Inputs beside the images."""
    names = study.value("settings.yaml", "covariates") or ()
    if not names:
        return told("The inputs are images of single cells; no covariate of the patient was used.")
    template = "The inputs are images of single cells and these columns of the patient table: {names}."
    return told(template, names=", ".join(map(str, names)))


def overlap(study: Study) -> list[Sentence]:
    """Whether the encoder has seen the cohort in its pre-training."""
    attributes = study.store.attributes
    if attributes.get("encoder_seen") is None:
        return told("What the encoder saw in its pre-training is not known.")
    seen = seen_in_pretraining(attributes)
    if not seen:
        return told("The encoder's pre-training is not known to have seen images of this cohort.")
    template = "The encoder's pre-training saw images of {names}, without labels, which may flatter the result."
    return told(template, names=", ".join(seen))


def _published(study: Study) -> list[Sentence]:
    """Licence and source in milkit's own recipe of this cohort, where it has one that the store was made by."""
    name, factory = study.value(STORE, "cohort"), study.value(STORE, "cohort_factory")
    if name not in settings.recipe_names("cohorts"):
        return []
    recipe = settings.load(settings.CohortRecipe, settings.find_recipe("cohorts", str(name)), {})
    if recipe.factory != factory:  # a cohort of one's own that happens to be called so
        return []
    sentences = told("milkit's recipe of this cohort names its source: {source}.", source=recipe.source or None)
    return sentences + told("It gives the licence of the images as: {licence}.", licence=recipe.licence or None)
