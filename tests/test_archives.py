"""Images inside archives: the bytes that were packed, by any number of threads, and a reason for what is not read."""

import io
import os
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from milkit import archives
from milkit.errors import ImageError
from milkit.images import read_bytes, read_image


def content(number: int) -> bytes:
    """A PNG of noise, different for each number."""
    buffer = io.BytesIO()
    noise = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "PNG")
    return buffer.getvalue()


FILES = {f"P{patient}/{number}.png": content(10 * patient + number) for patient in range(3) for number in range(4)}


def write_zip(path: Path, files: dict[str, bytes] = FILES, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def write_tar(path: Path, files: dict[str, bytes] = FILES, mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_members_of_a_zip_are_the_bytes_that_were_packed(tmp_path: Path, method: int) -> None:
    write_zip(tmp_path / "smears.zip", method=method)
    assert {name: read_bytes(tmp_path, f"smears.zip::{name}") for name in FILES} == FILES


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_members_of_a_tar_are_the_bytes_that_were_packed(tmp_path: Path, form: int) -> None:
    long = "P1/" + "a" * 95 + ".png"
    with tarfile.open(tmp_path / "smears.TAR", "w", format=form) as archive:
        for name, data in (FILES | {long: b"x"}).items():
            info = tarfile.TarInfo(f"./{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    assert {name: read_bytes(tmp_path, f"smears.TAR::{name}") for name in FILES} == FILES
    assert read_bytes(tmp_path, f"smears.TAR::{long}") == b"x"


def test_a_zip_behind_other_bytes_is_read(tmp_path: Path) -> None:
    """Self-extracting archives begin with a program."""
    path = write_zip(tmp_path / "a.zip")
    path.write_bytes(b"program" * 99 + path.read_bytes())
    assert read_bytes(tmp_path, "a.zip::P2/3.png") == FILES["P2/3.png"]


def test_a_zip_written_to_a_stream_is_read(tmp_path: Path) -> None:
    """Sizes then stand behind a member's data, and in the index only."""

    class Stream(io.RawIOBase):
        def __init__(self) -> None:
            self.data = bytearray()

        def writable(self) -> bool:
            return True

        def write(self, data: bytes) -> int:  # type: ignore[override]
            self.data += data
            return len(data)

    stream = Stream()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:  # type: ignore[arg-type]
        for name, data in FILES.items():
            archive.writestr(name, data)
    (tmp_path / "a.zip").write_bytes(bytes(stream.data))
    assert {name: read_bytes(tmp_path, f"a.zip::{name}") for name in FILES} == FILES


def test_threads_share_one_index_and_read_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_zip(tmp_path / "smears.zip")
    write_tar(tmp_path / "smears.tar")
    read, seen = archives._read_index, []

    def counted(archive: Path, file: io.BufferedReader) -> object:
        seen.append(archive.name)
        return read(archive, file)

    monkeypatch.setattr(archives, "_read_index", counted)
    jobs = [(kind, name) for _ in range(20) for name in FILES for kind in ("zip", "tar")]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda job: read_bytes(tmp_path, f"smears.{job[0]}::{job[1]}"), jobs))
    assert found == [FILES[name] for _, name in jobs]
    assert sorted(seen) == ["smears.tar", "smears.zip"]


def test_an_archive_that_was_replaced_is_indexed_anew(tmp_path: Path) -> None:
    write_zip(tmp_path / "a.zip", {"1.png": b"old"})
    assert read_bytes(tmp_path, "a.zip::1.png") == b"old"
    write_zip(tmp_path / "a.zip", {"0.png": b"another", "1.png": b"new and longer"})
    assert read_bytes(tmp_path, "a.zip::1.png") == b"new and longer"


def test_members_are_listed_without_folders(tmp_path: Path) -> None:
    with zipfile.ZipFile(write_zip(tmp_path / "a.zip", {"P1/1.png": b"", "P1\\2.png": b""}), "a") as archive:
        archive.mkdir("P2")
    assert archives.members(tmp_path / "a.zip") == ["P1/1.png", "P1/2.png"]


def test_a_hard_link_in_a_tar_is_the_file_that_it_names(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        info = tarfile.TarInfo("1.png")
        info.size = 3
        archive.addfile(info, io.BytesIO(b"one"))
        link = tarfile.TarInfo("2.png")
        link.type, link.linkname = tarfile.LNKTYPE, "1.png"
        archive.addfile(link)
    assert read_bytes(tmp_path, "a.tar::2.png") == b"one"


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("a.zip::b/c.png", ("a.zip", "b/c.png")),
        ("x/A.TAR::c.png", ("x/A.TAR", "c.png")),
        ("a.tar.gz::c.png", ("a.tar.gz", "c.png")),
        ("a.zip::b.zip::c.png", ("a.zip", "b.zip::c.png")),
        ("CBFB::MYH11/c.png", None),
        ("a.zip/c.png", None),
    ],
)
def test_two_colons_are_an_archive_only_behind_one(path: str, parts: tuple[str, str] | None) -> None:
    assert archives.split(path) == parts


