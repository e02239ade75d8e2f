"""Labels as people write them: one cell of a table to a list of words, a column of cells to
numbers.

Two ways to read a string cell. `upstream` is what the published scores were computed with, oddities
included; `robust` reads JSON first and repairs stray brackets and full-width commas. A list is
taken as it is by both.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
import polars as pl

Parser = Literal["upstream", "robust"]
Cell = str | Sequence[object] | None
Ints = npt.NDArray[np.int64]

_SEPARATORS = re.compile(r"""['",]""")
_WIDE_SEPARATORS = re.compile(r"""['"‘’“”,，、;；]""")
_INNER_APOSTROPHE = re.compile(r"(?<=[^\W\d_])['’](?=[^\W\d_])")
_KEPT_APOSTROPHE = "\x00"
_BRACKETS = "[]{}()（）【】"


def parse(cell: Cell, parser: Parser = "upstream") -> list[str]:
    """Read the labels of one cell; null and the empty string are no labels."""
    if cell is None or isinstance(cell, float):
        return []
    if not isinstance(cell, str):
        return [str(item) for item in cell if item is not None]
    return _upstream(cell) if parser == "upstream" else _robust(cell)


def _upstream(cell: str) -> list[str]:
    """Science §c.1: brackets need not balance, quotes and commas separate, `;` does not."""
    if cell.startswith("["):
        cell = cell[1:]
    if cell.endswith("]"):
        cell = cell[:-1]
    pieces = (piece.strip() for piece in _SEPARATORS.split(cell))
    return [piece for piece in pieces if piece]


def _robust(cell: str) -> list[str]:
    try:
        value = json.loads(cell)
    except ValueError:
        value = None
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return [item.strip() for item in value if item.strip()]
    marked = _INNER_APOSTROPHE.sub(_KEPT_APOSTROPHE, cell)
    pieces = (piece.strip().strip(_BRACKETS).strip() for piece in _WIDE_SEPARATORS.split(marked))
    return [piece.replace(_KEPT_APOSTROPHE, "'") for piece in pieces if piece]


@dataclass(frozen=True, slots=True)
class Labels:
    """The labels of many clips as numbers: clip i has `codes[offsets[i]:offsets[i + 1]]`, indices
    into `words`.
    """

    codes: Ints
    offsets: Ints
    words: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def sizes(self) -> Ints:
        """Labels per clip, as written: duplicates count."""
        return np.diff(self.offsets)

    def clips(self) -> Ints:
        """The clip of each code."""
        return np.repeat(np.arange(len(self), dtype=np.int64), self.sizes)

    def map(self, image: Callable[[str], str | None]) -> Self:
        """Replace every word by its image; words without one vanish."""
        return self.recode([image(word) for word in self.words])

    def recode(self, images: Sequence[str | None]) -> Self:
        """`map` with the images of `words` given in order."""
        index = {
            word: code for code, word in enumerate(sorted({w for w in images if w is not None}))
        }
        table = np.array([-1 if w is None else index[w] for w in images] or [-1], dtype=np.int64)
        codes = table[self.codes] if len(self.codes) else self.codes
        kept = codes >= 0
        running = np.concatenate([[0], np.cumsum(kept)])
        return type(self)(codes[kept], running[self.offsets], tuple(index))


def encode(*columns: pl.Series, parser: Parser = "upstream") -> list[Labels]:
    """Turn columns of cells (strings, or lists of strings) into numbers over one shared list of
    words.
    """
    lists = [_as_lists(column, parser) for column in columns]
    flat = [_explode(column) for column in lists]
    joined = pl.concat(flat) if flat else pl.Series("", [], dtype=pl.String)
    words = joined.unique().sort()
    enum = pl.Enum(words) if len(words) else pl.Enum([])
    result = []
    for column, tokens in zip(lists, flat, strict=True):
        codes = tokens.cast(enum).to_physical().to_numpy().astype(np.int64)
        sizes = column.list.len().fill_null(0).to_numpy().astype(np.int64)
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
        result.append(Labels(codes, offsets, tuple(words)))
    return result


def _explode(lists: pl.Series) -> pl.Series:
    filled = lists.filter(lists.list.len().fill_null(0) > 0)
    return filled.explode() if len(filled) else pl.Series(lists.name, [], dtype=pl.String)


def _as_lists(column: pl.Series, parser: Parser) -> pl.Series:
    if column.dtype == pl.Null:
        return column.cast(pl.List(pl.String))
    if column.dtype == pl.String:
        return _parse_column(column, parser)
    inner = column.cast(pl.List(pl.String))
    return inner.list.drop_nulls()


def _parse_column(cells: pl.Series, parser: Parser) -> pl.Series:
    """Parse each distinct cell once."""
    distinct = cells.unique().drop_nulls()
    parsed = pl.Series(
        "lists", [parse(cell, parser) for cell in distinct], dtype=pl.List(pl.String)
    )
    key = distinct.rename("cell")
    frame = cells.rename("cell").to_frame()
    table = pl.DataFrame([key, parsed])
    return frame.join(table, on="cell", how="left", maintain_order="left")["lists"].rename(
        cells.name
    )


def lower(word: str) -> str | None:
    """How the wheels and the exact match see a label: lower case, no blanks around; blank is no
    label.
    """
    return word.lower().strip() or None
