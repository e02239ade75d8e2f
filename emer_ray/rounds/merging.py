"""Many annotators' judgements to one account of a clip, and where they are at odds.

A vote is a verdict of an annotator on an item. Accept and edit keep an item, reject drops it; an
item is dropped when more reject than keep it. Its words are those of most who keep it; of equals a
correction goes before what was given, and the first annotator's by name before another's. What
somebody adds is kept, once. An item that nobody judged stays as it was given.

A label's support is the share of the annotators of its clip who keep or add it: one of four is kept
with 0.25, because a reading that is not the majority's is what EMER is about; `min_support` drops
it. An annotator is one of the clip's when there is any mark of theirs on it.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from emer_ray.errors import ConfigError
from emer_ray.rounds import items, sheets
from emer_ray.rounds.items import Given, Mark

Row = dict[str, Any]

REASONS: Final[Mapping[str, str]] = {
    "tie": "as many reject the item as keep it; it was kept",
    "split": "some reject it and some keep it; the majority counted",
    "edits": "it was corrected in several ways; one was taken",
    "flag": "an annotator wants the clip looked at again",
}
"""Why a row is in the list of conflicts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """What a round came to."""

    rows: list[Row]
    """`schema.REVIEWED`, in the order of what was given."""
    conflicts: list[Row]
    """`schema.CONFLICTS`."""
    marks: list[Mark]
    """Every judgement that counted."""


def checked(name: str, marks: Sequence[Mark], given: Sequence[Given], round_: int) -> list[Mark]:
    """Match a sheet's marks with what was given; returns those that judge something.

    Raises ConfigError where the sheet belongs to another round, names a clip or an item that was
    not given, or shows other words than were given. An annotator is named in the sheet, else by the
    name of its file.
    """
    by_place = {(sheets.shown(each.clip_id), each.item): each for each in given}
    asked = {sheets.shown(e.clip_id): (e.clip_id, e.annotators) for e in given if e.item == "clip"}
    stem = name.rsplit("/", 1)[-1].rpartition(".")[0]
    found: list[Mark] = []
    for mark in marks:
        annotator = mark.annotator or stem
        where = f"{name}: {mark.clip_id}, {mark.item}"
        if mark.round not in (0, round_):
            raise ConfigError(f"{where}: belongs to round {mark.round}, this is round {round_}")
        if mark.clip_id not in asked:
            raise ConfigError(f"{where}: no such clip was given; is the sheet of another run?")
        clip_id, annotators = asked[mark.clip_id]
        if annotator not in annotators:
            raise ConfigError(
                f"{where}: was given to {', '.join(annotators)}, not to {annotator}; the column "
                f"annotator tells whose a row is"
            )
        each = by_place.get((mark.clip_id, mark.item))
        if each is None and not items.is_added(mark.item):
            raise ConfigError(f"{where}: no such item was given; keep the column item as it was")
        if each is not None and mark.given and not _same(mark.given, each.given):
            raise ConfigError(
                f"{where}: the sheet says {mark.given[:60]!r}, given was {str(each.given)[:60]!r}; "
                f"restore the column given"
            )
        if mark.verdict or mark.note or mark.flag:
            found.append(
                Mark(
                    clip_id=clip_id,
                    item=mark.item,
                    given=None if each is None else each.given,
                    verdict=mark.verdict,
                    text=mark.text,
                    note=mark.note,
                    flag=mark.flag,
                    look_at=None,
                    annotator=annotator,
                    round=round_,
                )
            )
    return found


def _same(shown: str, given: str | None) -> bool:
    """Compare as a spreadsheet would have kept it."""
    plain = [" ".join(sheets.shown(text or "").lstrip("'").split()) for text in (shown, given)]
    return plain[0] == plain[1]


def merge(
    given: Sequence[Given], marks: Sequence[Mark], round_: int, min_support: float = 0.0
) -> Merged:
    """Fold the judgements of a round into one row per clip."""
    by_clip: dict[str, list[Given]] = {}
    for each in given:
        by_clip.setdefault(each.clip_id, []).append(each)
    marked: dict[str, list[Mark]] = {}
    for mark in sorted(marks, key=lambda mark: mark.annotator):
        marked.setdefault(mark.clip_id, []).append(mark)
    rows: list[Row] = []
    conflicts: list[Row] = []
    for clip_id, mine in by_clip.items():
        row, at_odds = _clip(clip_id, mine, marked.get(clip_id, []), round_, min_support)
        rows.append(row)
        conflicts += at_odds
    return Merged(rows=rows, conflicts=conflicts, marks=list(marks))


