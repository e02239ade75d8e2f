"""Tables of predictions and references, whoever wrote them, under our column names.

CSV, JSON, JSONL, Parquet and npz (without pickle) are read by their ending, a run directory by its
parts. Columns that are known under other names in the field are renamed; everything else is left as
it is.
"""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final
from zipfile import BadZipFile

import numpy as np
import polars as pl
import pyarrow as pa

from emer_ray import storage
from emer_ray.errors import ConfigError
from emer_ray.metrics.labels import parse
from emer_ray.store import layout, parts

ALIASES: Final[Mapping[str, tuple[str, ...]]] = {
    "clip_id": ("name", "names", "filename", "filenames", "video_name"),
    "openset": ("labels", "label_ov", "ov_labels", "fileitems"),
    "label": ("label_onehot", "onehot", "discrete", "emotion", "emotions"),
    "explanation": ("reason", "reasons", "description"),
    "valence": ("val",),
}
"""Our name of a column and the names it goes by elsewhere, best first."""

_TYPED: Final = {
    *("clip_id", "openset", "ranking", "label", "valence", "sentiment", "explanation"),
    "preference",
}

_RUN_COLUMNS: Final = ["clip_id", "attempt", "labels", "explanation", "media"]
_MOST_CELL: Final = 2**30
"""Characters of one csv cell; Python's own limit is shorter than some explanations."""

_READERS: Final = 16
"""Parts fetched at a time."""


def read(
    uri: str,
    columns: Mapping[str, str] | None = None,
    *,
    support: bool = False,
    also: Sequence[str] = (),
) -> pl.LazyFrame:
    """Read a table or a run directory. `columns` maps our names to those of the file and goes
    before the aliases; a file that has ours instead is read as it is.

    With `support`, labels that have one keep it: a list of {label, support}. `also` names more
    columns of a run's explanations.
    """
    frame = _open(uri, also)
    try:
        names = frame.collect_schema().names()
    except pl.exceptions.PolarsError as error:
        said = str(error).splitlines()[0]
        raise ConfigError(f"{uri}: not a readable {_ending(uri)} file ({said})") from None
    renamed: dict[str, str] = {}
    for ours, theirs in (columns or {}).items():
        if theirs in names:
            renamed[theirs] = ours
        elif not {ours, *ALIASES.get(ours, ())} & {*names}:
            raise ConfigError(f"{uri}: no column {theirs}; there are {', '.join(names)}")
    for ours, aliases in ALIASES.items():
        taken = [name for name in (ours, *aliases) if name in names and name not in renamed]
        if ours not in renamed.values() and taken:
            renamed[taken[0]] = ours
    shadowed = [new for old, new in renamed.items() if new in names and old != new]
    frame = frame.drop(shadowed).rename({o: n for o, n in renamed.items() if o != n})
    schema = frame.collect_schema()
    if "clip_id" not in schema.names():
        raise ConfigError(
            f"{uri}: no column names the clip; there are {', '.join(names)}. "
            "Call it name or clip_id, or give --columns clip_id=COLUMN"
        )
    typed = frame.with_columns(_typed(uri, schema, support=support))
    # a row without a name is the clip called "", as upstream reads it
    return typed.with_columns(pl.col("clip_id").cast(pl.String).fill_null(""))


def refuse_absent(uris: Sequence[str], columns: Mapping[str, str]) -> None:
    """Refuse a name of `columns` that none of the files has."""
    if not columns:
        return
    there = {name for uri in uris for name in _open(uri).collect_schema().names()}
    for theirs in columns.values():
        if theirs not in there:
            raise ConfigError(
                f"--columns: no column {theirs} in {' or '.join(uris)}; there are "
                f"{', '.join(sorted(there))}"
            )


