"""Parts: the Parquet files of shards. A part's key is shard + fingerprint, and it is stored with
one put.

Retries, resumes, other cluster sizes and a zombie writer all overwrite the same key with the same
rows. The footer carries a SHA-256 of everything before it, so that a part can be checked by
itself.
"""

import hashlib
import io
import re
import struct
from collections.abc import Mapping
from typing import Any, Final, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from emer_ray import schema, storage
from emer_ray.errors import RunDirError
from emer_ray.records import Receipt

Folder = Literal["explanations", "failures"]

SCHEMAS: Final[Mapping[Folder, pa.Schema]] = {
    "explanations": schema.EXPLANATIONS,
    "failures": schema.FAILURES,
}

_LIGHT: Final = ("clip_id", "stage", "kind", "usd")
_HASH_KEY = "emer_sha256"
_NAME = re.compile(r"(explanations|failures)/(\d{8,})-([0-9a-f]{12})\.parquet")


def name(folder: Folder, shard: int, fingerprint: str) -> str:
    """Name a part, relative to the run directory."""
    return f"{folder}/{shard:08d}-{fingerprint[:12]}.parquet"


def is_part(relative: str) -> bool:
    """Tell parts from other files that may lie in a run directory."""
    return _NAME.fullmatch(relative) is not None


def serialise(table: pa.Table) -> bytes:
    """Write Parquet bytes whose footer names the SHA-256 of all that precedes it."""
    sink = io.BytesIO()
    writer = pq.ParquetWriter(sink, table.schema, compression="zstd")
    writer.write_table(table)
    writer.add_key_value_metadata({_HASH_KEY: hashlib.sha256(sink.getvalue()).hexdigest()})
    writer.close()
    return sink.getvalue()


def check(data: bytes, part: str) -> None:
    """Refuse a part whose bytes are not those its footer was written over, or of a wrong schema."""
    found = intact(data, part)
    folder: Folder = "explanations" if part.startswith("explanations/") else "failures"
    if not found.equals(SCHEMAS[folder]):
        raise RunDirError(f"part {part}: columns differ from this version's {folder} schema")


def intact(data: bytes, part: str) -> pa.Schema:
    """Give the schema of a file whose bytes are those its footer was written over."""
    try:
        footer = pq.read_metadata(pa.BufferReader(data))
        written = (footer.metadata or {}).get(_HASH_KEY.encode(), b"").decode()
        body = data[: len(data) - 8 - struct.unpack("<I", data[-8:-4])[0]]
        found = footer.schema.to_arrow_schema()
    except (pa.ArrowInvalid, OSError, struct.error, ValueError) as error:
        raise RunDirError(f"part {part}: not a Parquet file ({error})") from None
    if hashlib.sha256(body).hexdigest() != written:
        raise RunDirError(f"part {part}: its bytes do not match its own SHA-256")
    return found


def write(
    run: str, shard: int, fingerprint: str, explanations: pa.Table, failures: pa.Table
) -> list[Receipt]:
    """Store the rows of one shard, explanations first, and return a receipt for each.

    The order matters to a reader that looks in between: a clip in both counts as ok.
    """
    receipts: list[Receipt] = []
    for folder, rows in (("explanations", explanations), ("failures", failures)):
        part = name(folder, shard, fingerprint)  # type: ignore[arg-type]
        if rows.num_rows:
            storage.write(storage.join(run, part), serialise(rows))
        names = [name for name in _LIGHT if name in rows.schema.names]
        light: list[dict[str, Any]] = rows.select(names).to_pylist()
        receipts += [
            Receipt(
                clip_id=row["clip_id"],
                shard=shard,
                outcome="ok" if folder == "explanations" else "failed",
                stage=row.get("stage"),
                kind=row.get("kind"),
                part=part,
                usd=row["usd"],
            )
            for row in light
        ]
    return receipts


def read(run: str, part: str, columns: list[str] | None = None) -> pa.Table:
    """Read one part whole, or some of its columns."""
    data = storage.read(storage.join(run, part))
    try:
        return pq.read_table(pa.BufferReader(data), columns=columns)
    except pa.ArrowInvalid as error:
        raise RunDirError(f"part {part}: not a Parquet file ({error})") from None


def shard_of(part: str) -> int:
    """Read the shard out of a part's name."""
    match = _NAME.fullmatch(part)
    assert match is not None, part
    return int(match[2])
