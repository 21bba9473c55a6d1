"""What a run tells of its encoder, heads and training: sentences for the drafts, each empty where the run lacks it."""

import hashlib

from milkit.guidelines.sentences import Sentence, listed, told
from milkit.guidelines.study import SOURCE, STORE, Study

PACKAGES = ("torch", "timm", "zarr", "numpy", "pandas", "scikit-learn")


def encoder(study: Study) -> list[Sentence]:
    """What turns a cell into features."""
    several = [str(one.get("encoder")) for one in study.value("provenance.json", "encoders") or ()]
    if several:
        return told("Each training part chose one of these frozen encoders: {names}.", names=", ".join(several))
    if study.value(STORE, "backend") == "imported":
        template = "Features of {dim} numbers a cell were imported; their encoder is called {name}."
    else:
        template = "The frozen encoder {name} turns the image of a cell into {dim} numbers."
    made_of = told("It is {what}.", what=study.value(STORE, "encoder_made_of", "description"))
    note = told("{note}", note=study.value(SOURCE, "encoder_note") or None)
    return [*told(template, name=study.value(STORE, "encoder"), dim=study.quote(STORE, "dim")), *made_of, *note]


def encoder_licence(study: Study) -> list[Sentence]:
    """The licence of the encoder's weights, where the store knows it."""
    licence = study.value(STORE, "encoder_made_of", "licence")
    return told("The licence of the encoder's weights is given as: {licence}.", licence=licence)


def head(study: Study) -> list[Sentence]:
    """What pools the cells of a patient into a prediction."""
    chosen = study.value("settings.yaml", "head", "name")
    arguments = dict(study.value("settings.yaml", "head") or {})
    arguments.pop("name", None)
    tail = f" with {', '.join(f'{key} {value}' for key, value in arguments.items())}" if arguments else ""
    template = (
        "The head {name} of milkit {version}{tail} learns from whole patients (multiple-instance learning): it weighs "
        "the cells of a patient and predicts for the patient."
    )
    return told(template, name=chosen, version=study.quote("provenance.json", "milkit"), tail=tail)


def output(study: Study) -> list[Sentence]:
    """What is predicted."""
    sentences = []
    for name, path in study.parts:
        kind = study.value("metrics.json", *path, "target", "kind")
        of = f"For {name} the" if name else "The"
        if kind is None or study.value("metrics.json", *path, "per_class"):
            text = f"{of} output is a probability of each class; the predicted class is the most probable one."
        else:
            text = f"{of} output is of the kind {kind}."
        sentences += told("{text}", text=text)
    return sentences


def training(study: Study) -> list[Sentence]:
    """Hyperparameters, as set where nothing was chosen."""
    keys = ("learning_rate", "weight_decay", "max_epochs", "patience", "batch_size")
    found = {key: study.quote("settings.yaml", "training", key) for key in keys}
    template = (
        "Training: AdamW with learning rate {learning_rate} and weight decay {weight_decay}, {batch_size} patients a "
        "step, at most {max_epochs} epochs, stopped when the loss of the validation fold had not fallen for {patience} "
        "epochs; the weights of the best epoch are kept."
    )
    return told(template, **found)


def imbalance(study: Study) -> list[Sentence]:
    """Whether small classes were weighted up, and what that means for probabilities."""
    weighted = study.value("settings.yaml", "training", "class_weights")
    if weighted is None:
        return []
    if not weighted:
        return told("No method against class imbalance was used.")
    return told(
        "The loss weighs each class by its inverse frequency among the training patients; nothing was resampled. "
        "Probabilities therefore do not follow the classes' frequencies before they are recalibrated."
    )


def partitions(study: Study) -> list[Sentence]:
    """How patients were parted, and that the parts are disjoint."""
    kind, by = (study.value("settings.yaml", key) for key in ("splits", "by"))
    by = by or ("site" if kind == "site-preserved" else None)
    table = study.folds.table
    folds = study.count("folds.csv", "different fold", table["fold"].nunique())
    repeats = study.count("folds.csv", "different repeat", table["repeat"].nunique())
    if study.value("settings.yaml", "folds_file"):
        template = "Published folds were used: {folds} folds, {repeats} {times}, read from a file."
    elif kind == "leave-site-out":
        template = "Each site was tested once by models of the others: {folds} folds, {repeats} {times}."
    elif by:
        template = "Cross-validation in {folds} folds, {repeats} {times}; patients of one {by} stay together."
    else:
        template = "Cross-validation in {folds} folds, {repeats} {times}, stratified by outcome."
    template += (
        " In each, some patients are tested, others stop the training early and the rest train; the cells of a patient "
        "are never on two sides."
    )
    times = "repeat" if repeats.value == 1 else "repeats"
    return told(template, folds=folds, repeats=repeats, times=times, by=by)


