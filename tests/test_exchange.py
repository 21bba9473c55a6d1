"""Bags leave for other tools and come back: same features, ids, labels and classes, and nothing half-written."""

import json
import os
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import zarr
from toys import CLASSES, made_of, make_store, toy_patients

from milkit.bags import BagStore
from milkit.errors import MilkitError, RunError, StoreError
from milkit.exchange.exporting import export_h5ad, export_hdf5
from milkit.exchange.importing import Imported, import_hdf5
from milkit.exchange.patient_files import file_names, read_patient_file
from milkit.runs import Workspace
from milkit.tables import digest

AWKWARD = {"Иванов 7": 'APL, "PML::RARA"', "a/b": "control", "A1": "control", "a1": "control", "..": "control"}


def awkward_store(path: Path, *, dtype: str = "float16") -> BagStore:
    """Five patients whose ids are no file names, of two classes of which one needs quotes; one cell of each failed."""
    ids = sorted(AWKWARD)
    patients = pd.DataFrame({"label": [AWKWARD[name] for name in ids]}, index=pd.Index(ids, name="patient_id"))
    patients["age"] = [40.5, np.nan, 3.0, 71.0, 18.0]
    patients["blood / bone"] = ["blood", None, "bone", "blood", "1"]
    cells = pd.DataFrame(
        [(f"{name}/image_{cell}", name, f"{cell}.png") for name in ids for cell in range(12)],
        columns=["cell_id", "patient_id", "path"],
    )
    facts = made_of(cohort_digest=digest(cells), classes=list(dict.fromkeys(AWKWARD.values())), dtype=dtype)
    store = BagStore.create(path, patients, cells, 5, facts | {"encoder_seen": ["aml_hehr"]})
    generator = np.random.default_rng(0)
    for name in ids:
        features = generator.normal(size=(12, 5)).astype(np.float32)
        features[3] = np.nan
        store.write(name, features, np.zeros((12, 32), np.uint8), {f"{name}/image_3": "the file is missing"})
    store.close()
    return BagStore.open(path)


