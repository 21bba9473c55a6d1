"""Figures of survival: what they label, and that nothing undefined breaks them."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pandas as pd
import pytest

from milkit.survival.curves import curve_table, numbers_at_risk
from milkit.survival_figures import brier_over_time, calibration_at_horizon, kaplan_meier

TIME = np.arange(1.0, 41.0)
GROUPS = np.where(np.arange(40) % 2 == 0, "class <A>", "B").astype(object)
NAMES = ["class <A>", "B"]


def texts_of(svg: str) -> list[str]:
    nodes = ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")
    return ["".join(node.itertext()) for node in nodes]


def curves(event: np.ndarray, p: float | None = 0.0312) -> str:
    result = {"log_rank": None if p is None else {"p": p}, "horizon": 20.0, "level": 0.95}
    table = curve_table(TIME, event, GROUPS, NAMES, 0.95)
    return kaplan_meier(table, numbers_at_risk(TIME, GROUPS, NAMES, [0.0, 20.0, 40.0]), result)


def test_every_curve_is_named_with_its_events_over_the_numbers_at_risk() -> None:
    texts = texts_of(curves(np.arange(40) % 3 == 0))
    assert {"class <A>: 7 events in 20", "B: 7 events in 20", "Log-rank p = 0.031; 95 % bands"} <= set(texts)
    counts = [text for text in texts[texts.index("Still followed") - 8 :] if text in {"20", "11", "10", "1", "0"}]
    assert counts.count("20") >= 2
    assert {"11", "10", "1"} <= set(counts)


@pytest.mark.filterwarnings("error")
def test_groups_without_an_event_are_drawn() -> None:
    texts = texts_of(curves(np.zeros(40, dtype=np.bool_), None))
    assert {"B: 0 events in 20", "95 % bands"} <= set(texts)


def test_the_brier_score_is_labelled_with_its_mean() -> None:
    table = pd.DataFrame({"time": [0.0, 1.0, 2.0], "model": [0, 0.1, 0.2], "reference": [0, 0.12, 0.25]})
    figures = {"model": {"estimate": 0.1, "ci_low": 0.05, "ci_high": 0.15}, "reference": {"estimate": 0.12}}
    texts = texts_of(brier_over_time(table, figures))
    assert {"predicted: 0.10 (0.05 to 0.15)", "one curve for everybody: 0.12"} <= set(texts)


@pytest.mark.filterwarnings("error")
def test_a_group_that_nobody_followed_so_long_has_no_point() -> None:
    rows = {"n": [17, 23], "predicted": [0.2, 0.6], "observed": [0.25, np.nan], "ci_low": [0.1, np.nan]}
    texts = texts_of(calibration_at_horizon(pd.DataFrame({**rows, "ci_high": [0.4, np.nan]}), 365.0))
    assert "Up to time 365; patients a group" in texts
    assert "17" in texts
    assert "23" not in texts


def test_the_same_numbers_give_the_same_bytes() -> None:
    event = np.arange(40) % 3 == 0
    assert curves(event) == curves(event)
