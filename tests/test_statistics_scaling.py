"""Temperatures of validation patients, applied to tested ones: which split's, and what they change."""

import numpy as np
import pandas as pd
import pytest

from milkit.predictions import Predictions
from milkit.statistics.out_of_fold import OutOfFold, Resamples
from milkit.statistics.scaling import temperature_scaling
from milkit.statistics.summary import summarise

CLASSES = ("A", "B", "C")
LABELS = np.arange(120) % 3


def too_sure(sureness: dict[int, float], seed: int) -> Predictions:
    """Calibrated probabilities of 120 patients in two folds, whose logits are multiplied by each fold's number."""
    generator = np.random.default_rng(seed)
    logits = (
        generator.normal(size=(120, 3)) + np.eye(3)[LABELS]
    )  # log odds of these normal scores are their differences
    fold = np.arange(120) // 60
    logits *= np.array([sureness[number] for number in fold])[:, None]
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    table = pd.DataFrame({"patient_id": [f"P{i:03d}" for i in range(120)], "repeat": 0, "fold": fold})
    table["label"], table["predicted"] = np.array(CLASSES)[LABELS], np.array(CLASSES)[shares.argmax(axis=1)]
    table[["p_A", "p_B", "p_C"]] = shares
    return Predictions(table, CLASSES)


def scaling_of(tested: Predictions, validated: Predictions) -> dict:
    resamples = Resamples.of(OutOfFold.of(tested).labels, 200, 0.95, 0)
    return temperature_scaling(tested, validated, resamples)


def test_each_split_is_scaled_by_the_temperature_of_its_own_validation_patients() -> None:
    plain, sure = too_sure({0: 1.0, 1: 1.0}, 1), too_sure({0: 3.0, 1: 0.5}, 1)
    reference, found = scaling_of(plain, plain), scaling_of(sure, sure)
    assert np.divide(found["temperatures"], reference["temperatures"]) == pytest.approx([3.0, 0.5], rel=1e-6)
    assert found["log_loss"]["after"]["estimate"] == pytest.approx(reference["log_loss"]["after"]["estimate"])
    assert found["calibration"]["A"]["slope"]["estimate"] == pytest.approx(
        reference["calibration"]["A"]["slope"]["estimate"], rel=1e-5
    )


def test_probabilities_that_were_too_sure_get_a_lower_loss_and_a_slope_near_one() -> None:
    tested = too_sure({0: 4.0, 1: 4.0}, 2)
    found = scaling_of(tested, too_sure({0: 4.0, 1: 4.0}, 3))
    loss = found["log_loss"]
    truth = tested.probabilities[np.arange(120), LABELS]
    assert loss["before"]["estimate"] == pytest.approx(-np.log(truth).mean())
    assert loss["difference"]["estimate"] == pytest.approx(loss["after"]["estimate"] - loss["before"]["estimate"])
    assert loss["difference"]["ci_high"] < 0
    before = summarise(tested, n_bootstrap=100, level=0.95, seed=0)["calibration"]["A"]["slope"]["estimate"]
    assert before < 0.4 < found["calibration"]["A"]["slope"]["estimate"] < 1.6


def test_the_tested_patients_labels_do_not_change_a_temperature() -> None:
    tested, validated = too_sure({0: 2.0, 1: 2.0}, 4), too_sure({0: 2.0, 1: 2.0}, 5)
    other = Predictions(tested.table.assign(label=np.roll(tested.table["label"], 1)), CLASSES)
    assert scaling_of(tested, validated)["temperatures"] == scaling_of(other, validated)["temperatures"]


def test_a_split_without_validation_patients_stays_as_it_is() -> None:
    tested = too_sure({0: 2.0, 1: 2.0}, 6)
    validated = Predictions(tested.table[tested.table["fold"] == 0], CLASSES)
    assert scaling_of(tested, validated)["temperatures"][1] == 1.0


def test_without_validation_patients_nothing_is_said_of_temperatures() -> None:
    assert summarise(too_sure({0: 1.0, 1: 1.0}, 7), n_bootstrap=100, level=0.95, seed=0)["temperature"] == {}
