"""CMU-MOSEI: whole recordings of video bloggers, whose transcripts give the times of segments."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from emer_ray.corpora import segments, sheets
from emer_ray.corpora.row import Corpus, Row
from emer_ray.corpora.tree import Tree

EMOTIONS: Final = ("happiness", "sadness", "anger", "surprise", "disgust", "fear")


def _rows(tree: Tree) -> Iterator[Row]:
    labelled = segments.labels(tree, r"label\.csv", intensities=EMOTIONS)
    whole = tree.index(r"Videos/Full/Combined/(?P<name>[^/]+)\.mp4")
    sounds = tree.index(r"Audio/Full/WAV_16000/(?P<name>[^/]+)\.wav")
    cut = segments.paths(tree, r"Raw/(?P<vid>[^/]+)/(?P<k>\d+)\.mp4")
    times = _transcripts(tree)
    placed: dict[segments.Key, str] = {}
    for at in sorted(times.keys() | cut.keys()):
        if labelled and at not in labelled:
            tree.leave(cut.get(at, f"{at[0]}_{at[1]}"), "no_label", "label.csv has no line of it")
            continue
        row = labelled.get(at) or Row(clip_id=f"{at[0]}_{at[1]}", source_id=at[0])
        if at in cut:
            said = times[at].subtitle_en if at in times else None
            placed[at] = cut[at]
            uri = tree.take(cut[at])
            yield replace(row, video_uri=uri, subtitle_en=row.subtitle_en or said)
        elif at[0] in whole or at[0] in sounds:
            placed[at] = at[0]
            yield replace(
                row,
                video_uri=tree.take(whole[at[0]]) if at[0] in whole else None,
                audio_uri=tree.take(sounds[at[0]]) if at[0] in sounds else None,
                start_s=times[at].start_s,
                end_s=times[at].end_s,
                subtitle_en=row.subtitle_en or times[at].subtitle_en,
            )
        elif not labelled:
            tree.leave(row.clip_id, "no_media", f"no {at[0]}.mp4")
    segments.say_what_is_absent(tree, labelled, "label.csv", placed)


def _transcripts(tree: Tree) -> dict[segments.Key, Row]:
    """Read `vid___k___start___end___text`; the text may hold the mark itself."""
    found: dict[segments.Key, Row] = {}
    for sheet in tree.files(r"Transcript/Segmented/Combined/[^/]+\.txt"):
        for line in tree.lines(sheet.string):
            recording, number, start, end, text = (line.split("___", 4) + [""] * 4)[:5]
            start_s, end_s = sheets.number(start), sheets.number(end)
            if not number.isdigit() or start_s is None or end_s is None:
                tree.leave(
                    f"{sheet.string}: {line}", "unreadable", "not vid___k___start___end___text"
                )
                continue
            found[recording, int(number)] = Row(
                clip_id=f"{recording}_{number}",
                start_s=start_s,
                end_s=end_s,
                subtitle_en=text.strip() or None,
            )
    return found


CMU_MOSEI = Corpus(
    name="cmu-mosei",
    title="CMU-MOSEI",
    rows=_rows,
    layout=(
        "Raw/Videos/Full/Combined/<vid>.mp4 or cut clips Raw/<vid>/<k>.mp4",
        "Raw/Audio/Full/WAV_16000/<vid>.wav, if there",
        "Raw/Transcript/Segmented/Combined/<vid>.txt (vid___k___start___end___text)",
        "label.csv (video_id, clip_id, text, label, mode, and happiness, sadness, anger, surprise, "
        "disgust, fear where exported)",
    ),
    labels="sentiment; label_scores of happiness sadness anger surprise disgust fear",
    scale="valence = sentiment -3..3; label_scores 0..3",
    splits="train valid test (column mode)",
    licence_tag="gated:CMU-MOSEI",
    licence="research only",
    quirks=(
        "a recording is whole: start_s and end_s cut the segment",
        "the text may hold ___: a line is split at most 4 times",
        "windows that end before they begin are listed as unreadable",
        "segments that nobody labelled are listed as no_label",
        "without label.csv rows have no valence: .csd and pickle labels are not read",
    ),
)
