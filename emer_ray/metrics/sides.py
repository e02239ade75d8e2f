"""One side of an audit or a comparison: clips with labels that may have support, whoever gave them.

A run, a table of predictions and a manifest of old labels all become the same frame, so that any
two can be put side by side.
"""

import json
from collections.abc import Mapping
from typing import Any, Final, Literal

import polars as pl

from emer_ray import storage
from emer_ray.errors import ConfigError
from emer_ray.metrics import inputs, labels, valence
from emer_ray.metrics.labels import Parser

Source = Literal["label", "openset", "label_scores", "valence"]

SOURCES: Final[tuple[Source, ...]] = ("label", "openset", "label_scores", "valence")
"""Columns that labels are read from; of several in one row the first counts."""

LABELS: Final = pl.List(pl.Struct({"label": pl.String, "support": pl.Float64}))
LEAST_SHARE: Final = 0.5
"""Of shares, votes or intensities, words with at least so much of the largest are the label."""

MOST_LETTERS: Final = 160

_MORE: Final = ("speaker", "source_id", "split", "confidence", "explanation", "measures")


def manifest_of(uri: str) -> str:
    """Name the table of old labels: of a run directory, its copy of the manifest."""
    inside = storage.join(uri, "manifest.parquet")
    return inside if not inputs.is_table(uri) and storage.exists(inside) else uri


def read(
    uri: str,
    columns: Mapping[str, str],
    *,
    parser: Parser,
    source: Source | None = None,
    also: tuple[str, ...] = (),
) -> pl.DataFrame:
    """Read a side: `clip_id`, `labels` (null = none known), `source` (the column they are from),
    and of `speaker`, `source_id`, `split`, `confidence`, `explanation`, `measures` what there is.

    Of rows with one clip id the last counts. A valence becomes one label: pleasant, unpleasant or
    neutral. Raises ConfigError where there are no labels to read.
    """
    rows = inputs.read(uri, columns, support=True, also=also).collect()
    rows = rows.unique("clip_id", keep="last", maintain_order=True)
    if "present" in rows.columns:
        rows = rows.filter("present")
    given = [
        name for name in SOURCES if name in rows.columns and rows[name].null_count() < len(rows)
    ]
    if source is not None and source not in given:
        raise ConfigError(f"--old {source}: {uri} has no such labels; it has {', '.join(given)}")
    if not given:
        raise ConfigError(
            f"{uri}: no clip has a label in {', '.join(SOURCES)}; the columns are "
            f"{', '.join(rows.columns)}. Name the one that has them with --columns label=COLUMN "
            "(one word) or --columns openset=COLUMN (several)"
        )
    chosen = [source] if source else [name for name in given if name != "valence"] or given
    found = [_labels(rows[name], name, parser).alias(name) for name in chosen]
    read_from = pl.coalesce(
        pl.when(pl.col(name).is_not_null()).then(pl.lit(name)) for name in chosen
    )
    return (
        rows.select("clip_id", *(name for name in _MORE if name in rows.columns))
        .with_columns(found)
        .with_columns(labels=pl.coalesce(chosen), source=read_from)
        .drop(chosen)
    )


def _labels(column: pl.Series, name: Source, parser: Parser) -> pl.Series:
    match name:
        case "label":
            words = column.cast(pl.String).str.strip_chars()
            return _supported([None if not word else {word: None} for word in words])
        case "openset":
            if isinstance(column.dtype, pl.List) and isinstance(column.dtype.inner, pl.Struct):
                return column.cast(LABELS)
            return _supported(
                [
                    None if words is None else dict.fromkeys(words)
                    for words in labels.as_lists(column, parser)
                ]
            )
        case "label_scores":
            return _supported([_scored(cell) for cell in column.to_list()])
        case "valence":
            return _supported([_signed(valence.number(cell)) for cell in column])


def _supported(rows: list[dict[str, float | None] | None]) -> pl.Series:
    listed = [
        None
        if row is None
        else [{"label": word, "support": support} for word, support in row.items()]
        for row in rows
    ]
    return pl.Series("labels", listed, dtype=LABELS)


def _scored(cell: Any) -> dict[str, float | None] | None:
    """Read shares: a JSON object, or what Arrow and polars make of a map."""
    if isinstance(cell, str):
        try:
            cell = json.loads(cell)
        except ValueError:
            raise ConfigError(f"label_scores: {cell!r} is no JSON object of words") from None
    if cell is None:
        return None
    pairs = cell.items() if isinstance(cell, Mapping) else (tuple(_pair(item)) for item in cell)
    scores = {str(word): float(score) for word, score in pairs if score is not None}
    if not scores:
        return None
    most = max(scores.values())
    kept = {word: score for word, score in scores.items() if score > 0}
    return {word: score / most for word, score in kept.items() if score >= LEAST_SHARE * most}


def _pair(item: Any) -> tuple[Any, Any]:
    if isinstance(item, Mapping):
        return item["key"], item["value"]
    word, score = item
    return word, score


def _signed(number: float | None) -> dict[str, float | None] | None:
    if number is None:
        return None
    return {"pleasant" if number > 0 else "unpleasant" if number < 0 else "neutral": None}


def short(text: str) -> str:
    """An explanation in a line of a table, without control characters."""
    flat = "".join(letter if letter.isprintable() else " " for letter in text)
    return flat if len(flat) <= MOST_LETTERS else flat[: MOST_LETTERS - 1] + "…"
