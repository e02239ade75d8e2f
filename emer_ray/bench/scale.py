"""How busy many replicas stay: 64 simulated GPUs on a Ray of several nodes on this machine.

The flow is the real one (runner, containment, claims, parse, parts on disk, receipts). Simulated
are its two ends, as in `bench pipeline`, and the GPUs: a node says that it has some, and a replica
is an actor that holds one and sleeps 1.5 s per batch of 16. So what is measured is what everything
else costs on the cores that there are.

Each replica notes when it has loaded and when each batch begins. Busy is what its model takes,
1.5 s for a batch, not what the clock says of a sleep on a machine that is full; all else is idle:
waiting for a shard, claims, prompts, tables. In the window all replicas are alive: the last one has
loaded, and none has done its last batch.

Shards of small rows have 64 clips, four batches: what a shard costs the driver does not depend on
its size. With the usual 16 (`shard_clips`) that of 64 such replicas passes 43 shards a second.

With rows of 1.2 MB, which take 5 ms of CPU each to decode, a few cores do not feed 64 replicas. A
run with more than can be fed tells how many batches a second they get, whence the largest count
that the goal leaves; that count is then run.
"""

import contextlib
import dataclasses
import os
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal

from emer_ray import config as configuration
from emer_ray import pipeline, runner, stages
from emer_ray.bench import processes
from emer_ray.bench.pipeline import DECODE_S, FRAMES, SimulatedDecode, listed
from emer_ray.errors import ClipError, EmerError
from emer_ray.reason import Reasoner
from emer_ray.reason.fake import FakeOptions, FakeReasoner
from emer_ray.records import Reply, Request
from emer_ray.store import index

Rows = Literal["small", "large", "both"]

REPLICAS: Final = 64
BATCH: Final = 16
BATCH_S: Final = 1.5
GOAL: Final = 0.97
SHARD_CLIPS: Final = 64
"""With small rows; large ones travel 16 at a time, 19 MB."""
BATCHES: Final = 52
"""Of each replica, about."""
SMALL_FRAMES: Final = (1, 18, 18, 3)
"""Of a row of 1 kB."""
OVERFED: Final = 12
"""Replicas per core that are more than can be fed with large rows."""
TRIES: Final = 3
GPU_NODES: Final = 2
DECODERS: Final = 6
HEAD_CPUS: Final = 8
"""Logical ones: the head decodes, writes and runs the driver; the other nodes have GPUs only."""
STORE_BYTES: Final = 2 * 2**30
"""Of each node's object store."""


class Replica(stages.Reason):
    """A model's step whose model notes when it has loaded and when each batch begins."""

    def __init__(self, *, trail: Path, **settings: Any) -> None:
        self._model_of_gpu = _Model(FakeOptions.of(settings["model"].options), trail)
        super().__init__(**settings)

    def _reasoner(self) -> Reasoner:
        return self._model_of_gpu


class _Model(FakeReasoner):
    """Answers one batch at a time, as a GPU does."""

    def __init__(self, options: FakeOptions, trail: Path) -> None:
        super().__init__(options)
        self._trail = trail / str(os.getpid())
        self._one = threading.Lock()
        self._note("loaded")

    def explain(self, requests: Sequence[Request]) -> list[Reply | ClipError]:
        with self._one:
            self._note("batch")
            return super().explain(requests)

    def _note(self, what: str) -> None:
        with self._trail.open("a") as file:
            file.write(f"{what} {time.time():.4f}\n")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """What one replica noted, in seconds since the epoch."""

    loaded: float
    batches: Sequence[float]


def read_trail(trail: Path) -> list[Life]:
    """Read what every replica noted."""
    lives = []
    for file in trail.iterdir():
        notes = [line.split() for line in file.read_text().splitlines()]
        times = {
            what: [float(at) for said, at in notes if said == what] for what in ("loaded", "batch")
        }
        lives.append(Life(loaded=times["loaded"][0], batches=times["batch"]))
    return lives


def window(lives: Sequence[Life], batch_s: float) -> tuple[float, float]:
    """Give the times when the last replica has loaded and when the first has done its last batch.

    A replica that never had work is alive all the time.
    """
    ends = [life.batches[-1] + batch_s for life in lives if life.batches]
    return max(life.loaded for life in lives), min(ends)


def occupancy(lives: Sequence[Life], batch_s: float) -> float:
    """Give busy time over replicas times window; a batch is busy `batch_s` from its beginning."""
    first, last = window(lives, batch_s)
    busy = sum(
        max(0.0, min(last, at + batch_s) - max(first, at)) for life in lives for at in life.batches
    )
    return busy / (len(lives) * (last - first))


