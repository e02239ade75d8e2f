"""What a run spends: each pool adds an entry to the trail of a shard, the driver sums the trails.

The trail travels with the block, so that accounting adds no message. Times are Unix seconds of the
machine that was at work. Not known, and so not counted: work that was lost with a killed process or
node, and shards that were under way when the driver died.
"""

import json
import time
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from emer_ray.meter import Counts, Meter

STEADY: Final = (0.1, 0.9)
"""Shares of a start's receipts between which it runs steadily: neither actors that start nor the
last shards count."""

RECENT_S: Final = 60.0
"""Seconds that `Account.busiest` looks back."""

_OPEN: Final = 128
"""Stretches of work of an actor that are kept apart; older ones only count, so that memory does not
grow. A shard that arrives later than so many others of its actor may be counted short."""

SUMMED: Final = (
    *("clips", "seconds", "gpu_s", "cpu_s", "tokens_in", "tokens_out"),
    *("bytes_read", "bytes_written", "usd"),
)
"""What starts of a run add up to."""


SHOWN: Final = (
    ("GPU hours", "gpu_s", 3600),
    ("CPU hours", "cpu_s", 3600),
    ("million tokens in", "tokens_in", 1e6),
    ("million tokens out", "tokens_out", 1e6),
    ("GB read", "bytes_read", 1e9),
    ("GB written", "bytes_written", 1e9),
    ("USD for answers", "usd", 1),
)
"""What of a record people are shown: in which unit, and what of the record that divides."""


_ENCODED: Final = json.JSONEncoder(separators=(",", ":")).encode


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """One process of a pool, as its entries name it."""

    pool: str
    actor: str
    """Stays the same when Ray starts the actor again."""
    born_s: float


def entry(worker: Worker, meter: Meter, *, started_s: float, ended_s: float, cpu_s: float) -> bytes:
    """Write what one shard cost in one pool; `cpu_s` is of the whole process since it was born."""
    found = {
        "pool": worker.pool,
        "actor": worker.actor,
        "born": round(worker.born_s, 3),
        "started": round(started_s, 4),
        "ended": round(ended_s, 4),
        "cpu": round(cpu_s, 3),
        "spans": [
            [round(start - started_s, 4), round(end - started_s, 4)] for start, end in meter.spans
        ],
        "counts": meter.counts,
    }
    return _ENCODED(found).encode() + b"\n"


def read(trail: bytes) -> list[dict[str, Any]]:
    """Read the entries of a trail, which is a line of JSON for each."""
    return [json.loads(line) for line in trail.splitlines()]


class Stretches:
    """Stretches of time, added in about their order, of which what overlaps counts once."""

    def __init__(self) -> None:
        self.total_s = 0.0
        self._starts: list[float] = []
        self._ends: list[float] = []
        self._closed_until = 0.0
        self._closed_s = 0.0
        """Of the closed stretches, what lies behind `since` of `close`."""

    def add(self, start_s: float, end_s: float) -> None:
        """Add a stretch."""
        start_s = max(start_s, self._closed_until)
        if end_s <= start_s:
            return
        first, last = bisect_left(self._ends, start_s), bisect_right(self._starts, end_s)
        if first < last:
            start_s = min(start_s, self._starts[first])
            end_s = max(end_s, self._ends[last - 1])
        before = sum(self._ends[first:last]) - sum(self._starts[first:last])
        self.total_s += end_s - start_s - before
        self._starts[first:last], self._ends[first:last] = [start_s], [end_s]

    def close(self, since_s: float | None) -> None:
        """Forget the older half where there are many; None = what it holds is before any window."""
        if len(self._starts) <= _OPEN:
            return
        half = len(self._starts) // 2
        if since_s is not None:
            self._closed_s += _within(self._starts[:half], self._ends[:half], since_s, float("inf"))
        self._closed_until = self._ends[half - 1]
        del self._starts[:half], self._ends[:half]

    def within(self, since_s: float, until_s: float) -> float:
        """Sum what lies in a window that begins where `close` was told it does."""
        return self._closed_s + _within(self._starts, self._ends, since_s, until_s)


