"""`emer relabel --reparse RUN`: read the stored answers of a run again, without a model.

For a better parser: rows are rewritten in their own parts, an answer that can be read now becomes
ok, one that no longer can becomes failed. What a model said is untouched.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from emer_ray import config as configuration
from emer_ray import parse, pipeline, schema, stages, storage
from emer_ray.errors import ClipError
from emer_ray.store import index, lease, parts, record

Row = dict[str, Any]


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
        changed = sum(
            _shard(run, names, asked, provenance) for names in _by_shard(index.list_parts(run))
        )
        outcomes = index.read_outcomes(run, index.list_parts(run))
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


def _by_shard(names: Sequence[str]) -> list[list[str]]:
    """Put the two parts of a shard and fingerprint together."""
    pairs: dict[str, list[str]] = {}
    for name in names:
        pairs.setdefault(name.split("/", 1)[1], []).append(name)
    return list(pairs.values())


def _shard(
    run: str, names: Sequence[str], asked: Sequence[parse.Asked], provenance: Mapping[str, Any]
) -> int:
    """Read the rows of one shard again; returns how many changed."""
    before = [(name, row) for name in names for row in parts.read(run, name).to_pylist()]
    ok: list[Row] = []
    failed: list[Row] = []
    changed = 0
    for name, row in before:
        was_ok = name.startswith("explanations/")
        answered = was_ok or row["stage"] == "parse"
        after = _again(row, asked, provenance, was_ok=was_ok) if answered else row
        (failed if "kind" in after else ok).append(after)
        changed += after != row
    if changed:
        full = (before[0][1].get("provenance") or before[0][1])["fingerprint"]
        shard = before[0][1]["shard"]
        tables = (schema.table(ok, schema.EXPLANATIONS), schema.table(failed, schema.FAILURES))
        parts.write(run, shard, full, *tables)
        for name, table in zip(("explanations", "failures"), tables, strict=True):
            part = parts.name(name, shard, full)  # type: ignore[arg-type]
            if part in names and not table.num_rows:
                storage.delete(storage.join(run, part))
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
