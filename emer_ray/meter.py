"""What the work at hand spends: counted where it is known, read by whoever set the meter.

A meter belongs to a context of `contextvars`: shards side by side have one each, and work that is
handed to another thread takes it along with `copy_context().run`. Where nobody set one, counting
does nothing, so that a stage called by hand needs none.

    seconds STEP     at work in a step of the flow: decoding, answering, storing
    ok, failed STEP  clips that a step did, and that failed in it
    dead KIND        the same failures by kind
    waited gate | seat    seconds before work could begin
    bytes read | written  media read; parts and embeddings stored
    tokens in | out, usd  of answers, as far as the backend knows them
    retries CLASS    work that was done again, by why
    cpu child        CPU seconds of a decoder's child process
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Counts = dict[str, dict[str, float]]
"""Amounts by name and label."""


class Meter:
    """Amounts, and the stretches of time in which there was work, as Unix seconds."""

    def __init__(self) -> None:
        self.counts: Counts = {}
        self.spans: list[tuple[float, float]] = []
        self._lock = threading.Lock()

    def add(self, name: str, label: str, amount: float) -> None:
        """Count; several threads may."""
        with self._lock:
            labels = self.counts.setdefault(name, {})
            labels[label] = labels.get(label, 0) + amount


_METER: ContextVar[Meter | None] = ContextVar("emer_meter", default=None)


@contextmanager
def metered() -> Iterator[Meter]:
    """Set a fresh meter for the length of a `with`."""
    meter = Meter()
    before = _METER.set(meter)
    try:
        yield meter
    finally:
        _METER.reset(before)


def add(name: str, label: str, amount: float = 1) -> None:
    """Count on the meter of this context, if there is one."""
    meter = _METER.get()
    if meter is not None and amount:
        meter.add(name, label, amount)


def add_all(counts: Counts) -> None:
    """Count what another process has counted."""
    for name, labels in counts.items():
        for label, amount in labels.items():
            add(name, label, amount)


@contextmanager
def working(step: str) -> Iterator[None]:
    """Count the seconds of a `with` as work in a step."""
    meter = _METER.get()
    if meter is None:
        yield
        return
    started, clock = time.time(), time.perf_counter()
    try:
        yield
    finally:
        seconds = time.perf_counter() - clock
        meter.spans.append((started, started + seconds))
        meter.add("seconds", step, seconds)


@contextmanager
def waiting(place: str) -> Iterator[None]:
    """Count the seconds of a `with` as waiting for a place."""
    clock = time.perf_counter()
    try:
        yield
    finally:
        add("waited", place, time.perf_counter() - clock)
