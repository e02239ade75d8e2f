"""What happened to every clip: snapshots rolled by the driver, and the parts stored since.

A snapshot is one file of every outcome (`index/000007.parquet`) and, rolled more often because it
is small, one of those that came after it (`index/000007-since.parquet`). It names each part with
its version: it answers for a part only while the store still holds that very version of it, so that
a part that was deleted, damaged or stored anew is read again.

Work is identified by clip id and shard, never by a block, a file count or an order (peers §3, row
29).
"""

import functools
import io
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from emer_ray import schema, storage
from emer_ray.errors import RunDirError, StorageError
from emer_ray.store import layout, parts
from emer_ray.store.parts import Part

READERS = 16
"""Parts fetched at a time; object stores answer in parallel, local disks do not mind."""

_EMPTY: Final[pl.DataFrame] = pl.DataFrame(pl.from_arrow(schema.INDEX.empty_table()))
_MEDIA: Final = ("video_uri", "audio_uri", "start_s", "end_s", "crop", "fps")
_SEEN: Final = (*_MEDIA, "subtitle_zh", "subtitle_en")
"""Columns of a manifest that decide what a model sees of a clip."""
_SNAPSHOT = re.compile(r"(\d{6,})(-since)?\.parquet")
SINCE_TIMES: Final = 10
"""Times between two snapshots that the outcomes since the last one are stored, beside it."""

_TRIES: Final = 3
"""Looks at a directory whose parts go away while they are read."""


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
    order; clips that left the manifest stay listed with `present = false`. Where nothing is new,
    `old` itself is returned.
    """
    if old is None:
        numbered = new.with_row_index("row")
        return numbered.with_columns(
            pl.concat_list((pl.col("row") // shard_clips).cast(pl.Int32)).alias("shards"),
            pl.lit(value=True).alias("present"),
        ).drop("row")
    if new["clip_id"].equals(old["clip_id"]):  # as on every resume: no need to join
        same = old["present"].all() and new.equals(old.drop("shards", "present"))
        return old if same else new.with_columns(old["shards"], present=pl.lit(value=True))
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
    placed = pl.concat(
        [placed, gone.with_columns(present=pl.lit(value=False))], how="diagonal_relaxed"
    )
    return old if placed.equals(old) else placed


def changed_shards(placed: pl.DataFrame, old: pl.DataFrame) -> list[int]:
    """List the shards with a clip that had other media in `old`, or was not listed there."""
    media = [name for name in _MEDIA if name in placed.columns and name in old.columns]
    present = (
        frame.filter("present").select("clip_id", "shards", *media) for frame in (placed, old)
    )
    new, before = present
    other = new.join(before, on=["clip_id", *media], how="anti", nulls_equal=True)
    return sorted(other["shards"].list.last().unique().to_list())


def reassign_failed(
    manifest: pl.DataFrame, outcomes: pl.DataFrame, kinds: Sequence[str], shard_clips: int
) -> pl.DataFrame:
    """Give failed clips a new shard, so that they are tried again beside their old row.

    Where there are none, `manifest` itself is returned.
    """
    failed = final(outcomes).filter(pl.col("outcome") == "failed")
    if kinds:
        failed = failed.filter(pl.col("kind").is_in(list(kinds)))
    if failed.is_empty():
        return manifest
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

    The newest snapshot answers for the parts it vouches for; only the others are opened.
    """
    return look(run)[0]


def look(run: str) -> tuple[pl.DataFrame, list[Part]]:
    """Collect the outcomes, and the parts they lie in."""
    for _ in range(_TRIES):
        snapshot = newest_snapshot(run)
        live = layout.live(run, guessed_shards(snapshot))
        known, others = vouched(snapshot, live)
        try:
            return pl.concat([known, read_outcomes(run, others)]), live
        except StorageError as error:
            if error.kind != "missing":
                raise
    raise RunDirError(f"{run}: its parts are being replaced; wait for `emer compact`, then repeat")


