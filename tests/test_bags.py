"""The bag store: its bytes, its commits, and what it refuses."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import zarr
from toys import made_of, make_store, toy_patients

from milkit.bags import BLOCK, BagStore
from milkit.errors import StoreError
from milkit.tables import read_table


def _empty(path: Path) -> BagStore:
    patients = pd.DataFrame({"label": ["A", "B"]}, index=pd.Index(["NA", "P1"], name="patient_id"))
    cells = pd.DataFrame(
        {"cell_id": ["NA/0", "NA/1", "P1/0"], "patient_id": ["NA", "NA", "P1"], "path": ["a", "b", "c"]}
    )
    return BagStore.create(path, patients, cells, 4, made_of())


def _write(store: BagStore, patient: str, seed: int = 0) -> np.ndarray:
    rows = store.rows_of(patient)
    features = np.random.default_rng(seed).normal(size=(rows.stop - rows.start, 4)).astype(np.float32)
    store.write(patient, features, np.full((len(features), 32), seed, dtype=np.uint8), {})
    return features


def test_bags_come_back_as_they_were_written(tmp_path: Path) -> None:
    store = _empty(tmp_path / "s.zarr")
    written = _write(store, "NA")
    bag = store["NA"]
    np.testing.assert_array_equal(bag.features, written)
    assert bag.cell_ids == ("NA/0", "NA/1")


def test_any_zarr_reader_opens_a_store(tmp_path: Path) -> None:
    store = _empty(tmp_path / "s.zarr")
    first, second = _write(store, "NA", 1), _write(store, "P1", 2)
    group = zarr.open_group(tmp_path / "s.zarr", mode="r")
    np.testing.assert_array_equal(group["features"][:], np.concatenate([first, second]))
    np.testing.assert_array_equal(group["rows"][:], [[0, 2], [2, 3]])
    np.testing.assert_array_equal(group["committed"][:], [True, True])
    assert group.attrs["format"] == "milkit-bags"


def test_an_id_such_as_NA_stays_text(tmp_path: Path) -> None:  # noqa: N802
    _empty(tmp_path / "s.zarr").close()
    assert list(BagStore(tmp_path / "s.zarr").patients.index) == ["NA", "P1"]


def test_a_patient_is_pending_until_it_is_committed(tmp_path: Path) -> None:
    store = _empty(tmp_path / "s.zarr")
    _write(store, "P1")
    assert store.pending() == ["NA"]
    with pytest.raises(StoreError, match=r"lacks 1 of 2 patients; run the same `milkit extract` again"):
        BagStore.open(tmp_path / "s.zarr")


def test_the_bytes_do_not_depend_on_the_order_of_writing(tmp_path: Path) -> None:
    one, other = _empty(tmp_path / "a.zarr"), _empty(tmp_path / "b.zarr")
    for store, order in ((one, ["NA", "P1"]), (other, ["P1", "NA"])):
        for name in order:
            _write(store, name, seed=len(name))
        store.close()
    files = [{p.relative_to(s.path): p.read_bytes() for p in s.path.rglob("*") if p.is_file()} for s in (one, other)]
    assert files[0] == files[1]


def test_a_newer_store_is_refused_by_name(tmp_path: Path) -> None:
    _empty(tmp_path / "s.zarr").close()
    metadata = tmp_path / "s.zarr" / "zarr.json"
    content = json.loads(metadata.read_text())
    content["attributes"]["version"] = 2
    metadata.write_text(json.dumps(content))
    with pytest.raises(StoreError, match=r"format version 2, this milkit reads up to version 1; update milkit"):
        BagStore(tmp_path / "s.zarr")


def test_no_store_and_a_foreign_group_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"There is no bag store at .*; make one with `milkit extract`"):
        BagStore(tmp_path / "nothing.zarr")
    zarr.create_group(tmp_path / "other.zarr")
    with pytest.raises(StoreError, match=r"is a Zarr group but not a bag store"):
        BagStore(tmp_path / "other.zarr")


def test_a_store_opened_for_reading_is_not_written(tmp_path: Path) -> None:
    _empty(tmp_path / "s.zarr").close()
    with pytest.raises(StoreError, match=r"opened for reading"):
        _write(BagStore(tmp_path / "s.zarr"), "P1")


def test_features_of_the_wrong_shape_are_refused(tmp_path: Path) -> None:
    store = _empty(tmp_path / "s.zarr")
    with pytest.raises(StoreError, match=r"features \(1, 4\) and digests \(1, 32\), expected \(2, 4\)"):
        store.write("NA", np.zeros((1, 4)), np.zeros((1, 32), dtype=np.uint8), {})
    assert store.pending() == ["NA", "P1"]


def test_a_truncated_array_is_a_store_error(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr", toy_patients(2))
    path = store.path / "features" / "c" / "0" / "0"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(StoreError, match=r"the store is damaged, so move its folder away"):
        BagStore(store.path)


def test_failures_are_listed_in_the_order_of_patients_and_replaced_on_rewrite(tmp_path: Path) -> None:
    store = _empty(tmp_path / "s.zarr")
    digests = np.zeros((1, 32), dtype=np.uint8)
    store.write("P1", np.full((1, 4), np.nan), digests, {"P1/0": "broken"})
    store.write("NA", np.full((2, 4), np.nan), np.repeat(digests, 2, 0), {"NA/0": "gone", "NA/1": "gone"})
    assert list(store.failures["cell_id"]) == ["NA/0", "NA/1", "P1/0"]
    store.write("P1", np.zeros((1, 4)), digests, {})
    assert list(store.failures["cell_id"]) == ["NA/0", "NA/1"]
    assert np.isnan(store["NA"].features).all()


def test_cells_without_patients_are_kept_in_blocks(tmp_path: Path) -> None:
    n = BLOCK + 5
    cells = pd.DataFrame({"cell_id": [str(i) for i in range(n)], "patient_id": None, "path": "x"})
    store = BagStore.create(tmp_path / "s.zarr", pd.DataFrame(), cells, 2, made_of())
    assert store.pending() == ["block-00000", "block-00001"]
    assert store.rows_of("block-00001") == slice(BLOCK, n)


def test_float16_keeps_three_digits(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr", toy_patients(1), dtype="float16")
    exact = make_store(tmp_path / "t.zarr", toy_patients(1))
    np.testing.assert_allclose(store["P00"].features, exact["P00"].features, rtol=1e-3, atol=1e-5)


def test_a_failed_creation_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")  # noqa: EM101

    monkeypatch.setattr("milkit.bags.store.make_arrays", fail)
    with pytest.raises(OSError, match="disk full"):
        _empty(tmp_path / "s.zarr")
    assert list(tmp_path.iterdir()) == []


def test_features_that_are_not_finite_need_a_reason(tmp_path: Path) -> None:
    store = _empty(tmp_path / "s.zarr")
    features = np.array([[1, 2, 3, np.inf]])
    with pytest.raises(StoreError, match=r"Cell 'P1/0' was given features that are not finite as float32"):
        store.write("P1", features, np.zeros((1, 32), dtype=np.uint8), {})
    assert "P1" in store.pending()


def test_cells_and_patients_in_different_orders_are_refused(tmp_path: Path) -> None:
    patients = pd.DataFrame({"label": ["A", "B"]}, index=pd.Index(["1", "10"], name="patient_id"))
    cells = pd.DataFrame({"cell_id": ["a", "b"], "patient_id": ["10", "1"], "path": ["a", "b"]})
    with pytest.raises(StoreError, match="The cells are not sorted like the patients"):
        BagStore.create(tmp_path / "s.zarr", patients, cells, 4, made_of())


@pytest.mark.parametrize("table", ["cells.csv", "patients.csv"])
def test_a_table_that_is_gone_or_empty_is_named(tmp_path: Path, table: str) -> None:
    store = make_store(tmp_path / "s.zarr", toy_patients(2))
    (store.path / table).write_text("")
    with pytest.raises(StoreError, match=rf"The table .*{table} is missing or damaged"):
        BagStore(store.path)
    (store.path / table).unlink()
    with pytest.raises(StoreError, match=rf"The table .*{table} is missing or damaged"):
        BagStore(store.path)


def test_codes_of_sites_stay_text(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr", toy_patients(2).assign(site="01", age=0.1 + 0.2))
    assert set(BagStore(store.path).patients["site"]) == {"01"}
    assert set(BagStore(store.path).patients["age"]) == {0.1 + 0.2}
    assert BagStore(store.path).verify() == []


def test_a_damaged_zarr_json_is_a_store_error(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr", toy_patients(2))
    (store.path / "zarr.json").write_text("{")
    with pytest.raises(StoreError, match="is not valid JSON; the store is damaged"):
        BagStore(store.path)


def test_a_pending_patient_is_not_read(tmp_path: Path) -> None:
    store = _empty(tmp_path / "s.zarr")
    _write(store, "NA")
    with pytest.raises(
        StoreError, match=r"Patient 'P1' is not in the store .* yet; run the same `milkit extract` again"
    ):
        store["P1"]
    with pytest.raises(StoreError, match="lacks 1 of 2 patients"):
        store.load()


def test_the_whole_store_loads_as_it_is_stored(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr", toy_patients(2), dtype="float16")
    features = store.load()
    assert features.dtype == np.float16
    np.testing.assert_array_equal(features, np.concatenate([bag.features for bag in store]))


def test_opening_reads_no_table_of_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, read = make_store(tmp_path / "s.zarr", toy_patients(2)).path, list[str]()
    monkeypatch.setattr("milkit.bags.tables.read_table", lambda file: read.append(file.name) or read_table(file))
    store = BagStore.open(path)
    assert store.n_cells == sum(range(10, 13)) * 2
    assert read == ["patients.csv"]
    assert store["P01"].cell_ids[0] == "P01/image_0"
    assert read == ["patients.csv", "cells.csv"]


def test_a_failed_cell_has_no_features_whatever_was_given(tmp_path: Path) -> None:
    store = _empty(tmp_path / "s.zarr")
    given = np.ones((2, 4), dtype=np.float32)
    store.write("NA", given, np.zeros((2, 32), dtype=np.uint8), {"NA/1": "broken"})
    assert np.isnan(store["NA"].features).all(axis=1).tolist() == [False, True]
    assert np.isfinite(given).all()


def test_a_failure_of_another_patient_s_cell_is_refused(tmp_path: Path) -> None:
    store = _empty(tmp_path / "s.zarr")
    with pytest.raises(
        StoreError, match=r"Cell 'P1/0' was listed among the failures of patient 'NA', which has no such"
    ):
        store.write("NA", np.ones((2, 4)), np.zeros((2, 32), dtype=np.uint8), {"P1/0": "broken"})
    assert store.pending() == ["NA", "P1"]


@pytest.mark.parametrize(
    ("change", "name"),
    [({"dim": None}, "dim"), ({"dtype": "float15"}, "dtype"), ({"version": 0}, "version"), ({"classes": 3}, "classes")],
)
def test_an_attribute_that_no_store_can_have_is_named(tmp_path: Path, change: dict[str, object], name: str) -> None:
    path = make_store(tmp_path / "s.zarr", toy_patients(2)).path
    content = json.loads((path / "zarr.json").read_text())
    content["attributes"] |= change
    (path / "zarr.json").write_text(json.dumps(content))
    with pytest.raises(StoreError, match=f"The '{name}' in .*zarr.json is missing, or none that a bag store can have"):
        BagStore(path)


def test_an_open_that_fails_leaves_no_lock(tmp_path: Path) -> None:
    path = make_store(tmp_path / "s.zarr", toy_patients(2)).path
    content = (path / "patients.csv").read_bytes()
    (path / "patients.csv").write_bytes(content.replace(b"P03", b"P02"))
    with pytest.raises(StoreError, match=r"patients.csv is missing or damaged"):
        BagStore(path, writable=True)
    (path / "patients.csv").write_bytes(content)
    BagStore(path, writable=True).close()
