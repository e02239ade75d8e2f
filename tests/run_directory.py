"""A run directory in one call, without running anything: for tests of what reads one."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from emer_ray import config, pipeline, schema
from emer_ray.store import index, parts, record

LISTS = ("visual_clues", "acoustic_clues", "lexical_clues", "labels", "notes", "measures")


def write(run: str | Path, clips: Sequence[Mapping[str, Any]]) -> str:
    """Write a finished run of the fake model; each clip gives what differs from an empty row.

    Keys of the manifest go there; `visual`, `acoustic`, `lexical` are texts of clues, `labels`
    words or (word, support); `failed` names a failure kind.
    """
    run = str(run)
    settings = config.parse(
        {
            "input": {"manifest": "clips.csv"},
            "output": {"run": run},
            "models": {"main": {"backend": "fake"}},
        }
    )
    fingerprint = pipeline.fingerprint(settings)
    listed = [
        {name: clip.get(name) for name in schema.MANIFEST.names if name not in LISTS}
        for clip in clips
    ]
    frame = pl.DataFrame(pl.from_arrow(schema.table(listed, schema.MANIFEST)))
    index.save_manifest(run, index.assign_shards(frame, None, 4))
    provenance = dataclasses.asdict(pipeline.provenance(settings))
    for shard in range(-(-len(clips) // 4)):
        mine = clips[4 * shard : 4 * shard + 4]
        ok = [_explained(clip, shard, provenance) for clip in mine if not clip.get("failed")]
        bad = [_failed(clip, shard, fingerprint) for clip in mine if clip.get("failed")]
        parts.write(
            run,
            shard,
            fingerprint,
            schema.table(ok, schema.EXPLANATIONS),
            schema.table(bad, schema.FAILURES),
        )
    record.save(
        run,
        {
            "emer_ray": "test",
            "fingerprint": fingerprint,
            "fingerprint_parts": pipeline.fingerprint_parts(settings),
            "config": settings.model_dump(mode="json"),
            "versions": pipeline.versions(),
            "step_hashes": pipeline.step_hashes(settings),
            "counts": {
                "clips": len(clips),
                "ok": sum(not clip.get("failed") for clip in clips),
                "failed": sum(bool(clip.get("failed")) for clip in clips),
            },
            "starts": [],
        },
    )
    return run


def _explained(
    clip: Mapping[str, Any], shard: int, provenance: Mapping[str, Any]
) -> dict[str, Any]:
    labels = [(each, None) if isinstance(each, str) else each for each in clip.get("labels", ())]
    return {
        **dict.fromkeys(schema.EXPLANATIONS.names),
        **{name: [] for name in LISTS},
        **{name: clip[name] for name in schema.EXPLANATIONS.names if name in clip},
        **{
            f"{sense}_clues": [{"text": text, "evidence": []} for text in clip.get(sense, ())]
            for sense in ("visual", "acoustic", "lexical")
        },
        "shard": shard,
        "attempt": 1,
        "explanation": clip.get("explanation", ""),
        "labels": [{"label": label, "support": support} for label, support in labels],
        "parse_rung": "json",
        "provenance": provenance,
    }


def _failed(clip: Mapping[str, Any], shard: int, fingerprint: str) -> dict[str, Any]:
    return {
        **dict.fromkeys(schema.FAILURES.names),
        **{name: clip[name] for name in ("clip_id", "licence_tag") if name in clip},
        **{"shard": shard, "attempt": 1, "fingerprint": fingerprint, "stage": "decode"},
        **{"kind": clip["failed"], "message": "no"},
    }
