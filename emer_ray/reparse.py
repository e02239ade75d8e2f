"""`emer relabel --reparse RUN`: read the stored answers of a run again, without a model.

For a better parser: rows are rewritten in their own parts, an answer that can be read now becomes
ok, one that no longer can becomes failed. What a model said is untouched.
"""

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from emer_ray import config as configuration
from emer_ray import parse, pipeline, schema, stages
from emer_ray.errors import ClipError
from emer_ray.store import index, layout, lease, parts, record

Row = dict[str, Any]
Reader = Callable[[str], pa.Table]


def reparse(run: str, *, take_over: bool = False) -> dict[str, Any]:
    """Read every answer of a run again and rewrite the parts whose rows change.

    Returns the totals of the directory and `changed`, the rows that differ. Rows that failed before
    every step was answered stay as they are: only a model can go on with them.
    """
    started = time.monotonic()
    journal = record.require(run)
    config = configuration.parse(journal["config"])
    asked = pipeline.asked(config)
    provenance = asdict(pipeline.provenance(config))
    with lease.held(run, take_over=take_over):
        live = {part.name: part for part in layout.live(run)}
        read = functools.lru_cache(maxsize=4)(lambda name: parts.read(run, live[name]))
        changed = sum(
            _shard(run, shard, names, read, asked, provenance)
            for shard, names in _by_shard(index.outcomes(run))
        )
        outcomes = index.outcomes(run)
        index.save_snapshot(run, outcomes)
        placed = index.load_manifest(run)
        assert placed is not None, run
        counts = index.counts(placed, outcomes)
        again = {"at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "changed": changed}
        done = [*journal.get("reparsed", []), {**again, "versions": pipeline.versions()}]
        record.save(run, {**journal, "counts": counts, "reparsed": done})
    return {
        "run": run,
        **{name: counts[name] for name in ("clips", "ok", "failed")},
        "changed": changed,
        "seconds": round(time.monotonic() - started, 3),
    }


def _by_shard(outcomes: pl.DataFrame) -> list[tuple[int, list[str]]]:
    """Name, shard by shard, the parts that hold the rows of a shard and fingerprint."""
    held: dict[tuple[int, str], list[str]] = {}
    for shard, name in outcomes.select("shard", "part").unique().sort("shard", "part").iter_rows():
        held.setdefault((shard, parts.fingerprint_of(name)), []).append(name)
    return [(shard, names) for (shard, _), names in held.items()]


def _shard(
    run: str,
    shard: int,
    names: Sequence[str],
    read: Reader,
    asked: Sequence[parse.Asked],
    provenance: Mapping[str, Any],
) -> int:
    """Read the rows of one shard again; returns how many changed."""
    tables = {name: read(name) for name in names}
    before = [
        (name, row)
        for name, table in tables.items()
        for row in table.filter(pc.equal(table["shard"], shard)).to_pylist()
    ]
    ok: list[Row] = []
    failed: list[Row] = []
    changed = 0
    for name, row in before:
        was_ok = name.startswith("explanations/")
        answered = was_ok or row["stage"] == "parse"
        again = _again(row, asked, provenance, was_ok=was_ok) if answered else row
        (failed if "kind" in again else ok).append(again)
        changed += again != row
    if changed:
        full = (before[0][1].get("provenance") or before[0][1])["fingerprint"]
        after = (schema.table(ok, schema.EXPLANATIONS), schema.table(failed, schema.FAILURES))
        parts.write(run, shard, full, *after)
        for name in names:
            folder = parts.folder_of(name)
            if not (ok if folder == "explanations" else failed):
                parts.drop(run, name, shard)
    return changed


def _again(
    row: Row, asked: Sequence[parse.Asked], provenance: Mapping[str, Any], *, was_ok: bool
) -> Row:
    kept = [note for note in row["notes"] or () if ": kept is sample" not in note]
    found = stages.parsed({**row, "notes": kept}, asked)
    fingerprint = row["provenance"]["fingerprint"] if was_ok else row["fingerprint"]
    if isinstance(found, ClipError):
        ends = {"stage": "parse", "kind": found.kind, "message": str(found)}
        own = {"worker": None, "fingerprint": fingerprint} | ({} if was_ok else row) | ends
        again = {name: own.get(name, row.get(name)) for name in schema.FAILURES.names}
        return _plain(again, schema.FAILURES)
    own = {**row, **found}
    own.setdefault("provenance", {**provenance, "fingerprint": fingerprint})
    return _plain({name: own[name] for name in schema.EXPLANATIONS.names}, schema.EXPLANATIONS)


def _plain(row: Row, columns: pa.Schema) -> Row:
    """Give a row as a part gives it back, so that equal rows compare equal."""
    found: Row = schema.table([row], columns).to_pylist()[0]
    return found
