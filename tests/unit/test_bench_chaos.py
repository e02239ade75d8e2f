from collections import Counter
from pathlib import Path

import pytest

from emer_ray.bench import chaos
from emer_ray.bench.chaos import Kill
from emer_ray.errors import ConfigError, EmerError


def kill(at: float) -> Kill:
    return Kill(kind="actor", after=0, delay_s=0, at=at)


def test_kills_are_drawn_from_the_seed_in_equal_shares_over_the_whole_run() -> None:
    planned = chaos.plan(7, 1000, 20)
    assert planned == chaos.plan(7, 1000, 20)
    assert planned != chaos.plan(8, 1000, 20)
    assert set(Counter(kill.kind for kill in planned).values()) == {5}
    points = [kill.after for kill in planned]
    assert points == sorted(points)
    assert points[0] <= 48
    assert 900 < points[-1] <= 950


def test_a_clip_is_redone_by_the_last_kill_before_its_second_call() -> None:
    kills = [kill(10.0), kill(20.0), kill(30.0)]
    calls = [(5.0, "a"), (6.0, "b"), (11.0, "a"), (12.0, "a"), (15.0, "c"), (25.0, "b")]
    chaos.count_redone(kills, calls)
    assert [kill.redone for kill in kills] == [1, 1, 0]


def test_a_second_call_that_no_kill_explains_is_an_error() -> None:
    with pytest.raises(EmerError, match="clip a was asked about twice before any kill"):
        chaos.count_redone([kill(10.0)], [(1.0, "a"), (2.0, "a")])


def test_lost_duplicated_and_strange_rows_are_counted() -> None:
    found = chaos.judge(["a", "b", "c"], ["a", "a", "a", "c", "z"])
    assert found == {"lost": 1, "duplicated": 2, "strange": 1}


def test_a_line_that_is_still_being_written_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "trace").write_text("1.500 a\n2.000 b c\n3.0")
    assert chaos.read_trace(tmp_path / "trace") == [(1.5, "a"), (2.0, "b c")]


def test_a_program_that_is_not_there_is_the_users_mistake() -> None:
    with pytest.raises(ConfigError, match=r"--program nowhere\.py: no such file"):
        chaos.chaos(program="nowhere.py --restart append")
