"""Read a manifest, the table of clips, from CSV, JSONL, Parquet or a folder of media.

The grammar: `clip_id` and one of `video_uri`, `audio_uri`; every other column of `schema.MANIFEST`
may be absent, and what it does not name is kept as text in `extra`. In CSV and JSONL every cell is
text first: a list is JSON, a Python list or words with commas, `crop` is x0,y0,x1,y1,
`label_scores` a JSON object. A blank cell is null. `subtitle` means `subtitle_zh` where it holds
Chinese characters, else `subtitle_en`; `licence` means `licence_tag`. A plain path is local,
relative to the manifest.

In a folder every video and sound is a clip, its id the path in the folder without the ending. A
video and a sound of one name are one clip with both; where two videos or two sounds share a name,
each file is a clip and keeps its ending.

Nothing here touches media. Rows that break the grammar refuse the manifest, all faults in one
error.
"""

import ast
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Final
from urllib.parse import urlsplit

import polars as pl
import pyarrow as pa

from emer_ray import schema, storage
from emer_ray.config import InputConfig
from emer_ray.errors import ConfigError, ManifestError

VIDEO_ENDINGS: Final = frozenset(
    [
        ".3gp",
        ".avi",
        ".flv",
        ".m4v",
        ".mkv",
        ".mov",
        ".mp4",
        ".mpeg",
        ".mpg",
        ".mts",
        ".ogv",
        ".ts",
        ".webm",
        ".wmv",
    ]
)
AUDIO_ENDINGS: Final = frozenset(
    [".aac", ".aif", ".aiff", ".flac", ".m4a", ".mp3", ".oga", ".ogg", ".opus", ".wav", ".wma"]
)

_MAX_ID: Final = 1000
"""Characters of a clip id; more is a cell that slipped."""

_MAX_LITERAL: Final = 100_000
"""Characters of a list that is read by Python: its parser takes memory many times the text."""

_SHOWN: Final = 5
"""Rows, ids or keys that a sentence names before it counts."""

_SLICE: Final = 1_000_000
"""Rows per Arrow chunk: a chunk of text must stay under 2 GiB."""

_SCORES: Final = pl.Map(pl.String, pl.Float64)
_EXTRA: Final = pl.Map(pl.String, pl.String)

_ALIASES: Final = {"licence": "licence_tag", "license": "licence_tag"}


def load(settings: InputConfig) -> pa.Table:
    """Read `input.manifest` as `schema.MANIFEST`, one row per clip, in the order given.

    `where`, `sample` and `limit` are applied in this order. Raises `ManifestError` with every fault
    of the grammar, and `StorageError` where the manifest itself cannot be read.
    """
    if settings.manifest is None:
        raise ConfigError(
            "input.manifest is not set; give a CSV, JSONL or Parquet file, or a folder of media"
        )
    source = storage.resolve(settings.manifest, str(Path.cwd()))
    if "://" in source and not storage.is_s3(source):
        raise ManifestError(f"manifest {source}: give a local path or an s3:// URI")
    raw, base = _read(source)
    faults = _column_faults(raw.columns)
    if not faults:
        clips, faults = _typed(raw)
        faults += _faults(clips, settings.allow_http)
    if faults:
        raise ManifestError(f"manifest {source}: {'; '.join(faults)}")
    for name in ("video_uri", "audio_uri"):
        clips = clips.with_columns(_resolved(clips[name], base))
    return _arrow(_chosen(clips, settings))


def _read(source: str) -> tuple[pl.DataFrame, str]:
    """Read the rows as they are, and name the folder that relative paths are relative to."""
    ending = PurePosixPath(source).suffix.lower()
    reader = _READERS.get(ending)
    if reader is None or (not storage.is_s3(source) and Path(source).is_dir()):
        return _folder(source), source
    with storage.fetched(source) as path:
        try:
            rows = reader(path)
        except (pl.exceptions.PolarsError, OSError) as error:
            reason = _bad_json_line(path) if reader is _jsonl else None
            reason = reason or str(error).strip().partition("\n")[0]
            raise ManifestError(
                f"manifest {source}: cannot be read as {ending[1:]} ({reason}); it must be whole, "
                "text in UTF-8, and every row as wide as the header"
            ) from None
    if rows.height == 0:
        raise ManifestError(f"manifest {source}: has no rows; give at least one clip")
    return rows, source.rpartition("/")[0]


