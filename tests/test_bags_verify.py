"""``verify``: a flipped bit anywhere in a store's own files is found, and its patient named where it has one."""

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from toys import made_of, make_store, toy_patients

from milkit.bags import BagStore
from milkit.bags.files import write_attributes
from milkit.errors import StoreError
from milkit.tables import cells_digest, digest, write_table

PATIENTS = {"P0": 2, "P1": 3, "P2": 1}
DIM = 3
FILES = ("cells.csv", "checksums", "committed", "failures.csv", "features", "image_sha256", "patients.csv", "rows")
ARRAYS = ("checksums", "committed", "features", "image_sha256", "rows")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> BagStore:
    """Three patients with six cells, two of which could not be read."""
    rows = [(f"{name}/{n}", name, f"{name}/{n}.png") for name, count in PATIENTS.items() for n in range(count)]
    cells = pd.DataFrame(rows, columns=["cell_id", "patient_id", "path"]).assign(cell_type="blast")
    patients = pd.DataFrame({"label": ["A", "B", "A"], "age": 41.5}, index=pd.Index(PATIENTS, name="patient_id"))
    facts = made_of(cohort_digest=digest(cells[["cell_id", "patient_id", "path"]]), dtype="float16")
    store = BagStore.create(tmp_path_factory.mktemp("verify") / "s.zarr", patients, cells, DIM, facts)
    for number, (name, count) in enumerate(PATIENTS.items()):
        features = np.random.default_rng(number).normal(size=(count, DIM))
        broken = {f"{name}/0": "the file is not an image"} if count > 1 else {}
        store.write(name, features, np.full((count, 32), number, dtype=np.uint8), broken)
    store.finish()
    store.close()
    assert store.verify() == []
    return BagStore.open(store.path)


def _own_files(store: BagStore) -> list[Path]:
    return sorted(p for p in store.path.rglob("*") if p.is_file() and p.name not in ("lock", "ranks"))


def _complaints(path: Path) -> list[str]:
    """What opening or ``verify`` says; anything but a sentence fails the test."""
    try:
        return BagStore(path).verify()
    except StoreError as error:
        return [str(error)]


@contextmanager
def _changed(file: Path, content: bytes | str) -> Iterator[None]:
    """Give a file another content for a while."""
    before = file.read_bytes()
    try:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        yield
    finally:
        file.write_bytes(before)


def _flipped(file: Path, position: int, bit: int) -> AbstractContextManager[None]:
    content = bytearray(file.read_bytes())
    content[position] ^= 1 << bit
    return _changed(file, bytes(content))


def _said_of(store: BagStore, file: str, content: str) -> list[str]:
    with _changed(store.path / file, content):
        return _complaints(store.path)


def _silent(store: BagStore, flips: list[tuple[Path, int, int]]) -> list[tuple[str, int, int]]:
    """The flips that nothing complains about."""
    silent = []
    for file, position, bit in flips:
        with _flipped(file, position, bit):
            if not _complaints(store.path):
                silent.append((file.relative_to(store.path).as_posix(), position, bit))
    return silent


def test_the_store_s_own_files_are_those_that_are_known(store: BagStore) -> None:
    names = {file.relative_to(store.path).parts[0] for file in _own_files(store)}
    assert names == {*FILES, "zarr.json"}


@pytest.mark.parametrize("name", [*FILES, "zarr.json"])
def test_flipped_bits_are_found(store: BagStore, name: str) -> None:
    files = [file for file in _own_files(store) if file.relative_to(store.path).parts[0] == name]
    flips = [(file, position) for file in files for position in range(file.stat().st_size)]
    random = np.random.default_rng(len(name))
    chosen = random.permutation(len(flips))[:80]
    assert _silent(store, [(*flips[number], int(random.integers(8))) for number in chosen]) == []


@pytest.mark.slow
def test_every_flipped_byte_is_found(store: BagStore) -> None:
    random = np.random.default_rng(0)
    flips = [(file, position) for file in _own_files(store) for position in range(file.stat().st_size)]
    assert _silent(store, [(*flip, int(random.integers(8))) for flip in flips]) == []


