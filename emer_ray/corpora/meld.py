"""MELD: utterances of a television series, in three splits that repeat each other's numbers."""

import re
from collections.abc import Iterator
from typing import Final

from emer_ray.corpora.row import Corpus, Row
from emer_ray.corpora.tree import Tree

_CLIP: Final = r"dia(?P<dia>\d+)_utt(?P<utt>\d+)\.mp4"
_FOLDER: Final = r"(?:train(?:_splits)?|dev(?:_splits_complete)?|test|output_repeated_splits_test)"

WORDS: Final = ("anger", "disgust", "fear", "joy", "neutral", "sadness", "surprise")

_BROKEN: Final = {
    "train_dia125_utt3": "nothing in this file of the release decodes",
    "test_dia279_utt15": "nothing in this file of the release decodes",
}

_ABSENT: Final = {"dev_dia110_utt7": "the release has no such file"}

_MISCUT: Final = {
    "train_dia309_utt0": "cut wrongly in the release",
    "test_dia38_utt4": "cut wrongly in the release: minutes long",
    "test_dia220_utt0": "cut wrongly in the release: minutes long",
}
"""Clips that play, but do not show (only) what their label is about; they have rows."""


def _rows(tree: Tree) -> Iterator[Row]:
    videos = tree.index(rf"(?P<folder>{_FOLDER})/{_CLIP}", _clip_id)
    for sheet in tree.files(r"(?P<split>train|dev|test)_sent_emo\.csv"):
        split = sheet["split"].lower()
        columns = ["Utterance", "Speaker", "Emotion", "Dialogue_ID", "Utterance_ID"]
        for line in tree.table(sheet.string, columns):
            dialogue = f"{split}_dia{line['Dialogue_ID']}"
            clip_id = f"{dialogue}_utt{line['Utterance_ID']}"
            label = line["Emotion"].lower()
            if clip_id in _BROKEN:
                tree.leave(videos.get(clip_id, clip_id), "broken", _BROKEN[clip_id])
                continue
            if clip_id not in videos:
                detail = _ABSENT.get(clip_id, "no such file in the folder of its split")
                tree.leave(clip_id, "no_media", detail)
                continue
            if label not in WORDS:
                tree.leave(f"{clip_id}: {label}", "unreadable", f"no label of {', '.join(WORDS)}")
            yield Row(
                clip_id=clip_id,
                video_uri=tree.take(videos[clip_id]),
                subtitle_en=line["Utterance"] or None,
                speaker=line["Speaker"] or None,
                source_id=dialogue,
                split=split,
                label_onehot=label if label in WORDS else None,
                extra={
                    "sentiment": line.get("Sentiment") or None,
                    "season": line.get("Season") or None,
                    "episode": line.get("Episode") or None,
                    "defect": _MISCUT.get(clip_id),
                },
            )


def _clip_id(found: re.Match[str]) -> str:
    folder = found["folder"].lower()
    split = "test" if folder.startswith(("test", "output")) else folder.partition("_")[0]
    return f"{split}_dia{int(found['dia'])}_utt{int(found['utt'])}"


MELD = Corpus(
    name="meld",
    title="MELD",
    rows=_rows,
    layout=(
        "{train,dev,test}_sent_emo.csv",
        "train/ or train_splits/, dev/ or dev_splits_complete/, test/ or "
        "output_repeated_splits_test/, with dia<D>_utt<U>.mp4",
    ),
    labels="anger disgust fear joy neutral sadness surprise; extra.sentiment",
    scale="none",
    splits="train dev test",
    licence_tag="gated:MELD",
    licence="tables GPL-3.0; video under fair use, research only",
    quirks=(
        "numbers repeat between splits: clip_id is <split>_dia<D>_utt<U>",
        "train dia125_utt3 and test dia279_utt15 are broken; dev dia110_utt7 is absent",
        "train dia309_utt0, test dia38_utt4 and dia220_utt0 are cut wrongly: extra.defect says so",
        "files without a label (final_videos_test…, dev dia66_utt9, …) are listed as unmatched",
        "quotes in the text are cp1252, as bytes or as control characters",
    ),
)
