"""The lock of a bag store: one job writes at a time, others are told who, and the dead hold nothing."""

import errno
import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from toys import make_store, toy_patients

from milkit.bags import BagStore
from milkit.errors import StoreError

HOLD = "import sys, pathlib, milkit.bags as b; s = b.BagStore(pathlib.Path(sys.argv[1]), writable=True); print('held')"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return make_store(tmp_path / "s.zarr", toy_patients(1)).path


@pytest.fixture
def no_flock(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a file system that has no locks."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)


def _record(path: Path, pid: int, host: str) -> None:
    record = {"pid": pid, "host": host, "since": "2026-11-21T10:02:59+00:00"}
    (path / "lock").write_text(json.dumps(record))


def _dead_pid() -> int:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def test_a_second_writer_is_told_who_writes(path: Path) -> None:
    first = BagStore(path, writable=True)
    who = re.escape(f"Process {os.getpid()} on {socket.gethostname()} has been writing the store {path} since ")
    advice = r"\d{4}-\d\d-\d\d \d\d:\d\d UTC; wait until it has finished, or stop it, then run the command again\.$"
    with pytest.raises(StoreError, match=f"^{who}{advice}"):
        BagStore(path, writable=True)
    assert first.pending() == []
    first.close()
    BagStore(path, writable=True).close()


def test_a_writer_that_has_not_said_its_name_yet_is_respected(path: Path) -> None:
    first = BagStore(path, writable=True)
    (path / "lock").write_text("")
    with pytest.raises(StoreError, match=f"^Another process is writing the store {path}; wait until it has finished"):
        BagStore(path, writable=True)
    first.close()


def test_the_record_says_nothing_of_the_user_and_is_emptied(path: Path) -> None:
    store = BagStore(path, writable=True)
    assert json.loads((path / "lock").read_text()).keys() == {"pid", "host", "since"}
    store.close()
    assert (path / "lock").read_bytes() == b""


def test_readers_and_further_ranks_need_no_lock(path: Path) -> None:
    first = BagStore(path, writable=True)
    assert len(BagStore.open(path)) == 3
    further = BagStore(path, writable=True, rank=1)
    with pytest.raises(StoreError, match="was opened without its lock; finish it as rank 0"):
        further.finish()
    further.close()
    assert (path / "lock").read_bytes()
    first.close()


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM])
def test_the_lock_of_a_killed_process_is_taken_over(path: Path, ending: signal.Signals) -> None:
    command = [sys.executable, "-c", HOLD + "; sys.stdout.flush(); sys.stdin.read()", str(path)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"held\n"
    with pytest.raises(StoreError, match=f"^Process {child.pid} on "):
        BagStore(path, writable=True)
    child.send_signal(ending)
    child.communicate()
    assert json.loads((path / "lock").read_text())["pid"] == child.pid
    BagStore(path, writable=True).close()
    assert (path / "lock").read_bytes() == b""


def test_without_locks_a_living_process_is_respected(path: Path, no_flock: None) -> None:
    first = BagStore(path, writable=True)
    advice = re.escape(f"wait until it has finished, or, if it is gone, delete {path / 'lock'}, then run the command")
    with pytest.raises(StoreError, match=f"^Process {os.getpid()} on .* UTC; {advice}"):
        BagStore(path, writable=True)
    first.close()
    BagStore(path, writable=True).close()


def test_without_locks_a_dead_process_of_this_machine_is_taken_over(path: Path, no_flock: None) -> None:
    _record(path, _dead_pid(), socket.gethostname())
    BagStore(path, writable=True).close()
    assert (path / "lock").read_bytes() == b""


def test_without_locks_a_process_elsewhere_is_respected(path: Path, no_flock: None) -> None:
    _record(path, _dead_pid(), "node7.cluster")
    told = re.escape(f"on node7.cluster has been writing the store {path} since 2026-11-21 10:02 UTC; ")
    with pytest.raises(StoreError, match=told + r".* delete .*lock, then"):
        BagStore(path, writable=True)
    (path / "lock").unlink()
    BagStore(path, writable=True).close()


def test_without_locks_a_torn_record_is_respected(path: Path, no_flock: None) -> None:
    (path / "lock").write_text('{"pid": 47')
    with pytest.raises(StoreError, match=r"^Another process is writing the store .* delete .*lock, then"):
        BagStore(path, writable=True)


def test_another_fault_of_the_lock_is_not_hidden(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("fcntl.flock", fail)
    with pytest.raises(OSError, match="Input/output error"):
        BagStore(path, writable=True)


def test_a_store_waits_for_the_other_ranks_of_a_job_whose_first_has_died(path: Path) -> None:
    first = BagStore(path, writable=True)
    second = BagStore(path, writable=True, rank=1)
    first.close()
    with pytest.raises(StoreError, match=r"Processes of an earlier job are still writing the store .*; wait until"):
        BagStore(path, writable=True)
    second.close()
    BagStore(path, writable=True).close()
