"""The boundary of a stage: rows in, rows or failures out, whatever happens in between.

`through` is the only place where an exception becomes data. What ends the process (a crash, a hang,
a process that swells) is bounded by claims: Ray starts the actor again and repeats the shard, the
claim tells that a process died on it, and the shard goes clip by clip until the one that does it is
known (design §5). Shards may be at work side by side in one process, where a stage can do that;
a clip on its own has the process to itself, so that its blame is exact. Nothing here knows what a
stage does, or Ray.
"""

import faulthandler
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from emer_ray import meter, schema
from emer_ray.config import Fault
from emer_ray.errors import ClipError, EmerError, EngineDied, FailureKind
from emer_ray.store import claims

log = logging.getLogger(__name__)

Row = dict[str, Any]
Work = Callable[[list[Row]], list[Row | ClipError]]

MEDIA: Final = ("frames", "pcm")
HEAVY: Final = (*MEDIA, "embeddings")
"""Columns that travel as buffers and die after their last reader."""

EXIT_GIVEN_UP: Final = 70
"""Exit code of a process that its own watchdog ended."""

CHECK_S: Final = 0.25
"""Seconds between two looks of the watchdog."""

NATIVE_GRACE_S: Final = 15.0
"""After the deadline, for native code that hangs while it holds the interpreter."""

TIMER_SLACK_S: Final = 5.0
"""What the timer behind the watchdog may be late, so that it is set once in so many seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """How a stage that runs models in its own process is contained."""

    run: str | None = None
    """Run directory of the claims; null = no claims, no watchdog: the serial twin."""
    deadline_s: float = 600.0
    """Per clip."""
    memory_mb: int | None = None
    """Resident memory of the process; null = not watched."""
    batch: int | None = None
    """Clips handed over at once; null = the whole table."""
    shards: int = 1
    """Shards that may be at work side by side; they share the time."""
    faults: Mapping[str, Fault] = field(default_factory=dict)


def through(
    table: pa.Table,
    *,
    stage: str,
    to: pa.Schema,
    work: Work,
    drops: Collection[str] = (),
    guard: Guard | None = None,
) -> pa.Table:
    """Hand the rows that have not failed to `work` and merge what it returns, in place.

    `work` answers every row with the columns it adds or replaces, or with a ClipError; a failed row
    passes through untouched. Columns in `drops` are empty afterwards.
    """
    rows = rows_of(table)
    living = [number for number, row in enumerate(rows) if row["kind"] is None]

    def counted(rows: list[Row]) -> list[Row | ClipError]:
        with meter.working(stage):
            return work(rows)

    answered = _guarded([rows[number] for number in living], stage, counted, guard or Guard())
    answers = dict(zip(living, answered, strict=True))
    produced = {name for answer in answered if isinstance(answer, dict) for name in answer}
    if unknown := produced - set(to.names):
        raise ValueError(f"stage {stage}: columns {sorted(unknown)} are not in its schema")
    try:
        merged = _merged(table, rows, answers, stage, to, drops)
    except NO_VALUE:
        answers = {number: _fitting(answer, to) for number, answer in answers.items()}
        merged = _merged(table, rows, answers, stage, to, drops)
    _count_outcomes(stage, answers.values())
    return merged


def _count_outcomes(stage: str, answers: Collection[Row | ClipError]) -> None:
    failed = [answer for answer in answers if isinstance(answer, ClipError)]
    meter.add("ok", stage, len(answers) - len(failed))
    meter.add("failed", stage, len(failed))
    for error in failed:
        meter.add("dead", error.kind)


NO_VALUE: Final = (ValueError, TypeError, OverflowError, pa.ArrowException)
"""What Arrow raises for a value that is none of its column's type, such as half a surrogate pair,
which a model's JSON can hold and no UTF-8 can."""


