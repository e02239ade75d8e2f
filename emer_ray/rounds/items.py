"""A clip's clues, explanation and labels as things to judge, and who judges them.

An item is named by its kind and its place: `visual.1`, `explanation`, `label.2`. What an annotator
adds is named with a plus: `label.+1`. The item `clip` stands for the clip: its words are given
there, and its note and flag belong to it.
"""

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from emer_ray.errors import ConfigError

Verdict = Literal["accept", "edit", "reject", "add"]
VERDICTS: Final[tuple[Verdict, ...]] = ("accept", "edit", "reject", "add")

SENSES: Final = ("visual", "acoustic", "lexical")
ADDABLE: Final = (*SENSES, "label")
"""Kinds of which an annotator may add more."""

CLIP: Final = "clip"

_ANNOTATOR = re.compile(r"\w[\w-]{0,39}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """Something to judge; `schema.REVIEW_ITEMS` says what each column means."""

    clip_id: str
    item: str
    given: str | None
    evidence: Sequence[Mapping[str, Any]] | None = None
    look_at: str | None = None
    licence_tag: str | None = None
    annotators: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A judgement; `schema.MARKS` says what each column means."""

    clip_id: str
    item: str
    given: str | None
    verdict: Verdict | None
    text: str | None
    note: str | None
    flag: bool | None
    look_at: str | None
    annotator: str
    round: int


def kind(item: str) -> str:
    """Name what an item is: clip, visual, acoustic, lexical, explanation or label."""
    return item.partition(".")[0]


def is_added(item: str) -> bool:
    """Tell an annotator's addition from what was given."""
    return "+" in item


def order(item: str) -> tuple[int, int, int]:
    """Sort the items of a clip as people read them; additions after what was given."""
    kinds = (CLIP, *SENSES, "explanation", "label")
    place = item.partition(".")[2]
    number = place.removeprefix("+")
    return (kinds.index(kind(item)), int(is_added(item)), int(number) if number else 0)


def of_clip(row: Mapping[str, Any], listed: Mapping[str, Any]) -> Iterator[Given]:
    """Take a row of `explanations/`, or of a merged round, apart into what is to be judged.

    `listed` is the clip's row of the manifest.
    """
    clip_id, tag = row["clip_id"], row["licence_tag"]
    yield Given(
        clip_id=clip_id,
        item=CLIP,
        given=row["subtitle"],
        look_at=look_at(listed),
        licence_tag=tag,
    )
    for sense in SENSES:
        for number, clue in enumerate(row[f"{sense}_clues"], start=1):
            yield Given(
                clip_id=clip_id,
                item=f"{sense}.{number}",
                given=clue["text"],
                evidence=clue["evidence"],
                licence_tag=tag,
            )
    if row["explanation"]:
        yield Given(clip_id=clip_id, item="explanation", given=row["explanation"], licence_tag=tag)
    for number, label in enumerate(row["labels"], start=1):
        yield Given(clip_id=clip_id, item=f"label.{number}", given=label["label"], licence_tag=tag)


def look_at(listed: Mapping[str, Any]) -> str | None:
    """Say where a clip's media are; a window is a media fragment (W3C: `#t=start,end`)."""
    uri = listed.get("video_uri") or listed.get("audio_uri")
    start_s, end_s = listed.get("start_s"), listed.get("end_s")
    if uri is None or (start_s is None and end_s is None):
        return uri
    return f"{uri}#t={start_s or 0:g}" + ("" if end_s is None else f",{end_s:g}")


def named(annotators: Sequence[str]) -> list[str]:
    """Check the names of annotators, which become names of files."""
    names = [name.strip() for name in annotators if name.strip()]
    if not names:
        raise ConfigError("no annotator is named; give --annotators ANNA,BO")
    for name in names:
        if not _ANNOTATOR.fullmatch(name):
            raise ConfigError(
                f"annotator {name!r}: take letters, digits, _ and -, at most 40 of them"
            )
    if len({name.casefold() for name in names}) < len(names):
        raise ConfigError(f"annotators {', '.join(names)}: one is named twice; give each a name")
    return names


def shared_out(
    clips: Sequence[str], annotators: Sequence[str], per_clip: int | None, seed: int
) -> dict[str, list[str]]:
    """Give every clip to all annotators, or to `per_clip` of them, evenly and in changing company.

    Within each group of as many clips as there are annotators everybody gets `per_clip` clips.
    """
    n = len(annotators)
    if per_clip is None or per_clip == n:
        return {clip_id: list(annotators) for clip_id in clips}
    if not 1 <= per_clip <= n:
        raise ConfigError(f"--per-clip {per_clip}: there are {n} annotators; give 1 to {n}")
    found = {}
    for first in range(0, len(clips), n):
        drawn = list(annotators)
        random.Random(f"{seed}:{first}").shuffle(drawn)  # noqa: S311 - no secret
        for number, clip_id in enumerate(clips[first : first + n]):
            chosen = {drawn[(number + i) % n] for i in range(per_clip)}
            found[clip_id] = [name for name in annotators if name in chosen]
    return found
