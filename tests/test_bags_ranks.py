"""Writers of one bag store that share the work, die, or run out of disk: the bytes in the end are always the same."""

import errno
import os
import resource
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from toys import made_of

from milkit.bags import BagStore
from milkit.bags.arrays import BagArrays
from milkit.errors import StoreError
from milkit.tables import digest

PATIENTS = [f"P{number}" for number in range(6)]
N_CELLS, DIM = 5, 4

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs fork and resource limits")


def _create(path: Path) -> BagStore:
    rows = [(f"{name}/{n}", name, f"images/{name}, {n}.png") for name in PATIENTS for n in range(N_CELLS)]
    cells = pd.DataFrame(rows, columns=["cell_id", "patient_id", "path"])
    patients = pd.DataFrame({"label": "A"}, index=pd.Index(PATIENTS, name="patient_id"))
    return BagStore.create(path, patients, cells, DIM, made_of(cohort_digest=digest(cells)))


def _write(store: BagStore, name: str, *, mended: bool = False) -> None:
    """Every other patient has cells that cannot be read, with a reason that a CSV file must quote."""
    number = PATIENTS.index(name)
    features = np.random.default_rng(number).normal(size=(N_CELLS, DIM))
    digests = np.full((N_CELLS, 32), number, dtype=np.uint8)
    broken = range(0 if mended or number % 2 else number + 1)
    store.write(
        name, features, digests, {f"{name}/{n}": f'cell {n} is "broken",\r\nsorry' for n in broken if n < N_CELLS}
    )


def _bytes(path: Path) -> dict[str, bytes]:
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in path.rglob("*") if p.is_file()}


@pytest.fixture
def whole(tmp_path: Path) -> dict[str, bytes]:
    """The files of a store that one process wrote without any trouble."""
    store = _create(tmp_path / "whole.zarr")
    for name in PATIENTS:
        _write(store, name)
    store.finish()
    store.close()
    assert store.verify() == []
    assert _bytes(store.path)["lock"] == b""
    assert "failures.csv" in _bytes(store.path)
    return _bytes(store.path)


def _in_a_child(work: Callable[[], None]) -> int:
    """Run ``work`` in a forked process and return its exit status: 0, 1 where it raised, or what it ended with."""
    child = os.fork()
    if not child:
        try:
            work()
            os._exit(0)
        except BaseException:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _resume(path: Path) -> None:
    store = BagStore(path, writable=True)
    store.retry_failed()
    for name in store.pending():
        _write(store, name)
    store.finish()
    store.close()


def test_ranks_that_write_at_once_give_the_bytes_of_one_process(tmp_path: Path, whole: dict[str, bytes]) -> None:
    store = _create(tmp_path / "s.zarr")
    children = []
    for rank in (1, 2):
        if not (child := os.fork()):
            try:
                part = BagStore(store.path, writable=True, rank=rank)
                for name in PATIENTS[rank::3]:
                    _write(part, name)
                os._exit(0)
            except BaseException:
                os._exit(1)
        children.append(child)
    for name in PATIENTS[0::3]:
        _write(store, name)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    assert {p.name for p in store.path.glob("failures*")} == {
        "failures-0.jsonl",
        "failures-1.jsonl",
        "failures-2.jsonl",
    }
    seen = store.failures
    store.finish()
    store.close()
    assert _bytes(store.path) == whole
    pd.testing.assert_frame_equal(store.failures, seen)