def _within(
    starts: Sequence[float], ends: Sequence[float], since_s: float, until_s: float
) -> float:
    clipped = (
        min(end, until_s) - max(start, since_s) for start, end in zip(starts, ends, strict=True)
    )
    return sum(max(0.0, seconds) for seconds in clipped)


@dataclass(slots=True)
class _Actor:
    born_s: float
    seen_s: float
    """End of its last shard."""
    busy: Stretches = field(default_factory=Stretches)
    cpu_s: dict[float, float] = field(default_factory=dict)
    """Of each of its processes, by when they were born."""


@dataclass(slots=True)
class _Pool:
    cpus: float
    gpus: float
    actors: dict[str, _Actor] = field(default_factory=dict)
    counts: Counts = field(default_factory=dict)
    clips: int = 0
    calls_s: float = 0.0
    """Of all shards, from when they were let in until they were done."""
    busy_s: float = 0.0
    known_s: float = 0.0
    """Actor-seconds from birth to the last shard seen."""

    def add(self, found: Mapping[str, Any], since_s: float | None) -> None:
        started, ended, born = found["started"], found["ended"], found["born"]
        actor = self.actors.get(found["actor"])
        if actor is None:
            actor = self.actors[found["actor"]] = _Actor(born_s=born, seen_s=born)
        self.known_s += max(0.0, ended - actor.seen_s) + max(0.0, actor.born_s - born)
        actor.born_s, actor.seen_s = min(actor.born_s, born), max(actor.seen_s, ended)
        actor.cpu_s[born] = max(found["cpu"], actor.cpu_s.get(born, 0.0))
        before = actor.busy.total_s
        for start, end in found["spans"]:
            actor.busy.add(started + start, started + end)
        self.busy_s += actor.busy.total_s - before
        actor.busy.close(since_s)
        self.calls_s += ended - started
        for name, labels in found["counts"].items():
            mine = self.counts.setdefault(name, {})
            for label, amount in labels.items():
                mine[label] = mine.get(label, 0) + amount

    def count(self, name: str, label: str) -> float | None:
        return self.counts.get(name, {}).get(label)


