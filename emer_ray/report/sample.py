"""Which clips get a card, and why: a stratified, seeded sample that anyone can draw again."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import polars as pl

from emer_ray.report import gather

Stratum = Literal["chosen", "surprising", "ambiguous", "failed", "typical"]

STRATA: Final[Mapping[Stratum, str]] = {
    "chosen": "asked for by --clip",
    "surprising": "suspects of the audit, where there is one; else old label and new labels share "
    "no family, or, without old labels, its words are the rarest of the run",
    "ambiguous": "its labels fall into the most families; of equals, the least confident first",
    "failed": "failed or pending, each stage and kind in turn",
    "typical": "drawn from all that are left",
}
"""Why a clip has a card; a clip that fits several is in the first."""

_DRAWN: Final[tuple[Stratum, ...]] = ("failed", "surprising", "ambiguous", "typical")


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """A clip with a card."""

    clip_id: str
    stratum: Stratum
    because: str
    """What makes it one of its stratum, in words."""


def draw(
    run: gather.Run,
    n: int,
    *,
    seed: int,
    chosen: Sequence[str] = (),
    suspects: Sequence[tuple[str, str]] = (),
) -> list[Drawn]:
    """Draw up to `n` clips beside those `chosen`: equal shares, what a stratum lacks to the next.

    `suspects` are clips with the audit's reason, the worst first. The draw depends on the seed and
    the clip ids, never on an order.
    """
    drawn = [Drawn(clip_id=c, stratum="chosen", because="asked for") for c in dict.fromkeys(chosen)]
    taken = set(chosen)
    candidates = {
        "failed": _failed(run, seed),
        "surprising": list(suspects) or _surprising(run, seed),
        "ambiguous": _ambiguous(run, seed),
        "typical": [(c, "drawn at random") for c in _shuffled(run.ok["clip_id"], seed)],
    }
    left = n
    for place, stratum in enumerate(_DRAWN):
        share = -(-left // (len(_DRAWN) - place))
        fresh = [(c, why) for c, why in candidates[stratum] if c not in taken][:share]
        taken |= {c for c, _ in fresh}
        left -= len(fresh)
        drawn += [Drawn(clip_id=c, stratum=stratum, because=why) for c, why in fresh]
    order = list(STRATA)
    return sorted(drawn, key=lambda one: order.index(one.stratum))


def _shuffled(clip_ids: pl.Series, seed: int) -> list[str]:
    return sorted(clip_ids, key=lambda c: hashlib.sha256(f"{seed}:{c}".encode()).digest())


def _failed(run: gather.Run, seed: int) -> list[tuple[str, str]]:
    """Failed clips, one of each stage and kind, then the second of each, and so on."""
    ended = run.clips.filter(pl.col("outcome") != "ok")
    kinds = {
        c: "not done yet" if stage is None else f"failed in {stage} as {kind}"
        for c, stage, kind in ended.select("clip_id", "stage", "kind").iter_rows()
    }
    rounds: dict[str, int] = {}
    found = []
    for clip_id in _shuffled(ended["clip_id"], seed):
        why = kinds[clip_id]
        rounds[why] = rounds.get(why, 0) + 1
        found.append((rounds[why], why, clip_id))
    return [(clip_id, why) for _, why, clip_id in sorted(found, key=lambda one: one[:2])]


def _surprising(run: gather.Run, seed: int) -> list[tuple[str, str]]:
    known = gather.families(1)
    rows = {row["clip_id"]: row for row in run.ok.to_dicts()}
    order = _shuffled(run.ok["clip_id"], seed)
    against = []
    for clip_id in order:
        row = rows[clip_id]
        before = row["label_ov"] or [row["label_onehot"] or ""]
        old = {gather.family_of(word, known) for word in before} - {gather.NO_FAMILY}
        new = {gather.family_of(word, known) for word in row["words"]} - {gather.NO_FAMILY}
        if old and new and not old & new:
            said = ", ".join(gather.old_labels(row))
            against.append((clip_id, f"old label {said}, and no new label of its family"))
    if against or any(row["label_onehot"] or row["label_ov"] for row in rows.values()):
        return against
    frequency = dict(gather.counted(run.ok["words"].explode()))
    rare = []
    for clip_id in order:
        words = rows[clip_id]["words"]
        if words:
            rarest = min(words, key=lambda word: frequency[word])
            rare.append((frequency[rarest], clip_id, rarest))
    return [
        (clip_id, f"“{word}” is a label of {n} clip{'s' if n > 1 else ''}")
        for n, clip_id, word in sorted(rare, key=lambda one: one[0])
    ]


def _ambiguous(run: gather.Run, seed: int) -> list[tuple[str, str]]:
    known = gather.families(1)
    rows = {row["clip_id"]: row for row in run.ok.to_dicts()}
    spread = []
    for clip_id in _shuffled(run.ok["clip_id"], seed):
        row = rows[clip_id]
        named = {gather.family_of(word, known) for word in row["words"]} - {gather.NO_FAMILY}
        if len(named) > 1:
            confidence = 1.0 if row["confidence"] is None else row["confidence"]
            spread.append((-len(named), confidence, clip_id, sorted(named)))
    return [
        (clip_id, f"labels of {len(named)} families: {', '.join(named)}")
        for _, _, clip_id, named in sorted(spread, key=lambda one: one[:2])
    ]