def _clip(
    clip_id: str, given: Sequence[Given], marks: Sequence[Mark], round_: int, min_support: float
) -> tuple[Row, list[Row]]:
    judges = sorted({mark.annotator for mark in marks})
    kept: dict[str, list[Row]] = {kind: [] for kind in (*items.SENSES, "explanation")}
    labels: dict[str, set[str]] = {}
    conflicts: list[Row] = []
    for each in sorted(given, key=lambda each: items.order(each.item)):
        kind = items.kind(each.item)
        votes = [mark for mark in marks if mark.item == each.item and mark.verdict]
        if kind == items.CLIP:
            continue
        if kind == "label":
            _count(labels, each, votes, judges)
        text, reason = _settled(each, votes)
        if kind != "label" and text is not None:
            evidence = each.evidence if text == each.given else []
            kept[kind].append({"text": text, "evidence": list(evidence or [])})
        if reason:
            conflicts.append(_conflict(each, reason, text, votes))
    for mark in sorted(marks, key=lambda mark: (items.order(mark.item), mark.annotator)):
        if mark.verdict != "add" or not mark.text:
            continue
        kind = items.kind(mark.item)
        if kind == "label":
            for word in sheets.words(mark.text):
                labels.setdefault(word, set()).add(mark.annotator)
        elif _plain(mark.text) not in {_plain(clue["text"]) for clue in kept[kind]}:
            kept[kind].append({"text": mark.text, "evidence": []})
    words = next(each for each in given if each.item == items.CLIP)
    flagged = [mark.annotator for mark in marks if mark.flag]
    if flagged:
        conflicts.append(_conflict(words, "flag", words.given, [m for m in marks if m.flag]))
    support = {word: len(who) / len(judges) if judges else None for word, who in labels.items()}
    row = {
        "clip_id": clip_id,
        **{f"{sense}_clues": kept[sense] for sense in items.SENSES},
        "explanation": kept["explanation"][0]["text"] if kept["explanation"] else "",
        "labels": [
            {"label": word, "support": share}
            for word, share in sorted(support.items(), key=lambda item: -(item[1] or 0.0))
            if share is None or share >= min_support
        ],
        "subtitle": words.given,
        "notes": [f"{mark.annotator}: {mark.note}" for mark in marks if mark.note],
        "flagged_by": flagged,
        "annotators": judges,
        "round": round_,
        "licence_tag": words.licence_tag,
    }
    return row, conflicts


def _settled(each: Given, votes: Sequence[Mark]) -> tuple[str | None, str | None]:
    """Decide an item: its words, or null where it is dropped; and why it is a conflict."""
    assert each.given is not None, each
    keeps = [mark for mark in votes if mark.verdict in ("accept", "edit")]
    rejects = len(votes) - len(keeps)
    if rejects > len(keeps):
        return None, "split" if keeps else None
    counts = Counter(_plain(mark.text or each.given) for mark in keeps)
    most = max(counts.values(), default=0)
    texts = {_plain(mark.text or each.given): mark.text or each.given for mark in reversed(keeps)}
    best = [text for plain, text in reversed(texts.items()) if counts[plain] == most]
    corrected = [text for text in best if _plain(text) != _plain(each.given)]
    text = (corrected or best or [each.given])[0]
    if rejects:
        return text, "tie" if rejects == len(keeps) else "split"
    edits = {_plain(mark.text) for mark in keeps if mark.text}
    return text, "edits" if len(edits) > 1 else None


def _count(
    labels: dict[str, set[str]], each: Given, votes: Sequence[Mark], judges: Sequence[str]
) -> None:
    """Add who stands behind a given label, and behind what it was corrected to."""
    assert each.given is not None, each
    keeps = [mark for mark in votes if mark.verdict in ("accept", "edit")]
    if len(votes) > 2 * len(keeps):
        return
    if not votes:
        labels.setdefault(sheets.label(each.given), set()).update(judges)
    for mark in keeps:
        for word in sheets.words(mark.text or each.given):
            labels.setdefault(word, set()).add(mark.annotator)


def _plain(text: str | None) -> str:
    return " ".join((text or "").split()).casefold()


def _conflict(each: Given, reason: str, chosen: str | None, votes: Iterable[Mark]) -> Row:
    return {
        "clip_id": each.clip_id,
        "item": each.item,
        "reason": reason,
        "given": each.given,
        "chosen": chosen,
        "votes": [
            (mark.annotator, f"{mark.verdict or 'flag'}{f': {mark.text}' if mark.text else ''}")
            for mark in votes
        ],
    }


def label_sets(
    given: Sequence[Given], marks: Sequence[Mark]
) -> dict[str, dict[str, frozenset[str]]]:
    """Give each annotator's own labels of each clip, for clips whose labels they judged whole.

    Clip -> annotator -> labels. A clip without given labels counts where they marked anything.
    """
    shown: dict[str, dict[str, str]] = {}
    for each in given:
        mine = shown.setdefault(each.clip_id, {})
        if items.kind(each.item) == "label" and each.given is not None:
            mine[each.item] = each.given
    by_judge: dict[tuple[str, str], list[Mark]] = {}
    for mark in marks:
        if mark.verdict:
            by_judge.setdefault((mark.clip_id, mark.annotator), []).append(mark)
    found: dict[str, dict[str, frozenset[str]]] = {}
    for (clip_id, annotator), mine_marks in by_judge.items():
        verdicts = {mark.item: mark for mark in mine_marks}
        if not shown[clip_id].keys() <= verdicts.keys():
            continue
        own: set[str] = set()
        for item, mark in verdicts.items():
            if items.kind(item) == "label" and mark.verdict != "reject":
                own.update(sheets.words(mark.text or shown[clip_id].get(item, "")))
        found.setdefault(clip_id, {})[annotator] = frozenset(own)
    return found
