"""What the controls of a run on survival or a number say to a person."""

from collections.abc import Mapping
from typing import Any

from milkit.audit.control_sentences import added, subject
from milkit.audit.verdicts import better, exceeds, matters, verdict
from milkit.figure_text import with_interval

HEADLINES = {"risk": "c_index", "predicted": "spearman"}
"""The figure that sentences quote, by the column of the predictions; a table shows the others, too."""

NAMES = {"c_index": "c-index", "spearman": "Spearman's ρ", "r2": "R²"}

_FIGURES = {"c_index": "the c-index", "spearman": "Spearman's ρ"}

_REGRESSIONS = {"risk": "A ridge Cox regression", "predicted": "A ridge regression"}
_ORDERED = {"risk": "order the patients by their risk", "predicted": "tell the patients' values"}


def describe_target(result: Mapping[str, Any], level: float) -> tuple[list[str], list[str]]:
    """Sentences that a report shows first, and those that it may show later.

    Args:
        result: Of one target, as ``milkit.audit.target_controls`` documents it, without its sentences.
        level: Coverage of the intervals.
    """
    warnings, notes = list[str](), list[str]()
    name = HEADLINES[result["column"]]
    chance = result["chance"][name]
    for control in result["controls"]:
        gap = control["difference"][name]
        reached = f"{NAMES[name]} {_interval(control[name], level)}"
        told = f"{reached}, chance {chance:.2f}"
        model = f"the model's {_interval(result['model'][name], level)}"
        if control["kind"] == "mean_pool":
            ending = "" if better(gap) else ", so that to weigh single cells is not shown to help"
            notes.append(
                f"{_REGRESSIONS[result['column']]} on the mean of a patient's cells reaches {told}; {model} is "
                f"{verdict(gap)}{ending}."
            )
        elif control["kind"] == "permuted_labels":
            above = exceeds(control[name], chance)
            (warnings if above else notes).append(_permuted(reached, chance, level, above=above))
        else:
            what, several = subject(control)
            found = _found(result["column"], control[name], chance, several=several)
            serious = matters(control[name], chance) and not (control["kind"] == "covariate" and better(gap))
            (warnings if serious else notes).append(f"{what} {found}: {told}; {model} is {verdict(gap)}.")
    if increment := result["increment"]:
        gap = increment["difference"][name]
        told = added(increment["columns"], gap, _FIGURES[name], level)
        (notes if better(gap) else warnings).append(told)
    if not exceeds(result["model"][name], chance):
        warnings.insert(
            0,
            f"The model is not shown to be better than chance: {NAMES[name]} "
            f"{_interval(result['model'][name], level)}, chance {chance:.2f}.",
        )
    return warnings, notes


def _found(column: str, figure: Mapping[str, Any], chance: float, *, several: bool) -> str:
    verb, _, rest = _ORDERED[column].partition(" ")
    if matters(figure, chance):
        return f"{verb if several else f'{verb}s'} {rest}"
    if exceeds(figure, chance):
        return f"hardly {verb if several else f'{verb}s'} {rest}"
    return f"{'do' if several else 'does'} not {verb} {rest}"


def _permuted(reached: str, chance: float, level: float, *, above: bool) -> str:
    text = f"With the outcomes shuffled in training, {reached} remains"
    if above:
        return (
            f"{text}, above chance ({chance:.2f}), although nothing true can be learned from them: look for a fault in "
            f"the folds, though {50 * (1 - level):g} % of sound runs show this by luck."
        )
    return f"{text}, as chance would have it ({chance:.2f})."


def _interval(figure: Mapping[str, Any], level: float) -> str:
    return with_interval(figure, level=level, nothing="that is undefined")
