"""Which ids identify: those of one's own tables, until the recipe says otherwise, and none that are published."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from toys import made_of, make_store, toy_patients

from milkit.bags import BagStore, image_paths, study_cells
from milkit.cohort import Cohort, find_recipe, load_cohort, told_notes
from milkit.cohort_init import draft_recipe
from milkit.errors import SettingsError
from milkit.exchange.exporting import export_hdf5
from milkit.exchange.importing import import_hdf5
from milkit.mil.crossval import cross_validate
from milkit.report.settings import ReportSettings
from milkit.report.write import write_report
from milkit.runs import Workspace
from milkit.settings import CohortRecipe, MilSettings, recipe_names
from milkit.tables import digest


@pytest.mark.parametrize("name", recipe_names("cohorts"))
def test_every_published_recipe_says_that_its_ids_are_pseudonyms(name: str) -> None:
    assert find_recipe(name).ids == "pseudonymous"


def _study(folder: Path) -> Path:
    for path in ("a/P1/1.png", "a/P2/1.png"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"")
    (folder / "t.csv").write_text("patient_id,label\nP1,AML\nP2,donor\n")
    return folder


def _recipe(folder: Path, **more: str) -> CohortRecipe:
    arguments = {"images": "a/{patient_id}/{cell_id}.png", "patients": "t.csv"}
    values = {"name": "own", "factory": "tabular", "root": str(folder), "arguments": arguments, **more}
    (folder / "own.yaml").write_text(yaml.safe_dump(values))
    return find_recipe(str(folder / "own.yaml"))


def test_ids_of_a_table_of_one_s_own_identify_unless_its_recipe_says_otherwise(tmp_path: Path) -> None:
    folder = _study(tmp_path)
    assert load_cohort(_recipe(folder)).ids == "identifying"
    assert load_cohort(_recipe(folder, ids="pseudonymous")).ids == "pseudonymous"
    with pytest.raises(SettingsError, match="ids"):
        _recipe(folder, ids="secret")


def test_the_drawn_cohort_has_pseudonyms(tmp_path: Path) -> None:
    recipe = CohortRecipe(name="synthetic", factory="synthetic", root=tmp_path,
                          arguments={"patients_per_class": 1, "cells_per_patient": (2, 2)})  # fmt: skip
    assert load_cohort(recipe).ids == "pseudonymous"


def test_a_draft_recipe_says_that_ids_identify(tmp_path: Path) -> None:
    text = draft_recipe(_study(tmp_path))
    assert yaml.safe_load(text)["ids"] == "identifying"


def test_notes_of_a_cohort_whose_ids_identify_name_nobody() -> None:
    cells = pd.DataFrame({"cell_id": ["Mueller/1", "Weber/1"], "patient_id": ["Mueller", "Weber"], "path": ["a", "b"]})
    patients = pd.DataFrame({"label": ["A", "A"]}, index=pd.Index(["Mueller", "Weber"], name="patient_id"))
    notes = ("Mueller, and Weber/1 (Muellers) are odd.",)
    own = Cohort("own", Path(), patients, cells, ("A",), notes)
    assert told_notes(own) == ["…, and … (Muellers) are odd."]
    published = Cohort("own", Path(), patients, cells, ("A",), notes, ids="pseudonymous")
    assert told_notes(published) == list(notes)


def test_cells_of_nobody_get_study_ids_and_keep_their_order(tmp_path: Path) -> None:
    names = [f"Mueller_{number}.png" for number in range(5)]
    cells = pd.DataFrame({"cell_id": names, "patient_id": None, "path": names, "cell_type": "x"}, dtype=object)
    patients = pd.DataFrame(index=pd.Index([], name="patient_id", dtype=object))
    facts = made_of(cohort_digest=digest(cells), classes=[], ids="identifying")
    store = BagStore.create(tmp_path / "s.zarr", patients, cells, 2, facts)
    features = np.arange(10, dtype=np.float32).reshape(5, 2)
    store.write("block-00000", features, np.zeros((5, 32), np.uint8), {})
    store.close()
    view = BagStore.open(tmp_path / "s.zarr")
    np.testing.assert_array_equal(view.load(), features)
    assert view.cells["cell_id"].str.fullmatch("C-[A-Z2-7]{12}").all()
    assert view.cells["cell_id"].tolist() == study_cells(view, pd.Series(names)).tolist()
    assert image_paths(view).tolist() == names
    assert [bag.patient_id for bag in view] == ["block-00000"]


def test_samples_get_study_ids_and_the_reasons_of_unreadable_cells_name_no_file(tmp_path: Path) -> None:
    cells = pd.DataFrame([("Mueller/1", "Mueller", "Mueller/1.png", "smear-7"), ("Weber/1", "Weber", "w.png", None)],
                         columns=["cell_id", "patient_id", "path", "sample_id"])  # fmt: skip
    patients = pd.DataFrame({"label": ["A", "B"]}, index=pd.Index(["Mueller", "Weber"], name="patient_id"))
    facts = made_of(cohort_digest=digest(cells), ids="identifying")
    store = BagStore.create(tmp_path / "s.zarr", patients, cells, 2, facts)
    lost = {"Mueller/1": "its features are not finite in 1.png"}
    store.write("Mueller", np.full((1, 2), np.nan), np.zeros((1, 32), np.uint8), lost)
    store.write("Weber", np.zeros((1, 2)), np.zeros((1, 32), np.uint8), {})
    store.close()
    view = BagStore.open(tmp_path / "s.zarr")
    (failed,) = view.failures.to_dict("records")
    assert failed["reason"] == "its features are not finite in its file"
    assert failed["path"] == ""
    assert failed["cell_id"] in set(view.cells["cell_id"])
    assert failed["patient_id"] in set(view.patients.index)
    assert sorted(view.cells["sample_id"].fillna(""))[0] == ""
    assert view.cells["sample_id"].dropna().str.fullmatch("S-[A-Z2-7]{12}").all()
    assert not view.cells.astype(str).apply(lambda column: column.str.contains("Mueller|smear")).any(axis=None)


def test_what_is_imported_identifies_unless_files_recipe_or_user_say_otherwise(tmp_path: Path) -> None:
    store = make_store(tmp_path / "here" / "s.zarr", toy_patients(), ids="identifying")
    export_hdf5(store, tmp_path / "bags")  # under study ids
    work = Workspace(tmp_path / "work")

    def ids(folder: Path, cohort: str, **how: str) -> str:
        path = import_hdf5(folder, cohort, work, patients=tmp_path / "bags" / "patients.csv", **how).path  # type: ignore[arg-type]
        return str(json.loads((path / "zarr.json").read_text())["attributes"]["ids"])

    assert ids(tmp_path / "bags", "exported") == "pseudonymous"
    assert ids(tmp_path / "bags", "said", ids="identifying") == "identifying"
    assert ids(tmp_path / "bags", "said", ids="pseudonymous") == "pseudonymous"  # the same store, told otherwise


def test_a_patient_called_like_a_script_is_a_study_id_in_a_report_and_nothing_runs(tmp_path: Path) -> None:
    hostile = {"P00": "<script>alert(1)</script>", "P01": "=cmd|' /C calc'!A0", "P02": 'Мюллер, "Иван"'}
    path = tmp_path / "Отчёт" / "s.zarr"
    make_store(path, toy_patients().rename(index=hostile), ids="identifying")
    settings = MilSettings(store=path, folds=3, bootstrap=100, training={"max_epochs": 1}, controls=False)  # type: ignore[arg-type]
    run = tmp_path / "Отчёт" / "runs" / "first"
    cross_validate(BagStore.open(path), settings, run)
    report = write_report(run, ReportSettings())
    for file in (file for file in run.rglob("*") if file.is_file()):
        text = file.read_bytes().decode("utf-8", errors="ignore")
        assert not any(name in text for name in hostile.values()), file
    assert "alert(1)" not in report.read_text(encoding="utf-8")
