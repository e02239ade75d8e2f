"""MER2024: MER2023's successor, a labelled part and a large one without labels."""

from collections.abc import Iterator
from dataclasses import replace

from emer_ray.corpora import mer
from emer_ray.corpora.row import Corpus, Row
from emer_ray.corpora.tree import Tree


def _rows(tree: Tree) -> Iterator[Row]:
    labelled: dict[str, Row] = {}
    for sheet in tree.files(r"label-disdim\.csv"):
        for line in tree.table(sheet.string, ["name", "discrete", "valence"], mer.CHINESE):
            labelled[line["name"]] = Row(
                clip_id=line["name"],
                label_onehot=mer.word(tree, line["name"], line["discrete"]),
                valence=tree.number(line["name"], "valence", line["valence"]),
            )
    videos = tree.index(rf"video-(?:un)?labeled[^/]*/(?:[^/]+/)*{mer.VIDEO}")
    for row in mer.clips(tree, videos, labelled):
        part = "unlabeled" if "video-unlabeled" in videos[row.clip_id].lower() else "labeled"
        yield replace(row, split=part)


MER2024 = Corpus(
    name="mer2024",
    title="MER2024",
    rows=_rows,
    layout=(
        "video-labeled/samplenew_00000000.mp4",
        "video-unlabeled-with-test2noise/samplenew_00000000.mp4",
        "label-disdim.csv (name, discrete, valence)",
        "*subtitle*.csv or *transcription*.csv (name, chinese, english), if there is one",
    ),
    labels="neutral angry happy sad worried surprise",
    scale="valence as given, about -5..5",
    splits="labeled unlabeled",
    licence_tag="gated:MER2024",
    licence="EULA: academic research only, no redistribution",
    quirks=("clips of the unlabelled part have rows without a label",),
)
