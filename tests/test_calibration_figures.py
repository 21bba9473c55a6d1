"""Figures of calibration and decisions: what they label, and that nothing undefined breaks them."""

import xml.etree.ElementTree as ElementTree
from typing import Any

import numpy as np
import pytest

from milkit.calibration_figures import decision_curves, reliability


def texts_of(svg: str) -> list[str]:
    nodes = ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")
    return ["".join(node.itertext()) for node in nodes]


def calibration(slope: float | None) -> dict[str, Any]:
    bins = [{"n": 10, "predicted": p, "observed": p, "ci_low": p / 2, "ci_high": (1 + p) / 2} for p in (0.1, 0.9)]
    return {"slope": {"estimate": slope, "ci_low": None, "ci_high": None}, "reliability": bins}


def curve(**other: Any) -> dict[str, Any]:
    values = {name: [0.1, 0.05] for name in ("model", "everybody", "ci_low", "ci_high")}
    return {**values, "thresholds": [0.1, 0.3], "prevalence": 0.2, **other}


def test_every_class_has_a_panel_with_its_slope() -> None:
    names = [f"class <{number}>" for number in range(7)]
    texts = texts_of(reliability({name: calibration(0.85) for name in names}, names))
    assert [text for text in texts if text.startswith("class")] == names
    assert texts.count("slope 0.85") == 7


def test_a_class_without_a_slope_shows_a_dash() -> None:
    assert "slope –" in texts_of(reliability({"A": calibration(None)}, ["A"]))


def test_a_curve_names_its_class_and_prevalence_beside_both_defaults() -> None:
    texts = texts_of(decision_curves({"PML_RARA": curve(), "NPM1": curve(prevalence=0.125)}))
    assert {"PML_RARA, prevalence 20 %", "NPM1, prevalence 12.5 %", "act on everybody", "act on nobody"} <= set(texts)


@pytest.mark.filterwarnings("error")
def test_a_curve_that_is_undefined_is_drawn_empty() -> None:
    nothing = {name: [None, None] for name in ("model", "ci_low", "ci_high")}
    assert "A, prevalence 20 %" in texts_of(decision_curves({"A": curve(**nothing)}))


def test_the_same_numbers_give_the_same_bytes() -> None:
    found = {name: calibration(1.0 + number) for number, name in enumerate("AB")}
    assert reliability(found, list("AB")) == reliability(found, list("AB"))
    limits = {"ci_low": list(np.array([0.05, 0.0])), "ci_high": [0.2, 0.1]}
    assert decision_curves({"A": curve(**limits)}) == decision_curves({"A": curve(**limits)})
