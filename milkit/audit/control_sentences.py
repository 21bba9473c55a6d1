"""What the controls of a run say to a person."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from milkit.audit.verdicts import better, exceeds, matters, verdict
from milkit.figure_text import capital, listed, with_interval

UNEQUAL = 0.5
"""Difference of two classes' shares of patients without a value, from which on that alone tells them apart."""


def describe(result: Mapping[str, Any], patients: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Sentences that a report shows first, and those that it may show later.

    Args:
        result: ``controls.json``, as ``milkit.audit.controls`` documents it, without its sentences.
        patients: The table of patients.
    """
    by_kind = {control["kind"]: control for control in result["controls"]}
    warnings, notes = list(_only_size(result, by_kind)), list[str]()
    only_size = bool(warnings)
    for control in result["controls"]:
        kind = control["kind"]
        if kind in {"mean_pool", "permuted_labels"}:
            continue
        serious = _tells(control, result) and not (kind == "covariate" and _better(control))
        if not (only_size and kind == "bag_size"):
            (warnings if serious else notes).append(_shortcut(control, result))
        (notes if kind == "covariate" else warnings).extend(_one_class(control, result))
    warnings += gaps_by_class(patients, [name for control in result["controls"] for name in control["columns"]])
    notes.append(_mean_pool(by_kind["mean_pool"], result))
    above = _above_chance(by_kind["permuted_labels"], result)
    (warnings if above else notes).append(_permuted(by_kind["permuted_labels"], result))
    if result["increment"]:
        gap = result["increment"]["difference"]["balanced_accuracy"]
        told = added(result["increment"]["columns"], gap, "the balanced accuracy", result["level"])
        (notes if better(gap) else warnings).append(told)
    return warnings, notes


def column_names(columns: Sequence[str]) -> str:
    """Columns as a person says them: ``age, sex and lymphocyte count``."""
    return listed([column.replace("_", " ") for column in columns])


def _only_size(result: Mapping[str, Any], by_kind: Mapping[str, Any]) -> Iterator[str]:
    """Whether the label is in the number of cells, and not in what they look like."""
    size, pooled, model = by_kind["bag_size"], by_kind["mean_pool"], result["model"]
    if not _tells(size, result) or _above_chance(pooled, result) or _better(size):
        return
    known = (
        f"alone it reaches {_accuracy(size, result)}; the mean of the cells' features reaches "
        f"{_interval(pooled['balanced_accuracy'], result)}, which is not above chance "
        f"({result['chance']['balanced_accuracy']:.2f}), and the model {_interval(model['balanced_accuracy'], result)}"
    )
    if _above_chance(model, result):
        yield (
            f"The number of cells carries the label: {known}, which is above chance and, beside the "
            f"number of cells, {verdict(size['difference']['balanced_accuracy'])}: that the looks of the cells add "
            "anything is not shown."
        )
    else:
        yield f"Only the number of cells carries the label: {known}, so that nothing is shown of how the cells look."


def subject(control: Mapping[str, Any]) -> tuple[str, bool]:
    """What a control looks at, and whether that is a plural."""
    fixed = {"bag_size": "The number of cells alone", "differential": "The differential count alone"}
    columns = control["columns"]
    if control["kind"] in fixed:
        return fixed[control["kind"]], False
    return f"{capital(column_names(columns))} alone", len(columns) > 1


def _shortcut(control: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    """What a control reaches that looks at no cell, beside what the model reaches."""
    what, several = subject(control)
    if _tells(control, result):
        verb = "separate" if several else "separates"
    elif _above_chance(control, result):
        verb = "hardly separate" if several else "hardly separates"
    else:
        verb = "do not separate" if several else "does not separate"
    model = _interval(result["model"]["balanced_accuracy"], result)
    return f"{what} {verb} the classes: {_accuracy(control, result)}; the model's {model} is {_verdict(control)}."


def _one_class(control: Mapping[str, Any], result: Mapping[str, Any]) -> Iterator[str]:
    """The class that a control tells best from the others, where there are more than two classes."""
    if len(control["per_class"]) < 3:
        return
    best = max(control["per_class"], key=lambda name: control["per_class"][name]["auroc"]["ci_low"] or 0.0)
    auroc = control["per_class"][best]["auroc"]
    if matters(auroc, 0.5):
        what, several = subject(control)
        verb = "tell" if several else "tells"
        yield f"{what} {verb} {best} from the other classes with AUROC {_interval(auroc, result)}."


def _mean_pool(control: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    text = (
        f"A logistic regression on the mean of a patient's cells reaches {_accuracy(control, result)}; the model is "
        f"{_verdict(control)}"
    )
    return text + ("." if _better(control) else ", so that to weigh single cells is not shown to help.")


def _permuted(control: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    text = f"With the labels shuffled in training, {_accuracy(control, result)} remains"
    if _above_chance(control, result):
        luck = 50 * (1 - result["level"])
        return (
            f"{text}, above chance ({result['chance']['balanced_accuracy']:.2f}), although nothing true can be learned "
            f"from them: look for a fault in the folds, though {luck:g} % of sound runs show this by luck."
        )
    return f"{text}, as chance would have it ({result['chance']['balanced_accuracy']:.2f})."


def added(columns: Sequence[str], gap: Mapping[str, Any], figure: str, level: float) -> str:
    """What a model adds to the columns that are covariates, by the difference of a figure that both together make."""
    amount = with_interval(gap, "+.2f", level=level, nothing="that is undefined")
    text = f"Beside {column_names(columns)}, the model adds {amount} to {figure}"
    return f"{text}." if better(gap) else f"{text}, which may be nothing."


def gaps_by_class(patients: pd.DataFrame, columns: Sequence[str]) -> Iterator[str]:
    """Columns that are missing in one class and known in another: the gap then tells the label."""
    for name in dict.fromkeys(columns):
        shares = patients[name].isna().groupby(patients["label"]).mean()
        if shares.max() - shares.min() > UNEQUAL:
            yield (
                f"{capital(column_names([name]))} is missing in {100 * shares.max():.0f} % of the patients of "
                f"{shares.idxmax()} and {100 * shares.min():.0f} % of {shares.idxmin()}, so that whether it was "
                "measured already tells them apart."
            )


def _above_chance(scores: Mapping[str, Any], result: Mapping[str, Any]) -> bool:
    return exceeds(scores["balanced_accuracy"], result["chance"]["balanced_accuracy"])


def _tells(scores: Mapping[str, Any], result: Mapping[str, Any]) -> bool:
    return matters(scores["balanced_accuracy"], result["chance"]["balanced_accuracy"])


def _better(control: Mapping[str, Any]) -> bool:
    return better(control["difference"]["balanced_accuracy"])


def _verdict(control: Mapping[str, Any]) -> str:
    return verdict(control["difference"]["balanced_accuracy"])


def _accuracy(scores: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    return f"balanced accuracy {_interval(scores['balanced_accuracy'], result)}"


def _interval(figure: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    return with_interval(figure, level=result["level"], nothing="that is undefined")