def _typed(uri: str, schema: pl.Schema, *, support: bool) -> list[pl.Expr]:
    """Columns as the metrics read them: text, or lists of text; refuses what is neither."""
    found = []
    for name, kind in schema.items():
        column = pl.col(name)
        if name not in _TYPED:
            continue
        if isinstance(kind, pl.Array):
            kind, column = pl.List(kind.inner), column.arr.to_list()
        if isinstance(kind, pl.List) and name in ("openset", "ranking"):
            inner = kind.inner
            if isinstance(inner, pl.Struct) and "label" in [f.name for f in inner.fields]:
                # labels with support, as a run writes them
                plain = column.list.eval(pl.element().struct.field("label"))
                found += [] if support else [plain]
                continue
            if not isinstance(inner, pl.List | pl.Array | pl.Struct):
                found.append(column.cast(pl.List(pl.String)))
                continue
        if isinstance(kind, pl.List | pl.Struct | pl.Object) or kind == pl.Binary:
            wanted = "text or a list of text" if name in ("openset", "ranking") else "text"
            raise ConfigError(f"{uri}: column {name} holds {kind}; it needs {wanted}")
        if kind.is_float() and name != "valence":  # 1.0 is how a column with gaps spells 1
            whole = pl.when(column == column.round()).then(column.cast(pl.Int64, strict=False))
            found.append(pl.coalesce(whole.cast(pl.String), column.fill_nan(None).cast(pl.String)))
        elif name != "valence" and kind != pl.Null:
            found.append(column.cast(pl.String))
    return found


def is_table(uri: str) -> bool:
    """Tell a table from a run directory, by its ending."""
    return _ending(uri) in ("csv", "json", "jsonl", "ndjson", "parquet", "npz")


def _ending(uri: str) -> str:
    return uri.rsplit("/", 1)[-1].rpartition(".")[2].lower()


def _open(uri: str, also: Sequence[str] = ()) -> pl.LazyFrame:
    match _ending(uri):
        case "parquet":
            return _parquet(uri)
        case "csv":
            return _csv(uri)
        case "jsonl" | "ndjson":
            lines = _text(uri).split("\n")  # splitlines would also cut at U+2028 inside a text
            return _rows(uri, [_json(uri, line) for line in lines if line.strip()])
        case "json":
            return _json_rows(uri)
        case "npz":
            return _npz(uri)
    newest = (
        _run(uri, [*_RUN_COLUMNS, *also])
        .sort("attempt")
        .unique("clip_id", keep="last", maintain_order=True)
    )
    return newest.with_columns(pl.col("media").struct.field("decoded_s").alias("duration_s")).drop(
        "media", "attempt"
    )


def _run(uri: str, columns: Sequence[str]) -> pl.LazyFrame:
    """Read the explanations of a run that count: lazily from a disk, at once from a store."""
    found = [part for part in layout.live(uri) if part.folder == "explanations"]
    if not found:
        raise ConfigError(
            f"{uri}: neither a run directory with explanations nor a csv, json, jsonl, "
            "parquet or npz file"
        )
    if storage.is_s3(uri):
        with ThreadPoolExecutor(_READERS) as pool:
            tables = list(pool.map(lambda part: parts.read(uri, part, columns), found))
        return pl.DataFrame(pl.from_arrow(pa.concat_tables(tables))).lazy()
    plain = [storage.join(uri, part.name) for part in found if not part.hidden]
    scans = [pl.scan_parquet(plain, glob=False).select(columns)] if plain else []
    for part in found:
        if part.hidden:
            scan = pl.scan_parquet(storage.join(uri, part.name), glob=False)
            counted = scan.filter(~pl.col("shard").is_in(sorted(part.hidden)))
            scans.append(counted.select(columns))
    return pl.concat(scans)


def _parquet(uri: str) -> pl.LazyFrame:
    """Scan a local file lazily."""
    if storage.is_s3(uri):
        return pl.read_parquet(io.BytesIO(storage.read(uri))).lazy()
    if not storage.exists(uri):
        raise ConfigError(f"{uri}: no such file; check the path")
    return pl.scan_parquet(uri, glob=False)


