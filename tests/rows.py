"""What tests of whole runs share: a manifest in one call, and the rows that came out."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from emer_ray import config as configuration
from emer_ray import manifest as manifests
from emer_ray import pipeline, prompts
from emer_ray.records import Clues, Request
from emer_ray.relabel import relabel
from emer_ray.store import index, layout, parts

VARIES = ("latency_s", "worker")


def manifest(path: Path, rows: Sequence[Mapping[str, Any]]) -> str:
    """Write a JSONL manifest."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def local_run(settings: Mapping[str, Any], each: Callable[[], object] = lambda: None) -> str:
    """Make a run directory without Ray: the serial twin explains the clips, `relabel` then finds
    nothing left to do and writes the record. `each` is called after every shard.
    """
    config = configuration.parse(settings)
    run = config.output.run
    assert run is not None
    flow = pipeline.steps(config, pipeline.Start(run=run, contained=False))
    clips_per_shard, _ = pipeline.shard_clips(config, flow)
    listed = pl.DataFrame(pl.from_arrow(manifests.load(config.input)))
    placed = index.assign_shards(listed, None, clips_per_shard)
    index.save_manifest(run, placed)
    clips = index.clips_of(placed, index.unfinished(placed, index.outcomes(run)))
    for _ in pipeline.run_local(flow, index.shard_tables(clips)):
        each()
    relabel(config)
    return run


def stored(run: str) -> dict[str, dict[str, Any]]:
    """Read every stored row by clip id, without what differs between two equal runs."""
    found: dict[str, dict[str, Any]] = {}
    for part in layout.live(run):
        for row in parts.read(run, part).to_pylist():
            assert row["clip_id"] not in found, f"{row['clip_id']} is stored twice"
            row.pop("worker", None)
            for answer in row["answers"] or ():
                answer.pop("latency_s")
            found[row["clip_id"]] = row
    return found


def receipts(tables: Sequence[pa.Table]) -> dict[str, str]:
    """Map clip id to outcome."""
    return {row["clip_id"]: row["outcome"] for table in tables for row in table.to_pylist()}


def request(clues: Clues) -> Request:
    """Ask for an explanation of one clip."""
    question = prompts.question(step="s", prompt="explain", form="explanation", language="en")
    return prompts.render(question, clues, {})[0]
