"""Clinical tables as they come: CSV, TSV, Parquet or Excel, in the encodings and separators of this world, as text."""

import difflib
import io
from pathlib import Path

import pandas as pd

from milkit.errors import CohortError


def read_table(path: Path, *, sheet: str | None = None) -> pd.DataFrame:
    """A CSV, TSV, Parquet or Excel table with every value as text, blanks as ``""`` and nothing taken for missing.

    Text is UTF-16 where its mark says so, else UTF-8 (with or without byte-order mark), else Windows-1252, else
    Latin-1, which reads anything. The separator is that of comma, semicolon and tab that the header has most of. Of
    an Excel file the sheet of this name is read, or its first one. Rows without any value are left out.
    """
    try:
        suffix = path.suffix.lower()
        if suffix in {".parquet", ".pq"}:
            raw = pd.read_parquet(path)
            table = raw.astype(object).where(raw.notna(), "").astype(str)
        elif suffix in {".xlsx", ".xlsm"}:
            sheets = pd.read_excel(path, sheet_name=None, dtype=str, keep_default_na=False)
            table = sheets.get(sheet or "", next(iter(sheets.values())))
        else:
            text = _decode(path.read_bytes())
            header = text.partition("\n")[0]
            separator = max(",;\t", key=header.count)
            table = pd.read_csv(io.StringIO(text), sep=separator, dtype=str, keep_default_na=False, index_col=False)
    except FileNotFoundError:
        msg = f"The table {path} does not exist; give the path of a CSV, TSV, Parquet or Excel file."
        raise CohortError(msg) from None
    except (ImportError, LookupError, OSError, ValueError) as error:
        msg = f"{path} cannot be read as a table ({' '.join(str(error).split())}); save it as CSV in UTF-8."
        raise CohortError(msg) from None
    table.columns = [str(name).strip() for name in table.columns]
    if table.columns.has_duplicates:
        twice = table.columns[table.columns.duplicated()][0]
        msg = f"{path} has two columns called '{twice}', where every name was expected once; rename one of them."
        raise CohortError(msg)
    return table[(table != "").any(axis=1)].reset_index(drop=True)


def column_named(table: pd.DataFrame, name: str, path: Path) -> str:
    """``name`` if the table has such a column; ``CohortError`` lists those it has, the nearest first."""
    if name in table.columns:
        return name
    known = [str(column) for column in table.columns]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"nearest: '{near[0]}'; " if near else ""
    msg = f"{path} has no column '{name}' ({hint}found: {', '.join(known)}); mend the recipe's columns or the table."
    raise CohortError(msg)


def _decode(data: bytes) -> str:
    for encoding in ("utf-16",) if data[:2] in {b"\xff\xfe", b"\xfe\xff"} else ("utf-8-sig", "cp1252"):
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    return data.decode("latin-1")
