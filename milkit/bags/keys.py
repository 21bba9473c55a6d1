"""The key and the map of study ids, in the folder ``keys`` of a workspace, which nobody but their owner may read.

A study id is ``P-`` (a patient; ``C-`` a cell, ``S-`` a sample) and the first 60 bits, in base 32, of

    HMAC-SHA256(key, ["patient", cohort, source id] as JSON)

so that it is the same in every run of a cohort as long as the key is, tells nothing to who lacks the key, and differs
between cohorts, which no one can link by it. ``study-ids.key`` holds 32 random bytes, in hexadecimal; a map
``<cohort>-<cohort's digest>-<key's digest>.csv`` has the columns kind, study_id, source_id and path. Folder and files
have the modes 0700 and 0600. Neither is ever written into a run or a report. Who loses the key keeps the maps, and with
them the way back from study ids; what is lost is that new runs have the same ids.

HMAC: Krawczyk, Bellare and Canetti, RFC 2104, 1997.
"""

import base64
import contextlib
import hmac
import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from milkit.errors import StoreError
from milkit.runs import whole_file

KEY = "study-ids.key"
_KEY_BYTES = 32
_LETTERS = 12

Kind = Literal["patient", "cell", "sample"]


@dataclass(frozen=True, slots=True)
class StudyKey:
    """Makes the study ids of one cohort."""

    key: bytes
    cohort: str

    @property
    def digest(self) -> str:
        """Names the key without telling it."""
        return hmac.digest(self.key, b"the digest of this key", "sha256").hex()[:8]

    def study_ids(self, kind: Kind, source_ids: "pd.Series[str]") -> "pd.Series[str]":
        """The study id of each source id; a ``StoreError`` where two different ones get the same."""
        distinct = source_ids.dropna().unique()
        made = {source: self._study_id(kind, str(source)) for source in distinct}
        if len(set(made.values())) < len(made):
            msg = (
                f"Two {kind}s of the cohort '{self.cohort}' get the same study id, which happens once in a thousand "
                f"million cohorts; move the folder of the key {KEY} away, so that another is made."
            )
            raise StoreError(msg)
        return source_ids.map(made)

    def _study_id(self, kind: Kind, source: str) -> str:
        message = json.dumps([kind, self.cohort, source]).encode()
        code = base64.b32encode(hmac.digest(self.key, message, "sha256")).decode()
        return f"{kind[0].upper()}-{code[:_LETTERS]}"


def keys_folder(store: Path) -> Path:
    """Where the key of a store lies: in its workspace, or beside a store that lies in none."""
    place = store.resolve()
    in_workspace = place.parent.parent.name == "stores"
    return (place.parents[2] if in_workspace else place.parent) / "keys"


def find_key(folder: Path, cohort: str) -> StudyKey:
    """The workspace's key, which is made where there is none yet.

    Raises:
        StoreError: The key is gone or damaged, or another one than the cohort's map was made with.
    """
    path, maps = folder / KEY, sorted(folder.glob("*.csv"))
    if not path.is_file():
        if maps:
            msg = (
                f"The key {path} is missing, and {maps[0].name} beside it was made with it; put the key back from a "
                "backup, or move that folder away, after which patients get other study ids than in earlier runs."
            )
            raise StoreError(msg)
        _make_key(path)
    found = StudyKey(_read_key(path), cohort)
    own = [map_.name for map_ in maps if map_.name.rsplit("-", 2)[0] == cohort]
    if own and not any(name.endswith(f"-{found.digest}.csv") for name in own):
        msg = (
            f"The key {path} is not the one that {own[0]} beside it was made with; put that key back from a backup, or "
            "move this folder away, after which patients get other study ids than in earlier runs."
        )
        raise StoreError(msg)
    return found


def map_path(folder: Path, key: StudyKey, cohort_digest: str) -> Path:
    """Where the map of a cohort's ids lies."""
    return folder / f"{key.cohort}-{cohort_digest[:8]}-{key.digest}.csv"


def write_map(path: Path, table: pd.DataFrame) -> None:
    """Write a map, whole or not at all, for its owner's eyes only.

    Args:
        path: From ``map_path``.
        table: kind, study_id, source_id, path.
    """
    _open_folder(path.parent)
    _write_private(path, table.to_csv(index=False).encode())


def _make_key(path: Path) -> None:
    _open_folder(path.parent)
    whole = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        _write_private(whole, (secrets.token_bytes(_KEY_BYTES).hex() + "\n").encode())
        try:
            os.link(whole, path)
        except FileExistsError:  # another process was first: its key holds
            pass
        except OSError:  # a file system without links
            whole.replace(path)
    finally:
        whole.unlink(missing_ok=True)


def _read_key(path: Path) -> bytes:
    _close_to_others(path.parent, 0o700)
    _close_to_others(path, 0o600)
    try:
        key = bytes.fromhex(path.read_text(encoding="ascii"))
    except ValueError:
        key = b""
    if len(key) != _KEY_BYTES:
        msg = f"The key {path} is damaged, where {_KEY_BYTES} bytes in hexadecimal were expected; put back a backup."
        raise StoreError(msg)
    return key


def _open_folder(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _close_to_others(folder, 0o700)


def _close_to_others(path: Path, mode: int) -> None:
    if path.stat().st_mode & 0o077:
        with contextlib.suppress(PermissionError):  # not ours: who owns it answers for it
            path.chmod(mode)


def _write_private(path: Path, content: bytes) -> None:
    with whole_file(path) as partial:  # never readable by others, not even for the moment before a chmod
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
