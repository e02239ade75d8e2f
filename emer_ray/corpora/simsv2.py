"""CH-SIMS v2: a supervised part with sentiments and a larger one without labels."""

import re
from collections.abc import Iterator
from dataclasses import replace

from emer_ray.corpora import segments
from emer_ray.corpora.mer import CHINESE
from emer_ray.corpora.row import Corpus, Row
from emer_ray.corpora.tree import Tree


def _rows(tree: Tree) -> Iterator[Row]:
    # The parts number their recordings alike: each table goes with the media beside it.
    for sheet in tree.files(r"meta\.csv"):
        labelled = segments.labels(tree, re.escape(sheet.string), CHINESE)
        folder = re.escape(sheet.string.removesuffix("meta.csv"))
        videos = segments.paths(tree, rf"{folder}Raw/(?P<vid>[^/]+)/(?P<k>\d+)\.mp4")
        for at in sorted(videos.keys() & labelled.keys()):
            row = labelled[at]
            unsupervised = row.valence is None
            yield replace(
                row,
                clip_id=f"{at[0]}_{_on_disk(videos[at])}",
                video_uri=tree.take(videos[at]),
                split="unsupervised" if unsupervised else row.split,
            )
        segments.say_what_is_absent(tree, labelled, sheet.string, videos)


def _on_disk(path: str) -> str:
    return path.rpartition("/")[2].partition(".")[0]


CH_SIMS_V2 = Corpus(
    name="ch-sims-v2",
    title="CH-SIMS v2",
    rows=_rows,
    layout=(
        "ch-simsv2s/meta.csv (video_id, clip_id, text, label, label_T, label_A, label_V, mode)",
        "ch-simsv2s/Raw/<video_id>/<clip_id>.mp4",
        "ch-simsv2u/, of the same form, without labels",
    ),
    labels="sentiment; extra.label_T, label_A, label_V for text, sound and picture alone",
    scale="valence = sentiment -1..1",
    splits="train valid test unsupervised",
    licence_tag="gated:CH-SIMS-v2",
    licence="research only",
    quirks=(
        "clip_id may be a plain number in the table and padded on disk",
        "the unsupervised part has no labels: its rows have none, and split unsupervised",
    ),
)
