"""Decoding behind a wall: a child process that may crash, hang or swell without harm to its parent.

One child at a time, one clip at a time: whatever happens to the child is the doing of the clip it
had, and its neighbours never notice. Bytes of far objects are fetched here, one clip ahead.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import replace
from multiprocessing import Pipe
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from emer_ray import meter
from emer_ray.config import Fault, MediaConfig
from emer_ray.errors import ClipError, EmerError, StorageError
from emer_ray.media.child import Answer, Shape
from emer_ray.media.decode import check_decoders
from emer_ray.media.source import fetch
from emer_ray.records import Clip, DecodedClip

_CHILD: Final = "from emer_ray.media.child import main; main()"

_START_S: Final = 120.0
"""A child that is not ready by then is broken, whatever the clips."""

_TRIES: Final = 2
"""A child can be killed from outside; only a clip whose child dies every time is to blame."""

_NO_FAULTS: Final[Mapping[str, Fault]] = MappingProxyType({})


class Decoder:
    """Decodes clips in a child process; `faults` (clip id -> disaster) rehearses its end."""

    def __init__(self, settings: MediaConfig, faults: Mapping[str, Fault] = _NO_FAULTS) -> None:
        check_decoders()
        self._settings = settings
        self._faults = dict(faults)
        self._child: _Child | None = None
        self._fetcher = ThreadPoolExecutor(max_workers=1, thread_name_prefix="emer-fetch")

    def __call__(self, clips: Sequence[Clip]) -> list[DecodedClip | ClipError]:
        """Decode clips: one answer each, in order."""
        answers: list[DecodedClip | ClipError] = []
        ahead = [self._ahead(clip) for clip in clips[:1]]
        for number, clip in enumerate(clips):
            held = ahead.pop().result()
            ahead += [self._ahead(later) for later in clips[number + 1 : number + 2]]
            answers.append(held if isinstance(held, ClipError) else self._decode(clip, held))
        return answers

    def close(self) -> None:
        """End the child; may be called twice."""
        self._fetcher.shutdown(cancel_futures=True)
        self._retire()

    def _ahead(self, clip: Clip) -> Future[dict[str, bytes] | ClipError]:
        """Fetch a clip on another thread, on the account of this one."""
        return self._fetcher.submit(copy_context().run, self._fetch, clip)

    def _fetch(self, clip: Clip) -> dict[str, bytes] | ClipError:
        """Read the bytes of a clip's far files, as far as they are read whole."""
        uris = (clip.audio_uri, clip.video_uri if clip.fps is None else None)
        try:
            found = {uri: fetch(uri, self._settings) for uri in uris if uri is not None}
        except StorageError as error:
            return ClipError(error.kind, str(error))
        except ClipError as error:
            return error
        return {uri: data for uri, data in found.items() if data is not None}

    def _decode(self, clip: Clip, held: Mapping[str, bytes]) -> DecodedClip | ClipError:
        death = ""
        for _ in range(_TRIES):
            if self._child is None:
                self._child = _Child(self._settings, self._faults)
            try:
                answer = self._child.ask(clip, held)
            except (EOFError, ConnectionError):
                death = self._retire()
                continue
            except TimeoutError:
                self._retire()
                return ClipError(
                    "timeout",
                    f"decoding took more than {self._settings.deadline_s:g} s; "
                    "raise media.deadline_s or give a shorter window",
                )
            if isinstance(answer, ClipError) and answer.kind == "memory":
                self._retire()  # what is left of its memory would be the next clip's trouble
            return answer
        if death == "SIGKILL":
            return ClipError(
                "memory",
                f"the decoder was killed {_TRIES} times, as the kernel does when memory runs out",
            )
        return ClipError("crashed", f"the decoder died {_TRIES} times: {death}")

    def _retire(self) -> str:
        """End the child and say how it ended: a signal's name, or its exit code."""
        child, self._child = self._child, None
        return "" if child is None else child.end()


class _Child:
    """A running child process and the two ways to it."""

    def __init__(self, settings: MediaConfig, faults: Mapping[str, Fault]) -> None:
        self._deadline_s = settings.deadline_s
        self._buffer = os.memfd_create("emer-decoder")
        self._channel, inner = Pipe()
        with inner:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _CHILD, str(inner.fileno()), str(self._buffer)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                pass_fds=(inner.fileno(), self._buffer),
                env=_environment(),
            )
        try:
            self._channel.send((settings, faults))
            self._await(_START_S)
            self._channel.recv()
        except (EOFError, ConnectionError, TimeoutError):
            raise EmerError(
                f"the decoder's child process did not start ({self.end() or 'too slow'}); "
                "its own words are in the log"
            ) from None

    def ask(self, clip: Clip, held: Mapping[str, bytes]) -> DecodedClip | ClipError:
        """Have a clip decoded; raises `TimeoutError` past the deadline, `EOFError` when it died."""
        self._channel.send((clip, held))
        self._await(self._deadline_s)
        answer: Answer
        answer, spent = self._channel.recv()
        meter.add_all(spent)
        if isinstance(answer, ClipError):
            return answer
        decoded, frame_shape, pcm_shape = answer
        frames = _taken(self._buffer, frame_shape, np.dtype(np.uint8), 0)
        at = 0 if frames is None else frames.nbytes
        return replace(
            decoded,
            frames=frames,
            pcm=_taken(self._buffer, pcm_shape, np.dtype(np.float32), at),
        )

    def end(self) -> str:
        """End the process if it still runs, and say how it ended."""
        self._channel.close()
        assert self._process.stdin is not None
        self._process.stdin.close()  # the life line: kills a child that lives, busy or not
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:  # it had not taken hold of the line yet
            self._process.kill()
            code = self._process.wait()
        os.close(self._buffer)
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"

    def _await(self, seconds: float) -> None:
        if not self._channel.poll(seconds):
            raise TimeoutError


def _taken(
    buffer: int, shape: Shape | None, kind: np.dtype[Any], at: int
) -> np.ndarray[Any, Any] | None:
    """Copy an array out of the buffer."""
    if shape is None:
        return None
    array = np.empty(shape, kind)
    left = array.reshape(-1).view(np.uint8).data
    while left:
        n_bytes = os.preadv(buffer, [left], at)
        left, at = left[n_bytes:], at + n_bytes
    return array


def _environment() -> dict[str, str]:
    """The parent's environment; the child finds the same modules and starts no thread pools."""
    path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    return os.environ | threads | {"PYTHONPATH": path}
