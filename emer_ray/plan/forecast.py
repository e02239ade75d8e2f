"""From the seconds of a few calls to the seconds of a run: arithmetic, without Ray or files.

A step's call on a table costs so much by itself, per clip, per second of pictures and per second of
sound; that is fitted to the calls of a canary, for the wall and for CPU seconds apart. A run is
then played through: shards queue for the actors of pool after pool, and actors that want more cores
than there are slow each other down by as much (`played`). Nothing is random.
"""

import heapq
import itertools
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

RAY: Final = "ray"
"""The station of Ray Data's own work: one loop in the driver, which every shard passes."""

HOP_S: Final = 0.007
"""CPU seconds that a shard costs the driver per pool: 16 to 26 ms through three, whatever its
size (benchmarks/README.md, 64 simulated GPUs)."""

AT_HOME_CPUS: Final = 0.25
"""CPUs that driver, raylet and the other daemons keep busy where they share them with the actors
(benchmarks/README.md, plans)."""

PLAYED_SHARDS: Final = 20_000
"""Of a larger run so many are played, and the rest at their pace."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """What the forecast knows of a table of clips."""

    clips: int
    video_s: float = 0.0
    """Seconds of pictures of its clips together."""
    audio_s: float = 0.0

    @classmethod
    def of(cls, shards: Sequence["Shard"]) -> "Shard":
        """Join several into one."""
        return cls(
            clips=sum(shard.clips for shard in shards),
            video_s=sum(shard.video_s for shard in shards),
            audio_s=sum(shard.audio_s for shard in shards),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """What calls of one step cost, in seconds."""

    call_s: float = 0.0
    """Of every call, however many clips it has."""
    clip_s: float = 0.0
    video_s: float = 0.0
    """Per second of pictures."""
    audio_s: float = 0.0

    def __add__(self, other: "Rate") -> "Rate":
        return Rate(
            call_s=self.call_s + other.call_s,
            clip_s=self.clip_s + other.clip_s,
            video_s=self.video_s + other.video_s,
            audio_s=self.audio_s + other.audio_s,
        )

    def of(self, shard: Shard) -> float:
        """Give the seconds of a call on a table."""
        return (
            self.call_s
            + self.clip_s * shard.clips
            + self.video_s * shard.video_s
            + self.audio_s * shard.audio_s
        )


def fitted(calls: Sequence[tuple[Shard, float]]) -> Rate:
    """Fit a rate to calls and the seconds that they took, by least squares.

    No part may be negative: of all choices of parts, the best that has none.
    """
    if not calls:
        return Rate()
    given = np.array([[1.0, table.clips, table.video_s, table.audio_s] for table, _ in calls])
    spent = np.array([seconds for _, seconds in calls])
    best, error = np.zeros(_PARTS), float(spent @ spent)
    for chosen in _choices(len(calls)):
        found, _, rank, _ = np.linalg.lstsq(given[:, chosen], spent, rcond=None)
        if rank < len(chosen) or found.min() < 0:
            continue
        parts = np.zeros(_PARTS)
        parts[chosen] = found
        rest = given @ parts - spent
        if float(rest @ rest) < error:
            best, error = parts, float(rest @ rest)
    call_s, clip_s, video_s, audio_s = map(float, best)
    return Rate(call_s=call_s, clip_s=clip_s, video_s=video_s, audio_s=audio_s)


_PARTS: Final = 4


def _choices(n_calls: int) -> list[list[int]]:
    """List the sets of parts that so many calls can tell apart."""
    return [
        list(chosen)
        for count in range(1, min(_PARTS, n_calls) + 1)
        for chosen in itertools.combinations(range(_PARTS), count)
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Station:
    """A pool as the forecast sees it: its actors, and what a shard costs one of them alone."""

    name: str
    actors: int
    wall: Rate
    cpu: Rate
    cpus: float = 0.0
    """Of one actor, as Ray counts them."""
    gpus: float = 0.0

    def wall_s(self, shard: Shard) -> float:
        return self.wall.of(shard)

    def clips_per_s(self, shards: Sequence[Shard]) -> float | None:
        """Clips per second of all its actors, each with a core of its own; null = costs nothing."""
        seconds = sum(self.wall_s(shard) for shard in shards)
        return self.actors * sum(s.clips for s in shards) / seconds if seconds else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """How long shards take through the pools, and how long each pool works on them."""

    seconds: float
    busy_s: Mapping[str, float]
    """By pool, of all its actors together, slowed down as they are."""


def played(stations: Sequence[Station], shards: Sequence[Shard], cores: float) -> Played:
    """Play shards through pools, in order, on so many cores.

    At a time the running actors want as many cores as their calls have CPU seconds per second of
    wall; where that is more than there are, the CPU part of each call takes longer in proportion.
    """
    if len(shards) > PLAYED_SHARDS:
        return _scaled(stations, shards, cores)
    halls = [_Hall(station, shards) for station in stations]
    if not halls or not shards:
        return Played(seconds=0.0, busy_s=dict.fromkeys((s.name for s in stations), 0.0))
    halls[0].waiting.extend(range(len(shards)))
    now_s = 0.0
    while True:
        for hall in halls:
            hall.admit()
        at_work = [hall for hall in halls if hall.running]
        if not at_work:
            return Played(seconds=now_s, busy_s={h.station.name: h.busy_s for h in halls})
        wanted = sum(len(hall.running) * hall.cpu_share for hall in at_work)
        crowding = max(1.0, wanted / cores)
        paces = [hall.pace(crowding) for hall in at_work]
        step_s = min(
            (hall.running[0][0] - hall.clock) / pace
            for hall, pace in zip(at_work, paces, strict=True)
        )
        now_s += step_s
        for hall, pace in zip(at_work, paces, strict=True):
            hall.pass_time(step_s, pace)
        for hall, after in zip(halls, [*halls[1:], None], strict=True):
            done = hall.finished()
            if after is not None:
                after.waiting.extend(done)


class _Hall:
    """A station while it is played: who waits, who is being served and until when.

    Its clock runs in seconds of undisturbed work: all its actors are slowed down alike.
    """

    def __init__(self, station: Station, shards: Sequence[Shard]) -> None:
        self.station = station
        self.shards = shards
        self.waiting: deque[int] = deque()
        self.running: list[tuple[float, int]] = []
        self.clock = 0.0
        self.busy_s = 0.0
        wall_s = sum(station.wall_s(shard) for shard in shards)
        cpu_s = sum(station.cpu.of(shard) for shard in shards)
        self.cpu_share = cpu_s / wall_s if wall_s else 0.0
        """Cores that an actor at work wants; above 1 where it has several threads."""

    def admit(self) -> None:
        while self.waiting and len(self.running) < self.station.actors:
            shard = self.waiting.popleft()
            ends = self.clock + self.station.wall_s(self.shards[shard])
            heapq.heappush(self.running, (ends, shard))

    def pace(self, crowding: float) -> float:
        on_cpu = min(1.0, self.cpu_share)
        return 1 / (1 - on_cpu + on_cpu * crowding)

    def pass_time(self, seconds: float, pace: float) -> None:
        self.busy_s += seconds * len(self.running)
        self.clock += seconds * pace

    def finished(self) -> list[int]:
        done = []
        while self.running and self.running[0][0] <= self.clock + 1e-9:
            done.append(heapq.heappop(self.running)[1])
        return done


def _scaled(stations: Sequence[Station], shards: Sequence[Shard], cores: float) -> Played:
    """Play the first shards, and half of them: what the rest adds is the pace of the others."""
    half, whole = (played(stations, shards[:n], cores) for n in (PLAYED_SHARDS // 2, PLAYED_SHARDS))
    times = (len(shards) - PLAYED_SHARDS) / (PLAYED_SHARDS / 2)
    return Played(
        seconds=whole.seconds + times * (whole.seconds - half.seconds),
        busy_s={
            name: busy_s + times * (busy_s - half.busy_s[name])
            for name, busy_s in whole.busy_s.items()
        },
    )


def ray_station(n_pools: int) -> Station:
    """Give the station of Ray Data's own work for a flow of so many pools."""
    rate = Rate(call_s=HOP_S * n_pools)
    return Station(name=RAY, actors=1, wall=rate, cpu=rate)


def start_s(loads: Sequence[tuple[int, float, float]], cores: float) -> float:
    """Give the seconds until all actors are up.

    `loads` are (actors, wall seconds of one that starts alone, its CPU seconds): they start at the
    same time, and share the cores.
    """
    alone_s = max((wall_s for _, wall_s, _ in loads), default=0.0)
    return max(alone_s, sum(actors * cpu_s for actors, _, cpu_s in loads) / cores)
