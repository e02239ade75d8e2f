"""The main job: explain every clip of a manifest; resumes by itself.

    emer relabel jobs/relabel.toml --set input.manifest=clips.csv --set output.run=s3://bucket/run

What comes out is a run directory (see `emer_ray.store`). Starting again on the same directory does
what is left and nothing else.
"""

import dataclasses
import hashlib
import logging
import platform
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import polars as pl
import pyarrow as pa

from emer_ray import __version__, manifest, pipeline, runner, stages, storage, watch, weights
from emer_ray.config import RunConfig
from emer_ray.errors import BudgetError, ConfigError, ModelError
from emer_ray.reason.baselines import Baselines, voice_baselines
from emer_ray.records import Measure
from emer_ray.store import index, lease, parts, record

log = logging.getLogger(__name__)

WAVE_SHARDS = 65_536
"""Shards of one Ray Data plan; a larger run is several plans, so that the driver stays small."""

BASELINE_CLIPS = 32
"""Clips whose voices are read before the run, when it has at least `BASELINE_FROM`."""
BASELINE_FROM = 20

ALIKE_CLIPS = 50
"""A run whose first clips all fail alike, this many, is stopped: the fault is not in the clips."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a run is, for whoever shows it."""

    clips: int
    ok: int
    failed: int
    skipped: int
    started: float
    """`time.monotonic` of the first shard's submission."""

    @property
    def done_now(self) -> int:
        return self.ok + self.failed - self.skipped

    def line(self) -> str:
        """Say it in one line."""
        seconds = max(1e-9, time.monotonic() - self.started)
        rate = self.done_now / seconds
        left = self.clips - self.ok - self.failed
        eta = f", about {_duration(left / rate)} left" if rate and left else ""
        return (
            f"{self.ok + self.failed} of {self.clips} clips: {self.ok} ok, {self.failed} failed; "
            f"{rate:.2f} clips/s{eta}"
        )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"{hours} h {minutes} min"
        if hours
        else f"{minutes} min {rest} s"
        if minutes
        else f"{rest} s"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RelabelOptions:
    """What is said on the command line rather than in the configuration."""

    retry_failed: Sequence[str] | None = None
    """Failure kinds to try again; empty = all; None = none."""
    accept: Sequence[str] = ()
    take_over: bool = False


