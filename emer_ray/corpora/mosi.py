"""CMU-MOSI: opinions of video bloggers, cut into segments with a sentiment."""

from collections.abc import Iterator
from dataclasses import replace

from emer_ray.corpora import segments
from emer_ray.corpora.row import Corpus, Row
from emer_ray.corpora.tree import Tree

# A recording's name may hold and begin with "_": the number is what stands after the last one.
_NAME = r"(?P<vid>[^/]+)_(?P<k>\d+)"


def _rows(tree: Tree) -> Iterator[Row]:
    labelled = segments.labels(tree, r"label\.csv")
    videos = segments.paths(
        tree, rf"Video/Segmented/{_NAME}\.mp4", r"Raw/(?P<vid>[^/]+)/(?P<k>\d+)\.mp4"
    )
    sounds = segments.paths(tree, rf"Audio/WAV_16000/Segmented/{_NAME}\.wav")
    said = _transcripts(tree)
    for at in sorted(videos.keys() | sounds.keys()):
        if labelled and at not in labelled:
            continue
        row = labelled.get(at) or Row(clip_id=f"{at[0]}_{at[1]}", source_id=at[0])
        yield replace(
            row,
            video_uri=tree.take(videos[at]) if at in videos else None,
            audio_uri=tree.take(sounds[at]) if at in sounds else None,
            subtitle_en=row.subtitle_en or said.get(at),
        )
    segments.say_what_is_absent(tree, labelled, "label.csv", videos, sounds)


def _transcripts(tree: Tree) -> dict[segments.Key, str]:
    said: dict[segments.Key, str] = {}
    for sheet in tree.files(r"Transcript/Segmented/(?P<vid>[^/]+)\.annotprocessed"):
        for line in tree.lines(sheet.string):
            number, mark, text = line.partition("_DELIM_")
            if mark and number.isdigit():
                said[sheet["vid"], int(number)] = text.strip()
            else:
                tree.leave(f"{sheet.string}: {line}", "unreadable", "not k_DELIM_text")
    return said


CMU_MOSI = Corpus(
    name="cmu-mosi",
    title="CMU-MOSI",
    rows=_rows,
    layout=(
        "Raw/Video/Segmented/<vid>_<k>.mp4 or Raw/<vid>/<k>.mp4",
        "Raw/Audio/WAV_16000/Segmented/<vid>_<k>.wav, if there",
        "Raw/Transcript/Segmented/<vid>.annotprocessed, if there",
        "label.csv (video_id, clip_id, text, label, annotation, mode)",
    ),
    labels="sentiment only",
    scale="valence = sentiment -3..3",
    splits="train valid test (column mode)",
    licence_tag="gated:CMU-MOSI",
    licence="research only",
    quirks=(
        "names of recordings hold underscores: the segment's number is what follows the last",
        "transcript lines are k_DELIM_text",
        "without label.csv rows have no valence: .csd and pickle labels are not read",
    ),
)
