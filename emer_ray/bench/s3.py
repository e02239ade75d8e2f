"""Our object store client against bare boto3 threads: reading clips, and storing parts.

A real server (SeaweedFS) and its client share the same two cores, so every instruction of ours is
missing somewhere. Read: as the decoder fetches a clip, `media.source.fetch`, against `get_object`
by as many threads of the same process. Stored: `storage.write` against `put_object`, bytes of the
size of a part. Rounds alternate who goes first; a ratio is the median over pairs of one round.
"""

import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from emer_ray import storage
from emer_ray.bench import seaweed
from emer_ray.bench.processes import environment
from emer_ray.config import MediaConfig
from emer_ray.errors import EmerError
from emer_ray.media import source

CLIPS: Final = 96
CLIP_BYTES: Final = (500_000, 2_000_000)
PART_BYTES: Final = 32_000
"""16 explanations, as 'fake' and small models write them."""
THREADS: Final = 4
ROUNDS: Final = 15
CORES: Final = 2
BUCKET: Final = "bench"

Work = Callable[[int], Any]


def s3(
    seed: int = 0,
    clips: int | None = None,
    rounds: int = ROUNDS,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Measure both ratios over `clips` objects; every byte read and stored is compared."""
    rng = random.Random(seed)  # noqa: S311 - repeatable, not secret
    films = [rng.randbytes(rng.randint(*CLIP_BYTES)) for _ in range(clips or CLIPS)]
    parts = [rng.randbytes(PART_BYTES) for _ in films]
    with (
        two_cores(),
        tempfile.TemporaryDirectory(prefix="emer-s3-") as folder,
        seaweed.seaweedfs(Path(folder)) as endpoint,
        environment(seaweed.credentials(endpoint)),
        ThreadPoolExecutor(THREADS) as pool,
    ):
        bare = seaweed.client(endpoint)
        bare.create_bucket(Bucket=BUCKET)
        for number, film in enumerate(films):
            bare.put_object(Bucket=BUCKET, Key=f"clip/{number}", Body=film)
        settings = MediaConfig()

        def our_read(number: int) -> bytes | None:
            return source.fetch(f"s3://{BUCKET}/clip/{number}", settings)

        def bare_read(number: int) -> bytes:
            return bytes(bare.get_object(Bucket=BUCKET, Key=f"clip/{number}")["Body"].read())

        def our_write(number: int) -> None:
            storage.write(f"s3://{BUCKET}/ours/{number}", parts[number])

        def bare_write(number: int) -> None:
            bare.put_object(Bucket=BUCKET, Key=f"bare/{number}", Body=parts[number])

        read = paired(pool, films, our_read, bare_read, rounds, films)
        say(f"read: {read}")
        written = paired(pool, parts, our_write, bare_write, rounds, None)
        for number, part in enumerate(parts):
            for key in (f"ours/{number}", f"bare/{number}"):
                if bare.get_object(Bucket=BUCKET, Key=key)["Body"].read() != part:
                    raise EmerError(f"bench s3: {key} is not what was stored")
    return {
        "ratio": read["ratio"],
        "write_ratio": written["ratio"],
        "clips": len(films),
        "clip_bytes": sum(map(len, films)),
        "part_bytes": PART_BYTES,
        "threads": THREADS,
        "rounds": rounds,
        "read": read,
        "written": written,
    }


def paired(
    pool: ThreadPoolExecutor,
    objects: Sequence[bytes],
    ours: Work,
    bare: Work,
    rounds: int,
    equal: Sequence[bytes] | None,
) -> dict[str, float]:
    """Time both over all objects, round after round; what is read must be `equal`."""
    seconds: dict[str, list[float]] = {"ours": [], "bare": []}
    turns = [("ours", ours), ("bare", bare)]
    for number in range(rounds + 1):
        for name, work in turns if number % 2 else reversed(turns):
            started = time.perf_counter()
            answers = list(pool.map(work, range(len(objects))))
            took = time.perf_counter() - started
            if equal is not None and answers != equal:
                raise EmerError(f"bench s3: {name} read other bytes than were stored")
            if number:  # the first opens connections
                seconds[name].append(took)
    pairs = [theirs / mine for mine, theirs in zip(*seconds.values(), strict=True)]
    megabytes = sum(map(len, objects)) / 1e6
    return {
        "ratio": round(statistics.median(pairs), 4),
        "ratio_low": round(min(pairs), 4),
        "ratio_high": round(max(pairs), 4),
        "ours_mb_per_s": round(megabytes / statistics.median(seconds["ours"]), 1),
        "bare_mb_per_s": round(megabytes / statistics.median(seconds["bare"]), 1),
        "ours_per_s": round(len(objects) / statistics.median(seconds["ours"]), 1),
        "bare_per_s": round(len(objects) / statistics.median(seconds["bare"]), 1),
    }


@contextmanager
def two_cores() -> Iterator[None]:
    """Keep this process, and what it starts, to two cores for a while."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:CORES])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
