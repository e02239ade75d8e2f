"""The files of an export, format by format: names below the folder, and bytes.

hf             data/SPLIT-00000.parquet …, which `datasets.load_dataset(FOLDER)` reads
csv            explanations.csv, a clip a line, lists as JSON; inert in spreadsheet programs
jsonl          explanations.jsonl, a clip a line
mer            the tables of the MER challenges: openset.csv, openset.npz, reason.csv, disdim.csv
llama-factory  dataset_info.json and emer.json in its sharegpt layout, media by URI
"""

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal, get_args

import numpy as np
import pyarrow.parquet as pq

from emer_ray import inert, schema
from emer_ray.release.rows import RELEASED, SENSES, Row

Format = Literal["hf", "csv", "jsonl", "mer", "llama-factory"]
FORMATS: Final[tuple[Format, ...]] = get_args(Format)

ROWS: Final = 20_000
"""Rows of one Parquet file."""

Files = Iterator[tuple[str, bytes]]


def split_name(split: str | None) -> str:
    """Name a split as `datasets` can take it; clips without one are `train`, as its default is."""
    return re.sub(r"\W+", "_", split or "").strip("_") or "train"


def hf(rows: Iterable[Row]) -> Files:
    """Parquet by split, a file whenever `ROWS` rows have come together."""
    waiting: dict[str, list[Row]] = {}
    numbers: dict[str, int] = {}

    def file(split: str) -> tuple[str, bytes]:
        number = numbers.get(split, 0)
        numbers[split] = number + 1
        sink = io.BytesIO()
        table = schema.table(waiting.pop(split), RELEASED)
        # our own documentation of the columns is no business of datasets' feature types
        pq.write_table(table.replace_schema_metadata(None), sink, compression="zstd")
        return f"data/{split}-{number:05d}.parquet", sink.getvalue()

    for row in rows:
        split = split_name(row["split"])
        waiting.setdefault(split, []).append(row)
        if len(waiting[split]) == ROWS:
            yield file(split)
    for split in list(waiting):
        yield file(split)


def csv_file(rows: Iterable[Row]) -> Files:
    """One CSV with a BOM, by which spreadsheet programs know UTF-8."""
    lines = ([_cell(row[name]) for name in RELEASED.names] for row in rows)
    yield "explanations.csv", _csv(RELEASED.names, lines).encode("utf-8-sig")


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, str):
        return inert.csv_cell(inert.plain(value))
    return repr(value)


def _csv(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(lines)
    return text.getvalue()


def jsonl(rows: Iterable[Row]) -> Files:
    """One line of JSON a clip."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    yield "explanations.jsonl", text.encode()


def mer(rows: Iterable[Row]) -> Files:
    """The challenges' tables: labels as a Python list in a cell, and as arrays of strings.

    Their parser separates at quotes and commas wherever they stand (science §c.1), so these signs
    become spaces inside a label.
    """
    kept = list(rows)
    names = [row["clip_id"] for row in kept]
    cells = [str([_separable(label) for label in row["labels"]]) for row in kept]
    yield "openset.csv", _csv(["name", "openset"], zip(names, cells, strict=True)).encode()
    arrays = io.BytesIO()
    np.savez_compressed(arrays, filenames=np.array(names), fileitems=np.array(cells))
    yield "openset.npz", arrays.getvalue()
    reasons = [inert.csv_cell(inert.plain(row["explanation"])) for row in kept]
    yield "reason.csv", _csv(["name", "reason"], zip(names, reasons, strict=True)).encode()
    if any(row["one_hot"] or row["valence"] is not None for row in kept):
        lines = ([row["clip_id"], _cell(row["one_hot"]), _cell(row["valence"])] for row in kept)
        yield "disdim.csv", _csv(["name", "discrete", "valence"], lines).encode()


def _separable(label: str) -> str:
    return " ".join(re.sub(r"""['",\[\]]""", " ", inert.plain(label)).split())


_PLACE = re.compile(r"<(?=/?\s*(?:image|video|audio)\b)", re.IGNORECASE)
"""LLaMA-Factory puts media where these tags stand; text of a clip must not hold one."""


def llama_factory(
    rows: Iterable[tuple[Row, Mapping[str, Any]]], asked: Callable[[Row], str]
) -> Files:
    """Its sharegpt layout: what a model is asked of a clip, and the explanation as its answer.

    `rows` come with their manifest rows; `asked` words the question. Only whole files can be shown:
    see `part_of_a_file`.
    """
    entries = []
    for row, listed in rows:
        places = {"videos": listed.get("video_uri"), "audios": listed.get("audio_uri")}
        tags = "".join(
            tag for tag, uri in zip(("<video>", "<audio>"), places.values(), strict=True) if uri
        )
        answer = {
            **{f"{sense}_clues": row[f"{sense}_clues"] for sense in SENSES},
            "explanation": row["explanation"],
            "labels": row["labels"],
        }
        said = json.dumps(answer, ensure_ascii=False)
        entries.append(
            {
                "messages": [
                    {"role": "user", "content": tags + _PLACE.sub("< ", asked(row))},
                    {"role": "assistant", "content": _PLACE.sub("< ", said)},
                ],
                **{name: [uri] if uri else [] for name, uri in places.items()},
                "clip_id": row["clip_id"],
            }
        )
    about = {
        "emer": {
            "file_name": "emer.json",
            "formatting": "sharegpt",
            "columns": {"messages": "messages", "videos": "videos", "audios": "audios"},
            "tags": {
                "role_tag": "role",
                "content_tag": "content",
                "user_tag": "user",
                "assistant_tag": "assistant",
                "system_tag": "system",
            },
        }
    }
    yield "dataset_info.json", json.dumps(about, indent=2).encode()
    yield "emer.json", json.dumps(entries, ensure_ascii=False, indent=1).encode()


def part_of_a_file(listed: Mapping[str, Any]) -> str | None:
    """Say why a clip is no whole file, which is all that LLaMA-Factory can show; else null."""
    if listed.get("start_s") is not None or listed.get("end_s") is not None:
        return "window"
    if listed.get("crop") is not None:
        return "crop"
    return "image_folder" if listed.get("fps") is not None else None
