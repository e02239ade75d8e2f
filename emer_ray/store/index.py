"""What happened to every clip: snapshots rolled by the driver, and the parts stored since.

Work is identified by clip id and shard, never by a block, a file count or an order (peers §3, row
29).
"""

import io
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from emer_ray import schema, storage
from emer_ray.errors import RunDirError
from emer_ray.store import parts

READERS = 16
"""Parts fetched at a time; object stores answer in parallel, local disks do not mind."""

_EMPTY: Final[pl.DataFrame] = pl.DataFrame(pl.from_arrow(schema.INDEX.empty_table()))
_MEDIA: Final = ("video_uri", "audio_uri", "start_s", "end_s", "crop", "fps")
_SEEN: Final = (*_MEDIA, "subtitle_zh", "subtitle_en")
"""Columns of a manifest that decide what a model sees of a clip."""
_SNAPSHOT = re.compile(r"index/(\d{6,})\.parquet")


def load_manifest(run: str) -> pl.DataFrame | None:
    """Read the run's copy of the manifest; None where the directory has none yet."""
    uri = storage.join(run, "manifest.parquet")
    if not storage.exists(uri):
        return None
    return pl.read_parquet(io.BytesIO(storage.read(uri)))


def save_manifest(run: str, manifest: pl.DataFrame) -> None:
    """Store the run's copy of the manifest, in one put."""
    table = manifest.to_arrow().select(schema.RUN_MANIFEST.names).cast(schema.RUN_MANIFEST)
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    storage.write(storage.join(run, "manifest.parquet"), sink.getvalue())


