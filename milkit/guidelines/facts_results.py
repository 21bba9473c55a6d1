"""What a run tells of its results: sentences for the drafts, each empty where the run lacks it."""

from collections.abc import Mapping
from typing import Any

from milkit.guidelines.sentences import Figure, Sentence, listed, told
from milkit.guidelines.study import Study

MEASURES = {
    "balanced_accuracy": "balanced accuracy",
    "accuracy": "accuracy",
    "weighted_f1": "weighted F1",
    "auroc_macro": "AUROC (mean of classes)",
    "auprc_macro": "AUPRC (mean of classes)",
    "c_index": "c-index",
    "mae": "mean absolute error",
    "r2": "R²",
    "spearman": "Spearman's ρ",
}
"""Names of figures in ``metrics.json``; another one goes by its key."""
METRICS = "metrics.json"
CONTROLS = "controls.json"
FAITHFULNESS = "faithfulness.json"


def measures(study: Study) -> list[Sentence]:
    """Which measures are given."""
    sentences = []
    for name, path in study.parts:
        named = [MEASURES.get(key, key) for key in _figures(study, path)]
        curves = [text for key, text in _CURVES.items() if study.value(METRICS, *path, key)]
        of = f" of {name}" if name else ""
        sentences += told("Measures{of}: {what}.", of=of, what=", ".join(named + curves) or None)
    return sentences


def intervals(study: Study) -> list[Sentence]:
    """How intervals were made; of the first target, since the settings serve all."""
    _, path = study.parts[0]
    found = {key: study.quote(METRICS, *path, key) for key in ("level", "n_bootstrap", "intervals")}
    template = (
        "Intervals have level {level} and come from {n_bootstrap} resamples of patients ({intervals}); models are not "
        "retrained within resamples, so they leave out the variance of training."
    )
    return told(template, **found)


def performance(study: Study) -> list[Sentence]:
    """Every overall figure with its interval, of each target."""
    sentences = []
    for name, path in study.parts:
        found = [
            (f"{MEASURES.get(key, key)} ", figure)
            for key in _figures(study, path)
            if (figure := study.quote(METRICS, *path, key))
        ]
        sentences += told("Out-of-fold results{of}: {found}.", of=f" for {name}" if name else "", found=listed(found))
    return sentences


def per_class(study: Study) -> list[Sentence]:
    """Recall and AUROC of each class, and its sensitivity at the specificity of the run."""
    sentences = []
    for _, path in study.parts:
        at = study.quote(METRICS, *path, "sensitivity", "specificity")
        for label in study.value(METRICS, *path, "per_class") or {}:
            own = {key: study.quote(METRICS, *path, "per_class", label, key) for key in ("n", "recall", "auroc")}
            figure = study.quote(METRICS, *path, "sensitivity", "per_class", label)
            parts: list[Sentence] = [(text, found) for key, text in _OF_CLASS.items() if (found := own[key])]
            parts += [("sensitivity ", figure, " at specificity ", at)] if figure and at else []
            template = "{label} ({n} patients): {parts}."
            sentences += told(template, label=label, n=own["n"], parts=listed(parts, ", "))
    return sentences


def calibration(study: Study) -> list[Sentence]:
    """Slope and Brier score of each class."""
    sentences = []
    for _, path in study.parts:
        for label in study.value(METRICS, *path, "calibration") or {}:
            slope, brier = (study.quote(METRICS, *path, "calibration", label, key) for key in ("slope", "brier"))
            parts: list[Sentence] = []
            parts += [("slope ", slope)] if slope else []
            parts += [("Brier score ", brier)] if brier else []
            sentences += told("Calibration of {label}: {parts}.", label=label, parts=listed(parts, ", "))
    return sentences


def recalibration(study: Study) -> list[Sentence]:
    """Temperature scaling, fitted on validation patients."""
    before, after = (study.quote(METRICS, "temperature", "log_loss", key) for key in ("before", "after"))
    template = (
        "Beside the predictions as they are, one temperature a fold was fitted on its validation patients: log loss "
        "{before} before and {after} after. The predictions that are reported are those before."
    )
    return told(template, before=before, after=after)


def decisions(study: Study) -> list[Sentence]:
    """Thresholds and prevalences that were declared before the run."""
    sentences = []
    for label in study.value("settings.yaml", "thresholds") or {}:
        low, high = (study.quote("settings.yaml", "thresholds", label, place) for place in (0, 1))
        template = (
            "A decision curve of {label} was declared for thresholds from {low} to {high}; it stands in the report."
        )
        sentences += told(template, label=label, low=low, high=high)
    return sentences