def _csv(path: Path) -> pl.DataFrame:
    return pl.read_csv(path, infer_schema=False, glob=False)


def _tsv(path: Path) -> pl.DataFrame:
    return pl.read_csv(path, infer_schema=False, glob=False, separator="\t")


def _jsonl(path: Path) -> pl.DataFrame:
    # Given a path, polars would read it as a pattern.
    with path.open("rb") as names_from, path.open("rb") as rows:
        names = pl.scan_ndjson(names_from, infer_schema_length=None).collect_schema().names()
        return pl.read_ndjson(rows, schema=dict.fromkeys(names, pl.String()))


def _parquet(path: Path) -> pl.DataFrame:
    return pl.read_parquet(path, glob=False)


_READERS: Final[dict[str, Callable[[Path], pl.DataFrame]]] = {
    ".csv": _csv,
    ".tsv": _tsv,
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".parquet": _parquet,
}


def _bad_json_line(path: Path) -> str | None:
    with path.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                whole = not line.strip() or isinstance(json.loads(line), dict)
            except ValueError:
                whole = False
            if not whole:
                return f"line {number} is not a JSON object"
    return None


def _folder(source: str) -> pl.DataFrame:
    """List the media under a folder or prefix as rows of a manifest."""
    videos: dict[str, list[str]] = {}
    sounds: dict[str, list[str]] = {}
    root = source.rstrip("/") + "/"
    for entry in storage.listing(source):
        path = PurePosixPath(entry.uri.removeprefix(root))
        kind = path.suffix.lower()
        found = videos if kind in VIDEO_ENDINGS else sounds if kind in AUDIO_ENDINGS else None
        if found is not None and not any(part.startswith(".") for part in path.parts):
            found.setdefault(str(path.with_suffix("")), []).append(str(path))
    rows: list[tuple[str, str | None, str | None]] = []
    for name in sorted(videos.keys() | sounds.keys()):
        here, heard = videos.get(name, []), sounds.get(name, [])
        if len(here) <= 1 and len(heard) <= 1:
            rows.append((name, here[0] if here else None, heard[0] if heard else None))
        else:
            rows += [(path, path, None) for path in here]
            rows += [(path, None, path) for path in heard]
    if not rows:
        raise ManifestError(
            f"manifest {source}: no such file, and no folder with media; give a file ending in "
            f"{' '.join(_READERS)}, or a folder with files like .mp4 or .wav"
        )
    return pl.DataFrame(
        rows, schema=dict.fromkeys(("clip_id", "video_uri", "audio_uri"), pl.String()), orient="row"
    )


def _column_faults(names: Sequence[str]) -> list[str]:
    faults, given = [], ", ".join(names)
    if "clip_id" not in names:
        faults.append(f"there is no column clip_id, only {given}; rename the one that names clips")
    if not {"video_uri", "audio_uri"} & set(names):
        faults.append(f"there is no column video_uri or audio_uri, only {given}; rename one")
    repeated = [name for name in names if name.endswith("_duplicated_0")]  # polars' name for it
    if repeated:
        twice = ", ".join(name.removesuffix("_duplicated_0") for name in repeated)
        faults.append(f"columns are given twice: {twice}; rename or remove one of each")
    return faults


def _typed(raw: pl.DataFrame) -> tuple[pl.DataFrame, list[str]]:
    """Give every known column its type, keep the others, and tell which cells cannot be read."""
    raw = _without_aliases(raw.with_columns(_no_blanks(raw[name]) for name in raw.columns))
    columns: list[pl.Series] = []
    faults: list[str] = []
    for field in schema.MANIFEST:
        if field.name == schema.EXTRA.name:
            continue
        dtype, read, meaning = _TYPES[field.type]
        if field.name not in raw.columns:
            columns.append(pl.Series(field.name, [None], dtype=dtype).new_from_index(0, raw.height))
            continue
        cells = raw[field.name]
        values = read(cells)
        wrong = cells.is_not_null() & values.is_null()
        if wrong.any():
            example = str(cells.filter(wrong)[0])[:60]
            faults.append(
                f"{field.name} is not {meaning} in {_rows(wrong)}, for example {example!r}"
            )
        columns.append(values.rename(field.name))
    # A run's own copy of a manifest may be read again; its bookkeeping is not the user's.
    of_a_run = set(schema.RUN_MANIFEST.names)
    known = of_a_run if of_a_run <= set(raw.columns) else set(schema.MANIFEST.names)
    known = known - {schema.EXTRA.name}
    columns += [raw[name] for name in raw.columns if name not in known]
    typed = pl.DataFrame(columns).with_columns(pl.col("valence").fill_nan(None))
    return typed, faults


