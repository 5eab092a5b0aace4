"""Tables of utterances as people have them: csv, tsv, JSON and parquet, each read whole or refused with file, line and remedy."""

import codecs
import csv
import gzip
import io
import json
import math
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainers.data.suffixes import SOUND_SUFFIXES
from trainers.errors import UserError

JSON_SUFFIXES = (".jsonl", ".json", ".ndjson")
TABLE_SUFFIXES = (*JSON_SUFFIXES, ".csv", ".tsv", ".parquet")
KINDS = ".jsonl, .json, .csv, .tsv (each also with .gz) or .parquet"
MAX_BYTES = 2 << 30
MAX_ROWS = 5_000_000
"""of a parquet file, whose size says little of what it unpacks to"""
_SMALL_BYTES, _MAX_UNPACKED = 64 << 20, 50  # text packs to a tenth, made to fill the memory to a thousandth
_BLOCK = 1 << 20
# Of parquet: rows unpacked at a time, and what a row of Python's objects takes beside its text.
_BATCH_ROWS, _ROW_BYTES = 8192, 500
_MARKS = (  # UTF-32's mark begins with UTF-16's
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# The end of a sound file's name, then the end of a cell: what a swallowed row looks like inside a quoted cell.
_SWALLOWED = re.compile(rf"\n[^\n]*(?:{'|'.join(map(re.escape, SOUND_SUFFIXES))})\"?[,;\t|]", re.IGNORECASE)


@dataclass(frozen=True)
class TableRow:
    """One row: its `values` by column, the `line` it begins on (from 1), and its `fault` where it is not whole."""

    values: dict[str, Any]
    line: int
    fault: str | None = None


@dataclass(frozen=True)
class Table:
    """The rows of a file and the names of their columns, in order of appearance."""

    path: Path
    columns: list[str]
    rows: list[TableRow] = field(default_factory=list)


def table_suffix(path: Path) -> str | None:
    """The suffix that says how a table is written (`.csv` of `train.csv.gz`), or None where the name says nothing."""
    name = path.name.lower().removesuffix(".gz")
    return next((suffix for suffix in TABLE_SUFFIXES if name.endswith(suffix)), None)


def read_table(path: Path) -> Table:
    """
    The rows of a table, by the suffix of its name; a name without a known one is read as JSON Lines.

    Quotation marks enclose cells in csv files only: tsv corpora write them as they are.

    Raises:
        UserError: the file cannot be read, is no text, breaks its format, or has no rows.
    """
    suffix = table_suffix(path) or ".jsonl"
    if suffix == ".parquet":
        table = _read_parquet(path)
    elif suffix in JSON_SUFFIXES:
        rows = list(_json_rows(path, read_text(path)))
        table = Table(path, list(dict.fromkeys(key for row in rows for key in row.values)), rows)
    else:
        table = _read_cells(path, read_text(path), "\t" if suffix == ".tsv" else None)
    if not table.rows:
        only = " It has a header and nothing below it." if table.columns else ""
        raise UserError(f"{path} has no lines to read.{only} Write one utterance a line, or name another file.")
    return table


def json_values(path: Path, row: TableRow) -> dict[str, Any]:
    """A row's values as JSON has them: dates and decimals as text, null for NaN and infinity.

    Raises:
        UserError: a value is bytes.
    """

    def plain(value: Any) -> Any:
        if isinstance(value, bytes):
            raise UserError(
                f"Row {row.line} of {path} holds bytes, such as sound, which are not copied. Write the sound to files and name them."
            )
        if isinstance(value, dict):
            return {str(key): plain(each) for key, each in value.items()}
        if isinstance(value, list | tuple):
            return [plain(each) for each in value]
        if isinstance(value, float):
            return value if math.isfinite(value) else None
        return value if value is None or isinstance(value, str | int) else str(value)

    return {name: plain(value) for name, value in row.values.items()}


def read_text(path: Path) -> str:
    """A text file's content: UTF-8, or UTF-16 and UTF-32 with their mark; unpacked when the name ends in `.gz`.

    Raises:
        UserError: it cannot be read, is another encoding (the message names the line), or is longer than `MAX_BYTES`.
    """
    data = _read_bytes(path)
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"Line {line} of {path} is not {encoding.upper().removesuffix('-SIG')} (byte 0x{data[error.start]:02x}). "
            f"Write it as UTF-8, for example with `iconv -f LATIN1 -t UTF-8 {path.name}`, naming the encoding it has."
        ) from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise UserError(
            f"Line {line} of {path} has a NUL character: it is UTF-16 without its mark, or no text. "
            f"Write it as UTF-8, for example with `iconv -f UTF-16LE -t UTF-8 {path.name}`."
        )
    return text


def _read_bytes(path: Path) -> bytes:
    parts, held = [], 0
    try:
        with gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb") as file:
            while part := file.read(_BLOCK):
                parts.append(part)
                held += len(part)
                if held > MAX_BYTES:
                    raise UserError(f"{path} holds more than {MAX_BYTES >> 20} MiB of text. Give it in several files.")
                _refuse_bomb(path, held)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    return b"".join(parts)


