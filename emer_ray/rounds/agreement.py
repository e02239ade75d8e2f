"""How far annotators agree: Krippendorff's alpha, by NLTK.

    alpha = 1 - observed disagreement / disagreement expected by chance

Clips that fewer than two judged say nothing and are left out. Null where the figure is undefined:
nothing was judged twice, or everybody said the same of every clip, so that no disagreement could be
expected. Labels are sets, and the distance of two sets is MASI (Passonneau 2006) or Jaccard's; two
empty sets agree. Verdicts are nominal.

What was given pulls annotators towards itself: alpha over corrected sets is higher than it would be
over sets written from nothing, and `kept_share` beside it says how much was left as given.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

from nltk.metrics import binary_distance, jaccard_distance, masi_distance
from nltk.metrics.agreement import AnnotationTask

from emer_ray.rounds import items
from emer_ray.rounds.items import Given, Mark

Sets = Mapping[str, Mapping[str, frozenset[str]]]
"""Clip -> annotator -> labels."""


def alpha(
    units: Mapping[str, Mapping[str, Hashable]], distance: Callable[[Any, Any], float]
) -> float | None:
    """Krippendorff's alpha of unit -> annotator -> value; null where it is undefined."""
    twice = {unit: said for unit, said in units.items() if len(said) >= 2}
    if len({value for said in twice.values() for value in said.values()}) < 2:
        return None
    judged = [(who, unit, value) for unit, said in twice.items() for who, value in said.items()]
    return float(AnnotationTask(judged, distance=distance).alpha())


def masi(a: frozenset[str], b: frozenset[str]) -> float:
    """MASI distance; two empty sets are equal."""
    return float(masi_distance(a, b)) if a or b else 0.0


def jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    """Jaccard distance; two empty sets are equal."""
    return float(jaccard_distance(a, b)) if a or b else 0.0


def figures(
    given: Sequence[Given],
    marks: Sequence[Mark],
    labels: Sets,
    family: Callable[[str], str | None],
) -> dict[str, Any]:
    """Every figure of a round, as it goes to `agreement.json`."""
    families = {
        clip_id: {
            who: frozenset(family(word) or word for word in words) for who, words in said.items()
        }
        for clip_id, said in labels.items()
    }
    twice = [said for said in labels.values() if len(said) >= 2]
    verdicts = _verdicts(marks)
    return {
        "labels": {
            "alpha_masi": alpha(labels, masi),
            "alpha_jaccard": alpha(labels, jaccard),
            "alpha_masi_families": alpha(families, masi),
            "clips": len(twice),
            "annotators": len({who for said in twice for who in said}),
        },
        "verdicts": {
            "alpha": alpha(verdicts, binary_distance),
            "items": sum(len(said) >= 2 for said in verdicts.values()),
            "counts": dict(Counter(v for said in verdicts.values() for v in said.values())),
        },
        "pairs": _pairs(labels),
        "annotators": _annotators(given, marks),
    }


def _verdicts(marks: Iterable[Mark]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for mark in marks:
        if mark.verdict in ("accept", "edit", "reject") and mark.item != items.CLIP:
            found.setdefault(f"{mark.clip_id}\0{mark.item}", {})[mark.annotator] = mark.verdict
    return found


def _pairs(labels: Sets) -> list[dict[str, Any]]:
    """Mean Jaccard index of the label sets of every two annotators, over the clips of both."""
    both: dict[tuple[str, str], list[float]] = {}
    for said in labels.values():
        for a, b in combinations(sorted(said), 2):
            both.setdefault((a, b), []).append(1 - jaccard(said[a], said[b]))
    return [
        {"a": a, "b": b, "clips": len(found), "jaccard": sum(found) / len(found)}
        for (a, b), found in sorted(both.items())
    ]


def _annotators(given: Sequence[Given], marks: Sequence[Mark]) -> dict[str, dict[str, Any]]:
    """How far each annotator is, and how much they left as it was given."""
    names = sorted({name for each in given for name in each.annotators})
    found = {}
    for name in names:
        mine = [m for m in marks if m.annotator == name and m.verdict and m.item != items.CLIP]
        asked = [e for e in given if name in e.annotators and e.item != items.CLIP]
        counts = Counter(mark.verdict for mark in mine)
        judged = sum(counts[verdict] for verdict in ("accept", "edit", "reject"))
        found[name] = {
            "items": len(asked),
            "judged": judged,
            "accepted": counts["accept"],
            "edited": counts["edit"],
            "rejected": counts["reject"],
            "added": counts["add"],
            "kept_share": counts["accept"] / judged if judged else None,
        }
    return found
