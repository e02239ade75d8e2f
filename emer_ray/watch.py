"""What a driver does besides its work: stop politely when asked, and say so when nothing moves."""

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

from emer_ray import storage
from emer_ray.errors import Interrupted
from emer_ray.store import drain

log = logging.getLogger(__name__)

ASKED: Final = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def stoppable(run: str, drain_s: float) -> Iterator[None]:
    """Turn SIGTERM and the first Ctrl-C into a drain: no new shards, what is in flight is stored.

    Raises Interrupted at the end of the block, or `drain_s` after the signal. A second signal stops
    at once. Outside the main thread, where Python takes no signals, this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = False

    def ask(number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise Interrupted(f"{run}: stopped at once, as asked twice; starting again resumes")
        asked = True
        name = signal.Signals(number).name
        log.warning("%s: finishing what is in flight, at most %.0f s", name, drain_s)
        drain.request(run)
        signal.setitimer(signal.ITIMER_REAL, drain_s)

    def late(_number: int, _frame: FrameType | None) -> None:
        raise Interrupted(
            f"{run}: stopped with shards still in flight after {drain_s:g} s (budget.drain_s); "
            f"starting again resumes"
        )

    drain.clear(run)
    before = {number: signal.signal(number, ask) for number in ASKED}
    before[signal.SIGALRM] = signal.signal(signal.SIGALRM, late)
    try:
        yield
        if asked:
            raise Interrupted(f"{run}: stopped as asked, nothing in flight; starting again resumes")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
        if asked:
            drain.clear(run)


@contextmanager
def unstalled(
    run: str, stall_s: float, actors: Callable[[], list[str]]
) -> Iterator[Callable[[], None]]:
    """Give a function to call at each sign of life; without one for `stall_s` the log says why.

    It names every shard under work with its stage and age, and the state of every pool.
    """
    last = time.monotonic()
    done = threading.Event()

    def alive() -> None:
        nonlocal last
        last = time.monotonic()

    def look() -> None:
        told = last
        while not done.wait(min(stall_s, 5.0) / 5):
            quiet_s = time.monotonic() - max(last, told)
            if quiet_s < stall_s:
                continue
            told = time.monotonic()
            log.warning("no clip finished for %.0f s", time.monotonic() - last)
            for line in [*in_progress(run), *actors()]:
                log.warning("  %s", line)

    thread = threading.Thread(target=look, name="emer-stall", daemon=True)
    thread.start()
    try:
        yield alive
    finally:
        done.set()
        thread.join()


def in_progress(run: str) -> list[str]:
    """Say which stage works on which shard since when, by the claims."""
    lines = []
    for entry in storage.listing(storage.join(run, "claims")):
        *_, stage, name = entry.uri.split("/")
        age_s = time.time() - entry.modified_s
        lines.append(f"{stage} works on shard {int(name.split('.')[0])} since {age_s:.0f} s")
    return lines or ["no model stage is at work; decoding, or actors still starting"]