class Account:
    """Sums trails as shards arrive."""

    def __init__(self, pools: Mapping[str, tuple[float, float]], clips: int) -> None:
        """`pools`: CPUs and GPUs of an actor, by name; `clips`: how many are to come."""
        self._pools = {name: _Pool(cpus=cpus, gpus=gpus) for name, (cpus, gpus) in pools.items()}
        self._marks = [share * clips for share in STEADY]
        self._clips = 0
        self.counting = True
        """False while clips arrive that will come again: of the first of two plans."""
        self._window: list[tuple[float, int]] = []
        """When the marks were passed, and with how many clips."""
        self._last_s = 0.0
        self._looks: deque[tuple[float, dict[str, tuple[float, float]]]] = deque()
        self._shares: dict[str, float] = {}

    def add(self, trail: Iterable[Mapping[str, Any]], clips: int, now_s: float) -> None:
        """Add what a shard of so many clips cost, as it arrives."""
        since_s = self._window[0][0] if self._window else None
        for found in trail:
            pool = self._pools[found["pool"]]
            pool.clips += clips
            pool.add(found, since_s)
        if self.counting:
            self._clips += clips
            self._last_s = now_s
        while len(self._window) < len(STEADY) and self._clips >= self._marks[len(self._window)]:
            self._window.append((now_s, self._clips))
        if not self._looks or now_s - self._looks[-1][0] >= 1:
            self._look(now_s)

    def _look(self, now_s: float) -> None:
        """Compare with what was known a while ago."""
        known = {name: (pool.busy_s, pool.known_s) for name, pool in self._pools.items()}
        then = self._looks[0][1] if self._looks else {}
        for name, (busy_s, known_s) in known.items():
            busy_before_s, known_before_s = then.get(name, (0.0, 0.0))
            if known_s > known_before_s:
                share = (busy_s - busy_before_s) / (known_s - known_before_s)
                self._shares[name] = min(1.0, share)
        self._looks.append((now_s, known))
        while self._looks[0][0] < now_s - RECENT_S:
            self._looks.popleft()

    @property
    def usd(self) -> float | None:
        """US dollars that answers cost; null where none has a price."""
        return self._total("usd", "answers")

    def gpu_shares(self) -> dict[str, float]:
        """Give the share of its time that each pool on GPUs was busy of late."""
        return {name: share for name, share in self._shares.items() if self._pools[name].gpus}

    def busiest(self) -> tuple[str, float] | None:
        """Name the pool that was busiest of late, and for what share of its time."""
        return max(self._shares.items(), key=lambda item: item[1], default=None)

    def _total(self, name: str, label: str) -> float | None:
        known = [n for pool in self._pools.values() if (n := pool.count(name, label)) is not None]
        return sum(known) if known else None

    def record(
        self, seconds: float, ended: Mapping[str, float] | None = None, now_s: float | None = None
    ) -> dict[str, Any]:
        """Sum up for `run.json`.

        `seconds` is the start's wall time; `ended` says when actors came to their end, by their
        ids: the others live.
        """
        now_s = time.time() if now_s is None else now_s
        since_s, until_s, steady_clips = self._steady()
        pools = {
            name: _recorded(pool, ended or {}, now_s, since_s, until_s)
            for name, pool in self._pools.items()
        }
        alive = {name: pools[name]["busy_s"] + pools[name]["idle_s"] for name in pools}
        found: dict[str, Any] = {
            "clips": self._clips,
            "seconds": round(seconds, 3),
            "steady_s": _rounded(until_s - since_s) if steady_clips else None,
            "steady_clips_per_s": _rounded(steady_clips / (until_s - since_s))
            if steady_clips
            else None,
            "pools": pools,
            "gpu_s": round(sum(alive[n] * p.gpus for n, p in self._pools.items()), 3),
            "cpu_s": round(sum(alive[n] * p.cpus for n, p in self._pools.items()), 3),
            "tokens_in": _whole(self._total("tokens", "in")),
            "tokens_out": _whole(self._total("tokens", "out")),
            "bytes_read": _whole(self._total("bytes", "read") or 0),
            "bytes_written": _whole(self._total("bytes", "written") or 0),
            "usd": _rounded(self.usd),
        }
        return found | per_clips(found)

    def _steady(self) -> tuple[float, float, int]:
        """Give the steady window so far, and the clips that arrived in it."""
        if not self._window:
            return 0.0, 0.0, 0
        since_s, before = self._window[0]
        until_s, after = [*self._window, (self._last_s, self._clips)][:2][1]
        return (since_s, until_s, after - before) if until_s > since_s else (since_s, until_s, 0)


def _recorded(
    pool: _Pool, ended: Mapping[str, float], now_s: float, since_s: float, until_s: float
) -> dict[str, Any]:
    alive_s = steady_s = steady_busy_s = 0.0
    for name, actor in pool.actors.items():
        end_s = max(actor.seen_s, ended.get(name, now_s))
        alive_s += end_s - actor.born_s
        steady_s += max(0.0, min(end_s, until_s) - max(actor.born_s, since_s))
        steady_busy_s += actor.busy.within(since_s, until_s)
    waited = pool.counts.get("waited", {})
    work_s = sum(pool.counts.get("seconds", {}).values())
    return {
        "actors": len(pool.actors),
        "cpus": pool.cpus,
        "gpus": pool.gpus,
        "clips": pool.clips,
        "busy_s": round(pool.busy_s, 3),
        "idle_s": round(max(0.0, alive_s - pool.busy_s), 3),
        "busy_share": _rounded(steady_busy_s / steady_s) if steady_s else None,
        "clips_per_s_per_actor": _rounded(pool.clips / pool.busy_s) if pool.busy_s else None,
        "steps": {step: round(s, 3) for step, s in pool.counts.get("seconds", {}).items()},
        "seat_s": round(waited.get("seat", 0.0), 3),
        "gate_s": round(waited.get("gate", 0.0), 3),
        "tables_s": round(max(0.0, pool.calls_s - work_s - waited.get("seat", 0.0)), 3),
        "cpu_used_s": round(
            sum(sum(actor.cpu_s.values()) for actor in pool.actors.values())
            + (pool.count("cpu", "child") or 0.0),
            3,
        ),
        "retries": {why: int(n) for why, n in pool.counts.get("retries", {}).items()},
    }


