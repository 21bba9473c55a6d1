"""Images inside zip and tar archives, read where they lie: ``smears.zip::P1/image_3.png`` is a member of an archive.

The index of an archive (names, places, sizes) is read once per process and serves all threads. Every read opens the
archive for itself, so that threads and forked processes share no position in it. A zip's members may be stored or
deflated; a tar must be uncompressed, as one that is compressed as a whole has no place where an image begins.
"""

import os
import re
import struct
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

from milkit.errors import ImageError

SEPARATOR = "::"
"""Between the path of an archive and the name of a member."""
MAX_BYTES = 256 * 2**20
"""Four times the largest image (``milkit.images.MAX_PIXELS``), uncompressed; what claims more is a bomb, or none."""

_PLACE = re.compile(r"(.+?\.(?:zip|tar(?:\.\w+)?|tgz|tbz2?|txz))::(.+)", re.IGNORECASE | re.DOTALL)
_LOCAL_HEADER = struct.Struct("<4s22xHH")
"""Before the bytes of a zip's member: signature, …, lengths of the name and of the extra field that follow it."""


Kind = Literal["plain", "stored", "deflated", "encrypted", "compressed"]
"""A tar's member; a zip's: as it is, deflated, or not to be read here."""


class Member(NamedTuple):
    """Where a member lies: first byte (of a zip's local header, of a tar's data), bytes there, and bytes unpacked."""

    offset: int
    packed: int
    size: int
    kind: Kind
    crc: int = 0


_indexes: dict[str, tuple[tuple[int, int], Mapping[str, Member]]] = {}
_lock = threading.Lock()


def split(path: str) -> tuple[str, str] | None:
    """The archive and the member that a path names; None where it names a file of its own.

    Two colons alone make no archive, as in a folder ``CBFB::MYH11``: what is before them must end like one.
    """
    match = _PLACE.fullmatch(path)
    return (match[1], match[2]) if match else None


def members(archive: Path) -> list[str]:
    """The names of an archive's files, in its order; ``ImageError`` with the reason where they cannot be read."""
    try:
        with archive.open("rb") as file:
            return list(_index(archive, file))
    except OSError as error:
        raise _unopened(archive, error) from None


def read_member(archive: Path, name: str) -> bytes:
    """The bytes of one file of an archive.

    An archive or a member that is missing, damaged, encrypted, compressed in a way that is not read here, or larger
    than ``MAX_BYTES`` by its own account is an ``ImageError`` with the reason; no more bytes than that are unpacked.
    """
    try:
        with archive.open("rb") as file:
            member = _index(archive, file).get(name)
            if member is None:
                msg = f"the archive {archive.name} has no file '{name}'"
                raise ImageError(msg)
            if max(member.size, member.packed) > MAX_BYTES:
                msg = f"the file says it has {member.size:,} bytes unpacked, where an image has up to {MAX_BYTES:,}"
                raise ImageError(msg)
            return _content(file, member)
    except OSError as error:
        raise _unopened(archive, error) from None


def _unopened(archive: Path, error: OSError) -> ImageError:
    return ImageError(f"the archive {archive.name} cannot be opened ({error.strerror})")


def _index(archive: Path, file: BinaryIO) -> Mapping[str, Member]:
    """The members by name; read anew only where the archive has changed."""
    status = os.fstat(file.fileno())
    stamp = (status.st_size, status.st_mtime_ns)
    with _lock:
        known = _indexes.get(str(archive))
        if known is None or known[0] != stamp:
            known = _indexes[str(archive)] = (stamp, _read_index(archive, file))
        return known[1]


def _read_index(archive: Path, file: BinaryIO) -> Mapping[str, Member]:
    suffix = archive.suffix.lower()
    if suffix not in {".zip", ".tar"}:
        msg = (
            f"the archive {archive.name} is compressed as a whole, so that no image can be read alone: "
            "unpack it, or pack it anew as zip or as uncompressed tar"
        )
        raise ImageError(msg)
    try:
        return _zip_index(file) if suffix == ".zip" else _tar_index(file)
    except (zipfile.BadZipFile, tarfile.TarError, NotImplementedError, UnicodeDecodeError) as error:
        msg = f"{archive.name} is not a readable {suffix[1:]} archive ({error})"
        raise ImageError(msg) from None


def _zip_index(file: BinaryIO) -> dict[str, Member]:
    """Some programs of Windows write backslashes between folders; of files with the same name the last one counts."""
    methods: dict[int, Kind] = {zipfile.ZIP_STORED: "stored", zipfile.ZIP_DEFLATED: "deflated"}
    with zipfile.ZipFile(file) as archive:
        return {
            info.filename.replace("\\", "/"): Member(
                info.header_offset,
                info.compress_size,
                info.file_size,
                "encrypted" if info.flag_bits & 1 else methods.get(info.compress_type, "compressed"),
                info.CRC,
            )
            for info in archive.infolist()
            if not info.is_dir()
        }


def _tar_index(file: BinaryIO) -> dict[str, Member]:
    """Two names of one file (hard links) are two members with the same bytes."""
    found: dict[str, Member] = {}
    with tarfile.open(fileobj=file, mode="r:") as archive:
        for info in archive:
            name = info.name.removeprefix("./")
            if info.islnk() and info.linkname.removeprefix("./") in found:
                found[name] = found[info.linkname.removeprefix("./")]
            elif info.isreg() and not info.issparse():
                found[name] = Member(info.offset_data, info.size, info.size, "plain")
    return found


def _content(file: BinaryIO, member: Member) -> bytes:
    if member.kind in {"encrypted", "compressed"}:
        how = "encrypted" if member.kind == "encrypted" else "compressed by another method than deflate"
        msg = f"the file is {how}: unpack the archive, or pack it anew"
        raise ImageError(msg)
    file.seek(member.offset)
    if member.kind != "plain":
        header = file.read(_LOCAL_HEADER.size)
        signature, name, extra = _LOCAL_HEADER.unpack(header.ljust(_LOCAL_HEADER.size, b"\0"))
        if signature != b"PK\x03\x04":
            msg = "the archive is damaged (no file begins where its index says)"
            raise ImageError(msg)
        file.seek(name + extra, os.SEEK_CUR)
    content = file.read(member.packed)
    if member.kind == "deflated":
        content = _inflate(content, member.size)
    if len(content) != member.size or (member.kind != "plain" and zlib.crc32(content) != member.crc):
        msg = "the file in the archive is damaged (its length or its checksum differs from the index)"
        raise ImageError(msg)
    return content


def _inflate(content: bytes, size: int) -> bytes:
    """One byte more than the index says is enough to see that it lies, however much would come."""
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, size + 1)
    except zlib.error as error:
        msg = f"the file in the archive is damaged ({error})"
        raise ImageError(msg) from None
