"""From per-clip scores to numbers: sums that add up, values made of sums, intervals over clusters.

A `Family` says which sums over clips it needs and how values follow from them. Because only sums
travel, shards of a corpus can be totalled anywhere, in any order, and merged. Intervals are a
percentile bootstrap over clusters of clips that are not independent (one recording, one speaker). A
cluster falls into one of 4,096 blocks by a hash of its id, and whole blocks are drawn again, so the
interval too depends on neither order nor sharding.
"""

import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

Floats = npt.NDArray[np.float64]
Sums = Mapping[str, Floats]
Value = tuple[Floats, Floats]
"""A metric's value (NaN = undefined) and the number of clips it rests on."""

N_BLOCKS: Final = 4096
EVERYTHING: Final = ("", "")
"""The group of all clips."""

BLOCK: Final = "block"
_KEYS: Final = ("by", "group", BLOCK)


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Metrics that share their sums."""

    version: str
    """Which tables, parser or tokenizer the numbers belong to; repeated with each of them."""
    sums: Mapping[str, pl.Expr]
    """Names of sums to expressions over the columns of per-clip scores; each must add up over
    clips.
    """
    finish: Callable[[Sums], dict[str, Value]]
    """Sums of shape [...] to values of the same shape."""
    n_unparsable: str | None = None
    """The sum that counts clips whose answer could not be read, where a family has such clips."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Aggregate:
    """One metric of one group of clips, as a row of `metrics.parquet`."""

    metric: str
    version: str
    by: str
    """Column the clips were grouped by; "" = all clips."""
    group: str
    n: int
    n_scored: int
    n_empty: int
    """Clips whose prediction is empty or missing."""
    n_unparsable: int
    value: float | None
    low: float | None
    high: float | None
    """95 % bootstrap interval; null with fewer than two blocks of clusters."""


def blocks(clusters: pl.Series) -> pl.Series:
    """Assign each cluster id to its block."""
    distinct = clusters.unique()
    numbers = [zlib.crc32(str(cluster).encode()) % N_BLOCKS for cluster in distinct]
    table = pl.DataFrame({"cluster": distinct, BLOCK: pl.Series(numbers, dtype=pl.Int32)})
    frame = clusters.rename("cluster").to_frame()
    return frame.join(table, on="cluster", how="left", maintain_order="left", nulls_equal=True)[
        BLOCK
    ]


def totals(
    scores: pl.LazyFrame, families: Iterable[Family], by: Sequence[str] = ()
) -> pl.DataFrame:
    """Add up everything the families need, per group and block. `scores` has the column `block`."""
    sums = {"n": pl.len(), "n_empty": pl.col("empty").sum()}
    for family in families:
        sums |= {name: expr.sum() for name, expr in family.sums.items()}
    exprs = [expr.cast(pl.Float64).alias(f"sum:{name}") for name, expr in sums.items()]
    frames = []
    for column in ("", *by):
        group = pl.col(column).cast(pl.String).fill_null("") if column else pl.lit("")
        keyed = scores.with_columns(pl.lit(column).alias("by"), group.alias("group"))
        frames.append(keyed.group_by(*_KEYS).agg(exprs))
    return merge([pl.concat(frames).collect()])


