"""What an adapter says: the rows of a manifest, what it left out and why, and what it knows.

A `Row` is a typed view of `schema.MANIFEST`; a test asserts that both have the same columns.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import pyarrow as pa

from emer_ray import schema

if TYPE_CHECKING:
    from emer_ray.corpora.tree import Tree

Reason = Literal[
    "no_media",
    "no_label",
    "unmatched",
    "alternative",
    "duplicate",
    "broken",
    "unreadable",
    "hidden",
]

REASONS: Final[dict[Reason, str]] = {
    "no_media": "a label names a clip whose file is not under ROOT",
    "no_label": "labels that the corpus has are not under ROOT, or not in a form that is read",
    "unmatched": "a file with media that neither a label nor the corpus's grammar of names knows",
    "alternative": "another form of a clip that has a row: sound alone, aligned faces, …",
    "duplicate": "a second file or label for a clip that has one; the first counts",
    "broken": "known to be damaged in the release, or without a single byte",
    "unreadable": "a line, cell or name that does not obey the corpus's grammar",
    "hidden": "left behind by an operating system or an archiver",
}
"""Why something of a corpus has no place in its manifest."""

assert set(REASONS) == set(get_args(Reason))


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A file, a label or a line that is not in the manifest, and why."""

    what: str
    """Path below ROOT, or the clip as its label names it."""
    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A clip as its corpus describes it; `schema.MANIFEST` says what each column means."""

    clip_id: str
    video_uri: str | None = None
    audio_uri: str | None = None
    start_s: float | None = None
    end_s: float | None = None
    crop: tuple[float, float, float, float] | None = None
    fps: float | None = None
    subtitle_zh: str | None = None
    subtitle_en: str | None = None
    speaker: str | None = None
    source_id: str | None = None
    split: str | None = None
    corpus: str | None = None
    licence_tag: str | None = None
    composite: bool | None = None
    label_onehot: str | None = None
    label_ov: Sequence[str] | None = None
    label_scores: Mapping[str, float] | None = None
    valence: float | None = None
    extra: Mapping[str, str | None] = field(default_factory=dict)
    """What the corpus knows and the manifest has no column for; nulls are dropped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """A corpus: how to read it, and what its user has to know."""

    name: str
    title: str
    rows: Callable[["Tree"], Iterator[Row]]
    """Reads a listing of the corpus into rows; `corpus` and `licence_tag` are filled in after."""
    layout: Sequence[str]
    """Files that are expected under ROOT, at any depth."""
    labels: str
    scale: str
    """The gold scale of `valence` and `label_scores`."""
    splits: str
    licence_tag: str | None
    licence: str
    """The terms in words; the owner's text counts."""
    quirks: Sequence[str] = ()
    """Defects of the release and how each is met."""
    checked: str = "layout from published code and papers; never run on a real copy"


def table(rows: Sequence[Row]) -> pa.Table:
    """Build the manifest's table from rows."""
    return schema.table((_cells(row) for row in rows), schema.MANIFEST)


def _cells(row: Row) -> dict[str, Any]:
    cells = {column.name: getattr(row, column.name) for column in fields(row)}
    known = [(key, value) for key, value in row.extra.items() if value is not None]
    scores = row.label_scores
    return cells | {
        "extra": known or None,
        "label_scores": None if scores is None else list(scores.items()),
    }