def scale(
    seed: int = 0,
    clips: int | None = None,
    replicas: int = REPLICAS,
    rows: Rows = "small",
    shard_clips: int = SHARD_CLIPS,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Measure the occupancy of `replicas` with small rows, and how many can be fed with large ones.

    `clips` is the size of the run with small rows.
    """
    cores = os.cpu_count() or 1
    found: dict[str, Any] = {"batch": BATCH, "batch_s": BATCH_S, "cores": cores}
    if rows != "large":
        run = Run(replicas=replicas, shape=SMALL_FRAMES, shard_clips=shard_clips, seed=seed)
        small = measure(run, clips)
        say(f"rows of 1 kB: {small}")
        found = {"replicas": replicas, **small, **found}
    if rows != "small":
        large = _largest(OVERFED * cores, seed, say)
        found = {**found, **{f"large_{name}": value for name, value in large.items()}}
    return found


def _largest(replicas: int, seed: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Find the largest count of replicas that is fed with large rows."""
    for _ in range(1 + TRIES):
        run = Run(replicas=replicas, shape=FRAMES, decode_s=DECODE_S, seed=seed)
        measured = {"replicas": replicas, **measure(run, None)}
        say(f"rows of 1.2 MB: {measured}")
        if measured["occupancy"] >= GOAL:
            break
        replicas = min(replicas - 1, int(replicas * measured["occupancy"] / GOAL))
    return measured


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run: how many replicas of what work."""

    replicas: int
    shape: Sequence[int]
    decode_s: float = 0.0
    batch_s: float = BATCH_S
    shard_clips: int = BATCH
    decoders: int = DECODERS
    seed: int = 0

    def config(self) -> configuration.RunConfig:
        model = {"backend": "fake", "options": {"latency_s": self.batch_s / BATCH}}
        return configuration.parse(
            {
                "models": {"main": model},
                "output": {"shard_clips": self.shard_clips},
                "pools": {
                    "decode": {"actors": self.decoders, "cpus": 0.5},
                    "explain": {"actors": self.replicas, "cpus": 0.0, "gpus": 1.0, "batch": BATCH},
                    "write": {"actors": 2, "cpus": 0.5},
                },
            }
        )

    def simulated(self, step: pipeline.Step, trail: Path) -> pipeline.Step:
        """Put simulated ends into a flow."""
        if step.stage is stages.Decode:
            settings = {"seconds": self.decode_s, "seed": self.seed, "shape": self.shape}
            return dataclasses.replace(step, stage=SimulatedDecode, settings=settings)
        if step.stage is stages.Reason:
            settings = {**step.settings, "trail": trail}
            return dataclasses.replace(step, stage=Replica, settings=settings)
        return step


def measure(run: Run, clips: int | None) -> dict[str, Any]:
    """Run on nodes of its own; CPU seconds are those between all replicas' loading and 80 %."""
    config, clips = run.config(), clips or run.replicas * BATCHES * BATCH
    with tempfile.TemporaryDirectory(prefix="emer-bench-") as name, _nodes(run.replicas):
        trail = Path(name, "trail")
        trail.mkdir()
        steps = pipeline.steps(config, pipeline.Start(run=name))
        flow = [run.simulated(step, trail) for step in steps]
        cluster = runner.connect()
        pools = pipeline.pools(flow, config, cpus=cluster.cpus, gpus=cluster.gpus)
        placed = index.assign_shards(listed(clips), None, run.shard_clips)
        tables = index.shard_tables(
            index.clips_of(placed, index.unfinished(placed, index.outcomes(name)))
        )
        runner.data_context()
        started, done = time.time(), 0
        marks: list[tuple[int, Counter[str]]] = []
        for receipts in runner.run(pools, tables, in_flight=pipeline.in_flight(config, pools)):
            done += receipts.num_rows
            loaded = len(marks) or len(list(trail.iterdir())) == run.replicas
            if (not marks and loaded) or (len(marks) == 1 and done >= 0.8 * clips):
                marks.append((done, processes.cpu_s(os.getpid())))
        wall_s = time.time() - started
        assert done == clips, f"{done} receipts of {clips} clips"
        lives = read_trail(trail)
    if len(marks) < 2:
        raise EmerError(
            f"{clips} clips were done before all replicas had loaded; give more --clips"
        )
    first, last = window(lives, run.batch_s)
    (before, idle), (after, busy) = marks
    batches = (after - before) / BATCH
    each = {name: 1000 * seconds / batches for name, seconds in (busy - idle).items()}
    return {
        "occupancy": round(occupancy(lives, run.batch_s), 4),
        "clips": clips,
        "shard_clips": run.shard_clips,
        "window_s": round(last - first, 1),
        "start_s": round(first - started, 1),
        "wall_s": round(wall_s, 1),
        "batches_per_s": round(
            sum(first <= at < last for life in lives for at in life.batches) / (last - first), 2
        ),
        "cpu_ms_per_batch": {name: round(ms, 2) for name, ms in each.items() if ms >= 0.1},
    }


@contextlib.contextmanager
def _nodes(gpus: int) -> Iterator[None]:
    """Start a head and nodes with fake GPUs, which nobody's `ray.init("auto")` shall find."""
    from ray.cluster_utils import Cluster

    with tempfile.TemporaryDirectory(prefix="emer-ray-") as folder, contextlib.ExitStack() as stack:
        quiet = {"RAY_TMPDIR": folder, "RAY_BACKEND_LOG_LEVEL": "fatal"}
        stack.enter_context(processes.environment(quiet))
        head = {"num_cpus": HEAD_CPUS, "include_dashboard": False}
        cluster = Cluster(
            initialize_head=True, head_node_args={**head, "object_store_memory": STORE_BYTES}
        )
        stack.callback(cluster.shutdown)
        for number in range(GPU_NODES):
            own = len(range(number, gpus, GPU_NODES))
            cluster.add_node(num_cpus=0, num_gpus=own, object_store_memory=STORE_BYTES)
        stack.enter_context(processes.environment({"RAY_ADDRESS": cluster.address}))
        stack.callback(runner.disconnect)
        yield