def write_bag(path: Path, features: npt.ArrayLike, **datasets: Any) -> Path:
    """An HDF5 file as other tools write it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["features"] = features
        for name, values in datasets.items():
            file[name] = values
    return path


def genbloom(root: Path, n_patients: int = 6, n_classes: int = 2, dim: int = 8) -> Path:
    """A folder as MarrLab/DinoBloom_hemato_embeddings has it: `features` float32, `labels` one integer."""
    generator = np.random.default_rng(1)
    for number in range(n_patients):
        rows = generator.normal(size=(5 + number, dim)).astype(np.float32)
        write_bag(root / f"P{number}.h5", rows, labels=number % n_classes)
    return root


def take_in(folder: Path, tmp_path: Path, **how: Any) -> tuple[Imported, BagStore]:
    done = import_hdf5(folder, "taken", Workspace(tmp_path / "work"), **{"ids": "pseudonymous", **how})
    return done, BagStore.open(done.path)


def test_what_was_exported_comes_back_with_the_same_features_ids_labels_and_classes(tmp_path: Path) -> None:
    there = awkward_store(tmp_path / "there.zarr")
    done = export_hdf5(there, tmp_path / "out")
    assert (done.n_cells, done.n_failed) == (55, 5)
    _, back = take_in(tmp_path / "out", tmp_path)
    assert back.dtype == there.dtype == np.float16
    assert back.attributes["classes"] == there.attributes["classes"]
    assert back.patients["label"].to_dict() == AWKWARD
    for bag in there:
        kept = [row for row, cell in enumerate(bag.cell_ids) if not cell.endswith("_3")]
        assert back[bag.patient_id].cell_ids == tuple(bag.cell_ids[row] for row in kept)
        assert back[bag.patient_id].features.tobytes() == bag.features[kept].tobytes()
    assert back.verify() == []


def test_float32_features_come_back_as_they_were(tmp_path: Path) -> None:
    there = make_store(tmp_path / "there.zarr", toy_patients())
    export_hdf5(there, tmp_path / "out")
    _, back = take_in(tmp_path / "out", tmp_path)
    assert back.dtype == np.float32
    assert all(back[bag.patient_id].features.tobytes() == bag.features.tobytes() for bag in there)


def test_the_exported_table_brings_the_covariates_back(tmp_path: Path) -> None:
    there = awkward_store(tmp_path / "there.zarr")
    export_hdf5(there, tmp_path / "out")
    _, back = take_in(tmp_path / "out", tmp_path, patients=tmp_path / "out" / "patients.csv")
    pd.testing.assert_frame_equal(back.patients, there.patients)


def test_an_import_says_that_it_is_one_and_keeps_what_is_known_of_the_encoder(tmp_path: Path) -> None:
    there = awkward_store(tmp_path / "there.zarr")
    export_hdf5(there, tmp_path / "out")
    done, back = take_in(tmp_path / "out", tmp_path)
    assert back.attributes["backend"] == "imported"
    assert back.attributes["encoder"] == done.encoder == "toy-encoder"
    assert back.attributes["encoder_seen"] == ["aml_hehr"]
    assert back.attributes["encoder_made_of"]["digest"] == there.attributes["encoder_digest"]
    assert back.attributes["encoder_digest"] != there.attributes["encoder_digest"]
    assert not done.notes


def test_only_files_that_do_not_say_what_the_encoder_has_seen_are_noted(tmp_path: Path) -> None:
    export_hdf5(make_store(tmp_path / "s.zarr", toy_patients(), encoder_seen=[]), tmp_path / "out")
    assert not take_in(tmp_path / "out", tmp_path)[0].notes
    done, _ = take_in(genbloom(tmp_path / "in"), tmp_path, encoder="dinobloom-b", classes=["a", "b"])
    assert [note for note in done.notes if "which images the encoder dinobloom-b was trained on" in note] == [
        *done.notes
    ]


def test_an_exported_file_is_what_genbloom_and_clam_read(tmp_path: Path) -> None:
    export_hdf5(make_store(tmp_path / "s.zarr", toy_patients()), tmp_path / "out")
    with h5py.File(tmp_path / "out" / "P04.h5") as file:
        assert (file["features"].dtype, file["features"].shape) == (np.float32, (11, 6))
        assert file["coords"].shape == (11, 2)
        assert int(file["labels"][()]) == CLASSES.index("PML_RARA")
        assert list(file["cell_ids"].asstr()[()])[-1] == "P04/image_10"
        assert file.attrs["patient_id"] == "P04"
        assert file.attrs["label"] == "PML_RARA"
        assert tuple(file.attrs["classes"]) == CLASSES
        assert (file.attrs["encoder"], file.attrs["encoder_digest"]) == ("toy-encoder", "e" * 64)
        assert json.loads(file.attrs["store"])["cohort"] == "toy"


def test_failed_cells_have_no_row_and_are_counted(tmp_path: Path) -> None:
    export_hdf5(awkward_store(tmp_path / "s.zarr"), tmp_path / "out")
    for path in (tmp_path / "out").glob("*.h5"):
        patient = read_patient_file(path)
        assert (len(patient.features), patient.n_failed) == (11, 1)
        assert np.isfinite(patient.features).all()


def test_patients_whose_ids_are_no_file_names_do_not_collide() -> None:
    ids = ["A1", "a1", "a/b", "a\\b", "a b", "..", ".hidden", "CON", "com1.x", "Иванов", "x" * 300, "\u00e9", "e\u0301"]
    names = file_names(ids)
    assert len({name.casefold() for name in names.values()}) == len(ids)
    assert {name for name in ids if names[name] == f"{name}.h5"} == {"a b", "Иванов"}
    assert all("/" not in name and not name.startswith(".") and len(name) < 220 for name in names.values())


def test_a_patient_called_like_another_one_s_substitute_keeps_a_file_of_its_own() -> None:
    substitute = file_names(["a/b"])["a/b"].removesuffix(".h5")
    names = file_names(["a/b", substitute])
    assert names[substitute] == f"{substitute}.h5"
    assert len(set(names.values())) == 2


def test_an_export_does_not_touch_what_is_there(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr", toy_patients())
    (tmp_path / "out").mkdir()
    (tmp_path / "out.h5ad").write_text("mine")
    with pytest.raises(RunError, match=r"out exists already and is not overwritten; give another name"):
        export_hdf5(store, tmp_path / "out")
    with pytest.raises(RunError, match=r"out\.h5ad exists already and is not overwritten; give a new name"):
        export_h5ad(store, tmp_path / "out.h5ad")
    assert (tmp_path / "out.h5ad").read_text() == "mine"
    with pytest.raises(RunError, match=r"out\.csv was given for an AnnData file; give a new name that ends in \.h5ad"):
        export_h5ad(store, tmp_path / "out.csv")


def test_an_export_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(tmp_path / "s.zarr", toy_patients())
    before = sorted(tmp_path.iterdir())
    bag = BagStore.__getitem__

    def full(self: BagStore, name: str) -> Any:
        if name == "P09":
            raise OSError(28, "No space left on device")
        return bag(self, name)

    monkeypatch.setattr(BagStore, "__getitem__", full)
    with pytest.raises(OSError, match="No space left"):
        export_hdf5(store, tmp_path / "out")
    with pytest.raises(OSError, match="No space left"):
        export_h5ad(store, tmp_path / "out.h5ad")
    assert sorted(tmp_path.iterdir()) == before


def test_a_patient_without_a_readable_cell_is_named(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr", toy_patients())
    writable = BagStore(store.path, writable=True)
    ids = store["P02"].cell_ids
    writable.write("P02", np.full((12, 6), np.nan), np.zeros((12, 32), np.uint8), dict.fromkeys(ids, "lost"))
    writable.close()
    with pytest.raises(StoreError, match=r"None of the 12 cells of patient 'P02' could be read.*--format h5ad"):
        export_hdf5(BagStore.open(store.path), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_anndata_reads_the_cohort(tmp_path: Path) -> None:
    store = awkward_store(tmp_path / "s.zarr")
    done = export_h5ad(store, tmp_path / "out.h5ad")
    table = anndata.read_h5ad(tmp_path / "out.h5ad")
    assert (done.n_cells, done.n_failed) == (55, 5)
    assert table.X.dtype == np.float32
    for bag in store:
        rows = table[(table.obs["patient_id"] == bag.patient_id).to_numpy()]
        np.testing.assert_array_equal(rows.X, bag.features)
        assert tuple(rows.obs_names) == bag.cell_ids
        assert set(rows.obs["label"]) == {AWKWARD[bag.patient_id]}
    assert table.obs["failed"].to_numpy().tolist() == np.isnan(table.X).any(axis=1).tolist()
    assert table.obs["age"].isna().sum() == 12
    assert table.obs["blood _ bone"].isna().sum() == 12
    assert list(table.var_names) == ["f0000", "f0001", "f0002", "f0003", "f0004"]
    assert list(table.uns["classes"]) == store.attributes["classes"]
    assert (table.uns["encoder"], table.uns["encoder_digest"]) == ("toy-encoder", "e" * 64)
    assert table.uns["transform"] == {"size": 8}
    assert json.loads(table.uns["store"])["dtype"] == "float16"


def test_a_covariate_called_like_a_column_of_ours_keeps_its_values(tmp_path: Path) -> None:
    patients = toy_patients().assign(failed="by hand", cell_id=1, sex=None)
    export_h5ad(make_store(tmp_path / "s.zarr", patients), tmp_path / "out.h5ad")
    table = anndata.read_h5ad(tmp_path / "out.h5ad")
    assert not table.obs["failed"].any()
    assert table.obs["sex"].isna().all()
    assert set(table.obs["failed_"]) == {"by hand"}
    assert set(table.obs["cell_id_"]) == {"1"}  # ids are text


def test_a_cohort_without_patients_goes_to_anndata_and_not_to_one_file_a_patient(tmp_path: Path) -> None:
    cells = pd.DataFrame({"cell_id": [f"c{n}" for n in range(1500)], "patient_id": None, "path": "x.png"})
    cells["cell_type"] = ["blast", "lymphocyte", None] * 500
    none = pd.DataFrame({"label": []}, index=pd.Index([], name="patient_id"))
    store = BagStore.create(tmp_path / "s.zarr", none, cells, 3, made_of(cohort_digest=digest(cells)))
    for group in ("block-00000", "block-00001"):
        rows = store.rows_of(group)
        values = np.arange(rows.start * 3, rows.stop * 3, dtype=np.float32).reshape(-1, 3)
        store.write(group, values, np.zeros((len(values), 32), np.uint8), {})
    store.close()
    store = BagStore.open(store.path)
    with pytest.raises(StoreError, match=r"is of a cohort without patients.*export it with --format h5ad"):
        export_hdf5(store, tmp_path / "out")
    export_h5ad(store, tmp_path / "out.h5ad")
    table = anndata.read_h5ad(tmp_path / "out.h5ad")
    assert sorted(table.obs) == ["cell_type", "failed"]
    assert table.obs["cell_type"].isna().sum() == 500
    np.testing.assert_array_equal(table.X, np.arange(4500, dtype=np.float32).reshape(-1, 3))


# --- import ----------------------------------------------------------------------------------------------------


def test_published_bags_keep_the_order_of_their_rows(tmp_path: Path) -> None:
    folder = genbloom(tmp_path / "in")
    many = np.arange(1200, dtype=np.float32).reshape(-1, 8)
    write_bag(folder / "P1.h5", many, labels=1)
    done, store = take_in(folder, tmp_path, encoder="dinobloom-b", classes=["NPM1", "control"])
    assert (done.n_patients, done.n_cells, done.encoder) == (6, 5 + 150 + 7 + 8 + 9 + 10, "dinobloom-b")
    np.testing.assert_array_equal(store["P1"].features, many)
    assert store["P1"].cell_ids[:2] == ("P1/000000", "P1/000001")
    assert store.patients["label"].tolist() == ["NPM1", "control"] * 3
    assert store.cells["path"].unique().tolist() == [f"P{number}.h5" for number in range(6)]
    assert not zarr.open_group(done.path, mode="r")["image_sha256"][:].any()


def test_integers_name_the_classes_where_nothing_else_does(tmp_path: Path) -> None:
    done, store = take_in(genbloom(tmp_path / "in", n_patients=24, n_classes=12), tmp_path)
    assert store.attributes["classes"] == [str(number) for number in range(12)]
    assert any("name their classes by integers only" in note for note in done.notes)
    assert done.encoder == "imported"


def test_a_table_names_the_labels_and_adds_covariates(tmp_path: Path) -> None:
    folder = genbloom(tmp_path / "in")
    table = pd.DataFrame({"patient_id": [f"P{n}" for n in range(7)], "label": ["x, y", "NA"] * 3 + ["x, y"]})
    table.assign(age=range(30, 37)).to_csv(tmp_path / "patients.csv", index=False)
    done, store = take_in(folder, tmp_path, patients=tmp_path / "patients.csv")
    assert store.patients["label"].tolist() == ["x, y", "NA"] * 3
    assert store.patients["age"].tolist() == list(range(30, 36))
    assert "1 patients of the table have no file and were left out." in done.notes


def test_an_integer_that_stands_for_two_labels_of_the_table_is_noted(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("patient_id,label\n" + "".join(f"P{n},{'abc'[n % 3]}\n" for n in range(6)))
    done, _ = take_in(genbloom(tmp_path / "in"), tmp_path, patients=tmp_path / "p.csv")
    assert any("stand for several labels of the table: 0 (a, b, c); 1 (a, b, c)" in note for note in done.notes)


def test_bags_of_clam_and_trident_are_read(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(4, 7))
    coords = np.zeros((4, 2), int)
    write_bag(tmp_path / "in" / "flat.h5", rows.astype(np.float32), coords=coords)
    write_bag(tmp_path / "in" / "DEEP.H5", rows[None].astype(np.float64), coords=coords)
    write_bag(tmp_path / "in" / "half.hdf5", rows.astype(np.float16), coords=coords)
    (tmp_path / "in" / "._flat.h5").write_text("litter of a file system")
    (tmp_path / "p.csv").write_text("patient_id,label\nflat,a\nDEEP,b\nhalf,b\n")
    _, store = take_in(tmp_path / "in", tmp_path, patients=tmp_path / "p.csv")
    np.testing.assert_array_equal(store["flat"].features, rows.astype(np.float32))
    np.testing.assert_array_equal(store["DEEP"].features, rows.astype(np.float32))
    np.testing.assert_array_equal(store["half"].features, rows.astype(np.float16))


def test_rows_follow_their_cell_ids_in_natural_order(tmp_path: Path) -> None:
    write_bag(tmp_path / "in" / "A.h5", [[10.0], [2.0], [1.0]], labels=0, cell_ids=["a_10", "a_2", "a_1"])
    _, store = take_in(tmp_path / "in", tmp_path)
    assert store["A"].cell_ids == ("a_1", "a_2", "a_10")
    assert store["A"].features.tolist() == [[1.0], [2.0], [10.0]]


def test_rows_that_are_not_finite_are_failed_cells_with_a_reason(tmp_path: Path) -> None:
    folder = genbloom(tmp_path / "in")
    rows = np.ones((4, 8))
    rows[1, 2], rows[3, 0] = np.nan, 1e300  # the latter is infinite as float32
    write_bag(folder / "P0.h5", rows, labels=0)
    done, store = take_in(folder, tmp_path)
    assert done.n_failures == 2
    assert store.failures["cell_id"].tolist() == ["P0/000001", "P0/000003"]
    assert set(store.failures["reason"]) == {"its features are not finite in P0.h5"}
    assert np.isfinite(store["P0"].features).all(axis=1).tolist() == [True, False, True, False]


def test_the_digest_is_of_the_features(tmp_path: Path) -> None:
    import hashlib

    folder = genbloom(tmp_path / "in")
    parts = [hashlib.sha256(h5py.File(folder / f"P{n}.h5")["features"][()].tobytes()).digest() for n in range(6)]
    done, store = take_in(folder, tmp_path)
    expected = hashlib.sha256(b"milkit-imported-features-1" + b"".join(parts)).hexdigest()
    assert store.attributes["encoder_digest"] == expected
    assert done.path.name == f"imported-{expected[:8]}.zarr"


def test_an_import_is_repeated_with_the_same_bytes_and_takes_over_corrected_labels(tmp_path: Path) -> None:
    folder = genbloom(tmp_path / "in")
    done, _ = take_in(folder, tmp_path, classes=["a", "b"])
    before = {path: path.read_bytes() for path in done.path.rglob("*") if path.is_file() and path.name != "source.json"}
    again, store = take_in(folder, tmp_path, classes=["a", "b"])
    after = {path: path.read_bytes() for path in done.path.rglob("*") if path.is_file() and path.name != "source.json"}
    assert again.path == done.path
    assert before == after
    _, store = take_in(folder, tmp_path, classes=["c", "b"])
    assert store.patients["label"].tolist() == ["c", "b"] * 3
    assert store.verify() == []


def test_the_same_features_under_other_names_are_not_mixed_up(tmp_path: Path) -> None:
    folder = genbloom(tmp_path / "in")
    take_in(folder, tmp_path)
    (folder / "P5.h5").rename(folder / "P9.h5")
    with pytest.raises(StoreError, match=r"holds these features under other ids or file names \(cohort_digest\)"):
        take_in(folder, tmp_path)


def test_an_import_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = genbloom(tmp_path / "in")
    write = BagStore.write

    def full(self: BagStore, name: str, *rest: Any) -> None:
        if name == "P3":
            raise OSError(28, "No space left on device")
        write(self, name, *rest)

    monkeypatch.setattr(BagStore, "write", full)
    with pytest.raises(OSError, match="No space left"):
        take_in(folder, tmp_path)
    assert not [path for path in (tmp_path / "work").rglob("*") if path.is_file() or path.suffix == ".zarr"]


def _one() -> npt.NDArray[np.float32]:
    return np.ones((4, 8), dtype=np.float32)


@pytest.mark.parametrize(
    ("datasets", "sentence"),
    [
        ({"features": _one()[:0], "labels": 0}, r"P1\.h5 has `features` of shape \(0, 8\) and type float32, expected"),
        ({"features": np.stack([_one()] * 2)}, r"P1\.h5 has `features` of shape \(2, 4, 8\)"),
        ({"features": _one()[0]}, r"P1\.h5 has `features` of shape \(8,\)"),
        ({"features": _one().astype("i4")}, r"P1\.h5 has `features` .* type int32, expected floating-point numbers"),
        ({"features": _one()[:, :7], "labels": 0}, r"P1\.h5 has features of length 7 and P0\.h5 of length 8; import"),
        ({"features": _one() * np.nan, "labels": 0}, r"None of the 4 rows of `features` in .*P1\.h5 is finite; move"),
        ({"features": _one()}, r"P1\.h5 holds no `labels`; give a table .* --patients"),
        ({"features": _one(), "labels": [0, 1]}, r"P1\.h5 has `labels` \[0, 1\] where one integer from 0 on was expec"),
        ({"features": _one(), "labels": -1}, r"P1\.h5 has `labels` -1 where one integer"),
        ({"features": _one(), "labels": 0.5}, r"P1\.h5 has `labels` 0\.5 where one integer"),
        ({"features": _one(), "labels": "NPM1"}, r"P1\.h5 has `labels` .*NPM1.* where one integer"),
        ({"features": _one(), "labels": 0, "cell_ids": ["a"]}, r"P1\.h5 has 1 `cell_ids` for 4 rows of `features`"),
    ],
)
def test_a_file_that_cannot_be_taken_is_named_and_nothing_is_written(
    tmp_path: Path, datasets: dict[str, Any], sentence: str
) -> None:
    write_bag(genbloom(tmp_path / "in") / "P1.h5", **datasets)
    with pytest.raises(MilkitError, match=sentence):
        take_in(tmp_path / "in", tmp_path)
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
def test_a_truncated_file_is_named(tmp_path: Path, share: float) -> None:
    path = genbloom(tmp_path / "in") / "P1.h5"
    os.truncate(path, int(share * path.stat().st_size))
    with pytest.raises(StoreError, match=r"P1\.h5 cannot be read as a patient's HDF5 file \(.*\); copy it again"):
        take_in(tmp_path / "in", tmp_path)
    assert not (tmp_path / "work").exists()


def test_two_files_of_one_patient_are_both_named(tmp_path: Path) -> None:
    folder = genbloom(tmp_path / "in")
    (folder / "P1.h5").rename(folder / "P0.hdf5")
    with pytest.raises(MilkitError, match=r"P0\.hdf5 is of patient 'P0', as is P0\.h5 beside it; keep one file a pati"):
        take_in(folder, tmp_path)


def test_a_file_without_features_says_what_it_holds(tmp_path: Path) -> None:
    with h5py.File(genbloom(tmp_path / "in") / "P1.h5", "w") as file:
        file["coords"], file["feats"] = [[0, 0]], [[0.0]]
    with pytest.raises(StoreError, match=r"P1\.h5 has no dataset `features` but coords, feats; expected"):
        take_in(tmp_path / "in", tmp_path)


@pytest.mark.parametrize(
    ("attributes", "sentence"),
    [
        ({"version": 2}, r"P01\.h5 has format version 2, this milkit reads up to version 1; update milkit"),
        ({"label": "control"}, r"P01\.h5 has the label 'control', which is not the class that its `labels` counts to"),
        ({"classes": ["a", "PML_RARA", "b"]}, r"P01\.h5 names the classes a, PML_RARA, b, and P00\.h5 beside it NPM1"),
        ({"store": "{}"}, r"P01\.h5 and P00\.h5 beside it were made by different encoders"),
        ({"store": "[]"}, r"P01\.h5 and P00\.h5 beside it were made by different encoders"),
        ({"store": "1"}, r"P01\.h5 cannot be read as a patient's HDF5 file"),
        ({"patient_id": "P00"}, r"P01\.h5 is of patient 'P00', as is P00\.h5 beside it"),
    ],
)
def test_files_of_milkit_that_contradict_themselves_or_each_other(
    tmp_path: Path, attributes: dict[str, Any], sentence: str
) -> None:
    export_hdf5(make_store(tmp_path / "s.zarr", toy_patients()), tmp_path / "out")
    with h5py.File(tmp_path / "out" / "P01.h5", "r+") as file:
        file.attrs.update(attributes)
    with pytest.raises(MilkitError, match=sentence):
        take_in(tmp_path / "out", tmp_path)


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ({"encoder": "dinobloom-b"}, r"P00\.h5 says that the encoder 'toy-encoder' made it, and --encoder dinobloom-b"),
        ({"classes": ["a", "b"]}, r"P00\.h5 has the label 'NPM1', which is none of the classes a, b"),
        ({"classes": ["a", "a"]}, r"The classes a, a were given; expected a name for each, different ones"),
    ],
)
def test_options_that_contradict_the_files(tmp_path: Path, how: dict[str, Any], sentence: str) -> None:
    export_hdf5(make_store(tmp_path / "s.zarr", toy_patients()), tmp_path / "out")
    with pytest.raises(MilkitError, match=sentence):
        take_in(tmp_path / "out", tmp_path, **how)


def test_a_table_that_contradicts_the_file_is_not_followed(tmp_path: Path) -> None:
    export_hdf5(make_store(tmp_path / "s.zarr", toy_patients()), tmp_path / "out")
    table = tmp_path / "out" / "patients.csv"
    table.write_text(table.read_text().replace("P02,P02.h5,control", "P02,P02.h5,NPM1"))
    sentence = r"P02\.h5 is labelled 'control' by the file's own label and 'NPM1' by the table of patients; mend one"
    with pytest.raises(MilkitError, match=sentence):
        take_in(tmp_path / "out", tmp_path, patients=table)


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ("patient,label\nP0,a\n", r"has the columns patient, label and lacks patient_id; name them in its first line"),
        ("patient_id,label\nP0,a\nP0,b\n", r"needs one row with a label for each patient \(several rows for P0\)"),
        ("patient_id,label\nP0,a\nP1,\n", r"\(no label for P1\)"),
        ("patient_id,label\nP0,a\n,b\n", r"\(no patient_id in row 3\)"),
        ("patient_id,label\nP0,a\nP2,b\n", r"The patient 'P1' of .*P1\.h5 has no row in the table of patients"),
        ("", r"p\.csv is missing or no table; give a CSV file in UTF-8"),
        ("patient_id,label\nP0,a\nP1,b,c,d\n", r"p\.csv is missing or no table"),
    ],
)
def test_a_table_that_cannot_be_used_says_why(tmp_path: Path, table: str, sentence: str) -> None:
    (tmp_path / "p.csv").write_text(table)
    with pytest.raises(MilkitError, match=sentence):
        take_in(genbloom(tmp_path / "in"), tmp_path, patients=tmp_path / "p.csv")
    assert not (tmp_path / "work").exists()


def test_too_few_class_names_and_names_that_contradict_the_table(tmp_path: Path) -> None:
    folder = genbloom(tmp_path / "in", n_classes=3)
    with pytest.raises(MilkitError, match=r"P2\.h5 has `labels` 2, counted from 0, and --classes names 2 classes"):
        take_in(folder, tmp_path, classes=["a", "b"])
    (tmp_path / "p.csv").write_text("patient_id,label\n" + "".join(f"P{n},a\n" for n in range(6)))
    with pytest.raises(MilkitError, match=r"P1\.h5 is labelled 'a' by the table of patients and 'b' by --classes"):
        take_in(folder, tmp_path, classes=["a", "b", "c"], patients=tmp_path / "p.csv")


def test_names_that_cannot_be_a_folder_are_refused(tmp_path: Path) -> None:
    folder = genbloom(tmp_path / "in")
    with pytest.raises(MilkitError, match=r"The encoder is called '\.\./x', which cannot name a store; give a name of"):
        take_in(folder, tmp_path, encoder="../x")
    with pytest.raises(MilkitError, match=r"name: String should match pattern"):
        import_hdf5(folder, "../x", Workspace(tmp_path / "work"))


def test_a_folder_without_bags_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"nowhere is not a folder, where one with an HDF5 file a patient was exp"):
        take_in(tmp_path / "nowhere", tmp_path)
    with pytest.raises(StoreError, match=r"holds no \*\.h5 or \*\.hdf5 file, where one a patient was expected"):
        take_in(tmp_path, tmp_path)