def vouched(snapshot: pl.DataFrame, live: Sequence[Part]) -> tuple[pl.DataFrame, list[Part]]:
    """Split parts into those a snapshot answers for, as their rows, and the others."""
    named = snapshot.select("part", "version").unique()
    lies = pl.DataFrame(
        {"part": [part.name for part in live], "version": [part.version for part in live]},
        schema={"part": pl.String, "version": pl.String},
    )
    sound = named.join(lies, on=["part", "version"], how="semi")
    known = snapshot
    if sound.height < named.height:
        known = known.join(sound, on=["part", "version"], how="semi", maintain_order="left")
    for part in live:
        if part.hidden:
            old = (pl.col("part") == part.name) & pl.col("shard").is_in(sorted(part.hidden))
            known = known.filter(~old)
    answered = set(sound["part"].to_list())
    return known, [part for part in live if part.name not in answered]


def guessed_shards(snapshot: pl.DataFrame) -> int:
    """Tell how many shards a snapshot knows of, for a listing in pieces."""
    return int(snapshot["shard"].max() or 0)  # type: ignore[arg-type]


def read_outcomes(run: str, live: Iterable[Part]) -> pl.DataFrame:
    """Read the light columns of parts, several at a time."""

    chosen = list(live)

    def one(part: Part) -> pa.Table:
        with parts.opened(run, part, whole=False) as file:
            return _light(file, part)

    with ThreadPoolExecutor(READERS) as pool:
        return _rows(chosen, list(pool.map(one, chosen)))


def _light(file: BinaryIO, part: Part) -> pa.Table:
    also = ["stage", "kind"] if part.folder == "failures" else []
    return parts.table(file, part, ["clip_id", "shard", "usd", *also])


def _rows(chosen: Sequence[Part], tables: Sequence[pa.Table]) -> pl.DataFrame:
    """Put the light columns of parts into one frame, with where each row lies."""
    frames = [_EMPTY]
    for folder, outcome in (("explanations", "ok"), ("failures", "failed")):
        mine = [(p, t) for p, t in zip(chosen, tables, strict=True) if p.folder == folder]
        if not mine:
            continue
        lies = pl.DataFrame(
            {
                "part": [part.name for part, _ in mine],
                "version": [part.version for part, _ in mine],
                "n": [table.num_rows for _, table in mine],
            }
        ).select(
            pl.col("part", "version").repeat_by("n").explode(keep_nulls=False, empty_as_null=False)
        )
        found = pl.DataFrame(pl.from_arrow(pa.concat_tables([table for _, table in mine])))
        absent = [name for name in ("stage", "kind") if name not in found.columns]
        frames.append(
            found.with_columns(
                *[pl.lit(None, pl.String).alias(name) for name in absent],
                *lies.get_columns(),
                outcome=pl.lit(outcome),
            ).select(_EMPTY.columns)
        )
    return pl.concat(frames)


def newest_snapshot(run: str) -> pl.DataFrame:
    """Read the newest readable snapshot; a missing or torn one costs time, never truth."""
    rolled, since = _snapshots(run)
    for number in reversed(rolled):
        found = _snapshot(run, f"{number:06d}")
        if found is not None:
            later = _snapshot(run, f"{number:06d}-since") if number in since else None
            return found if later is None else pl.concat([found, later])
    return _EMPTY


def _snapshot(run: str, name: str) -> pl.DataFrame | None:
    try:
        found = pl.read_parquet(io.BytesIO(storage.read(_place(run, name))))
    except pl.exceptions.PolarsError:
        return None
    except StorageError as error:
        if error.kind != "missing":
            raise
        return None  # a newer one has replaced it since
    return found if found.columns == _EMPTY.columns else None


def without(outcomes: pl.DataFrame, shards: Sequence[int]) -> pa.Table:
    """Leave out what a run of these shards will say again: the rows of their own parts."""
    own = pl.col("part").str.contains(rf"^{parts.NAME.pattern}$")
    kept = outcomes.filter(~(own & pl.col("shard").is_in(list(shards))))
    return kept.to_arrow().cast(schema.INDEX)


