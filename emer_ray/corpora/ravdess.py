"""RAVDESS: two sentences spoken and sung by 24 actors; everything stands in the file's name."""

from collections.abc import Iterator
from typing import Final

from emer_ray.corpora.row import Corpus, Row
from emer_ray.corpora.tree import Tree

WORDS: Final = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")

_SENTENCES: Final = ("Kids are talking by the door.", "Dogs are sitting by the door.")

_TAKE: Final = (
    r"(?P<name>(?P<channel>0[12])-(?:(?P<neutral>01-01)|0[2-8]-0[12])-0[12]-0[12]-"
    r"(?:0[1-9]|1\d|2[0-4]))"
)
"""What the recordings of one take share: channel, emotion, intensity, sentence, repetition, actor.
Neutral has one intensity only.
"""


def _rows(tree: Tree) -> Iterator[Row]:
    both, silent, sounds = (
        tree.index(rf"{modality}-{_TAKE}\.{ending}")
        for modality, ending in (("01", "mp4"), ("02", "mp4"), ("03", "wav"))
    )
    for take in sorted(both.keys() | silent.keys() | sounds.keys()):
        channel, emotion, intensity, sentence, repetition, actor = take.split("-")
        video = both.get(take) or silent.get(take)
        if take in both and take in silent:
            tree.leave(silent[take], "alternative", f"picture alone of {take}")
        yield Row(
            clip_id=take,
            video_uri=tree.take(video) if video else None,
            audio_uri=tree.take(sounds[take]) if take in sounds else None,
            subtitle_en=_SENTENCES[int(sentence) - 1],
            speaker=f"Actor_{actor}",
            label_onehot=WORDS[int(emotion) - 1],
            extra={
                "channel": "song" if channel == "02" else "speech",
                "intensity": "strong" if intensity == "02" else "normal",
                "repetition": repetition,
                "gender": "female" if int(actor) % 2 == 0 else "male",
            },
        )


RAVDESS = Corpus(
    name="ravdess",
    title="RAVDESS",
    rows=_rows,
    layout=(
        "Video_Speech_Actor_XX/Actor_XX/MM-VV-EE-II-SS-RR-AA.mp4, songs likewise",
        "Audio_Speech_Actors_01-24/Actor_XX/03-VV-EE-II-SS-RR-AA.wav, songs likewise",
    ),
    labels="neutral calm happy sad angry fearful disgust surprised (as acted)",
    scale="none",
    splits="none; speakers are independent",
    licence_tag="CC-BY-NC-SA-4.0",
    licence="CC BY-NC-SA 4.0; a commercial licence is sold",
    quirks=(
        "a take comes as 01 (both), 02 (picture) and 03 (sound): 01 and 03 are one row, 02 is used "
        "only where 01 is absent; clip_id is the six fields they share",
        "neutral has one intensity: other names are listed as unmatched",
        "some mirrors hold every sound twice: the second is listed as duplicate",
    ),
)
