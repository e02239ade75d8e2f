"""The inside of a decoder's child process: decode what the parent sends, one clip at a time.

`Decoder` starts it with two inherited descriptors: a socket for messages, and anonymous memory
through which frames and sound go back. Standard input is the life line: its other end closes when
the parent dies, however it dies. The child writes no file, so it leaves none.
"""

import fcntl
import logging
import os
import resource
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import av
import numpy as np

from emer_ray import meter
from emer_ray.config import Fault, MediaConfig
from emer_ray.errors import ClipError
from emer_ray.media.decode import decode_clip
from emer_ray.records import Clip, DecodedClip

log = logging.getLogger(__name__)

Shape = tuple[int, ...]

Answer = ClipError | tuple[DecodedClip, Shape | None, Shape | None]
"""A failure; or a clip without its arrays, and the shapes of frames and sound in the buffer. It
travels with what it cost (`emer_ray.meter`)."""


def main() -> None:
    """Serve clips until the parent closes the channel."""
    channel: Connection[Any, Any] = Connection(int(sys.argv[1]))
    buffer = int(sys.argv[2])
    _die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    _hush()
    settings, faults = channel.recv()
    _limit_memory(settings.memory_mb)
    channel.send("ready")
    while True:
        try:
            clip, held = channel.recv()
        except EOFError:
            return
        with meter.metered() as spent:
            before = time.process_time()
            answer = _answer(clip, held, settings, faults, buffer)
            meter.add("cpu", "child", time.process_time() - before)
        channel.send((answer, spent.counts))


def _answer(
    clip: Clip,
    held: Mapping[str, bytes],
    settings: MediaConfig,
    faults: Mapping[str, Fault],
    buffer: int,
) -> Answer:
    try:
        _commit_fault(faults.get(clip.clip_id))
        decoded = decode_clip(clip, settings, held)
        arrays = [array for array in (decoded.frames, decoded.pcm) if array is not None]
        _put(buffer, [np.ascontiguousarray(array) for array in arrays])
    except ClipError as error:
        return error
    except MemoryError:
        return ClipError(
            "memory",
            f"decoding needs more than {settings.memory_mb} MB; raise media.memory_mb "
            "or lower media.frames or media.size_px",
        )
    except Exception as error:  # whatever it is, it is this clip's
        log.exception("clip %s", clip.clip_id)
        return ClipError("error", f"{type(error).__name__}: {error}")
    return (
        replace(decoded, frames=None, pcm=None),
        None if decoded.frames is None else decoded.frames.shape,
        None if decoded.pcm is None else decoded.pcm.shape,
    )


def _put(buffer: int, arrays: list[np.ndarray[Any, Any]]) -> None:
    """Write arrays one after the other into the buffer, which takes their size."""
    os.ftruncate(buffer, sum(array.nbytes for array in arrays))
    at = 0
    for array in arrays:
        left = array.reshape(-1).view(np.uint8).data
        while left:
            n_bytes = os.pwrite(buffer, left, at)
            left, at = left[n_bytes:], at + n_bytes


def _hush() -> None:
    """Keep what native libraries print about damaged files out of the log; Python's log stays."""
    av.logging.set_level(None)
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)


def _die_with_parent() -> None:
    """Have the kernel end this process when the life line closes.

    SIGIO's default action needs neither a thread nor the GIL, so native code that hangs ends as
    well; PR_SET_PDEATHSIG would fire when the parent's *thread* that started us ends.
    """
    fcntl.fcntl(sys.stdin, fcntl.F_SETOWN, os.getpid())
    flags = fcntl.fcntl(sys.stdin, fcntl.F_GETFL)
    fcntl.fcntl(sys.stdin, fcntl.F_SETFL, flags | os.O_ASYNC)


def _limit_memory(memory_mb: int) -> None:
    """Bound the address space to what is in use now and `memory_mb` more; write no core files."""
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = in_use + memory_mb * 2**20
    soft = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _commit_fault(fault: Fault | None) -> None:
    """Commit the disaster that was asked for this clip: a rehearsal of containment."""
    match fault:
        case "segfault":
            signal.raise_signal(signal.SIGSEGV)
        case "exit":
            os._exit(3)
        case "hang":
            time.sleep(86_400)
        case "bloat":
            hoard = []
            while True:
                hoard.append(np.ones(2**26, np.uint8))
        case "raise":
            raise RuntimeError("rehearsed fault")
