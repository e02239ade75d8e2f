"""Fixed labels, rankings, preferences, valence and sentiment, against values worked out by hand."""

import math

import numpy as np
import polars as pl
import pytest

from emer_ray.metrics import fixed, stats, valence
from emer_ray.metrics.stats import Aggregate, Family

NAMES = {kind: kind for kind in ("acc", "waf", "uar", "war")}


def aggregate(frame: pl.DataFrame, *families: Family) -> dict[str, Aggregate]:
    ready = frame.with_columns(empty=pl.lit(False), block=pl.lit(0, dtype=pl.Int32))
    summed = stats.totals(ready.lazy(), families)
    return {row.metric: row for row in stats.aggregate(summed, families, resamples=0)}


def values(frame: pl.DataFrame, *families: Family) -> dict[str, float | None]:
    return {metric: row.value for metric, row in aggregate(frame, *families).items()}


def test_averages_of_a_small_confusion() -> None:
    gold = ["a", "a", "a", "b", "b", "c", None]
    guess = ["a", "a", "b", "b", None, "zzz", "a"]
    frame = pl.DataFrame({"gold": gold, "guess": guess})
    found = aggregate(frame, fixed.classification("gold", "guess", ["a", "b", "c"], NAMES))
    # a: precision 2/2, recall 2/3, F 0.8. b: precision 1/2, recall 1/2, F 0.5. c: 0.
    assert found["acc"].value == pytest.approx(3 / 6)
    assert found["war"].value == found["acc"].value
    assert found["waf"].value == pytest.approx((0.8 * 3 + 0.5 * 2) / 6)
    assert found["uar"].value == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    assert {row.n_scored for row in found.values()} == {6}
    assert fixed.confusion(frame, "gold", "guess").rows() == [
        ("a", "a", 2),
        ("a", "b", 1),
        ("b", None, 1),
        ("b", "b", 1),
        ("c", "zzz", 1),
    ]


def test_no_gold_is_undefined_and_not_zero() -> None:
    frame = pl.DataFrame(
        {"gold": [None], "guess": ["a"]}, schema=dict.fromkeys(["gold", "guess"], pl.String)
    )
    found = aggregate(frame, fixed.classification("gold", "guess", ["a"], NAMES))
    assert [(row.value, row.n, row.n_scored) for row in found.values()] == [(None, 1, 0)] * 4


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        ("sad, then angry", ["sad", "angry", "happy", "worried", "surprise", "neutral"]),
        (["Angry", "sad"], ["angry", "sad", "happy", "worried", "surprise", "neutral"]),
        ("unhappy", []),
        ("", []),
        (None, []),
    ],
)
def test_rankings_are_read(answer: str | list[str] | None, wanted: list[str]) -> None:
    assert fixed.ranking(answer) == wanted


def test_top1_and_top2() -> None:
    rankings = [["a", "b"], ["b", "a"], [], ["c"]]
    columns = fixed.topk_scores(["a", "a", "a", None], rankings)
    found = values(pl.DataFrame(columns, nan_to_null=True), fixed.topk_family())
    assert found == {"top1": pytest.approx(1 / 3), "top2": pytest.approx(2 / 3)}


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        ("a1", "a1"),
        ("A2 is better than a1", "a2"),
        ("I prefer a2 over a1", "a2"),
        ("the same", "same"),
        ("neither", "same"),
        ("", "same"),
        (None, "same"),
    ],
)
def test_preferences_are_read(answer: str | None, wanted: str) -> None:
    assert fixed.preference(answer) == wanted


def test_preferences_over_two_and_three_classes() -> None:
    frame = pl.DataFrame(
        {"pref.gold": ["a1", "a2", "same", "a2"], "pref.guess": ["a1", "same", "same", "a2"]}
    ).with_columns(fixed.preference_columns())
    found = values(frame, *fixed.preference_families())
    # two classes: gold a1 a2 a2, guesses a1 a1 a2: F 2/3 for both
    assert found["pref2.acc"] == pytest.approx(2 / 3)
    assert found["pref2.waf"] == pytest.approx(2 / 3)
    assert found["pref3.acc"] == pytest.approx(3 / 4)


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        ("about -0.75, I think", -0.75),
        ("7", 1.0),
        ("−2", -1.0),
        (".5", 0.5),
        ("+0.25", 0.25),
        (0.5, 0.5),
        (float("nan"), None),
        ("positive", None),
        ("", None),
        (None, None),
    ],
)
def test_numbers_are_read_and_brought_into_range(answer: object, wanted: float | None) -> None:
    assert valence.number(answer, -1, 1) == wanted


def test_valence_against_numpy() -> None:
    x, y = np.array([1.0, -2, 0.5, 3]), np.array([0.5, -1, 1, 2.5])
    frame = pl.DataFrame(
        {
            "valence.gold": [*x, 1.0, None],
            "valence.guess": [*y, None, 1.0],
            "valence.unparsable": [False] * 4 + [True, False],
        }
    )
    found = aggregate(frame, valence.family())
    r = np.corrcoef(x, y)[0, 1]
    ccc = 2 * r * x.std() * y.std() / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)
    assert found["valence.pcc"].value == pytest.approx(r, abs=1e-12)
    assert found["valence.ccc"].value == pytest.approx(ccc, abs=1e-12)
    assert found["valence.mse"].value == pytest.approx(((x - y) ** 2).mean(), abs=1e-12)
    assert {(row.n, row.n_scored, row.n_unparsable) for row in found.values()} == {(6, 4, 1)}


def test_a_constant_has_no_correlation() -> None:
    frame = pl.DataFrame(
        {
            "valence.gold": [0.1, 0.1, 0.1],
            "valence.guess": [1.0, 2.0, 3.0],
            "valence.unparsable": [False] * 3,
        }
    )
    found = values(frame, valence.family())
    assert found["valence.pcc"] is None
    assert found["valence.ccc"] is None
    assert found["valence.mse"] is not None


def test_sentiment_drops_zero_gold_and_counts_neutral_as_negative() -> None:
    answers = ["positive", "Negative.", "neutral", "no idea", "positive"]
    frame = pl.DataFrame(
        {
            "valence.gold": [1.0, -0.5, -2.0, 3.0, 0.0],
            "sentiment.guess": [float(valence.sentiment(answer)) for answer in answers],
        }
    ).with_columns(valence.sentiment_columns())
    found = aggregate(frame, valence.sentiment_family())
    assert found["sentiment.acc"].value == pytest.approx(3 / 4)
    # positive: F 2/3 (gold 2); negative: F 4/5 (gold 2)
    assert found["sentiment.waf"].value == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert found["sentiment.acc"].n_scored == 4
    assert not math.isnan(found["sentiment.waf"].value or math.nan)
