"""Bradley-Terry: known strengths, ties, components, systems that never lost."""

import math

import numpy as np
import pytest

from emer_ray.metrics import suites
from emer_ray.metrics.ranking import Duel, bradley_terry, fit


def duels(*counts: tuple[str, str, str, int]) -> list[Duel]:
    return [
        Duel(f"{first}{second}{outcome}{i}", first, second, outcome)  # type: ignore[arg-type]
        for first, second, outcome, n in counts
        for i in range(n)
    ]


def test_two_systems_have_the_odds_of_their_wins() -> None:
    ranks = bradley_terry(duels(("a", "b", "a1", 3), ("a", "b", "a2", 1)), resamples=0)
    assert [(rank.system, rank.rank, rank.n_duels) for rank in ranks] == [("a", 1, 4), ("b", 2, 4)]
    assert ranks[0].log_p - ranks[1].log_p == pytest.approx(math.log(3), abs=1e-7)
    assert ranks[0].low is None


def test_a_tie_is_half_a_win_each() -> None:
    tied = bradley_terry(duels(("a", "b", "same", 5)), resamples=0)
    assert [rank.log_p for rank in tied] == pytest.approx([0, 0])
    assert [rank.rank for rank in tied] == [1, 1]


def test_strengths_are_found_again() -> None:
    log_p = np.array([1.0, 0.2, -0.3, -0.9])
    p = np.exp(log_p)
    games = 1000.0 * (1 - np.eye(4))
    wins = games * p[:, None] / (p[:, None] + p[None, :])
    assert fit(wins) == pytest.approx(log_p - log_p.mean(), abs=1e-6)


def test_a_system_that_never_lost_stays_finite() -> None:
    ranks = bradley_terry(
        duels(("a", "b", "a1", 4), ("b", "c", "a1", 2), ("b", "c", "a2", 2)), resamples=0
    )
    assert ranks[0].system == "a"
    # half a win is added both ways: 4.5 to 0.5
    b = next(rank for rank in ranks if rank.system == "b")
    assert ranks[0].log_p - b.log_p == pytest.approx(math.log(9), abs=1e-6)


def test_what_was_never_compared_is_ranked_apart() -> None:
    ranks = bradley_terry(
        duels(("a", "b", "a1", 3), ("b", "c", "a1", 2), ("x", "y", "a2", 5)), resamples=0
    )
    assert [(rank.component, rank.rank, rank.system) for rank in ranks] == [
        (0, 1, "a"),
        (0, 2, "b"),
        (0, 3, "c"),
        (1, 1, "y"),
        (1, 2, "x"),
    ]


def test_intervals_hold_the_estimate_and_follow_the_seed() -> None:
    judged = duels(
        ("a", "b", "a1", 30), ("a", "b", "a2", 10), ("b", "c", "a1", 20), ("b", "c", "a2", 20)
    )
    one, two = (bradley_terry(judged, resamples=50, seed=3) for _ in range(2))
    assert one == two
    for rank in one:
        assert rank.low is not None
        assert rank.high is not None
        assert rank.low <= rank.log_p <= rank.high
    assert bradley_terry([]) == []


def test_unibench_needs_all_nine() -> None:
    values: dict[str, float | None] = dict.fromkeys(suites.UNIBENCH, 0.5)
    assert suites.unibench(values) == pytest.approx(0.5)
    assert suites.unibench({**values, "meld": None}) is None
    assert len(suites.UNIBENCH) == 9
