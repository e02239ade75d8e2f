"""How close the pipeline comes to its bottleneck: wall time over the slowest stage's own time.

The flow is the real one (runner, claims, parse, parts on disk) with two simulated ends: a decoder
that burns 5 ms of CPU per row and hands on 1.2 MB of frames, and a model that takes a fixed time
per row. The ratio is taken in the steady state, between the receipts of 10 and of 90 % of the
clips, so that neither the start of the actors nor their end counts. Lower is better; 1 is the
limit.

Shards have the usual 16 clips where the model takes 20 ms per row, and 64 where it takes 5: what
Ray takes for a shard does not depend on its size (`output.shard_clips`, docs/plan.md). A third run
has rows that differ 100 times in what they take to decode, as clips do in length, and begins with
one decoder where two are needed: the pool has to grow.
"""

import dataclasses
import math
import tempfile
import time
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """One run: so many rows, in shards of so many, and what they take."""

    clips: int
    model_s: float
    shard_clips: int
    decode_s: float = DECODE_S
    """Of a row, on average."""
    spread: float = 1.0
    """The longest decoding of a row over the shortest."""
    decoders: Mapping[str, int] = field(default_factory=dict)
    """As `pools.decode`."""


LOADS: Final = {
    "": Load(clips=6_000, model_s=0.020, shard_clips=16),
    "_5ms": Load(clips=20_000, model_s=0.005, shard_clips=64),
    "_varied": Load(
        clips=3_000,
        model_s=0.020,
        shard_clips=16,
        decode_s=0.022,
        spread=100.0,
        decoders={"actors": 1, "max_actors": 2},
    ),
}
"""By what their figures' names end with."""


class SimulatedDecode:
    """Burns CPU like a decoder and fills frames of the usual size."""

    def __init__(
        self,
        *,
        seconds: float,
        seed: int,
        shape: Sequence[int] = FRAMES,
        spread: float = 1.0,
        drops: Collection[str] = (),
    ) -> None:
        self._seconds = seconds
        self._spread = spread
        self._frames = np.random.default_rng(seed).integers(0, 255, shape, np.uint8)

    def __call__(self, table: pa.Table) -> pa.Table:
        return containment.through(table, stage="decode", to=schema.DECODED, work=self._work)

    def _work(self, rows: list[containment.Row]) -> list[containment.Row | ClipError]:
        return [self._decoded(row["clip_id"]) for row in rows]

    def _takes_s(self, clip_id: str) -> float:
        """Draw seconds by the clip's name, even in their logarithm, with the mean that is set."""
        if self._spread == 1:
            return self._seconds
        drawn = zlib.crc32(clip_id.encode()) / 2**32
        mean = (self._spread - 1) / math.log(self._spread)
        return float(self._seconds * self._spread**drawn / mean)

    def _decoded(self, clip_id: str) -> containment.Row:
        until = time.thread_time() + self._takes_s(clip_id)
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
    """Measure the ratio of each load; `clips` is the number of rows of each."""
    runner.connect()
    found: dict[str, Any] = {"batch": BATCH, "row_bytes": ROW_BYTES}
    for suffix, load in LOADS.items():
        load = dataclasses.replace(load, clips=clips or load.clips)
        measured = _measure(load, seed)
        say(f"ratio{suffix}: {measured}")
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
            "pools": {
                "decode": load.decoders,
                "explain": {"actors": 1, "cpus": 0.5, "batch": BATCH},
            },
        }
    )
    with tempfile.TemporaryDirectory(prefix="emer-bench-") as run:
        placed = index.assign_shards(listed(clips), None, config.output.shard_clips)
        decode, *rest = flow_of.steps(config, flow_of.Start(run=run))
        simulated = dataclasses.replace(
            decode,
            stage=SimulatedDecode,
            settings={"seconds": load.decode_s, "spread": load.spread, "seed": seed},
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
        "decode_s": load.decode_s,
        "wall_s": round(arrivals[-1][1], 2),
        "start_s": round(arrivals[0][1], 2),
    }
