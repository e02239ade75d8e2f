"""Valence numbers and sentiment: read a number out of an answer, compare it with gold."""

import re
from typing import Final

import numpy as np
import polars as pl

from emer_ray.metrics.fixed import classification
from emer_ray.metrics.stats import Family, Floats, Sums, Value, ratio

_NUMBER: Final = re.compile(r"[-+−]?(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?")
SENTIMENT_CLASSES: Final = ("positive", "negative")


def number(answer: object, low: float | None = None, high: float | None = None) -> float | None:
    """First number in an answer, brought into the asked range; null when there is none."""
    if answer is None or isinstance(answer, int | float):
        value = None if answer is None or answer != answer else float(answer)
    else:
        match = _NUMBER.search(str(answer))
        value = float(match.group().replace("−", "-")) if match else None
    if value is None:
        return None
    return min(max(value, -np.inf if low is None else low), np.inf if high is None else high)


def family() -> Family:
    """PCC, CCC and MSE of the columns `valence.gold` and `valence.guess`, over clips that have both
    (science §c.6).
    """
    x, y = pl.col("valence.gold"), pl.col("valence.guess")
    both = x.is_not_null() & y.is_not_null()
    terms = {"n": both, "x": x, "y": y, "xx": x * x, "yy": y * y, "xy": x * y}
    sums: dict[str, pl.Expr] = {
        f"valence:{name}": pl.when(both).then(term) for name, term in terms.items()
    }
    sums["valence:unparsable"] = x.is_not_null() & pl.col("valence.unparsable")

    def finish(s: Sums) -> dict[str, Value]:
        n, x, y, xx, yy, xy = (s[f"valence:{name}"] for name in terms)
        mx, my = ratio(x, n), ratio(y, n)
        vx, vy = _variance(xx, mx, n), _variance(yy, my, n)
        cov = ratio(xy, n) - mx * my
        moving = (vx > 0) & (vy > 0)
        return {
            "valence.pcc": (np.where(moving, ratio(cov, np.sqrt(vx * vy)), np.nan), n),
            "valence.ccc": (np.where(moving, ratio(2 * cov, vx + vy + (mx - my) ** 2), np.nan), n),
            "valence.mse": (ratio(xx - 2 * xy + yy, n), n),
        }

    return Family(
        version="population moments", sums=sums, finish=finish, n_unparsable="valence:unparsable"
    )


def _variance(squares: Floats, mean: Floats, n: Floats) -> Floats:
    """Population variance from a sum of squares; what rounding leaves of a constant is 0."""
    variance = ratio(squares, n) - mean * mean
    return np.where(variance > 1e-12 * np.maximum(mean * mean, 1e-300), variance, 0.0)


def sentiment(answer: str | None) -> int:
    """Read a sentiment: positive 1, negative -1, anything else 0."""
    text = (answer or "").strip().lower()
    return 1 if text.startswith("positive") else -1 if text.startswith("negative") else 0


def sentiment_columns() -> list[pl.Expr]:
    """Two classes out of `valence.gold` (0 is dropped) and `sentiment.guess` (a number; 0 and null
    count as negative).
    """
    gold, guess = pl.col("valence.gold"), pl.col("sentiment.guess")
    positive, negative = (pl.lit(name) for name in SENTIMENT_CLASSES)
    return [
        pl.when(gold > 0)
        .then(positive)
        .when(gold < 0)
        .then(negative)
        .alias("sentiment.gold_class"),
        pl.when(guess > 0).then(positive).otherwise(negative).alias("sentiment.guess_class"),
    ]


def sentiment_family() -> Family:
    """ACC and WAF of positive against negative."""
    return classification(
        "sentiment.gold_class",
        "sentiment.guess_class",
        SENTIMENT_CLASSES,
        {"acc": "sentiment.acc", "waf": "sentiment.waf"},
    )
