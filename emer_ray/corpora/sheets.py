"""Label and transcript files as lines and cells, whatever program wrote them.

Text is UTF-8 with or without a mark, else what the corpus's authors had on their machines. Cells
are text; `number` and `words` read them.
"""

import ast
import csv
import io
import math
import re
from collections.abc import Sequence
from typing import Final
from zipfile import BadZipFile

import openpyxl

from emer_ray.errors import ManifestError

_UNDEFINED_IN_CP1252: Final = (0x81, 0x8D, 0x8F, 0x90, 0x9D)

_WINDOWS_IN_UTF8: Final = {
    code: bytes([code]).decode("cp1252")
    for code in range(0x80, 0xA0)
    if code not in _UNDEFINED_IN_CP1252
}
"""Control characters that are cp1252 quotes and dashes which somebody called Latin-1."""


def text(data: bytes, fallback: str = "cp1252") -> str:
    """Decode a file: UTF-8, else `fallback`; what even that cannot read becomes U+FFFD."""
    try:
        decoded = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        decoded = data.decode(fallback, errors="replace")
    return decoded.translate(_WINDOWS_IN_UTF8)


def table(data: bytes, where: str, need: Sequence[str], fallback: str) -> list[dict[str, str]]:
    """Read a CSV with a header as one dict of stripped cells per line; a short line has blanks.

    Raises `ManifestError` where one of the columns `need` is absent.
    """
    reader = csv.DictReader(io.StringIO(text(data, fallback), newline=""), restval="")
    names = [name.strip() for name in reader.fieldnames or ()]
    if missing := [name for name in need if name not in names]:
        raise ManifestError(
            f"{where}: no column {', '.join(missing)}; there are {', '.join(names) or 'none'}. "
            "Give the file as the corpus's authors published it"
        )
    reader.fieldnames = names
    try:
        return [{name: str(line[name]).strip() for name in names} for line in reader]
    except csv.Error as error:
        raise ManifestError(
            f"{where}: line {reader.line_num} cannot be read as CSV ({error}); copy the file again"
        ) from None


def spreadsheet(data: bytes, where: str) -> list[list[str]]:
    """Read the first sheet of an xlsx as rows of text."""
    try:
        book = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True)
    except (BadZipFile, KeyError, OSError, ValueError) as error:
        raise ManifestError(
            f"{where}: cannot be read as xlsx ({error}); copy the file again"
        ) from None
    lines = [
        ["" if value is None else str(value).strip() for value in row]
        for row in book.worksheets[0].values
    ]
    book.close()
    return lines


def number(cell: str | None) -> float | None:
    """Read a number; a blank, a word and what is not finite are null."""
    try:
        value = float(cell or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def padded(cell: str, digits: int = 5) -> str:
    """Give the number of a clip its leading zeros: 25, 00025 and 00025.mp4 are one; else ""."""
    plain = cell.strip().partition(".")[0]
    return f"{int(plain):0{digits}d}" if plain.isdecimal() else ""


def words(cell: str) -> list[str]:
    """Read a list of words in one cell: a Python list, else split at quotes and commas."""
    try:
        value = ast.literal_eval(cell)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        value = None
    if isinstance(value, list) and all(isinstance(word, str) for word in value):
        pieces = value
    else:
        pieces = re.split(r"""['",]""", cell.removeprefix("[").removesuffix("]"))
    return [piece.strip() for piece in pieces if piece.strip()]
