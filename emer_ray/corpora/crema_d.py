"""CREMA-D: twelve sentences acted by 91 people, with the votes of those who saw and heard them."""

from collections import Counter
from collections.abc import Iterator
from typing import Final

from emer_ray.corpora.row import Corpus, Row
from emer_ray.corpora.tree import Tree

WORDS: Final = {
    "ANG": "anger",
    "DIS": "disgust",
    "FEA": "fear",
    "HAP": "happy",
    "NEU": "neutral",
    "SAD": "sad",
}

_SENTENCES: Final = {
    "IEO": "It's eleven o'clock.",
    "TIE": "That is exactly what happened.",
    "IOM": "I'm on my way to the meeting.",
    "IWW": "I wonder what this is about.",
    "TAI": "The airplane is almost full.",
    "MTI": "Maybe tomorrow it will be cold.",
    "IWL": "I would like a new alarm clock.",
    "ITH": "I think I have a doctor's appointment.",
    "DFA": "Don't forget a jacket.",
    "ITS": "I think I've seen this before.",
    "TSI": "The surface is slick.",
    "WSI": "We'll stop in a couple of minutes.",
}

_LEVELS: Final = {"LO": "low", "MD": "medium", "HI": "high"}

_NAME: Final = (
    r"(?P<name>(?:10[0-8]\d|109[01])_"
    rf"(?:{'|'.join(_SENTENCES)})_(?:{'|'.join(WORDS)})_(?:LO|MD|HI|XX?))"
)
"""One clip of the release, 1040_ITH_SAD_X, has one X."""

_BROKEN: Final = {
    "1076_MTI_SAD_XX": "the release has no sound for it",
    "1076_MTI_NEU_XX": "next to nothing is in the file",
    "1064_TIE_SAD_XX": "the file has no duration",
    "1064_IEO_DIS_MD": "one minute with every emotion of the sentence",
}

_SEEN_AND_HEARD: Final = "3"
"""The query type of raters who got both picture and sound."""


def _rows(tree: Tree) -> Iterator[Row]:
    videos = tree.index(rf"VideoFlash/{_NAME}\.(?:flv|mp4)")
    waves = tree.index(rf"AudioWAV/{_NAME}\.wav")
    compressed = tree.index(rf"AudioMP3/{_NAME}\.mp3")
    votes = _votes(tree)
    for name in sorted(videos.keys() | waves.keys() | compressed.keys()):
        here = [paths[name] for paths in (videos, waves, compressed) if name in paths]
        if name in _BROKEN:
            for path in here:
                tree.leave(path, "broken", _BROKEN[name])
            continue
        if name in waves and name in compressed:
            tree.leave(compressed[name], "alternative", f"compressed sound of {name}")
        sound = waves.get(name) or compressed.get(name)
        actor, sentence, emotion, level = name.split("_")
        counts = votes.pop(_full(name), Counter())
        yield Row(
            clip_id=name,
            video_uri=tree.take(videos[name]) if name in videos else None,
            audio_uri=tree.take(sound) if sound else None,
            subtitle_en=_SENTENCES[sentence],
            speaker=actor,
            label_onehot=WORDS[emotion],
            label_scores={word: count / counts.total() for word, count in sorted(counts.items())}
            or None,
            extra={
                "intensity": _LEVELS.get(level),
                "votes": str(counts.total()) if counts else None,
            },
        )
    for name in sorted(votes.keys() - _BROKEN.keys()):
        tree.leave(name, "no_media", "people rated it, and no file has its name")


def _votes(tree: Tree) -> dict[str, Counter[str]]:
    """Count what those who saw and heard a clip called it."""
    by_letter = {code[0]: word for code, word in WORDS.items()}
    votes: dict[str, Counter[str]] = {}
    for sheet in tree.files(r"finishedResponses\.csv"):
        for line in tree.table(sheet.string, ["clipName", "queryType", "respEmo"]):
            word = by_letter.get(line["respEmo"])
            if word is None:
                what = f"{sheet.string}: {line['clipName']} {line['respEmo']}"
                tree.leave(what, "unreadable", f"the answer is none of {', '.join(by_letter)}")
            elif line["queryType"] == _SEEN_AND_HEARD:
                votes.setdefault(_full(line["clipName"]), Counter())[word] += 1
    return votes


def _full(name: str) -> str:
    """Spell the level of the clip with one X as the others are."""
    return f"{name}X" if name.endswith("_X") else name


CREMA_D = Corpus(
    name="crema-d",
    title="CREMA-D",
    rows=_rows,
    layout=(
        "VideoFlash/<actor>_<sentence>_<emotion>_<level>.flv",
        "AudioWAV/….wav, else AudioMP3/….mp3",
        "finishedResponses.csv (clipName, queryType, respEmo)",
    ),
    labels="anger disgust fear happy neutral sad (as acted); label_scores = what raters who saw "
    "and heard it called it",
    scale="label_scores: shares of votes, sum 1; extra.votes is their number",
    splits="none; speakers are independent",
    licence_tag="ODbL-1.0",
    licence="Open Database License; its contents under the Database Contents License",
    quirks=(
        "1040_ITH_SAD_X has one X: it is matched, and joined with votes under either spelling",
        "1076_MTI_SAD_XX, 1076_MTI_NEU_XX, 1064_TIE_SAD_XX and 1064_IEO_DIS_MD are broken",
        "sentences come from the names, from memory of the paper: unchecked",
        "what raters of sound or picture alone said is not counted",
    ),
)
