"""SAVEE: four men, seven emotions, 480 sentences; the emotion is the letters of the name."""

from collections.abc import Iterator
from typing import Final

from emer_ray.corpora.row import Corpus, Row
from emer_ray.corpora.tree import Match, Tree

WORDS: Final = {
    "a": "anger",
    "d": "disgust",
    "f": "fear",
    "h": "happiness",
    "n": "neutral",
    "sa": "sadness",
    "su": "surprise",
}

_NAME: Final = rf"(?P<who>DC|JE|JK|KL)[/_](?P<name>(?P<code>{'|'.join(WORDS)})\d\d)"


def _rows(tree: Tree) -> Iterator[Row]:
    videos = tree.index(rf"{_NAME}\.(?:avi|mp4)", _clip_id)
    sounds = tree.index(rf"{_NAME}\.wav", _clip_id)
    for clip_id in sorted(videos.keys() | sounds.keys()):
        speaker, _, name = clip_id.partition("_")
        yield Row(
            clip_id=clip_id,
            video_uri=tree.take(videos[clip_id]) if clip_id in videos else None,
            audio_uri=tree.take(sounds[clip_id]) if clip_id in sounds else None,
            speaker=speaker,
            label_onehot=WORDS[name.rstrip("0123456789")],
        )


def _clip_id(found: Match) -> str:
    return f"{found['who'].upper()}_{found['name'].lower()}"


SAVEE = Corpus(
    name="savee",
    title="SAVEE",
    rows=_rows,
    layout=(
        "AudioVisualClip/{DC,JE,JK,KL}/<code><nn>.avi",
        "AudioData/{DC,JE,JK,KL}/<code><nn>.wav, or flat as DC_a01.wav",
    ),
    labels="anger disgust fear happiness neutral sadness surprise (as acted)",
    scale="none",
    splits="none; speakers are independent",
    licence_tag="gated:SAVEE",
    licence="research, on request",
    quirks=("one name in two folders is one clip: picture and sound are joined",),
    checked="layout from memory of published code; never run on a real copy",
)