@pytest.mark.parametrize("name", ["checksums", "features", "image_sha256"])
def test_a_flipped_byte_of_a_patient_names_that_patient_and_no_other(store: BagStore, name: str) -> None:
    file = store.path / name / "c" / "0" / "0"
    per_row = file.stat().st_size // (len(PATIENTS) if name == "checksums" else sum(PATIENTS.values()))
    owners = list(PATIENTS) if name == "checksums" else [owner for owner, n in PATIENTS.items() for _ in range(n)]
    for position in range(0, file.stat().st_size, 3):
        owner = owners[position // per_row]
        with _flipped(file, position, 0):
            said = _complaints(store.path)
        assert f"the bytes of patient '{owner}' are not those that were written" in said
        assert all(f"'{owner}" in fault for fault in said)


@pytest.mark.parametrize("value", [0, 2, 3, 129, 255])
def test_a_commit_mark_that_is_no_mark_is_found(store: BagStore, value: int) -> None:
    state = "not committed" if value == 0 else f"marked with {value}, neither committed"
    with _changed(store.path / "committed" / "c" / "0", bytes([1, value, 1])):
        (fault,) = _complaints(store.path)
        assert fault.startswith(f"patient 'P1' is {state}")
        assert BagStore(store.path).pending() == ["P1"]
        with pytest.raises(StoreError, match="Patient 'P1' is not in the store"):
            BagStore(store.path)["P1"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("not an image", "quite right"),
        ("P1/0,P1/0.png", "P1/2,P1/2.png"),
        ("P1,P1/0,P1/0.png,the file is not an image\n", ""),
    ],
)
def test_failures_that_were_edited_are_found_and_their_patient_named(store: BagStore, old: str, new: str) -> None:
    others, p1 = (store.path / "failures.csv").read_text().split("\nP1,")
    assert old in f"P1,{p1}"
    said = _said_of(store, "failures.csv", others + "\n" + f"P1,{p1}".replace(old, new))
    assert "the bytes of patient 'P1' are not those that were written" in said
    assert not any("'P0" in fault or "'P2" in fault for fault in said)


def test_features_that_are_missing_without_a_reason_are_found(store: BagStore) -> None:
    said = _said_of(store, "failures.csv", "patient_id,cell_id,path,reason\n")
    for cell in ("P0/0", "P1/0"):
        assert f"cell '{cell}' of patient '{cell[:2]}' has no features, and no reason in failures.csv" in said


def test_a_reason_for_a_cell_with_features_is_found(store: BagStore) -> None:
    content = (store.path / "failures.csv").read_text()
    said = _said_of(store, "failures.csv", content + "P2,P2/0,P2/0.png,it looks odd\n")
    assert "cell 'P2/0' of patient 'P2' has a reason in failures.csv, and features" in said


def test_a_failure_of_a_stranger_is_found(store: BagStore) -> None:
    content = (store.path / "failures.csv").read_text()
    said = _said_of(store, "failures.csv", content + "P9,P9/0,P9/0.png,it looks odd\n")
    assert said == ["failures.csv is not the table that was written"]


@pytest.mark.parametrize("table", ["cells.csv", "patients.csv"])
def test_a_table_that_was_edited_is_found(tmp_path: Path, table: str) -> None:
    store = make_store(tmp_path / "s.zarr", toy_patients(2))
    path = store.path / table
    path.write_text(path.read_text().replace("P03", "P3", 1) if table == "cells.csv" else path.read_text() + "\n")
    assert f"{table} is not the table that was written" in BagStore(store.path).verify()


def test_an_edited_attribute_is_found(store: BagStore) -> None:
    content = (store.path / "zarr.json").read_text()
    said = _said_of(store, "zarr.json", content.replace('"precision": "fp32"', '"precision": "bf16"'))
    assert said == ["zarr.json is not what was written"]


