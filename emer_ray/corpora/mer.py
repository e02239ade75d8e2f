"""What the MER challenges and EMER share: names of clips, subtitles, joining them with media."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Final

from emer_ray.corpora.row import Row
from emer_ray.corpora.tree import Tree

NAME: Final = r"(?P<name>sample(?:new\d?)?_\d{8})"
"""A clip's name. A file's name begins with it, upstream finds files by that prefix."""

VIDEO: Final = rf"{NAME}[^/]*\.(?:mp4|avi)"
SOUND: Final = rf"{NAME}[^/]*\.wav"

WORDS: Final = ("neutral", "angry", "happy", "sad", "worried", "surprise")

CHINESE: Final = "gb18030"
"""What is not UTF-8 in a Chinese corpus is GBK or its successor."""


def word(tree: Tree, clip: str, cell: str) -> str | None:
    """Read a discrete label; one that is none of the six is noted, and the clip has none."""
    if (label := cell.lower()) in WORDS:
        return label
    if cell:
        tree.leave(f"{clip}: {cell}", "unreadable", f"the label is none of {', '.join(WORDS)}")
    return None


def subtitles(tree: Tree) -> dict[str, dict[str, str]]:
    """Read what is said in each clip, by language: `zh`, `en`."""
    said: dict[str, dict[str, str]] = {}
    for sheet in tree.files(r"[^/]*(?:subtitle|transcription)[^/]*\.csv"):
        for line in tree.table(sheet.string, ["name"], CHINESE):
            words = said.setdefault(line["name"], {})
            for column in ("chinese", "english", "sentence", "subtitle"):
                if sentence := line.get(column):
                    chinese = column == "chinese" or re.search(r"[一-鿿]", sentence)
                    words.setdefault("zh" if chinese and column != "english" else "en", sentence)
    return said


def clips(
    tree: Tree,
    videos: Mapping[str, str],
    labelled: Mapping[str, Row],
    sounds: Mapping[str, str] | None = None,
) -> Iterator[Row]:
    """Give every clip that has media its label, if there is one, and its subtitle."""
    said, sounds = subtitles(tree), sounds or {}
    for name in sorted(videos.keys() | sounds.keys()):
        row = labelled.get(name) or Row(clip_id=name)
        words = said.get(name, {})
        yield replace(
            row,
            video_uri=tree.take(videos[name]) if name in videos else None,
            audio_uri=tree.take(sounds[name]) if name in sounds else None,
            subtitle_zh=row.subtitle_zh or words.get("zh"),
            subtitle_en=row.subtitle_en or words.get("en"),
        )
    for name in sorted(labelled.keys() - videos.keys() - sounds.keys()):
        tree.leave(name, "no_media", f"no file {name}*.mp4, .avi or .wav; is ROOT whole?")
