"""`emer corpus`: turn a corpus on disk or S3 into a manifest, and say what is not in it and why.

    emer corpus meld s3://bucket/MELD.Raw --split test -o meld.parquet

ROOT is listed once; only label and transcript files are read, media never. The manifest is Parquet,
CSV or JSONL by its ending; beside it `<manifest>.left_out.csv` lists every file, label and line
that has no row, with the reason. docs/corpora.md describes each corpus.
"""

import csv
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final

import pyarrow.parquet as pq

from emer_ray import corpora, schema, storage
from emer_ray.corpora import LeftOut, Row
from emer_ray.errors import ConfigError

ENDINGS: Final = (".parquet", ".csv", ".jsonl")


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What was written, in numbers."""

    corpus: corpora.Corpus
    manifest: str
    left_out_uri: str
    rows: Sequence[Row]
    left_out: Sequence[LeftOut]

    def summary(self) -> dict[str, Any]:
        """Count clips by split and by label, and what was left out by reason."""
        labels = Counter(label for row in self.rows for label in _labels(row))
        return {
            "corpus": self.corpus.name,
            "licence_tag": self.corpus.licence_tag,
            "clips": len(self.rows),
            "splits": dict(Counter(row.split or "none" for row in self.rows).most_common()),
            "labels": dict(labels.most_common()),
            "left_out": dict(Counter(left.reason for left in self.left_out).most_common()),
            "manifest": self.manifest,
            "left_out_list": self.left_out_uri,
        }


def corpus(name: str, root: str, out: str, split: Sequence[str] = ()) -> Result:
    """Write the manifest of a corpus, or of some of its splits.

    Raises `ConfigError` for an unknown corpus, split or ending, `ManifestError` where ROOT is not
    that corpus, and `StorageError`.
    """
    ending = PurePosixPath(out).suffix.lower()
    if ending not in ENDINGS:
        raise ConfigError(f"{out}: a manifest ends in {', '.join(ENDINGS)}; choose another name")
    known = corpora.named(name)
    found = corpora.read(known, root)
    rows = _of_splits(found.rows, split)
    match ending:
        case ".parquet":
            data = _parquet(rows)
        case ".csv":
            data = _csv(rows)
        case _:
            data = _jsonl(rows)
    left_out_uri = f"{out.removesuffix(PurePosixPath(out).suffix)}.left_out.csv"
    storage.write(left_out_uri, _listed(found.left_out))
    storage.write(out, data)
    return Result(
        corpus=known,
        manifest=out,
        left_out_uri=left_out_uri,
        rows=rows,
        left_out=found.left_out,
    )


def described() -> list[dict[str, Any]]:
    """Say of every corpus what `emer corpus --list` shows."""
    return [
        {
            "name": known.name,
            "title": known.title,
            "labels": known.labels,
            "scale": known.scale,
            "splits": known.splits,
            "licence_tag": known.licence_tag,
            "licence": known.licence,
            "checked": known.checked,
            "layout": list(known.layout),
            "quirks": list(known.quirks),
        }
        for known in corpora.CORPORA
    ]


def _of_splits(rows: Sequence[Row], split: Sequence[str]) -> list[Row]:
    known = dict.fromkeys(row.split for row in rows if row.split)
    if unknown := [name for name in split if name not in known]:
        raise ConfigError(
            f"--split {unknown[0]}: no clip is in it; take of {', '.join(known) or 'none at all'}"
        )
    return [row for row in rows if not split or row.split in split]


def _labels(row: Row) -> list[str]:
    """Name the labels that a clip is counted under."""
    if row.label_onehot is not None:
        return [row.label_onehot]
    if row.label_ov:
        return list(dict.fromkeys(row.label_ov))
    if row.valence is not None:
        sign = ">" if row.valence > 0 else "<" if row.valence < 0 else "="
        return [f"valence {sign} 0"]
    return ["none"]


def _parquet(rows: Sequence[Row]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(corpora.table(rows), buffer, compression="zstd")
    return buffer.getvalue()


def _csv(rows: Sequence[Row]) -> bytes:
    lines = [_flat(row) for row in rows]
    columns = list(dict.fromkeys(name for line in lines for name in line))
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, columns, restval="", lineterminator="\n")
    writer.writeheader()
    for line in lines:
        writer.writerow({name: _cell(value) for name, value in line.items()})
    return buffer.getvalue().encode()


def _jsonl(rows: Sequence[Row]) -> bytes:
    return "".join(json.dumps(_flat(row), ensure_ascii=False) + "\n" for row in rows).encode()


def _flat(row: Row) -> dict[str, Any]:
    """Give what is known of a clip; what the manifest has no column for becomes one of its own."""
    cells = {name: getattr(row, name) for name in schema.MANIFEST.names if name != "extra"}
    extra = {
        name if name not in schema.MANIFEST.names else f"corpus_{name}": value
        for name, value in row.extra.items()
    }
    return {name: value for name, value in (cells | extra).items() if value is not None}


def _cell(value: Any) -> str:
    if isinstance(value, Mapping | list):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value)


def _listed(left_out: Sequence[LeftOut]) -> bytes:
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["what", "reason", "detail"])
    writer.writerows((left.what, left.reason, left.detail) for left in left_out)
    return buffer.getvalue().encode()
