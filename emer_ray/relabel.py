"""The main job: explain every clip of a manifest; resumes by itself.

    emer relabel jobs/relabel.toml --set input.manifest=clips.csv --set output.run=s3://bucket/run

What comes out is a run directory (see `emer_ray.store`). Starting again on the same directory does
what is left and nothing else.
"""

import dataclasses
import functools
import gc
import hashlib
import logging
import platform
import socket
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, cast

import polars as pl
import pyarrow as pa

from emer_ray import (
    __version__,
    cost,
    manifest,
    phases,
    pipeline,
    runner,
    stages,
    storage,
    watch,
    weights,
)
from emer_ray.config import RunConfig
from emer_ray.errors import BudgetError, ConfigError, ModelError, StorageError
from emer_ray.reason.baselines import Baselines, voice_baselines
from emer_ray.records import Measure
from emer_ray.store import claims, drain, embeddings, index, lease, parts, record

log = logging.getLogger(__name__)

WAVE_SHARDS = 65_536
"""Shards of one Ray Data plan; a larger run is several plans, so that the driver stays small."""

BASELINE_CLIPS = 32
"""Clips whose voices are read before the run, when it has at least `BASELINE_FROM`."""
BASELINE_FROM = 20
BASELINE_SHARD = 4

_BASELINE_KEYS = ("baselines", "baseline_clips")

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
    busiest: tuple[str, float] | None = None
    """The pool that works most of its time, and for what share of it."""
    usd: float | None = None
    """What answers cost so far, earlier starts included; null = no price is known."""
    phase: str = ""
    """Which plan these numbers are of, where a run has two."""

    @property
    def done_now(self) -> int:
        return self.ok + self.failed - self.skipped

    def line(self) -> str:
        """Say it in one line."""
        seconds = max(1e-9, time.monotonic() - self.started)
        rate = self.done_now / seconds
        done = self.ok + self.failed
        left = self.clips - done
        eta = f", about {_duration(left / rate)} left" if rate and left else ""
        busiest = f"; {self.busiest[0]} busy {self.busiest[1] * 100:.0f} %" if self.busiest else ""
        usd = ""
        if self.usd is not None:
            usd = f"; {self.usd:.2f} USD"
            usd += f" of about {self.usd / done * self.clips:.2f}" if done and left else ""
        return (
            f"{self.phase}{done} of {self.clips} clips: {self.ok} ok, {self.failed} failed; "
            f"{rate:.2f} clips/s{eta}{busiest}{usd}"
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
    run = required(config.output.run, "output.run")
    required(config.input.manifest, "input.manifest")
    fingerprint_parts = pipeline.fingerprint_parts(config)
    check_weights(config)
    check_keys(config)
    preflight(run)
    with _imports_uncollected(), lease.held(run, take_over=options.take_over):
        old = record.load(run) or {}
        accepted = record.refuse_foreign(run, old, fingerprint_parts, options.accept) if old else []
        task = look(config, options)
        if task.unsaved:
            embeddings.forget(run, task.changed)
            index.save_manifest(run, task.placed)
        journal = {
            **old,
            "emer_ray": __version__,
            "fingerprint": pipeline.fingerprint(config),
            "fingerprint_parts": fingerprint_parts,
            "accepted": sorted({*old.get("accepted", []), *accepted}),
            "config": config.model_dump(mode="json"),
            "versions": pipeline.versions(),
            "step_hashes": pipeline.step_hashes(config),
            "starts": [*old.get("starts", []), _start(task, started)],
        }
        if task.shards:
            _explain(config, task, journal, on_progress, started)
        else:
            _close(journal, task, task.outcomes, started)
    return _summary(config, task, journal)


@contextmanager
def _imports_uncollected() -> Iterator[None]:
    """Spare the collector half a million objects of imported modules at each of its rounds."""
    gc.collect()  # what is garbage now would stay, with all that it holds
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What a start finds in its directory, and what is left to do."""

    run: str
    placed: pl.DataFrame
    """The manifest with the shards of every clip."""
    outcomes: pl.DataFrame
    """What is stored already."""
    shards: list[int]
    """Shards to run."""
    clips_per_shard: int
    why: str
    earlier: stages.Earlier
    done: Progress
    retrying: bool
    unsaved: bool
    """The manifest, or its shards, are not yet what the directory holds."""
    changed: list[int]
    """Shards whose media differ from what the directory holds."""


def look(config: RunConfig, options: RelabelOptions) -> Task:
    """Find what is left to do; clips get their shards. Nothing is stored."""
    run = cast(str, config.output.run)
    earlier = _earlier(config)
    flow = pipeline.steps(config, pipeline.Start(run=run, earlier=earlier))
    clips_per_shard, why = pipeline.shard_clips(config, flow)
    with ThreadPoolExecutor(2) as pool:  # a million clips, or a far store, take seconds each
        stored = pool.submit(index.outcomes, run)
        known = pool.submit(index.load_manifest, run)
        rows = pl.DataFrame(pl.from_arrow(manifest.load(config.input)))
        before = known.result()
        placed = index.assign_shards(rows, before, clips_per_shard)
        outcomes = stored.result()
    if options.retry_failed is not None:
        placed = index.reassign_failed(placed, outcomes, options.retry_failed, clips_per_shard)
    if config.output.phases == 2:
        phases.cut(flow, config, run)  # refuses what cannot be cut
    counts, shards = index.standing(placed, outcomes)
    same = placed is before
    done = Progress(
        clips=counts["clips"],
        ok=counts["ok"],
        failed=counts["failed"],
        skipped=counts["ok"] + counts["failed"],
        started=time.monotonic(),
    )
    return Task(
        run=run,
        placed=placed,
        outcomes=outcomes,
        shards=shards,
        clips_per_shard=clips_per_shard,
        why=why,
        earlier=earlier,
        done=done,
        retrying=options.retry_failed is not None,
        unsaved=not same,
        changed=[] if same or before is None else index.changed_shards(placed, before),
    )


def _start(task: Task, started: float) -> dict[str, Any]:
    """Begin the record of one start: where, when, and what was found."""
    return {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "skipped": task.done.skipped,
        "shards": len(task.shards),
        "choices": {"output.shard_clips": {"value": task.clips_per_shard, "why": task.why}},
        "resumed_s": round(time.monotonic() - started, 3),
    }


def _explain(
    config: RunConfig,
    task: Task,
    journal: dict[str, Any],
    on_progress: Callable[[Progress], None],
    started: float,
) -> None:
    """Run the shards that are left; however it ends, run.json says how far it came."""
    run, start = task.run, journal["starts"][-1]
    left = index.clips_of(task.placed, task.shards)
    if not task.earlier.facts:
        preflight_inputs(left)
    _drop_strangers(run, task.shards, journal["fingerprint"], task.outcomes)
    connecting = time.monotonic()
    cluster = runner.connect()
    connected = time.monotonic() - connecting
    start["cluster"] = dataclasses.asdict(cluster)
    start["data_context"] = runner.data_context()
    baselines = _baselines(config, task, journal, cluster)
    usd_left = _usd_left(config, task.outcomes)
    begin = pipeline.Start(run=run, baselines=baselines, earlier=task.earlier, usd_left=usd_left)
    flow = pipeline.steps(config, begin)
    plans = [_Plan(flow=flow, shards=task.shards)]
    if config.output.phases == 2:
        cut = phases.cut(flow, config, run)
        first = _Plan(flow=cut.encode, shards=cut.left(run, task.shards))
        plans = [first, _Plan(flow=cut.reason, shards=task.shards)]
        start["encoded"] = {"clips": index.clips_of(task.placed, first.shards).height}
    staffed = [_staffed(plan, config, cluster) for plan in plans]
    for pools, in_flight in staffed:
        start["choices"] |= _choices(pools, in_flight)
    clips = task.placed
    if task.earlier.run:
        kept = pipeline.kept_shards(task.earlier)
        clips = index.with_earlier(task.placed, task.earlier.run, kept)
        start["reused"] = {
            "run": task.earlier.run,
            "steps": sorted(task.earlier.steps),
            "clips": clips.filter("present")["earlier_part"].count(),
            "embedded": clips.filter("present")["earlier_shard"].count(),
        }
    record.save(run, journal)

    def submitted() -> None:
        seconds = time.monotonic() - started - connected
        start.setdefault("submitted_s", round(seconds, 3))

    account = cost.Account(
        {pool.name: (pool.cpus, pool.gpus) for pools, _ in staffed for pool in pools},
        clips=left.height,
    )

    def spent() -> None:
        start["cost"] = account.record(time.monotonic() - started, runner.ended())
        journal["cost"] = cost.total(journal["starts"])

    def keep() -> None:
        spent()
        record.save(run, journal)

    *before, receipts = (
        _receipts(pools, clips, plan.shards, in_flight, submitted, account)
        for plan, (pools, in_flight) in zip(plans, staffed, strict=True)
    )
    try:
        with watch.stoppable(run, config.budget.drain_s):
            for found in before:
                _encode(config, task, start["encoded"]["clips"], found, on_progress, account)
                start["encoded"]["until_s"] = round(time.monotonic() - started, 3)
                keep()
            if not (before and drain.requested(run)):
                _follow(config, task, receipts, on_progress, account, keep)
    finally:
        spent()
        _close(journal, task, index.outcomes(run), started)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """A flow, and the shards that go through it."""

    flow: list[pipeline.Step]
    shards: list[int]


def _staffed(
    plan: _Plan, config: RunConfig, cluster: runner.Cluster
) -> tuple[list[pipeline.Pool], int]:
    """Staff a plan, with the number of shards under way."""
    pools = pipeline.pools(plan.flow, config, cpus=cluster.cpus, gpus=cluster.gpus)
    return pools, pipeline.in_flight(config, pools)


def _choices(pools: Sequence[pipeline.Pool], in_flight: int) -> dict[str, Any]:
    """Say how the run is staffed, and why."""
    staffed = {
        f"pools.{pool.name}": {
            "value": f"{pool.min_actors} to {pool.max_actors} actors of {pool.cpus:g} CPUs, "
            f"{pool.gpus:g} GPUs",
            "why": pool.reason,
            "steps": [step.name for step in pool.steps],
        }
        for pool in pools
    }
    return staffed | {"output.in_flight": {"value": in_flight, "why": "shards under way"}}


def _close(journal: dict[str, Any], task: Task, outcomes: pl.DataFrame, started: float) -> None:
    """Store what came of a start."""
    journal["counts"] = index.counts(task.placed, outcomes)
    journal["usd"] = _usd(outcomes)
    start = journal["starts"][-1]
    start["seconds"] = round(time.monotonic() - started, 3)
    ended = journal["counts"]["ok"] + journal["counts"]["failed"]
    done = ended - task.done.skipped
    if done and (predicted := record.plan(task.run, journal["fingerprint"])):
        start["plan"] = cost.beside(predicted, start, done)
    record.save(task.run, journal)
    if ended == journal["counts"]["clips"]:
        claims.clear(task.run)


def _summary(config: RunConfig, task: Task, journal: Mapping[str, Any]) -> dict[str, Any]:
    """Give the totals of the directory; raises BudgetError where too many clips failed."""
    counts = journal["counts"]
    share = counts["failed"] / max(1, counts["clips"])
    if share > config.budget.failed_share:
        raise BudgetError(
            f"{task.run}: {counts['failed']} of {counts['clips']} clips failed ({share:.0%}), more "
            f"than budget.failed_share = {config.budget.failed_share:g}; every row is stored, "
            f"`emer status {task.run}` shows the kinds"
        )
    return {
        "run": task.run,
        **{name: counts[name] for name in ("clips", "ok", "failed")},
        "skipped": task.done.skipped,
        "seconds": journal["starts"][-1]["seconds"],
    }


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


_PLACE = r"^(s3://[^/]+/(?:[^/]+/)?|https?://[^/]+/|/)"
"""Where media lie, as far as rights may differ: bucket and first folder, host, or this machine."""
_PLACES = 64
_PLACE_TRIES = 3
"""Clips of a place that are tried: one may be missing, and S3 calls that denied to some."""


def preflight_inputs(clips: pl.DataFrame) -> None:
    """Read a byte of a clip in every place that media come from, before anything expensive.

    A place whose clips may not be read, or that is not there, is a StorageError; a clip that is
    missing is a row.
    """
    files = clips.filter(pl.col("fps").is_null()).select("video_uri")
    uris = pl.concat([files["video_uri"], clips["audio_uri"].rename("video_uri")]).drop_nulls()
    places = (
        pl.DataFrame({"uri": uris, "place": uris.str.extract(_PLACE)})
        .group_by("place", maintain_order=True)
        .agg(pl.col("uri").head(_PLACE_TRIES))
        .head(_PLACES)
    )
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda row: _reach(*row), places.rows()))


def _reach(place: str, uris: Sequence[str]) -> None:
    """Read a byte; raises StorageError when the place, rather than a clip, cannot be read."""
    refused: StorageError | None = None
    for uri in uris:
        try:
            storage.read_range(uri, 0, 1)
        except StorageError as error:
            if error.kind != "missing":
                refused = refused or error
            elif storage.is_s3(place):
                next(storage.listing(place), None)  # a missing bucket is no missing clip
                return
        else:
            return
    if refused is not None:
        raise refused


def required(value: str | None, key: str) -> str:
    """Give what the configuration says of a key; raises ConfigError where it says nothing."""
    if value is None:
        raise ConfigError(f"{key} is not set; write it into the configuration or add --set {key}=…")
    return value


def check_weights(config: RunConfig) -> None:
    """Refuse a run whose embedded weights are not there."""
    if pipeline.needs_baselines(config) and not weights.locate("embedded"):
        raise ModelError(
            f"embedded weights: none in {weights.cache_dir()}; "
            f"run `emer models fetch embedded` first"
        )


def check_keys(config: RunConfig) -> None:
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
    pools: Sequence[pipeline.Pool],
    placed: pl.DataFrame,
    shards: Sequence[int],
    in_flight: int,
    on_submitted: Callable[[], None],
    account: cost.Account,
) -> Generator[pa.Table, None, None]:
    for first in range(0, len(shards), WAVE_SHARDS):
        wave = index.clips_of(placed, shards[first : first + WAVE_SHARDS])
        tables = index.shard_tables(wave)
        yield from runner.run(
            pools, tables, in_flight=in_flight, on_submitted=on_submitted, account=account
        )


def _arriving(
    config: RunConfig,
    task: Task,
    receipts: Generator[pa.Table, None, None],
    progress: Progress,
    on_progress: Callable[[Progress], None],
    account: cost.Account,
) -> Iterator[pa.Table]:
    """Hand on receipts as they come; show progress, watch the budget. The flow ends with it."""
    usd_before = _usd(task.outcomes)
    first: list[pl.DataFrame] = []
    stalled = watch.unstalled(task.run, config.budget.stall_s, runner.actors)
    with closing(receipts), stalled as alive:
        for table in receipts:
            alive()
            yield table
            rows = pl.DataFrame(pl.from_arrow(table))
            ok = rows.filter(pl.col("outcome") == "ok").height
            known = [usd for usd in (usd_before, account.usd) if usd is not None]
            progress = dataclasses.replace(
                progress,
                ok=progress.ok + ok,
                failed=progress.failed + rows.height - ok,
                busiest=account.busiest(),
                usd=sum(known) if known else None,
            )
            on_progress(progress)
            if not task.retrying and sum(seen.height for seen in first) < ALIKE_CLIPS:
                first.append(rows)
                _refuse_alike(task.run, pl.concat(first))
            _stop_early(config, task.run, progress)


def _encode(
    config: RunConfig,
    task: Task,
    clips: int,
    receipts: Generator[pa.Table, None, None],
    on_progress: Callable[[Progress], None],
    account: cost.Account,
) -> None:
    """See the first of two plans through: what it finds lies in the run directory, not in rows."""
    progress = Progress(
        clips=clips, ok=0, failed=0, skipped=0, started=time.monotonic(), phase="encoding: "
    )
    account.counting = False
    for _ in _arriving(config, task, receipts, progress, on_progress, account):
        pass
    account.counting = True


def _follow(
    config: RunConfig,
    task: Task,
    receipts: Generator[pa.Table, None, None],
    on_progress: Callable[[Progress], None],
    account: cost.Account,
    keep: Callable[[], None],
) -> None:
    """Collect receipts, and roll snapshots.

    `keep` stores the run's record, with what was spent so far.
    """
    run = task.run
    progress = dataclasses.replace(task.done, started=time.monotonic())
    known = functools.partial(index.without, task.outcomes, task.shards)
    snapshots = index.Snapshots(run, known, every=config.output.snapshot_clips)
    try:
        for table in _arriving(config, task, receipts, progress, on_progress, account):
            if snapshots.add(table):
                keep()
    finally:
        snapshots.close()


def _refuse_alike(run: str, first: pl.DataFrame) -> None:
    """Stop a run whose first clips all failed in one stage for one reason."""
    ends = first.select("stage", "kind").unique().rows()
    if first.height < ALIKE_CLIPS or len(ends) > 1 or ends[0] == (None, None):
        return
    stage, kind = ends[0]
    raise BudgetError(
        f"{run}: the first {first.height} clips all failed in {stage} as {kind!r}; "
        f"stopped, because the fault is not in the clips. "
        + (
            f"`emer show {run} {first['clip_id'][0]}` tells one of them"
            if first["part"][0]
            else "Their rows are made in the second phase; output.phases = 1 makes them at once"
        )
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
    config: RunConfig, task: Task, journal: dict[str, Any], cluster: runner.Cluster
) -> Baselines:
    """Read voice baselines off some of the run's own clips, once for the life of the directory.

    A start of fewer than `BASELINE_FROM` clips has none, and its measures say so; the first start
    of a grown manifest reads them. Equal answers (`input.answers`) need equal baselines.
    """
    if config.input.answers and "baselines" not in journal:
        theirs = record.require(config.input.answers)
        journal |= {name: theirs[name] for name in _BASELINE_KEYS if name in theirs}
    read = not config.input.answers and not journal.get("baseline_clips")
    if not journal.get("baselines") and read and pipeline.needs_baselines(config):
        listed = task.placed.filter("present")
        enough = listed.height >= BASELINE_FROM
        found = _voices(config, listed, task.run, cluster) if enough else {}
        journal["baselines"] = {name: list(values) for name, values in found.items()}
        journal["baseline_clips"] = min(listed.height, BASELINE_CLIPS) if enough else 0
    kept: dict[str, list[Any]] = journal.setdefault("baselines", {})
    return {name: (median, spread, n) for name, (median, spread, n) in kept.items()}


def _voices(
    config: RunConfig, listed: pl.DataFrame, run: str, cluster: runner.Cluster
) -> Mapping[str, tuple[float, float, int]]:
    """Decode and encode some clips, drawn by a hash of their ids, for their voices."""
    drawn = sorted(
        listed["clip_id"].to_list(),
        key=lambda clip_id: hashlib.sha256(f"{config.input.seed}:{clip_id}".encode()).digest(),
    )[:BASELINE_CLIPS]
    log.info("reading voice baselines off %d clips", len(drawn))
    apart = pipeline.Start(run=storage.join(run, "calibration"))
    flow = pipeline.steps(config, apart)[:2]
    pools = pipeline.pools(flow, config, cpus=cluster.cpus, gpus=cluster.gpus)
    sample = listed.filter(pl.col("clip_id").is_in(drawn)).with_columns(
        shards=pl.concat_list(pl.int_range(pl.len()).cast(pl.Int32) // BASELINE_SHARD)
    )
    shards = sample["shards"].list.last().unique().to_list()
    tables = index.shard_tables(index.clips_of(sample, shards))
    measures: dict[str, list[Measure]] = {}
    for table in runner.run(pools, tables, in_flight=len(tables)):
        for row in table.select(["clip_id", "measures"]).to_pylist():
            measures[row["clip_id"]] = [Measure(**found) for found in row["measures"] or ()]
    return voice_baselines([measures[clip_id] for clip_id in sorted(measures)])
