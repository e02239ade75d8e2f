"""Sound out of a container: packets in, mono 16 kHz PCM of the window out."""

from typing import Any, Final

import av
import numpy as np

from emer_ray.media.span import promised_s
from emer_ray.media.track import Sound
from emer_ray.records import AUDIO_HZ, Pcm

_PREROLL_S: Final = 0.25
"""Decoded ahead of a window: codecs lean on earlier packets."""

_LEAD_S: Final = 0.05
"""Resampled ahead of a window, so that its first samples are those of the whole file."""

_BLOCK: Final = 32_768
"""Samples mixed at once; frames of a thousand would cost more in calls than in arithmetic."""


class Hearing:
    """Decodes and resamples one audio stream as its packets come by."""

    def __init__(self, stream: Any, start_s: float, end_s: float) -> None:
        self.stream = stream
        self.done = False
        self.decodes = stream.codec_context is not None
        self._start_s, self._end_s = start_s, end_s
        self._fifo: Any = None
        self._mixer: Any = None
        self._shape: Any = None
        self._pieces: list[Pcm] = []
        self._first_s: float | None = None
        self._next_s = start_s
        self._heard_s = 0.0
        self._present_s = 0.0

    def take(self, packet: Any) -> None:
        """Decode one packet; a broken one is left out."""
        at_s = self._next_s if packet.pts is None else float(packet.pts * packet.time_base)
        if self.done or at_s < self._start_s - _PREROLL_S:
            return
        if self._start_s <= at_s < self._end_s:
            self._present_s += float((packet.duration or 0) * packet.time_base)
        try:
            frames = packet.decode()
        except MemoryError:
            raise
        except av.FFmpegError:
            return
        for frame in frames:
            self._hear(frame)

    def finish(self) -> Sound | None:
        """Flush the resampler and cut the window; None when the file has no sound in it."""
        self._flush()
        length_s = self._end_s - self._start_s
        promised = promised_s(self.stream, self._start_s, self._end_s)
        if promised is None:  # sound that nothing can decode was meant to be there
            promised = self._present_s if self.decodes else length_s
        pcm = self._cut()
        if pcm is None and not promised:
            return None
        context = self.stream.codec_context
        return Sound(
            pcm=pcm,
            hz=context.sample_rate if context else 0,
            codec=context.name if context else "unknown",
            decoded_s=min(self._heard_s, length_s),
            expected_s=promised,
        )

    def _hear(self, frame: Any) -> None:
        start_s = self._next_s if frame.pts is None else frame.time
        self._next_s = end_s = start_s + frame.samples / frame.sample_rate
        if end_s <= self._start_s - _LEAD_S:
            return
        # The count ends what time stamps that run in a circle would not.
        self.done = start_s >= self._end_s or self._heard_s > self._end_s - self._start_s
        if self.done:
            return
        if self._first_s is None:
            self._first_s = start_s
        self._heard_s += max(min(end_s, self._end_s) - max(start_s, self._start_s), 0.0)
        shape = (frame.format.name, frame.layout.name, frame.sample_rate)
        if shape != self._shape:  # a resampler is made for one shape; streams may change theirs
            self._flush()
            self._shape, self._fifo = shape, av.AudioFifo()
            # Whole numbers: only into those does FFmpeg mix channels down without overflow.
            self._mixer = av.AudioResampler(format="s32", layout="mono", rate=AUDIO_HZ)
        frame.pts = None  # time is kept here; a queue would refuse a gap
        self._fifo.write(frame)
        if self._fifo.samples >= _BLOCK:
            self._mix(self._fifo.read())

    def _flush(self) -> None:
        if self._mixer is not None:
            rest = self._fifo.read()
            if rest is not None:
                self._mix(rest)
            self._mix(None)

    def _mix(self, frame: Any) -> None:
        try:
            mixed = self._mixer.resample(frame)
        except MemoryError:
            raise
        except (av.FFmpegError, ValueError):  # a shape that cannot be resampled
            self.done = True
            return
        for out in mixed:
            self._pieces.append(out.to_ndarray()[0].astype(np.float32) / np.float32(2**31))

    def _cut(self) -> Pcm | None:
        if not self._pieces or self._first_s is None:
            return None
        # Time stamps that leap must not leap here: the lead is less than the window.
        late_s = min(self._first_s, self._end_s) - self._start_s
        skip = round(late_s * AUDIO_HZ)
        whole = np.concatenate([np.zeros(max(skip, 0), np.float32), *self._pieces])
        kept = whole[max(-skip, 0) :][: round((self._end_s - self._start_s) * AUDIO_HZ)]
        return kept if kept.size else None
