"""Trails and their sum: what of a pool's time was work, and what clips cost."""

import itertools
import random
from typing import Any

import pytest

from emer_ray import cost, meter

POOLS = {"decode": (1.0, 0.0), "reason": (0.5, 1.0)}


def _entry(
    pool: str,
    actor: str,
    *spans: tuple[float, float],
    born: float = 0.0,
    cpu: float = 0.0,
    **counts: dict[str, float],
) -> dict[str, Any]:
    """An entry of a shard that is let in with its first stretch of work."""
    started = spans[0][0]
    spent = meter.Meter()
    spent.spans, spent.counts = list(spans), counts
    line = cost.entry(
        cost.Worker(pool=pool, actor=actor, born_s=born),
        spent,
        started_s=started,
        ended_s=max(end for _, end in spans),
        cpu_s=cpu,
    )
    [found] = cost.read(line)
    return found


def test_a_trail_gives_back_its_entries() -> None:
    spent = meter.Meter()
    spent.add("tokens", "in", 7)
    spent.spans.append((1_700_000_000.25, 1_700_000_001.5))
    worker = cost.Worker(pool="decode", actor="a1", born_s=1_700_000_000.0)
    line = cost.entry(worker, spent, started_s=1_700_000_000.0, ended_s=1_700_000_002.0, cpu_s=0.5)
    first, second = cost.read(line + line)
    assert first == second
    assert first["counts"] == {"tokens": {"in": 7}}
    assert first["spans"] == [[0.25, 1.5]]
    assert cost.read(b"") == []


def test_what_overlaps_counts_once_in_any_order() -> None:
    draw = random.Random(3)
    for _ in range(50):
        spans = [(start, start + draw.randint(1, 9)) for start in draw.choices(range(60), k=12)]
        busy = cost.Stretches()
        for start, end in spans:
            busy.add(float(start), float(end))
        seconds = {second for start, end in spans for second in range(start, end)}
        assert busy.total_s == len(seconds)
        assert busy.within(20.0, 40.0) == len({s for s in seconds if 20 <= s < 40})


def test_an_endless_run_needs_no_more_memory() -> None:
    busy = cost.Stretches()
    for number in range(5000):
        busy.add(2.0 * number, 2.0 * number + 1)
        busy.close(since_s=1000.0)
    assert busy.total_s == 5000
    assert busy.within(1000.0, 1e9) == 4500
    assert len(busy._starts) <= 200
    early = cost.Stretches()
    for number in range(500):
        early.add(2.0 * number, 2.0 * number + 1)
        early.close(since_s=None)  # before the window began
    assert early.within(1000.0, 1e9) == 0


def test_side_by_side_is_busy_once_and_idle_is_what_is_left() -> None:
    account = cost.Account(POOLS, clips=40)
    for number in range(4):  # two shards side by side in one actor
        account.add(
            [
                _entry("decode", "d", (10.0 * number, 10.0 * number + 5), seconds={"decode": 5.0}),
                _entry(
                    "reason",
                    "r",
                    (10.0 * number + 5, 10.0 * number + 14),
                    (10.0 * number + 7, 10.0 * number + 15),
                    seconds={"explain": 17.0},
                ),
            ],
            clips=10,
            now_s=10.0 * number + 15,
        )
    found = account.record(50.0, now_s=50.0)
    decode, reason = found["pools"]["decode"], found["pools"]["reason"]
    assert (decode["busy_s"], decode["idle_s"]) == (20.0, 30.0)
    assert (reason["busy_s"], reason["idle_s"]) == (40.0, 10.0)
    assert reason["steps"] == {"explain": 68.0}
    assert reason["clips_per_s_per_actor"] == 1.0
    # receipts of 10 to 90 %: from 15 s, when the first shard arrives, to 45 s
    assert found["steady_s"] == 30.0
    assert found["steady_clips_per_s"] == 1.0
    assert (decode["busy_share"], reason["busy_share"]) == (0.3333, 1.0)  # 10 and 30 of 30 s
    assert (found["gpu_s"], found["cpu_s"]) == (50.0, 75.0)
    assert account.busiest() == ("reason", 1.0)
    assert account.gpu_shares() == {"reason": 1.0}


