"""Read the window of a container with FFmpeg (PyAV): one open, one pass over the packets.

Sound is decoded as its packets come by. Video packets are kept until all times of the window are
known; then only the pictures that are wanted, and those they are predicted from, are decoded.
The result is the same, bit for bit, as decoding everything.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, Final

import av

from emer_ray.config import MediaConfig
from emer_ray.errors import ClipError
from emer_ray.media.hearing import Hearing
from emer_ray.media.picture import Crop
from emer_ray.media.seeing import Seeing
from emer_ray.media.source import Source, looks_like_media
from emer_ray.media.track import Media, Window

DECODER: Final = f"PyAV {av.__version__}, FFmpeg {av.ffmpeg_version_info}"

_FORMATS: Final = (
    "mov,matroska,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,rm,mxf,nut,dv,ivf,obu,m4v,h264,hevc,gif,"
    "wav,w64,flac,mp3,aac,ac3,eac3,amr,aiff,caf,au,ape,wv,tta,jpeg_pipe,png_pipe"
)
"""Demuxers that may open a file. Playlists are absent on purpose: they name other files."""

_LEADS_S: Final = (1.0, 4.0, 16.0, 64.0)
"""How far before a window reading starts. Sound and its picture lie up to a second apart; the rest
is for containers that seek to any packet, where a key frame has to be looked for."""


def read(
    source: Source,
    uri: str,
    window: Window,
    settings: MediaConfig,
    *,
    crop: Crop | None = None,
    video: bool = True,
    audio: bool = True,
) -> Media:
    """Decode what a container has in a window.

    Raises `ClipError` (`not_media`, `corrupt`, `too_large`, `truncated`).
    """
    with open_container(source, uri, settings) as container:
        pictures = _first_film(container) if video else None
        sounds = _first_sound(container) if audio else None
        if pictures is None and sounds is None:
            wanted = " or ".join(["video"] * video + ["audio"] * audio)
            raise ClipError("not_media", f"{uri}: no {wanted} stream; check what this file is")
        declared_s = _declared_s(container, uri, window, settings)
        start_s = max(container.start_time or 0, 0) / av.time_base + window.start_s
        end_s = start_s + (settings.max_window_s if window.asked_s is None else window.asked_s)
        seeing = Seeing(pictures, uri, start_s, end_s, settings, crop) if pictures else None
        hearing = Hearing(sounds, start_s, end_s) if sounds else None
        readers = {r.stream.index: r for r in (seeing, hearing) if r is not None and r.decodes}
        if window.start_s > _LEADS_S[0]:
            _seek(container, pictures or sounds, start_s)
        for packet in _packets(container, [reader.stream for reader in readers.values()]):
            readers[packet.stream.index].take(packet)
            if all(reader.done for reader in readers.values()):
                if window.end_s is None:
                    raise ClipError("too_large", _longer(uri, settings))
                break
        return Media(
            declared_s=declared_s,
            pictures=seeing.finish() if seeing else None,
            sound=hearing.finish() if hearing else None,
            decoder=DECODER,
        )


def open_container(source: Source, uri: str, settings: MediaConfig, formats: str = _FORMATS) -> Any:
    """Open a container with a closed list of formats, or say whether it is one at all."""
    options = {
        "format_whitelist": formats,
        "protocol_whitelist": "file",
        "max_pixels": str(settings.max_pixels),
    }
    try:
        # Tags in another encoding must not cost the clip.
        return av.open(source, options=options, metadata_errors="replace")
    except MemoryError:
        raise
    except av.FFmpegError as error:
        if looks_like_media(source):
            raise ClipError(
                "corrupt", f"{uri}: its container cannot be read ({error.strerror})"
            ) from None
        raise ClipError(
            "not_media", f"{uri}: not an audio or video container that is accepted"
        ) from None


def _first_film(container: Any) -> Any:
    """The first video stream that is not the cover picture of an album."""
    films = (s for s in container.streams.video if not s.disposition & s.disposition.attached_pic)
    return next(films, None)


def _first_sound(container: Any) -> Any:
    """The main audio stream; one of which the probe saw no packet is no candidate for `best`."""
    return container.streams.best("audio") or next(iter(container.streams.audio), None)


def _declared_s(container: Any, uri: str, window: Window, settings: MediaConfig) -> float | None:
    """Length of the window by the manifest or the container, refused when beyond the limits."""
    length_s = container.duration / av.time_base if container.duration else None
    if length_s is not None and length_s <= window.start_s:
        raise ClipError(
            "truncated",
            f"{uri}: the window starts at {window.start_s:g} s, the file ends at {length_s:g} s",
        )
    left_s = None if length_s is None else round(length_s - window.start_s, 6)
    declared_s = left_s if window.asked_s is None else window.asked_s
    if declared_s is not None and declared_s > settings.max_window_s:
        raise ClipError("too_large", _longer(uri, settings, declared_s))
    return declared_s


def _longer(uri: str, settings: MediaConfig, length_s: float = math.inf) -> str:
    told = f" of {length_s:.0f} s" if math.isfinite(length_s) else ""
    return (
        f"{uri}: a window{told} is longer than media.max_window_s ({settings.max_window_s:g} s); "
        "give start_s and end_s"
    )


def _seek(container: Any, stream: Any, start_s: float) -> None:
    """Go to the last place from which the window can be decoded; at worst to the beginning."""
    for lead_s in _LEADS_S:
        place = int((start_s - lead_s) * av.time_base)
        with suppress(av.FFmpegError):
            container.seek(place)
            key = next((p for p in _packets(container, [stream]) if p.is_keyframe), None)
            stamp = None if key is None else key.dts if key.pts is None else key.pts
            if stamp is not None and float(stamp * stream.time_base) <= start_s:
                container.seek(place)
                return
    with suppress(av.FFmpegError):  # what cannot seek at all was opened at its beginning
        container.seek(0)


def _packets(container: Any, streams: Sequence[Any]) -> Iterator[Any]:
    """Demux until the end or the first unreadable place; what is missing shows in the durations."""
    packets = container.demux(streams) if streams else iter(())
    while True:
        try:
            packet = next(packets, None)
        except MemoryError:
            raise
        except (av.FFmpegError, IndexError):  # PyAV: at the end, where a stream appeared midway
            return
        if packet is None:
            return
        if packet.size and not packet.is_corrupt:
            yield packet