def test_damaged_attributes_are_not_given_a_new_digest(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr", toy_patients(1))
    file = store.path / "zarr.json"
    file.write_text(file.read_text().replace('"precision": "fp32"', '"precision": "fp16"'))
    with pytest.raises(StoreError, match=r"zarr.json is not what was written; the store is damaged"):
        BagStore(store.path).replace_patients(store.patients, ["A"])
    assert "zarr.json is not what was written" in BagStore(store.path).verify()


def test_whitespace_in_the_metadata_means_nothing(store: BagStore) -> None:
    content = (store.path / "zarr.json").read_text()
    assert _said_of(store, "zarr.json", json.dumps(json.loads(content))) == []


@pytest.mark.parametrize("array", ARRAYS)
def test_array_metadata_that_tell_another_shape_are_found(store: BagStore, array: str) -> None:
    metadata = json.loads((store.path / array / "zarr.json").read_text())
    metadata["shape"][0] += 1
    said = _said_of(store, f"{array}/zarr.json", json.dumps(metadata))
    assert said == [f"{array}/zarr.json is not the file that was written"]


def test_rows_that_are_not_those_of_the_cells_are_found_though_all_digests_agree(tmp_path: Path) -> None:
    path = make_store(tmp_path / "s.zarr", toy_patients(1)).path
    cells = pd.read_csv(path / "cells.csv")
    cells.loc[0, "patient_id"] = "P01"
    write_table(path / "cells.csv", cells)
    files = BagStore(path).attributes["files_sha256"] | {"cells.csv": digest(cells)}
    write_attributes(path, {"files_sha256": files, "cohort_digest": digest(cells)})
    assert BagStore(path).verify() == ["the rows of patient 'P00' are not those of its cells in cells.csv"]


def test_attributes_that_were_never_given_are_named(tmp_path: Path) -> None:
    patients = pd.DataFrame({"label": ["A"]}, index=pd.Index(["P0"], name="patient_id"))
    cells = pd.DataFrame({"cell_id": ["a"], "patient_id": ["P0"], "path": ["a.png"]})
    facts = {name: value for name, value in made_of(cohort_digest=digest(cells)).items() if name != "precision"}
    store = BagStore.create(tmp_path / "s.zarr", patients, cells, 2, facts)
    store.write("P0", np.ones((1, 2)), np.ones((1, 32), dtype=np.uint8), {})
    assert store.verify() == ["zarr.json has no 'precision'"]


def test_a_store_of_an_earlier_milkit_is_told_to_hold_no_digests(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr", toy_patients(1))
    content = json.loads((store.path / "zarr.json").read_text())
    del content["attributes"]["attributes_digest"], content["attributes"]["files_sha256"]
    (store.path / "zarr.json").write_text(json.dumps(content))
    (fault,) = BagStore(store.path).verify()
    assert fault == "zarr.json has no 'attributes_digest', as of an earlier milkit, so what it says cannot be checked"
    (store.path / "patients.csv").write_text((store.path / "patients.csv").read_text().replace("30.0", "31.0"))
    assert "patients.csv is not the table that was written" in BagStore(store.path).verify()


def test_boxes_of_cells_are_part_of_what_the_cohort_digest_is_of(tmp_path: Path) -> None:
    patients = pd.DataFrame({"label": ["A"]}, index=pd.Index(["P0"], name="patient_id"))
    cells = pd.DataFrame({"cell_id": ["a", "b"], "patient_id": "P0", "path": "field.png", "box": ["0 0 9 9", None]})
    store = BagStore.create(tmp_path / "s.zarr", patients, cells, 2, made_of(cohort_digest=cells_digest(cells)))
    store.write("P0", np.ones((2, 2)), np.ones((2, 32), dtype=np.uint8), {})
    assert store.verify() == []
    write_attributes(store.path, {"cohort_digest": digest(cells[["cell_id", "patient_id", "path"]])})
    assert BagStore(store.path).verify() == ["cells.csv does not hold the cells that its cohort_digest is of"]


def test_a_store_without_patients_is_verified_like_any_other(tmp_path: Path) -> None:
    cells = pd.DataFrame({"cell_id": [str(n) for n in range(1100)], "patient_id": None, "path": "x"})
    store = BagStore.create(tmp_path / "s.zarr", pd.DataFrame(), cells, 2, made_of(cohort_digest=digest(cells)))
    for name in store.pending():
        count = store.rows_of(name).stop - store.rows_of(name).start
        broken = {"1050": "the file is missing"} if name == "block-00001" else {}
        store.write(name, np.ones((count, 2)), np.ones((count, 32), dtype=np.uint8), broken)
    store.finish()
    store.close()
    assert BagStore.open(store.path).verify() == []
    assert list(store.failures["patient_id"]) == ["block-00001"]
    file = store.path / "features" / "c" / "0" / "0"
    with _flipped(file, 1060 * 8, 3):
        assert BagStore(store.path).verify() == ["the bytes of patient 'block-00001' are not those that were written"]
