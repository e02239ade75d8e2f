"""How close the pipeline comes to its bottleneck: wall time over the slowest stage's own time.

The flow is the real one (runner, claims, parse, parts on disk) with two simulated ends: a decoder
that burns 5 ms of CPU per row and hands on 1.2 MB of frames, and a model that takes a fixed time
per row. The ratio is taken in the steady state, between the receipts of 10 and of 90 % of the
clips, so that neither the start of the actors nor their end counts. Lower is better; 1 is the
limit.

Shards have the usual 16 clips where the model takes 20 ms per row, and 64 where it takes 5: what
Ray takes for a shard does not depend on its size (`output.shard_clips`, docs/plan.md).
"""

import dataclasses
import math
import tempfile
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final

import numpy as np
import polars as pl
import pyarrow as pa

from emer_ray import config as configuration
from emer_ray import containment, runner, schema
from emer_ray import pipeline as flow_of
from emer_ray.errors import ClipError
from emer_ray.store import index

FRAMES: Final = (8, 224, 224, 3)
ROW_BYTES: Final = math.prod(FRAMES)
DECODE_S: Final = 0.005
BATCH: Final = 8


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """One run: so many rows, a model that takes so long for each, in shards of so many."""

    clips: int
    model_s: float
    shard_clips: int


SLOW: Final = Load(clips=6_000, model_s=0.020, shard_clips=16)
QUICK: Final = Load(clips=20_000, model_s=0.005, shard_clips=64)


class SimulatedDecode:
    """Burns CPU like a decoder and fills frames of the usual size."""

    def __init__(
        self,
        *,
        seconds: float,
        seed: int,
        shape: Sequence[int] = FRAMES,
        drops: Collection[str] = (),
    ) -> None:
        self._seconds = seconds
        self._frames = np.random.default_rng(seed).integers(0, 255, shape, np.uint8)

    def __call__(self, table: pa.Table) -> pa.Table:
        return containment.through(table, stage="decode", to=schema.DECODED, work=self._work)

    def _work(self, rows: list[containment.Row]) -> list[containment.Row | ClipError]:
        return [self._decoded() for _ in rows]

    def _decoded(self) -> containment.Row:
        until = time.thread_time() + self._seconds
        while time.thread_time() < until:
            pass
        media = {
            **dict.fromkeys(schema.MEDIA_FACTS.type.names),
            **{"has_video": True, "has_audio": False, "decoded_s": 2.0, "short": False},
            **{"n_frames": len(self._frames), "decoder": "simulated"},
        }
        return {
            "frames": self._frames,
            "frame_shape": list(self._frames.shape),
            "frame_times_s": [0.25 * number for number in range(len(self._frames))],
            "media": media,
        }

    def close(self) -> None:
        """Nothing to release."""


def pipeline(
    seed: int = 0, clips: int | None = None, say: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Measure the ratio at 20 and at 5 ms per row; `clips` is the number of rows of each run."""
    runner.connect()
    found: dict[str, Any] = {"batch": BATCH, "row_bytes": ROW_BYTES, "decode_s": DECODE_S}
    for suffix, load in (("", SLOW), ("_5ms", QUICK)):
        load = dataclasses.replace(load, clips=clips or load.clips)
        measured = _measure(load, seed)
        say(f"{1000 * load.model_s:g} ms per row: {measured}")
        found |= {f"{name}{suffix}": value for name, value in measured.items()}
    return {**found, "data_context": runner.data_context()}


def listed(clips: int) -> pl.DataFrame:
    """List so many clips that nobody will open."""
    rows = [
        {
            **dict.fromkeys(schema.MANIFEST.names),
            "clip_id": f"clip-{i:06d}",
            "video_uri": "simulated",
        }
        for i in range(clips)
    ]
    return pl.DataFrame(pl.from_arrow(schema.table(rows, schema.MANIFEST)))


def _measure(load: Load, seed: int) -> dict[str, Any]:
    clips, model_s = load.clips, load.model_s
    config = configuration.parse(
        {
            "models": {"main": {"backend": "fake", "options": {"latency_s": model_s}}},
            "output": {"shard_clips": load.shard_clips},
            "pools": {"explain": {"actors": 1, "cpus": 0.5, "batch": BATCH}},
        }
    )
    with tempfile.TemporaryDirectory(prefix="emer-bench-") as run:
        placed = index.assign_shards(listed(clips), None, config.output.shard_clips)
        decode, *rest = flow_of.steps(config, flow_of.Start(run=run))
        simulated = dataclasses.replace(
            decode, stage=SimulatedDecode, settings={"seconds": DECODE_S, "seed": seed}
        )
        cluster = runner.connect()
        pools = flow_of.pools([simulated, *rest], config, cpus=cluster.cpus, gpus=cluster.gpus)
        tables = index.shard_tables(
            index.clips_of(placed, index.unfinished(placed, index.outcomes(run)))
        )
        data_context = runner.data_context()
        assert data_context["max_errored_blocks"] == 0
        started = time.perf_counter()
        done, arrivals = 0, []
        for receipts in runner.run(pools, tables, in_flight=flow_of.in_flight(config, pools)):
            done += receipts.num_rows
            arrivals.append((done, time.perf_counter() - started))
        assert done == clips, f"{done} receipts of {clips} clips"
    first = next((n, at) for n, at in arrivals if n >= 0.1 * clips)
    last = next((n, at) for n, at in arrivals if n >= 0.9 * clips)
    return {
        "ratio": round((last[1] - first[1]) / ((last[0] - first[0]) * model_s), 4),
        "clips": clips,
        "shard_clips": load.shard_clips,
        "wall_s": round(arrivals[-1][1], 2),
        "start_s": round(arrivals[0][1], 2),
    }
