"""The audit of a run: planted leaks are each named, and a clean run has no error."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from audit_toys import people, store_of
from PIL import Image
from typer.testing import CliRunner

from milkit.audit.findings import AuditFinding
from milkit.audit.twins import feature_twins, same_files
from milkit.audit.verb import audit_run
from milkit.bags import BagStore
from milkit.cli import app
from milkit.errors import RunError
from milkit.folds import Folds, patients_digest
from milkit.mil.crossval import cross_validate
from milkit.runs import write_json
from milkit.settings import MilSettings
from milkit.statistics.association import cramers_v

FAST = MilSettings.model_validate({"folds": 3, "bootstrap": 200, "training": {"max_epochs": 1}, "controls": False})
SIZE = 4


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store of 18 patients of two classes with four cells each, and a run."""
    folder, patients = tmp_path_factory.mktemp("clean"), people(18)
    patients["family"] = [f"F{number // 2}" for number in range(18)]
    store_of(folder / "s.zarr", patients, dict.fromkeys(patients.index, SIZE), {})
    cross_validate(BagStore.open(folder / "s.zarr"), FAST.model_copy(update={"by": "family"}), folder / "run")
    return folder


@pytest.fixture
def make_run(clean: Path, tmp_path: Path) -> Callable[..., Path]:
    """A copy of the run and its store; ``plant`` may change the store, which an audit then finds."""

    def make(plant: Callable[[Path], None] | None = None) -> Path:
        shutil.copytree(clean, tmp_path, dirs_exist_ok=True)
        settings = (clean / "run" / "settings.yaml").read_text()
        (tmp_path / "run" / "settings.yaml").write_text(settings.replace(str(clean), str(tmp_path)))
        if plant:
            plant(tmp_path / "s.zarr")
        return tmp_path / "run"

    return make


def _named(run: Path, name: str, **how: Any) -> list[AuditFinding]:
    return [finding for finding in audit_run(run, **how) if finding.name == name]


def _errors(run: Path) -> set[str]:
    return {finding.name for finding in audit_run(run) if finding.level == "error"}


def _rewrite(path: Path, name: str, features: np.ndarray | None = None, digests: np.ndarray | None = None) -> None:
    """Give a patient other features or other digests of images."""
    store = BagStore(path, writable=True)
    rows = store.rows_of(name)
    own = store[name].features if features is None else features
    store.write(name, own, store.image_digests()[rows] if digests is None else digests, {})
    store.close()


