"""What stands in a file, piece by piece, with the place that each piece is found at.

Read are text (CSV, JSON, YAML, HTML, SVG, …), Parquet, HDF5 and AnnData, the metadata of safetensors, and of images the
tags: TIFF and EXIF tags, comments and PNG text. Not read: pixels, arrays, PDF, what is inside archives and of other
formats, and the pictures that stand in a page as ``data:``, which milkit encodes anew from their pixels.
"""

import csv
import html
import io
import json
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from milkit.cohort import IMAGE_SUFFIXES

_DATA = re.compile(r"data:[a-z0-9.+/-]+;base64,[A-Za-z0-9+/=]+")
_MARKUP = re.compile(r"<(style)\b.*?</\1>|<[^>]*?>", re.DOTALL | re.IGNORECASE)
_SPOKEN = re.compile(r"""\b(?:title|alt|id|href|content|value|aria-label|data-[\w-]+)\s*=\s*(?:"([^"]+)"|'([^']+)')""")
_IDS = frozenset({"patient_id", "sample_id", "case_id", "subject_id"})
_TIMES = frozenset({306, 36867, 36868, 29, 36880, 36881, 36882, 37520, 37521, 37522})
"""Tags of when a picture was taken or a file changed."""
_MOST_TEXT = 200_000_000
"""Bytes of a text that are read."""


class Piece(NamedTuple):
    """Some text of a file.

    Attributes:
        place: Where in the file: a line, a column and row, a key, a tag.
        text: What stands there.
        label: What it stands under: a column's title, a key, a tag's name.
        prose: Whether it is running text.
        is_id: Whether it is how a patient or a sample is called.
    """

    place: str
    text: str
    label: str = ""
    prose: bool = False
    is_id: bool = False


def final_name(name: str) -> str:
    """What a file will be called, which is still hidden while it is written."""
    return re.sub(r"^\.(.+)\.partial-\w+$", r"\1", name)


def pieces(path: Path) -> Iterator[Piece] | None:
    """The text in a file; None where the file is of no kind that is read."""
    suffix = Path(final_name(path.name)).suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return _of_image(path)
    if suffix in {".csv", ".tsv"}:
        return _of_table(path, "\t" if suffix == ".tsv" else ",")
    if suffix == ".parquet":
        return _of_parquet(path)
    if suffix in {".h5", ".hdf5", ".h5ad"}:
        return _of_hdf5(path)
    if suffix == ".safetensors":
        return _of_safetensors(path)
    text = None if suffix == ".pdf" else _text(path)
    if text is None:
        return None
    if suffix == ".json":
        return _of_json(text)
    if suffix in {".html", ".htm", ".svg", ".xml"}:
        return of_markup(text)
    return _of_lines(text)


def _text(path: Path) -> str | None:
    """A file as text; None where it is none, or huge."""
    if path.stat().st_size > _MOST_TEXT:
        return None
    content = path.read_bytes()
    if b"\0" in content[:4096]:
        return None
    for encoding in ("utf-8-sig", "cp1252"):
        try:
            return content.decode(encoding)
        except UnicodeDecodeError:
            continue
    return None


def _of_lines(text: str) -> Iterator[Piece]:
    for number, line in enumerate(text.splitlines(), start=1):
        yield Piece(f"line {number}", line, prose=True)


def of_markup(text: str) -> Iterator[Piece]:
    """What is read, and the attributes that say something; scripts count as text."""
    bare = _DATA.sub("", text)
    read = _MARKUP.sub(lambda match: "\n" * match.group().count("\n") + " ", bare)
    for number, line in enumerate(read.splitlines(), start=1):
        if line.strip():
            yield Piece(f"line {number}", html.unescape(line), prose=True)
    spoken = {value for pair in _SPOKEN.findall(bare) for value in pair if value}
    for value in sorted(spoken):
        yield Piece("an attribute", html.unescape(value), prose=True)


def _of_table(path: Path, delimiter: str) -> Iterator[Piece]:
    text = _text(path) or ""
    first = text.partition("\n")[0]
    delimiter = ";" if first.count(";") > first.count(delimiter) else delimiter
    csv.field_size_limit(2**31 - 1)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    titles = next(rows, [])
    seen: list[set[str]] = [set() for _ in titles]
    for title in titles:
        yield Piece("the titles of the columns", title)
    for number, row in enumerate(rows, start=1):
        for title, known, value in zip(titles, seen, row, strict=False):
            if value not in known:
                known.add(value)
                yield from _cell(title, number, value)


def _cell(title: str, number: int, value: str) -> Iterator[Piece]:
    if value and not _is_decimal(value):
        yield Piece(f"column {title}, row {number}", value, label=title, is_id=title.lower() in _IDS)


