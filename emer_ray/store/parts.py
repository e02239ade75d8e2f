"""Parts: the Parquet files of shards. A part's key is shard + fingerprint, and it is stored with
one put.

Retries, resumes, other cluster sizes and a zombie writer all overwrite the same key with the same
rows. The footer carries a SHA-256 of everything before it, so that a part can be checked by
itself. `emer compact` puts many shards into one larger part, whose name tells the first and the
last of them; which parts count is the question of `emer_ray.store.layout`.
"""

import hashlib
import io
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, Final, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from emer_ray import schema, storage
from emer_ray.errors import RunDirError
from emer_ray.records import Receipt

Folder = Literal["explanations", "failures"]

SCHEMAS: Final[Mapping[Folder, pa.Schema]] = {
    "explanations": schema.EXPLANATIONS,
    "failures": schema.FAILURES,
}

LARGE: Final = 8 * 2**20
"""Bytes from which a part is read piecewise, only as far as it is needed."""

_PIECE: Final = 2**20
_LIGHT: Final = ("clip_id", "stage", "kind", "usd")
HASH_KEY = "emer_sha256"
NAME: Final = re.compile(r"(explanations|failures)/(\d{8,})-([0-9a-f]{12})\.parquet")
_COMPACTED = re.compile(
    r"(explanations|failures)/(\d{8,})-(\d{8,})-([0-9a-f]{12})-[0-9a-f]{8}\.parquet"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part that counts."""

    name: str
    """Relative to the run directory."""
    size: int
    """Bytes."""
    version: str
    """What the store says of it; changes when it is stored anew."""
    modified_s: float = 0.0
    """When it was stored, seconds since 1970 by the store's clock."""
    hidden: frozenset[int] = frozenset()
    """Shards of a compacted part that were stored anew in parts of their own: their rows here do
    not count."""

    @property
    def folder(self) -> Folder:
        return folder_of(self.name)


def name(folder: Folder, shard: int, fingerprint: str) -> str:
    """Name the part of a shard, relative to the run directory."""
    return f"{folder}/{shard:08d}-{fingerprint[:12]}.parquet"


def compacted_name(folder: Folder, first: int, last: int, fingerprint: str, mark: str) -> str:
    """Name a compacted part; `mark`, 8 hex digits, keeps two compactors from one name."""
    return f"{folder}/{first:08d}-{last:08d}-{fingerprint[:12]}-{mark}.parquet"


def is_part(relative: str) -> bool:
    """Tell the parts of shards from other files that may lie in a run directory."""
    return NAME.fullmatch(relative) is not None


def is_compacted(relative: str) -> bool:
    """Tell compacted parts from everything else."""
    return _COMPACTED.fullmatch(relative) is not None


def folder_of(relative: str) -> Folder:
    """Tell which folder a part lies in."""
    return "explanations" if relative.startswith("explanations/") else "failures"


def shards_of(relative: str) -> tuple[int, int]:
    """Read the first and the last shard out of a part's name."""
    if match := _COMPACTED.fullmatch(relative):
        return int(match[2]), int(match[3])
    match = NAME.fullmatch(relative)
    assert match is not None, relative
    return int(match[2]), int(match[2])


def fingerprint_of(relative: str) -> str:
    """Read the first 12 digits of the fingerprint out of a part's name."""
    match = _COMPACTED.fullmatch(relative) or NAME.fullmatch(relative)
    assert match is not None, relative
    return match[match.re.groups]


class Writer:
    """Writes a part in memory, row group by row group.

    The part of one shard is some 16 rows of 79 leaf columns: setting up zstd for each page,
    dictionaries and statistics would cost twice what its rows do, so that only `dense` parts, of
    many shards, have them.
    """

    def __init__(self, columns: pa.Schema, *, dense: bool) -> None:
        self._sink = io.BytesIO()
        self._writer = pq.ParquetWriter(
            self._sink,
            columns,
            compression="zstd" if dense else "snappy",
            use_dictionary=dense,
            write_statistics=dense,
        )

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self._sink.tell()

    def add(self, rows: pa.Table) -> None:
        """Append a row group."""
        self._writer.write_table(rows)

    def finished(self) -> bytes:
        """Return the bytes; the footer names the SHA-256 of all that precedes it."""
        digest = hashlib.sha256(self._sink.getbuffer()).hexdigest()
        self._writer.add_key_value_metadata({HASH_KEY: digest})
        self._writer.close()
        return self._sink.getvalue()


def serialise(rows: pa.Table) -> bytes:
    """Write a part of one row group."""
    writer = Writer(rows.schema, dense=False)
    writer.add(rows)
    return writer.finished()


def check(data: bytes | BinaryIO, part: str) -> None:
    """Refuse a part whose bytes are not those its footer was written over, or of a wrong schema."""
    folder = folder_of(part)
    if not intact(data, part).equals(SCHEMAS[folder]):
        raise RunDirError(f"part {part}: columns differ from this version's {folder} schema")


def intact(data: bytes | BinaryIO, part: str) -> pa.Schema:
    """Give the schema of a file whose bytes are those its footer was written over."""
    file = io.BytesIO(data) if isinstance(data, bytes) else data
    try:
        footer = pq.read_metadata(file)
        written = (footer.metadata or {}).get(HASH_KEY.encode(), b"").decode()
        end = file.seek(-8, io.SEEK_END)
        left = end - struct.unpack("<I", file.read(4))[0]
        found = footer.schema.to_arrow_schema()
    except (pa.ArrowInvalid, OSError, struct.error, ValueError) as error:
        raise RunDirError(f"part {part}: not a Parquet file ({error})") from None
    digest = hashlib.sha256()
    file.seek(0)
    while left > 0 and (piece := file.read(min(left, _PIECE))):
        digest.update(piece)
        left -= len(piece)
    if digest.hexdigest() != written:
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
        if not rows.num_rows:
            continue
        version = storage.write(storage.join(run, part), serialise(rows))
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
                version=version,
            )
            for row in light
        ]
    return receipts


