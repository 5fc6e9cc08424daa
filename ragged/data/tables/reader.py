"""Reading of files: CSV and its like, Parquet, Excel, compressed or not, and folders of them."""

from __future__ import annotations

import gzip
import io
import re
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from ragged.data.tables.dialect import Dialect, check_names, read_text
from ragged.data.tables.table import Table
from ragged.errors import DataError, MissingExtraError

TEXT = (".csv", ".tsv")
SUFFIXES = (*TEXT, *(f"{kind}.gz" for kind in TEXT), *(f"{kind}.zip" for kind in TEXT))
SUFFIXES += (".zip", ".parquet", ".xlsx")
Origin = tuple[str, str, str]  # the function, the argument and its value, for errors
ARCHIVES = (".tar", ".tgz", ".bz2", ".xz", ".zst", ".7z")
OTHER = (*ARCHIVES, ".json", ".arrow", ".feather", ".ods", ".rda", ".rds", ".dta", ".h5", ".db")
SHEETS = "ragged: other sheets"
UNPACK = "Unpack it, and give the folder or one of the files."
INSTALL = "Install the extra: pip install 'ragged-sequences[tables]'."


def read_table(path: Path, dialect: Dialect | None = None, function: str = "Tables") -> Table:
    """Read a `.parquet` or `.xlsx` file, or any other as text, compressed if it says so.

    Text has a header; a byte order mark and blank lines are passed over. A row of empty cells is
    a row. In a table of one column a blank line might be meant as one, so it is refused after the
    header: an empty cell is written as "" there.

    Args:
        path: of the file; one that ends in `.gz` or `.zip` is compressed.
        dialect: how its text is written.
        function: what the user called, for errors.

    Raises:
        DataError: a file that is missing, empty or unreadable; a header without rows; a separator
            that is not clear; a row with too few or too many cells; a blank line in a single
            column.
        MissingExtraError: pandas, pyarrow or openpyxl is not installed.
    """
    dialect, origin = dialect or Dialect(), (function, "path", str(path))
    if not path.is_file():
        _refuse(origin, f"{path}, which is no file", "a table", "Check the path.")
    suffix = path.suffix.lower()
    try:
        if suffix == ".parquet":
            return _from_binary(path, "Parquet", _read_parquet, dialect, origin)
        if suffix in (".xlsx", ".xlsm"):
            read = partial(_read_excel, dialect=dialect, origin=origin)
            table = _from_binary(path, "Excel", read, dialect, origin)
            names = check_names(dialect.names, len(table.header), table) or table.header
            above = dialect.skip_rows + (dialect.names is None)
            return replace(table, header=names, line_of=lambda row: above + row + 1)
        if suffix == ".xls":
            _refuse(origin, "an Excel file of before 2007", "an .xlsx file", "Save it as .xlsx.")
        if suffix in OTHER:
            got, expected = f"a {suffix} file", f"a table that ends in one of {SUFFIXES}, or text"
            _refuse(
                origin, got, expected, "Unpack or convert it; Forecaster takes frames of pandas."
            )
        return read_text(_bytes(path, origin), stem(path), origin, dialect)
    except ImportError as error:
        got = f"a file that {error.name or 'another package'} reads"
        raise MissingExtraError.of(function, "path", got, "the package", INSTALL) from error


def read_tables(path: Path, dialect: Dialect | None = None) -> tuple[list[Table], list[str]]:
    """Read a file, or every table of a folder in the order of their names.

    Returns:
        The tables, and the names of what else the folder holds.

    Raises:
        DataError: a file that `read_table` refuses; a folder without tables, or with two that
            differ in their suffix only.
    """
    if not path.is_dir():
        return [read_table(path, dialect)], []
    names = sorted(file.name for file in path.iterdir() if not file.name.startswith("."))
    files = [path / name for name in names if _is_table(path / name)]
    origin = ("Tables", "path", str(path))
    if not files:
        got = f"{path}, a folder without tables"
        _refuse(origin, got, f"files that end in one of {SUFFIXES}", "Check the path.")
    seen: dict[str, Path] = {}
    for file in files:
        name = stem(file)
        if seen.setdefault(name, file) is not file:
            got, expected = f"{seen[name].name} and {file.name}", f"one table called '{name}'"
            _refuse(origin, got, expected, "Rename or remove one.")
    others = sorted(set(names) - {file.name for file in files})
    return [read_table(file, dialect) for file in files], others


