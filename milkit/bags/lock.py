"""Who writes a bag store, or a training: an advisory lock on the file ``lock``, and in it a record that tells others.

The record is JSON (``pid``, ``host``, ``since`` in UTC) while the folder is being written, and the file is empty
otherwise. The lock is the system's own (``flock``), which dies with its process, so that none is ever left behind. The
further ranks of a job that write, too, share a lock on the file ``ranks``, so that none is overlooked when the first
one dies. Where a file system or a system has no such locks, the record itself decides; two processes that start in the
same instant can then miss each other.
"""

import contextlib
import errno
import json
import os
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from milkit.errors import StoreError

_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
"""What file systems without locks answer: NFS without its daemon, Lustre mounted without ``flock``, many of FUSE."""


class _Writer(NamedTuple):
    pid: int
    host: str
    since: datetime


def join_lock(path: Path) -> int:
    """Show, as a further rank of the job that holds the lock, that this process writes, too."""
    handle = os.open(path / "ranks", os.O_RDWR | os.O_CREAT, 0o666)
    with contextlib.suppress(ImportError, OSError):  # where there are no locks, the first rank's record has to do
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_SH)
    return handle


def _require_no_ranks(path: Path, what: str) -> None:
    """Refuse while a rank of an earlier job, whose first rank has died, still writes."""
    handle = os.open(path / "ranks", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        _flock(handle)
    except BlockingIOError:
        msg = (
            f"Processes of an earlier job are still writing {what} {path}, though their first has ended; wait until "
            "they have ended too, or stop them, then run the command again."
        )
        raise StoreError(msg) from None
    finally:
        os.close(handle)


def acquire_lock(path: Path, what: str = "the store") -> int:
    """Become the one process that writes the folder, for people ``what``; a ``StoreError`` says who does so already."""
    file = path / "lock"
    handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            locked = _flock(handle)
        except BlockingIOError:
            told = _says(_read(handle), f"{what} {path}")
            msg = f"{told}; wait until it has finished, or stop it, then run the command again."
            raise StoreError(msg) from None
        if not locked and os.fstat(handle).st_size and _may_live(writer := _read(handle)):
            told = _says(writer, f"{what} {path}")
            msg = f"{told}; wait until it has finished, or, if it is gone, delete {file}, then run the command again."
            raise StoreError(msg)
        _require_no_ranks(path, what)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        os.ftruncate(handle, 0)
        os.write(handle, json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": now}).encode())
        os.fsync(handle)
    except BaseException:
        os.close(handle)
        raise
    return handle


def release_lock(handle: int) -> None:
    """Let another process write the folder."""
    os.ftruncate(handle, 0)
    os.close(handle)


def _flock(handle: int) -> bool:
    """Lock the file; False where that cannot be done, ``BlockingIOError`` where another process holds the lock."""
    try:
        import fcntl
    except ImportError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return False
    return True


def _read(handle: int) -> _Writer | None:
    """The record of the process that writes, or that did when it died; None where it is empty or torn."""
    os.lseek(handle, 0, os.SEEK_SET)
    content = os.read(handle, 4096)
    os.lseek(handle, 0, os.SEEK_SET)
    try:
        values = json.loads(content)
        return _Writer(int(values["pid"]), str(values["host"]), datetime.fromisoformat(values["since"]))
    except (ValueError, TypeError, KeyError):
        return None


def _may_live(writer: _Writer | None) -> bool:
    """Whether the process may still be there: only one of this machine is known to be gone."""
    if writer is None or writer.host != socket.gethostname() or os.name == "nt":  # there, signal 0 ends a process
        return True
    with contextlib.suppress(PermissionError):  # another user's process lives, too
        try:
            os.kill(writer.pid, 0)
        except (ProcessLookupError, OverflowError):
            return False
    return True


def _says(writer: _Writer | None, what: str) -> str:
    if writer is None:
        return f"Another process is writing {what}"
    since = f"{writer.since:%Y-%m-%d %H:%M} UTC"
    return f"Process {writer.pid} on {writer.host} has been writing {what} since {since}"
