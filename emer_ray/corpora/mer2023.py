"""MER2023: clips of Chinese films and series with one of six labels and a valence."""

import re
from collections.abc import Iterator
from dataclasses import replace

from emer_ray.corpora import mer
from emer_ray.corpora.row import Corpus, Row
from emer_ray.corpora.tree import Tree


def _rows(tree: Tree) -> Iterator[Row]:
    labelled: dict[str, Row] = {}
    for sheet in tree.files(r"(?:train|test\d)-label\.csv"):
        for line in tree.table(sheet.string, ["name", "discrete"], mer.CHINESE):
            labelled[line["name"]] = Row(
                clip_id=line["name"],
                label_onehot=mer.word(tree, line["name"], line["discrete"]),
                valence=tree.number(line["name"], "valence", line.get("valence")),
            )
    videos = tree.index(rf"(?:train|test\d)/(?:[^/]+/)*{mer.VIDEO}")
    for row in mer.clips(tree, videos, labelled):
        split = re.search(r"(?:^|/)(train|test\d)/", videos[row.clip_id].lower())
        yield replace(row, split=split and split[1])


MER2023 = Corpus(
    name="mer2023",
    title="MER2023",
    rows=_rows,
    layout=(
        "{train,test1,test2,test3}/sample_00000000.{mp4,avi}",
        "{train,test1,test2,test3}-label.csv (name, discrete, valence)",
        "*subtitle*.csv or *transcription*.csv (name, chinese, english), if there is one",
    ),
    labels="neutral angry happy sad worried surprise",
    scale="valence as given, about -5..5; test3 has none",
    splits="train test1 test2 test3",
    licence_tag="gated:MER2023",
    licence="EULA: academic research only, no redistribution",
    quirks=(
        "some clips are .mp4 and some .avi: a file is found by the prefix of its name",
        "test3 has no valence column",
        "clips without a label (most of test3) have rows without one",
    ),
)