def relabel(
    config: RunConfig,
    options: RelabelOptions | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> dict[str, Any]:
    """Explain every clip of `config.input.manifest` into `config.output.run`.

    Returns the totals of the directory (`run clips ok failed skipped seconds`). Raises BudgetError
    after the run when more than `budget.failed_share` of its clips failed.
    """
    options = options or RelabelOptions()
    started = time.monotonic()
    run = _required(config.output.run, "output.run")
    _required(config.input.manifest, "input.manifest")
    fingerprint_parts = pipeline.fingerprint_parts(config)
    _check_weights(config)
    _check_keys(config)
    rows = pl.DataFrame(pl.from_arrow(manifest.load(config.input)))
    preflight(run)
    with lease.held(run, take_over=options.take_over):
        return _relabel(config, options, on_progress, rows, fingerprint_parts, started)


def _relabel(
    config: RunConfig,
    options: RelabelOptions,
    on_progress: Callable[[Progress], None],
    rows: pl.DataFrame,
    fingerprint_parts: Mapping[str, Any],
    started: float,
) -> dict[str, Any]:
    run = cast(str, config.output.run)
    old = record.load(run)
    accepted = record.refuse_foreign(run, old, fingerprint_parts, options.accept) if old else []
    earlier = _earlier(config)
    flow = pipeline.steps(config, pipeline.Start(run=run, earlier=earlier))
    clips_per_shard, shard_reason = pipeline.shard_clips(config, flow)
    before = index.load_manifest(run)
    placed = index.assign_shards(rows, before, clips_per_shard)
    outcomes = index.outcomes(run)
    retrying = options.retry_failed is not None
    if options.retry_failed is not None:
        placed = index.reassign_failed(placed, outcomes, options.retry_failed, clips_per_shard)
    if before is None or not placed.equals(before):
        index.save_manifest(run, placed)
    shards = index.unfinished(placed, outcomes)
    counts = index.counts(placed, outcomes)
    progress = Progress(
        clips=counts["clips"],
        ok=counts["ok"],
        failed=counts["failed"],
        skipped=counts["ok"] + counts["failed"],
        started=time.monotonic(),
    )
    journal: dict[str, Any] = {
        **(old or {}),
        "emer_ray": __version__,
        "fingerprint": pipeline.fingerprint(config),
        "fingerprint_parts": fingerprint_parts,
        "accepted": sorted({*(old or {}).get("accepted", []), *accepted}),
        "config": config.model_dump(mode="json"),
        "versions": pipeline.versions(),
        "step_hashes": pipeline.step_hashes(config),
        "counts": counts,
    }
    start: dict[str, Any] = {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "skipped": progress.skipped,
        "shards": len(shards),
        "choices": {"output.shard_clips": {"value": clips_per_shard, "why": shard_reason}},
    }
    journal["starts"] = [*(old or {}).get("starts", []), start]
    if shards:
        _drop_strangers(run, shards, journal["fingerprint"], outcomes)
        cluster = runner.connect()
        start["cluster"] = dataclasses.asdict(cluster)
        start["data_context"] = runner.data_context()
        baselines = _baselines(config, run, placed, old, cluster)
        journal["baselines"] = {name: list(found) for name, found in baselines.items()}
        usd_left = _usd_left(config, outcomes)
        begin = pipeline.Start(run=run, baselines=baselines, earlier=earlier, usd_left=usd_left)
        flow = pipeline.steps(config, begin)
        pools = pipeline.pools(flow, config, cpus=cluster.cpus, gpus=cluster.gpus)
        start["choices"] |= {
            f"pools.{pool.name}": {
                "value": f"{pool.min_actors} to {pool.max_actors} actors of {pool.cpus:g} CPUs, "
                f"{pool.gpus:g} GPUs",
                "why": pool.reason,
                "steps": [step.name for step in pool.steps],
            }
            for pool in pools
        }
        progress = dataclasses.replace(progress, started=time.monotonic())
        in_flight = pipeline.in_flight(config, pools)
        start["choices"]["output.in_flight"] = {"value": in_flight, "why": "shards under way"}
        clips = placed
        if earlier.run:
            clips = index.with_earlier(placed, earlier.run, pipeline.kept_shards(earlier))
        if earlier.run:
            start["reused"] = {
                "run": earlier.run,
                "steps": sorted(earlier.steps),
                "clips": clips.filter("present")["earlier_part"].count(),
                "embedded": clips.filter("present")["earlier_shard"].count(),
            }
        record.save(run, journal)
        receipts = _receipts(pools, clips, shards, in_flight)
        try:
            with watch.stoppable(run, config.budget.drain_s):
                _follow(config, run, outcomes, receipts, progress, on_progress, retrying)
        finally:
            outcomes = index.outcomes(run)
            counts = index.counts(placed, outcomes)
            start["seconds"] = round(time.monotonic() - started, 3)
            journal["counts"] = counts
            journal["usd"] = _usd(outcomes)
            record.save(run, journal)
    seconds = time.monotonic() - started
    start["seconds"] = round(seconds, 3)
    record.save(run, journal)
    summary = {
        "run": run,
        **{name: counts[name] for name in ("clips", "ok", "failed")},
        "skipped": progress.skipped,
        "seconds": round(seconds, 3),
    }
    share = counts["failed"] / max(1, counts["clips"])
    if share > config.budget.failed_share:
        raise BudgetError(
            f"{run}: {counts['failed']} of {counts['clips']} clips failed ({share:.0%}), more than "
            f"budget.failed_share = {config.budget.failed_share:g}; every row is stored, "
            f"`emer status {run}` shows the kinds"
        )
    return summary


def _earlier(config: RunConfig) -> stages.Earlier:
    """Find what another run has answered already; raises ConfigError where that is nothing."""
    if config.input.answers is None:
        return stages.Earlier()
    hashes = record.require(config.input.answers).get("step_hashes", {})
    return pipeline.taken_over(config, hashes)


def _usd(outcomes: pl.DataFrame) -> float | None:
    """Sum what the stored rows cost; null where no price is known."""
    return float(outcomes["usd"].sum()) if outcomes["usd"].count() else None


def _usd_left(config: RunConfig, outcomes: pl.DataFrame) -> float | None:
    """Tell what the budget still allows, after what the stored rows cost."""
    if config.budget.usd is None:
        return None
    left = config.budget.usd - (_usd(outcomes) or 0.0)
    if left <= 0:
        raise BudgetError(
            f"budget.usd = {config.budget.usd:g} is spent ({_usd(outcomes):.4f} USD); raise it to "
            f"go on, every row is stored"
        )
    return left


def preflight(run: str) -> None:
    """Write, read and delete one small object, before anything expensive."""
    uri = storage.join(run, "preflight.json")
    storage.write(uri, b"{}")
    storage.read(uri)
    storage.delete(uri)


def _required(value: str | None, key: str) -> str:
    if value is None:
        raise ConfigError(f"{key} is not set; write it into the configuration or add --set {key}=…")
    return value


def _check_weights(config: RunConfig) -> None:
    if pipeline.needs_baselines(config) and not weights.locate("embedded"):
        raise ModelError(
            f"embedded weights: none in {weights.cache_dir()}; "
            f"run `emer models fetch embedded` first"
        )


def _check_keys(config: RunConfig) -> None:
    """Refuse a run whose endpoints want a key that the environment does not hold."""
    for name in {step.model for step in pipeline.recipe_of(config).steps}:
        if config.models[name].backend == "openai":
            pipeline.openai_backend().OpenAIOptions.of(config.models[name]).key()


def _drop_strangers(
    run: str, shards: Sequence[int], fingerprint: str, outcomes: pl.DataFrame
) -> None:
    """Delete what another fingerprint left of shards that are run again after `--accept`."""
    again = outcomes.filter(pl.col("shard").is_in(list(shards))).select("part", "shard").unique()
    for part, shard in again.iter_rows():
        if parts.fingerprint_of(part) != fingerprint[:12]:
            parts.drop(run, part, shard)


def _receipts(
    pools: Sequence[pipeline.Pool], placed: pl.DataFrame, shards: Sequence[int], in_flight: int
) -> Iterator[pa.Table]:
    for first in range(0, len(shards), WAVE_SHARDS):
        wave = index.clips_of(placed, shards[first : first + WAVE_SHARDS])
        yield from runner.run(pools, index.shard_tables(wave), in_flight=in_flight)


def _follow(
    config: RunConfig,
    run: str,
    outcomes: pl.DataFrame,
    receipts: Iterator[pa.Table],
    progress: Progress,
    on_progress: Callable[[Progress], None],
    retrying: bool,
) -> None:
    """Collect receipts, roll snapshots, show progress, watch the budget."""
    arrived: list[pl.DataFrame] = [outcomes]
    since = 0
    first: list[pl.DataFrame] = []
    try:
        with watch.unstalled(run, config.budget.stall_s, runner.actors) as alive:
            for table in receipts:
                alive()
                rows = pl.DataFrame(pl.from_arrow(table))
                arrived.append(rows)
                since += rows.height
                ok = rows.filter(pl.col("outcome") == "ok").height
                progress = dataclasses.replace(
                    progress, ok=progress.ok + ok, failed=progress.failed + rows.height - ok
                )
                on_progress(progress)
                if not retrying and sum(seen.height for seen in first) < ALIKE_CLIPS:
                    first.append(rows)
                    _refuse_alike(run, pl.concat(first))
                _stop_early(config, run, progress)
                if since >= config.output.snapshot_clips:
                    arrived = [_merged(arrived)]
                    index.save_snapshot(run, arrived[0])
                    since = 0
    finally:
        if since:
            index.save_snapshot(run, _merged(arrived))


def _merged(arrived: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """One row per clip and part: a shard that was run again gives its receipts again."""
    return pl.concat(arrived).unique(["clip_id", "part"], keep="last", maintain_order=True)


def _refuse_alike(run: str, first: pl.DataFrame) -> None:
    """Stop a run whose first clips all failed in one stage for one reason."""
    ends = first.select("stage", "kind").unique().rows()
    if first.height < ALIKE_CLIPS or len(ends) > 1 or ends[0] == (None, None):
        return
    stage, kind = ends[0]
    raise BudgetError(
        f"{run}: the first {first.height} clips all failed in {stage} as {kind!r}; "
        f"stopped, because the fault is not in the clips. "
        f"`emer show {run} {first['clip_id'][0]}` tells one of them"
    )


def _stop_early(config: RunConfig, run: str, progress: Progress) -> None:
    done = progress.ok + progress.failed
    over = progress.failed > config.budget.failed_share * done
    if config.budget.stop_early and done >= ALIKE_CLIPS and over:
        raise BudgetError(
            f"{run}: {progress.failed} of {done} clips failed; stopped early, as budget.stop_early "
            f"asks. Starting again resumes"
        )


def _baselines(
    config: RunConfig,
    run: str,
    placed: pl.DataFrame,
    old: Mapping[str, Any] | None,
    cluster: runner.Cluster,
) -> Baselines:
    """Read voice baselines off some of the run's own clips, once for the life of the directory."""
    if config.input.answers and "baselines" not in (old or {}):
        # equal answers need equal baselines
        old = record.require(config.input.answers)
    if old and "baselines" in old:
        return {name: (m, s, n) for name, (m, s, n) in old["baselines"].items()}
    listed = placed.filter("present")
    if not pipeline.needs_baselines(config) or listed.height < BASELINE_FROM:
        return {}
    drawn = sorted(
        listed["clip_id"].to_list(),
        key=lambda clip_id: hashlib.sha256(f"{config.input.seed}:{clip_id}".encode()).digest(),
    )[:BASELINE_CLIPS]
    log.info("reading voice baselines off %d clips", len(drawn))
    apart = pipeline.Start(run=storage.join(run, "calibration"))
    flow = pipeline.steps(config, apart)[:2]
    pools = pipeline.pools(flow, config, cpus=cluster.cpus, gpus=cluster.gpus)
    sample = listed.filter(pl.col("clip_id").is_in(drawn)).with_columns(
        shards=pl.concat_list(pl.int_range(pl.len()).cast(pl.Int32) // 4)
    )
    shards = sample["shards"].list.last().unique().to_list()
    tables = index.shard_tables(index.clips_of(sample, shards))
    measures: dict[str, list[Measure]] = {}
    for table in runner.run(pools, tables, in_flight=len(tables)):
        for row in table.select(["clip_id", "measures"]).to_pylist():
            measures[row["clip_id"]] = [Measure(**found) for found in row["measures"] or ()]
    return voice_baselines([measures[clip_id] for clip_id in sorted(measures)])