def save_snapshot(run: str, rows: pl.DataFrame | pa.Table) -> int:
    """Roll a snapshot and give its number.

    Older ones but the last are deleted, so that a reader always has one.
    """
    rolled, since = _snapshots(run)
    number = (rolled[-1] if rolled else 0) + 1
    _save(run, f"{number:06d}", rows)
    for old in rolled[:-1]:
        storage.delete(_place(run, f"{old:06d}"))
    for old in since:
        storage.delete(_place(run, f"{old:06d}-since"))
    return number


class Snapshots:
    """Rolls snapshots of a run as outcomes arrive.

    A whole one takes a second for a million clips, so most of the time only what came since is
    stored. The first of a start is whole: it also names what was read from parts that none did.
    """

    def __init__(self, run: str, known: Callable[[], pa.Table], *, every: int) -> None:
        """Roll them every so many clips; `known` gives what earlier starts stored."""
        self._run = run
        self._every = every
        self._earlier = known
        self._since: list[pa.Table] = []
        self._n_since = self._n_unnamed = 0
        """Clips that no whole snapshot names, and those that no file of the index does."""
        self._number: int | None = None

    @functools.cached_property
    def _known(self) -> list[pa.Table]:
        # made when a file is due: of a million clips it takes 0.2 s, which no block should wait for
        return [self._earlier()]

    def add(self, rows: pa.Table) -> bool:
        """Take outcomes; tells whether that made a file due, which is stored by then."""
        self._since.append(rows)
        self._n_since += rows.num_rows
        self._n_unnamed += rows.num_rows
        if self._n_unnamed < self._every / SINCE_TIMES:
            return False
        if self._number is None or self._n_since >= self._every:
            # copied tight: what arrives looks into the block that it came in
            self._known.append(pa.concat_tables(self._since).combine_chunks())
            self._number = save_snapshot(self._run, pa.concat_tables(self._known))
            self._since, self._n_since = [], 0
        else:
            save_since(self._run, self._number, pa.concat_tables(self._since))
        self._n_unnamed = 0
        return True

    def close(self) -> None:
        """Store what is not in a snapshot yet."""
        if self._n_since:
            save_snapshot(self._run, pa.concat_tables([*self._known, *self._since]))


def save_since(run: str, number: int, rows: pl.DataFrame | pa.Table) -> None:
    """Store the outcomes that came after a snapshot, in place of the fewer that did before."""
    _save(run, f"{number:06d}-since", rows)


def _save(run: str, name: str, rows: pl.DataFrame | pa.Table) -> None:
    sink = io.BytesIO()
    table = rows if isinstance(rows, pa.Table) else rows.to_arrow()
    pq.write_table(table.cast(schema.INDEX), sink, compression="zstd")
    pa.default_memory_pool().release_unused()  # a driver's memory shall not grow with its run
    storage.write(_place(run, name), sink.getvalue())


def _place(run: str, name: str) -> str:
    return storage.join(run, f"index/{name}.parquet")


def _snapshots(run: str) -> tuple[list[int], list[int]]:
    """List the numbers of snapshots, and of those that have a file of later outcomes."""
    names = (entry.uri.rsplit("/", 1)[-1] for entry in storage.listing(storage.join(run, "index")))
    found = [match for name in names if (match := _SNAPSHOT.fullmatch(name))]
    rolled, since = (
        sorted(int(match[1]) for match in found if bool(match[2]) == later)
        for later in (False, True)
    )
    return rolled, since


def final(outcomes: pl.DataFrame) -> pl.DataFrame:
    """Reduce to one row per clip: ok supersedes failed, a later shard an earlier one."""
    return (
        outcomes.with_columns((pl.col("outcome") == "ok").alias("is_ok"))
        .sort("is_ok", "shard", descending=True)
        .unique("clip_id", keep="first", maintain_order=True)
        .drop("is_ok")
    )