def _refuse_bomb(path: Path, held: int) -> None:
    """Refuse a table of which `held` bytes have been unpacked, where no text packs so well."""
    size = path.stat().st_size
    if held > _SMALL_BYTES and held > _MAX_UNPACKED * size:
        raise UserError(
            f"{path} has {size} bytes and unpacks to more than {held >> 20} MiB, as no text does. Unpack it yourself if it is "
            "what you want."
        )


def _json_rows(path: Path, text: str) -> Iterator[TableRow]:
    """JSON Lines, or one array of objects."""
    if text.lstrip()[:1] == "[":
        whole = _parse(text, f"{path}")
        for number, value in enumerate(whole if isinstance(whole, list) else [], start=1):
            yield _json_row(value, number, f"Entry {number} of {path}")
        return
    for number, line in enumerate(re.split(r"\r\n|\n|\r", text), start=1):  # not str.splitlines: it parts at U+2028 too
        if line.strip():
            where = f"Line {number} of {path}"
            yield _json_row(_parse(line, where), number, where)


def _parse(text: str, where: str) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = (
            "nested too deep" if isinstance(error, RecursionError) else getattr(error, "msg", str(error).split(";")[0])
        )
        raise UserError(
            f"{where} is not JSON ({reason}): {_shown(text)}. Write one object a line, as "
            '{"audio": "a.wav", "text": "what is said"}.'
        ) from error
    if "\\ud" in text.lower():  # half a character can be written as an escape, and nowhere else
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise UserError(f"{where} holds half a character (a lone surrogate): {_shown(text)}. Mend it.") from error
    return value


def _json_row(value: Any, number: int, where: str) -> TableRow:
    if not isinstance(value, dict):
        raise UserError(f"{where} must be an object with keys and values, not {_shown(str(value))}.")
    return TableRow(value, number)


def _read_cells(path: Path, text: str, delimiter: str | None) -> Table:
    quoted = delimiter is None
    if delimiter is None:
        header = text.lstrip("\r\n").partition("\n")[0]
        delimiter = next((mark for mark in ",;\t|" if mark in header), ",")
    rows: list[TableRow] = []
    columns: list[str] | None = None
    for line, cells in _cells(path, text, delimiter, quoted):
        if columns is None:
            columns = [cell.strip() for cell in cells]
            twice = sorted(name for name, count in Counter(columns).items() if name and count > 1)
            if twice:
                raise UserError(f"Line {line} of {path} names the column {twice[0]!r} twice. Rename or remove one.")
            continue
        while len(cells) > len(columns) and not cells[-1].strip():  # marks left over at the end of a line
            cells = cells[:-1]
        fault = None
        if len(cells) != len(columns):
            fault = (
                f"Line {line} of {path} has {len(cells)} of {len(columns)} columns: {_shown(delimiter.join(cells))}. "
                "Complete it, or get the file again."
            )
        rows.append(TableRow(dict(zip(columns, cells, strict=False)), line, fault))
    return Table(path, columns or [], rows)


def _cells(path: Path, text: str, delimiter: str, quoted: bool) -> Iterator[tuple[int, list[str]]]:
    """The rows' cells, each with the line that it begins on; rows without anything are left out."""
    if not quoted:
        for number, line in enumerate(re.split(r"\r\n|\n|\r", text), start=1):
            if line.strip():
                yield number, line.split(delimiter)
        return
    # Without `strict` a cell whose closing mark is missing takes in all that follows, and marks are dropped.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    begins = 1
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            reason = str(error).partition(" - ")[0]
            raise UserError(_quotes(path, begins, reason)) from error
        for cell in cells:
            if "\n" in cell and _SWALLOWED.search(cell + delimiter):
                raise UserError(_quotes(path, begins, "a quoted cell takes in the lines that follow"))
        if any(cell.strip() for cell in cells):
            yield begins, cells
        begins = reader.line_num + 1


def _quotes(path: Path, line: int, reason: str) -> str:
    return (
        f"Line {line} of {path} has quotation marks that do not fit together ({reason}). A cell with marks is enclosed in "
        'marks, with those inside written twice: "he said ""no""".'
    )


def _read_parquet(path: Path) -> Table:
    import pyarrow
    import pyarrow.parquet

    try:
        count = pyarrow.parquet.read_metadata(path).num_rows
        if count > MAX_ROWS:
            raise UserError(
                f"{path} has {count} rows; a table of more than {MAX_ROWS} is not read. Give it in several files."
            )
        rows: list[TableRow] = []
        held = 0
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(_BATCH_ROWS):
                held += batch.nbytes + _ROW_BYTES * len(batch)
                _refuse_bomb(path, held)
                rows += [TableRow(row, n) for n, row in enumerate(batch.to_pylist(), start=len(rows) + 1)]
            return Table(path, file.schema_arrow.names, rows)
    except UserError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{path} is not parquet that can be read: {str(error).splitlines()[0]}") from error


def _shown(text: str) -> str:
    """The beginning of what stands there, for a message."""
    return repr(text.strip()[:80])
