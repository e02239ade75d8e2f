"""The loop of the published scripts: one process, one batch after the other, one file at last."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from work import BATCH, answer, arguments, decode


def main() -> None:
    said = arguments()
    clip_ids = pq.read_table(said.manifest)["clip_id"].to_pylist()
    answers: list[str] = []
    for start in range(0, len(clip_ids), BATCH):
        batch = clip_ids[start : start + BATCH]
        answers += answer(batch, [decode() for _ in batch], said.trace)
    Path(said.out).mkdir(parents=True, exist_ok=True)
    pq.write_table(
        pa.table({"clip_id": clip_ids, "answer": answers}), f"{said.out}/explanations.parquet"
    )


if __name__ == "__main__":
    main()
