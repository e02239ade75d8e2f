"""What a run would take on clusters that nobody here has: the queues of `emer plan`, fed with what
was measured on two cores without a GPU.

No GPU was measured. A GPU is a number, `batch_s`: the seconds that its model takes for 16 clips.
Measure it on one GPU (`emer plan` plays the same queues with a canary's rates) before you believe
the rest.

Assumed: the network and the object store are never the limit (10 clips/s of a GPU are 13 MB/s of
frames), cores are as fast as those here, reading a clip costs no core, all clips cost the same,
nothing fails, all models are loaded after `start_s`. There is one driver; its loop is one thread.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from emer_ray.plan.forecast import RAY, Rate, Shard, Station, played

CLIPS: Final = 132_171
"""MER2025."""
GPUS: Final = (8, 64, 512)
BATCH: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """CPU seconds, measured here (benchmarks/README.md, 2026-11-28)."""

    decode_clip_s: float = 0.133
    """Mean of six films, 360p and 720p (`emer bench decode`)."""
    decode_shard_s: float = 0.005
    reason_clip_s: float = 0.0009
    """What a model's actor spends beside the model (this and the next: `emer bench scale`)."""
    driver_shard_s: float = 0.025
    """All hops of a shard, whatever its size."""
    write_clip_s: float = 0.0003
    write_shard_s: float = 0.017
    """The answers are read and stored; two syncs to a disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plant:
    """A cluster, and what its GPUs do."""

    gpus: int
    cores: float
    batch_s: float = 1.5
    shard_clips: int = BATCH
    decoders: int | None = None
    """Null: one on every core that writers and driver leave."""

    def stations(self, costs: Costs) -> list[Station]:
        """Give the pools in the order of the flow."""
        writers = max(1, self.gpus // 32)
        decoders = self.decoders or max(1, int(self.cores - writers - 1))
        decode = Rate(call_s=costs.decode_shard_s, clip_s=costs.decode_clip_s)
        beside = Rate(clip_s=costs.reason_clip_s)
        write = Rate(call_s=costs.write_shard_s, clip_s=costs.write_clip_s)
        driver = Rate(call_s=costs.driver_shard_s)
        return [
            Station(name="decode", actors=decoders, wall=decode, cpu=decode),
            Station(name=RAY, actors=1, wall=driver, cpu=driver),
            Station(
                name="reason",
                actors=self.gpus,
                wall=Rate(clip_s=self.batch_s / BATCH) + beside,
                cpu=beside,
            ),
            Station(name="write", actors=writers, wall=write, cpu=write),
        ]


def predict(clips: int, plant: Plant, costs: Costs, start_s: float = 0.0) -> dict[str, Any]:
    """Play all shards through the pools: seconds, clips a second, and what limits them."""
    full, rest = divmod(clips, plant.shard_clips)
    shards = [Shard(clips=plant.shard_clips)] * full + [Shard(clips=rest)] * (rest > 0)
    stations = plant.stations(costs)
    run = played(stations, shards, plant.cores)
    could = {station.name: station.clips_per_s(shards) or 0.0 for station in stations}
    model_s = clips * plant.batch_s / BATCH
    return {
        "gpus": plant.gpus,
        "cores": plant.cores,
        "shard_clips": plant.shard_clips,
        "seconds": round(start_s + run.seconds, 1),
        "hours": round((start_s + run.seconds) / 3600, 3),
        "clips_per_s": round(clips / run.seconds, 1),
        "occupancy": round(model_s / (plant.gpus * run.seconds), 4),
        "gpu_hours": round(plant.gpus * (start_s + run.seconds) / 3600, 2),
        "bottleneck": min(could, key=lambda name: could[name]),
        "capacity_clips_per_s": {name: round(rate, 1) for name, rate in could.items()},
    }


def simulate(
    clips: int | None = None,
    gpus: Sequence[int] = GPUS,
    cores_per_gpu: float = 8.0,
    batch_s: float = 1.5,
    shard_clips: int = BATCH,
    start_s: float = 120.0,
) -> dict[str, Any]:
    """Predict a run on clusters of so many GPUs."""
    clips = clips or CLIPS
    plants = [
        Plant(gpus=each, cores=each * cores_per_gpu, batch_s=batch_s, shard_clips=shard_clips)
        for each in gpus
    ]
    return {
        "clips": clips,
        "predictions": [predict(clips, plant, Costs(), start_s) for plant in plants],
        "gpus_measured": 0,
        "assumptions": {"batch_s": batch_s, "start_s": start_s, **asdict(Costs())},
    }