def drop(run: str, part: str, shard: int) -> None:
    """Take the rows of a shard out of a part: delete its own part, or hide it in a compacted one.

    What hides it is a part of the shard without rows.
    """
    if not is_compacted(part):
        storage.delete(storage.join(run, part))
        return
    folder = folder_of(part)
    own = name(folder, shard, fingerprint_of(part))
    storage.write(storage.join(run, own), serialise(SCHEMAS[folder].empty_table()))


def read(run: str, part: Part, columns: Sequence[str] | None = None) -> pa.Table:
    """Read the rows of a part that count, whole or some of their columns."""
    with opened(run, part, whole=columns is None) as file:
        return table(file, part, columns)


@contextmanager
def opened(run: str, part: Part, *, whole: bool) -> Iterator[BinaryIO]:
    """Open a part: in memory, unless it is large and not wanted whole."""
    uri = storage.join(run, part.name)
    if part.size < LARGE or whole:
        yield io.BytesIO(storage.read(uri))
        return
    with storage.open_file(uri) as file:
        yield file


def table(file: BinaryIO, part: Part, columns: Sequence[str] | None = None) -> pa.Table:
    """Read the rows of an open part that count."""
    threads = part.size >= LARGE  # starting them costs more than a small part
    try:
        read = pq.ParquetFile(file).read(_also_shard(part, columns), use_threads=threads)
        return _counted(read, part, columns)
    except pa.ArrowInvalid as error:
        raise _damaged(part.name, error) from None


def groups(run: str, part: Part, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """Read the rows of a part that count, group by group, so that a large one fits in memory."""
    with opened(run, part, whole=False) as source:
        try:
            file = pq.ParquetFile(source)
            for number in range(file.num_row_groups):
                found = file.read_row_group(number, columns=_also_shard(part, columns))
                yield _counted(found, part, columns)
        except pa.ArrowInvalid as error:
            raise _damaged(part.name, error) from None


def _also_shard(part: Part, columns: Sequence[str] | None) -> list[str] | None:
    if columns is None:
        return None
    return list(dict.fromkeys([*columns, *(["shard"] if part.hidden else [])]))


def _counted(found: pa.Table, part: Part, columns: Sequence[str] | None) -> pa.Table:
    if not part.hidden:
        return found
    old = pc.is_in(found["shard"], value_set=pa.array(sorted(part.hidden), pa.int32()))
    found = found.filter(pc.invert(old))
    return found if columns is None else found.select(list(columns))


def around(run: str, part: str, clip_id: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Read the rows beside which a clip is stored: its whole part, or its group of a compacted one.

    For a part named by the index. Where the clip is not in it, the table is empty.
    """
    uri = storage.join(run, part)
    far = is_compacted(part)
    with storage.open_file(uri) if far else io.BytesIO(storage.read(uri)) as source:
        try:
            file = pq.ParquetFile(source)
            for number in range(file.num_row_groups):
                here = file.read_row_group(number, columns=["clip_id"])["clip_id"]
                if pc.any(pc.equal(here, clip_id)).as_py():
                    return file.read_row_group(number, columns=columns)
        except pa.ArrowInvalid as error:
            raise _damaged(part, error) from None
    nothing = SCHEMAS[folder_of(part)].empty_table()
    return nothing if columns is None else nothing.select(list(columns))


def _damaged(part: str, error: Exception) -> RunDirError:
    return RunDirError(
        f"part {part}: not a Parquet file ({' '.join(str(error).split())}); `emer verify --deep` "
        f"lists every damaged part; delete it, and `emer relabel` does its clips anew"
    )
