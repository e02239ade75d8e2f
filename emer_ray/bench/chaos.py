"""Kill a run again and again, and count what is lost, doubled and done twice.

A run over a real cluster of two nodes (two raylets on this machine, started for it) is killed at
points drawn from a seed: its driver, which is started again as `jobs/relabel.py` does; an actor of
a pool; another worker process, such as the one that holds the gate; the raylet of the second node,
whereupon a fresh node joins. All by SIGKILL. A point is a number of clips that the reason stage has
been asked about, plus a part of a second, so that kills fall on work of every kind.

`redone` are the clips that were asked about again after a kill: calls are read from a file to which
the model appends one line per clip before it answers (`models.<name>.options.trace`). They must not
be more than `in_flight`, the clips admitted and not yet written. `program` runs another program
under the same kills (`benchmarks/naive_ray.py`).
"""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import polars as pl
import pyarrow.parquet as pq

from emer_ray.errors import ConfigError, EmerError
from emer_ray.store import index

Kind = Literal["driver", "worker", "actor", "raylet"]
KINDS: Final[tuple[Kind, ...]] = ("driver", "worker", "actor", "raylet")

CLIPS: Final = 1000
SHARD_CLIPS: Final = 8
SHARDS_IN_FLIGHT: Final = 4
LATENCY_S: Final = 0.04
"""Of the model, per clip: two actors are asked for half a minute at least."""
HEAD_CPUS: Final = 2
SECOND_CPUS: Final = 4
"""Most of the actors' CPUs are on the node that is lost."""
POOL: Final = "ray::MapWorker"
"""How the titles of processes begin that run an actor of a pool."""
DELAY_S: Final = 0.5
"""A kill falls up to so long after its point."""
TARGET_S: Final = 300.0
"""For a process to kill to appear, after a start or a loss."""
QUIET_S: Final = 600.0
"""A run without one more call for so long has hung."""
STARTS: Final = 3
"""A driver that ends with an error by itself is started again so often."""


@dataclass(slots=True, kw_only=True)
class Kill:
    """One kill: planned by its point, then as it happened."""

    kind: Kind
    after: int
    """Clips that have been asked about."""
    delay_s: float
    target: str = ""
    at: float = 0.0
    """Seconds since the epoch."""
    redone: int = 0
    """Clips that were asked about again between this kill and the next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What is run and killed."""

    command: Sequence[str]
    output: Path
    in_flight: int | None
    """Clips under way at most; null = nothing bounds them."""
    verified: Callable[[], bool] | None
    """The program's own proof that nothing is lost or doubled, if it has one."""


