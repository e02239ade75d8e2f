"""eNTERFACE'05: 44 people react to six stories, five sentences each; names lie, folders do not."""

import re
from collections.abc import Iterator
from typing import Final

from emer_ray.corpora.row import Corpus, Row
from emer_ray.corpora.tree import Tree

WORDS: Final = {
    "anger": "an",
    "disgust": "di",
    "fear": "fe",
    "happiness": "ha",
    "sadness": "sa",
    "surprise": "su",
}

_SENTENCES: Final = range(1, 6)

_UNCUT: Final = re.compile(r"s_?\d+_[a-z]{2}(?:_(?P<sentence>[1-5]))?")


def _rows(tree: Tree) -> Iterator[Row]:
    folder = rf"subject[ _-](?P<subject>\d+)/(?P<word>{'|'.join(WORDS)})"
    seen: dict[str, set[str]] = {}
    for found in tree.files(
        rf"{folder}/(?:sentence[ _-](?P<sentence>[1-5])/)?(?P<name>[^/]+)\.(?:avi|mp4)"
    ):
        subject, word = int(found["subject"]), found["word"].lower()
        # The folder says whose and which it is: names have slips, and subject 11's say 12.
        sentence = found["sentence"]
        if sentence is None and (named := _UNCUT.match(found["name"].lower())):
            sentence = named["sentence"]
        clip_id = f"s{subject}_{WORDS[word]}" + (f"_{sentence}" if sentence else "")
        seen.setdefault(f"s{subject}", set()).add(clip_id)
        yield Row(
            clip_id=clip_id,
            video_uri=tree.take(found.string),
            speaker=f"s{subject}",
            label_onehot=word,
            extra={"sentence": sentence, "uncut": None if sentence else "true"},
        )
    for speaker, clips in sorted(seen.items()):
        whole = {f"{speaker}_{code}_{number}" for code in WORDS.values() for number in _SENTENCES}
        if clips <= whole:  # a subject whose sessions are uncut has no sentences to miss
            for clip_id in sorted(whole - clips):
                tree.leave(clip_id, "no_media", f"{speaker} has no such sentence under ROOT")


ENTERFACE05 = Corpus(
    name="enterface05",
    title="eNTERFACE'05",
    rows=_rows,
    layout=("subject <N>/<emotion>/sentence <K>/s<N>_<em>_<K>.avi",),
    labels="anger disgust fear happiness sadness surprise (as elicited)",
    scale="none",
    splits="none; speakers are independent",
    licence_tag="gated:eNTERFACE05",
    licence="research; users report MIT terms inside the archive: unchecked, so treated as gated",
    quirks=(
        "subject 6 has no sentence folders: one uncut session of a minute per emotion, extra.uncut",
        "subject 23 is incomplete: what is absent is listed as no_media",
        "names have slips (s_3_ha_1.avi, s16_su_3avi.avi) and subject 11's say s12: folders count",
    ),
    checked="layout from memory and from users' code; never run on a real copy",
)