def _without_aliases(raw: pl.DataFrame) -> pl.DataFrame:
    for alias, name in _ALIASES.items():
        if alias in raw.columns:
            given = pl.coalesce(name, alias) if name in raw.columns else pl.col(alias)
            raw = raw.with_columns(given.alias(name)).drop(alias)
    if "subtitle" not in raw.columns:
        return raw
    said = pl.col("subtitle").cast(pl.String)
    chinese = said.str.contains(r"\p{Han}")
    for name, words in (
        ("subtitle_zh", pl.when(chinese).then(said)),
        ("subtitle_en", pl.when(~chinese).then(said)),
    ):
        given = pl.coalesce(name, words) if name in raw.columns else words
        raw = raw.with_columns(given.alias(name))
    return raw.drop("subtitle")


def _no_blanks(cells: pl.Series) -> pl.Series:
    if cells.dtype != pl.String:
        return cells
    return (
        pl.select(pl.when(cells.str.strip_chars() != "").then(cells)).to_series().rename(cells.name)
    )


def _nulls(cells: pl.Series, dtype: pl.DataType) -> pl.Series:
    return pl.Series([None], dtype=dtype).new_from_index(0, len(cells))


def _text(cells: pl.Series) -> pl.Series:
    if cells.dtype.is_nested() or cells.dtype == pl.Binary:
        return _nulls(cells, pl.String())
    return cells.cast(pl.String)


def _number(cells: pl.Series) -> pl.Series:
    if cells.dtype == pl.String:
        return cells.str.strip_chars().cast(pl.Float64, strict=False)
    return cells.cast(pl.Float64) if cells.dtype.is_numeric() else _nulls(cells, pl.Float64())


def _truth(cells: pl.Series) -> pl.Series:
    if cells.dtype == pl.Boolean:
        return cells
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    text = _text(cells).str.strip_chars().str.to_lowercase()
    return text.replace_strict(words, default=None, return_dtype=pl.Boolean)


def _numbers(cells: pl.Series) -> pl.Series:
    numbers = pl.List(pl.Float64)
    if cells.dtype == pl.String:
        split = cells.str.strip_chars(" []()").str.split(",")
        each = pl.element().str.strip_chars().cast(pl.Float64, strict=False)
    elif isinstance(cells.dtype, pl.List | pl.Array) and cells.dtype.inner.is_numeric():
        split, each = cells.cast(numbers), pl.element()
    else:
        return _nulls(cells, numbers)
    values = split.list.eval(each)
    whole = values.list.eval(pl.element().is_not_null()).list.all()
    return pl.select(pl.when(whole).then(values)).to_series()


_QUOTED: Final = r"""(?:"[^"\\]*"|'[^'\\]*')"""
_NUMBER: Final = r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"
_PAIR: Final = rf"{_QUOTED}\s*:\s*{_NUMBER}"


def _words(cells: pl.Series) -> pl.Series:
    """Read lists of words: `["a", "b"]`, `['a', 'b']`, `[a, b]` or `a, b`."""
    words = pl.List(pl.String)
    if isinstance(cells.dtype, pl.List | pl.Array):
        inner = cells.dtype.inner
        return cells.cast(words).list.drop_nulls() if inner == pl.String else _nulls(cells, words)
    if cells.dtype != pl.String:
        return _nulls(cells, words)
    text = cells.str.strip_chars()
    quoted = text.str.contains(rf"^\[\s*(?:{_QUOTED}(?:\s*,\s*{_QUOTED})*)?\s*,?\s*\]$")
    bare = text.str.contains(r"""^(?:\[[^"\[\]{}\\]*\]|[^"\[\]{}\\]*)$""") & ~text.str.contains(
        r"^\[\s*'"
    )
    values = pl.select(
        pl.when(quoted)
        .then(text.str.extract_all(_QUOTED).list.eval(_unquoted(pl.element())))
        .when(bare)
        .then(text.str.strip_chars("[]").str.split(","))
    ).to_series()
    values = _by_python(text, values, _word_list)
    stripped = values.list.eval(pl.element().str.strip_chars())
    return stripped.list.eval(pl.element().filter(pl.element() != ""))


