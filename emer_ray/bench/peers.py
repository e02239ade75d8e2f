"""The same work by others: a naive Ray Data script, Daft, a sequential loop, an asyncio loop.

Every program of `benchmarks/peers/` decodes rows of 1.2 MB by burning 5 ms of CPU each, asks a
model that takes 5 ms per row in batches of eight on one device, and writes Parquet. Ours is the
whole main job with its decoder exchanged (`benchmarks/peers/ours.py`). Each runs once to its end,
measured, and once with fewer clips, where its driver gets SIGKILL after half of them have been
asked about and is started again once.

    wall_s      from the start of the program to its end, `start_s` of it until the model is asked
    run_s       the rest: wall time without start-up
    cpu_s       of the program and of all processes that it started, Ray's daemons included;
                `start_cpu_s` of it until the model is asked
    rss_mb      peak of the proportional set sizes of the same processes: shared memory, such as
                Ray's object store, counts once
    lost, duplicated    rows after the kill and the restart
    redone      clips asked about twice because of it

The loops are the floor, not peers: they stay on one machine, and what they leave out is what the
others are for. Linux only.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import polars as pl

from emer_ray.bench import chaos, processes
from emer_ray.errors import ConfigError, EmerError

CLIPS: Final = 2000
KILL_CLIPS: Final = 400
PROGRAMS: Final = {
    "ours": ["ours.py"],
    "naive_ray": ["naive_ray.py"],
    "daft": ["daft_frame.py", "--runner", "native"],
    "daft_ray": ["daft_frame.py", "--runner", "ray"],
    "loop": ["loop.py"],
    "asyncio": ["asyncio_loop.py"],
}
SCRIPTS: Final = Path(__file__).parents[2] / "benchmarks" / "peers"
LOOK_S: Final = 0.2
MEMORY_EVERY: Final = 5
"""Looks between two at memory, which cost the kernel some milliseconds each."""
LIMIT_S: Final = 900.0
END_S: Final = 30.0
"""For what a program leaves behind to end by itself."""


def peers(
    seed: int = 0,
    clips: int | None = None,
    kill_clips: int = KILL_CLIPS,
    programs: Sequence[str] = (),
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Run the programs one after the other; `kill_clips` = 0 kills none. The work has no seed."""
    del seed
    if not SCRIPTS.is_dir():
        raise ConfigError(f"{SCRIPTS}: not here; `emer bench peers` runs in a checkout")
    if unknown := sorted(set(programs) - PROGRAMS.keys()):
        raise ConfigError(f"--program {unknown[0]}: not one of {', '.join(PROGRAMS)}")
    clips = clips or CLIPS
    found: dict[str, Any] = {"clips": clips, "kill_clips": kill_clips}
    for name in programs or PROGRAMS:
        if name.startswith("daft") and find_spec("daft") is None:
            found[name] = {"error": "Daft is not installed; pip install 'emer-ray[peers]'"}
        else:
            with adopting_orphans():
                found[name] = _measured(name, clips, kill_clips)
        say(f"{name}: {found[name]}")
    return found