def assign_shards(new: pl.DataFrame, old: pl.DataFrame | None, shard_clips: int) -> pl.DataFrame:
    """Give every clip a shard, once and for all.

    Known clips keep theirs and take the new row's values; new clips fill new shards in manifest
    order; clips that left the manifest stay listed with `present = false`.
    """
    if old is None:
        numbered = new.with_row_index("row")
        return numbered.with_columns(
            pl.concat_list((pl.col("row") // shard_clips).cast(pl.Int32)).alias("shards"),
            pl.lit(value=True).alias("present"),
        ).drop("row")
    known = new.join(
        old.select("clip_id", "shards"), on="clip_id", how="left", maintain_order="left"
    )
    first = int(old["shards"].explode().max() or 0) + 1  # type: ignore[arg-type]
    fresh = pl.col("shards").is_null()
    placed = known.with_columns(
        pl.when(fresh)
        .then(pl.concat_list((first + _numbered(fresh) // shard_clips).cast(pl.Int32)))
        .otherwise(pl.col("shards"))
        .alias("shards"),
        pl.lit(value=True).alias("present"),
    )
    gone = old.join(new.select("clip_id"), on="clip_id", how="anti", maintain_order="left")
    return pl.concat(
        [placed, gone.with_columns(present=pl.lit(value=False))], how="diagonal_relaxed"
    )


def reassign_failed(
    manifest: pl.DataFrame, outcomes: pl.DataFrame, kinds: Sequence[str], shard_clips: int
) -> pl.DataFrame:
    """Give failed clips a new shard, so that they are tried again beside their old row."""
    failed = final(outcomes).filter(pl.col("outcome") == "failed")
    if kinds:
        failed = failed.filter(pl.col("kind").is_in(list(kinds)))
    first = int(manifest["shards"].explode().max() or 0) + 1  # type: ignore[arg-type]
    again = pl.col("clip_id").is_in(failed["clip_id"].to_list()) & pl.col("present")
    shard = (first + _numbered(again) // shard_clips).cast(pl.Int32)
    return manifest.with_columns(
        pl.when(again)
        .then(pl.concat_list(pl.col("shards"), shard))
        .otherwise(pl.col("shards"))
        .alias("shards")
    )


def _numbered(chosen: pl.Expr) -> pl.Expr:
    """Number the chosen rows from 0; signed, so that rows before the first may be -1."""
    return chosen.cast(pl.Int64).cum_sum() - 1


def outcomes(run: str) -> pl.DataFrame:
    """Collect every stored row's (clip, shard, outcome, stage, kind, part).

    The newest snapshot answers for the parts it names; only parts stored since are opened.
    """
    snapshot = newest_snapshot(run)
    named = set(snapshot["part"].unique().to_list())
    newer = [part for part in list_parts(run) if part not in named]
    return pl.concat([snapshot, read_outcomes(run, newer)])


def read_outcomes(run: str, names: Iterable[str]) -> pl.DataFrame:
    """Read the light columns of parts, several at a time."""

    def one(part: str) -> pl.DataFrame:
        failed = part.startswith("failures/")
        columns = ["clip_id", "shard", "usd", *(["stage", "kind"] if failed else [])]
        rows = pl.DataFrame(pl.from_arrow(parts.read(run, part, columns)))
        return rows.with_columns(
            *(
                []
                if failed
                else [pl.lit(None, pl.String).alias(name) for name in ("stage", "kind")]
            ),
            pl.lit("failed" if failed else "ok").alias("outcome"),
            pl.lit(part).alias("part"),
        ).select(_EMPTY.columns)

    with ThreadPoolExecutor(READERS) as pool:
        return pl.concat([_EMPTY, *pool.map(one, names)])


def list_parts(run: str) -> list[str]:
    """List the parts of a run by their names relative to it, sorted."""
    found = []
    for folder in parts.SCHEMAS:
        for entry in storage.listing(storage.join(run, folder)):
            relative = f"{folder}/{entry.uri.rsplit('/', 1)[-1]}"
            if parts.is_part(relative):
                found.append(relative)
    return sorted(found)


def newest_snapshot(run: str) -> pl.DataFrame:
    """Read the newest readable snapshot; a missing or torn one costs time, never truth."""
    for number in reversed(_snapshots(run)):
        data = storage.read(storage.join(run, f"index/{number:06d}.parquet"))
        try:
            found = pl.DataFrame(pl.from_arrow(pq.read_table(pa.BufferReader(data))))
        except pa.ArrowInvalid:
            continue
        if found.columns == _EMPTY.columns:
            return found
    return _EMPTY


def save_snapshot(run: str, rows: pl.DataFrame) -> None:
    """Roll a snapshot; older ones but the last are deleted, so that a reader always has one."""
    numbers = _snapshots(run)
    number = (numbers[-1] if numbers else 0) + 1
    sink = io.BytesIO()
    pq.write_table(rows.to_arrow().cast(schema.INDEX), sink, compression="zstd")
    storage.write(storage.join(run, f"index/{number:06d}.parquet"), sink.getvalue())
    for old in numbers[:-1]:
        storage.delete(storage.join(run, f"index/{old:06d}.parquet"))


def _snapshots(run: str) -> list[int]:
    numbers = []
    for entry in storage.listing(storage.join(run, "index")):
        match = _SNAPSHOT.fullmatch("index/" + entry.uri.rsplit("/", 1)[-1])
        if match:
            numbers.append(int(match[1]))
    return sorted(numbers)


def final(outcomes: pl.DataFrame) -> pl.DataFrame:
    """Reduce to one row per clip: ok supersedes failed, a later shard an earlier one."""
    return (
        outcomes.with_columns((pl.col("outcome") == "ok").alias("is_ok"))
        .sort("is_ok", "shard", descending=True)
        .unique("clip_id", keep="first", maintain_order=True)
        .drop("is_ok")
    )


def explained(run: str, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """Give the explanations that count, part by part, in the order of shards.

    Of a clip that was tried again one row counts; clips that left the manifest have none.
    """
    manifest = load_manifest(run)
    if manifest is None:
        raise RunDirError(f"{run}: not a run directory (no manifest.parquet); give the path of one")
    present = manifest.filter("present").select("clip_id")
    ok = final(outcomes(run)).filter(pl.col("outcome") == "ok")
    counted = ok.join(present, on="clip_id", how="semi")
    for (part,), rows in sorted(
        counted.partition_by("part", as_dict=True).items(), key=lambda item: str(item[0][0])
    ):
        table = parts.read(run, str(part), columns)
        chosen = pc.is_in(table["clip_id"], pa.array(rows["clip_id"].to_list()))
        yield table.filter(chosen)


def unfinished(manifest: pl.DataFrame, outcomes: pl.DataFrame) -> list[int]:
    """List the shards to run: those with a clip that has neither succeeded nor failed in its shard.

    A shard is run whole, so that its part is overwritten by a part that holds at least as much.
    """
    current = manifest.filter("present").select("clip_id", shard=pl.col("shards").list.last())
    ok = outcomes.filter(pl.col("outcome") == "ok").select("clip_id")
    todo = current.join(ok, on="clip_id", how="anti").join(
        outcomes.select("clip_id", "shard"), on=["clip_id", "shard"], how="anti"
    )
    return sorted(todo["shard"].unique().to_list())


def clips_of(manifest: pl.DataFrame, shards: Sequence[int]) -> pl.DataFrame:
    """Select the rows of some shards in the form that enters the pipeline, ordered by shard."""
    light = [name for name in schema.CLIPS.names if name in schema.MANIFEST.names]
    blank = ("stage", "kind", "message", "worker")
    if "earlier_part" not in manifest.columns:
        nothing = {"earlier_part": pl.lit(None, pl.String), "earlier_shard": pl.lit(None, pl.Int32)}
        manifest = manifest.with_columns(**nothing)
    return (
        manifest.filter("present")
        .with_columns(shard=pl.col("shards").list.last(), attempt=pl.col("shards").list.len())
        .filter(pl.col("shard").is_in(list(shards)))
        .sort("shard", maintain_order=True)
        .select(
            *light,
            "shard",
            "earlier_part",
            "earlier_shard",
            pl.len().over("shard").cast(pl.Int32).alias("shard_clips"),
            pl.col("attempt").cast(pl.Int32),
            *[pl.lit(None, pl.String).alias(name) for name in blank],
        )
        .select(schema.CLIPS.names)
    )


def with_earlier(manifest: pl.DataFrame, run: str, kept: Collection[int] = ()) -> pl.DataFrame:
    """Name for each clip the part of another run that holds its explanation (`earlier_part`).

    Only where everything that a model saw of it is equal there: media, window, crop, words. Where
    the media are, `earlier_shard` is the clip's last shard among `kept`, those with embeddings.
    """
    before = load_manifest(run)
    if before is None:
        raise RunDirError(f"{run}: not a run directory (no manifest.parquet); see input.answers")
    seen = [name for name in _SEEN if name in before.columns]
    ok = final(outcomes(run)).filter(pl.col("outcome") == "ok")
    known = before.select("clip_id", *seen).join(
        ok.select("clip_id", earlier_part="part"), on="clip_id"
    )
    media = [name for name in _MEDIA if name in before.columns]
    embedded = before.select(
        "clip_id",
        *media,
        earlier_shard=pl.col("shards").list.filter(pl.element().is_in(sorted(kept))).list.last(),
    )
    for found, on in ((known, seen), (embedded, media)):
        manifest = manifest.join(
            found, on=["clip_id", *on], how="left", nulls_equal=True, maintain_order="left"
        )
    return manifest


def shard_tables(clips: pl.DataFrame) -> list[pa.Table]:
    """Split ordered rows into one Arrow table per shard: the blocks of the pipeline."""
    return [
        group.to_arrow().cast(schema.CLIPS)
        for group in clips.partition_by("shard", maintain_order=True)
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What `emer verify` found; holds when nothing is missing, duplicate or bad."""

    clips: int
    ok: int
    failed: int
    missing: int
    duplicate: int
    superseded: int
    extra: int
    bad_parts: tuple[str, ...]

    @property
    def holds(self) -> bool:
        return not (self.missing or self.duplicate or self.bad_parts)


def verify(run: str) -> Verdict:
    """Prove from the raw parts alone that every clip of the manifest ended exactly once.

    `duplicate` counts ids with more than one row in `explanations/`, or more than one failed row
    in the same shard; a failed row with a later row is `superseded`.
    """
    manifest = load_manifest(run)
    if manifest is None:
        raise RunDirError(
            f"{run}: not a run directory (no manifest.parquet); give the path of a run"
        )

    def checked(part: str) -> str | None:
        try:
            parts.check(storage.read(storage.join(run, part)), part)
        except RunDirError as error:
            return str(error)
        return None

    names = list_parts(run)
    with ThreadPoolExecutor(READERS) as pool:
        verdicts = dict(zip(names, pool.map(checked, names), strict=True))
    rows = read_outcomes(run, [part for part, bad in verdicts.items() if bad is None])
    return judge(manifest, rows, tuple(bad for bad in verdicts.values() if bad))


def judge(manifest: pl.DataFrame, rows: pl.DataFrame, bad_parts: tuple[str, ...] = ()) -> Verdict:
    """Count the rows against the manifest."""
    present = manifest.filter("present").select("clip_id")
    mine = rows.join(present, on="clip_id", how="semi")
    ok = mine.filter(pl.col("outcome") == "ok")
    failed = mine.filter(pl.col("outcome") == "failed")
    last = failed.group_by("clip_id").agg(pl.col("shard").max().alias("last"))
    superseded = failed.join(last, on="clip_id").filter(
        (pl.col("shard") < pl.col("last"))
        | pl.col("clip_id").is_in(ok["clip_id"].unique().to_list())
    )
    standing = failed.join(ok, on="clip_id", how="anti").join(last, on="clip_id")
    standing = standing.filter(pl.col("shard") == pl.col("last"))

    def repeated(frame: pl.DataFrame) -> int:
        return frame.height - frame["clip_id"].n_unique()

    return Verdict(
        clips=present.height,
        ok=ok["clip_id"].n_unique(),
        failed=standing["clip_id"].n_unique(),
        missing=present.join(rows.select("clip_id"), on="clip_id", how="anti").height,
        duplicate=repeated(ok) + repeated(standing),
        superseded=superseded.height,
        extra=rows.join(present, on="clip_id", how="anti")["clip_id"].n_unique(),
        bad_parts=bad_parts,
    )


def counts(manifest: pl.DataFrame, outcomes: pl.DataFrame) -> dict[str, Any]:
    """Count the clips of the newest manifest by outcome and by failure kind."""
    present = manifest.filter("present").select("clip_id")
    last = final(outcomes).join(present, on="clip_id", how="semi")
    kinds = last.filter(pl.col("outcome") == "failed").group_by("stage", "kind").len().sort("kind")
    ok = last.filter(pl.col("outcome") == "ok").height
    return {
        "clips": present.height,
        "ok": ok,
        "failed": last.height - ok,
        "kinds": {f"{stage}:{kind}": n for stage, kind, n in kinds.iter_rows()},
    }
