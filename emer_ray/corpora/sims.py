"""CH-SIMS: segments of Chinese films and shows with a sentiment for all senses and for each."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from emer_ray.corpora import segments, sheets
from emer_ray.corpora.mer import CHINESE
from emer_ray.corpora.row import Corpus, Row
from emer_ray.corpora.tree import Tree

_KEYS: Final = ["video_id", "clip_id"]


def _rows(tree: Tree) -> Iterator[Row]:
    labelled = _published(tree) or segments.labels(tree, r"label\.csv", CHINESE)
    said = _translations(tree)
    videos = segments.paths(tree, r"Raw/(?P<vid>[^/]+)/(?P<k>\d+)\.mp4")
    for at in sorted(videos.keys() & labelled.keys()):
        row = labelled[at]
        zh, en = said.get(at, (None, None))
        yield replace(
            row,
            clip_id=f"{at[0]}_{at[1]:04d}",
            video_uri=tree.take(videos[at]),
            subtitle_zh=row.subtitle_zh or zh,
            subtitle_en=en,
        )
    segments.say_what_is_absent(tree, labelled, "label_M.csv or label.csv", videos)


def _published(tree: Tree) -> dict[segments.Key, Row]:
    """Read the release's own tables: one of labels per sense, and the row numbers of each split."""
    by_sense: dict[str, dict[segments.Key, str]] = {}
    order: list[segments.Key] = []
    for sheet in tree.files(r"sentiment/label_(?P<sense>[MTAV])\.csv"):
        lines = tree.table(sheet.string, [*_KEYS, "label"], CHINESE)
        keys = [_key(line) for line in lines]
        by_sense[sheet["sense"]] = {at: line["label"] for at, line in zip(keys, lines, strict=True)}
        if sheet["sense"] == "M":
            order = keys
    splits: dict[segments.Key, str] = {}
    for sheet in tree.files(r"metadata/(?P<split>train|val|test)_index\.csv"):
        for line in tree.table(sheet.string, ["index"], CHINESE):
            number = int(line["index"]) if line["index"].isdigit() else len(order)
            if number < len(order):
                splits[order[number]] = sheet["split"]
            else:
                tree.leave(
                    f"{sheet.string}: {line['index']}", "unreadable", "no such row in label_M.csv"
                )
    return {
        at: Row(
            clip_id="",
            source_id=at[0],
            split=splits.get(at),
            valence=tree.number("_".join(map(str, at)), "label", by_sense["M"][at]),
            extra={f"label_{sense}": by_sense.get(sense, {}).get(at) for sense in "TAV"},
        )
        for at in order
    }


def _translations(tree: Tree) -> dict[segments.Key, tuple[str | None, str | None]]:
    return {
        _key(line): (line["Chinese"] or None, line["English"] or None)
        for sheet in tree.files(r"metadata/Translation\.csv")
        for line in tree.table(sheet.string, [*_KEYS, "Chinese", "English"], CHINESE)
    }


def _key(line: dict[str, str]) -> segments.Key:
    number = sheets.number(line["clip_id"])
    return line["video_id"], -1 if number is None else int(number)


CH_SIMS = Corpus(
    name="ch-sims",
    title="CH-SIMS",
    rows=_rows,
    layout=(
        "Raw/<video_id>/<clip, 4 digits>.mp4",
        "metadata/sentiment/label_{M,T,A,V}.csv (video_id, clip_id, label), or label.csv in the "
        "form of MMSA",
        "metadata/{train,val,test}_index.csv (index)",
        "metadata/Translation.csv (video_id, clip_id, Chinese, English)",
    ),
    labels="sentiment; extra.label_T, label_A, label_V for text, sound and picture alone",
    scale="valence = sentiment -1..1",
    splits="train val test (train valid test with label.csv)",
    licence_tag="gated:CH-SIMS",
    licence="research only",
    quirks=(
        "clip_id is a plain number in the tables and four digits on disk",
        "the index files hold row numbers of label_M.csv, from 0",
    ),
)
