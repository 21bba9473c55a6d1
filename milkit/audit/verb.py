"""VERB run -> audit: look for what would make its result wrong, and for what it could rest on other than the disease.

| name | level | what |
|---|---|---|
| ``patient-in-two-roles`` | error | a patient trains, validates or is tested twice in one fold |
| ``patient-in-two-folds`` | error | a patient is tested in two folds of one repeat |
| ``prediction-of-known-patient`` | error | a prediction is of a fold that does not test the patient |
| ``group-parted`` | error | patients who were to stay together are on both sides of a fold |
| ``folds-changed`` | error | ``folds.csv`` is not the table that the run was made with |
| ``fitted-outside-fold`` | error | a step was fitted on others than the fold's training or validation patients |
| ``image-of-two-patients`` | error | one file is a cell of two patients whom a fold parts (else a warning) |
| ``near-duplicate`` | error | two patients whom a fold parts have cells that look the same (else a warning) |
| ``feature-twins`` | warning | two patients have cells with nearly the same features |
| ``encoder-overlap`` | warning | the encoder's pre-training has seen the cohort |
| ``confounder`` | warning or note | the bags tell site, scanner, number of cells (warnings), age or sex (notes) |
| ``control`` | warning | what ``controls.json`` warns of |
| ``not-assessed`` | note or warning | what could not be looked at, and why |
"""

from collections.abc import Iterator
from pathlib import Path

from milkit.audit.confounders import about_confounders
from milkit.audit.copy_leaks import about_copies
from milkit.audit.findings import AuditFinding, by_level
from milkit.audit.fold_leaks import about_folds
from milkit.audit.subject import Audited
from milkit.bags import seen_in_pretraining
from milkit.runs import read_json


def audit_run(run: Path, *, images: bool = True, kept: Path | None = None) -> list[AuditFinding]:
    """Audit a run, its folds and its cohort; notes first, errors last.

    Args:
        run: The run folder; its store is found by the run's settings.
        images: Whether images are read, to find cells of two patients that look the same.
        kept: Measures of images that an earlier `milkit cohort check` left.
    """
    audited = Audited.read(run)
    findings = [*about_folds(audited), *about_copies(audited, images=images, kept=kept), *_about_encoder(audited)]
    return by_level([*findings, *about_confounders(audited), *_about_controls(audited)])


def _about_encoder(audited: Audited) -> Iterator[AuditFinding]:
    for own in audited.encoders:
        for name in seen_in_pretraining({**audited.store.attributes, **own}):
            text = (
                f"The encoder {own['encoder']} has seen images of {name} (wholly or in part) in its pre-training, so "
                "that results may be better than on images that are new to it; compare with an encoder that has not."
            )
            yield AuditFinding("warning", "encoder-overlap", text)
        if own.get("encoder_seen") is None:
            text = f"What the encoder {own['encoder']} has seen in its pre-training is not known."
            yield AuditFinding("note", "not-assessed", text)
    if len(audited.encoders) > 1:
        text = (
            f"Each fold chose among {len(audited.encoders)} encoders; copies of cells and confounders are looked for "
            f"in the features of {audited.store.attributes['encoder']} alone."
        )
        yield AuditFinding("note", "not-assessed", text)


def _about_controls(audited: Audited) -> Iterator[AuditFinding]:
    path = audited.path / "controls.json"
    if not path.is_file():
        text = "The run has no controls.json; make it again with controls, to see what is reached without the model."
        yield AuditFinding("note", "not-assessed", text)
        return
    for sentence in read_json(path).get("warnings", []):
        yield AuditFinding("warning", "control", str(sentence))
