"""One clip with everything known about it."""

import difflib
from typing import Any

import polars as pl

from emer_ray.errors import RunDirError
from emer_ray.store import index, parts


def show(run: str, clip_id: str) -> dict[str, Any]:
    """Collect a clip's manifest row and each of its stored rows, the one that counts first.

    Raises RunDirError for an unknown clip, naming the nearest ids.
    """
    placed = index.load_manifest(run)
    if placed is None:
        raise RunDirError(
            f"{run}: not a run directory (no manifest.parquet); give the path of a run"
        )
    listed = placed.filter(pl.col("clip_id") == clip_id)
    if listed.is_empty():
        near = difflib.get_close_matches(clip_id, placed["clip_id"].to_list(), n=3, cutoff=0.3)
        hint = f"; near: {', '.join(near)}" if near else ""
        raise RunDirError(f"{run}: no clip {clip_id!r} in its manifest{hint}")
    mine = index.outcomes(run).filter(pl.col("clip_id") == clip_id)
    counted = index.final(mine)
    part = None if counted.is_empty() else counted["part"][0]
    others = [name for name in mine["part"].to_list() if name != part]
    return {
        "clip_id": clip_id,
        "outcome": "pending" if part is None else counted["outcome"][0],
        "manifest": listed.to_dicts()[0],
        "row": None if part is None else _row(run, part, clip_id),
        "part": part,
        "superseded": [{"part": name, **_row(run, name, clip_id)} for name in others],
    }


def _row(run: str, part: str, clip_id: str) -> dict[str, Any]:
    rows: list[dict[str, Any]] = parts.around(run, part, clip_id).to_pylist()
    return next(row for row in rows if row["clip_id"] == clip_id)
