"""Sums, groups and intervals: nothing depends on order or sharding."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emer_ray.metrics import stats

FAMILY = stats.means(["x"], "test")


def frame(values: list[float | None], clusters: list[str], by: list[str]) -> pl.DataFrame:
    return pl.DataFrame(
        {"x": values, "cluster": clusters, "by": by, "empty": [value is None for value in values]},
        schema={"x": pl.Float64, "cluster": pl.String, "by": pl.String, "empty": pl.Boolean},
    ).with_columns(stats.blocks(pl.Series(clusters, dtype=pl.String)))


rows = st.lists(
    st.tuples(
        st.one_of(st.none(), st.floats(0, 1)), st.sampled_from("abcdefgh"), st.sampled_from("xy")
    ),
    min_size=1,
    max_size=30,
)


def aggregates(summed: pl.DataFrame) -> dict[tuple[str, str], stats.Aggregate]:
    found = stats.aggregate(summed, [FAMILY], resamples=50, seed=1)
    return {(row.by, row.group): row for row in found}


@given(rows, st.randoms(use_true_random=False), st.integers(1, 5))
def test_order_and_sharding_change_nothing(rows, random, n_shards) -> None:  # type: ignore[no-untyped-def]
    whole = aggregates(stats.totals(frame(*zip(*rows, strict=True)).lazy(), [FAMILY], ["by"]))
    random.shuffle(rows)
    shards = [shard for i in range(n_shards) if (shard := rows[i::n_shards])]
    parts = [
        stats.totals(frame(*zip(*shard, strict=True)).lazy(), [FAMILY], ["by"]) for shard in shards
    ]
    merged = aggregates(stats.merge(parts))
    assert merged.keys() == whole.keys()
    for key, row in whole.items():
        other = merged[key]
        assert (row.n, row.n_scored, row.n_empty) == (other.n, other.n_scored, other.n_empty)
        for one, two in ((row.value, other.value), (row.low, other.low), (row.high, other.high)):
            assert one == pytest.approx(two, abs=1e-12)


def test_groups_and_counts() -> None:
    found = aggregates(
        stats.totals(
            frame([1.0, None, 0.0], ["a", "b", "c"], ["x", "x", "y"]).lazy(), [FAMILY], ["by"]
        )
    )
    assert (found["", ""].value, found["", ""].n, found["", ""].n_scored) == (0.5, 3, 2)
    assert (found["by", "x"].value, found["by", "x"].n_empty) == (1.0, 1)
    assert found["by", "y"].low is None  # one cluster says nothing about spread


def test_an_empty_group_is_null() -> None:
    found = aggregates(stats.totals(frame([None], ["a"], ["x"]).lazy(), [FAMILY]))
    row = found["", ""]
    assert (row.value, row.low, row.n, row.n_scored) == (None, None, 1, 0)


def test_an_interval_over_clusters_is_wider_than_over_clips() -> None:
    rng = np.random.default_rng(0)
    of_cluster = np.repeat(rng.random(40), 25)
    values = np.clip(of_cluster + 0.01 * rng.standard_normal(1000), 0, 1).tolist()
    clips, speakers = [f"c{i}" for i in range(1000)], [f"s{i // 25}" for i in range(1000)]
    widths = []
    for clusters in (clips, speakers):
        summed = stats.totals(frame(values, clusters, ["x"] * 1000).lazy(), [FAMILY])
        (row,) = stats.aggregate(summed, [FAMILY], resamples=500, seed=0)
        assert row.low is not None
        assert row.value is not None
        assert row.high is not None
        assert row.low < row.value < row.high
        widths.append(row.high - row.low)
    assert widths[1] > 3 * widths[0]


def test_the_same_seed_gives_the_same_interval() -> None:
    summed = stats.totals(frame([0.1, 0.9, 0.4], ["a", "b", "c"], ["x"] * 3).lazy(), [FAMILY])
    one, two, other = (
        stats.aggregate(summed, [FAMILY], resamples=99, seed=seed)[0] for seed in (5, 5, 6)
    )
    assert one == two
    assert (one.low, one.high) != (other.low, other.high)


def test_f_of_means() -> None:
    p, r = np.array([0.5, 0.0, np.nan]), np.array([1.0, 0.0, np.nan])
    assert np.array_equal(stats.harmonic(p, r), [2 / 3, 0.0, np.nan], equal_nan=True)