def per_clips(found: Mapping[str, Any]) -> dict[str, Any]:
    """Divide the sums of a record by its clips: each, and per thousand."""
    clips = found["clips"]
    names = [name for name in SUMMED if name != "clips"]
    return {
        key: {
            name: None
            if found[name] is None or not clips
            else float(f"{found[name] * n / clips:.5g}")
            for name in names
        }
        for key, n in (("per_clip", 1), ("per_1000_clips", 1000))
    }


def total(starts: Iterable[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Add up what the starts of a run cost, as far as they say; null where none does."""
    costs = [start["cost"] for start in starts if start.get("cost")]
    if not costs:
        return None
    found = {
        name: round(sum(known), 6)
        if (known := [c[name] for c in costs if c[name] is not None])
        else None
        for name in SUMMED
    }
    pools: dict[str, dict[str, float]] = {}
    for cost in costs:
        for name, pool in cost["pools"].items():
            mine = pools.setdefault(name, {"busy_s": 0.0, "idle_s": 0.0})
            for key in mine:
                mine[key] = round(mine[key] + pool[key], 3)
    return {"starts": len(costs), **found, "pools": pools, **per_clips(found)}


def shown(record: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Write what is known of a record for people: unit, amount, amount per thousand clips."""
    each = record["per_1000_clips"]
    return [
        (unit, _figure(record[key] / scale), _figure(each[key] / scale))
        for unit, key, scale in SHOWN
        if record[key] and each[key] is not None
    ]


def beside(predicted: Mapping[str, Any], start: Mapping[str, Any], clips: int) -> dict[str, Any]:
    """Put what was predicted beside what a start of so many clips measured, for `run.json`.

    Figures that are not known stay null; `error` is predicted over measured, less one.
    """
    seconds = start.get("seconds")
    cost = start.get("cost") or {}
    measured = {
        "clips": clips,
        "clips_per_s": clips / seconds if seconds else None,
        "hours": seconds / 3600 if seconds else None,
        "usd": cost.get("usd"),
    }
    pools = {
        name: {
            key: _pair(pool.get(key), (cost.get("pools") or {}).get(name, {}).get(key))
            for key in ("busy_s", "busy_share", "clips_per_s_per_actor")
        }
        for name, pool in predicted["pools"].items()
    }
    # money for machines is not measured: what the table says, for the hours that it took
    if predicted["usd_per_hour"] is not None and measured["hours"] is not None:
        measured["usd"] = (measured["usd"] or 0.0) + predicted["usd_per_hour"] * measured["hours"]
    return {
        "at": predicted["at"],
        "bottleneck": predicted["bottleneck"],
        **{name: _pair(predicted[name], value) for name, value in measured.items()},
        "pools": pools,
    }


def _pair(predicted: float | None, measured: float | None) -> dict[str, float | None]:
    known = predicted is not None and measured
    return {
        "predicted": predicted,
        "measured": None if measured is None else float(f"{measured:.6g}"),
        "error": round(predicted / measured - 1, 4) if known else None,  # type: ignore[operator]
    }


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)