def _fitting(answer: Row | ClipError, to: pa.Schema) -> Row | ClipError:
    """Turn an answer that no table can hold into the failure of its clip."""
    if isinstance(answer, ClipError):
        return answer
    for name, value in answer.items():
        try:
            schema.column([value], to.field(name).type)
        except NO_VALUE as error:
            return ClipError("error", f"column {name}: {type(error).__name__}: {error}")
    return answer


def _merged(
    table: pa.Table,
    rows: list[Row],
    answers: Mapping[int, Row | ClipError],
    stage: str,
    to: pa.Schema,
    drops: Collection[str],
) -> pa.Table:
    """Put the answers into the table, in place of what its rows held."""
    results: dict[int, Row] = {}
    outcome = {name: table[name].to_pylist() for name in ("stage", "kind", "message", "worker")}
    for number, answer in answers.items():
        if isinstance(answer, ClipError):
            outcome["stage"][number] = stage
            outcome["kind"][number] = answer.kind
            outcome["message"][number] = str(answer).encode(errors="backslashreplace").decode()
            outcome["worker"][number] = f"{socket.gethostname()}:{os.getpid()}"
        else:
            results[number] = answer
    produced = {name for answer in results.values() for name in answer}
    columns = []
    for column in to:
        if column.name in outcome:
            values = pa.array(outcome[column.name], type=column.type)
        elif column.name in drops:
            values = pa.nulls(len(rows), type=column.type)
        elif column.name in produced:
            name = column.name
            values = schema.column(
                [
                    answer[name] if name in (answer := results.get(number, {})) else row.get(name)
                    for number, row in enumerate(rows)
                ],
                column.type,
            )
        elif column.name in table.schema.names:
            values = table[column.name]
        else:
            values = pa.nulls(len(rows), type=column.type)
        columns.append(values)
    return pa.table(columns, schema=to)


def rows_of(table: pa.Table) -> list[Row]:
    """Read a table as rows; heavy columns are views of its buffers, not copies."""
    heavy = [name for name in HEAVY if name in table.schema.names]
    rows: list[Row] = table.drop_columns(heavy).to_pylist()
    for name in heavy:
        for row, buffer in zip(rows, _buffers(table[name]), strict=True):
            row[name] = buffer
    return rows


def _buffers(column: pa.ChunkedArray) -> Iterator[pa.Buffer | None]:
    """View the values of a large_binary column; its scalars would copy each of them."""
    for chunk in column.chunks:
        if not len(chunk):
            continue
        _, offsets, data = chunk.buffers()
        ends = np.frombuffer(offsets, np.int64)[chunk.offset : chunk.offset + len(chunk) + 1]
        for number, valid in enumerate(chunk.is_valid().to_pylist()):
            start = int(ends[number])
            yield data.slice(start, int(ends[number + 1]) - start) if valid else None


def _guarded(rows: list[Row], stage: str, work: Work, guard: Guard) -> list[Row | ClipError]:
    """Run the rows in micro-batches; after a death of the process, clip by clip."""
    if not rows:
        return []
    if guard.run is None:
        with _ROOM.together():
            return _batched(rows, work, guard, None)
    with _ROOM.together():  # claimed inside: who waits while a clip kills the process pays nothing
        held = claims.claim(guard.run, stage, rows[0]["shard"])
        if not held.first:
            meter.add("retries", "process_died")
        many = replace(guard, deadline_s=guard.deadline_s * guard.shards)
        answers = _released(held, lambda: _batched(rows, work, many, held)) if held.first else None
    return answers or _released(held, lambda: _one_by_one(rows, work, guard, held))


def _released(
    held: claims.Claim, answered: Callable[[], list[Row | ClipError]]
) -> list[Row | ClipError]:
    try:
        answers = answered()
    except EmerError:
        held.release()  # the run's mistake, which no clip pays for when it starts again
        raise
    kept = _KEPT.get()
    if kept is None:
        held.release()
    else:
        kept.append(held)
    return answers


