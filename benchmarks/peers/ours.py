"""The real main job, `emer_ray.relabel`, with a simulated decoder in the place of the real one.

Nothing else is left out: manifest, shards, claims, parse, parts, receipts, snapshots, lease.
"""

import dataclasses
from collections.abc import Sequence

from work import BATCH, DECODE_S, MODEL_S, arguments

from emer_ray import config, pipeline
from emer_ray.bench.pipeline import SimulatedDecode
from emer_ray.relabel import relabel

real_steps = pipeline.steps


def steps(settings: config.RunConfig, start: pipeline.Start) -> Sequence[pipeline.Step]:
    decode, *rest = real_steps(settings, start)
    simulated = {"seconds": DECODE_S, "seed": 0}
    return [dataclasses.replace(decode, stage=SimulatedDecode, settings=simulated), *rest]


def main() -> None:
    said = arguments()
    pipeline.steps = steps
    fake = {"backend": "fake", "options": {"latency_s": MODEL_S, "trace": said.trace}}
    run = {
        "input": {"manifest": said.manifest},
        "output": {"run": said.out, "shard_clips": 64},  # as docs/plan.md says of so quick a model
        "models": {"main": fake},
        "pools": {"explain": {"actors": 1, "cpus": 0.5, "batch": BATCH}},
    }
    relabel(config.parse(run))


if __name__ == "__main__":
    main()
