"""What a process and its descendants use, read from /proc: CPU time, and memory without what is
shared (Linux only; a process that ends between two looks is left out); and what they inherit.
"""

import contextlib
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from emer_ray.errors import EmerError

_PROC: Final = Path("/proc")
_TICK_S: Final = 1 / os.sysconf("SC_CLK_TCK")
_TITLE: Final = re.compile(r"ray::(?:MapWorker\(MapBatches\()?(\w+)")
_SIZES: Final = re.compile(rb"^(Pss|Pss_Shmem): +(\d+) kB$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A process of a run."""

    pid: int
    kind: Literal["driver", "worker", "system"]
    """Ray's workers, with what they have started, and what else belongs to Ray."""
    name: str
    """An actor of a pool is named after its steps."""

    def cpu_s(self) -> float:
        """CPU seconds since it began; 0 where it has ended."""
        with contextlib.suppress(OSError):
            user, system = _stat(self.pid)[11:13]
            return (int(user) + int(system)) * _TICK_S
        return 0.0

    def pss_mb(self, *, shared: bool = False) -> float:
        """Proportional set size; on request with shared memory, such as Ray's object store."""
        with contextlib.suppress(OSError):
            sizes = dict(_SIZES.findall((_PROC / str(self.pid) / "smaps_rollup").read_bytes()))
            if sizes:
                return (int(sizes[b"Pss"]) - (0 if shared else int(sizes[b"Pss_Shmem"]))) / 1024
        return 0.0


def family(root: int) -> list[Process]:
    """List a driver and all its descendants."""
    driver = Process(pid=root, kind="driver", name="driver")
    return [driver, *_below(driver, children())]


def children() -> dict[int, list[int]]:
    """List the children of every process."""
    if not (_PROC / "self/stat").exists():
        raise EmerError("this benchmark reads /proc, which only Linux has; run it there")
    found: dict[int, list[int]] = {}
    for entry in _PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError):
            found.setdefault(int(_stat(int(entry.name))[1]), []).append(int(entry.name))
    return found


@contextlib.contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for a while; Ray's workers inherit them."""
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def cpu_s(root: int) -> Counter[str]:
    """Sum the CPU seconds of a driver and its descendants by name."""
    total: Counter[str] = Counter()
    for process in family(root):
        total[process.name] += process.cpu_s()  # type: ignore[assignment]
    return total


def _below(parent: Process, children: Mapping[int, Sequence[int]]) -> Iterator[Process]:
    for pid in children.get(parent.pid, ()):
        with contextlib.suppress(OSError):
            process = _seen(pid, parent)
            yield process
            yield from _below(process, children)


def _seen(pid: int, parent: Process) -> Process:
    if parent.kind == "worker":
        return Process(pid=pid, kind="worker", name=parent.name)
    title = (_PROC / str(pid) / "cmdline").read_bytes().decode("utf-8", "replace")
    if match := _TITLE.match(title):
        return Process(pid=pid, kind="worker", name=match[1])
    return Process(pid=pid, kind="system", name=(_PROC / str(pid) / "comm").read_text().strip())


def _stat(pid: int) -> list[str]:
    """Read the fields of a process from its state on; a program's name may hold blanks."""
    return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