_KEPT: Final[ContextVar[list[claims.Claim] | None]] = ContextVar("emer_kept", default=None)


@contextmanager
def claims_kept() -> Iterator[None]:
    """Keep the claims of a shard until all that is done to it in here is through.

    When another shard ends the process in between, Ray repeats all of it. A clip that was given up
    must not have its tries anew then: two such shards would undo each other again and again.
    """
    kept: list[claims.Claim] = []
    before = _KEPT.set(kept)
    try:
        yield
    finally:
        _KEPT.reset(before)
        for held in kept:
            held.release()


def _one_by_one(
    rows: list[Row], work: Work, guard: Guard, held: claims.Claim
) -> list[Row | ClipError]:
    answers: list[Row | ClipError] = []
    for row in rows:
        clip_id = row["clip_id"]
        if held.exhausted(clip_id):
            answers.append(_given_up(clip_id, held))
            continue
        with _ROOM.alone():
            held.try_alone(clip_id)
            answers += _batched([row], work, guard, held)
            held.succeeded(clip_id)
    return answers


class _Room:
    """Shards at work, or one clip with nobody beside it; who wants to be alone goes first.

    An actor is given one shard more than may be at work, so that tables and storage of one cost
    the next nothing.
    """

    def __init__(self) -> None:
        self.seats = 1
        self._changed = threading.Condition()
        self._inside = 0
        self._lonely = 0
        """Clips that are alone or wait for it."""

    @contextmanager
    def together(self) -> Iterator[None]:
        with self._changed:
            with meter.waiting("seat"):
                self._changed.wait_for(lambda: not self._lonely and self._inside < self.seats)
            self._inside += 1
        try:
            yield
        finally:
            self._leave()

    @contextmanager
    def alone(self) -> Iterator[None]:
        with self._changed:
            self._lonely += 1
            with meter.waiting("seat"):
                self._changed.wait_for(lambda: not self._inside)
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._lonely -= 1
            self._leave()

    def _leave(self) -> None:
        with self._changed:
            self._inside -= 1
            self._changed.notify_all()


_ROOM: Final = _Room()
"""Of this process."""


def side_by_side(shards: int) -> None:
    """Let this process work on so many shards at once; on one, where nobody says otherwise."""
    _ROOM.seats = shards


def _given_up(clip_id: str, held: claims.Claim) -> ClipError:
    kind = held.blamed.get(clip_id, "crashed")
    how = {
        "timeout": "the stage passed its deadline",
        "memory": "the process passed its memory limit",
    }.get(kind, "the process died")
    return ClipError(kind, f"{how} {claims.ALONE_TRIES} times on this clip alone")


def _batched(
    rows: list[Row], work: Work, guard: Guard, held: claims.Claim | None
) -> list[Row | ClipError]:
    size = guard.batch or len(rows)
    answers: list[Row | ClipError] = []
    for start in range(0, len(rows), size):
        batch = rows[start : start + size]
        with _watched(guard.deadline_s * len(batch), guard.memory_mb, held):
            answers += _attempt(batch, work, guard, held)
    return answers


def _attempt(
    rows: list[Row], work: Work, guard: Guard, held: claims.Claim | None
) -> list[Row | ClipError]:
    """Call `work`; the one place where an unexpected exception becomes a row.

    It is retried clip by clip first, so that only the clip that raises it pays. Errors that concern
    the run rather than a clip propagate; memory errors and the death of an engine end a contained
    process, whose claim counts.
    """
    try:
        for row in rows:
            _commit_fault(guard.faults.get(row["clip_id"]))
        answers = work(rows)
    except ClipError as error:
        if len(rows) == 1:
            return [error]
    except EmerError:
        raise
    except (MemoryError, EngineDied) as error:
        if held is None:
            raise
        log.error("%s: %s; ending the process", type(error).__name__, error)
        _give_up(held, "memory" if isinstance(error, MemoryError) else "crashed")
    except Exception as error:
        if len(rows) == 1:
            log.exception("clip %s", rows[0]["clip_id"])
            return [ClipError("error", f"{type(error).__name__}: {error}")]
    else:
        if len(answers) != len(rows):
            raise AssertionError(f"{len(rows)} rows went in, {len(answers)} answers came out")
        return answers
    meter.add("retries", "clip_by_clip")
    return [answer for row in rows for answer in _attempt([row], work, guard, held)]


