"""`milkit probe`: what is tested on what, with which figures, and what a person reads of it."""

import contextlib
import json
import os
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from probe_toys import labelled_cells, labelled_store, with_patients
from sklearn import metrics as sk
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from typer.testing import CliRunner

from milkit.bags import BagStore
from milkit.cli import app
from milkit.errors import FoldError, RunError, StoreError, UnknownName
from milkit.labelled_cells import Groups, cell_table
from milkit.probe.evaluate import probe
from milkit.probe.split_file import NEITHER, TRAIN, read_split
from milkit.probe.table import probe_tables
from milkit.probe.task import Task, make_task, same_cells
from milkit.probe_settings import ProbeSettings
from milkit.settings import find_recipe, load

QUICK = {"bootstrap": 100, "shots": (1, 5), "draws": 3, "neighbours": (1, 5)}


def settings(**changes: Any) -> ProbeSettings:
    return ProbeSettings(**(QUICK | changes))


def task_of(store: BagStore, **changes: Any) -> Task:
    chosen = settings(**changes)
    return make_task(same_cells([store], chosen), np.isfinite(store.load()).all(axis=1), chosen)


@pytest.fixture
def store(tmp_path: Path) -> BagStore:
    """99 cells of three classes without patients."""
    return labelled_store(tmp_path / "toy.zarr")


def test_a_cell_s_labels_are_read_from_the_store_and_blocks_are_no_patients(store: BagStore) -> None:
    assert store.cells["cell_type"].value_counts().to_dict() == {"LYT": 45, "BAS": 30, "MON": 24}
    assert Groups.of(cell_table(store)).unit == "cells"


def test_every_cell_is_tested_once_in_folds_of_like_class_shares(store: BagStore) -> None:
    task = task_of(store)
    assert task.folds == (0, 1, 2, 3, 4)
    counts = np.array([np.bincount(task.labels[task.fold == fold], minlength=3) for fold in task.folds])
    assert counts.sum() == 99
    assert (counts.max(axis=0) - counts.min(axis=0) <= 1).all()


def test_folds_follow_the_seed(store: BagStore) -> None:
    first, same, other = (task_of(store, seed=seed).fold for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, same)
    assert (first != other).any()


def test_copies_of_an_image_are_tested_together(tmp_path: Path) -> None:
    files = list(range(99))
    files[10], files[50], files[77] = 0, 1, 1
    fold = task_of(labelled_store(tmp_path / "s.zarr", files=files)).fold
    assert fold[10] == fold[0]
    assert fold[50] == fold[1] == fold[77]


def test_a_patient_s_cells_are_tested_together_and_intervals_draw_patients(tmp_path: Path) -> None:
    store = labelled_store(tmp_path / "s.zarr", with_patients(labelled_cells(), 20))
    task = task_of(store)
    by_patient = pd.Series(task.fold).groupby(store.cells["patient_id"]).nunique()
    assert (by_patient == 1).all()
    result = probe([store], settings(), tmp_path / "p")
    assert (result["unit"], result["n_units"]) == ("patients", 20)


def test_patients_who_share_an_image_are_one_group(tmp_path: Path) -> None:
    files = list(range(99))
    files[0] = files[98]
    groups = Groups.of(
        cell_table(labelled_store(tmp_path / "s.zarr", with_patients(labelled_cells(), 20), files=files))
    )
    assert groups.of_cell[0] == groups.of_cell[98] == groups.of_cell[1]
    assert len(np.unique(groups.of_cell)) == 19


def test_cells_of_unknown_files_do_not_belong_together(tmp_path: Path) -> None:
    """As in a store of imported features, which has no digests of images."""
    store = labelled_store(tmp_path / "s.zarr", with_patients(labelled_cells(), 20), files=[-1] * 99)
    assert len(np.unique(Groups.of(cell_table(store)).of_cell)) == 20
    alone = labelled_store(tmp_path / "t.zarr", files=[-1] * 99)
    assert len(np.unique(Groups.of(cell_table(alone)).of_cell)) == 99