def merge(parts: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Add the totals of shards."""
    return pl.concat(parts).group_by(*_KEYS).agg(pl.exclude(*_KEYS).sum()).sort(*_KEYS)


def aggregate(
    summed: pl.DataFrame, families: Iterable[Family], *, resamples: int = 1000, seed: int = 0
) -> list[Aggregate]:
    """Turn totals into values with intervals, all clips first."""
    families = list(families)
    rows: list[Aggregate] = []
    if summed.is_empty():  # no clips: every metric is there, undefined over 0 clips
        summed = summed.clear(1).with_columns(
            pl.col(pl.String).fill_null(""), pl.col(pl.Float64).fill_null(0)
        )
    for (by, group), frame in summed.group_by("by", "group", maintain_order=True):
        with np.errstate(over="ignore", invalid="ignore"):  # beyond what numbers hold: undefined
            rows += _group(str(by), str(group), frame, families, resamples, seed)
    return rows


def _group(
    by: str,
    group: str,
    frame: pl.DataFrame,
    families: Sequence[Family],
    resamples: int,
    seed: int,
) -> list[Aggregate]:
    columns = {
        name.removeprefix("sum:"): frame[name].to_numpy()
        for name in frame.columns
        if name.startswith("sum:")
    }
    whole = {name: np.array([column.sum()]) for name, column in columns.items()}
    drawn = draw(columns, resamples, seed) if frame.height > 1 and resamples > 0 else None
    rows = []
    for family in families:
        values = family.finish(whole)
        resampled = family.finish(drawn) if drawn is not None else {}
        unparsable = whole[family.n_unparsable][0] if family.n_unparsable else 0
        for metric, (value, n_scored) in values.items():
            low, high = interval(resampled[metric][0]) if resampled else (None, None)
            defined = np.isfinite(value[0])  # a value beyond what numbers hold is none
            rows.append(
                Aggregate(
                    metric=metric,
                    version=family.version,
                    by=by,
                    group=group,
                    n=int(whole["n"][0]),
                    n_scored=int(n_scored[0]),
                    n_empty=int(whole["n_empty"][0]),
                    n_unparsable=int(unparsable),
                    value=float(value[0]) if defined else None,
                    low=low if defined else None,
                    high=high if defined else None,
                )
            )
    return rows


def draw(columns: Sums, resamples: int, seed: int) -> dict[str, Floats]:
    """Sums of `resamples` draws of as many blocks as there are, with replacement."""
    m = len(next(iter(columns.values())))
    weights = np.random.default_rng(seed).multinomial(m, np.full(m, 1 / m), size=resamples)
    matrix = np.stack(list(columns.values()), axis=1)
    drawn = weights.astype(np.float64) @ matrix
    return {name: drawn[:, i] for i, name in enumerate(columns)}


def interval(values: Floats) -> tuple[float | None, float | None]:
    """The middle 95 % of the values that are defined."""
    defined = values[np.isfinite(values)]
    if len(defined) == 0:
        return None, None
    low, high = np.quantile(defined, [0.025, 0.975])
    return float(low), float(high)


def ratio(top: Floats, bottom: Floats, *, undefined: float = np.nan) -> Floats:
    """Divide; `undefined` where the divisor is 0."""
    quotient = np.full(np.shape(bottom), undefined)
    np.divide(top, bottom, out=quotient, where=bottom != 0)
    return quotient


def harmonic(p: Floats, r: Floats) -> Floats:
    """F of two means; 0 where both are 0, NaN where they are undefined."""
    f = ratio(2 * p * r, p + r, undefined=0.0)
    return np.where(np.isnan(p + r), np.nan, f)


def mean_sums(columns: Iterable[str]) -> dict[str, pl.Expr]:
    """Sum and count of nullable columns: what their means need."""
    sums = {}
    for column in columns:
        sums[column] = pl.col(column)
        sums[f"{column}#"] = pl.col(column).is_not_null()
    return sums


def means(columns: Sequence[str], version: str) -> Family:
    """Plain means of nullable columns, each under its own name."""

    def finish(s: Sums) -> dict[str, Value]:
        return {c: (ratio(s[c], s[f"{c}#"]), s[f"{c}#"]) for c in columns}

    return Family(version=version, sums=mean_sums(columns), finish=finish)


def prf(metric: str, s: Sums) -> dict[str, Value]:
    """Precision, recall and F of the means, of the columns `metric.p` and `metric.r`."""
    n = s[f"{metric}.p#"]
    p, r = ratio(s[f"{metric}.p"], n), ratio(s[f"{metric}.r"], n)
    return {f"{metric}.f": (harmonic(p, r), n), f"{metric}.p": (p, n), f"{metric}.r": (r, n)}


def frame(rows: Sequence[Aggregate]) -> pl.DataFrame:
    """The rows of `metrics.parquet`."""
    schema: dict[str, Any] = {
        "metric": pl.String,
        "version": pl.String,
        "by": pl.String,
        "group": pl.String,
        "n": pl.Int64,
        "n_scored": pl.Int64,
        "n_empty": pl.Int64,
        "n_unparsable": pl.Int64,
        "value": pl.Float64,
        "low": pl.Float64,
        "high": pl.Float64,
    }
    return pl.DataFrame([{k: getattr(row, k) for k in schema} for row in rows], schema=schema)


def length_bin(seconds: pl.Series) -> pl.Series:
    """Clip length, in seconds, in the bins of the breakdown by length."""
    names = ("<=2 s", "2-4 s", "4-8 s", "8-16 s", ">16 s")
    edge = pl.sum_horizontal((pl.col("s") > edge).cast(pl.Int64) for edge in (2, 4, 8, 16))
    known = pl.when(pl.col("s").is_not_null()).then(edge)
    return (
        seconds.to_frame("s")
        .select(known.replace_strict(range(5), names, return_dtype=pl.String))
        .to_series()
    )
