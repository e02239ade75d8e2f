"""IEMOCAP: ten actors in pairs, cut into utterances by time; each actor is half of the picture."""

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from emer_ray.corpora.row import Corpus, Row
from emer_ray.corpora.tree import Tree

_UTTERANCE: Final = r"Ses0[1-5][FM]_(?:impro|script)\d\d(?:_\d)?[ab]?_[FM]\d{3}"
_NUMBER: Final = r"(-?\d+(?:\.\d+)?)"

_JUDGED: Final = re.compile(
    rf"\[{_NUMBER} - {_NUMBER}\]\s+({_UTTERANCE})\s+([a-z]{{3}})\s+"
    rf"\[{_NUMBER}, {_NUMBER}, {_NUMBER}\]"
)
"""A line of EmoEvaluation: start, end, utterance, code, valence, activation, dominance."""

_SAID: Final = re.compile(rf"({_UTTERANCE}) \[{_NUMBER}-{_NUMBER}\]:(.*)")

WORDS: Final[dict[str, str | None]] = {
    "ang": "angry",
    "hap": "happy",
    "exc": "excited",
    "sad": "sad",
    "neu": "neutral",
    "fru": "frustrated",
    "fea": "fear",
    "sur": "surprise",
    "dis": "disgust",
    "oth": "other",
    "xxx": None,  # the judges did not agree
}

_FOUR: Final = {"ang": "angry", "hap": "happy", "exc": "happy", "sad": "sad", "neu": "neutral"}
_SIX: Final = _FOUR | {"exc": "excited", "fru": "frustrated"}

_LEFT: Final = (0.0, 0.0, 0.5, 1.0)
_RIGHT: Final = (0.5, 0.0, 1.0, 1.0)


def _rows(tree: Tree) -> Iterator[Row]:
    videos = tree.index(r"Session[1-5]/dialog/avi/(?:DivX/)?(?P<name>[^/]+)\.(?:avi|mp4)")
    tracks = tree.index(r"Session[1-5]/dialog/wav/(?P<name>[^/]+)\.wav")
    pieces = tree.index(r"Session[1-5]/sentences/wav/[^/]+/(?P<name>[^/]+)\.wav")
    said = _transcripts(tree)
    judged: set[str] = set()
    for sheet in tree.files(r"(?P<session>Session[1-5])/dialog/EmoEvaluation/Ses[^/]+\.txt"):
        for line in tree.lines(sheet.string):
            if not line.startswith("["):
                continue  # the header, and what each judge said
            found = _JUDGED.fullmatch(line)
            if found is None or found[4] not in WORDS:
                tree.leave(f"{sheet.string}: {line}", "unreadable", "not a judgement of a turn")
                continue
            utterance = found[3]
            judged.add(utterance)
            dialog = utterance.rpartition("_")[0]
            row = _row(found, dialog, sheet["session"], said.get(utterance))
            if dialog in videos:
                yield _in_video(tree, row, found, videos[dialog], tracks.get(dialog))
                if utterance in pieces:
                    tree.leave(pieces[utterance], "alternative", f"sound of {utterance} alone")
            elif utterance in pieces:
                yield replace(row, audio_uri=tree.take(pieces[utterance]))
            else:
                tree.leave(utterance, "no_media", f"neither {dialog}.avi nor {utterance}.wav")
    for utterance in sorted(said.keys() - judged):
        tree.leave(utterance, "no_label", "it has a transcript and no line in EmoEvaluation")


def _row(found: re.Match[str], dialog: str, session: str, text: str | None) -> Row:
    utterance, code = found[3], found[4]
    return Row(
        clip_id=utterance,
        subtitle_en=text,
        speaker=utterance[:5] + utterance[-4],
        source_id=dialog,
        split=session,
        label_onehot=WORDS[code],
        valence=float(found[5]),
        extra={
            "code": code,
            "four_way": _FOUR.get(code),
            "six_way": _SIX.get(code),
            "activation": found[6],
            "dominance": found[7],
        },
    )


def _in_video(tree: Tree, row: Row, found: re.Match[str], video: str, track: str | None) -> Row:
    """Cut the utterance out of its dialogue, and its speaker out of the picture.

    The left actor is the one whose gender the dialogue's name gives; the name of the utterance
    ends with the speaker's.
    """
    return replace(
        row,
        video_uri=tree.take(video),
        audio_uri=tree.take(track) if track else None,
        start_s=float(found[1]),
        end_s=float(found[2]),
        crop=_LEFT if row.clip_id[5] == row.clip_id[-4] else _RIGHT,
    )


def _transcripts(tree: Tree) -> dict[str, str]:
    said: dict[str, str] = {}
    for sheet in tree.files(r"Session[1-5]/dialog/transcriptions/Ses[^/]+\.txt"):
        for line in tree.lines(sheet.string):
            if found := _SAID.fullmatch(line):
                said[found[1]] = found[4].strip()
            else:
                tree.leave(f"{sheet.string}: {line}", "unreadable", "a turn without name or times")
    return said


IEMOCAP = Corpus(
    name="iemocap",
    title="IEMOCAP",
    rows=_rows,
    layout=(
        "Session{1..5}/dialog/EmoEvaluation/<dialog>.txt",
        "Session{1..5}/dialog/avi/DivX/<dialog>.avi",
        "Session{1..5}/dialog/wav/<dialog>.wav, if there",
        "Session{1..5}/dialog/transcriptions/<dialog>.txt",
        "Session{1..5}/sentences/wav/<dialog>/<utterance>.wav: used where the video is absent",
    ),
    labels="angry happy excited sad neutral frustrated fear surprise disgust other; "
    "extra.four_way merges excited into happy, extra.six_way adds excited and frustrated",
    scale="valence 1..5 (extra.activation, extra.dominance likewise)",
    splits="Session1 … Session5; session 5 is the usual test",
    licence_tag="gated:IEMOCAP",
    licence="signed release form, research only",
    quirks=(
        "both actors are in one picture: crop is the speaker's half",
        "the label file has the window; transcript lines without times are listed, not used",
        "code xxx (judges disagree) is a row without label_onehot",
        "turns that nobody judged are listed as no_label",
    ),
)