def controls(study: Study) -> list[Sentence]:
    """What is reached on the same folds without the model, of each target."""
    sentences = []
    several = study.value(CONTROLS, "targets") or {}
    paths: list[tuple[str, ...]] = [("targets", str(name)) for name in several]
    for path in paths or [()]:
        of = f" ({path[1]})" if len(several) > 1 else ""
        for number, control in enumerate(study.value(CONTROLS, *path, "controls") or ()):
            key = next((key for key, value in control.items() if _is_figure(value)), "")
            figure = study.quote(CONTROLS, *path, "controls", number, key)
            gap = study.quote(CONTROLS, *path, "controls", number, "difference", key, form="+.2f")
            template = "{title}{of}: {measure} {figure}; the model less this {gap}."
            measure = MEASURES.get(key, key)
            sentences += told(template, title=control.get("title"), of=of, measure=measure, figure=figure, gap=gap)
        sentences += _increment(study, path, of)
    return told("Controls on the same folds and patients:") + sentences if sentences else []


def _increment(study: Study, path: tuple[str, ...], of: str) -> list[Sentence]:
    """What the model adds to the covariates of a target, where that is known."""
    columns = study.value(CONTROLS, *path, "increment", "columns")
    gaps = study.value(CONTROLS, *path, "increment", "difference") or {}
    key = next((key for key, value in gaps.items() if _is_figure(value)), "")
    if not columns or not key:
        return []
    gap = study.quote(CONTROLS, *path, "increment", "difference", key, form="+.2f")
    template = "Beside {columns}{of} the model adds {gap} in {measure}."
    return told(template, columns=", ".join(columns), of=of, gap=gap, measure=MEASURES.get(key, key))


def variance(study: Study) -> list[Sentence]:
    """Variance of a single training by patients, split and seed."""
    path = ("variance", "balanced_accuracy")
    names = {"patients": "choice of patients", "split": "split into folds", "seed": "seed of training"}
    parts = [
        (f"{text} ", part) for key, text in names.items() if (part := study.quote(METRICS, *path, key, form=".5f"))
    ]
    return told("Variance of the balanced accuracy of one training, by its source: {parts}.", parts=listed(parts, ", "))


def between_folds(study: Study) -> list[Sentence]:
    """Lowest and highest value of single folds, which are single sites where each was left out."""
    what = "sites" if study.value("settings.yaml", "splits") == "leave-site-out" else "folds"
    sentences = []
    for name, path in study.parts:
        for key in _figures(study, path)[:1]:
            low, high = (_extreme(study, path, key, which) for which in (min, max))
            template = f"In single {what}, {{measure}} ran from {{low}} to {{high}}."
            measure = MEASURES.get(key, key) + (f" of {name}" if name else "")
            sentences += told(template, measure=measure, low=low, high=high)
    return sentences


def between_sites(study: Study) -> list[Sentence]:
    """The same, only where sites were left out in turn."""
    return between_folds(study) if study.value("settings.yaml", "splits") == "leave-site-out" else []


def faithfulness(study: Study) -> list[Sentence]:
    """Whether the order of cells that is shown beats random orders."""
    sentences = []
    for method, found in (study.value(FAITHFULNESS, "methods") or {}).items():
        beaten, n = (study.quote(FAITHFULNESS, "methods", method, key) for key in ("beats_random", "n_random"))
        verdict = "faithful" if found.get("faithful") else "not faithful"
        template = (
            "The order of cells by {method} is {verdict}: adding and taking away cells in it beat {beaten} of {n} "
            "random orders."
        )
        sentences += told(template, method=str(method).replace("_", " "), verdict=verdict, beaten=beaten, n=n)
    return sentences


def confusions(study: Study) -> list[Sentence]:
    """The commonest mistakes, from the confusion matrix."""
    sentences = []
    for name, path in study.parts:
        classes = study.value(METRICS, *path, "confusion", "classes") or []
        counts = study.value(METRICS, *path, "confusion", "counts") or []
        wrong = [
            (-counts[i][j], i, j) for i in range(len(classes)) for j in range(len(classes)) if i != j and counts[i][j]
        ]
        for _, i, j in sorted(wrong)[:3]:
            number = study.quote(METRICS, *path, "confusion", "counts", i, j, form="g")
            template = "{number} patients of {label} were predicted {other}{of}."
            of = f" ({name})" if name else ""
            sentences += told(template, number=number, label=classes[i], other=classes[j], of=of)
    return told("The commonest mistakes (means over repeats):") + sentences if sentences else []


_OF_CLASS = {"recall": "recall ", "auroc": "AUROC against the rest "}
_CURVES = {"calibration": "calibration slope, intercept and Brier score", "decision_curves": "net benefit"}


def _figures(study: Study, path: tuple[str, ...]) -> list[str]:
    found: Mapping[str, Any] = study.value(METRICS, *path) or {}
    return [key for key, value in found.items() if _is_figure(value)]


def _is_figure(value: object) -> bool:
    return isinstance(value, Mapping) and "estimate" in value


def _extreme(study: Study, path: tuple[str, ...], key: str, which: Any) -> Figure | None:
    values = study.value(METRICS, *path, key, "folds") or []
    known = [number for number, value in enumerate(values) if value is not None]
    if not known:
        return None
    return study.quote(METRICS, *path, key, "folds", which(known, key=values.__getitem__), form=".2f")