def test_a_folder_with_two_colons_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "CBFB::MYH11").mkdir()
    (tmp_path / "CBFB::MYH11" / "1.png").write_bytes(b"cell")
    assert read_bytes(tmp_path, "CBFB::MYH11/1.png") == b"cell"


@pytest.mark.parametrize("suffix", ["tar.gz", "tgz", "tar.xz", "tar.bz2"])
def test_a_compressed_tar_is_refused_with_what_to_do(tmp_path: Path, suffix: str) -> None:
    write_tar(tmp_path / f"a.{suffix}", mode="w:gz")
    with pytest.raises(ImageError, match=r"compressed as a whole, .*: unpack it, or pack it anew as zip or as uncompr"):
        read_bytes(tmp_path, f"a.{suffix}::P1/1.png")


def test_a_bomb_is_refused_by_its_declared_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_BYTES", 1000)
    write_zip(tmp_path / "a.zip", {"fits.png": bytes(1000), "bomb.png": bytes(1001)})
    assert len(read_bytes(tmp_path, "a.zip::fits.png")) == 1000
    with pytest.raises(ImageError, match=r"says it has 1,001 bytes unpacked, where an image has up to 1,000"):
        read_bytes(tmp_path, "a.zip::bomb.png")


def test_a_bomb_that_understates_itself_is_not_unpacked_further(tmp_path: Path) -> None:
    """A million zeros that the index calls ten: at most eleven of them are made."""
    path = write_zip(tmp_path / "a.zip", {"bomb.png": bytes(1_000_000)})
    path.write_bytes(path.read_bytes().replace((1_000_000).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    with pytest.raises(ImageError, match=r"is damaged \(its length or its checksum differs"):
        read_bytes(tmp_path, "a.zip::bomb.png")


def test_a_flipped_byte_is_found(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"1.png": b"abcdefgh" * 9}, zipfile.ZIP_STORED)
    path.write_bytes(path.read_bytes().replace(b"abcdefgh", b"abcdefgi", 1))
    with pytest.raises(ImageError, match=r"is damaged \(its length or its checksum differs from the index\)"):
        read_bytes(tmp_path, "a.zip::1.png")


def test_another_compression_and_a_password_are_named(tmp_path: Path) -> None:
    write_zip(tmp_path / "a.zip", method=zipfile.ZIP_LZMA)
    with pytest.raises(ImageError, match=r"the file is compressed by another method than deflate: unpack"):
        read_bytes(tmp_path, "a.zip::P1/1.png")
    path = write_zip(tmp_path / "b.zip", {"1.png": b"x"})
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1  # the flag of the index that says so
    path.write_bytes(bytes(content))
    with pytest.raises(ImageError, match=r"the file is encrypted: unpack"):
        read_bytes(tmp_path, "b.zip::1.png")


def test_what_is_missing_or_no_archive_has_a_reason(tmp_path: Path) -> None:
    write_zip(tmp_path / "a.zip")
    with pytest.raises(ImageError, match=r"the archive a.zip has no file 'P9/1.png'"):
        read_bytes(tmp_path, "a.zip::P9/1.png")
    with pytest.raises(ImageError, match=r"the archive b.zip cannot be opened \(No such file or directory\)"):
        read_bytes(tmp_path, "b.zip::1.png")
    for name in ("c.zip", "c.tar"):
        (tmp_path / name).write_bytes(b"no archive at all" * 99)
        with pytest.raises(ImageError, match=rf"{name} is not a readable {name[2:]} archive"):
            read_bytes(tmp_path, f"{name}::1.png")


def test_a_truncated_archive_has_a_reason(tmp_path: Path) -> None:
    for path in (write_zip(tmp_path / "a.zip"), write_tar(tmp_path / "a.tar")):
        os.truncate(path, 900)
        with pytest.raises(ImageError, match=r"not a readable|damaged|has no file"):
            read_bytes(tmp_path, f"{path.name}::P2/3.png")


def test_a_member_is_decoded_like_a_file(tmp_path: Path) -> None:
    write_zip(tmp_path / "a.zip")
    found = read_image(io.BytesIO(read_bytes(tmp_path, "a.zip::P1/2.png")))
    np.testing.assert_array_equal(found, np.random.default_rng(12).integers(0, 256, (8, 8, 3), dtype=np.uint8))