def table_from_frame(frame: Any, dialect: Dialect | None = None) -> Table:
    """Create a table of the columns of a frame, and of a pandas index if that has a name.

    A pandas index and a column of the same name are two columns: reading that name is refused.

    Args:
        frame: of pandas, or of polars, pyarrow or another library that hands out Arrow's streams.
        dialect: how cells of text are written.

    Raises:
        DataError: something else than a frame, or one without rows.
        MissingExtraError: pandas or pyarrow is not installed.
    """
    if not hasattr(frame, "iloc") and hasattr(frame, "__arrow_c_stream__"):
        try:
            import pyarrow
        except ImportError as error:
            got, expected = f"of type {type(frame).__name__}", "pyarrow to read it"
            raise MissingExtraError.of(_FRAME[0], "frame", got, expected, INSTALL) from error
        frame = pyarrow.table(frame).to_pandas()
    if not hasattr(frame, "iloc") or not hasattr(frame, "columns"):
        got = f"of type {type(frame).__name__}"
        remedy = "Give a DataFrame, or Tables the path of a file."
        expected = "a DataFrame of pandas, polars or pyarrow"
        raise DataError.of("Tables.from_frame", "frame", got, expected, remedy)
    return _from_frame(frame, "0", _FRAME, dialect or Dialect())


def stem(path: Path) -> str:
    """Return the name of a file without its suffixes.

    >>> stem(Path("wells.CSV.gz"))
    'wells'
    """
    return re.sub(
        r"(\.(csv|tsv|txt|parquet|xlsx|xlsm))?(\.(gz|zip))?$", "", path.name, flags=re.IGNORECASE
    )


_FRAME = ("Tables.from_frame", "frame", "the frame")


def _is_table(path: Path) -> bool:
    return path.is_file() and path.name.lower().endswith(SUFFIXES)


def _bytes(path: Path, origin: Origin) -> bytes:
    """Return the content of a file, decompressed."""
    try:
        if re.search(r"\.tar\.gz$", path.name, re.IGNORECASE):
            got = "an archive of files"
            _refuse(origin, got, "one table", UNPACK)
        if path.suffix.lower() == ".gz":
            with gzip.open(path) as stream:
                return stream.read()
        return _unzipped(path, origin) if path.suffix.lower() == ".zip" else path.read_bytes()
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile, RuntimeError) as error:
        _refuse_unreadable(origin, error, "a table")


def _unzipped(path: Path, origin: Origin) -> bytes:
    with zipfile.ZipFile(path) as archive:
        entries = [name for name in archive.namelist() if not name.startswith("__MACOSX/")]
        names = [name for name in entries if not name.endswith("/")]
        if len(names) != 1:
            got = f"an archive of {len(names)} files"
            _refuse(origin, got, "one table", UNPACK)
        return archive.read(names[0])


def _from_binary(
    path: Path,
    kind: str,
    read: Callable[[io.BytesIO], Any],
    dialect: Dialect,
    origin: Origin,
) -> Table:
    """Return the table in a file of pandas' own readers."""
    try:
        frame = read(io.BytesIO(path.read_bytes()))
    except DataError:
        raise
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        _refuse_unreadable(origin, error, f"{'an' if kind == 'Excel' else 'a'} {kind} table")
    return _from_frame(frame, stem(path), origin, dialect)


def _read_parquet(content: io.BytesIO) -> Any:
    import pandas

    return pandas.read_parquet(content)


def _read_excel(content: io.BytesIO, dialect: Dialect, origin: Origin) -> Any:
    """Read a sheet; the names of the others are an attribute of the frame."""
    import pandas

    with pandas.ExcelFile(content) as book:
        sheets = [str(name) for name in book.sheet_names]
        sheet = sheets[0] if dialect.sheet is None else dialect.sheet
        if sheet not in sheets:
            _refuse(origin, f"without sheet '{sheet}'", f"one of {sheets}", "Name one in sheet.")
        frame = pandas.read_excel(
            book,
            sheet_name=sheet,
            header=0 if dialect.names is None else None,
            skiprows=dialect.skip_rows,
            skipfooter=dialect.skip_footer,
            dtype=object,
            keep_default_na=False,
            na_values=[""],
        )
    frame.attrs[SHEETS] = [] if dialect.sheet else [name for name in sheets if name != sheet]
    return frame


def _from_frame(frame: Any, name: str, origin: Origin, dialect: Dialect) -> Table:
    if any(level is not None for level in frame.index.names):
        frame = frame.reset_index(allow_duplicates=True)
    header = [str(column).strip() for column in frame.columns]
    columns = [frame.iloc[:, index] for index in range(len(header))]
    marks = dialect.decimal, dialect.na_values, dialect.thousands
    sheets = frame.attrs.get(SHEETS, ())
    table = Table(name, origin, header, columns, int, "row", *marks, sheets=sheets)
    if not len(frame):
        table.refuse("without rows", "a table with rows", "Give a table with data.")
    return table


def _refuse_unreadable(origin: Origin, error: Exception, expected: str) -> NoReturn:
    got = f"unreadable ({type(error).__name__}: {error})"
    _refuse(origin, got, expected, "Write the file again.")


def _refuse(origin: Origin, got: str, expected: str, remedy: str) -> NoReturn:
    Table("", origin, (), (), int).refuse(got, expected, remedy)
