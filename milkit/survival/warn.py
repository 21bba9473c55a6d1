"""What a reader of survival figures must be told, in sentences: of the data, and of what was found in them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from milkit.survival.outcome import Outcome
from milkit.survival.predicted import YARDSTICKS, Risks

FEW_EVENTS, FEW_PATIENTS, FEW_FOLLOWED = 10, 5, 10

LATE_START = 0.1
"""Nobody with a time below this share of the median looks as if patients could not be seen to die early."""


def of_data(outcome: Outcome, horizon: float) -> list[str]:
    """Few events, times of 0, patients who seem immortal at first, and horizons that few have reached."""
    time, event, told = outcome.time, outcome.event, []
    if event.sum() < FEW_EVENTS:
        told.append(
            f"The number of events is {event.sum()}, fewer than {FEW_EVENTS}: "
            "curves, tests and scores change with every single one."
        )
    if zero := int((time == 0).sum()):
        told.append(
            f"{zero} {'patients have' if zero > 1 else 'patient has'} a time of 0, {int(event[time == 0].sum())} of "
            "them with the event: check whether the event came before the images were taken."
        )
    if len(time) >= 2 * FEW_FOLLOWED and time.min() > LATE_START * np.median(time):
        told.append(
            f"Nobody has a time below {time.min():g}, with a median of {np.median(time):g}: if patients had to live so "
            "long to be in the cohort, count time from then on, else that time counts as immortal."
        )
    if (left := int((time >= horizon).sum())) < FEW_FOLLOWED:
        told.append(
            f"Only {left} patients are followed up to the horizon {horizon:g}: take an earlier one with --horizon."
        )
    return told


def of_groups(groups: Sequence[Mapping[str, Any]]) -> list[str]:
    """Groups too small for a curve, or only one of them."""
    small = [str(group["group"]) for group in groups if group["n"] < FEW_PATIENTS]
    told = [f"Fewer than {FEW_PATIENTS} patients are in the group {name}." for name in small]
    if len(groups) == 1:
        told.append(f"All patients are in the group {groups[0]['group']}: there is nothing to compare.")
    return told


def of_scores(result: Mapping[str, Any]) -> list[str]:
    """Risks that point the wrong way, folds on scales of their own, predictions that do not help or are off."""
    told = []
    if c_index := result["c_index"]:
        pooled, within = c_index["pooled"], c_index.get("within_folds", c_index["pooled"])
        best = pooled if np.isnan(within["estimate"]) else within
        if best["ci_high"] < 0.5:
            told.append(
                f"The c-index is {best['estimate']:.2f}, and its whole interval is below 0.5: a higher risk means a "
                "later event here, so that the sign of the risks is wrong, or what was learned does not hold."
            )
        if abs(pooled["estimate"] - within["estimate"]) > 0.05:
            told.append(
                f"Within folds the c-index is {within['estimate']:.2f}, and {pooled['estimate']:.2f} over all pairs: "
                "the folds' risks are not quite on one scale, so quote the one within folds."
            )
    if (score := result["brier"]) and score["gain"]["ci_low"] <= 0:
        told.append(
            "The predicted survival is not shown to be better than one curve for everybody: the interval of the gain "
            f"in the integrated Brier score, {_range(score['gain'])}, reaches 0 or below."
        )
    if found := result["calibration"]:
        ratio = found["observed_to_expected"]
        if ratio["ci_low"] > 1 or ratio["ci_high"] < 1:
            more = "more" if ratio["estimate"] > 1 else "fewer"
            told.append(
                f"Up to the horizon {more} events are observed than predicted, {ratio['estimate']:.2f} times as many "
                f"({_range(ratio)})."
            )
    return told


def methods(outcome: Outcome, risks: Risks | None, *, has_survival: bool) -> list[str]:
    """How the figures were made, as far as a reader must know to judge them."""
    what = "probabilities" if risks is None else "risks"
    told = [f"All predictions are out of fold: each patient's {what} are of models that never saw the patient."]
    if outcome.repeats > 1:
        told.append(f"The {what} of {outcome.repeats} repeats are averaged per patient before anything else.")
    if outcome.left_out:
        told.append(f"{outcome.left_out} tested patients without a known time and event are left out.")
    if risks is not None:
        told.append(f"Risk groups are made by {YARDSTICKS[risks.yardstick]}.")
    if risks is not None and risks.yardstick == "tested":
        told.append(
            "Risks are centred on the few patients that each fold tests, which blurs whatever is computed over all "
            "folds (groups, Cox's model, Brier score, calibration), but not the c-index within folds."
        )
    basis = "training patients of the same model" if outcome.training is not None else "patients tested in other folds"
    told.append(
        f"Predicted survival is made from the {basis}, never from the patient's own fold."
        if has_survival
        else "There is one fold and no risk of a training patient, so that no survival could be predicted without "
        "looking at the tested patients' own: no Brier score, no calibration."
    )
    told.append(
        "The p values of the log-rank test and of Cox's model take the predictions as given; patients whose models "
        "share training patients are not quite independent, so read them as descriptions."
    )
    return told


def _range(figure: Mapping[str, float]) -> str:
    return f"{figure['ci_low']:.2f} to {figure['ci_high']:.2f}"
