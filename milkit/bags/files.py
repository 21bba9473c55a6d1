"""The attributes of a bag store, format 1, and what its files share. ``milkit.bags`` says what they mean."""

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from milkit.errors import StoreError
from milkit.runs import write_text

FORMAT = "milkit-bags"
VERSION = 1

_NEEDED = {"dim": int, "dtype": str, "cohort": str, "classes": list, "encoder": str, "encoder_digest": str}
"""Attributes that a store cannot be used without."""

_DOCUMENTED = (
    *_NEEDED,
    "cohort_digest",
    "patients_digest",
    "transform",
    "batch_size",
    "backend",
    "precision",
    "milkit",
)

_NO_ROOM = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}
"""A full disk, a file beyond what is allowed, a used-up quota."""


def read_attributes(path: Path) -> dict[str, Any]:
    """The attributes of a store; what is no store, damaged, or of a newer version, is a ``StoreError``."""
    metadata = path / "zarr.json"
    if not metadata.is_file():
        msg = f"There is no bag store at {path}; make one with `milkit extract`."
        raise StoreError(msg)
    try:
        content = json.loads(metadata.read_bytes())
    except ValueError:
        msg = f"{metadata} is not valid JSON; the store is damaged, so move its folder away and extract again."
        raise StoreError(msg) from None
    attributes = content.get("attributes") if isinstance(content, dict) else None
    if not isinstance(attributes, dict) or attributes.get("format") != FORMAT:
        msg = f"{path} is a Zarr group but not a bag store; make one with `milkit extract`."
        raise StoreError(msg)
    version = attributes.get("version")
    if isinstance(version, int) and version > VERSION:
        msg = (
            f"The store {path} has format version {version}, this milkit reads up to version {VERSION}; "
            "update milkit, or extract the cohort again."
        )
        raise StoreError(msg)
    wrong = [name for name, kind in _NEEDED.items() if not isinstance(attributes.get(name), kind)]
    wrong += [] if version == VERSION else ["version"]
    wrong += [] if attributes.get("dtype") in ("float16", "float32") else ["dtype"]
    if wrong:
        msg = (
            f"The '{wrong[0]}' in {metadata} is missing, or none that a bag store can have; the store is damaged, so "
            "move its folder away and extract again."
        )
        raise StoreError(msg)
    return attributes


def write_attributes(path: Path, changes: Mapping[str, Any]) -> None:
    """Change some attributes of a store, the others staying as they are, and the digest over all of them.

    Attributes that were damaged before are a ``StoreError``: a new digest would hide that.
    """
    metadata = path / "zarr.json"
    content = json.loads(metadata.read_bytes())
    if content["attributes"].get("attributes_digest", digest := _digest(content)) != digest:
        msg = f"{metadata} is not what was written; the store is damaged, so move its folder away and extract again."
        raise StoreError(msg)
    content["attributes"] |= changes
    content["attributes"]["attributes_digest"] = _digest(content)
    write_text(metadata, json.dumps(content, indent=2))


def file_digests(folder: Path, files: Iterable[Path]) -> dict[str, str]:
    """SHA-256 of each file, by its name within the folder."""
    return {file.relative_to(folder).as_posix(): _sha256(file) for file in files}


def metadata_faults(path: Path) -> list[str]:
    """What is wrong with ``zarr.json`` and with the files that it holds a digest of, one sentence each."""
    content = json.loads((path / "zarr.json").read_bytes())
    attributes = content["attributes"]
    faults = [f"zarr.json has no '{name}'" for name in _DOCUMENTED if name not in attributes]
    if "attributes_digest" not in attributes:
        faults.append(
            "zarr.json has no 'attributes_digest', as of an earlier milkit, so what it says cannot be checked"
        )
    elif attributes["attributes_digest"] != _digest(content):
        return [*faults, "zarr.json is not what was written"]
    digests = {**attributes.get("files_sha256", {}), "patients.csv": attributes.get("patients_digest")}
    changed = [name for name, expected in digests.items() if _sha256(path / name) != expected]
    return faults + [f"{name} is not the {'table' if '.csv' in name else 'file'} that was written" for name in changed]


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, have reached the disk."""
    with contextlib.suppress(PermissionError):  # Windows opens no folders
        handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextlib.contextmanager
def room_in(path: Path) -> Iterator[None]:
    """Turn a full disk into a ``StoreError``; what is committed stays so, and what is not stays pending."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        msg = (
            f"The disk has no room left for the store {path} ({error.strerror}); free some space, then run the same "
            "`milkit extract` again, it goes on where it stopped."
        )
        raise StoreError(msg) from error


def _digest(content: Mapping[str, Any]) -> str:
    """SHA-256 over all of ``zarr.json`` but the digest itself, as JSON with sorted keys."""
    attributes = {name: value for name, value in content["attributes"].items() if name != "attributes_digest"}
    return hashlib.sha256(json.dumps({**content, "attributes": attributes}, sort_keys=True).encode()).hexdigest()


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