def _measured(name: str, clips: int, kill_clips: int) -> dict[str, Any]:
    """Measure a program; one that fails says with what."""
    try:
        with _Place(name, clips) as place:
            figures = place.run().figures()
            rows = place.judged()
            if rows["lost"] or rows["duplicated"]:
                raise EmerError(f"an undisturbed run lost or doubled rows: {rows}")
        if kill_clips:
            with _Place(name, kill_clips) as place:
                place.run(kill_after=kill_clips // 2)
                place.run()
                figures |= place.judged()
    except EmerError as error:
        return {"error": str(error)}
    return figures


@dataclass(slots=True, kw_only=True)
class Look:
    """What a program and its descendants have used so far."""

    others: frozenset[int]
    """Children of this process that have nothing to do with the program."""
    born: float = field(default_factory=time.time)
    ended: float = 0.0
    asked: float | None = None
    """When the model was asked first."""
    asked_cpu_s: float = 0.0
    peak_mb: float = 0.0
    _running: dict[int, float] = field(default_factory=dict)
    """CPU seconds of each process when it was last seen."""
    _gone_s: float = 0.0
    """Of processes whose number another one has by now."""

    @property
    def cpu_s(self) -> float:
        return self._gone_s + sum(self._running.values())

    def note(self, pid: int, cpu_s: float) -> None:
        """Keep what a process has used; less than before means a new one of the same number."""
        before = self._running.get(pid, 0.0)
        if 0 < cpu_s < before:
            self._gone_s += before
        self._running[pid] = cpu_s or before  # 0 is one that has ended by now

    def figures(self) -> dict[str, float]:
        """Round them; raises EmerError where the model was never asked."""
        if self.asked is None:
            raise EmerError("the model was never asked")
        return {
            "wall_s": round(self.ended - self.born, 2),
            "start_s": round(self.asked - self.born, 2),
            "run_s": round(self.ended - self.asked, 2),
            "cpu_s": round(self.cpu_s, 2),
            "start_cpu_s": round(self.asked_cpu_s, 2),
            "rss_mb": round(self.peak_mb, 1),
        }


class _Place:
    """A folder with a manifest, where a program runs, dies and runs again."""

    def __init__(self, name: str, clips: int) -> None:
        self._clips = clips
        self._folder = tempfile.TemporaryDirectory(prefix="emer-peers-")
        folder = Path(self._folder.name)
        self._out, self._trace, self._log = folder / "out", folder / "trace", folder / "log"
        self._trace.touch()
        film = Path(__file__).parents[1] / "demo_media" / "bunny.mp4"  # nobody opens it
        table = {"clip_id": chaos.ids(clips), "video_uri": [str(film)] * clips}
        pl.DataFrame(table).write_parquet(folder / "clips.parquet")
        script, *options = PROGRAMS[name]
        places = {
            "--manifest": folder / "clips.parquet",
            "--out": self._out,
            "--trace": self._trace,
        }
        self._command = [sys.executable, str(SCRIPTS / script), *options]
        self._command += [str(word) for pair in places.items() for word in pair]

    def __enter__(self) -> "_Place":
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def run(self, kill_after: int | None = None) -> Look:
        """Run the program to its end, or kill it once so many clips have been asked about."""
        look = Look(others=frozenset(processes.children().get(os.getpid(), ())))
        with self._log.open("wb") as log:
            driver = subprocess.Popen(self._command, stdout=log, stderr=log, start_new_session=True)
        turn, killed = 0, False
        try:
            while driver.poll() is None:
                calls = chaos.read_trace(self._trace) if look.asked is None else []
                _update(look, memory=bool(calls) or turn % MEMORY_EVERY == 0)
                turn += 1
                if calls:
                    look.asked, look.asked_cpu_s = calls[0][0], look.cpu_s
                if kill_after and len(chaos.read_trace(self._trace)) >= kill_after:
                    killed = True
                    driver.kill()
                if time.time() - look.born > LIMIT_S:
                    raise EmerError(f"not at its end after {LIMIT_S:.0f} s; {self._last_words()}")
                with contextlib.suppress(subprocess.TimeoutExpired):
                    driver.wait(LOOK_S)
            look.ended = time.time()
            if driver.returncode and not killed:
                raise EmerError(f"ended with {driver.returncode}: {self._last_words()}")
            if kill_after and not killed:
                raise EmerError("it was at its end before it could be killed; take more clips")
        finally:
            _clear(look)
        return look

    def judged(self) -> dict[str, int]:
        """Count rows that are lost and doubled, and clips that were asked about twice."""
        calls = [clip_id for _, clip_id in chaos.read_trace(self._trace)]
        rows = chaos.judge(chaos.ids(self._clips), chaos.stored_ids(self._out))
        return {
            "lost": rows["lost"],
            "duplicated": rows["duplicated"],
            "redone": len(calls) - len(set(calls)),
        }

    def _last_words(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").split("\n")
        return " | ".join([line.strip() for line in lines if line.strip()][-3:])


@contextlib.contextmanager
def adopting_orphans() -> Iterator[None]:
    """Be the parent of descendants that lose theirs."""
    pr_set_child_subreaper = 36
    ctypes.CDLL(None).prctl(pr_set_child_subreaper, 1)
    try:
        yield
    finally:
        ctypes.CDLL(None).prctl(pr_set_child_subreaper, 0)


def _update(look: Look, *, memory: bool) -> None:
    """Read what all processes of the program have used."""
    found = family(look.others)
    for process in found:
        look.note(process.pid, process.cpu_s())
    if memory:
        look.peak_mb = max(look.peak_mb, sum(each.pss_mb(shared=True) for each in found))


def _clear(look: Look) -> None:
    """Wait until nothing of a program is left, and end what stays."""
    deadline = time.monotonic() + END_S
    while left := family(look.others):
        _update(look, memory=False)
        for process in left:
            with contextlib.suppress(ProcessLookupError):
                if time.monotonic() > deadline:
                    os.kill(process.pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):  # a grandchild, or one of `subprocess`
                os.waitpid(process.pid, os.WNOHANG)
        time.sleep(LOOK_S)


def family(others: Set[int]) -> list[processes.Process]:
    """List what descends from this process, but for some of its children and what they started."""
    below = processes.children()
    found = [pid for pid in below.get(os.getpid(), []) if pid not in others]
    for pid in found:  # grows while it is read
        found += below.get(pid, [])
    return [processes.Process(pid=pid, kind="system", name="") for pid in found]
