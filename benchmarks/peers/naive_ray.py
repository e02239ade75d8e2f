"""Ray Data as a competent user writes it in an evening: two pools of actors, Parquet out.

Started again after a crash it empties its folder and does everything anew (`mode="overwrite"`);
benchmarks/naive_ray.py shows Ray Data's other ways under kills.
"""

import numpy as np
import ray
from ray.data import ActorPoolStrategy, DataContext, SaveMode
from work import BATCH, answer, arguments, decode

ROWS_PER_BLOCK = 16
"""20 MB; without this, the table is one block and one actor works."""


class Decode:
    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        frames = [decode() for _ in batch["clip_id"]]
        return {"clip_id": batch["clip_id"], "frames": np.stack(frames)}


class Model:
    def __init__(self, trace: str) -> None:
        self.trace = trace

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        answers = answer(batch["clip_id"], batch["frames"], self.trace)
        return {"clip_id": batch["clip_id"], "answer": np.array(answers)}


def main() -> None:
    said = arguments()
    # four logical CPUs: on two, both decoders and the model leave none for reading and writing
    ray.init(num_cpus=4, log_to_driver=False, include_dashboard=False)
    DataContext.get_current().enable_progress_bars = False
    (
        ray.data.read_parquet(said.manifest, columns=["clip_id", "video_uri"])
        .repartition(target_num_rows_per_block=ROWS_PER_BLOCK)
        .map_batches(Decode, batch_size=BATCH, compute=ActorPoolStrategy(size=2), num_cpus=1)
        .map_batches(
            Model,
            fn_constructor_args=(said.trace,),
            batch_size=BATCH,
            compute=ActorPoolStrategy(size=1),
            num_cpus=0.5,
        )
        .write_parquet(said.out, mode=SaveMode.OVERWRITE)
    )


if __name__ == "__main__":
    main()
