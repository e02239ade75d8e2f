"""A few clips through one actor of each pool: what their calls cost, fitted to rates.

Each pool is alone on its machine meanwhile, so that seconds are those of the stages. The clips
stand for all lengths, with sound and without; that is read off file headers.
"""

import json
import random
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from emer_ray import pipeline, stages, storage, trial
from emer_ray.config import RunConfig
from emer_ray.errors import BudgetError, ConfigError, StorageError
from emer_ray.media import probe
from emer_ray.media.probe import Extent
from emer_ray.plan import forecast
from emer_ray.plan.forecast import Rate, Shard
from emer_ray.records import Clip
from emer_ray.store import index

SHARE: Final = 0.05
"""Of the clips go into the canary, within these bounds."""
LEAST: Final = 6
MOST: Final = 32

PROBED: Final = 1_000
"""Clips of which the headers are read."""
PROBED_AT_A_TIME: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolRates:
    """What a canary measured of a pool."""

    load_s: float
    load_cpu_s: float
    steps: Mapping[str, tuple[Rate, Rate]]
    """Wall and CPU seconds by step, `trial.TRAVEL` among them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Canary:
    """What a canary found; nothing, where there was nothing to try."""

    clips: int = 0
    failed: Mapping[str, int] = field(default_factory=dict)
    """Failed clips by stage and kind."""
    pools: Mapping[str, PoolRates] = field(default_factory=dict)
    usd_per_clip: float | None = None
    """Of answers, where they have a price."""


def tried(
    config: RunConfig,
    pools: Sequence[pipeline.Pool],
    tables: Sequence[pa.Table],
    extents: Mapping[str, Extent],
    say: Callable[[str], None],
) -> Canary:
    """Run tables through one actor of each pool, pool after pool.

    Raises BudgetError when every clip fails.
    """
    clips = sum(table.num_rows for table in tables)
    rates: dict[str, PoolRates] = {}
    answered = receipts = tables
    for pool in pools:
        say(f"canary: {clips} clips through {pool.name}")
        alive = [_alive(table, extents) for table in receipts]
        found = trial.tried(pool, receipts)
        rates[pool.name] = _fitted(found, alive)
        answered, receipts = receipts, found.tables
    failed = _failed(receipts)
    if sum(failed.values()) == clips:
        raise BudgetError(
            f"every clip of the canary failed ({_named(failed)}), as a run's would; "
            f"`emer relabel` with --set input.limit=10 and `emer show` tell why"
        )
    dollars = [
        sum(answer["usd"] or 0.0 for answer in row["answers"] or ())
        for table in answered
        for row in table.select(["answers"]).to_pylist()
    ]
    priced = any(model.price for model in config.models.values())
    return Canary(
        clips=clips,
        failed=failed,
        pools=rates,
        usd_per_clip=statistics.fmean(dollars) if priced else None,
    )


def tables(
    left: pl.DataFrame, extents: Mapping[str, Extent], clips: int | None, shard_clips: int
) -> list[pa.Table]:
    """Choose clips that stand for all: the middle one of each of so many equal strata, ordered by
    whether there is something to see, to hear, and by length.

    The first table warms up, so it has every track. Of the others, half have one clip and half are
    in tables as large as shards, so that what a call costs can be told from what a clip costs.
    """

    def place(name: str) -> tuple[bool, bool, float, str]:
        found = extents[name]
        length_s = max(found.video_s, found.audio_s)
        return found.video_s > 0, found.audio_s > 0, length_s, name

    ordered = sorted(left["clip_id"].to_list(), key=place)
    wanted = min(MOST, max(LEAST, round(SHARE * left.height))) if clips is None else clips
    wanted = min(wanted, left.height)
    chosen = [ordered[int((k + 0.5) * len(ordered) / wanted)] for k in range(wanted)]
    richest = [name for name in chosen if place(name)[:2] == place(chosen[-1])[:2]]
    first = richest[len(richest) // 2]
    chosen.remove(first)
    singles, grouped = chosen[::2], chosen[1::2]
    groups = [grouped[at : at + shard_clips] for at in range(0, len(grouped), shard_clips)]
    shard_of = {
        name: number
        for number, group in enumerate([[first], *([name] for name in singles), *groups])
        for name in group
    }
    placed = (
        left.filter(pl.col("clip_id").is_in([first, *chosen]))
        .with_columns(shard=pl.col("clip_id").replace_strict(shard_of, return_dtype=pl.Int32))
        .with_columns(shard_clips=pl.len().over("shard").cast(pl.Int32))
        .sort("shard", maintain_order=True)
    )
    return index.shard_tables(placed)


def summed(clip_ids: Sequence[str], extents: Mapping[str, Extent]) -> Shard:
    """Sum up what some clips have to see and to hear."""
    mine = [extents[name] for name in clip_ids]
    return Shard(
        clips=len(mine),
        video_s=sum(extent.video_s for extent in mine),
        audio_s=sum(extent.audio_s for extent in mine),
    )


def _alive(table: pa.Table, extents: Mapping[str, Extent]) -> Shard:
    """Sum up the rows that have not failed."""
    return summed(table.filter(pc.is_null(table["kind"]))["clip_id"].to_pylist(), extents)


def _fitted(found: trial.Trial, alive: Sequence[Shard]) -> PoolRates:
    """Fit the rates of a pool's steps; what the first table took beyond them is part of loading."""
    fitted: dict[str, tuple[Rate, Rate]] = {}
    extra_s = extra_cpu_s = 0.0
    for number, first in enumerate(found.calls[0]):
        calls = [(table, calls[number]) for table, calls in zip(alive, found.calls, strict=True)]
        later = [(table, call) for table, call in calls[1:] or calls if table.clips]
        wall = forecast.fitted([(table, call.wall_s) for table, call in later])
        cpu = forecast.fitted([(table, call.cpu_s) for table, call in later])
        fitted[first.step] = (wall, cpu)
        extra_s += max(0.0, first.wall_s - wall.of(alive[0]))
        extra_cpu_s += max(0.0, first.cpu_s - cpu.of(alive[0]))
    return PoolRates(
        load_s=found.load_s + extra_s, load_cpu_s=found.load_cpu_s + extra_cpu_s, steps=fitted
    )