def _unquoted(word: pl.Expr) -> pl.Expr:
    return word.str.slice(1, word.str.len_chars() - 2)


def _word_list(value: Any) -> list[str] | None:
    if not isinstance(value, list | tuple) or not all(isinstance(word, str) for word in value):
        return None
    return list(value)


def _scores(cells: pl.Series) -> pl.Series:
    """Read word -> number: a JSON object or Python dict; in Parquet a map or a struct."""
    pairs = pl.List(pl.Struct({"key": pl.String, "value": pl.Float64}))
    if cells.dtype == pl.String:
        text = cells.str.strip_chars()
        plain = text.str.contains(rf"^\{{\s*(?:{_PAIR}(?:\s*,\s*{_PAIR})*)?\s*\}}$")
        pair = pl.element()
        value = pair.str.extract(rf"({_NUMBER})$").cast(pl.Float64, strict=False)
        key = _unquoted(pair.str.extract(rf"^({_QUOTED})"))
        found = text.str.extract_all(_PAIR).list.eval(
            pl.struct(key.alias("key"), value.alias("value"))
        )
        values = pl.select(pl.when(plain).then(found)).to_series().cast(pairs)
        values = _by_python(text, values, _score_pairs)
    elif isinstance(cells.dtype, pl.Struct):
        each = [
            pl.struct(
                pl.lit(field.name).alias("key"),
                cells.struct.field(field.name).cast(pl.Float64).alias("value"),
            )
            for field in cells.dtype.fields
        ]
        values = pl.select(pl.when(cells.is_not_null()).then(pl.concat_list(each))).to_series()
    elif isinstance(cells.dtype, pl.Map):
        values = cells.map.entries().cast(pairs)
    else:
        return _nulls(cells, _SCORES)
    known = pl.element().filter(pl.element().struct.field("value").is_not_null())
    return values.list.eval(known).cast(_SCORES)


def _score_pairs(value: Any) -> list[dict[str, Any]] | None:
    if not isinstance(value, dict):
        return None
    numbers = (int, float, type(None))
    if not all(isinstance(key, str) and type(share) in numbers for key, share in value.items()):
        return None
    try:
        return [{"key": k, "value": None if v is None else float(v)} for k, v in value.items()]
    except OverflowError:
        return None


def _by_python(text: pl.Series, values: pl.Series, check: Callable[[Any], Any]) -> pl.Series:
    """Read the few cells that the vectorised way left: escapes, mixed quotes, or no value."""
    left = text.is_not_null() & values.is_null()
    if not left.any():
        return values
    read = [check(_literal(cell)) for cell in text.filter(left)]
    spread = pl.Series(read, dtype=values.dtype).gather(
        left.cum_sum().cast(pl.Int64) - 1, null_on_oob=True
    )
    return spread.zip_with(left, values)


def _literal(text: str) -> Any:
    if len(text) > _MAX_LITERAL:
        return None
    for read in (json.loads, ast.literal_eval):
        try:
            value = read(text)
            json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair is no text
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            continue
        return value
    return None


_TYPES: Final[dict[pa.DataType, tuple[Any, Callable[[pl.Series], pl.Series], str]]] = {
    schema.CLIP_ID.type: (pl.String(), _text, "text"),
    schema.START_S.type: (pl.Float64(), _number, "a number"),
    schema.COMPOSITE.type: (pl.Boolean(), _truth, "true or false"),
    schema.CROP.type: (pl.List(pl.Float64), _numbers, "a list of numbers"),
    schema.LABEL_OV.type: (pl.List(pl.String), _words, "a list of words"),
    schema.LABEL_SCORES.type: (_SCORES, _scores, "a map of words to numbers"),
}