def _commit_fault(fault: Fault | None) -> None:
    """Commit the disaster that `faults.<stage>` of the configuration rehearses."""
    match fault:
        case None:
            return
        case "raise":
            raise RuntimeError("rehearsed fault")
        case "hang":
            time.sleep(86_400)
        case "segfault":
            signal.raise_signal(signal.SIGSEGV)
        case "exit":
            os._exit(1)
        case "bloat":
            hoard = []
            while True:
                hoard.append(np.ones(2**23))  # 64 MB at a time, touched
                time.sleep(0.05)


@contextmanager
def _watched(seconds: float, memory_mb: int | None, held: claims.Claim | None) -> Iterator[None]:
    """End this process when a micro-batch hangs or swells; its claim says which."""
    if held is None:
        yield
        return
    with _WATCHDOG.watching(_Watch(time.monotonic() + seconds, seconds, memory_mb, held)):
        yield


@dataclass(frozen=True, slots=True, eq=False)
class _Watch:
    """A micro-batch under way."""

    until: float
    """By `time.monotonic`."""
    seconds: float
    memory_mb: int | None
    held: claims.Claim


class _Watchdog:
    """A thread that looks at every micro-batch of its process, started with the first of them.

    It needs the interpreter's lock, so a timer in C, of which a process has one, stands behind it
    for native code that hangs while holding it. Setting that starts a thread, so it is set some
    seconds late and again only when that has become too early or too late.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watches: list[_Watch] = []
        self._thread: threading.Thread | None = None
        self._armed = 0.0
        """When the timer goes off, by `time.monotonic`; 0 = it is not set."""

    @contextmanager
    def watching(self, watch: _Watch) -> Iterator[None]:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="emer-watchdog", daemon=True)
                self._thread.start()
            self._watches.append(watch)
            self._arm()
        try:
            yield
        finally:
            with self._lock:
                self._watches.remove(watch)
                self._arm()

    def _run(self) -> None:
        while True:
            time.sleep(CHECK_S)
            with self._lock:
                watches = list(self._watches)
                if not watches and self._armed:
                    faulthandler.cancel_dump_traceback_later()
                    self._armed = 0.0
            for watch in watches:
                _look_at(watch)

    def _arm(self) -> None:
        """Set the timer for the last of what runs, unless it goes off in time for that already."""
        due = max((watch.until + NATIVE_GRACE_S for watch in self._watches), default=None)
        if due is None or due <= self._armed <= due + TIMER_SLACK_S:
            return
        self._armed = due + TIMER_SLACK_S
        left = self._armed - time.monotonic()
        faulthandler.dump_traceback_later(max(left, CHECK_S), exit=True)


_WATCHDOG: Final = _Watchdog()


def _look_at(watch: _Watch) -> None:
    if time.monotonic() > watch.until:
        log.error("a micro-batch passed its deadline of %.1f s; ending the process", watch.seconds)
        _give_up(watch.held, "timeout")
    if watch.memory_mb is not None and _rss_mb() > watch.memory_mb:
        log.error("a micro-batch passed %d MB of memory; ending the process", watch.memory_mb)
        _give_up(watch.held, "memory")


def _give_up(held: claims.Claim, kind: FailureKind) -> None:
    held.blame(kind)
    os._exit(EXIT_GIVEN_UP)


def _rss_mb() -> float:
    status = Path("/proc/self/statm")
    if not status.exists():  # not Linux: the cluster's own memory limits have to do
        return 0.0
    return int(status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