def _is_decimal(value: str) -> bool:
    """Whether a value is a number that no record has: with a point, or an exponent."""
    return "." in value and re.fullmatch(r"-?\d*\.\d+(?:e[+-]?\d+)?", value, re.IGNORECASE) is not None


def _of_parquet(path: Path) -> Iterator[Piece]:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path)
    for key, value in (file.schema_arrow.metadata or {}).items():
        if key != b"ARROW:schema":
            yield Piece(f"metadata {key.decode(errors='replace')}", value.decode(errors="replace"), prose=True)
    for field in file.schema_arrow:
        if pa.types.is_floating(field.type):
            continue
        column = pc.unique(file.read([field.name]).column(0).cast(pa.string()))
        for number, value in enumerate(column.to_pylist(), start=1):
            yield from _cell(field.name, number, value or "")


def _of_hdf5(path: Path) -> Iterator[Piece]:
    import h5py

    with h5py.File(path, "r") as file:
        found = list[tuple[str, Any]]([("", file)])
        file.visititems(lambda name, item: found.append((name, item)))  # returning None goes on
        for name, item in found:
            title = name.rpartition("/")[2]
            yield Piece(f"the name of {name or '/'}", title)
            for key, value in item.attrs.items():
                yield from _strings(f"attribute {key} of {name or '/'}", key, value)
            if isinstance(item, h5py.Dataset) and item.dtype.kind in "OS":
                yield from _strings(f"dataset {name}", _titled(name), item[()])


def _titled(name: str) -> str:
    """The column of an AnnData file that holds its categories, or a dataset's own name."""
    parts = name.split("/")
    return parts[-2] if parts[-1] in {"categories", "codes"} and len(parts) > 1 else parts[-1]


def _strings(place: str, label: str, values: Any) -> Iterator[Piece]:
    """The texts of an attribute or a dataset, each once; JSON is looked into."""
    import numpy as np

    flat = np.asarray(values, dtype=object).ravel().tolist()
    texts = dict.fromkeys(value.decode(errors="replace") if isinstance(value, bytes) else value for value in flat)
    for text in (text for text in texts if isinstance(text, str) and text):
        if text.startswith(("{", "[")):
            yield from (piece._replace(place=f"{place}, {piece.place}") for piece in _of_json(text))
        else:
            yield Piece(place, text, label=label, is_id=label in _IDS)


def _of_safetensors(path: Path) -> Iterator[Piece]:
    with path.open("rb") as file:
        size = struct.unpack("<Q", file.read(8))[0]
        header = json.loads(file.read(min(size, _MOST_TEXT)))
    yield from _leaves(header.get("__metadata__", {}), "metadata")
    for name in header:
        yield Piece("the names of the tensors", name)


def _of_json(text: str) -> Iterator[Piece]:
    try:
        values = json.loads(text)
    except ValueError:
        return _of_lines(text)
    return _leaves(values, "")


def _leaves(value: Any, place: str) -> Iterator[Piece]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield Piece("the keys" if not place else f"the keys of {place}", str(key))
            yield from _leaves(inner, f"{place}.{key}".lstrip("."))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _leaves(inner, f"{place}[{number}]")
    elif isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
        label = re.sub(r"\[\d+\]$", "", place).rpartition(".")[2]
        yield Piece(f"key {place}", str(value), label=label, prose=" " in str(value), is_id=label in _IDS)


def _of_image(path: Path) -> Iterator[Piece]:
    """The tags of an image, and what its format says beside the pixels, which are not decoded."""
    from PIL import ExifTags, Image, TiffTags

    try:
        with Image.open(path) as image:
            tags: dict[int, Any] = dict(getattr(image, "tag_v2", {}))
            exif = image.getexif()
            for known in (exif, exif.get_ifd(ExifTags.IFD.Exif), exif.get_ifd(ExifTags.IFD.GPSInfo)):
                tags |= dict(known)
            texts = {str(key): value for key, value in image.info.items() if key not in {"exif", "icc_profile"}}
    except Exception:  # whatever damaged bytes lead Pillow to: there is no tag to be read
        return
    named = {f"tag {TiffTags.lookup(number).name}": value for number, value in tags.items() if number not in _TIMES}
    for name, value in {**named, **{f"text {key}": value for key, value in texts.items()}}.items():
        for text in _tag_texts(value):
            yield Piece(name, text, label=name.partition(" ")[2])


def _tag_texts(value: Any) -> Iterator[str]:
    if isinstance(value, bytes):
        encoding = "utf-16-le" if len(value) > 3 and value[1:4:2] == b"\0\0" else "utf-8"
        value = value.decode(encoding, errors="ignore").replace("\0", "")
        value = value if value.isprintable() or "<" in value else ""
    if isinstance(value, str):
        yield from (line for line in value.splitlines() if line.strip())
    elif isinstance(value, tuple | list):
        for inner in value:
            yield from _tag_texts(inner)
