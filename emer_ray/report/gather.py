"""What a run directory says, read once: its record, its manifest, and the light part of its rows.

Figures are taken as other commands wrote them; here rows are only counted.
"""

import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import polars as pl

from emer_ray import storage
from emer_ray.errors import RunDirError
from emer_ray.metrics import lexicon
from emer_ray.metrics.wheels import MAPPINGS
from emer_ray.store import index, layout, parts, record

_LIGHT: Final = ("clip_id", "labels", "confidence", "answers", "media")
_SUMS: Final = ("answers", "tokens_in", "tokens_out", "latency_s", "usd")

NO_FAMILY: Final = "(in no family)"
"""Where labels go that the wheel does not know."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run as far as it is shown."""

    uri: str
    record: Mapping[str, Any]
    clips: pl.DataFrame
    """A row per clip of the newest manifest: its columns, how it ended (`outcome stage kind part`;
    pending = not yet), and of the ok ones `words confidence has_video has_audio short seconds`."""
    answers: pl.DataFrame
    """Per step of the recipe: how many answers, and the sums of their tokens, seconds and cost
    as far as they are known."""

    @property
    def name(self) -> str:
        """The last word of its address; of one that says no more than "run", the last two."""
        *_, above, last = ["", *self.uri.rstrip("/").split("/")]
        return f"{above}/{last}" if last == "run" and above else last

    @cached_property
    def ok(self) -> pl.DataFrame:
        return self.clips.filter(pl.col("outcome") == "ok")

    def table(self, name: str) -> pl.DataFrame | None:
        """Read a table that another command left in the directory; None where it did not."""
        uri = storage.join(self.uri, name)
        return pl.read_parquet(io.BytesIO(storage.read(uri))) if storage.exists(uri) else None

    def said(self, name: str) -> Mapping[str, Any] | None:
        """Read what another command left as JSON; None where it did not."""
        uri = storage.join(self.uri, name)
        return json.loads(storage.read(uri)) if storage.exists(uri) else None


def read(uri: str) -> Run:
    """Read a run directory; raises RunDirError where it is none, or has no manifest yet."""
    journal = record.require(uri)
    placed = index.load_manifest(uri)
    if placed is None:
        raise RunDirError(f"{uri}: has no manifest.parquet; start `emer relabel` again")
    known = index.outcomes(uri)
    ends = index.final(known).select("clip_id", "outcome", "stage", "kind", "part")
    named = set(ends.filter(pl.col("outcome") == "ok")["part"])
    live = [part for part in layout.live(uri, index.guessed_shards(known)) if part.name in named]
    with ThreadPoolExecutor(index.READERS) as pool:
        found = list(pool.map(lambda part: _part(uri, part), live))
    rows = pl.concat([_NO_ROWS, *(rows for rows, _ in found)])
    sums = pl.concat([_NO_SUMS, *(sums for _, sums in found)])
    clips = (
        placed.filter("present")
        .join(ends, on="clip_id", how="left", maintain_order="left")
        .join(rows, on=["clip_id", "part"], how="left", maintain_order="left")
        .with_columns(pl.col("outcome").fill_null("pending"))
    )
    answers = sums.group_by("step", maintain_order=True).agg(*map(_known_sum, _SUMS))
    return Run(uri=uri, record=journal, clips=clips, answers=answers)


def full_rows(run: Run, clip_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Read the whole stored row of some clips, by id; pending ones have none."""
    chosen = run.clips.filter(
        pl.col("clip_id").is_in(list(clip_ids)) & pl.col("part").is_not_null()
    )

    def one(place: tuple[str, str]) -> dict[str, Any]:
        clip_id, part = place
        beside = pl.DataFrame(pl.from_arrow(parts.around(run.uri, part, clip_id)))
        return beside.filter(pl.col("clip_id") == clip_id).row(0, named=True)

    with ThreadPoolExecutor(index.READERS) as pool:
        rows = pool.map(one, chosen.select("clip_id", "part").iter_rows())
        return {row["clip_id"]: row for row in rows}


def families(wheel: int) -> Mapping[str, str | None]:
    """Map each word that our tables know to its family: level 1 of a wheel, 1 to 5."""
    place = MAPPINGS.index(f"wheel.W{wheel}.L1")
    return {word: image[place] for word, image in lexicon.default().images.items()}


def family_of(word: str, known: Mapping[str, str | None]) -> str:
    """Find a word's family."""
    return known.get(word.lower().strip()) or NO_FAMILY


def counted(values: pl.Series, most: int | None = None) -> list[tuple[str, int]]:
    """Count values, the most frequent first, equal ones by name."""
    counts = Counter(str(value) for value in values if value is not None)
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:most]


def old_labels(row: Mapping[str, Any]) -> list[str]:
    """Read a manifest row's old labels: the one word, the open ones, or the shares by word."""
    if row["label_onehot"]:
        return [row["label_onehot"]]
    if row["label_ov"]:
        return list(row["label_ov"])
    shares = [(word, share) for word, share in dict(row["label_scores"] or ()).items() if share]
    return [f"{word} {share:g}" for word, share in sorted(shares, key=lambda one: -one[1])]


_NO_ROWS: Final = pl.DataFrame(
    schema={
        "clip_id": pl.String,
        "words": pl.List(pl.String),
        "supports": pl.List(pl.Float64),
        "confidence": pl.Float64,
        "has_video": pl.Boolean,
        "has_audio": pl.Boolean,
        "short": pl.Boolean,
        "seconds": pl.Float64,
        "part": pl.String,
    }
)
_NO_SUMS: Final = pl.DataFrame(
    schema={
        "step": pl.String,
        "answers": pl.UInt32,
        "tokens_in": pl.Int64,
        "tokens_out": pl.Int64,
        "latency_s": pl.Float64,
        "usd": pl.Float64,
    }
)


def _known_sum(column: str) -> pl.Expr:
    """Sum what is known; null where nothing is, because that is no zero."""
    known = pl.col(column)
    return pl.when(known.count() > 0).then(known.sum()).alias(column)


def _part(uri: str, part: parts.Part) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Read a part's light columns, and the sums over its answers; the answers stay behind."""
    table = pl.DataFrame(pl.from_arrow(parts.read(uri, part, _LIGHT)))
    media = pl.col("media").struct
    rows = table.select(
        "clip_id",
        pl.col("labels").list.eval(pl.element().struct.field("label")).alias("words"),
        pl.col("labels").list.eval(pl.element().struct.field("support")).alias("supports"),
        "confidence",
        media.field("has_video"),
        media.field("has_audio"),
        media.field("short"),
        media.field("decoded_s").alias("seconds"),
        pl.lit(part.name).alias("part"),
    )
    said = table.select(pl.col("answers").explode()).drop_nulls().unnest("answers")
    sums = said.group_by("step", maintain_order=True).agg(
        pl.len().alias("answers"), *map(_known_sum, _SUMS[1:])
    )
    return rows, sums.cast(dict(_NO_SUMS.schema))  # type: ignore[arg-type]