def test_an_actor_lives_from_its_birth_to_its_end() -> None:
    account = cost.Account(POOLS, clips=30)
    account.add([_entry("reason", "a", (10.0, 20.0), born=5.0, cpu=3.0)], 10, 20.0)
    account.add([_entry("reason", "a", (40.0, 50.0), born=35.0, cpu=2.0)], 10, 50.0)  # again
    account.add([_entry("reason", "b", (40.0, 60.0), born=30.0, cpu=4.0)], 10, 60.0)
    found = account.record(100.0, {"a": 70.0, "stranger": 99.0}, now_s=100.0)
    reason = found["pools"]["reason"]
    assert reason["actors"] == 2
    assert reason["busy_s"] + reason["idle_s"] == (70 - 5) + (100 - 30)
    assert reason["cpu_used_s"] == 3 + 2 + 4
    assert found["pools"]["decode"]["busy_share"] is None
    assert found["pools"]["decode"]["clips_per_s_per_actor"] is None


def test_sums_are_divided_by_clips_and_what_nobody_knows_is_null() -> None:
    account = cost.Account(POOLS, clips=8)
    spent = {
        "tokens": {"in": 400.0, "out": 40.0},
        "usd": {"answers": 0.02},
        "bytes": {"read": 8000.0, "written": 800.0},
        "retries": {"endpoint": 2.0},
        "waited": {"gate": 9.0, "seat": 1.5},
        "seconds": {"explain": 2.0},
    }
    account.add([_entry("reason", "r", (0.0, 1.0), (3.0, 4.0), **spent)], 8, 4.0)
    found = account.record(10.0, now_s=4.0)
    assert found["per_clip"]["tokens_in"] == 50
    assert found["per_1000_clips"] == {
        "seconds": 1250.0,
        "gpu_s": 500.0,
        "cpu_s": 250.0,
        "tokens_in": 50_000.0,
        "tokens_out": 5_000.0,
        "bytes_read": 1_000_000.0,
        "bytes_written": 100_000.0,
        "usd": 2.5,
    }
    reason = found["pools"]["reason"]
    # of 4 s in the actor 2 were work, 1.5 waiting for a seat; the gate is before
    assert (reason["seat_s"], reason["gate_s"], reason["tables_s"]) == (1.5, 9.0, 0.5)
    assert reason["retries"] == {"endpoint": 2}
    assert account.usd == 0.02

    nothing = cost.Account(POOLS, clips=0).record(1.0, now_s=1.0)
    assert nothing["tokens_in"] is None
    assert nothing["usd"] is None
    assert nothing["steady_clips_per_s"] is None
    assert set(nothing["per_clip"].values()) == {None}


def test_people_read_what_is_known() -> None:
    account = cost.Account(POOLS, clips=2)
    tokens = {"tokens": {"out": 24_600.0}}
    account.add([_entry("reason", "r", (0.0, 9000.0), **tokens)], 2, 9000.0)
    assert cost.shown(account.record(9000.0, now_s=9000.0)) == [
        ("GPU hours", "2.5", "1,250"),
        ("CPU hours", "1.25", "625"),
        ("million tokens out", "0.0246", "12.3"),
    ]


def test_starts_add_up_as_far_as_they_say() -> None:
    accounts = [cost.Account(POOLS, clips=10) for _ in range(2)]
    accounts[0].add([_entry("reason", "r", (0.0, 4.0), usd={"answers": 1.0})], 10, 4.0)
    accounts[1].add([_entry("reason", "r", (0.0, 6.0))], 10, 6.0)
    starts = [{"cost": account.record(10.0, now_s=10.0)} for account in accounts]
    assert cost.total([{"at": "a start that was killed"}]) is None
    found = cost.total([{}, *starts])
    assert found is not None
    assert (found["starts"], found["clips"], found["seconds"], found["usd"]) == (2, 20, 20.0, 1.0)
    assert found["gpu_s"] == 20.0
    assert found["pools"]["reason"] == {"busy_s": 10.0, "idle_s": 10.0}
    assert found["per_1000_clips"]["gpu_s"] == 1000.0
    assert found["tokens_in"] is None


def test_of_late_means_the_last_minute() -> None:
    account = cost.Account(POOLS, clips=1000)
    assert account.busiest() is None
    for second in itertools.count():
        busy_s = 0.9 if second < 100 else 0.3
        entries = [_entry("reason", "r", (second + 1 - busy_s, second + 1.0))]
        account.add(entries, 1, second + 1.0)
        if second == 199:
            break
    assert account.busiest() == ("reason", pytest.approx(0.3, abs=0.01))
    assert account.record(200.0, now_s=200.0)["pools"]["reason"]["busy_s"] == pytest.approx(120)
