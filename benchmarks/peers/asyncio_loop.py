"""One process with asyncio, as annotation tools are written: decoding in threads, a file per batch.

A batch whose file is there is left out when it is started again.
"""

import asyncio
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from work import BATCH, answer, arguments, decode

CONCURRENCY = 4
"""Batches under way."""


async def main() -> None:
    said = arguments()
    out = Path(said.out)
    out.mkdir(parents=True, exist_ok=True)
    clip_ids = pq.read_table(said.manifest)["clip_id"].to_pylist()
    device, under_way = asyncio.Lock(), asyncio.Semaphore(CONCURRENCY)

    async def explain(number: int) -> None:
        batch = clip_ids[number * BATCH : (number + 1) * BATCH]
        path = out / f"batch-{number:06d}.parquet"
        if path.exists():
            return
        async with under_way:
            frames = await asyncio.to_thread(lambda: [decode() for _ in batch])
            async with device:
                answers = await asyncio.to_thread(answer, batch, frames, said.trace)
            await asyncio.to_thread(store, path, batch, answers)

    await asyncio.gather(*(explain(number) for number in range(-(-len(clip_ids) // BATCH))))


def store(path: Path, clip_ids: list[str], answers: list[str]) -> None:
    new = path.with_suffix(".new")
    pq.write_table(pa.table({"clip_id": clip_ids, "answer": answers}), new)
    new.replace(path)


if __name__ == "__main__":
    asyncio.run(main())