def _text(uri: str) -> str:
    try:
        return storage.read(uri).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{uri}: not UTF-8 at byte {error.start}; convert it first") from None


def _csv(uri: str) -> pl.LazyFrame:
    """Every cell as text: what a cell means is decided where it is used. An empty cell is null."""
    csv.field_size_limit(_MOST_CELL)
    try:
        head, *rows = csv.reader(io.StringIO(_text(uri), newline=""))
        head = [name.strip() for name in head]
    except ValueError:
        raise ConfigError(f"{uri}: empty; a header line is needed") from None
    except csv.Error as error:
        raise ConfigError(f"{uri}: not a csv file ({error})") from None
    if twice := [name for name in head if name and head.count(name) > 1]:
        raise ConfigError(f"{uri}: two columns are called {twice[0]}; rename one of them")
    for number, row in enumerate(rows, start=2):
        if len(row) > len(head):
            raise ConfigError(
                f"{uri}: row {number} has {len(row)} cells, the header {len(head)}; "
                "quote cells with commas"
            )
    filled = [row + [""] * (len(head) - len(row)) for row in rows if row]
    data = {name: [row[i] or None for row in filled] for i, name in enumerate(head)}
    return pl.LazyFrame(data, schema=dict.fromkeys(head, pl.String))


def _json(uri: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{uri}: not JSON ({error})") from None


def _json_rows(uri: str) -> pl.LazyFrame:
    """A list of rows, or a map from clip to its labels or to its columns."""
    found = _json(uri, _text(uri))
    if isinstance(found, dict):
        cells = ((name, c if isinstance(c, dict) else {"openset": c}) for name, c in found.items())
        found = [{**cell, "clip_id": name} for name, cell in cells]
    if found == []:
        return pl.LazyFrame(schema={"clip_id": pl.String, "openset": pl.String})
    return _rows(uri, found)


def _rows(uri: str, rows: Any) -> pl.LazyFrame:
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ConfigError(f"{uri}: each row must be a JSON object with the columns as keys")
    try:
        return pl.LazyFrame(_uniform(rows), infer_schema_length=None)
    except (pl.exceptions.PolarsError, TypeError) as error:
        raise ConfigError(f"{uri}: rows disagree about a column's type ({error})") from None


def _uniform(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Make one kind of each column in which rows mix lists, text and numbers."""
    kinds: dict[str, set[type]] = {}
    for row in rows:
        for name, value in row.items():
            if value is not None:
                kinds.setdefault(name, set()).add(type(value))
    scalars = {str, int, float, bool}
    mixed = {
        name: list in found
        for name, found in kinds.items()
        if list in found or (str in found and len(found) > 1 and found <= scalars)
    }

    def one(name: str, value: Any) -> Any:
        if value is None or name not in mixed:
            return value
        if not mixed[name]:
            return str(value)
        listed = value if isinstance(value, list) else parse(str(value))
        plain = all(item is None or type(item) in scalars for item in listed)
        return [str(item) for item in listed if item is not None] if plain else listed

    return [{name: one(name, value) for name, value in row.items()} for row in rows]


def _npz(uri: str) -> pl.LazyFrame:
    """Columns as arrays of text, or an array of labels per clip."""
    try:
        with np.load(io.BytesIO(storage.read(uri)), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, AttributeError, BadZipFile) as error:
        raise ConfigError(
            f"{uri}: not an npz of text ({error}); pickled objects are not loaded, because they "
            f"can run code: store the arrays as text"
        ) from None
    columns = {
        name: (np.char.decode(array, "utf-8") if array.dtype.kind == "S" else array).tolist()
        for name, array in arrays.items()
    }
    if not {"clip_id", *ALIASES["clip_id"]} & columns.keys():
        return _rows(uri, [{"clip_id": name, "openset": cell} for name, cell in columns.items()])
    try:
        return pl.LazyFrame(columns)
    except pl.exceptions.PolarsError as error:
        raise ConfigError(f"{uri}: its arrays do not fit together ({error})") from None
