"""Kept embeddings: what the towers of a split model made of each clip, for later prompts.

    embeddings/HASH/00000003.parquet            a shard's embeddings
    embeddings/HASH/00000003.vectors.parquet    what is light of them: times, media facts, means

HASH is everything that the embeddings depend on but the clip (`pipeline.step_hashes`, under the
name of the towers), so equal names hold equal embeddings. The light file is stored last: where it
is, the other is whole.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from emer_ray import schema, storage
from emer_ray.errors import RunDirError
from emer_ray.store import parts, record

Row = dict[str, Any]

_LIGHT = re.compile(r"(\d{8,})\.vectors\.parquet")
_EMPTY: Final[pl.DataFrame] = pl.DataFrame(
    schema={"clip_id": pl.String, "video": pl.List(pl.Float32), "audio": pl.List(pl.Float32)}
)


COLUMNS: Final = (
    *("clip_id", "stage", "kind", "message", "worker"),
    *("frame_times_s", "media", "tensors", "embeddings"),
)
"""What is kept of a clip, in two files."""


def folder(towers: str) -> str:
    """Name the folder of some towers' embeddings, relative to the run directory."""
    return f"embeddings/{towers[:12]}"


def _file(towers: str, shard: int, *, light: bool) -> str:
    return f"{folder(towers)}/{shard:08d}{'.vectors' if light else ''}.parquet"


def write(run: str, towers: str, shard: int, rows: Sequence[Mapping[str, Any]]) -> None:
    """Store the embeddings of a shard's clips: rows of `COLUMNS`.

    A clip that has failed has a light row only, and so has one that nobody will look at.
    """
    light, heavy = [], []
    for row in rows:
        facts = {name: row[name] for name in COLUMNS if name not in ("tensors", "embeddings")}
        if row["kind"] or row["embeddings"] is None:
            light.append({**facts, "pooled": None})
            continue
        whole = memoryview(row["embeddings"])
        light.append({**facts, "pooled": _pooled(row["tensors"], whole)})
        heavy.append({"clip_id": row["clip_id"], "tensors": row["tensors"], "embeddings": whole})
    for found, columns, is_light in (
        (heavy, schema.KEPT_TENSORS, False),
        (light, schema.KEPT, True),
    ):
        uri = storage.join(run, _file(towers, shard, light=is_light))
        storage.write(uri, parts.serialise(schema.table(found, columns)))


def shards(run: str, towers: str) -> set[int]:
    """List the shards whose embeddings are kept."""
    names = (
        entry.uri.rsplit("/", 1)[-1] for entry in storage.listing(storage.join(run, folder(towers)))
    )
    return {int(match[1]) for name in names if (match := _LIGHT.fullmatch(name))}


def newest_s(run: str) -> float | None:
    """Tell when something was kept last, in seconds since the epoch; None where nothing is."""
    found = storage.listing(storage.join(run, "embeddings"))
    return max((entry.modified_s for entry in found), default=None)


def forget(run: str, shards: Sequence[int]) -> None:
    """Delete what is kept of some shards, whichever towers made it: the light files first."""
    names = {f"{shard:08d}{kind}.parquet" for shard in shards for kind in (".vectors", "")}
    found = [entry.uri for entry in storage.listing(storage.join(run, "embeddings"))]
    mine = [uri for uri in found if uri.rsplit("/", 1)[-1] in names]
    storage.delete_all(sorted(mine, key=lambda uri: not _LIGHT.search(uri)))


def read(run: str, towers: str, shard: int, *, light: bool) -> dict[str, Row]:
    """Read the rows of one shard by clip id: what is light of them, or their embeddings.

    Raises RunDirError where the bytes are not those that were written.
    """
    name = _file(towers, shard, light=light)
    data = storage.read(storage.join(run, name))
    parts.intact(data, name)
    table = pq.read_table(pa.BufferReader(data))
    if light:
        return {row["clip_id"]: row for row in table.to_pylist()}
    rows = table.select(["clip_id", "tensors"]).to_pylist()
    wholes = table["embeddings"].combine_chunks()
    return {
        row["clip_id"]: {**row, "embeddings": memoryview(wholes[number].as_buffer())}
        for number, row in enumerate(rows)
    }


def vectors(run: str, model: str | None = None) -> pl.DataFrame:
    """Read a vector per clip of a run that kept embeddings: `clip_id`, `video`, `audio`.

    A vector is the mean over the tokens of that modality, in the width of the language model; null
    where the clip has none. `model` is its name in the configuration, needed where several were
    split. Raises RunDirError where nothing was kept.
    """
    kept = {name: found for name, found in _kept(run).items() if model in (None, name)}
    if len(kept) != 1:
        said = f"of {', '.join(kept)}; name one" if kept else "none; set output.embeddings = true"
        raise RunDirError(f"{run}: kept embeddings: {said}")
    ((towers, numbers),) = kept.values()
    rows = {
        clip_id: {item["name"]: item["values"] for item in row["pooled"]}
        for shard in sorted(numbers)
        for clip_id, row in read(run, towers, shard, light=True).items()
        if row["pooled"] is not None
    }
    return pl.DataFrame(
        [
            {"clip_id": clip_id, "video": found.get("video"), "audio": found.get("audio")}
            for clip_id, found in rows.items()
        ],
        schema=_EMPTY.schema,
    )


def models(run: str) -> list[str]:
    """Name the models whose embeddings a run kept, as its configuration does."""
    return sorted(_kept(run))


def _kept(run: str) -> dict[str, tuple[str, set[int]]]:
    """Models to the hash and the shards of what was kept of them."""
    hashes: Mapping[str, str] = record.require(run).get("step_hashes", {})
    split = {
        name.removesuffix("_towers"): own
        for name, own in hashes.items()
        if name.endswith("_towers")
    }
    return {name: (own, found) for name, own in split.items() if (found := shards(run, own))}


def _pooled(tensors: Sequence[Mapping[str, Any]], whole: memoryview) -> list[Row]:
    found, at = [], 0
    for about in tensors:
        data = whole[at : at + about["n_bytes"]]
        at += about["n_bytes"]
        if about["name"] in ("video", "audio"):
            values = _float32(data, about["dtype"]).reshape(-1, about["shape"][-1])
            found.append({"name": about["name"], "values": values.mean(axis=0).tolist()})
    return found


def _float32(data: memoryview, dtype: str) -> npt.NDArray[np.float32]:
    if dtype == "bfloat16":  # the upper half of a float32
        return (np.frombuffer(data, np.uint16).astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(data, np.dtype(dtype)).astype(np.float32)