def _folds_of(run: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    """Change folds.csv, and the digest that was recorded of it, as a faulty program would have written both."""
    folds = Folds(change(pd.read_csv(run / "folds.csv", dtype={"patient_id": str})))
    folds.save(run / "folds.csv")
    provenance = json.loads((run / "provenance.json").read_text())
    write_json(run / "provenance.json", provenance | {"folds_digest": folds.digest})


def test_a_clean_run_has_no_error(make_run: Callable[..., Path]) -> None:
    assert _errors(make_run()) == set()


def test_a_patient_in_training_and_test_of_a_fold_is_named(make_run: Callable[..., Path]) -> None:
    run = make_run()
    more = pd.DataFrame(
        [("P003", 0, 0, "test"), ("P003", 0, 0, "train")], columns=["patient_id", "repeat", "fold", "role"]
    )
    _folds_of(run, lambda table: pd.concat([table[~((table.patient_id == "P003") & (table.fold == 0))], more]))
    (finding,) = _named(run, "patient-in-two-roles")
    assert finding.level == "error"
    assert finding.text.startswith(
        "1 patient (P003) has two rows in fold 0 (repeat 0), with the roles test and train; make"
    )


def test_a_patient_tested_in_two_folds_is_named(make_run: Callable[..., Path]) -> None:
    run = make_run()
    _folds_of(run, lambda table: table.assign(role=table.role.mask(table.patient_id == "P007", "test")))
    (finding,) = _named(run, "patient-in-two-folds")
    assert (finding.level, "(P007)" in finding.text) == ("error", True)


def test_a_prediction_by_a_model_that_knew_the_patient_is_named(make_run: Callable[..., Path]) -> None:
    run = make_run()
    table = pd.read_csv(run / "predictions.csv", dtype={"patient_id": str})
    table.loc[table.patient_id == "P005", "fold"] = (table.loc[table.patient_id == "P005", "fold"] + 1) % 3
    table.to_csv(run / "predictions.csv", index=False)
    (finding,) = _named(run, "prediction-of-known-patient")
    assert (finding.level, "(P005)" in finding.text) == ("error", True)


def test_a_changed_table_of_folds_is_named(make_run: Callable[..., Path]) -> None:
    run = make_run()
    table = pd.read_csv(run / "folds.csv", dtype={"patient_id": str})
    table.iloc[::-1].to_csv(run / "folds.csv", index=False)
    assert _errors(run) == {"folds-changed"}


@pytest.mark.parametrize(
    ("step", "whom", "told"),
    [
        ("train", ["train", "test"], "its training and tested patients"),
        ("standardise", ["train", "validation", "test"], "all patients of the cohort"),
        ("temperature", ["test"], "its tested patients"),
        ("train", ["validation"], "its validation patients"),
    ],
)
def test_a_step_that_was_fitted_outside_the_fold_is_named(
    make_run: Callable[..., Path], step: str, whom: list[str], told: str
) -> None:
    run = make_run()
    split = next(Folds.load(run / "folds.csv").splits())
    provenance = json.loads((run / "provenance.json").read_text())
    ids = [name for role in whom for name in getattr(split, role)]
    provenance["fitted_on"]["repeat0-fold0"][step] = patients_digest(ids)
    write_json(run / "provenance.json", provenance)
    (finding,) = _named(run, "fitted-outside-fold")
    assert finding.level == "error"
    assert finding.text.startswith(f"The step '{step}' of repeat0-fold0 was fitted on {told}, where it may know")


def test_a_temperature_of_the_validation_patients_is_no_leak(make_run: Callable[..., Path]) -> None:
    run = make_run()
    split = next(Folds.load(run / "folds.csv").splits())
    provenance = json.loads((run / "provenance.json").read_text())
    provenance["fitted_on"]["repeat0-fold0"]["temperature"] = patients_digest(split.validation)
    write_json(run / "provenance.json", provenance)
    assert _named(run, "fitted-outside-fold") == []


def test_a_file_in_two_patients_whom_a_fold_parts_is_named(make_run: Callable[..., Path]) -> None:
    def plant(path: Path) -> None:
        digests = BagStore.open(path).image_digests()
        store = BagStore.open(path)
        _rewrite(path, "P004", digests=digests[store.rows_of("P009")])

    (finding,) = _named(make_run(plant), "image-of-two-patients")
    assert finding.level == "error"
    assert finding.text.startswith("4 pairs of cells of two patients: the same file, P004/0 of patient P004 and P009/0")


def test_features_that_are_nearly_the_same_in_two_patients_are_named(make_run: Callable[..., Path]) -> None:
    def plant(path: Path) -> None:
        copied = BagStore.open(path)["P009"].features
        _rewrite(path, "P004", features=copied + np.float32(0.001))

    (finding,) = _named(make_run(plant), "feature-twins")
    assert (finding.level, finding.text.startswith("4 pairs of cells")) == ("warning", True)


def test_a_file_of_two_patients_whom_no_fold_parts_is_a_warning(make_run: Callable[..., Path], tmp_path: Path) -> None:
    run = make_run()
    first = next(Folds.load(run / "folds.csv").splits()).test[:2]
    store = BagStore.open(tmp_path / "s.zarr")
    _rewrite(tmp_path / "s.zarr", first[0], digests=store.image_digests()[store.rows_of(first[1])])
    (finding,) = _named(run, "image-of-two-patients")
    assert (finding.level, "no fold parts the two" in finding.text) == ("warning", True)


def _photograph(root: Path, ids: list[str]) -> None:
    """Smooth pictures, one a cell; the first of P004 is the first of P009, coded anew and brighter."""
    for number, name in enumerate(ids):
        (root / name).mkdir(parents=True)
        for cell in range(SIZE):
            noise = np.random.default_rng([number, cell]).integers(40, 200, (6, 6, 3), dtype=np.uint8)
            picture = Image.fromarray(noise).resize((48, 48), Image.Resampling.BICUBIC)
            picture.save(root / name / f"{cell}.png")
    copied = Image.open(root / "P009" / "0.png").point(lambda value: min(255, int(value * 1.05)))
    copied.save(root / "P004" / "0.png")


def test_a_picture_that_looks_the_same_in_two_patients_is_named(make_run: Callable[..., Path], tmp_path: Path) -> None:
    run = make_run()
    _photograph(tmp_path / "images", list(people(18).index))
    write_json(tmp_path / "s.zarr" / "source.json", {"root": str(tmp_path / "images")})
    (finding,) = _named(run, "near-duplicate")
    assert finding.level == "error"
    assert "P004/0 of patient P004 and P009/0 of patient P009" in finding.text
    assert _named(run, "near-duplicate", images=False) == []


def test_patients_of_a_group_on_both_sides_of_a_fold_are_named(make_run: Callable[..., Path]) -> None:
    run = make_run()
    plain = Folds.stratified(people(18)["label"], 3, seed=0).table
    _folds_of(run, lambda _: plain)
    assert "group-parted" in _errors(run)


def test_the_pretraining_of_the_encoder_is_warned_of(make_run: Callable[..., Path]) -> None:
    def plant(path: Path) -> None:
        store = json.loads((path / "zarr.json").read_text())
        store["attributes"]["encoder_seen"] = ["Toy"]
        (path / "zarr.json").write_text(json.dumps(store))

    (finding,) = _named(make_run(plant), "encoder-overlap")
    assert finding.level == "warning"
    assert finding.text.startswith("The encoder toy-encoder has seen images of Toy (wholly or in part)")


def test_a_site_that_the_bags_tell_is_warned_of_and_a_sex_that_they_do_not_is_noted(tmp_path: Path) -> None:
    patients = people(40)
    patients["site"] = ["x" if number % 4 < 2 else "y" for number in range(40)]
    patients["sex"] = np.random.default_rng(0).permutation(["F", "M"] * 20)
    shifts = {name: 4.0 * (site == "x") for name, site in patients["site"].items()}
    store = store_of(tmp_path / "s.zarr", patients, dict.fromkeys(patients.index, SIZE), shifts)
    cross_validate(store, FAST, tmp_path / "run")
    by_text = {finding.text.split(":")[0]: finding for finding in _named(tmp_path / "run", "confounder")}
    assert by_text["The bags tell the site"].level == "warning"
    assert by_text["The bags are not shown to tell the sex"].level == "note"
    assert "its tie to the label is 0.00 (95 % CI 0.00 to " in by_text["The bags tell the site"].text
    notes = _named(tmp_path / "run", "not-assessed")
    assert any(
        "Whether the bags tell scanner, age, number of cells cannot be said" in finding.text for finding in notes
    )


def test_the_controls_warnings_are_among_the_findings(make_run: Callable[..., Path]) -> None:
    run = make_run()
    write_json(run / "controls.json", {"warnings": ["Only the number of cells carries the label."]})
    (finding,) = _named(run, "control")
    assert finding == AuditFinding("warning", "control", "Only the number of cells carries the label.")


def test_cramers_v_is_1_for_equal_columns_and_the_closed_form_else() -> None:
    first, second = pd.Series(list("aabb")), pd.Series(list("xyxy"))
    assert cramers_v(first, first).estimate == pytest.approx(1)
    assert cramers_v(first, second).estimate == pytest.approx(0)
    uneven = pd.Series(list("xxxy"))
    assert cramers_v(first, uneven).estimate == pytest.approx(1 / np.sqrt(3))  # phi of the table 2 0 / 1 1


def test_twins_are_found_as_by_all_distances() -> None:
    generator = np.random.default_rng(0)
    features, patients = generator.normal(size=(300, 100)), np.arange(300) // 10
    features[25], features[140], features[8] = features[3] + 0.01, features[290] - 0.01, features[9]
    features[77] = np.nan
    assert feature_twins(features, patients).rows.tolist() == [[3, 25], [140, 290]]


def test_files_that_are_unknown_are_not_the_same() -> None:
    digests = np.zeros((5, 32), dtype=np.uint8)
    digests[[1, 3, 4], 0] = 7
    assert same_files(digests, np.array([0, 1, 2, 3, 1])).rows.tolist() == [[1, 3]]


@pytest.mark.parametrize(("leak", "status"), [(False, 0), (True, 3)])
def test_the_command_names_each_finding_and_ends_with_3_on_an_error(
    make_run: Callable[..., Path], tmp_path: Path, leak: bool, status: int
) -> None:
    run = make_run()
    if leak:
        _folds_of(run, lambda table: table.assign(role=table.role.mask(table.patient_id == "P007", "test")))
    done = CliRunner().invoke(app, ["--workspace", str(tmp_path / "work"), "audit", str(run)])
    assert done.exit_code == status, done.output
    assert ("error: patient-in-two-folds: 1 patient (P007)" in done.stdout) == leak
    asked = CliRunner().invoke(app, ["--workspace", str(tmp_path / "work"), "audit", str(run), "--json"])
    assert asked.exit_code == status
    levels = {finding["level"] for finding in json.loads(asked.stdout)["findings"]}
    assert ("error" in levels) == leak


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"There is no run at .*; make one with `milkit train-mil`, or name another one"):
        audit_run(tmp_path)


def test_sites_can_be_left_out_from_the_command_line(tmp_path: Path) -> None:
    patients = people(24)
    patients["site"] = [f"site{number // 2 % 3}" for number in range(24)]
    store_of(tmp_path / "s.zarr", patients, dict.fromkeys(patients.index, SIZE), {})
    common = ["--workspace", str(tmp_path / "work"), "train-mil", "--store", str(tmp_path / "s.zarr"), "--name", "left"]
    more = ["--set", "training.max_epochs=1", "--set", "bootstrap=100", "--set", "controls=false"]
    done = CliRunner().invoke(app, [*common, "--splits", "leave-site-out", *more])
    assert done.exit_code == 0, done.output
    run = tmp_path / "work" / "runs" / "left"
    assert [set(patients.loc[split.test, "site"]) for split in Folds.load(run / "folds.csv").splits()] == [
        {"site0"},
        {"site1"},
        {"site2"},
    ]
    assert _errors(run) == set()
