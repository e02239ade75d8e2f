"""The same job as a competent user of Ray Data writes it in an evening, as a yardstick.

    python benchmarks/naive_ray.py --manifest clips.parquet --out rows/ [--restart …]

Read a table, decode in a pool, ask a model in a pool, write Parquet. The model is simulated: it
takes `--latency-s` per clip and appends a line per clip to `--trace`, as the fake backend of
emer_ray does. What happens when it is started again after a crash is what Ray Data offers:

    append      `write_parquet` as it is by default: files are added to those of the first try
    overwrite   `mode="overwrite"`: the folder is emptied, everything is done again
    checkpoint  `DataContext.checkpoint_config`: rows of files that were written are left out

Used by `emer bench chaos --program`.
"""

import argparse
import os
import time
from pathlib import Path

import decord
import numpy as np
import ray
from ray.data import ActorPoolStrategy, DataContext, SaveMode

N_FRAMES = 8
SIDE_PX = 224
BATCH = 8
WORDS = ("happy", "angry", "sad", "worried", "surprised", "calm")


class Decode:
    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        frames = []
        for uri, start_s, end_s in zip(
            batch["video_uri"], batch["start_s"], batch["end_s"], strict=True
        ):
            film = decord.VideoReader(uri, width=SIDE_PX, height=SIDE_PX, num_threads=1)
            times_s = np.linspace(start_s, end_s, N_FRAMES, endpoint=False)
            numbers = np.minimum((times_s * film.get_avg_fps()).astype(int), len(film) - 1)
            frames.append(film.get_batch(numbers).asnumpy())
        return {"clip_id": batch["clip_id"], "frames": np.stack(frames)}


class Model:
    def __init__(self, latency_s: float, trace: str | None) -> None:
        self.latency_s, self.trace = latency_s, trace

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        clip_ids = batch["clip_id"]
        if self.trace:
            file = os.open(self.trace, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.write(file, "".join(f"{time.time():.3f} {name}\n" for name in clip_ids).encode())
            os.close(file)
        time.sleep(self.latency_s * len(clip_ids))
        brightness = batch["frames"].reshape(len(clip_ids), -1).mean(axis=1)
        labels = np.array([WORDS[int(value) % len(WORDS)] for value in brightness])
        return {"clip_id": clip_ids, "label": labels}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--manifest", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--latency-s", type=float, default=0.0)
    parser.add_argument("--trace")
    parser.add_argument("--restart", choices=["append", "overwrite", "checkpoint"])
    said = parser.parse_args()
    there = "RAY_ADDRESS" in os.environ
    ray.init(log_to_driver=False, num_cpus=None if there else 4)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    if said.restart == "checkpoint":
        from ray.data.checkpoint import CheckpointConfig

        context.checkpoint_config = CheckpointConfig(
            id_column="clip_id",
            checkpoint_path=f"file://{Path(said.out).absolute()}.checkpoint",
            delete_checkpoint_on_success=False,
        )
    (
        ray.data.read_parquet(said.manifest, columns=["clip_id", "video_uri", "start_s", "end_s"])
        .repartition(target_num_rows_per_block=BATCH)
        .map_batches(Decode, batch_size=BATCH, compute=ActorPoolStrategy(size=2), num_cpus=1)
        .map_batches(
            Model,
            fn_constructor_args=(said.latency_s, said.trace),
            batch_size=BATCH,
            compute=ActorPoolStrategy(size=2),
            num_cpus=0.5,
        )
        .write_parquet(
            said.out,
            mode=SaveMode.OVERWRITE if said.restart == "overwrite" else SaveMode.APPEND,
        )
    )


if __name__ == "__main__":
    main()
