"""Answers that somebody stored, as if a model gave them now: third-party systems in our pipeline.

`models.<name>.model` names a CSV, JSONL, JSON, Parquet or npz file with a row per clip, a run
directory, or the merged round of a review. Columns are known by the names that the field uses;
others are named by `options.columns`. An npz is read without pickle: two arrays of strings
(`filenames` and `fileitems`), or one array per clip.
"""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from emer_ray import storage
from emer_ray.config import ModelConfig
from emer_ray.errors import ClipError, ConfigError
from emer_ray.records import NOTHING, Reply, Request
from emer_ray.store import index, layout, parts, record

COLUMNS: Final[Mapping[str, tuple[str, ...]]] = {
    "id": ("clip_id", "name", "names", "filenames", "filename"),
    "answer": ("answer", "raw"),
    "text": (
        *("explanation", "reason", "reasons", "description", "text"),
        *("english", "chinese", "chi_reasons", "eng_reasons"),
    ),
    "visual": ("visual_clues", "visual"),
    "acoustic": ("acoustic_clues", "acoustic"),
    "lexical": ("lexical_clues", "lexical"),
    "labels": ("labels", "openset", "label_ov", "fileitems"),
    "one_hot": ("one_hot", "label", "emotion"),
    "ranking": ("ranking",),
    "valence": ("valence",),
    "sentiment": ("sentiment",),
}
"""What a column may hold, and the names under which it is known, the first found winning."""

ENDINGS: Final = ("csv", "jsonl", "ndjson", "json", "parquet", "npz")

CLUES: Final = ("visual", "acoustic", "lexical")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayOptions:
    """`models.<name>.options` of this backend."""

    columns: Mapping[str, str] = field(default_factory=dict)
    """What -> the column that holds it, e.g. text = "english"."""

    @classmethod
    def of(cls, model: ModelConfig) -> "ReplayOptions":
        """Check plain options; raises ConfigError for an unknown one."""
        if unknown := sorted(model.options.keys() - {"columns"}):
            raise ConfigError(f"replay backend: unknown option {unknown[0]}; known: columns")
        options = cls(**model.options)
        if wrong := sorted(options.columns.keys() - COLUMNS.keys()):
            raise ConfigError(
                f"replay backend: options.columns.{wrong[0]} is unknown; take {', '.join(COLUMNS)}"
            )
        if not model.model:
            raise ConfigError("replay backend: set models.<name>.model to the file of answers")
        return options


class ReplayReasoner:
    """Looks every answer up by clip id."""

    def __init__(self, model: ModelConfig) -> None:
        self._uri = model.model
        self._rows = load(model.model, ReplayOptions.of(model).columns)

    def explain(self, requests: Sequence[Request]) -> list[Reply | ClipError]:
        """Give each clip's stored answer in the form that the step asks for."""
        return [self._reply(request) for request in requests]

    def _reply(self, request: Request) -> Reply | ClipError:
        row = self._rows.get(request.clues.clip_id)
        if row is None:
            return ClipError("no_answer", f"{self._uri} has no row for this clip")
        if request.form in CLUES and request.form in row:
            said = " ".join(clue["text"] for clue in _clues(row[request.form]))
            # the file speaks of such clues and has none here: that is known, not missing
            return Reply(raw=said) if said else Reply(raw="", finish=NOTHING, notes=(_NONE,))
        raw = _raw(row, request.form)
        if raw is None:
            return ClipError(
                "no_answer", f"{self._uri}: this clip's row holds nothing for {request.form}"
            )
        return Reply(raw=raw)

    def close(self) -> None:
        """Nothing to release."""


_NONE: Final = "the stored answer says that there is none"


def _clues(cell: Any) -> list[dict[str, Any]]:
    """Read clues: a list as a run has it, a list of texts (also as JSON in a cell), or one text."""
    if isinstance(cell, str) and cell.startswith("["):
        try:
            cell = json.loads(cell)
        except ValueError:
            cell = [cell]
    listed: list[Any] = [cell] if isinstance(cell, str) else list(cell or ())
    clues = [{"text": item, "evidence": []} if isinstance(item, str) else item for item in listed]
    return [clue for clue in clues if str(clue["text"]).strip()]


def _raw(row: Mapping[str, Any], form: str) -> str | None:
    if row.get("answer"):
        return str(row["answer"])
    match form:
        case "explanation":
            if row.get("labels") is None:
                return None
            clues = {f"{sense}_clues": _clues(row[sense]) for sense in CLUES if sense in row}
            said = {**clues, "explanation": row.get("text") or "", "labels": row["labels"]}
            return json.dumps(said, ensure_ascii=False)
        case "labels":
            if row.get("labels") is None:
                return None
            return json.dumps({"labels": row["labels"]}, ensure_ascii=False)
        case "one_hot":
            return _object("label", row.get("one_hot"))
        case "ranking" | "valence" | "sentiment":
            return _object(form, row.get(form))
        case _:
            return str(row["text"]) if row.get("text") else None


