"""What a run's settings declare about the clinic reaches its metrics, or is refused before anything is trained."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from toys import make_store, toy_patients

from milkit.bags import BagStore
from milkit.errors import SettingsError
from milkit.mil.crossval import cross_validate
from milkit.settings import MilSettings, load, parse_assignments

FAST = {"folds": 3, "bootstrap": 100, "training": {"max_epochs": 2, "learning_rate": 0.01}}


def settings_of(**other: Any) -> MilSettings:
    return MilSettings.model_validate(FAST | other)


def test_declared_prevalence_thresholds_and_specificity_reach_the_metrics(toy_store: BagStore, tmp_path: Path) -> None:
    declared = settings_of(prevalence={"NPM1": 0.1}, thresholds={"control": [0.2, 0.6]}, specificity=0.8, seeds=2)
    metrics = cross_validate(toy_store, declared, tmp_path / "run")
    assert list(metrics["predictive_values"]) == ["NPM1"]
    assert list(metrics["decision_curves"]) == ["control"]
    assert metrics["sensitivity"]["specificity"] == 0.8
    assert metrics["variance"]["balanced_accuracy"]["n_seeds"] == 2
    assert metrics == json.loads((tmp_path / "run" / "metrics.json").read_text())


def test_a_class_that_is_not_there_is_refused_before_training(toy_store: BagStore, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"^prevalence was declared for the class 'APL', and the classes are "):
        cross_validate(toy_store, settings_of(prevalence={"APL": 0.1}), tmp_path / "runs" / "run")
    assert not (tmp_path / "runs").exists()


@pytest.fixture
def with_subtypes(tmp_path: Path) -> BagStore:
    """The classes also stand in two columns of their own."""
    patients = toy_patients()
    return make_store(tmp_path / "toy.zarr", patients.assign(subtype=patients["label"], second=patients["label"]))


def test_what_is_declared_for_a_target_of_classes_reaches_its_metrics(with_subtypes: BagStore, tmp_path: Path) -> None:
    targets = ["regression:age", "classes:subtype"]
    given = {"prevalence": {"NPM1": 0.1}, "thresholds": {"control": [0.2, 0.6]}, "specificity": 0.8, "seeds": 2}
    metrics = cross_validate(with_subtypes, settings_of(target=targets, **given), tmp_path / "run")["targets"][
        "subtype"
    ]
    alone = cross_validate(with_subtypes, settings_of(target=targets[1:], **given), tmp_path / "alone")
    for found in (metrics, alone):
        assert list(found["predictive_values"]) == ["NPM1"]
        assert list(found["decision_curves"]) == ["control"]
        assert found["sensitivity"]["specificity"] == 0.8
        assert found["variance"]["balanced_accuracy"]["n_seeds"] == 2
        assert len(found["temperature"]["temperatures"]) == 3


@pytest.mark.parametrize(
    ("target", "text"),
    [
        (["regression:age"], "the run predicts no classes; leave prevalence out."),
        (["classes:subtype", "classes:second"], "2 targets have a class of that name; train on one of them at a time."),
    ],
    ids=["no classes", "two targets"],
)
def test_a_declaration_that_no_single_target_can_use_is_refused(
    with_subtypes: BagStore, tmp_path: Path, target: list[Any], text: str
) -> None:
    with pytest.raises(SettingsError, match=f"^prevalence was declared for the class 'NPM1', and {re.escape(text)}$"):
        cross_validate(with_subtypes, settings_of(target=target, prevalence={"NPM1": 0.1}), tmp_path / "runs" / "run")
    assert not (tmp_path / "runs").exists()


def test_they_can_be_declared_on_the_command_line() -> None:
    given = parse_assignments(["prevalence.PML_RARA=0.05", "thresholds.PML_RARA=[0.02, 0.3]"])
    found = load(MilSettings, None, given)
    assert (found.prevalence, found.thresholds) == ({"PML_RARA": 0.05}, {"PML_RARA": (0.02, 0.3)})


@pytest.mark.parametrize("given", [{"prevalence.A": 1.0}, {"thresholds.A": [0.1]}, {"specificity": 0}])
def test_what_is_no_share_is_refused_by_name(given: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=f"^command line: {next(iter(given)).replace('.', '[.]')}"):
        load(MilSettings, None, given)
