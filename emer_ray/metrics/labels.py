"""Labels as people write them: one cell of a table to a list of words, a column of cells to
numbers.

Two ways to read a string cell. `upstream` is what the published scores were computed with, oddities
included; `robust` reads JSON first and repairs stray brackets and full-width commas. A list is
taken as it is by both.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
import polars as pl

Parser = Literal["upstream", "robust"]
Cell = str | Sequence[object] | None
Ints = npt.NDArray[np.int64]
Codes = npt.NDArray[np.int32]

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
class Images:
    """What words become under a mapping: a number for each word (-1 = dropped), and its names."""

    numbers: Codes
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Labels:
    """The labels of many clips as numbers.

    Clip i has `codes[offsets[i]:offsets[i + 1]]`, indices into `words`.
    """

    codes: Codes
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

    def part(self, clips: slice) -> Self:
        """The labels of some clips in a row."""
        offsets = self.offsets[clips.start : clips.stop + 1]
        return type(self)(self.codes[offsets[0] : offsets[-1]], offsets - offsets[0], self.words)

    def recode(self, images: Images) -> Self:
        """Replace every word by its image."""
        codes = images.numbers[self.codes]
        kept = codes >= 0
        running = np.concatenate([np.zeros(1, np.int64), np.cumsum(kept)])
        return type(self)(codes[kept], running[self.offsets], images.names)


def number(images: Iterable[str | None]) -> Images:
    """Number the images of words, given in the order of the words; null drops a word."""
    images = list(images)
    names = sorted({image for image in images if image is not None})
    index = {name: place for place, name in enumerate(names)}
    numbers = [-1 if image is None else index[image] for image in images]
    return Images(np.array(numbers or [-1], dtype=np.int32), tuple(names))


def encode(*columns: pl.Series, parser: Parser = "upstream") -> list[Labels]:
    """Turn columns of cells (strings or lists of strings) into numbers over one list of words."""
    lists = [as_lists(column, parser) for column in columns]
    flat = [column.filter(column.list.len() > 0).explode() for column in lists]
    coded = pl.concat(flat).to_arrow().dictionary_encode()
    words = tuple(coded.dictionary.to_pylist())
    codes = np.asarray(coded.indices).astype(np.int32)
    ends = np.cumsum([len(tokens) for tokens in flat])
    result = []
    for column, tokens, end in zip(lists, flat, ends, strict=True):
        sizes = column.list.len().fill_null(0).to_numpy().astype(np.int64)
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
        result.append(Labels(codes[end - len(tokens) : end], offsets, words))
    return result


def as_lists(column: pl.Series, parser: Parser) -> pl.Series:
    """Read a column of cells as lists of words; a null cell stays null."""
    if column.dtype == pl.Null:
        return column.cast(pl.List(pl.String))
    if column.dtype == pl.String:
        return _parse_column(column, parser)
    lists = column.cast(pl.List(pl.String))
    return lists.list.drop_nulls() if lists.explode().null_count() else lists


def _parse_column(cells: pl.Series, parser: Parser) -> pl.Series:
    """Parse each distinct cell once."""
    distinct = cells.unique().drop_nulls().rename("cell")
    parsed = [parse(cell, parser) for cell in distinct]
    table = pl.DataFrame([distinct, pl.Series("list", parsed, dtype=pl.List(pl.String))])
    frame = cells.rename("cell").to_frame()
    return frame.join(table, on="cell", how="left", maintain_order="left")["list"]


def lower(word: str) -> str | None:
    """How wheels and exact match see a label: lower case, no blanks around; blank is none."""
    return word.lower().strip() or None
