"""Segments of recordings with a sentiment: what MOSI, MOSEI and the SIMS corpora share.

Their labels come as one table in the form of the MMSA toolkit. What the CMU SDK keeps in .csd and
pickle files is not read.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from emer_ray.corpora import sheets
from emer_ray.corpora.row import Row
from emer_ray.corpora.tree import Match, Tree

Key = tuple[str, int]
"""A recording and the number of a segment in it."""

_OF_ONE_SENSE: Final = ("label_T", "label_A", "label_V")


def labels(
    tree: Tree, pattern: str, fallback: str = "cp1252", intensities: Sequence[str] = ()
) -> dict[Key, Row]:
    """Read tables of `video_id, clip_id, label` and, where there are, `text, mode, label_T, …`.

    Columns named in `intensities` become `label_scores`. The text is English unless `fallback` is a
    Chinese encoding.
    """
    labelled: dict[Key, Row] = {}
    for sheet in tree.files(pattern):
        for line in tree.table(sheet.string, ["video_id", "clip_id", "label"], fallback):
            recording, number = line["video_id"], sheets.number(line["clip_id"])
            if number is None:
                what = f"{sheet.string}: {recording} {line['clip_id']}"
                tree.leave(what, "unreadable", "clip_id is not a number")
                continue
            clip_id = f"{recording}_{int(number)}"
            read = {name: tree.number(clip_id, name, line.get(name)) for name in intensities}
            said, chinese = line.get("text") or None, fallback != "cp1252"
            labelled[recording, int(number)] = Row(
                clip_id=clip_id,
                source_id=recording,
                subtitle_zh=said if chinese else None,
                subtitle_en=None if chinese else said,
                split=line.get("mode") or None,
                valence=tree.number(clip_id, "label", line["label"]),
                label_scores={name: x for name, x in read.items() if x is not None} or None,
                extra={name: line.get(name) or None for name in _OF_ONE_SENSE},
            )
    return labelled


def paths(tree: Tree, *patterns: str) -> dict[Key, str]:
    """Find media by the groups `vid` and `k`; the first pattern that finds a segment counts."""
    known: dict[Key, str] = {}
    for pattern in patterns:
        for found in tree.files(pattern):
            path = known.setdefault(key(found), found.string)
            if path != found.string:
                tree.leave(found.string, "duplicate", f"the segment is {path}")
    return known


def key(found: Match) -> Key:
    """Read the recording and the number of a segment out of a name."""
    return found["vid"], int(found["k"])


def say_what_is_absent(
    tree: Tree, labelled: Mapping[Key, Row], table: str, *media: Mapping[Key, str]
) -> None:
    """Note labels without media, or that there are no labels at all."""
    if not labelled:
        tree.leave(table, "no_label", "none is under ROOT (.csd and pickle files are not read)")
    for at in sorted(labelled.keys() - set().union(*media)):
        tree.leave(
            "_".join(map(str, at)),
            "no_media",
            "no media or no times of this segment; is ROOT whole?",
        )
