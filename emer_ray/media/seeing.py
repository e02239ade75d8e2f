"""Pictures out of a container: packets in, the chosen frames of the window out."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import av
import numpy as np

from emer_ray.config import MediaConfig
from emer_ray.errors import ClipError
from emer_ray.media.picture import Crop, Painter, check_pixels
from emer_ray.media.sampling import choose
from emer_ray.media.span import promised_s
from emer_ray.media.track import Pictures
from emer_ray.records import Frames

_SKIPPABLE: Final = {"h264", "mpeg4"}
"""Codecs where "not a reference" means that no other picture leans on it; in HEVC it does not."""

_REORDERED: Final = 16
"""Pictures by which the order of decoding and that of display may differ, in any codec."""

_MAX_RATE: Final = 1000
"""Packets per second of window, beyond which time stamps are taken to stand still."""


class Seeing:
    """Keeps the video packets of a window until its times are known, then decodes the chosen."""

    def __init__(
        self,
        stream: Any,
        uri: str,
        start_s: float,
        end_s: float,
        settings: MediaConfig,
        crop: Crop | None,
    ) -> None:
        self.stream = stream
        self.done = False
        self.decodes = stream.codec_context is not None
        self._uri, self._start_s, self._end_s = uri, start_s, end_s
        self._settings = settings
        self._painter = Painter(settings, crop)
        self._packets: list[Any] = []
        self._n_bytes = self._n_late = 0
        self._timed, self._stamps = True, list[int]()
        if self.decodes:
            context = stream.codec_context
            check_pixels(context.width, context.height, uri, settings)
            context.options = {"max_pixels": str(settings.max_pixels)}
            context.thread_count = settings.threads
            context.thread_type = "AUTO" if settings.threads > 1 else "NONE"

    def take(self, packet: Any) -> None:
        """Keep one packet; raises `ClipError` (`too_large`) when the window has too many."""
        stamp = packet.pts if packet.dts is None else packet.dts
        # A picture is never shown before it is decoded: the window's are all before the first late
        # one. Where only their order is known, the next few say how many they are.
        self._n_late += stamp is not None and self._is_late(stamp)
        self.done = self._n_late > _REORDERED
        if self.done:
            return
        self._packets.append(packet)
        self._n_bytes += packet.size
        if self._n_bytes > self._settings.memory_mb * 2**19:
            raise ClipError(
                "too_large",
                f"{self._uri}: over {self._n_bytes >> 20} MB of video in the window; give a "
                f"shorter one or raise media.memory_mb (now {self._settings.memory_mb})",
            )
        if len(self._packets) > self._settings.max_window_s * _MAX_RATE:
            raise ClipError("too_large", f"{self._uri}: video without end, its time stands still")

    def finish(self) -> Pictures | None:
        """Decode the chosen frames; None when the window has no pictures in this file."""
        self._timed, self._stamps = self._timestamps()
        promised = promised_s(self.stream, self._start_s, self._end_s)
        stamps = self._timeline()
        times_s = [max(self._clock_s(stamp), 0.0) for stamp in stamps]
        until_s = self._until_s(times_s)
        present_s = min(until_s, self._length_s) - self._from_s(times_s) if times_s else 0.0
        if promised is None:  # pictures that nothing can decode were meant to be there
            promised = present_s if self.decodes else self._length_s
        if not stamps and not promised:
            return None
        chosen = choose(times_s, until_s, self._settings)
        wanted = {stamps[index] for index in chosen}
        found = self._decoded(wanted)
        kept = [index for index in chosen if stamps[index] in found]
        fps, variable = self._pace(times_s)
        return Pictures(
            frames=np.stack([found[stamps[index]] for index in kept]) if kept else None,
            times_s=tuple(times_s[index] for index in kept),
            width=self._painter.width,
            height=self._painter.height,
            fps=fps,
            variable_rate=variable,
            rotation_deg=self._painter.rotation_deg,
            codec=self.stream.codec_context.name if self.decodes else "unknown",
            decoded_s=present_s * len(found) / max(len(wanted), 1),
            expected_s=promised,
        )

    @property
    def _length_s(self) -> float:
        return self._end_s - self._start_s

    @property
    def _rate(self) -> float | None:
        rate = self.stream.average_rate
        return round(float(rate), 3) if rate else None

    def _clock_s(self, stamp: int) -> float:
        """Seconds from the start of the window."""
        return round(float(stamp * self.stream.time_base) - self._start_s, 6)

    def _timestamps(self) -> tuple[bool, list[int]]:
        """Give each packet the time stamp of its picture, and True.

        Where a file has none, or they repeat, give stamps in the order of display, and False: then
        only the order of decoded pictures says which is which. AVI has none; FFmpeg guesses.
        """
        if not self._packets:
            return True, []
        named = [packet.pts for packet in self._packets]
        ordered = [packet.dts for packet in self._packets]
        if self.stream.container.format.name != "avi":
            if _are_distinct(named):
                return True, named
        elif _are_distinct(ordered) and not self.stream.codec_context.has_b_frames:
            for packet in self._packets:
                packet.pts = packet.dts
            return True, ordered
        if _are_distinct(ordered):
            return False, sorted(ordered)
        tick = 1 / float((self._rate or 25.0) * self.stream.time_base)
        return False, [round(number * tick) for number in range(len(self._packets))]

    def _timeline(self) -> list[int]:
        """List the time stamps of the window's pictures, in the order they are shown.

        A window between two pictures shows the earlier one.
        """
        # What an edit list cuts away is decoded, because others lean on it, but never shown.
        pictures = zip(self._stamps, self._packets, strict=True)
        before_end = [s for s, p in pictures if not p.is_discard and not self._is_late(s)]
        inside = sorted(stamp for stamp in before_end if self._clock_s(stamp) >= 0)
        return inside or sorted(before_end)[-1:]

    def _is_late(self, stamp: int) -> bool:
        return self._clock_s(stamp) >= self._length_s

    def _pace(self, times_s: Sequence[float]) -> tuple[float | None, bool | None]:
        """Average rate of the pictures, and whether it varies by more than their clock's ticks."""
        gaps = np.diff(times_s)
        mean_s = float(gaps.mean()) if gaps.size else 0.0
        if not mean_s:
            return self._rate, None
        tick_s = float(self.stream.time_base)
        return round(1 / mean_s, 3), bool(np.ptp(gaps) > 2 * tick_s + 0.05 * mean_s)

    def _from_s(self, times_s: Sequence[float]) -> float:
        """Start of the pictures: that of the window where one before it is still on display."""
        return 0.0 if any(self._clock_s(stamp) < 0 for stamp in self._stamps) else times_s[0]

    def _until_s(self, times_s: Sequence[float]) -> float:
        """End of the last picture: it stays as long as the typical one, or until its own end."""
        if not times_s:
            return 0.0
        own_s = float((self._packets[-1].duration or 0) * self.stream.time_base)
        gaps = np.diff(times_s)
        typical_s = float(np.median(gaps)) if gaps.size else own_s or 1 / (self._rate or 25.0)
        left_s = self._length_s - times_s[-1]
        # Where the file goes on beyond the window, its last picture is on display until the end.
        goes_on = any(map(self._is_late, self._stamps))
        return times_s[-1] + max(typical_s, left_s if goes_on else min(own_s, left_s))

    def _decoded(self, wanted: set[int]) -> dict[int, Frames]:
        """Decode and paint the wanted pictures, by time stamp; what does not decode is absent."""
        everything = [range(len(self._packets))]
        found: dict[int, Frames] = {}
        if not self._timed:
            return self._decoded_in_order(wanted)
        # A stream without true key frames gives nothing by the short way: then go the whole one.
        for runs, sparse in ((runs_for(self._packets, wanted), True), (everything, False)):
            missing = wanted - found.keys()
            if missing:
                for frame in self._frames(runs, missing if sparse else None):
                    if frame.pts in missing:
                        found[frame.pts] = self._painter.paint(frame)
        return found

    def _decoded_in_order(self, wanted: set[int]) -> dict[int, Frames]:
        """Decode everything; the n-th picture has the n-th time stamp."""
        found: dict[int, Frames] = {}
        absent = 0
        for _ in range(2):
            n_frames = 0
            for frame in self._frames([range(len(self._packets))]):
                stamp = self._stamps[min(absent + n_frames, len(self._stamps) - 1)]
                n_frames += 1
                if stamp in wanted:
                    found[stamp] = self._painter.paint(frame)
            # Pictures before the first key frame lean on what was not read and do not come: the
            # first picture is a later one then. It takes a look at all of them to know.
            if n_frames + absent >= len(self._stamps):
                break
            absent = len(self._stamps) - n_frames
            found.clear()
        return found

    def _frames(self, runs: Iterable[range], wanted: set[int] | None = None) -> Iterator[Any]:
        """Decode runs of packets; with `wanted`, skip other pictures that nothing leans on."""
        context = self.stream.codec_context
        sparse = wanted is not None and context.name in _SKIPPABLE
        for run in runs:
            for index in run:
                packet = self._packets[index]
                skip = sparse and wanted is not None and packet.pts not in wanted
                context.skip_frame = "NONREF" if skip else "DEFAULT"
                yield from _output(context, packet)
            yield from _output(context, None)
            context.flush_buffers()


def runs_for(packets: Sequence[Any], wanted: set[int]) -> list[range]:
    """List the runs of packets, each from a key frame on, that the wanted pictures need."""
    runs: list[range] = []
    key = 0
    keys: list[int] = []
    for index, packet in enumerate(packets):
        if packet.is_keyframe:
            keys.append(index)
        if packet.pts not in wanted:
            continue
        # A picture shown before the key frame it follows leans on the group before.
        key = next((k for k in reversed(keys) if packets[k].pts <= packet.pts), 0)
        while runs and key <= runs[-1].stop:
            key = min(key, runs.pop().start)
        runs.append(range(key, index + 1))
    return runs


def _output(context: Any, packet: Any) -> list[Any]:
    """Decode one packet, or drain with None; damaged pictures are left out."""
    try:
        return [frame for frame in context.decode(packet) if not frame.is_corrupt]
    except MemoryError:
        raise
    except av.FFmpegError:
        return []


def _are_distinct(stamps: Sequence[int | None]) -> bool:
    return None not in stamps and len(set(stamps)) == len(stamps)
