"""How long a run with a million finished clips takes to go on.

The directory is as the default shard size leaves it: 62,500 parts, each a whole, valid part with
ids of its own, the manifest, and the index of a driver that was killed just before it was due
again, so that the outcomes of the last 10,000 clips are not in the snapshot and the parts of the
last 1,000 have to be opened. What is not real: the rows say almost nothing, so that a part has
30 kB, and nobody computed them. The 160 clips that are left are relabeled for real, by a new
process, from the manifest that the directory knows. `seconds` counts, without the start of Ray,
until the first block is submitted: the manifest, the listing, the snapshot, the anti-join, the
lease.
"""

import hashlib
import io
import multiprocessing
import secrets
import struct
import tempfile
import time
import wave
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import polars as pl
import pyarrow.parquet as pq

from emer_ray import config as configuration
from emer_ray import manifest, pipeline, schema, storage
from emer_ray.bench import seaweed
from emer_ray.bench.processes import environment
from emer_ray.config import RunConfig
from emer_ray.relabel import relabel
from emer_ray.store import index, layout, parts, record

LEFT: Final = 160
"""Clips still to do: ten shards, so that the run has something to go on with."""
WRITERS: Final = 16
_SHARD: Final = 0x5A6B7C0D
"""Stands for the shard in the pattern that every part is stamped from."""


def resume(
    seed: int = 0,
    clips: int | None = None,
    where: str | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Build the directory, go on with it, check it. `where`: a bucket's prefix; "" = own server."""
    done = (clips or 1_000_000) // 16 * 16
    with _place(where) as base:
        run = storage.join(base, "run")
        config = silent(base, run, done + LEFT, seed)
        started = time.monotonic()
        _build(config, run, done)
        say(f"{done} clips in {len(layout.live(run))} parts: {time.monotonic() - started:.1f} s")
        # a driver that starts again is a new process, without what this one keeps of building
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as fresh:
            summary = fresh.submit(relabel, config).result()
        start = record.require(run)["starts"][-1]
        say(f"resumed after {start['submitted_s']} s, finished after {summary['seconds']} s")
        started = time.monotonic()
        verdict = index.verify(run)
        verify_s = time.monotonic() - started
    return {
        "seconds": start["submitted_s"],
        "clips": done,
        "resumed_s": start["resumed_s"],
        "skipped": summary["skipped"],
        "ok": summary["ok"],
        "verify_s": round(verify_s, 3),
        "verified": verdict.holds,
        "parts": verdict.parts,
        "parts_read": verdict.read,
        "store": "s3" if where is not None else "local",
    }


@contextmanager
def _place(where: str | None) -> Iterator[str]:
    """Give a folder that is empty now and gone afterwards."""
    with ExitStack() as stack:
        if where is None or where == "":
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="emer-bench-")))
        if where is None:
            yield str(folder)
            return
        if where == "":
            endpoint = stack.enter_context(seaweed.seaweedfs(folder))
            stack.enter_context(environment(seaweed.credentials(endpoint)))
            seaweed.client(endpoint).create_bucket(Bucket="bench")
            yield "s3://bench/resume"
            return
        base = storage.join(where, f"resume-{secrets.token_hex(4)}")
        try:
            yield base
        finally:
            storage.delete_all(entry.uri for entry in storage.listing(base))


