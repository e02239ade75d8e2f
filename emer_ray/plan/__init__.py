"""What a run will take, before it is started: preflight, a canary of a few clips, arithmetic.

    emer plan jobs/relabel.toml --set input.manifest=clips.csv --set output.run=runs/first
    emer plan CONFIG --on 8xg6e.2xlarge,4xc7i.8xlarge:spot --rates runs/first/plan.json

The canary goes through one actor of each pool, alone on its machine, so that seconds are those of
the stages; how actors then share cores is played through (`forecast`). What comes out is stored as
`plan.json` in the run directory, and `emer relabel` puts what it measures beside it.
"""

import dataclasses
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from emer_ray import pipeline, relabel, runner, storage
from emer_ray.config import RunConfig
from emer_ray.errors import ConfigError
from emer_ray.media.probe import Extent
from emer_ray.plan import canary, cheaper, prediction, prices
from emer_ray.plan.canary import Canary
from emer_ray.plan.forecast import Shard, Station
from emer_ray.plan.prediction import Load, Prediction, short
from emer_ray.store import index, record

CANARY = "canary"
"""Folder of the run directory in which the canary writes; gone afterwards."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOptions:
    """What is said on the command line rather than in the configuration."""

    canary: int | None = None
    """Clips; null = a twentieth of what is left, 6 to 32."""
    on: Sequence[str] = ()
    """Machines that are not here, e.g. 8xg6e.2xlarge; empty = the cluster or machine at hand."""
    usd_per_hour: float | None = None
    """Price of the cluster at hand."""
    prices: str | None = None
    """Another price table."""
    rates: str | None = None
    """The plan.json of an earlier plan whose rates are taken instead of a canary."""


def plan(
    config: RunConfig,
    options: PlanOptions | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Check what a run needs, try a few clips, and predict its pools, hours and dollars.

    `hours` counts from `emer relabel` to its end, start-up included; `clips_per_s` is clips over
    these hours. Raises what `relabel` would raise before it starts, and BudgetError when every clip
    of the canary fails.
    """
    options = options or PlanOptions()
    table = prices.load(options.prices)
    machines = prices.groups(options.on, table)
    started, busy = time.monotonic(), os.getloadavg()[0]
    task, left = _looked(config)
    look_s = time.monotonic() - started
    say(f"{left.height} clips to do in {len(task.shards)} shards; output and input can be reached")
    connecting = time.monotonic()
    cluster = runner.connect()
    connect_s = time.monotonic() - connecting
    notes = _notes(busy, cluster)
    extents = canary.extents_of(config, left)
    begin = pipeline.Start(run=storage.join(task.run, CANARY), earlier=task.earlier)
    flow = pipeline.steps(config, begin)
    load = Load(
        config=config,
        flow=flow,
        shards=_shards(left, extents),
        baselines=_baseline_shards(config, task, extents),
        look_s=look_s + connect_s,
    )
    hardware = prediction.hardware_of(cluster, machines, options.usd_per_hour)
    if not load.shards:
        tried, predicted = Canary(), prediction.nothing(hardware)
    else:
        tried = (
            canary.rates_of(options.rates)
            if options.rates
            else _tried(config, options.canary, cluster, load, left, extents, say)
        )
        predicted = prediction.predict(load, tried, hardware)
    found = {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "run": task.run,
        "fingerprint": pipeline.fingerprint(config),
        **told(load, tried, predicted),
        "cheaper": cheaper.advices(load, tried, predicted, table) if load.shards else [],
        "prices": {"date": table.date, "source": table.source},
        "notes": notes,
    }
    if load.shards:  # else what was predicted of the run that did them all stays
        text = json.dumps(found, indent=2, ensure_ascii=False)
        storage.write(storage.join(task.run, "plan.json"), text.encode())
    return found


def _notes(busy: float, cluster: runner.Cluster) -> list[str]:
    """Say what makes a canary here a poor witness."""
    if not cluster.local or busy < 0.5 * cluster.cores:
        return []
    return [
        f"other work ran on this machine (load {busy:.1f} on {cluster.cores:g} cores): seconds of "
        f"the canary may be too long"
    ]


def _tried(
    config: RunConfig,
    clips: int | None,
    cluster: runner.Cluster,
    load: Load,
    left: pl.DataFrame,
    extents: Mapping[str, Extent],
    say: Callable[[str], None],
) -> Canary:
    """Run the canary in a folder of its own, of which nothing stays."""
    apart = storage.join(relabel.required(config.output.run, "output.run"), CANARY)
    _clear(apart)  # claims of a canary that was killed would send this one clip by clip
    try:
        pools = pipeline.pools(load.flow, config, cpus=cluster.cpus, gpus=cluster.gpus)
    except ConfigError as error:
        raise ConfigError(
            f"{error}; or take the rates of a canary that ran on such machines, by --rates"
        ) from None
    tables = canary.tables(left, extents, clips, config.output.shard_clips)
    try:
        return canary.tried(config, pools, tables, extents, say)
    finally:
        _clear(apart)