def _object(key: str, value: Any) -> str | None:
    return None if value is None or value == "" else json.dumps({key: value}, ensure_ascii=False)


def load(uri: str, named: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Read stored answers by clip id, each with the columns of `COLUMNS` that the file has.

    Raises ConfigError for a file without ids or without anything to replay, and for a clip twice.
    """
    rows = _read(uri)
    have = dict.fromkeys(name for row in rows for name in row)
    if missing := [column for column in named.values() if column not in have]:
        raise ConfigError(f"{uri}: no column {missing[0]!r}; it has {', '.join(have)}")
    chosen = {
        what: named.get(what) or next((name for name in names if name in have), None)
        for what, names in COLUMNS.items()
    }
    key = chosen.pop("id")
    known = {what: column for what, column in chosen.items() if column}
    if key is None or not known:
        raise ConfigError(
            f"{uri}: needs a clip id ({', '.join(COLUMNS['id'])}) and something to replay; it has "
            f"{', '.join(have) or 'no column'}; name columns in options.columns"
        )
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        clip_id = str(row.get(key))
        if clip_id in found:
            raise ConfigError(f"{uri}: clip {clip_id!r} has two rows; keep one of them")
        found[clip_id] = {what: row.get(column) for what, column in known.items()}
    return found


def _read(uri: str) -> list[dict[str, Any]]:
    ending = uri.rsplit("/", 1)[-1].rpartition(".")[2].lower()
    if ending not in ENDINGS:
        return _run(uri)
    data = storage.read(uri)
    try:
        match ending:
            case "csv":
                return list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline="")))
            case "jsonl" | "ndjson":
                # Lines of bytes: those of a string also end at U+2028, which JSON may hold.
                return [json.loads(line) for line in data.splitlines() if line.strip()]
            case "json":
                return _plain(json.loads(data))
            case "parquet":
                rows: list[dict[str, Any]] = pq.read_table(pa.BufferReader(data)).to_pylist()
                return rows
            case "npz":
                return _npz(uri, data)
    except (ValueError, pa.ArrowInvalid, csv.Error) as error:
        raise ConfigError(f"{uri}: not a readable {ending} file ({error})") from None
    raise AssertionError(ending)


def contents(uri: str) -> bytes:
    """Give what decides a replay's answers: a file's bytes, or what a run says of itself.

    That is which clips were explained under which fingerprint, and when they were read again; where
    their rows lie does not matter.
    """
    if uri.rsplit("/", 1)[-1].rpartition(".")[2].lower() in ENDINGS:
        return storage.read(uri)
    ok = index.outcomes(uri).filter(outcome="ok").select("clip_id", "shard", "part")
    made = sorted((clip, shard, parts.fingerprint_of(part)) for clip, shard, part in ok.iter_rows())
    again = (record.load(uri) or {}).get("reparsed", [])
    return json.dumps([made, [one["at"] for one in again]]).encode()


def _run(uri: str) -> list[dict[str, Any]]:
    """Read the explanations of a run directory; of a clip that was tried again the last one."""
    found = [part for part in layout.live(uri) if part.folder == "explanations"]
    if not found:
        raise ConfigError(
            f"{uri}: neither a run directory with explanations nor a {', '.join(ENDINGS)} file"
        )
    wanted = ["clip_id", "attempt", "explanation", "labels", *(f"{name}_clues" for name in CLUES)]
    tables = (table for part in found for table in parts.groups(uri, part, wanted))
    rows = sorted(
        (row for table in tables for row in table.to_pylist()), key=lambda r: r["attempt"]
    )
    return list({row["clip_id"]: row for row in rows}.values())


def _plain(found: Any) -> list[dict[str, Any]]:
    """A list of rows, or a map of clip to text or labels, as `name2reason` is."""
    if isinstance(found, dict) and set(found) == {"name2reason"}:
        found = found["name2reason"]
    if isinstance(found, dict):
        return [
            {"clip_id": name, "labels" if isinstance(item, list) else "text": item}
            for name, item in found.items()
        ]
    return list(found)


def _npz(uri: str, data: bytes) -> list[dict[str, Any]]:
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        try:
            arrays = {name: archive[name] for name in archive.files}
        except ValueError:
            raise ConfigError(
                f"{uri}: an array in it is a pickle, which can run code and is not read; save it "
                f"again as JSON: {{clip: text}}"
            ) from None
    if any(name in COLUMNS["id"] for name in arrays):
        columns = {name: array.tolist() for name, array in arrays.items()}
        rows = zip(*columns.values(), strict=True)
        return [dict(zip(columns, values, strict=True)) for values in rows]
    return _plain({name: array.tolist() for name, array in arrays.items()})
