"""MAFW: clips of films and shows with shares of eleven emotions and human descriptions."""

import re
from collections.abc import Iterator, Mapping
from typing import Final

from emer_ray.corpora import folds, sheets
from emer_ray.corpora.mer import CHINESE
from emer_ray.corpora.row import Corpus, Row
from emer_ray.corpora.tree import Tree

WORDS: Final = (
    *("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise", "contempt"),
    *("anxiety", "helplessness", "disappointment"),
)
"""Label n is word n - 1."""


def _rows(tree: Tree) -> Iterator[Row]:
    videos = tree.index(
        r"clips/(?P<name>\d+)\.(?:mp4|avi)", lambda found: sheets.padded(found["name"])
    )
    shares = _sheet(tree, "annotation")
    single, multi = _sheet(tree, "single-set"), _sheet(tree, "multi-set")
    captions = _captions(tree)
    labels, tested, compound = _lists(tree)
    for clip in sorted(shares.keys() | single.keys() | multi.keys() | labels.keys()):
        if clip not in videos:
            tree.leave(clip, "no_media", f"no clips/{clip}.mp4")
            continue
        line = shares.get(clip) or single.get(clip) or multi.get(clip) or {}
        one = single.get(clip, {}).get("single_label") or labels.get(clip, "")
        several = multi.get(clip, {}).get("multi_label", "")
        zh, en = captions.get(clip, (None, None))
        yield Row(
            clip_id=clip,
            video_uri=tree.take(videos[clip]),
            split=tested.get(clip),
            label_onehot=next(iter(_words(tree, clip, one)), None),
            label_ov=_words(tree, clip, several) or None,
            label_scores=_scores(line),
            extra={
                "description_zh": zh,
                "description_en": en,
                "invalid": line.get("invalid"),
                "compound_set": compound.get(clip),
            },
        )


def _words(tree: Tree, clip: str, cell: str) -> list[str]:
    """Read label numbers, one or several."""
    numbers = [int(digits) for digits in re.findall(r"\d+", cell)]
    if cell and (not numbers or not all(1 <= number <= len(WORDS) for number in numbers)):
        tree.leave(f"{clip}: {cell}", "unreadable", "the label is none of 1..11")
        return []
    return [WORDS[number - 1] for number in numbers]


def _scores(line: Mapping[str, str]) -> dict[str, float] | None:
    read = {word: sheets.number(line.get(word)) for word in WORDS}
    return {word: share for word, share in read.items() if share is not None} or None


def _sheet(tree: Tree, name: str) -> dict[str, dict[str, str]]:
    """Read a spreadsheet; its header stands in the first row or below a title."""
    lines: dict[str, dict[str, str]] = {}
    for sheet in tree.files(rf"Labels/{name}\.xlsx"):
        header: list[str] | None = None
        for cells in tree.spreadsheet(sheet.string):
            if header is None:
                names = [cell.lower() for cell in cells]
                header = names if {"clip", "anger"} <= set(names) else None
            elif clip := sheets.padded(cells[0]):
                lines[clip] = dict(zip(header, cells, strict=False))
        if header is None:
            tree.leave(sheet.string, "unreadable", "no row begins its columns with clip, …, anger")
    return lines


def _captions(tree: Tree) -> dict[str, tuple[str | None, str | None]]:
    """Read clip, Chinese, English: a spreadsheet without a header."""
    return {
        clip: (cells[1] or None, cells[2] or None)
        for sheet in tree.files(r"Labels/descriptive_text\.xlsx")
        for cells in tree.spreadsheet(sheet.string)
        if len(cells) >= 3 and (clip := sheets.padded(cells[0]))
    }


def _lists(tree: Tree) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    """Read the lists of the sets: single labels, and the sets that test a clip in both views."""
    labels: dict[str, str] = {}
    tests: dict[str, dict[str, dict[str, str]]] = {"single": {}, "compound": {}}
    place = (
        r"(?P<view>single|compound)/(?:no|with)_caption/" + folds.SET + r"/(?P<part>train|test)"
        r"\.txt"
    )
    for sheet in tree.files(place):
        found: dict[str, str] = {}
        for line in tree.lines(sheet.string, CHINESE):
            clip, label, *_ = [*re.split(r"\t| ", line), ""]
            if name := sheets.padded(clip):
                found[name] = label
            else:
                tree.leave(f"{sheet.string}: {line}", "unreadable", "it begins with no clip")
        view = sheet["view"].lower()
        if view == "single":
            labels |= found
        if sheet["part"].lower() == "test":
            tests[view].setdefault(f"set_{sheet['set']}", {}).update(found)
    single, compound = (folds.tested_in(tree, tests[view]) for view in ("single", "compound"))
    return labels, single, compound


MAFW = Corpus(
    name="mafw",
    title="MAFW",
    rows=_rows,
    layout=(
        "data/clips/<5 digits>.mp4",
        "Labels/annotation.xlsx (clip, invalid, eleven shares), single-set.xlsx (…, single_label), "
        "multi-set.xlsx (…, multi_label), descriptive_text.xlsx (clip, Chinese, English)",
        "Train & Test Set/{single,compound}/{no_caption,with_caption}/set_{1..5}/{train,test}.txt",
    ),
    labels="anger disgust fear happiness neutral sadness surprise contempt anxiety helplessness "
    "disappointment; label_ov = the compound label; label_scores of all eleven",
    scale="label_scores: shares as given, 0..1",
    splits="set_1 … set_5: the set in which a clip is tested; extra.compound_set likewise",
    licence_tag="gated:MAFW",
    licence="agreement with the authors",
    quirks=(
        "spreadsheets may begin with a title; descriptive_text.xlsx has no header",
        "clips are 00025.mp4, 00025 or 25, by the program that wrote the cell",
        "lists with captions are often GB18030 and tab separated, the others have blanks",
        "what the column invalid means is not published: extra.invalid, nothing is left out by it",
    ),
)
