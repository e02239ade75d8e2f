"""DFEW: clips of films with one of seven expressions, as video or as pictures of faces."""

from collections.abc import Iterator
from typing import Final

from emer_ray.corpora import folds, sheets
from emer_ray.corpora.row import Corpus, Row
from emer_ray.corpora.tree import Match, Tree

WORDS: Final = ("happy", "sad", "neutral", "angry", "surprise", "disgust", "fear")
"""Label n is word n - 1; label 0 is a clip on which the annotators did not agree."""

_FPS: Final = 25.0
"""The pictures come without times; films have about 25 a second."""
_FPS_OF_16: Final = 6.0
"""Sixteen pictures were interpolated over a clip of two to four seconds."""


def _rows(tree: Tree) -> Iterator[Row]:
    originals = tree.index(r"Clip/original/(?:[^/]+/)?(?P<name>\d+)\.(?:mp4|avi)", _padded)
    faces = tree.index(r"Clip/clip_224x224_avi/(?P<name>\d+)\.avi", _padded)
    pictures = tree.index(r"Clip/clip_224x224/(?P<name>\d+)", _padded, images=True)
    sixteen = tree.index(r"Clip/clip_224x224_16f/(?P<name>\d+)", _padded, images=True)
    forms = ((originals, None), (faces, None), (pictures, _FPS), (sixteen, _FPS_OF_16))
    votes, labels = _annotation(tree)
    listed, tested = _splits(tree)
    for clip in sorted(votes.keys() | listed.keys()):
        here = [(paths[clip], fps) for paths, fps in forms if clip in paths]
        if not here:
            tree.leave(clip, "no_media", "no video and no folder of pictures has its number")
            continue
        (path, fps), *others = here
        for other, _ in others:
            tree.leave(other, "alternative", f"faces or pictures of {clip}, whose row has {path}")
        yield Row(
            clip_id=clip,
            video_uri=tree.take(path),
            fps=fps,
            split=tested.get(clip),
            label_onehot=_word(tree, clip, listed.get(clip, labels.get(clip, "0"))),
            label_scores=votes.get(clip),
            extra={"fps_assumed": "true" if fps else None},
        )


def _padded(found: Match) -> str:
    return sheets.padded(found["name"])


def _word(tree: Tree, clip: str, label: str) -> str | None:
    if label == "0":
        return None
    if label.isdigit() and int(label) <= len(WORDS):
        return WORDS[int(label) - 1]
    tree.leave(f"{clip}: {label}", "unreadable", "the label is none of 0..7")
    return None


def _annotation(tree: Tree) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    """Read votes as shares, and labels: seven columns of votes, the clip, the label."""
    votes: dict[str, dict[str, float]] = {}
    labels: dict[str, str] = {}
    for sheet in tree.files(r"Annotation/annotation\.xlsx"):
        for line in tree.spreadsheet(sheet.string):
            counts = [sheets.number(cell) for cell in line[:7]]
            if len(line) < 9 or None in counts:
                continue  # the header
            clip = sheets.padded(line[7])
            total = sum(count for count in counts if count) or 1.0
            votes[clip] = {
                word: (count or 0.0) / total for word, count in zip(WORDS, counts, strict=True)
            }
            labels[clip] = line[8]
    return votes, labels


def _splits(tree: Tree) -> tuple[dict[str, str], dict[str, str]]:
    labels: dict[str, str] = {}
    tests: dict[str, dict[str, str]] = {}
    place = r"EmoLabel_DataSplit/(?P<part>train|test)[^/]*/" + folds.SET + r"\.csv"
    for sheet in tree.files(place):
        lines = tree.table(sheet.string, ["video_name", "label"])
        found = {sheets.padded(line["video_name"]): line["label"] for line in lines}
        labels |= found
        if sheet["part"].lower() == "test":
            tests[f"set_{sheet['set']}"] = found
    return labels, folds.tested_in(tree, tests)


DFEW = Corpus(
    name="dfew",
    title="DFEW",
    rows=_rows,
    layout=(
        "Clip/original/<id>.mp4, else Clip/clip_224x224_avi/<5 digits>.avi, "
        "Clip/clip_224x224/<5 digits>/*.jpg or Clip/clip_224x224_16f/<5 digits>/*.jpg",
        "EmoLabel_DataSplit/{train,test}(single-labeled)/set_{1..5}.csv (video_name, label)",
        "Annotation/annotation.xlsx (seven counts of votes, clip, label)",
    ),
    labels="happy sad neutral angry surprise disgust fear; label_scores of the votes",
    scale="label_scores: shares of the annotators, sum 1",
    splits="set_1 … set_5: the set in which a clip is tested; null where in none",
    licence_tag="gated:DFEW",
    licence="signed agreement, non-commercial research",
    quirks=(
        "tables have plain numbers, folders five digits: clip_id has five",
        "label 0 is not single-labelled: a row with votes and without label_onehot",
        "pictures have no times: fps is assumed (25; 6 for the 16-picture form), extra.fps_assumed",
        "clips of which faces were not detected have only the original video",
    ),
)
