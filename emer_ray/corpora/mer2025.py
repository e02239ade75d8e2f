"""MER2025 and MER2026: 132,171 clips in one tree; each track brings labels for some of them."""

from collections.abc import Iterator
from dataclasses import replace

from emer_ray.corpora import mer, sheets
from emer_ray.corpora.row import Corpus, Row
from emer_ray.corpora.tree import Tree


def _rows(tree: Tree) -> Iterator[Row]:
    videos = tree.index(rf"video/(?:[^/]+/)*{mer.VIDEO}")
    sounds = tree.index(rf"audio/(?:[^/]+/)*{mer.SOUND}")
    yield from mer.clips(tree, videos, _labelled(tree), sounds)


def _labelled(tree: Tree) -> dict[str, Row]:
    """Collect what every track says of a clip; what people wrote goes before what models wrote."""
    labelled: dict[str, Row] = {}
    sheets_found = tree.files(r"(?P<track>track[^/]*)\.csv")
    by_track = {found["track"].lower(): found.string for found in sheets_found}
    for track in sorted(by_track, key=lambda track: ("mercaptionplus" in track, track)):
        if "emoprefer" in track or track == "track3_candidate":
            continue  # pairs of descriptions are judgements of systems, not labels of clips
        for line in tree.table(by_track[track], ["name"], mer.CHINESE):
            name = line["name"]
            row = labelled.get(name) or Row(clip_id=name)
            labelled[name] = _with(tree, row, track, line)
    return labelled


def _with(tree: Tree, row: Row, track: str, line: dict[str, str]) -> Row:
    """Add one track's line to what is known of its clip; the first to say something counts."""
    onehot = row.label_onehot
    if onehot is None and line.get("discrete"):
        onehot = mer.word(tree, row.clip_id, line["discrete"])
    ov = row.label_ov
    if ov is None and line.get("openset"):
        ov = sheets.words(line["openset"])
    valence = row.valence
    if valence is None:
        valence = tree.number(row.clip_id, "valence", line.get("valence"))
    extra = dict(row.extra)
    extra["tracks"] = " ".join(filter(None, (extra.get("tracks"), track)))
    if line.get("reason"):
        extra.setdefault("reason", line["reason"])
    trains = "train" in track or row.split == "train"
    return replace(
        row,
        split="train" if trains else "candidate",
        label_onehot=onehot,
        label_ov=ov,
        valence=valence,
        extra=extra,
    )


_TERMS = "gated; the terms forbid passing on the data and label files derived from it"
_LABELS = "neutral angry happy sad worried surprise (track 1); open vocabulary (track 2)"
_TREE = (
    "video/sample….mp4, audio/sample….wav, openface_face/ (not read)",
    "subtitle_chieng.csv (name, chinese, english)",
)
_QUIRKS = (
    "a clip may be in several tracks: one row, the tracks in extra.tracks; labels written by "
    "people go before those of mercaptionplus, which models wrote",
    "clips in no track have rows without a label and split",
)

MER2025 = Corpus(
    name="mer2025",
    title="MER2025",
    rows=_rows,
    layout=(
        *_TREE,
        "track1_train_disdim.csv (name, discrete, valence)",
        "track2_train_{ovmerd,mercaptionplus}.csv (name, openset)",
        "track3_train_*.csv (name, reason): into extra.reason",
        "track_all_candidates.csv (name)",
    ),
    labels=_LABELS,
    scale="valence as given, about -5..5",
    splits="train candidate",
    licence_tag="gated:MER2025",
    licence=_TERMS,
    quirks=_QUIRKS,
)

MER2026 = Corpus(
    name="mer2026",
    title="MER2026",
    rows=_rows,
    layout=(
        *_TREE,
        "track1_train.csv (name, discrete)",
        "track2_train_{human,mercaptionplus}.csv (name, openset)",
        "track1_track2_candidate.csv (name)",
        "track3_emoprefer*.csv, track3_candidate.csv: pairs of descriptions, not read",
    ),
    labels=_LABELS,
    scale="none",
    splits="train candidate",
    licence_tag="gated:MER2026",
    licence=_TERMS,
    quirks=(
        *_QUIRKS,
        "some mirrors have audio and video in 7z parts: unpack them first",
        "track 1 labels the listener, not the speaker",
    ),
)
