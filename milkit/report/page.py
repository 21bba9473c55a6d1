"""The templates and what they are filled with. Escaping is always on: text from data never becomes markup."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from milkit.bags import cohort_names
from milkit.explain.ranking import TOP
from milkit.mil.candidates import ENCODER
from milkit.report.artefacts import Artefacts, artefact_sentence
from milkit.report.beside import beside
from milkit.report.citations import citations
from milkit.report.class_results import class_results
from milkit.report.composition import shown_composition
from milkit.report.controls import shown_controls
from milkit.report.gallery import GROUPS, REDUCED, Picture
from milkit.report.patients import Patient
from milkit.report.rankings import shown_rankings
from milkit.report.results import Results
from milkit.report.summary import headline, method, question
from milkit.report.tables import cohort_table, flow_steps
from milkit.report.target_results import ShownTarget
from milkit.report.targets_page import first_screen, sections
from milkit.report.templates import offline_templates
from milkit.settings import MilSettings, dump

_HERE = Path(__file__).parent
_DIGITS = 12
"""Hex digits of a digest that people see."""


def patient_card(patient: Patient, pictures: Sequence[Picture], *, page: str = "") -> Markup:
    """One patient in the list: with pictures, or with a link to the ``page`` that has them."""
    card: Any = _templates().get_template("macros.html.j2").make_module().card  # type: ignore[attr-defined]
    return Markup(card(patient, pictures, GROUPS, page))


def patient_page(
    results: Results,
    patient: Patient,
    pictures: Sequence[Picture],
    previous: Patient | None = None,
    following: Patient | None = None,
) -> str:
    """A page of its own for one patient, beside a report that would be too large in one file."""
    template = _templates().get_template("patient.html.j2")
    return template.render(
        cohort=results.cohort,
        patient=patient,
        pictures=pictures,
        previous=previous,
        following=following,
        groups=GROUPS,
        reading=_reading(results, reduced=False),
        rankings=shown_rankings(results.verdicts),
    )


_OWN_IDS = "Patient ids are those of your table: share this report as you would share the table."
_IDS = {
    "study": "Patients and cells have study ids here. Who they are stands in the folder keys of the workspace, which "
    "must not be shared.",
    "pseudonymous": "Patient ids are those of the cohort, of which its recipe says that they are pseudonyms.",
}
"""What is said of ids, by the attribute of the store."""


def _without_paths(settings: MilSettings) -> MilSettings:
    """As a reader elsewhere is told: folders of this machine say nothing there, and may say too much."""
    encoders = {key: [Path(str(path)).name for path in settings.tune[key]] for key in settings.tune if key == ENCODER}
    folds_file = Path(settings.folds_file.name) if settings.folds_file else None
    return settings.model_copy(update={"store": None, "folds_file": folds_file, "tune": {**settings.tune, **encoders}})


def shared_parts(
    results: Results,
    run: str,
    cards: Sequence[Markup],
    figures: Mapping[str, str],
    warnings: Sequence[str],
    artefacts: Artefacts,
    *,
    reduced: bool,
) -> dict[str, Any]:
    """What every report has, whatever the run predicts.

    Args:
        results: The run.
        run: Its name.
        cards: From ``patient_card``.
        figures: SVG text by file name without suffix.
        warnings: What should make a reader careful.
        artefacts: Of all patients together.
        reduced: Whether the pictures are reduced, which the page then says.
    """
    return {
        "run": run,
        "cohort": results.cohort,
        "encoder": results.encoder,
        "head": " or ".join(results.heads),
        "level": results.level,
        "warnings": warnings,
        "flow": flow_steps(results),
        "cohort_table": cohort_table(results),
        "figures": {name: Markup(svg) for name, svg in figures.items()},
        "reading": _reading(results, reduced=reduced),
        "artefacts": artefact_sentence(artefacts),
        "beside": beside(results),
        "cards": cards,
        "rankings": shown_rankings(results.verdicts),
        "composition": shown_composition(results.composition, results.verdicts),
        "origin": _origin(results),
        "citations": citations(
            {
                "head": results.heads,
                "encoder": [str(own.get("encoder") or results.encoder) for own in results.encoders],
                "cohort": cohort_names(results.store.attributes),
            }
        ),
        "settings": dump(_without_paths(results.settings)),
        "ids": _IDS.get(str(results.store.attributes.get("ids")), _OWN_IDS),
    }


def targets_page(results: Results, targets: Sequence[ShownTarget], around: Mapping[str, Any]) -> str:
    """The whole report of a run on survival, numbers or several targets; ``around`` are its ``shared_parts``."""
    template = _templates().get_template("targets.html.j2")
    branch = "" if results.shared_attention else str(results.cells["class"].iloc[0])
    own = {"sections": sections(results, targets), "branch": branch, **first_screen(results, targets)}
    return template.render(**{**around, **own})


def report_page(results: Results, around: Mapping[str, Any]) -> str:
    """The whole report of a run on classes; ``around`` are its ``shared_parts``."""
    predictions = results.patients
    return _templates().get_template("report.html.j2").render(
        **around,
        classes=results.classes,
        question=question(results),
        headline=headline(results),
        method=method(results),
        n_patients=len(predictions),
        n_wrong=int((predictions["label"] != predictions["predicted"]).sum()),
        controls=shown_controls(results.controls, results.level),
        found=class_results(results),
    )  # fmt: skip


def _reading(results: Results, *, reduced: bool) -> str:
    """How the galleries are to be read."""
    if results.shared_attention:
        attention = f"one attention that serves all {'classes' if results.classes else 'outputs'}"
    else:
        attention = "the attention for the predicted class" if results.classes else "the attention of one output"
    if results.imported:
        size = "There are no pictures, since the features were imported without images: find the cells by their ids."
    elif reduced:
        size = f"Pictures are reduced to {REDUCED} px to keep the report one file; judge morphology on the originals."
    else:
        size = "Pictures show true pixels, 1:1; small ones are enlarged in whole multiples without smoothing."
    agreed = results.cells["agreement"].notna().any()
    badge = f", and in how many of the models the cell is among the {TOP} highest" if agreed else ""
    bar = " The bar below a picture is as long as it says." if results.micrometres_per_pixel else ""
    return (
        "Cells are ordered by the weight that held-out models gave them "
        f"({attention}, averaged over repeats and seeds). Under each: rank among the patient's cells, and "
        f"percentile of the weight (P100 is the highest){badge}. {size}{bar}"
    )


def _origin(results: Results) -> list[tuple[str, str]]:
    """Versions and digests, without paths and host names; what is unknown is left out."""
    made, attributes = results.provenance, results.store.attributes
    versions = {"milkit": made.get("milkit"), "Python": made.get("python"), **(made.get("packages") or {})}
    digests = {
        "Cohort digest": made.get("cohort_digest")
        or made.get("store_cohort_digest")
        or attributes.get("cohort_digest"),
        "Encoder digest": made.get("encoder_digest") or attributes.get("encoder_digest"),
        "Folds digest": made.get("folds_digest") or results.folds.digest,
    }
    facts = {
        "Run made": made.get("created"),
        "Platform": made.get("platform"),
        **versions,
        **{name: str(digest)[:_DIGITS] for name, digest in digests.items() if digest},
    }
    return [(name, str(value)) for name, value in facts.items() if value]


@lru_cache(maxsize=1)
def _templates() -> Environment:
    environment = offline_templates(_HERE, "report.js", "style.css")
    environment.globals["top"] = TOP
    return environment
