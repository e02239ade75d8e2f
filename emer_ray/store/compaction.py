"""Put the rows of many small parts into few larger ones, safe at any moment.

Nothing is changed until the marker is put, and nothing that counts is deleted (see `layout`):

    1  finish what an earlier compaction left: delete the parts it took, and parts no marker names
    2  read small parts, each checked, and store larger ones under names that nobody else has
    3  put the marker: from here on the larger parts count, and those they were made from do not
    4  roll a snapshot, delete the parts taken, put a marker that no longer lists them

A process that dies between any two steps leaves a directory that reads the same; the next call goes
on. One that was believed dead and wakes up cannot put its marker, because somebody has put one
since: before parts that no marker names are deleted, a marker is put.
"""

import secrets
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from typing import Final

import pyarrow as pa

from emer_ray import storage
from emer_ray.errors import RunDirError
from emer_ray.store import index, layout, parts
from emer_ray.store.parts import Part

TARGET_BYTES: Final = 128 * 2**20
GROUP_CLIPS: Final = 1024
"""Rows of a row group at least: what is read to get at one clip."""

_AHEAD: Final = 64
"""Small parts that are fetched at a time."""


@dataclass(slots=True, kw_only=True)
class Compacted:
    """What a compaction did."""

    parts_before: int = 0
    parts_after: int = 0
    rows: int = 0
    """Rows that were rewritten."""
    bytes_before: int = 0
    bytes_after: int = 0


def steps(run: str, done: Compacted, target_bytes: int = TARGET_BYTES) -> Iterator[str]:
    """Compact a run and say each step when it is done; abandoned anywhere, nothing is lost.

    The caller holds the lease. Raises RunDirError for a damaged part, before anything changed.
    """
    marker = layout.newest(run)
    if marker.taken:
        marker = yield from _clearing(run, marker)
    orphans = [
        name for name in layout.listed(run) if parts.is_compacted(name) and name not in marker.parts
    ]
    if orphans:
        marker = layout.advance(run, marker, marker.parts, {})
        yield "put a marker, so that nobody can still name parts that an unfinished one left"
        storage.delete_all(storage.join(run, name) for name in orphans)
        yield f"deleted {len(orphans)} parts that an unfinished compaction had left"
    live = layout.live(run)
    done.parts_before = done.parts_after = len(live)
    done.bytes_before = done.bytes_after = sum(part.size for part in live)
    taken: list[Part] = []
    stored: list[str] = []
    for group in _groups(live, target_bytes):
        taken += group
        for name, rows in _merged(run, group, target_bytes):
            stored.append(name)
            done.rows += rows
            yield f"stored {name}"
    if taken:
        gone = {part.name: part.version for part in taken}
        named = [name for name in marker.parts if name not in gone]
        marker = layout.advance(run, marker, [*named, *stored], gone)
        yield f"put marker {marker.number}: {len(stored)} parts instead of {len(taken)}"
        marker = yield from _clearing(run, marker)
        live = layout.live(run)
        done.parts_after = len(live)
        done.bytes_after = sum(part.size for part in live)
    layout.drop_older(run, marker)


def _clearing(run: str, marker: layout.Marker) -> Generator[str, None, layout.Marker]:
    """Delete the parts a marker has taken, and put one that no longer lists them.

    A part that was stored anew since is another version, and stays.
    """
    index.save_snapshot(run, index.outcomes(run))
    yield "rolled a snapshot"
    found = layout.listed(run)
    gone = [
        storage.join(run, name)
        for name, version in marker.taken.items()
        if name in found and found[name].version == version
    ]
    storage.delete_all(gone)
    yield f"deleted {len(gone)} parts whose rows are in larger ones"
    return layout.advance(run, marker, marker.parts, {})


def _groups(live: Sequence[Part], target_bytes: int) -> list[list[Part]]:
    """Choose the parts to merge, by folder and fingerprint: small ones, and those with dead rows.

    A single small part is left alone, so that a second call finds nothing to do.
    """

    def key(part: Part) -> tuple[str, str]:
        return part.folder, parts.fingerprint_of(part.name)

    groups = []
    for _, members in groupby(sorted(live, key=key), key):
        chosen = [part for part in members if part.size < target_bytes // 2 or part.hidden]
        if len(chosen) > 1 or any(part.hidden for part in chosen):
            groups.append(sorted(chosen, key=lambda part: parts.shards_of(part.name)))
    return groups


def _merged(run: str, group: Sequence[Part], target_bytes: int) -> Iterator[tuple[str, int]]:
    """Store the rows of parts as larger parts; yields the name and the rows of each."""
    first = group[0]
    for data, rows, shards in _packed(run, group, target_bytes):
        name = parts.compacted_name(
            first.folder,
            min(shards),
            max(shards),
            parts.fingerprint_of(first.name),
            secrets.token_hex(4),
        )
        storage.write(storage.join(run, name), data)
        yield name, rows


def _packed(
    run: str, group: Sequence[Part], target_bytes: int
) -> Iterator[tuple[bytes, int, set[int]]]:
    """Pack checked rows into the bytes of parts, each with its rows and shards."""
    tables = _row_groups(run, group)
    pending = next(tables, None)
    while pending is not None:
        shards: set[int] = set()
        rows = 0
        writer = parts.Writer(pending.schema, dense=True)
        while pending is not None and writer.size < target_bytes:
            writer.add(pending)
            shards.update(pending["shard"].unique().to_pylist())
            rows += pending.num_rows
            pending = next(tables, None)
        yield writer.finished(), rows, shards


def _row_groups(run: str, group: Sequence[Part]) -> Iterator[pa.Table]:
    """Read parts in order, several at a time, and join their rows into row groups."""
    waiting: list[pa.Table] = []
    with ThreadPoolExecutor(index.READERS) as pool:
        for start in range(0, len(group), _AHEAD):
            for table in pool.map(lambda part: _checked(run, part), group[start : start + _AHEAD]):
                waiting.append(table)
                if sum(one.num_rows for one in waiting) >= GROUP_CLIPS:
                    yield pa.concat_tables(waiting).combine_chunks()
                    waiting = []
    if sum(one.num_rows for one in waiting):
        yield pa.concat_tables(waiting).combine_chunks()


def _checked(run: str, part: Part) -> pa.Table:
    """Read a part after checking its bytes: what is damaged must not be deleted for its copy."""
    with parts.opened(run, part, whole=True) as file:
        try:
            parts.check(file, part.name)
        except RunDirError as error:
            raise RunDirError(
                f"{error}; nothing was compacted; delete it in {run}, let `emer relabel` do its "
                f"clips anew, then compact"
            ) from None
        file.seek(0)
        return parts.table(file, part)
