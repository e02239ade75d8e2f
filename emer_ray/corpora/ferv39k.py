"""FERV39k: clips of 22 scenes with one of seven expressions, released as folders of pictures."""

from collections.abc import Iterator
from typing import Final

from emer_ray.corpora.row import Corpus, Row
from emer_ray.corpora.tree import Match, Tree

WORDS: Final = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")

_CLIP: Final = rf"(?P<name>[^/]+/(?:{'|'.join(WORDS)})/[^/.]+)"

_FPS: Final = 25.0
"""The pictures come without times; films have about 25 a second."""


def _rows(tree: Tree) -> Iterator[Row]:
    pictures = tree.index(rf"2_ClipsforFaceCrop/{_CLIP}", _name, images=True)
    videos = tree.index(rf"{_CLIP}\.(?:mp4|avi)", _name)
    for sheet in tree.files(r"4_setups/All_scenes/(?P<split>train|test)_All\.csv"):
        for line in tree.lines(sheet.string):
            clip, _, label = line.rpartition(" ")
            if label.lower() not in WORDS or clip.count("/") != 2:
                tree.leave(
                    f"{sheet.string}: {line}", "unreadable", "not Scene/Emotion/clip Emotion"
                )
                continue
            at = clip.lower()
            path = videos.get(at) or pictures.get(at)
            if path is None:
                tree.leave(clip, "no_media", "no folder of pictures and no video of this name")
                continue
            if at in videos and at in pictures:
                tree.leave(pictures[at], "alternative", f"pictures of {clip}, whose row has {path}")
            yield Row(
                clip_id=clip,
                video_uri=tree.take(path),
                fps=None if at in videos else _FPS,
                split=sheet["split"].lower(),
                label_onehot=label.lower(),
                extra={
                    "scene": clip.partition("/")[0],
                    "fps_assumed": None if at in videos else "true",
                },
            )


def _name(found: Match) -> str:
    return found["name"].lower()


FERV39K = Corpus(
    name="ferv39k",
    title="FERV39k",
    rows=_rows,
    layout=(
        "2_ClipsforFaceCrop/<Scene>/<Emotion>/<clip>/*.jpg, or the clips as .mp4",
        "4_setups/All_scenes/{train,test}_All.csv (lines Scene/Emotion/clip Emotion)",
    ),
    labels="angry disgust fear happy neutral sad surprise",
    scale="none",
    splits="train test",
    licence_tag="gated:FERV39k",
    licence="agreement with the authors",
    quirks=(
        "a clip is a folder of pictures without sound: fps is assumed 25, extra.fps_assumed",
        "the .csv files have no header and no commas: a path, a blank, a label",
    ),
)