def explained(run: str, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """Give the explanations that count, some at a time, in the order of shards.

    Of a clip that was tried again one row counts; clips that left the manifest have none.
    """
    manifest = load_manifest(run)
    if manifest is None:
        raise RunDirError(f"{run}: not a run directory (no manifest.parquet); give the path of one")
    present = manifest.filter("present").select("clip_id")
    known, found = look(run)
    live = {part.name: part for part in found}
    ok = final(known).filter(pl.col("outcome") == "ok")
    counted = ok.join(present, on="clip_id", how="semi")
    for (part,), rows in sorted(
        counted.partition_by("part", as_dict=True).items(), key=lambda item: str(item[0][0])
    ):
        mine = pa.array(rows["clip_id"].to_list())
        for table in parts.groups(run, live[str(part)], columns):
            yield table.filter(pc.is_in(table["clip_id"], mine))


def standing(manifest: pl.DataFrame, outcomes: pl.DataFrame) -> tuple[dict[str, Any], list[int]]:
    """Count the clips of the newest manifest by outcome and by failure kind; list what is left.

    Left are the shards with a clip that has neither succeeded nor failed in its shard. A shard is
    run whole, so that its part is overwritten by a part that holds at least as much.
    """
    ok = outcomes.filter(pl.col("outcome") == "ok").select("clip_id")
    not_ok = (
        manifest.select("clip_id", "shards", "present")  # to filter other columns takes time
        .filter("present")
        .join(ok, on="clip_id", how="anti", maintain_order="left")
        .select("clip_id", shard=pl.col("shards").list.last())
    )
    tried = outcomes.filter(pl.col("outcome") != "ok")
    todo = not_ok.join(tried, on=["clip_id", "shard"], how="anti")
    last = final(tried.join(not_ok, on="clip_id", how="semi"))
    kinds = last.group_by("stage", "kind").len().sort("kind")
    clips = int(manifest["present"].sum())
    counted = {
        "clips": clips,
        "ok": clips - not_ok.height,
        "failed": last.height,
        "kinds": {f"{stage}:{kind}": n for stage, kind, n in kinds.iter_rows()},
    }
    return counted, sorted(todo["shard"].unique().to_list())


def counts(manifest: pl.DataFrame, outcomes: pl.DataFrame) -> dict[str, Any]:
    """Count the clips of the newest manifest by outcome and by failure kind."""
    return standing(manifest, outcomes)[0]


def unfinished(manifest: pl.DataFrame, outcomes: pl.DataFrame) -> list[int]:
    """List the shards to run."""
    return standing(manifest, outcomes)[1]


def clips_of(manifest: pl.DataFrame, shards: Sequence[int]) -> pl.DataFrame:
    """Select the rows of some shards in the form that enters the pipeline, ordered by shard."""
    light = [name for name in schema.CLIPS.names if name in schema.MANIFEST.names]
    blank = ("stage", "kind", "message", "worker")
    wanted = manifest.filter("present", pl.col("shards").list.last().is_in(list(shards)))
    if "earlier_part" not in manifest.columns:
        nothing = {"earlier_part": pl.lit(None, pl.String), "earlier_shard": pl.lit(None, pl.Int32)}
        wanted = wanted.with_columns(**nothing)
    return (
        wanted.with_columns(shard=pl.col("shards").list.last(), attempt=pl.col("shards").list.len())
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
    """What a check found; holds when nothing is missing, duplicate or bad."""

    clips: int
    ok: int
    failed: int
    missing: int
    duplicate: int
    superseded: int
    extra: int
    parts: int
    """Parts that count."""
    read: int
    """Parts whose bytes were read and hashed; the others are what the index vouches for."""
    bad_parts: tuple[str, ...]

    @property
    def holds(self) -> bool:
        return not (self.missing or self.duplicate or self.bad_parts)


READ_WHOLE: Final = 1024
"""Parts that the index vouches for and that are read all the same; fewer than so many are all
read."""


def verify(run: str, *, deep: bool = False) -> Verdict:
    """Prove from the run directory alone that every clip of the manifest ended exactly once.

    Every part that the index does not vouch for is read whole and hashed, and so are `READ_WHOLE`
    of the others, evenly spread; with `deep`, all of them. Of the rest, the index knows the rows,
    and the store attests that they are the objects that were written: same ETag, or same size and
    time of change.

    `duplicate` counts ids with more than one row in `explanations/`, or more than one failed row
    in the same shard; a failed row with a later row is `superseded`.
    """
    with ThreadPoolExecutor(2) as pool:
        placed = pool.submit(load_manifest, run)
        snapshot = newest_snapshot(run)
        live = layout.live(run, guessed_shards(snapshot))
        manifest = placed.result()
    if manifest is None:
        raise RunDirError(
            f"{run}: not a run directory (no manifest.parquet); give the path of a run"
        )
    known, others = vouched(snapshot, live)
    unknown = {part.name for part in others}
    trusted = [part for part in live if part.name not in unknown]
    if not deep and len(trusted) > READ_WHOLE:
        drawn = [trusted[i * len(trusted) // READ_WHOLE] for i in range(READ_WHOLE)]
    else:
        drawn = trusted
    read, bad = _read_whole(run, [*others, *drawn])
    audited = pl.DataFrame({"part": [part.name for part in drawn]}, schema={"part": pl.String})
    said = known.join(audited, on="part", how="semi")
    rows = pl.concat([known.join(audited, on="part", how="anti"), read])
    return judge(
        manifest,
        rows,
        bad_parts=(*bad.values(), *_lies(said, read, bad)),
        parts=len(live),
        read=len(others) + len(drawn),
    )


def _read_whole(run: str, chosen: Sequence[Part]) -> tuple[pl.DataFrame, dict[str, str]]:
    """Read and check every byte of some parts; returns their rows, and what is wrong with bad ones.

    A large part is hashed piece by piece, so that a few of them fit in memory at a time.
    """

    def one(part: Part) -> pa.Table | str:
        with parts.opened(run, part, whole=False) as file:
            try:
                parts.check(file, part.name)
                file.seek(0)
                return _light(file, part)
            except RunDirError as error:
                return str(error)

    with ThreadPoolExecutor(READERS) as pool:
        found = list(zip(chosen, pool.map(one, chosen), strict=True))
    sound = [(part, said) for part, said in found if not isinstance(said, str)]
    bad = {part.name: said for part, said in found if isinstance(said, str)}
    return _rows([part for part, _ in sound], [table for _, table in sound]), bad


def _lies(said: pl.DataFrame, read: pl.DataFrame, bad: Mapping[str, str]) -> list[str]:
    """Name the parts whose rows are not those that the index holds of them."""
    key = ["clip_id", "shard", "outcome", "part"]
    readable = said.filter(~pl.col("part").is_in(list(bad)))
    mine = read.join(said.select("part").unique(), on="part", how="semi")
    differ = [readable.join(mine, on=key, how="anti"), mine.join(readable, on=key, how="anti")]
    names = sorted(pl.concat(differ)["part"].unique().to_list())
    return [f"part {name}: its rows are not those in index/; delete index/" for name in names]


def judge(
    manifest: pl.DataFrame,
    rows: pl.DataFrame,
    *,
    bad_parts: tuple[str, ...] = (),
    parts: int = 0,
    read: int = 0,
) -> Verdict:
    """Count the rows against the manifest."""
    present = manifest.filter("present").select("clip_id")
    light = rows.select("clip_id", "shard", "outcome")
    extra = light.join(present, on="clip_id", how="anti")
    mine = light.join(present, on="clip_id", how="semi") if extra.height else light
    ok = mine.filter(pl.col("outcome") == "ok")
    failed = mine.filter(pl.col("outcome") == "failed")
    last = failed.group_by("clip_id").agg(pl.col("shard").max().alias("last"))
    open_ = failed.join(ok, on="clip_id", how="anti").join(last, on="clip_id")
    standing = open_.filter(pl.col("shard") == pl.col("last"))
    n_ok, n_failed = ok["clip_id"].n_unique(), standing["clip_id"].n_unique()
    return Verdict(
        clips=present.height,
        ok=n_ok,
        failed=n_failed,
        missing=present.join(mine, on="clip_id", how="anti").height,
        duplicate=ok.height - n_ok + standing.height - n_failed,
        superseded=failed.height - standing.height,
        extra=extra["clip_id"].n_unique(),
        parts=parts,
        read=read,
        bad_parts=bad_parts,
    )