def test_killed_at_every_step_and_resumed_the_bytes_are_those_of_an_uninterrupted_run(
    tmp_path: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every write ends with an fsync, so the process is ended, without any clean-up, at each of them in turn."""
    steps, last = [0], [0]

    def die_at_the_last(_: int) -> None:  # nothing is synced: what a process has written outlives it
        steps[0] += 1
        if steps[0] == last[0]:
            os._exit(9)

    def by_two_ranks(path: Path) -> None:
        stores = [BagStore(path, writable=True), BagStore(path, writable=True, rank=1)]
        stores[0].retry_failed()
        for name in stores[0].pending():
            _write(stores[PATIENTS.index(name) // 2 % 2], name)
        stores[0].finish()
        os._exit(0)

    store = _create(tmp_path / "begun.zarr")
    _write(store, "P2")  # has failures, so that it is tried again
    store.close()
    ending = 9
    while ending == 9:
        path = shutil.copytree(store.path, tmp_path / f"{last[0]}.zarr")
        last[0], steps[0] = last[0] + 1, 0
        monkeypatch.setattr(os, "fsync", die_at_the_last)
        ending = _in_a_child(lambda path=path: by_two_ranks(path))
        assert ending in (9, 0)
        monkeypatch.setattr(os, "fsync", lambda _: None)
        assert set(BagStore(path).failures["patient_id"]) <= {"P0", "P2", "P4"}
        _resume(path)
        assert _bytes(path) == whole, f"killed at step {last[0]}"
    assert last[0] > 4 * len(PATIENTS)


def test_a_torn_line_of_a_journal_is_passed_over(tmp_path: Path, whole: dict[str, bytes]) -> None:
    store = _create(tmp_path / "s.zarr")
    for name in PATIENTS[:3]:
        _write(store, name)
    store.close()
    journal = store.path / "failures-0.jsonl"
    journal.write_bytes(journal.read_bytes() + b'\n{"patient_id": "P4", "failures": [["P4", "P4/0"')
    assert set(BagStore(store.path).failures["patient_id"]) == {"P0", "P2"}
    _resume(store.path)
    assert _bytes(store.path) == whole


def test_a_line_after_a_torn_one_is_read(tmp_path: Path) -> None:
    store = _create(tmp_path / "s.zarr")
    (store.path / "failures-0.jsonl").write_bytes(b'{"patient_id": "P0", "fail')
    _write(store, "P2")
    assert set(store.failures["patient_id"]) == {"P2"}


def test_failures_of_patients_that_are_pending_are_not_listed(tmp_path: Path) -> None:
    store = _create(tmp_path / "s.zarr")
    for name in PATIENTS:
        _write(store, name)
    store.finish()
    store.retry_failed()
    assert store.pending() == ["P0", "P2", "P4"]
    assert store.failures.empty
    assert not (store.path / "failures.csv").exists()


def test_a_patient_that_is_written_again_forgets_its_failures_before_and_after_the_merge(tmp_path: Path) -> None:
    store = _create(tmp_path / "s.zarr")
    for name in PATIENTS:
        _write(store, name)
    _write(store, "P2", mended=True)
    assert set(store.failures["patient_id"]) == {"P0", "P4"}
    store.finish()
    store.close()
    store = BagStore(store.path, writable=True)
    _write(store, "P4", mended=True)
    assert set(store.failures["patient_id"]) == {"P0"}
    store.finish()
    store.close()
    assert set(store.failures["patient_id"]) == {"P0"}
    assert BagStore(store.path).verify() == []


def test_what_a_killed_writer_left_half_written_is_taken_away(tmp_path: Path, whole: dict[str, bytes]) -> None:
    store = _create(tmp_path / "s.zarr")
    store.close()
    (store.path / ".failures.csv.partial-4711").write_text("patient_id,cell")
    _resume(store.path)
    assert _bytes(store.path) == whole


@pytest.mark.parametrize("array", ["features", "image_sha256", "checksums"])
def test_a_disk_that_is_full_halfway_leaves_a_valid_store(
    tmp_path: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, array: str
) -> None:
    write = BagArrays.write

    def write_half(arrays: BagArrays, name: str, values: np.ndarray, first: int) -> None:
        if name != array:
            return write(arrays, name, values, first)
        write(arrays, name, values[: len(values) // 2], first)
        raise OSError(errno.ENOSPC, "No space left on device")

    store = _create(tmp_path / "s.zarr")
    _write(store, "P0")
    monkeypatch.setattr(BagArrays, "write", write_half)
    told = (
        r"^The disk has no room left for the store .* \(No space left on device\); free some space, then run the same"
    )
    with pytest.raises(StoreError, match=told):
        _write(store, "P2")
    monkeypatch.undo()
    assert store.pending() == PATIENTS[1:]
    assert set(store.failures["patient_id"]) == {"P0"}
    assert [fault for fault in store.verify() if "not committed" not in fault] == []
    _write(store, "P2", mended=True)  # the same process may go on, and knows better by now
    assert set(store.failures["patient_id"]) == {"P0"}
    store.close()
    (store.path / "committed" / "c" / "0").write_bytes(bytes([1, 0, 0, 0, 0, 0]))
    _resume(store.path)
    assert _bytes(store.path) == whole


def test_a_patient_that_is_half_written_again_is_pending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(arrays: BagArrays, name: str, values: np.ndarray, first: int) -> None:
        if name == "image_sha256":
            raise OSError(errno.ENOSPC, "No space left on device")
        write(arrays, name, values, first)

    write, store = BagArrays.write, _create(tmp_path / "s.zarr")
    _write(store, "P1")
    monkeypatch.setattr(BagArrays, "write", fail)
    with pytest.raises(StoreError, match="The disk has no room left"):
        _write(store, "P1")
    assert store.pending() == PATIENTS


def test_a_file_that_may_not_grow_leaves_a_valid_store(tmp_path: Path, whole: dict[str, bytes]) -> None:
    """The system itself refuses the second half of P3's features."""
    store = _create(tmp_path / "s.zarr")
    for name in PATIENTS[:3]:
        _write(store, name)
    store.close()
    limit = int((3.5 * N_CELLS) * DIM * 4)

    def write_on() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        part = BagStore(store.path, writable=True, rank=1)
        with pytest.raises(StoreError, match=r"The disk has no room left for the store .* \(File too large\)"):
            _write(part, "P3")

    assert _in_a_child(write_on) == 0
    assert BagStore(store.path).pending() == PATIENTS[3:]
    _resume(store.path)
    assert _bytes(store.path) == whole


def test_a_disk_that_is_full_at_the_start_leaves_nothing(tmp_path: Path) -> None:
    def create() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
        with pytest.raises(StoreError, match="The disk has no room left for the store"):
            _create(tmp_path / "s.zarr")

    assert _in_a_child(create) == 0
    assert list(tmp_path.iterdir()) == []
