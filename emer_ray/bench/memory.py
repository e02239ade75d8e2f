"""Whether a run's memory grows with the clips it has done: the real main job over sounds of a tenth
of a second, with a fake model that answers at once.

Twice a second the memory of the driver and of all Ray actors, with what they have started (decoders
run in child processes), is read as proportional set size without shared memory, hence without Ray's
object store. `growth` compares the peak in the second half of the run with the peak in its first
10,000 clips (its first tenth, where it has fewer than 100,000).
"""

import itertools
import os
import tempfile
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final

from emer_ray import runner, storage
from emer_ray.bench import processes
from emer_ray.bench.resume import silent
from emer_ray.errors import EmerError
from emer_ray.relabel import Progress, relabel

CLIPS: Final = 40_000
"""Within 5 minutes on two cores; the figure to quote is that of 100,000."""
FIRST: Final = 10_000
CLIP_S: Final = 0.1
SAMPLE_S: Final = 0.5
NOT_OURS: Final = {"IDLE", "DashboardAgent", "RuntimeEnvAgent"}
"""Ray's workers without an actor, and its agents."""


class _Sampler(threading.Thread):
    """Notes the memory of this process and of Ray's actors, with the clips done."""

    def __init__(self) -> None:
        super().__init__(name="emer-sampler", daemon=True)
        self.done = 0
        self.samples: list[tuple[int, float, float]] = []
        """Clips done, MB of the driver, MB of all actors."""
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(SAMPLE_S):
            self.samples.append((self.done, *_memory_mb()))

    def progress(self, progress: Progress) -> None:
        self.done = progress.done_now

    def stop(self) -> None:
        self._ended.set()
        self.join()


def _memory_mb() -> tuple[float, float]:
    driver, actors = 0.0, 0.0
    for process in processes.family(os.getpid()):
        if process.kind == "driver":
            driver += process.pss_mb()
        elif process.kind == "worker" and process.name not in NOT_OURS:
            actors += process.pss_mb()
    return driver, actors


def peaks(samples: Sequence[tuple[int, float, float]], first: int, last: int) -> dict[str, float]:
    """Give the peaks of the sum, of driver and of actors, while clips `first` to `last` end."""
    found = [(driver, actors) for done, driver, actors in samples if first < done <= last]
    if not found:
        raise EmerError(f"clips {first} to {last} were done between two looks; give more --clips")
    return {
        "mb": max(driver + actors for driver, actors in found),
        "driver_mb": max(driver for driver, _ in found),
        "actors_mb": max(actors for _, actors in found),
    }


def memory(
    seed: int = 0, clips: int | None = None, say: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Measure the growth; `clips` is the size of the run."""
    clips = clips or CLIPS
    sampler = _Sampler()
    with tempfile.TemporaryDirectory(prefix="emer-bench-") as base:
        config = silent(base, storage.join(base, "run"), clips, seed, clip_s=CLIP_S)
        runner.connect()
        sampler.start()
        try:
            summary = relabel(config, on_progress=sampler.progress)
        finally:
            sampler.stop()
    head = min(FIRST, clips // 10)
    before, after = peaks(sampler.samples, 0, head), peaks(sampler.samples, clips // 2, clips)
    tenths = [clips * tenth // 10 for tenth in range(11)]
    return {
        "growth": round(after["mb"] / before["mb"] - 1, 4),
        "growth_mb": round(after["mb"] - before["mb"], 1),
        "clips": clips,
        "first_clips": head,
        "seconds": summary["seconds"],
        "ok": summary["ok"],
        "before_mb": {name: round(mb, 1) for name, mb in before.items()},
        "after_mb": {name: round(mb, 1) for name, mb in after.items()},
        "tenths_mb": [
            {name: round(mb, 1) for name, mb in peaks(sampler.samples, low, high).items()}
            for low, high in itertools.pairwise(tenths)
        ],
    }