def _faults(clips: pl.DataFrame, allow_http: bool) -> list[str]:
    """Say in one sentence each what in the typed rows breaks the grammar."""
    clip_id, video, audio = pl.col("clip_id"), pl.col("video_uri"), pl.col("audio_uri")
    start, end, fps, crop = pl.col("start_s"), pl.col("end_s"), pl.col("fps"), pl.col("crop")
    x0, y0, x1, y1 = (crop.list.get(i, null_on_oob=True) for i in range(4))
    inside = (crop.list.len() == 4) & (x0 >= 0) & (x0 < x1) & (x1 <= 1) & (y0 >= 0) & (y0 < y1)
    checks = {
        "clip_id is missing in {}": clip_id.is_null(),
        "clip_id holds a line break or another control character in {}": clip_id.str.contains(
            r"\p{Cc}"
        ),
        f"clip_id is longer than {_MAX_ID} characters in {{}}": clip_id.str.len_chars() > _MAX_ID,
        "neither video_uri nor audio_uri is given in {}": video.is_null() & audio.is_null(),
        "start_s is negative or not finite in {}": ~(start.is_finite() & (start >= 0)),
        "end_s is not finite in {} (for the end of the file leave it blank)": ~end.is_finite(),
        "end_s is not after start_s in {}": end <= start.fill_null(0.0),
        "crop is not x0, y0, x1, y1 with 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1 in {}": ~(
            inside & (y1 <= 1)
        ),
        "fps is not above 0 in {}": ~(fps.is_finite() & (fps > 0)),
        "fps is given without video_uri, its folder of images, in {}": fps.is_not_null()
        & video.is_null(),
        "label_scores holds a value that is not finite in {}": ~pl.col("label_scores")
        .map.values()
        .list.eval(pl.element().is_finite())
        .list.all(),
    }
    found = clips.select(check.fill_null(False).alias(what) for what, check in checks.items())
    faults = [what.format(_rows(found[what])) for what in checks if found[what].any()]
    faults += _repeated_ids(clips["clip_id"])
    for name in ("video_uri", "audio_uri"):
        faults += _uri_faults(clips[name], allow_http)
    return faults


def _rows(wrong: pl.Series) -> str:
    """Name the rows where a mask holds, from 1 without the header: a few, and how many more."""
    numbers = (wrong.arg_true() + 1).to_list()
    shown = ", ".join(str(number) for number in numbers[:_SHOWN])
    more = f" and {len(numbers) - _SHOWN} more" if len(numbers) > _SHOWN else ""
    return f"data row{'s' if len(numbers) > 1 else ''} {shown}{more}"


def _repeated_ids(ids: pl.Series) -> list[str]:
    if ids.n_unique() == len(ids):  # a quarter of a second for a million ids sooner than below
        return []
    wrong = ids.is_duplicated() & ids.is_not_null()
    if not wrong.any():
        return []
    names = ids.filter(wrong).unique(maintain_order=True)
    shown = [f"{name!r} in {_rows((ids == name).fill_null(False))}" for name in names[:_SHOWN]]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return [f"clip_id is given more than once: {', '.join(shown)}{more}"]


def _uri_faults(uris: pl.Series, allow_http: bool) -> list[str]:
    name = uris.name
    scheme = uris.str.extract(r"^([A-Za-z][A-Za-z0-9+.-]*):/")
    web = scheme.is_in(["http", "https"]).fill_null(False)
    known = scheme.is_in(["file", "s3", "http", "https"]).fill_null(True)
    masks = {
        f"{name} has a scheme other than file, s3 or http(s) in {{}}": ~known,
        f"{name} holds a line break or another control character in {{}}": uris.str.contains(
            r"\p{Cc}"
        ),
        f"{name} is not s3://bucket/key in {{}}": (scheme == "s3")
        & ~uris.str.contains(r"^s3://[^/]+/[^/]"),
        f"{name} is not file:///absolute/path in {{}}": (scheme == "file")
        & ~uris.str.contains(r"^file://(localhost)?/[^/]"),
    }
    if not allow_http:
        masks[f"{name} is http(s) in {{}}; set input.allow_http = true to read from the web"] = web
    elif web.any():
        host = uris.str.extract(r"^https?://([^/?#]*)")
        private = [host for host in host.unique().drop_nulls() if _is_refused(host)]
        masks[
            f"{name} names no host, a password, or a loopback, link-local or private host in {{}}"
        ] = web & host.fill_null("").is_in(["", *private])
    masks = {what: mask.fill_null(False) for what, mask in masks.items()}
    return [what.format(_rows(mask)) for what, mask in masks.items() if mask.any()]