def test_cells_of_one_field_are_tested_together(tmp_path: Path) -> None:
    cells = labelled_cells().assign(box=[f"{n} 0 5 5" for n in range(99)])
    task = task_of(labelled_store(tmp_path / "s.zarr", cells, files=[n // 3 for n in range(99)]))
    assert task.groups.unit == "fields"
    assert (task.fold.reshape(33, 3) == task.fold.reshape(33, 3)[:, :1]).all()


def test_cells_without_features_labels_or_enough_company_are_left_out_and_counted(tmp_path: Path) -> None:
    cells = labelled_cells({"BAS": 30, "LYT": 45, "MON": 24, "NIF": 9, "ABE": 3})
    cells.loc[[5, 6], "cell_type"] = [None, "  "]
    store = labelled_store(tmp_path / "s.zarr", cells, failed=(5, 9, 40))
    task = task_of(store, leave_out=("NIF",))
    kinds = store.cells["cell_type"]
    assert task.left_out["unreadable"] == 3
    assert task.left_out["unlabelled"] == 1  # row 5 is counted as unreadable
    assert task.left_out["of labels left out"] == int((kinds == "NIF").drop([5, 6, 9, 40]).sum())
    assert task.left_out["of rare classes"] == int((kinds == "ABE").drop([5, 6, 9, 40]).sum())
    assert task.classes == ("BAS", "LYT", "MON")
    assert any("ABE" in note for note in task.notes)
    assert len(task.labels) == len(cells) - sum(task.left_out.values())


def test_the_figures_are_those_of_scikit_learn_s_classifiers_on_the_same_folds(store: BagStore, tmp_path: Path) -> None:
    task = task_of(store)
    result = probe([store], settings(), tmp_path / "p")
    features = store.load()[task.rows].astype(np.float64)
    models = {
        "1-NN": lambda: KNeighborsClassifier(1),
        "5-NN": lambda: KNeighborsClassifier(5),
        "linear": lambda: LogisticRegression(C=8 * 3 / 100, max_iter=1000),
    }
    for name, make in models.items():
        guess = np.full(99, -1)
        for fold in task.folds:
            tested = task.fold == fold
            guess[tested] = make().fit(features[~tested], task.labels[~tested]).predict(features[tested])
        ours = result["encoders"]["toy-encoder"]["classifiers"][name]
        assert ours["weighted_f1"]["estimate"] == pytest.approx(sk.f1_score(task.labels, guess, average="weighted"))
        assert ours["balanced_accuracy"]["estimate"] == pytest.approx(sk.balanced_accuracy_score(task.labels, guess))
        by_fold = [sk.accuracy_score(task.labels[task.fold == f], guess[task.fold == f]) for f in task.folds]
        assert ours["accuracy"]["folds"] == pytest.approx(by_fold)
        assert ours["accuracy"]["ci_low"] < ours["accuracy"]["estimate"] < ours["accuracy"]["ci_high"]


def test_features_without_information_are_at_chance(tmp_path: Path) -> None:
    noise = labelled_store(tmp_path / "n.zarr", labelled_cells({"A": 200, "B": 200}), separation=0.0)
    result = probe([noise], settings(shots=()), tmp_path / "p")
    for metrics in result["encoders"]["toy-encoder"]["classifiers"].values():
        assert metrics["balanced_accuracy"]["estimate"] == pytest.approx(0.5, abs=0.08)
    assert result["chance_balanced_accuracy"] == 0.5


def test_several_encoders_are_compared_on_the_same_folds(tmp_path: Path) -> None:
    poor = labelled_store(tmp_path / "a.zarr", separation=0.7, encoder="poor", encoder_digest="a" * 64)
    good = labelled_store(tmp_path / "b.zarr", separation=6.0, dim=5, encoder="good", encoder_digest="b" * 64)
    result = probe([poor, good], settings(), tmp_path / "p")
    assert result["reference"] == "poor"
    gap = result["differences"]["good"]["linear"]["balanced_accuracy"]
    own = {name: encoder["classifiers"]["linear"]["balanced_accuracy"] for name, encoder in result["encoders"].items()}
    assert gap["estimate"] == pytest.approx(own["good"]["estimate"] - own["poor"]["estimate"])
    assert 0 < gap["ci_low"] < gap["estimate"] < gap["ci_high"]
    table = pd.read_csv(tmp_path / "p" / "predictions.csv")
    assert {"poor 1-NN", "good linear"} <= set(table)
    assert sk.accuracy_score(table["label"], table["good linear"]) == pytest.approx(
        result["encoders"]["good"]["classifiers"]["linear"]["accuracy"]["estimate"]
    )


def test_a_cell_that_one_store_lacks_is_left_out_for_all(tmp_path: Path) -> None:
    whole = labelled_store(tmp_path / "a.zarr")
    torn = labelled_store(tmp_path / "b.zarr", failed=(3,), encoder_digest="b" * 64)
    result = probe([whole, torn], settings(shots=()), tmp_path / "p")
    assert result["n_cells"] == 98
    assert list(result["encoders"]) == ["toy-encoder-eeeeeeee", "toy-encoder-bbbbbbbb"]


def test_few_shot_curves_rise_and_draw_the_same_cells_for_every_encoder(tmp_path: Path) -> None:
    one = labelled_store(tmp_path / "a.zarr", separation=3.0, encoder="one")
    two = labelled_store(tmp_path / "b.zarr", separation=3.0, encoder="two", encoder_digest="b" * 64)
    result = probe([one, two], settings(shots=(1, 10), draws=5), tmp_path / "p")
    first, second = (result["encoders"][name]["few_shot"] for name in ("one", "two"))
    assert first == second  # the two stores hold the same features
    linear = {p["shots"]: p["balanced_accuracy"] for p in first if p["classifier"] == "linear"}
    assert linear[10]["mean"] > linear[1]["mean"]
    assert linear[1]["low"] < linear[1]["mean"] < linear[1]["high"]
    draws = pd.read_csv(tmp_path / "p" / "few_shot.csv")
    assert len(draws) == 2 * 2 * 2 * 5


def test_few_shot_trains_on_so_many_cells_of_each_class_and_never_on_tested_ones(
    store: BagStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import milkit.probe.few_shot as module

    task, seen, original = task_of(store), [], module.linear_probe
    everything = store.load().astype(np.float32)

    def spy(train: np.ndarray, labels: np.ndarray, tested: np.ndarray, iterations: int) -> Any:
        seen.append((train, labels, tested))
        return original(train, labels, tested, iterations)

    monkeypatch.setattr(module, "linear_probe", spy)
    module.few_shot(everything, task, settings(shots=(2, 30), draws=5), lambda n=1: None)
    for train, labels, tested in seen:
        assert not {row.tobytes() for row in train} & {row.tobytes() for row in tested}
        available = np.bincount(task.labels, minlength=3)
        assert (np.bincount(labels) <= np.minimum(30, available)).all()
    assert [len(labels) for _, labels, _ in seen][::2] == [6] * 5
    assert (np.bincount(seen[1][1])[2]) == np.bincount(task.labels[task.fold != 0])[2] < 30  # all that MON has


def test_progress_ends_at_its_total(store: BagStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, int] = {}

    @contextlib.contextmanager
    def counted(_: str, total: int, unit: str) -> Iterator[Callable[[], None]]:
        seen.update(total=total, done=0)
        yield lambda: seen.update(done=seen["done"] + 1)

    monkeypatch.setattr("milkit.probe.evaluate.progress", counted)
    probe([store], settings(shots=(1, 2, 5), draws=3), tmp_path / "p")
    assert seen["done"] == seen["total"] > 9


def test_the_folder_holds_everything_and_is_not_overwritten(store: BagStore, tmp_path: Path) -> None:
    result = probe([store], settings(), tmp_path / "p")
    assert {path.name for path in (tmp_path / "p").iterdir()} == {
        "probe.json", "figures.csv", "predictions.csv", "few_shot.csv", "few-shot.svg", "settings.yaml",
    }  # fmt: skip
    assert json.loads((tmp_path / "p" / "probe.json").read_text()) == json.loads(json.dumps(result))
    assert ElementTree.parse(tmp_path / "p" / "few-shot.svg").getroot().tag.endswith("svg")
    again = load(ProbeSettings, tmp_path / "p" / "settings.yaml", {})
    assert again == settings()
    with pytest.raises(RunError, match="exists already and is not overwritten"):
        probe([store], settings(), tmp_path / "p")


def test_a_failure_leaves_no_folder(store: BagStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("milkit.probe.evaluate.linear_probe", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        probe([store], settings(), tmp_path / "out" / "p")
    assert list((tmp_path / "out").iterdir()) == []


def test_an_encoder_that_has_seen_the_cohort_is_named(tmp_path: Path) -> None:
    store = labelled_store(tmp_path / "s.zarr", encoder_seen=["toy", "bmc"])
    notes = probe([store], settings(shots=()), tmp_path / "p")["notes"]
    assert any("toy-encoder has seen this cohort" in note for note in notes)


def test_an_encoder_that_has_seen_the_cohort_is_named_whatever_its_recipe_is_called(tmp_path: Path) -> None:
    store = labelled_store(tmp_path / "s.zarr", cohort="mine", cohort_factory="bmc", encoder_seen=["BMC"])
    notes = probe([store], settings(shots=()), tmp_path / "p")["notes"]
    assert any("toy-encoder has seen this cohort" in note for note in notes)


def test_stores_of_other_cells_are_refused(tmp_path: Path) -> None:
    other = labelled_cells({"BAS": 30, "LYT": 45, "MON": 25})
    stores = [labelled_store(tmp_path / "a.zarr"), labelled_store(tmp_path / "b.zarr", other)]
    with pytest.raises(StoreError, match=r"hold different cells; .* so probe these stores one by one\.$"):
        probe(stores, settings(), tmp_path / "p")


def test_stores_with_other_labels_of_the_same_cells_are_refused(tmp_path: Path) -> None:
    cells = labelled_cells()
    swapped = cells.assign(cell_type=cells["cell_type"].replace({"BAS": "EOS"}))
    stores = [labelled_store(tmp_path / "a.zarr", cells), labelled_store(tmp_path / "b.zarr", swapped)]
    with pytest.raises(StoreError, match=r"different labels of the same cells; .* extract it again\.$"):
        probe(stores, settings(), tmp_path / "p")


def test_a_store_without_the_label_is_refused(store: BagStore, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"have no column 'kind', only cell_id, .*; probe a cohort whose cells"):
        probe([store], settings(label="kind"), tmp_path / "p")


def test_one_class_is_no_task(tmp_path: Path) -> None:
    store = labelled_store(tmp_path / "s.zarr", labelled_cells({"BAS": 30, "ABE": 4}))
    with pytest.raises(
        FoldError, match=r"has 1 classes that can be probed; expected two or more, with folds each in as"
    ):
        probe([store], settings(), tmp_path / "p")


def test_more_neighbours_than_training_cells_are_refused(store: BagStore, tmp_path: Path) -> None:
    with pytest.raises(FoldError, match=r"^90 neighbours were asked for, and 7\d cells are trained on; give fewer"):
        probe([store], settings(neighbours=(90,)), tmp_path / "p")


def test_labels_can_be_taken_for_what_they_mean(tmp_path: Path) -> None:
    """Of Acevedo's labels IG contains MY and MMY, and NEUTROPHIL contains BNE: no class may contain another."""
    cells = labelled_cells({"BNE": 20, "NEUTROPHIL": 10, "SNE": 20, "MY": 20, "MMY": 20, "IG": 10, "BA": 20})
    store = labelled_store(tmp_path / "s.zarr", cells, cohort="mine", cohort_factory="acevedo")
    assert task_of(store, taxonomy=True).classes == ("basophil", "granulocyte_maturing", "neutrophil")
    fine = task_of(store, taxonomy=True, leave_out=("IG", "NEUTROPHIL"))
    assert fine.classes == ("basophil", "metamyelocyte", "myelocyte", "neutrophil_band", "neutrophil_segmented")
    assert fine.left_out["of labels left out"] == 20


def test_labels_that_mean_no_single_node_are_left_out_and_counted(tmp_path: Path) -> None:
    store = labelled_store(
        tmp_path / "s.zarr", labelled_cells({"BLA": 20, "NGB": 20, "EOS": 20, "OTH": 9}), cohort="bmc"
    )
    task = task_of(store, taxonomy=True)
    assert task.classes == ("eosinophil", "neutrophil_band")
    assert task.left_out["of labels that mean no single node"] == 29


def test_a_cohort_whose_labels_have_no_meaning_yet_is_refused(store: BagStore, tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="'toy'"):
        task_of(store, taxonomy=True)


def split_file(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_list_of_tested_images_is_a_split(store: BagStore, tmp_path: Path) -> None:
    """As DinoBloom publishes it: paths of another machine, the tested images alone."""
    listed = split_file(
        tmp_path / "bm_test.csv",
        "Image Path,Label\n/mnt/BM/test/BAS/toy_00003.jpg,BAS\nC:\\BM\\toy_00050.tiff,LYT\n/mnt/x_99999.jpg,BAS\n",
    )
    roles, absent = read_split(listed, store.cells)
    assert np.flatnonzero(roles == 0).tolist() == [3, 50]
    assert (roles == TRAIN).sum() == 97
    assert absent == 1


def test_a_table_of_roles_leaves_the_other_cells_out(store: BagStore, tmp_path: Path) -> None:
    rows = [f"toy_{n:05d},{'test' if n % 4 == 0 else 'train'}" for n in range(80)]
    path = split_file(tmp_path / "split.csv", "cell_id,role\n" + "\n".join(rows) + "\n")
    roles, absent = read_split(path, store.cells)
    assert ((roles == 0).sum(), (roles == TRAIN).sum(), (roles == NEITHER).sum(), absent) == (20, 60, 19, 0)
    result = probe([store], settings(split=path), tmp_path / "p")
    assert (result["n_tested"], result["n_cells"], result["left_out"]["not in the split"]) == (20, 80, 19)
    assert "by the split split.csv" in probe_tables(result)
    figure = result["encoders"]["toy-encoder"]["classifiers"]["linear"]["accuracy"]
    assert figure["folds"] == [figure["estimate"]]


def test_copies_on_both_sides_of_a_published_split_are_said(tmp_path: Path) -> None:
    files = [n % 90 for n in range(99)]
    rows = [f"toy_{n:05d},{'test' if n < 40 else 'train'}" for n in range(99)]
    path = split_file(tmp_path / "split.csv", "cell_id,role\n" + "\n".join(rows) + "\n")
    task = task_of(labelled_store(tmp_path / "s.zarr", files=files), split=path)
    assert "The split trains on copies of the same images as 9 of its tested cells." in task.notes


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("image,role\na,test\n", r"has the columns image, role; expected cell_id, path or Image Path"),
        ("cell_id,role\ntoy_00001,val\n", r"has the role 'val'; expected train or test"),
        ("cell_id,role\ntoy_00001,test\ntoy_00001,train\n", r"puts 'toy_00001' into training and into test"),
        (
            "cell_id,role\ntoy_00001,test\n",
            r"1 cells of the store are tested and 0 train; give the split of this cohort",
        ),
        (
            "",
            r"cannot be read as CSV; give a table with a column cell_id, path or Image Path, or a column of the cells",
        ),
    ],
)
def test_a_split_that_does_not_fit_is_refused(store: BagStore, tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(FoldError, match=sentence):
        task_of(store, split=split_file(tmp_path / "split.csv", text))


def with_column(path: Path, name: str, values: list[str]) -> BagStore:
    """The store with a column whose values repeat these."""
    cells = labelled_cells()
    return labelled_store(path / "c.zarr", cells.assign(**{name: [values[n % len(values)] for n in range(len(cells))]}))


def test_a_column_of_the_cells_is_a_split(tmp_path: Path) -> None:
    store = with_column(tmp_path, "split", ["Train", "Train", "TestA", "TestB", "val", ""])
    task = task_of(store, split="split")
    parts = store.cells["split"].fillna("")
    assert dict(zip(task.cell_ids, task.fold, strict=True)) == {
        cell: TRAIN if part == "Train" else 0
        for cell, part in zip(store.cells["cell_id"], parts, strict=True)
        if part not in ("val", "")
    }
    assert task.left_out["not in the split"] == int(parts.isin(["val", ""]).sum())
    assert task.split == {"kind": "column", "column": "split", "train": ["Train"], "test": ["TestA", "TestB"]}
    assert "Cells of 'val' in the column split neither train nor are tested." in task.notes
    result = probe([store], settings(split="split", shots=()), tmp_path / "p")
    assert "by the column split (test: TestA, TestB)" in probe_tables(result)


def test_a_column_without_train_and_test_is_one_of_folds(tmp_path: Path) -> None:
    store = with_column(tmp_path, "centre", ["Basel", "Ulm", "Graz"])
    task = task_of(store, split="centre")
    assert task.split == {"kind": "column", "column": "centre", "folds": ["Basel", "Graz", "Ulm"]}
    assert task.fold.tolist() == [["Basel", "Graz", "Ulm"].index(name) for name in store.cells["centre"]]
    result = probe([store], settings(split="centre", shots=()), tmp_path / "p")
    assert "by the column centre (folds: Basel, Graz, Ulm)" in probe_tables(result)
    assert len(result["encoders"]["toy-encoder"]["classifiers"]["linear"]["accuracy"]["folds"]) == 3


def test_a_column_of_the_patients_is_a_split_and_copies_across_its_folds_are_said(tmp_path: Path) -> None:
    files = list(range(99))
    files[0] = files[98]
    store = labelled_store(tmp_path / "s.zarr", with_patients(labelled_cells(), 18), files=files)
    task = task_of(store, split="site")
    assert len(task.folds) == 3
    apart = store.patients["site"]["P00"] != store.patients["site"]["P17"]
    notes = [note for note in task.notes if "trains on the same patients as" in note]
    assert apart
    assert len(notes) == 1


def test_a_file_called_like_a_column_is_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = with_column(tmp_path, "split", ["train", "test"])
    split_file(tmp_path / "split", "cell_id\ntoy_00001\n")
    assert task_of(store, split="split").split["kind"] == "published"


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            ["train", "val"],
            r"^The column split has train, val, expected train and test, or a value for each fold; give an",
        ),
        (
            ["one"],
            r"^The column split has one, expected train and test, or a value for each fold; give another column\.$",
        ),
        (
            [f"f{n}" for n in range(30)],
            r"^The column split has f0, .* and 25 more, expected train and test, or a value",
        ),
    ],
)
def test_a_column_that_is_no_split_is_refused(tmp_path: Path, values: list[str], sentence: str) -> None:
    with pytest.raises(FoldError, match=sentence):
        task_of(with_column(tmp_path, "split", values), split="split")


def test_a_split_whose_tested_cells_are_all_left_out_is_refused(tmp_path: Path) -> None:
    cells = labelled_cells()
    store = labelled_store(
        tmp_path / "s.zarr", cells.assign(split=["train", "test"] * 49 + ["train"]), failed=tuple(range(1, 99, 2))
    )
    with pytest.raises(
        FoldError, match=r"^No cell that the split tests has a label and features; give another split\.$"
    ):
        task_of(store, split="split")


def test_a_split_that_trains_on_one_class_is_refused(store: BagStore, tmp_path: Path) -> None:
    rows = [f"{row.cell_id},{'train' if row.cell_type == 'BAS' else 'test'}" for row in store.cells.itertuples()]
    with pytest.raises(FoldError, match=r"^The split trains on fewer than two classes; give the split of this cohort"):
        task_of(store, split=split_file(tmp_path / "split.csv", "cell_id,role\n" + "\n".join(rows) + "\n"))


def test_an_ambiguous_file_name_in_a_split_is_refused(tmp_path: Path) -> None:
    cells = labelled_cells()
    cells["path"] = [f"folder{n % 2}/{n // 2}.png" for n in range(99)]
    store = labelled_store(tmp_path / "s.zarr", cells)
    with pytest.raises(FoldError, match=r"names '7', which several cells of the store are called; give their cell_id"):
        task_of(store, split=split_file(tmp_path / "split.csv", "path\nx/7.png\n"))


def test_the_table_has_the_paper_s_layout_in_per_cent_with_intervals(store: BagStore, tmp_path: Path) -> None:
    published = {"source": "A paper", "differs": ["Other classes."], "rows": {"Net": {"linear": [84.9, None, 64.4]}}}
    result = probe([store], settings(published=published), tmp_path / "p")
    lines = probe_tables(result).splitlines()
    (header,) = [n for n, line in enumerate(lines) if line.split() == ["1-NN", "5-NN", "linear"]]
    assert lines[header + 1].split() == ["wF1", "Acc", "bAcc"] * 3
    name, *values = lines[header + 2].split()
    figures = result["encoders"]["toy-encoder"]["classifiers"]
    assert name == "toy-encoder"
    assert values == [f"{100 * metric['estimate']:.1f}" for own in figures.values() for metric in own.values()]
    assert re.fullmatch(r"(\s+\d+\.\d-\d+\.\d){9}", lines[header + 3])
    assert lines[header + 4].split() == ["Net", "(published)", *["-"] * 6, "84.9", "-", "64.4"]
    assert lines[-2:] == ["published: A paper", "  differs: Other classes."]
    assert (
        "the intervals are over cells as if each were independent, too narrow where patients are behind them" in lines
    )


def test_a_linear_probe_that_stopped_early_is_said(store: BagStore, tmp_path: Path) -> None:
    result = probe([store], settings(iterations=2, shots=()), tmp_path / "p")
    assert "5 of 5 linear probes of toy-encoder stopped at their last iteration" in probe_tables(result)


@pytest.mark.parametrize("name", ["acevedo", "bmc"])
def test_the_recipes_of_published_cohorts_are_settings_with_their_source(name: str) -> None:
    recipe = load(ProbeSettings, find_recipe("probe", name), {})
    assert recipe.published is not None
    assert recipe.published.source
    assert recipe.published.differs


@pytest.fixture
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MILKIT_WORKSPACE", raising=False)


def run(*arguments: object, status: int = 0) -> Any:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == status, (result.exit_code, result.output, result.exception)
    return result


FLAGS = ["--set", "bootstrap=100", "--set", "shots=[1]", "--set", "draws=2", "--set", "neighbours=[1,5]"]


@pytest.mark.usefixtures("_elsewhere")
def test_the_command_probes_several_stores_and_says_where_the_result_is(tmp_path: Path) -> None:
    labelled_store(tmp_path / "a.zarr", encoder="one")
    labelled_store(tmp_path / "b.zarr", encoder="two", encoder_digest="b" * 64)
    printed = run("probe", "a.zarr", "b.zarr", "--name", "first", *FLAGS).stdout
    assert "balanced accuracy less that of one" in printed
    assert printed.splitlines()[-1] == f"probe {Path('milkit-work/probes/first')}"
    figures = pd.read_csv(tmp_path / "milkit-work/probes/first/figures.csv")
    assert len(figures) == 2 * 3 * 3
    parsed = json.loads(run("probe", "a.zarr", "--json", *FLAGS).stdout)
    assert parsed["probe"].startswith("milkit-work/probes/toy-")
    assert parsed["n_cells"] == 99


@pytest.mark.usefixtures("_elsewhere")
def test_a_cohort_with_a_recipe_gets_the_paper_s_classes_and_says_so(tmp_path: Path) -> None:
    cells = labelled_cells({"BA": 30, "EO": 30, "IG": 20, "NEUTROPHIL": 20})
    labelled_store(tmp_path / "a.zarr", cells, cohort="acevedo")
    done = run("probe", "a.zarr", *FLAGS)
    assert "recipe configs/probe/acevedo.yaml" in done.stderr
    assert "in 2 classes" in done.stdout
    assert "40 of labels left out" in done.stdout
    assert "published: Koch et al." in done.stdout


@pytest.mark.usefixtures("_elsewhere")
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["a.zarr", "a.zarr"], r"was given twice; name every store once\."),
        (["a.zarr", "--name", "../x"], r"The run name '\.\./x' was given"),
        (["a.zarr", "--folds", "1"], r"folds: Input should be greater than or equal to 2"),
        (["a.zarr", "--split", "none.csv"], r"The split none\.csv cannot be read as CSV"),
        ([], r"holds no store; make one with `milkit extract`"),
    ],
)
def test_what_a_user_can_mend_is_one_sentence(tmp_path: Path, arguments: list[str], sentence: str) -> None:
    labelled_store(tmp_path / "a.zarr")
    refused = run("probe", *arguments, status=2)
    assert refused.stderr.startswith("milkit: ")
    assert re.search(sentence, refused.stderr)
    assert not Path("milkit-work/probes").exists() or not list(Path("milkit-work/probes").iterdir())


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.usefixtures("_elsewhere")
def test_two_encoders_are_probed_on_real_cells(tmp_path: Path) -> None:
    """Acevedo: 40 images of each prefix, under measurements and under a network with random weights."""
    if not os.environ.get("MILKIT_REAL_DATA"):
        pytest.skip("MILKIT_REAL_DATA is unset: no real data here")
    from real_cells import CLASSICAL, RANDOM_NET, extract_acevedo

    stores = extract_acevedo(tmp_path / "work", CLASSICAL, RANDOM_NET, per_prefix=40)
    printed = run("probe", *stores, "--name", "acevedo", "--set", "bootstrap=200", "--set", "draws=2").stdout
    result = json.loads((tmp_path / "milkit-work/probes/acevedo/probe.json").read_text())
    assert len(result["classes"]) == 11
    assert result["left_out"]["of labels left out"] == 40 + 40
    assert "classical" in printed
    assert "DinoBloom issue 6" in printed
    linear = {name: own["classifiers"]["linear"] for name, own in result["encoders"].items()}
    assert linear["classical"]["balanced_accuracy"]["ci_low"] > 0.5  # chance is 0.09
    assert all(own["balanced_accuracy"]["ci_low"] > 0.15 for own in linear.values())
