"""EMER v1 and v2 (OV-MERD, OV-MERD+): clips of MER2023 that people explained.

The tables come without media: put them, or link them, beside the clips of MER2023.
"""

from collections.abc import Iterator
from dataclasses import replace

from emer_ray.corpora import mer, sheets
from emer_ray.corpora.row import Corpus, Row
from emer_ray.corpora.tree import Tree


def _v1_rows(tree: Tree) -> Iterator[Row]:
    columns = ["names", "emotions", "subtitles", "reasons"]
    labelled: dict[str, Row] = {}
    for sheet in tree.files(r"[^/]*gt-eng\.csv"):
        for line in tree.table(sheet.string, columns, mer.CHINESE):
            labelled[line["names"]] = Row(
                clip_id=line["names"],
                label_onehot=mer.word(tree, line["names"], line["emotions"]),
                subtitle_en=line["subtitles"] or None,
                extra={"reason_en": line["reasons"]},
            )
    for sheet in tree.files(r"[^/]*gt-chi\.csv"):
        for line in tree.table(sheet.string, columns, mer.CHINESE):
            row = labelled.get(line["names"]) or Row(clip_id=line["names"])
            labelled[row.clip_id] = replace(
                row,
                subtitle_zh=line["subtitles"] or None,
                extra={**row.extra, "emotion_zh": line["emotions"], "reason_zh": line["reasons"]},
            )
    yield from _clips(tree, labelled)


def _v2_rows(tree: Tree) -> Iterator[Row]:
    labelled: dict[str, Row] = {}
    for sheet in tree.files(r"[^/]*final-EMER-reason\.csv"):
        for line in tree.table(sheet.string, ["name", "chinese", "english"], mer.CHINESE):
            extra = {"reason_en": line["english"], "reason_zh": line["chinese"]}
            labelled[line["name"]] = Row(clip_id=line["name"], extra=extra)
    for sheet in tree.files(r"[^/]*(?:check-openset|ovlabel)\.csv"):
        for line in tree.table(sheet.string, ["name", "openset"], mer.CHINESE):
            row = labelled.get(line["name"]) or Row(clip_id=line["name"])
            labelled[row.clip_id] = replace(row, label_ov=sheets.words(line["openset"]))
    yield from _clips(tree, labelled)


def _clips(tree: Tree, labelled: dict[str, Row]) -> Iterator[Row]:
    """Join labels and media; clips that EMER did not choose stay unmatched."""
    videos = tree.index(mer.VIDEO)
    chosen = {name: path for name, path in videos.items() if name in labelled}
    yield from mer.clips(tree, chosen, labelled)


_TERMS = "clips under the EULA of MER2023: academic research only, no redistribution"

EMER_V1 = Corpus(
    name="emer-v1",
    title="EMER v1",
    rows=_v1_rows,
    layout=(
        "*gt-eng.csv, *gt-chi.csv (names, emotions, subtitles, reasons)",
        "sample_00000000*.{mp4,avi}, in any folder",
    ),
    labels="angry happy sad worried surprise; human explanations in extra.reason_en, reason_zh",
    scale="none",
    splits="none",
    licence_tag="gated:MER2023",
    licence=_TERMS,
    quirks=("the tables come without media: put MER2023's clips under the same ROOT",),
    checked="tables: the released files, 100 clips; media: never run on a real copy",
)

EMER_V2 = Corpus(
    name="emer-v2",
    title="EMER v2 (OV-MERD, OV-MERD+)",
    rows=_v2_rows,
    layout=(
        "*final-EMER-reason.csv (name, chinese, english)",
        "*check-openset.csv or ovlabel.csv (name, openset)",
        "*subtitle*.csv (name, sentence), if there is one",
        "sample_00000000*.{mp4,avi}, in any folder",
    ),
    labels="open vocabulary, 1..9 words; human-checked explanations in extra.reason_en, reason_zh",
    scale="none",
    splits="none",
    licence_tag="gated:MER2023",
    licence=_TERMS,
    quirks=(
        "a cell of labels looks like a Python list and need not be one",
        "the tables come without media: put MER2023's clips under the same ROOT",
    ),
    checked="tables of OV-MERD: the released files, 332 clips; OV-MERD+ and media: never run on "
    "a real copy",
)