def _is_refused(netloc: str) -> bool:
    from emer_ray.storage.web import is_private_name

    try:
        parts = urlsplit(f"//{netloc}")
        return not parts.hostname or parts.username is not None or is_private_name(parts.hostname)
    except ValueError:
        return True


def _resolved(uris: pl.Series, base: str) -> pl.Series:
    """Make every path absolute; only unusual ones need more than a prefix."""
    unusual = uris.str.contains(r"^file://|^\.\.?/|/\.{0,2}/|/\.{0,2}$") & ~uris.str.contains(
        "^(s3|https?)://"
    )
    relative = ~uris.str.contains("^(/|[a-z0-9]+://)")
    names = {path: storage.resolve(path, base) for path in uris.filter(unusual).unique()}
    return pl.select(
        pl.when(unusual)
        .then(uris.replace_strict(names, default=None, return_dtype=pl.String))
        .when(relative)
        .then(pl.lit(base.rstrip("/") + "/") + uris)
        .otherwise(uris)
        .alias(uris.name)
    ).to_series()


def _chosen(clips: pl.DataFrame, settings: InputConfig) -> pl.DataFrame:
    if settings.where is not None:
        try:
            kept = clips.filter(pl.sql_expr(settings.where))
        except pl.exceptions.PolarsError as error:
            reason = re.split("[;\n]", str(error).strip())[0]
            raise ManifestError(
                f"input.where = {settings.where!r} does not work ({reason}); "
                f"write a SQL condition over the columns {', '.join(clips.columns)}"
            ) from None
        if kept.height == 0:
            raise ManifestError(
                f"input.where = {settings.where!r} keeps none of {clips.height} clips; change it"
            )
        clips = kept
    if settings.sample is not None and settings.sample < clips.height:
        drawn = pl.Series("drawn", [_draw(settings.seed, name) for name in clips["clip_id"]])
        order = pl.DataFrame(
            {"drawn": drawn, "row": range(clips.height), "clip_id": clips["clip_id"]}
        )
        kept_rows = order.sort("drawn", "clip_id")["row"].head(settings.sample).sort()
        clips = clips[kept_rows]
    return clips if settings.limit is None else clips.head(settings.limit)


def _draw(seed: int, clip_id: str) -> int:
    """Give a clip its place in the draw: the same wherever it stands, and beside whatever."""
    key = f"{seed} {clip_id}".encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big")


def _arrow(clips: pl.DataFrame) -> pa.Table:
    known = [name for name in schema.MANIFEST.names if name != schema.EXTRA.name]
    others = [name for name in clips.columns if name not in known]
    clips = clips.select(*known, _extra(clips, others))
    slices = [part.to_arrow().cast(schema.MANIFEST) for part in clips.iter_slices(_SLICE)]
    return pa.concat_tables(slices)


def _extra(clips: pl.DataFrame, names: Sequence[str]) -> pl.Series:
    """Pack columns into one map of text; a null cell is left out, a row of them is null."""
    if not names:
        return _nulls(clips["clip_id"], _EXTRA).rename("extra")
    pairs = []
    for name in names:
        if name == schema.EXTRA.name and clips[name].dtype == _EXTRA:  # the manifest of a run
            pairs.append(pl.col(name).map.entries().fill_null([]))
        else:
            text = pl.lit(_as_text(clips[name]))
            pairs.append(pl.concat_list(pl.struct(pl.lit(name).alias("key"), text.alias("value"))))
    known = pl.element().filter(pl.element().struct.field("value").is_not_null())
    packed = pl.concat_list(pairs).list.eval(known)
    some = pl.when(packed.list.len() > 0).then(packed)
    return clips.select(some.cast(_EXTRA).alias("extra")).to_series()


def _as_text(cells: pl.Series) -> pl.Series:
    if cells.dtype == pl.Binary:
        return cells.bin.encode("base64")
    if not cells.dtype.is_nested():
        return cells.cast(pl.String)
    # Only a struct can be written as JSON: it is taken off again.
    whole = cells.to_frame("x").to_struct().struct.json_encode()
    text = whole.str.strip_prefix('{"x":').str.strip_suffix("}")
    return pl.select(pl.when(cells.is_not_null()).then(text)).to_series()
