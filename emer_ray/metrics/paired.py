"""Two sides scored on the same clips: differences with intervals, and McNemar's test.

Both sides' sums are drawn with the same clusters each time, so what makes a clip hard for both
cancels out. McNemar's exact test is for scores of 0 and 1; it takes clips as independent, which
the bootstrap does not, so of the two the interval counts where clips come in clusters.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from emer_ray.metrics import stats
from emer_ray.metrics.stats import BLOCK, Family


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A metric of two sides over the same clips."""

    metric: str
    version: str
    n: int
    """Clips that count, of the side that has fewer."""
    a: float | None
    b: float | None
    difference: float | None
    """b - a."""
    low: float | None
    high: float | None
    """95 % paired bootstrap; null with fewer than two blocks of clusters."""
    a_only: int | None = None
    """Clips that only the first side has right, where a score is right or wrong."""
    b_only: int | None = None
    p: float | None = None
    """McNemar's exact two-sided p of those two; null where a score is no yes or no."""


def differences(
    a: pl.DataFrame,
    b: pl.DataFrame,
    families: Iterable[Family],
    *,
    binary: Mapping[str, pl.Expr],
    resamples: int = 1000,
    seed: int = 0,
) -> list[Difference]:
    """Compare two frames of per-clip scores, row for row the same clips.

    Both have the columns `block` and `empty`. `binary` names the metrics that are means of yes and
    no, and how a row says so (null = not scored).
    """
    families = list(families)
    rows: list[Difference] = []
    summed = [_columns(stats.totals(side.lazy(), families)) for side in (a, b)]
    whole = [{name: np.array([column.sum()]) for name, column in side.items()} for side in summed]
    several = len(next(iter(summed[0].values()))) > 1 and resamples > 0
    drawn = [stats.draw(side, resamples, seed) for side in summed] if several else []
    for family in families:
        first, second = (family.finish(side) for side in whole)
        again = [family.finish(side) for side in drawn]
        for metric, (value, n) in first.items():
            other, m = second[metric]
            tested = _one_sided(a, b, binary.get(metric))
            low, high = (
                stats.interval(again[1][metric][0] - again[0][metric][0]) if again else (None, None)
            )
            known = not (np.isnan(value[0]) or np.isnan(other[0]))
            rows.append(
                Difference(
                    metric=metric,
                    version=family.version,
                    n=int(min(n[0], m[0])),
                    a=None if np.isnan(value[0]) else float(value[0]),
                    b=None if np.isnan(other[0]) else float(other[0]),
                    difference=float(other[0] - value[0]) if known else None,
                    low=low if known else None,
                    high=high if known else None,
                    a_only=tested and tested[0],
                    b_only=tested and tested[1],
                    p=tested and mcnemar(*tested),
                )
            )
    return rows


def _columns(totals: pl.DataFrame) -> dict[str, stats.Floats]:
    ordered = totals.sort(BLOCK)
    return {
        name.removeprefix("sum:"): ordered[name].to_numpy()
        for name in ordered.columns
        if name.startswith("sum:")
    }


def _one_sided(a: pl.DataFrame, b: pl.DataFrame, right: pl.Expr | None) -> tuple[int, int] | None:
    """Clips that are right on the first side only, and on the second only."""
    if right is None:
        return None
    first, second = (side.select(right.cast(pl.Boolean).alias("right"))["right"] for side in (a, b))
    both = pl.DataFrame([first.alias("a"), second.alias("b")]).drop_nulls()
    return int((both["a"] & ~both["b"]).sum()), int((~both["a"] & both["b"]).sum())


def mcnemar(a_only: int, b_only: int) -> float:
    """Two-sided exact p that clips right on one side only fall to either side alike."""
    n, least = a_only + b_only, min(a_only, b_only)
    logs = [
        math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) for k in range(least + 1)
    ]
    half = math.fsum(math.exp(log - n * math.log(2)) for log in logs)
    return min(1.0, 2 * half)
