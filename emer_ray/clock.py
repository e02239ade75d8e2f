"""What a piece of work costs: wall seconds, and CPU seconds of this process and its children.

CPU seconds are what a prediction needs where actors share cores: there the wall is slow, and CPU
seconds are not.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(slots=True)
class Spent:
    """Seconds; zero until the work is over."""

    wall_s: float = 0.0
    cpu_s: float = 0.0


@contextmanager
def spending() -> Iterator[Spent]:
    """Measure the body of a `with`; what it gives is filled in at the end."""
    spent = Spent()
    wall_s, cpu_s = time.perf_counter(), family_cpu_s()
    try:
        yield spent
    finally:
        spent.wall_s = time.perf_counter() - wall_s
        spent.cpu_s = max(0.0, family_cpu_s() - cpu_s)


def family_cpu_s() -> float:
    """CPU seconds of this process and of its children, those that have ended included."""
    ended = os.times()
    return time.process_time() + ended.children_user + ended.children_system + _children_s()


def _children_s() -> float:
    """CPU seconds of the running children; 0 where there is no /proc."""
    total = 0.0
    for task in Path("/proc/self/task").glob("*/children"):
        for pid in _read(task).split():
            # the name in brackets may hold spaces, what follows may not
            fields = _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
            total += sum(int(field) for field in fields[11:13])
    return total / os.sysconf("SC_CLK_TCK")


def _read(path: Path) -> str:
    """Read a file of /proc; empty where its process or thread has just ended."""
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
