"""How fast the twelve wheel metrics are at the scale of a corpus, against a plain Python loop over
clips.

Both get label lists in memory and give precision, recall and F of each mapping. The loop looks each
label up in a ready dictionary and compares two sets per clip and mapping; as it is slow it runs on
a part of the clips, and its time is scaled. Values are compared on that part, clip by clip.
"""

import resource
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

import numpy as np
import polars as pl
import pyarrow as pa

from emer_ray.metrics import labels, lexicon, stats, wheels
from emer_ray.metrics.wheels import MAPPINGS, Wheels

T = TypeVar("T")

CLIPS: Final = 1_000_000
LOOP_SHARE: Final = 10
"""The loop runs on one clip in so many."""
_MOST_LABELS: Final = 6
_UNKNOWN: Final = 500
"""Words the tables do not know, mixed in."""


def metrics(
    seed: int = 0, clips: int | None = None, say: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Measure seconds, speed-up over the loop, equality of the values, and peak memory."""
    n = clips or CLIPS
    tables = lexicon.default()
    words = [*tables.images, *(f"zz{number}" for number in range(_UNKNOWN))]
    rng = np.random.default_rng(seed)
    gold, pred = _lists(rng, n, 1, words), _lists(rng, n, 0, words)
    say(f"{n} clips, labels of {len(words)} different words")

    seconds, (values, _) = _best(lambda: ours(gold, pred, tables))
    rss_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    say(f"ours: {seconds:.2f} s, peak {rss_mb:.0f} MB")

    part = max(n // LOOP_SHARE, 1)
    gold_rows, pred_rows = gold.head(part).to_list(), pred.head(part).to_list()
    loop_seconds, wanted = _best(lambda: loop(gold_rows, pred_rows, tables))
    loop_seconds *= n / part
    say(f"loop: {loop_seconds:.1f} s for as many clips")
    part_values, scores = ours(gold.head(part), pred.head(part), tables)
    equal = all(np.array_equal(scores[name], wanted[name], equal_nan=True) for name in scores)
    for metric in MAPPINGS:
        p, r = (float(np.nanmean(wanted[f"{metric}.{part}"])) for part in ("p", "r"))
        f = 2 * p * r / (p + r) if p + r else 0.0
        equal &= abs(part_values[f"{metric}.f"] - f) < 1e-12
    return {
        "clips": n,
        "seconds": round(seconds, 3),
        "speedup": round(loop_seconds / seconds, 1),
        "equal": bool(equal),
        "rss_mb": round(rss_mb),
        "loop_clips": part,
        "wheel_m_avg": values["wheel.m_avg"],
    }


def _best(work: Callable[[], T]) -> tuple[float, T]:
    """Seconds of the fastest of three runs, and what the last gave."""
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - start)
    return min(seconds), result


def ours(
    gold: pl.Series, pred: pl.Series, tables: Wheels
) -> tuple[dict[str, float], dict[str, Any]]:
    """The aggregates and the per-clip scores as `emer evaluate` computes them."""
    g, p = labels.encode(gold, pred)
    scores = wheels.scores(g, p, tables)
    family = wheels.family(tables)
    frame = pl.DataFrame(scores, nan_to_null=True).with_columns(
        pl.lit(False).alias("empty"), pl.lit(0, dtype=pl.Int32).alias(stats.BLOCK)
    )
    rows = stats.aggregate(stats.totals(frame.lazy(), [family]), [family], resamples=0)
    return {row.metric: row.value or 0.0 for row in rows}, scores


def loop(
    gold: list[list[str]], pred: list[list[str]], tables: Wheels
) -> dict[str, np.ndarray[Any, Any]]:
    """Per-clip precision and recall, one clip and one mapping after the other."""
    images = tables.images
    found: dict[str, list[float]] = {f"{m}.{part}": [] for m in MAPPINGS for part in ("p", "r")}
    for gold_labels, pred_labels in zip(gold, pred, strict=True):
        for number, metric in enumerate(MAPPINGS):
            g: set[str] = set()
            p: set[str] = set()
            for these, mapped in ((gold_labels, g), (pred_labels, p)):
                for label in these:
                    row = images.get(label.lower().strip())
                    image = row[number] if row else None
                    if image is not None:
                        mapped.add(image)
            both = len(g & p)
            found[f"{metric}.p"].append(np.nan if not g else both / len(p) if p else 0.0)
            found[f"{metric}.r"].append(np.nan if not g else both / len(g))
    return {name: np.array(column) for name, column in found.items()}


def _lists(rng: np.random.Generator, n: int, fewest: int, words: list[str]) -> pl.Series:
    """Label lists whose words are as unevenly used as in real corpora: a few make up most of it."""
    sizes = rng.integers(fewest, _MOST_LABELS + 1, n)
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    shares = 1 / np.arange(1, len(words) + 1)
    places = np.searchsorted(np.cumsum(shares / shares.sum()), rng.random(offsets[-1]))
    drawn = rng.permutation(len(words))[np.minimum(places, len(words) - 1)]
    values = pa.array(words, pa.large_string()).take(pa.array(drawn))
    return pl.Series(pl.from_arrow(pa.LargeListArray.from_arrays(offsets, values)))
