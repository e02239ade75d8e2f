"""AFEW: clips of films; the folder is the label."""

from collections.abc import Iterator
from typing import Final

from emer_ray.corpora.row import Corpus, Row
from emer_ray.corpora.tree import Match, Tree

WORDS: Final = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")

_CLIP: Final = rf"(?P<split>Train|Val)_AFEW/(?:{'|'.join(WORDS)})/(?P<name>[^/]+)\.(?:avi|mp4)"


def _rows(tree: Tree) -> Iterator[Row]:
    videos = tree.index(_CLIP, _clip_id)
    for clip_id, path in videos.items():
        yield Row(
            clip_id=clip_id,
            video_uri=tree.take(path),
            split=clip_id.partition("_")[0],
            label_onehot=path.split("/")[-2].lower(),
        )
    faces = r"(?P<split>Train|Val)_AFEW/AlignedFaces_LBPTOP_Points[^/]*/Faces/(?P<name>[^/]+)"
    for match in tree.folders(faces):
        if _clip_id(match) in videos:
            tree.leave(match.string, "alternative", f"aligned faces of {_clip_id(match)}")


def _clip_id(found: Match) -> str:
    return f"{found['split'].lower()}_{found['name']}"


AFEW = Corpus(
    name="afew",
    title="AFEW",
    rows=_rows,
    layout=("{Train,Val}_AFEW/<Emotion>/<id>.avi",),
    labels="angry disgust fear happy neutral sad surprise",
    scale="none",
    splits="train val; the test set has no public labels",
    licence_tag="gated:AFEW",
    licence="EmotiW agreement",
    quirks=(
        "AlignedFaces_LBPTOP_Points holds the same clips as pictures: listed as alternative",
        "clip_id is <split>_<id>",
    ),
    checked="layout from memory of published code; never run on a real copy",
)