def chaos(
    seed: int = 0,
    clips: int | None = None,
    kills: int = 8,
    program: str | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Run `clips` clips through `kills` kills; `program` is a script with its options.

    Raises EmerError where the run neither ends nor goes on.
    """
    clips = clips or CLIPS
    folder = Path(tempfile.mkdtemp(prefix="emer-chaos-"))
    try:
        trace = folder / "trace"
        trace.touch()
        manifest = _manifest(folder, clips)
        chosen = (
            _emer(folder, manifest, trace)
            if program is None
            else _script(program, folder, manifest, trace)
        )
        planned = plan(seed, clips, kills)
        started = time.monotonic()
        with two_nodes(folder, say) as cluster:
            run = _Run(program=chosen, cluster=cluster, trace=trace, folder=folder, say=say)
            run.through(planned)
        stored = stored_ids(chosen.output)
        calls = read_trace(trace)
        count_redone(planned, calls)
        found = judge(ids(clips), stored)
        return {
            "clips": clips,
            "kills": len(planned),
            **found,
            "redone_max": max((kill.redone for kill in planned), default=0),
            "in_flight": chosen.in_flight,
            "redone": [[kill.kind, kill.redone] for kill in planned],
            "redone_total": len(calls) - len({clip_id for _, clip_id in calls}),
            "verified": None if chosen.verified is None else chosen.verified(),
            "starts": run.starts,
            "ended_with_an_error": run.errors,
            "seconds": round(time.monotonic() - started, 1),
            "seed": seed,
        }
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def plan(seed: int, clips: int, kills: int) -> list[Kill]:
    """Draw kinds in equal shares and points from equal strata of the first 95 % of the run."""
    rng = random.Random(seed)  # noqa: S311 - repeatable, not secret
    kinds = [KINDS[number % len(KINDS)] for number in range(kills)]
    rng.shuffle(kinds)
    width = 0.95 * clips / max(1, kills)
    return [
        Kill(
            kind=kind,
            after=1 + int(width * (number + rng.random())),
            delay_s=DELAY_S * rng.random(),
        )
        for number, kind in enumerate(kinds)
    ]


def read_trace(trace: Path) -> list[tuple[float, str]]:
    """Read (time, clip id) of each call; a last line that is still being written is left out."""
    whole = trace.read_text(encoding="utf-8").rpartition("\n")[0]
    lines = (line.split(" ", 1) for line in whole.splitlines())
    return [(float(at), clip_id) for at, clip_id in lines]


def count_redone(kills: Sequence[Kill], calls: Sequence[tuple[float, str]]) -> None:
    """Give every kill the clips that were called again after it and before the next one.

    Raises EmerError for a second call before any kill: nothing explains it.
    """
    seen: set[str] = set()
    again: dict[int, set[str]] = {}
    for at, clip_id in sorted(calls):
        if clip_id in seen:
            before = [number for number, kill in enumerate(kills) if kill.at <= at]
            if not before:
                raise EmerError(f"chaos: clip {clip_id} was asked about twice before any kill")
            again.setdefault(before[-1], set()).add(clip_id)
        seen.add(clip_id)
    for number, kill in enumerate(kills):
        kill.redone = len(again.get(number, ()))


def judge(wanted: Sequence[str], stored: Sequence[str]) -> dict[str, int]:
    """Count clips without a row, rows beyond the first of a clip, and rows of nobody."""
    rows = Counter(stored)
    return {
        "lost": sum(name not in rows for name in wanted),
        "duplicated": sum(count - 1 for count in rows.values()),
        "strange": len(rows.keys() - set(wanted)),
    }


def stored_ids(output: Path) -> list[str]:
    """Read the ids of every row that lies there, part by part, without the code under test."""
    found: list[str] = []
    for path in sorted(output.rglob("*.parquet")):
        if path.relative_to(output).parts[0] in ("index", "manifest.parquet"):
            continue
        found += pq.ParquetFile(path).read(["clip_id"])["clip_id"].to_pylist()
    return found


def ids(clips: int) -> list[str]:
    return [f"clip-{number:06d}" for number in range(clips)]


def _manifest(folder: Path, clips: int) -> Path:
    """List real clips, a second of a few small films over and over."""
    media = sorted((Path(__file__).parents[1] / "demo_media").glob("webcam_*.mp4"))
    names = ids(clips)
    table = pl.DataFrame(
        {
            "clip_id": names,
            "video_uri": [str(media[number % len(media)]) for number in range(clips)],
            "start_s": [0.0] * clips,
            "end_s": [1.0] * clips,
        }
    )
    path = folder / "clips.parquet"
    table.write_parquet(path)
    return path


def _emer(folder: Path, manifest: Path, trace: Path) -> Program:
    run = folder / "run"
    settings = {
        "input.manifest": manifest,
        "output.run": run,
        "output.shard_clips": SHARD_CLIPS,
        "output.in_flight": SHARDS_IN_FLIGHT,
        "media.frames": 2,
        "media.size_px": 64,
        "models.main.backend": "fake",
        "models.main.options": f'{{latency_s = {LATENCY_S}, trace = "{trace}"}}',
        "pools.decode.actors": 2,
        "pools.explain.actors": 2,
    }
    said = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    return Program(
        command=[sys.executable, "-m", "emer_ray.cli", "relabel", *said],
        output=run,
        in_flight=SHARD_CLIPS * SHARDS_IN_FLIGHT,
        verified=lambda: index.verify(str(run)).holds,
    )


def _script(program: str, folder: Path, manifest: Path, trace: Path) -> Program:
    script, *options = program.split()
    if not Path(script).is_file():
        raise ConfigError(f"--program {script}: no such file; give a Python script")
    out = folder / "out"
    places = ["--manifest", str(manifest), "--out", str(out), "--trace", str(trace)]
    return Program(
        command=[sys.executable, script, *places, "--latency-s", str(LATENCY_S), *options],
        output=out,
        in_flight=None,
        verified=None,
    )


@dataclass(slots=True, kw_only=True)
class _Run:
    """A driver that is started, killed, and started again until it ends by itself."""

    program: Program
    cluster: "TwoNodes"
    trace: Path
    folder: Path
    say: Callable[[str], None]
    starts: int = 0
    errors: int = 0
    """Times the driver ended with an error though nobody had killed it."""
    _driver: "subprocess.Popen[bytes] | None" = None

    def through(self, kills: Sequence[Kill]) -> None:
        """See the run to its end, with all kills."""
        began = time.monotonic()
        self._start()
        try:
            for kill in kills:
                self._until(lambda kill=kill: self._asked() >= kill.after)  # type: ignore[misc]
                time.sleep(kill.delay_s)
                self._commit(kill)
                self.say(
                    f"{time.monotonic() - began:5.0f} s, {self._asked():5d} clips asked: "
                    f"killed the {kill.kind} {kill.target}"
                )
            self._until(lambda: False)
        finally:
            if self._driver is not None and self._driver.poll() is None:
                self._driver.kill()
                self._driver.wait()

    def _start(self) -> None:
        self.starts += 1
        with (self.folder / "driver.log").open("ab") as log:
            self._driver = subprocess.Popen(
                [*self.program.command], stdout=log, stderr=log, env=self.cluster.environment()
            )

    def _asked(self) -> int:
        return len({clip_id for _, clip_id in read_trace(self.trace)})

    def _until(self, reached: Callable[[], bool]) -> None:
        """Wait for a point, or for the end; a driver that fails by itself is started again."""
        size, moved = -1, time.monotonic()
        while not reached():
            assert self._driver is not None
            code = self._driver.poll()
            if code == 0:
                return
            if code is not None:
                self.errors += 1
                self.say(f"the driver ended with {code}: {self._last_words()}")
                if self.errors > STARTS:
                    raise EmerError(f"chaos: the driver fails by itself: {self._last_words()}")
                self._start()
            now = self.trace.stat().st_size
            if now != size:
                size, moved = now, time.monotonic()
            if time.monotonic() - moved > QUIET_S:
                raise EmerError(
                    f"chaos: no clip was asked about for {QUIET_S:.0f} s; {self._last_words()}"
                )
            time.sleep(0.05)

    def _commit(self, kill: Kill) -> None:
        assert self._driver is not None
        match kill.kind:
            case "driver":
                kill.target = f"process {self._driver.pid}"
                kill.at = time.time()
                self._driver.kill()
                self._driver.wait()
                self._start()
            case "raylet":
                lost = self.cluster.actors_of_second()
                kill.target = f"with {', '.join(lost) or 'no actor'}"
                kill.at = time.time()
                self.cluster.lose_second_node()
            case _:
                until = time.monotonic() + TARGET_S
                while not (found := self.cluster.workers(kill.kind)):
                    if time.monotonic() > until:
                        raise EmerError(f"chaos: no {kill.kind} to kill within {TARGET_S:.0f} s")
                    time.sleep(0.1)
                pid, title = found[int(kill.delay_s * 1e6) % len(found)]
                kill.target = _short(title)
                kill.at = time.time()
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def _last_words(self) -> str:
        log = (self.folder / "driver.log").read_text(errors="replace").strip().splitlines()
        return " | ".join(log[-3:])


class TwoNodes:
    """A head and a second node, as two raylets on this machine, with ports of their own."""

    def __init__(self, *, jobs: bool = False) -> None:
        """Start both; with `jobs`, the head serves jobs at `jobs_url`."""
        from ray.cluster_utils import Cluster

        head: dict[str, int | None] = {"num_cpus": HEAD_CPUS, "include_dashboard": jobs}
        if jobs:
            head["dashboard_agent_listen_port"] = None  # a free one
        self._ray = Cluster(initialize_head=True, head_node_args=head)
        self.jobs_url = f"http://{self._ray.webui_url}"
        self._jobs = jobs
        self._second = self._joined()

    def _joined(self) -> Any:
        """Let a node join. A job's files lie in its node's folder, which two nodes of one machine
        would share: the one that goes would take them from the other.
        """
        own: dict[str, Any] = {}
        if self._jobs:
            own["temp_dir"] = tempfile.mkdtemp(dir=os.environ["RAY_TMPDIR"])
        return self._ray.add_node(num_cpus=SECOND_CPUS, **own)

    def environment(self) -> dict[str, str]:
        """What a driver needs to join."""
        return os.environ | {"RAY_ADDRESS": self._ray.address}

    def actors_of_second(self) -> list[str]:
        """Name the actors of pools that the second node runs."""
        titles = sorted(title for _, title in _workers(_raylet(self._second)))
        return [_short(title) for title in titles if title.startswith(POOL)]

    def lose_second_node(self) -> None:
        """Kill the second node's raylet, with which its workers die; then a fresh node joins."""
        os.kill(_raylet(self._second), signal.SIGKILL)
        self._ray.remove_node(self._second, allow_graceful=False)  # what is left of it
        self._second = self._joined()

    def workers(self, kind: Literal["worker", "actor"]) -> list[tuple[int, str]]:
        """List processes by id and title: actors of pools, or every other worker."""
        raylets = (_raylet(self._ray.head_node), _raylet(self._second))
        found = [(pid, title) for raylet in raylets for pid, title in _workers(raylet)]
        pools = [each for each in found if each[1].startswith(POOL)]
        return sorted(pools if kind == "actor" else [e for e in found if e not in pools])

    def stop(self) -> None:
        """End both nodes."""
        self._ray.shutdown()  # type: ignore[no-untyped-call]


@contextlib.contextmanager
def two_nodes(
    folder: Path, say: Callable[[str], None], *, jobs: bool = False
) -> Iterator[TwoNodes]:
    """Run a cluster of two nodes during a `with` block; its files go below `folder`."""
    before = os.environ.get("RAY_TMPDIR")
    os.environ["RAY_TMPDIR"] = str(folder)  # nobody's `ray.init("auto")` shall find this cluster
    say("starting two nodes")
    cluster = TwoNodes(jobs=jobs)
    try:
        yield cluster
    finally:
        cluster.stop()
        del os.environ["RAY_TMPDIR"]
        if before is not None:
            os.environ["RAY_TMPDIR"] = before


def _raylet(node: Any) -> int:
    (raylet,) = node.all_processes["raylet"]
    return int(raylet.process.pid)


def _short(title: str) -> str:
    """Name a process as people do: ray::MapWorker(MapBatches(Explain)).submit is Explain."""
    return title.removeprefix("ray::").rpartition("(")[2].partition(")")[0]


def _workers(raylet: int) -> list[tuple[int, str]]:
    """List the worker processes of a node, children of its raylet, by titles; not its agents."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            title = stat.with_name("cmdline").read_bytes().split(b"\0")[0].decode(errors="replace")
            if parent == raylet and title.startswith("ray::") and "Agent" not in title:
                found.append((int(stat.parent.name), title))
    return found