def seeds(study: Study) -> list[Sentence]:
    """Seeds of initialisation and order, and averaging."""
    template = (
        "The seed {seed} determines folds, the random initialisation of heads, and the order of patients; {seeds} "
        "training(s) a fold, whose predictions are averaged."
    )
    return told(template, seed=study.quote("settings.yaml", "seed"), seeds=study.quote("settings.yaml", "seeds"))


def ensemble(study: Study) -> list[Sentence]:
    """How many models stand behind a prediction."""
    template = (
        "Each patient is predicted by the {seeds} head(s) of the fold that tests this patient, with averaged "
        "predictions, once in each repeat; there is no further ensemble."
    )
    return told(template, seeds=study.quote("settings.yaml", "seeds"))


def selection(study: Study) -> list[Sentence]:
    """How hyperparameters were chosen, and that tested patients had no part in it."""
    tried = study.quote("metrics.json", "tuning", "n_configurations") or study.quote("tuning.json", "n_configurations")
    if tried is None:
        if study.value("settings.yaml", "tune"):
            return []
        return told("Within this run no hyperparameter was chosen on the data: one configuration was trained.")
    template = (
        "{tried} configurations were compared in inner folds of each training part (nested cross-validation); the "
        "tested patients had no part in the choice."
    )
    sentences = told(template, tried=tried)
    for number, one in enumerate(study.value("metrics.json", "tuning", "chosen") or ()):
        path = ("tuning", "chosen", number)
        what: list[Sentence] = [
            (f"{key} ", study.quote("metrics.json", *path, "settings", key) or str(value))
            for key, value in one.get("settings", {}).items()
        ]
        splits = study.quote("metrics.json", *path, "splits")
        n = study.quote("metrics.json", "tuning", "n_splits")
        sentences += told("Chosen in {splits} of {n} splits: {what}.", splits=splits, n=n, what=listed(what, ", "))
    return sentences


def software(study: Study) -> list[Sentence]:
    """Versions."""
    versions = [
        (f"{name} ", version) for name in PACKAGES if (version := study.quote("provenance.json", "packages", name))
    ]
    python, milkit = (study.quote("provenance.json", key) for key in ("python", "milkit"))
    template = "Software: milkit {milkit}, Python {python}, {versions}."
    return told(template, milkit=milkit, python=python, versions=listed(versions, ", "))


def precision(study: Study) -> list[Sentence]:
    """In which arithmetic features were computed."""
    found = {key: study.quote(STORE, key) for key in ("precision", "backend")}
    return told("Features were computed in {precision} by {backend}.", **found)


def digests(study: Study) -> list[Sentence]:
    """SHA-256 digests of what made the run."""
    names = {
        "encoder_digest": "encoder, weights and transform",
        "cohort_digest": "cells of the cohort",
        "patients_digest": "patient table",
        "folds_digest": "folds",
    }
    sentences = []
    for key, what in names.items():
        sentences += told(f"SHA-256, {what}: {{digest}}.", digest=study.quote("provenance.json", key))
    weights = study.quote(STORE, "encoder_made_of", "weights_sha256")
    return sentences + told("SHA-256, file of the encoder's weights: {weights}.", weights=weights)


def heads_files(study: Study) -> list[Sentence]:
    """The weights of the heads, which are the model."""
    paths = sorted((study.run / "heads").glob("*.safetensors"))
    if not paths:
        return []
    total = hashlib.sha256()
    for path in paths:
        total.update(f"{path.name}\n{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    number = study.count("heads/", "files *.safetensors", len(paths))
    template = (
        "The {number} trained heads lie in the run's folder heads/, as safetensors with a description in JSON beside "
        "each, without patient ids. SHA-256 over their names and digests: {digest}."
    )
    what = "SHA-256 over a line with the name and a line with the SHA-256 of each, in the order of names"
    return told(template, number=number, digest=study.digest("heads/", what, total.hexdigest()))
