"""Clinical tables as they come: CSV, TSV, Parquet or Excel, in the encodings and separators of this world, as text."""

import io
import re
import unicodedata
import zipfile
from pathlib import Path
from typing import Any

import pandas as pd

from milkit.errors import CohortError

TABLE_SUFFIXES = frozenset({".csv", ".tsv", ".txt", ".xlsx", ".xlsm", ".parquet", ".pq"})
"""Lower-case suffixes of files that are read as tables; a file of another suffix is read as text with separators."""

_EXCEL = {".xlsx", ".xlsm"}
_UNREAD = {".xls", ".xlsb", ".ods", ".numbers", ".sav", ".dta", ".sas7bdat"}
_FAULTS = (ImportError, LookupError, OSError, ValueError, zipfile.BadZipFile)


def read_table(path: Path, *, sheet: str | None = None, required: bool = False) -> pd.DataFrame:
    """A CSV, TSV, Parquet or Excel table with every value as text, blanks as ``""`` and nothing taken for missing.

    Text is UTF-16 where its mark says so, else UTF-8 (with or without byte-order mark), else Windows-1252, else
    Latin-1, which reads anything. The separator is that of comma, semicolon and tab that the header has most of, or
    what a first line ``sep=;`` says, as Excel writes it. Rows without any value are left out.

    Args:
        path: The table.
        sheet: Of an Excel file, the sheet of this name, or the first one where there is none of this name.
        required: Refuse an Excel file that has no such sheet.
    """
    suffix = path.suffix.lower()
    if suffix in _UNREAD:
        msg = f"{path} is a {suffix} file, where CSV, TSV, .xlsx or Parquet was expected; save it as one of them."
        raise CohortError(msg)
    try:
        if suffix in {".parquet", ".pq"}:
            raw = pd.read_parquet(path)
            raw = raw if raw.index.names == [None] else raw.reset_index()
            table = raw.astype(object).where(raw.notna(), "").astype(str)
        elif suffix in _EXCEL:
            sheets = pd.read_excel(path, sheet_name=None, dtype=str, keep_default_na=False)
            if required and sheet not in sheets:
                msg = f"{path} has no sheet '{sheet}', only {', '.join(sheets)}; name one of these."
                raise CohortError(msg)
            table = sheets.get(sheet or "", next(iter(sheets.values())))
        else:
            table = _read_text(_decode(path.read_bytes()))
    except FileNotFoundError:
        msg = f"The table {path} does not exist; give the path of a CSV, TSV, Parquet or Excel file."
        raise CohortError(msg) from None
    except _FAULTS as error:
        msg = f"{path} cannot be read as a table ({' '.join(str(error).split())}); save it as CSV in UTF-8."
        raise CohortError(msg) from None
    table.columns = [str(name).strip() for name in table.columns]
    if table.columns.has_duplicates:
        twice = table.columns[table.columns.duplicated()][0]
        msg = f"{path} has two columns called '{twice}', where every name was expected once; rename one of them."
        raise CohortError(msg)
    return table[(table != "").any(axis=1)].reset_index(drop=True)


def plain(value: Any) -> str:
    """A code or an id without what spreadsheets and file systems add: ``1.0`` is ``1``, and accents are composed."""
    return unicodedata.normalize("NFC", re.sub(r"^(-?\d+)\.0+$", r"\1", str(value).strip()))


def sheet_names(path: Path) -> list[str]:
    """The sheets of an Excel file, in its order; none for a table of another kind, or a damaged one."""
    if path.suffix.lower() not in _EXCEL:
        return []
    try:
        with pd.ExcelFile(path) as book:
            return [str(name) for name in book.sheet_names]
    except _FAULTS:
        return []


def _read_text(text: str) -> pd.DataFrame:
    header, _, rest = text.partition("\n")
    separator = max(",;\t", key=header.count)
    if header.strip().lower().startswith("sep=") and len(header.strip()) == len("sep=;"):
        separator, text = header.strip()[-1], rest
    return pd.read_csv(io.StringIO(text), sep=separator, dtype=str, keep_default_na=False, index_col=False)


def _decode(data: bytes) -> str:
    for encoding in ("utf-16",) if data[:2] in {b"\xff\xfe", b"\xfe\xff"} else ("utf-8-sig", "cp1252"):
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    return data.decode("latin-1")
