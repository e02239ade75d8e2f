"""One label out of a fixed set: accuracy, weighted and unweighted averages, ranked guesses,
pairwise preferences.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final, Literal

import numpy as np
import polars as pl

from emer_ray.metrics.stats import Family, Floats, Sums, Value, means, ratio

EMER_CANDIDATES: Final = ("happy", "angry", "worried", "sad", "surprise", "neutral")
"""Order in which the candidates of a ranking that the answer leaves out are appended."""

Preference = Literal["a1", "a2", "same"]
SIDES: Final[tuple[Preference, ...]] = ("a1", "a2")
SAME: Final[Preference] = "same"


def classification(
    gold: str, guess: str, classes: Sequence[str], names: Mapping[str, str]
) -> Family:
    """Scores of a column of guesses against a column of gold classes; a null guess is a wrong one.

    `names` gives the ids to report for `acc`, `waf`, `uar` and `war`. Clips without gold are not
    scored. WAF weighs the F1 of a class by its gold share, a class never hit counts 0; UAR is the
    mean recall of the classes gold has.
    """
    sums = {}
    for number, label in enumerate(classes):
        is_gold, is_guess = pl.col(gold) == label, (pl.col(guess) == label).fill_null(False)
        sums[f"{gold}:gold{number}"] = is_gold.fill_null(False)
        sums[f"{gold}:guess{number}"] = is_guess & pl.col(gold).is_not_null()
        sums[f"{gold}:hit{number}"] = is_gold.fill_null(False) & is_guess

    def finish(s: Sums) -> dict[str, Value]:
        golds, guesses, hits = (
            np.array([s[f"{gold}:{kind}{i}"] for i in range(len(classes))]).reshape(
                -1, *s["n"].shape
            )
            for kind in ("gold", "guess", "hit")
        )
        n = golds.sum(axis=0)
        f1 = ratio(2 * hits, golds + guesses, undefined=0.0)
        recall = ratio(hits, golds)
        present = golds > 0
        values: dict[str, Floats] = {
            "acc": ratio(hits.sum(axis=0), n),
            "waf": ratio((f1 * golds).sum(axis=0), n),
            "uar": ratio(
                np.where(present, recall, 0).sum(axis=0), present.sum(axis=0).astype(float)
            ),
        }
        values["war"] = values["acc"]
        return {names[kind]: (value, n) for kind, value in values.items() if kind in names}

    return Family(version=f"{len(classes)} classes", sums=sums, finish=finish)


def confusion(scores: pl.DataFrame, gold: str, guess: str) -> pl.DataFrame:
    """How often each gold class met each guess: `gold`, `guess` (null = none), `clips`."""
    pairs = scores.filter(pl.col(gold).is_not_null()).group_by(gold, guess).len("clips")
    return pairs.rename({gold: "gold", guess: "guess"}).sort("gold", "guess")


def ranking(
    answer: str | Sequence[str] | None, candidates: Sequence[str] = EMER_CANDIDATES
) -> list[str]:
    """Order of the candidates in an answer; those it leaves out follow in fixed order; no candidate
    at all gives [].
    """
    text = " ".join(answer) if answer is not None and not isinstance(answer, str) else answer or ""
    found: list[tuple[int, str]] = []
    for candidate in candidates:
        match = re.search(rf"(?<!\w){re.escape(candidate)}(?!\w)", text, re.IGNORECASE)
        if match:
            found.append((match.start(), candidate))
    if not found:
        return []
    ordered = [candidate for _, candidate in sorted(found)]
    return ordered + [candidate for candidate in candidates if candidate not in ordered]


def topk_scores(gold: Sequence[str | None], rankings: Sequence[Sequence[str]]) -> dict[str, Floats]:
    """Whether gold is first, and among the first two; NaN without gold."""
    columns = {}
    for k in (1, 2):
        hits = [
            np.nan if label is None else float(label in ranked[:k])
            for label, ranked in zip(gold, rankings, strict=True)
        ]
        columns[f"top{k}"] = np.array(hits)
    return columns


def topk_family() -> Family:
    """Top-1 and top-2 accuracy of ranked candidates."""
    return means(["top1", "top2"], "ranking")


def preference(answer: str | None) -> Preference:
    """Read which of two descriptions an answer prefers: `a1`, `a2` or `same` (science §c.10)."""
    text = (answer or "").lower().strip()
    answers: tuple[Preference, ...] = (*SIDES, SAME)
    found = [(text.find(side), place) for place, side in enumerate(answers) if side in text]
    return answers[min(found)[1]] if found else SAME


def preference_families() -> list[Family]:
    """Two classes (gold ties dropped, a predicted tie counts as a1) and three, over `pref.gold` and
    `pref.guess`.
    """
    two = classification(
        "pref.gold2", "pref.guess2", SIDES, {"acc": "pref2.acc", "waf": "pref2.waf"}
    )
    three = classification(
        "pref.gold", "pref.guess", (*SIDES, SAME), {"acc": "pref3.acc", "waf": "pref3.waf"}
    )
    return [two, three]


def preference_columns() -> list[pl.Expr]:
    """The two-class view of the columns `pref.gold` and `pref.guess`."""
    return [
        pl.when(pl.col("pref.gold") != SAME).then(pl.col("pref.gold")).alias("pref.gold2"),
        pl.col("pref.guess").replace(SAME, SIDES[0]).alias("pref.guess2"),
    ]