def silent(base: str, run: str, count: int, seed: int, clip_s: float = 1.0) -> RunConfig:
    """Store a manifest of so many clips with the same sound, and say how to explain them."""
    sound = io.BytesIO()
    with wave.open(sound, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(bytes(2 * int(16_000 * clip_s)))
    storage.write(storage.join(base, "silence.wav"), sound.getvalue())
    table = pl.DataFrame(
        {
            "clip_id": [_clip(number) for number in range(count)],
            "audio_uri": "silence.wav",
            "subtitle_en": [f"this is line number {number}" for number in range(count)],
        }
    )
    data = io.BytesIO()
    table.write_parquet(data)
    listed = storage.join(base, "clips.parquet")
    storage.write(listed, data.getvalue())
    return configuration.parse(
        {
            "input": {"manifest": listed, "seed": seed},
            "output": {"run": run},
            "media": {"frames": 1, "size_px": 32},  # of which a sound has none: whole shards of 16
            "models": {"main": {"backend": "fake"}},
        }
    )


def _clip(number: int) -> str:
    return f"clip-{number:011d}"


def _build(config: RunConfig, run: str, done: int) -> None:
    """Leave the directory as a driver that was killed does."""
    rows = pl.DataFrame(pl.from_arrow(manifest.load(config.input)))
    size = config.output.shard_clips
    fingerprint = pipeline.fingerprint(config)
    placed = index.assign_shards(rows, None, size)
    index.save_manifest(run, placed)
    stamp = _Stamp(fingerprint, size)

    def put(shard: int) -> tuple[str, str]:
        name = parts.name("explanations", shard, fingerprint)
        return name, _put(storage.join(run, name), stamp.part(shard))

    if not storage.is_s3(run):
        Path(run, "explanations").mkdir(parents=True)
    with ThreadPoolExecutor(WRITERS) as pool:
        stored = list(pool.map(put, range(done // size)))
    if not storage.is_s3(run):
        stored = [(part.name, part.version) for part in layout.live(run)]
    names = pl.DataFrame(stored, schema=["part", "version"], orient="row")
    names = names.with_row_index("shard").with_columns(pl.col("shard").cast(pl.Int32))
    outcomes = pl.DataFrame({"clip_id": placed["clip_id"].head(done)}).with_row_index("row")
    outcomes = outcomes.with_columns(
        shard=(pl.col("row") // size).cast(pl.Int32),
        outcome=pl.lit("ok"),
        stage=pl.lit(None, pl.String),
        kind=pl.lit(None, pl.String),
        usd=pl.lit(None, pl.Float64),
    )
    outcomes = outcomes.join(names, on="shard", maintain_order="left").select(schema.INDEX.names)
    whole, since = (
        (done - 1) // every * every // size * size
        for every in (
            config.output.snapshot_clips,
            config.output.snapshot_clips // index.SINCE_TIMES,
        )
    )
    number = index.save_snapshot(run, outcomes.head(whole))
    index.save_since(run, number, outcomes.slice(whole, since - whole))
    record.save(
        run,
        {
            "fingerprint": fingerprint,
            "fingerprint_parts": pipeline.fingerprint_parts(config),
            "config": config.model_dump(mode="json"),
            "starts": [],
        },
    )


def _put(uri: str, data: bytes) -> str:
    """Store a part and tell its version; on a disk without a driver's flushes, told later."""
    if storage.is_s3(uri):
        return storage.write(uri, data)
    Path(uri).write_bytes(data)
    return ""


class _Stamp:
    """Makes whole parts by the thousand: one is written, and its ids and shard are replaced."""

    def __init__(self, fingerprint: str, size: int) -> None:
        self._size = size
        self._ids = [f"CLIP-{number:011d}".encode() for number in range(size)]
        rows = [_row(name.decode(), fingerprint) for name in self._ids]
        plain = dict.fromkeys(("clip_id", "shard"), "none")
        sink = io.BytesIO()
        table = schema.table(rows, schema.EXPLANATIONS)
        leaves = pq.ParquetFile(io.BytesIO(parts.serialise(table))).schema
        packed = {column.path: "zstd" for column in leaves if column.path not in plain}
        writer = pq.ParquetWriter(
            sink, table.schema, compression={**packed, **plain}, use_dictionary=False
        )
        writer.write_table(table)
        self._digest = hashlib.sha256(sink.getvalue()).hexdigest().encode()
        writer.add_key_value_metadata({parts.HASH_KEY: self._digest.decode()})
        writer.close()
        self._pattern = sink.getvalue()
        (footer,) = struct.unpack("<I", self._pattern[-8:-4])
        self._end = len(self._pattern) - 8 - footer

    def part(self, shard: int) -> bytes:
        """Make the part of a shard."""
        data = self._pattern.replace(struct.pack("<i", _SHARD), struct.pack("<i", shard))
        for number, old in enumerate(self._ids):
            data = data.replace(old, _clip(shard * self._size + number).encode())
        digest = hashlib.sha256(data[: self._end]).hexdigest().encode()
        return data.replace(self._digest, digest)


def _row(clip_id: str, fingerprint: str) -> dict[str, Any]:
    lists = ("visual_clues", "acoustic_clues", "lexical_clues", "labels")
    empty: dict[str, Any] = {name: [] for name in lists}
    media = dict.fromkeys(schema.MEDIA_FACTS.type.names) | {
        **{"has_video": False, "has_audio": True, "decoded_s": 1.0, "short": False},
        **{"n_frames": 0, "decoder": "none"},
    }
    said = {"clip_id": clip_id, "shard": _SHARD, "attempt": 1, "media": media}
    provenance = {"fingerprint": fingerprint, "recipe": "one_shot", "models": [], "versions": []}
    return {
        **dict.fromkeys(schema.EXPLANATIONS.names),
        **empty,
        **said,
        **{"explanation": "", "parse_rung": "json", "provenance": provenance},
    }
