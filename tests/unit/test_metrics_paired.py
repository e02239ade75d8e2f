"""Paired differences: intervals that know that both sides saw the same clips, and McNemar."""

import numpy as np
import polars as pl
import pytest

from emer_ray.metrics import paired, stats


def side(values: list[float | None], clusters: list[str] | None = None) -> pl.DataFrame:
    names = clusters or [f"c{number}" for number in range(len(values))]
    return pl.DataFrame(
        {"score": pl.Series(values, dtype=pl.Float64), "empty": False}
    ).with_columns(stats.blocks(pl.Series(names)).alias(stats.BLOCK))


def compared(a: pl.DataFrame, b: pl.DataFrame) -> paired.Difference:
    (found,) = paired.differences(
        a, b, [stats.means(["score"], "test")], binary={"score": pl.col("score") == 1}
    )
    return found


def test_mcnemar_is_the_exact_binomial_test() -> None:
    assert paired.mcnemar(1, 6) == paired.mcnemar(6, 1) == pytest.approx(2 * 8 / 128)
    assert paired.mcnemar(0, 0) == 1
    assert paired.mcnemar(5, 5) == 1
    assert paired.mcnemar(0, 10) == pytest.approx(2 / 1024)
    assert paired.mcnemar(49_000, 51_000) == pytest.approx(2.5e-10, rel=0.1)


def test_what_both_sides_find_hard_cancels_out() -> None:
    rng = np.random.default_rng(0)
    hard = rng.random(400)
    a = side((hard + 0.02 * rng.standard_normal(400)).tolist())
    b = side((hard + 0.05 + 0.02 * rng.standard_normal(400)).tolist())
    found = compared(a, b)
    assert found.difference == pytest.approx(0.05, abs=0.005)
    assert found.low is not None
    assert found.high is not None
    assert 0.04 < found.low < found.high < 0.06
    shuffled = compared(a, side(rng.permutation(b["score"].to_numpy()).tolist()))
    assert shuffled.low is not None
    assert shuffled.high is not None
    assert shuffled.high - shuffled.low > 5 * (found.high - found.low)


def test_clips_of_one_cluster_are_drawn_together() -> None:
    rng = np.random.default_rng(1)
    better = np.repeat(rng.random(20) < 0.6, 20).astype(float).tolist()
    names = [f"speaker-{number // 20}" for number in range(400)]
    alone = compared(side([0.0] * 400), side(better))
    together = compared(side([0.0] * 400, names), side(better, names))
    assert alone.low is not None
    assert alone.high is not None
    assert together.low is not None
    assert together.high is not None
    assert together.high - together.low > 3 * (alone.high - alone.low)
    assert (together.a_only, together.b_only) == (0, int(sum(better)))


def test_what_is_not_scored_does_not_count() -> None:
    found = compared(side([1, 0, None, 1]), side([1, 1, 1, None]))
    assert (found.a_only, found.b_only, found.n) == (0, 1, 3)
    nothing = compared(side([None]), side([1]))
    assert (nothing.difference, nothing.low, nothing.high, nothing.p) == (None, None, None, 1)