def _clear(folder: str) -> None:
    storage.delete_all(entry.uri for entry in storage.listing(f"{folder}/"))


def _looked(config: RunConfig) -> tuple[relabel.Task, pl.DataFrame]:
    """Check everything that a start checks, and find what is left to do."""
    run = relabel.required(config.output.run, "output.run")
    relabel.required(config.input.manifest, "input.manifest")
    parts = pipeline.fingerprint_parts(config)
    relabel.check_weights(config)
    relabel.check_keys(config)
    relabel.preflight(run)
    if old := record.load(run):
        record.refuse_foreign(run, old, parts, ())
    task = relabel.look(config, relabel.RelabelOptions())
    placed = task.placed
    if task.earlier.run:
        placed = index.with_earlier(placed, task.earlier.run, pipeline.kept_shards(task.earlier))
    left = index.clips_of(placed, task.shards)
    if left.height and not task.earlier.facts:
        relabel.preflight_inputs(left)
    return task, left


def _shards(left: pl.DataFrame, extents: Mapping[str, Extent]) -> list[Shard]:
    """Sum up the clips of each shard."""
    names = left.group_by("shard", maintain_order=True).agg("clip_id")["clip_id"]
    return [canary.summed(clips, extents) for clips in names.to_list()]


def _baseline_shards(
    config: RunConfig, task: relabel.Task, extents: Mapping[str, Extent]
) -> list[Shard]:
    """Say what will be decoded for voice baselines before the run (`relabel`), if anything."""
    listed = task.placed.filter("present").height
    told = record.load(task.run) or {}
    if (
        told.get("baseline_clips")
        or config.input.answers
        or listed < relabel.BASELINE_FROM
        or not pipeline.needs_baselines(config)
    ):
        return []
    clips = min(listed, relabel.BASELINE_CLIPS)
    each = relabel.BASELINE_SHARD
    all_of_them = canary.summed(list(extents), extents)
    return [
        Shard(
            clips=n,
            video_s=all_of_them.video_s / len(extents) * n,
            audio_s=all_of_them.audio_s / len(extents) * n,
        )
        for n in [each] * (clips // each) + [clips % each] * bool(clips % each)
        if extents
    ]


def told(load: Load, tried: Canary, predicted: Prediction) -> dict[str, Any]:
    """Say what was predicted, and of what, as plain values."""
    clips = sum(shard.clips for shard in load.shards)
    length_s = sum(max(shard.video_s, shard.audio_s) for shard in load.shards)
    hardware = predicted.hardware
    return {
        "clips": clips,
        "bottleneck": predicted.bottleneck,
        "clips_per_s": short(clips / predicted.seconds) if clips else 0.0,
        "hours": short(predicted.seconds / 3600) if clips else 0.0,
        "usd": short(predicted.usd),
        "usd_per_hour": short(hardware.usd_per_hour),
        "pools": {
            pool.name: _pool_told(pool, station, load.shards, predicted)
            for pool, station in zip(predicted.pools, predicted.stations, strict=False)
        },
        "seconds": {
            "start": short(predicted.start_s),
            "baselines": short(predicted.baselines_s),
            "work": short(predicted.work_s),
        },
        "shards": len(load.shards),
        "media_hours": short(length_s / 3600),
        "gpu_hours": short(predicted.gpu_s / 3600),
        "hardware": {
            **{name: getattr(hardware, name) for name in ("cpus", "gpus", "nodes", "cores")},
            "machines": [
                f"{group.count}x{group.name}" + ":spot" * group.spot + ":head" * group.head
                for group in hardware.groups
            ],
        },
        "canary": dataclasses.asdict(tried)
        | {
            "pools": {
                name: {
                    "load_s": pool.load_s,
                    "load_cpu_s": pool.load_cpu_s,
                    "steps": {
                        step: {"wall": dataclasses.asdict(wall), "cpu": dataclasses.asdict(cpu)}
                        for step, (wall, cpu) in pool.steps.items()
                    },
                }
                for name, pool in tried.pools.items()
            }
        },
    }


def _pool_told(
    pool: pipeline.Pool, station: Station, shards: Sequence[Shard], predicted: Prediction
) -> dict[str, Any]:
    clips = sum(shard.clips for shard in shards)
    capacity = station.clips_per_s(shards)
    cpu_s = sum(station.cpu.of(shard) for shard in shards)
    return {
        "steps": [step.name for step in pool.steps],
        "actors": station.actors,
        "cpus": pool.cpus,
        "gpus": pool.gpus,
        "clips_per_s": short(capacity),
        "clips_per_s_per_actor": short(capacity / station.actors) if capacity else None,
        "cpu_s_per_clip": short(cpu_s / clips),
        "busy_s": short(predicted.busy_s[pool.name]),
        "busy_share": short(predicted.busy_share(pool.name)),
        "why": pool.reason,
    }
