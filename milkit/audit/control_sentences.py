"""What the controls of a run say to a person."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

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
        serious = _above_chance(control, result) and not (kind == "covariate" and _better(control))
        if not (only_size and kind == "bag_size"):
            (warnings if serious else notes).append(_shortcut(control, result))
        (notes if kind == "covariate" else warnings).extend(_one_class(control, result))
    warnings += _gaps(patients, [name for control in result["controls"] for name in control["columns"]])
    notes.append(_mean_pool(by_kind["mean_pool"], result))
    above = _above_chance(by_kind["permuted_labels"], result)
    (warnings if above else notes).append(_permuted(by_kind["permuted_labels"], result))
    if result["increment"]:
        low = result["increment"]["difference"]["balanced_accuracy"]["ci_low"]
        nothing = low is None or low <= 0
        (warnings if nothing else notes).append(_increment(result, nothing=nothing))
    return warnings, notes


def listed(columns: Sequence[str]) -> str:
    """Columns as a person says them: ``age, sex and lymphocyte count``."""
    names = [column.replace("_", " ") for column in columns]
    return " and ".join(part for part in (", ".join(names[:-1]), *names[-1:]) if part)


def _only_size(result: Mapping[str, Any], by_kind: Mapping[str, Any]) -> Iterator[str]:
    """Whether the label is in the number of cells, and not in what they look like."""
    size, pooled = by_kind["bag_size"], by_kind["mean_pool"]
    if _above_chance(size, result) and not _above_chance(pooled, result) and not _better(size):
        yield (
            f"Only the number of cells carries the label: alone it reaches {_accuracy(size, result)}; the mean of the "
            f"cells' features reaches {_interval(pooled['balanced_accuracy'], result)}, which is not above "
            f"chance ({result['chance']['balanced_accuracy']:.2f}), and the model "
            f"{_interval(result['model']['balanced_accuracy'], result)}, so that nothing is shown of how the cells "
            "look."
        )


def _subject(control: Mapping[str, Any]) -> tuple[str, bool]:
    """What a control looks at, and whether that is a plural."""
    fixed = {"bag_size": "The number of cells alone", "differential": "The differential count alone"}
    columns = control["columns"]
    if control["kind"] in fixed:
        return fixed[control["kind"]], False
    return f"{_capital(listed(columns))} alone", len(columns) > 1


def _shortcut(control: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    """What a control reaches that looks at no cell, beside what the model reaches."""
    what, several = _subject(control)
    if _above_chance(control, result):
        verb = "separate" if several else "separates"
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
    if (auroc["ci_low"] or 0.0) > 0.5:
        what, several = _subject(control)
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


def _increment(result: Mapping[str, Any], *, nothing: bool) -> str:
    increment = result["increment"]
    gap = _interval(increment["difference"]["balanced_accuracy"], result, sign="+")
    text = f"Beside {listed(increment['columns'])}, the model adds {gap} to the balanced accuracy"
    return f"{text}, which may be nothing." if nothing else f"{text}."


def _gaps(patients: pd.DataFrame, columns: Sequence[str]) -> Iterator[str]:
    """Columns that are missing in one class and known in another: the gap then tells the label."""
    for name in dict.fromkeys(columns):
        shares = patients[name].isna().groupby(patients["label"]).mean()
        if shares.max() - shares.min() > UNEQUAL:
            yield (
                f"{_capital(listed([name]))} is missing in {100 * shares.max():.0f} % of the patients of "
                f"{shares.idxmax()} and {100 * shares.min():.0f} % of {shares.idxmin()}, so that whether it was "
                "measured already tells them apart."
            )


def _above_chance(scores: Mapping[str, Any], result: Mapping[str, Any]) -> bool:
    low = scores["balanced_accuracy"]["ci_low"]
    return low is not None and low > result["chance"]["balanced_accuracy"] + 1e-9  # rounding is no finding


def _better(control: Mapping[str, Any]) -> bool:
    """Whether the model is better than the control beyond what other patients would change."""
    low = control["difference"]["balanced_accuracy"]["ci_low"]
    return low is not None and low > 0


def _verdict(control: Mapping[str, Any]) -> str:
    gap = control["difference"]["balanced_accuracy"]
    limits = "" if gap["ci_low"] is None else f" ({gap['ci_low']:+.2f} to {gap['ci_high']:+.2f})"
    high = gap["ci_high"]
    word = "better" if _better(control) else "worse" if high is not None and high < 0 else "not shown to be better"
    return f"{word}, by {gap['estimate']:+.2f}{limits}"


def _accuracy(scores: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    return f"balanced accuracy {_interval(scores['balanced_accuracy'], result)}"


def _interval(figure: Mapping[str, Any], result: Mapping[str, Any], sign: str = "") -> str:
    if figure["estimate"] is None:
        return "that is undefined"
    if figure["ci_low"] is None:
        return f"{figure['estimate']:{sign}.2f}"
    level = f"{100 * result['level']:g} % CI"
    return f"{figure['estimate']:{sign}.2f} ({level} {figure['ci_low']:{sign}.2f} to {figure['ci_high']:{sign}.2f})"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