def _failed(tables: Sequence[pa.Table]) -> dict[str, int]:
    ends = [
        f"{row['stage']} as {row['kind']}"
        for table in tables
        for row in table.select(["stage", "kind"]).to_pylist()
        if row["kind"] is not None
    ]
    return dict(Counter(ends))


def _named(failed: Mapping[str, int]) -> str:
    return ", ".join(f"{count} in {end}" for end, count in sorted(failed.items()))


def rates_of(uri: str) -> Canary:
    """Take the rates of an earlier plan."""
    try:
        found = json.loads(storage.read(uri))["canary"]
        pools = {
            name: PoolRates(
                load_s=pool["load_s"],
                load_cpu_s=pool["load_cpu_s"],
                steps={
                    step: (Rate(**told["wall"]), Rate(**told["cpu"]))
                    for step, told in pool["steps"].items()
                },
            )
            for name, pool in found["pools"].items()
        }
        return Canary(
            clips=found["clips"],
            failed=found["failed"],
            pools=pools,
            usd_per_clip=found["usd_per_clip"],
        )
    except StorageError as error:
        raise ConfigError(f"--rates {error}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"--rates {uri}: no plan ({type(error).__name__}: {error}); give the plan.json of an "
            f"earlier `emer plan`"
        ) from None


def extents_of(config: RunConfig, left: pl.DataFrame) -> dict[str, Extent]:
    """Read the headers of at most `PROBED` clips; the others draw from what was found.

    Where the manifest says how long a window is, that is its length in any case.
    """
    clips = {row["clip_id"]: stages.clip_of(row) for row in left.iter_rows(named=True)}
    draw = random.Random(config.input.seed)  # noqa: S311 - repeatable, not secret
    looked_at = draw.sample(list(clips), min(PROBED, len(clips)))
    chunks = [
        [clips[name] for name in looked_at[at : at + PROBED_AT_A_TIME]]
        for at in range(0, len(looked_at), PROBED_AT_A_TIME)
    ]
    found = dict(
        zip(
            looked_at,
            trial.mapped(partial(probe.extents, settings=config.media), chunks),
            strict=True,
        )
    )
    known = {name: extent for name, extent in found.items() if extent is not None}
    typical = list(known.values()) or [Extent(video_s=0.0, audio_s=0.0)]
    return {
        name: known.get(name) or _windowed(draw.choice(typical), clip)
        for name, clip in clips.items()
    }


def _windowed(other: Extent, clip: Clip) -> Extent:
    """Take the tracks of another clip, and as much of them as the manifest says."""
    if clip.end_s is None:
        return other
    seconds = clip.end_s - (clip.start_s or 0.0)
    return Extent(
        video_s=seconds if other.video_s else 0.0, audio_s=seconds if other.audio_s else 0.0
    )
