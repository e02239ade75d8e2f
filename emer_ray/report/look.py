"""Pictures and sound for the cards: decoded as the run saw them, made small, carried in the page.

Nothing is measured here. Pitch and waveform are drawings of the sound; the figures of a card are
the run's own.
"""

import base64
import io
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import soundfile
from PIL import Image

from emer_ray.config import MediaConfig
from emer_ray.errors import ClipError
from emer_ray.media import Decoder
from emer_ray.perceive.voice import pitch
from emer_ray.records import AUDIO_HZ, Clip, DecodedClip, Pcm

FRAME_PX: Final = 168
"""Shorter side of a picture in the page."""
SOUND_S: Final = 30.0
"""Longer sounds are cut off in the page."""
WAVE_BINS: Final = 240
DEADLINE_S: Final = 10.0
"""A clip that takes longer goes without pictures: a page should not wait for it."""
_DECODERS: Final = 4

Span = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """A picture of the clip."""

    at_s: float
    uri: str
    width: int
    height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What a card shows of its clip's media."""

    frames: tuple[Frame, ...] = ()
    sound: str | None = None
    wave: tuple[float, ...] = ()
    """Loudest sample of each of `WAVE_BINS` equal pieces, 0 to 1."""
    pitch: tuple[tuple[float, float], ...] = ()
    """Times in seconds and Hz, where speech is voiced."""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What to look at: a clip, the times its clues cite, and where its speech lies."""

    clip: Clip
    times_s: tuple[float, ...]
    speech: Span | None


def look(wishes: Sequence[Wish], settings: MediaConfig) -> list[Look | ClipError]:
    """Decode clips as `settings` of their run say, but for the size; an answer each, in order."""
    small = settings.model_copy(
        update={"resize": "shorter", "size_px": FRAME_PX, "deadline_s": DEADLINE_S}
    )
    n = max(1, min(_DECODERS, os.cpu_count() or 1, len(wishes) // 4))

    def some(share: Sequence[Wish]) -> list[Look | ClipError]:
        decoder = Decoder(small)
        try:
            decoded = decoder([wish.clip for wish in share])
        finally:
            decoder.close()
        return [
            found if isinstance(found, ClipError) else _look(wish, found)
            for wish, found in zip(share, decoded, strict=True)
        ]

    with ThreadPoolExecutor(n) as pool:
        shares = list(pool.map(some, [wishes[k::n] for k in range(n)]))
    return [shares[k % n][k // n] for k in range(len(wishes))]


def clip_of(row: Mapping[str, Any]) -> Clip:
    """Name a manifest row's media the way the run did."""
    names = ("clip_id", "video_uri", "audio_uri", "start_s", "end_s", "fps", "licence_tag")
    crop = row["crop"]
    return Clip(**{name: row[name] for name in names}, crop=None if crop is None else tuple(crop))


def _look(wish: Wish, found: DecodedClip) -> Look:
    seen = Look(frames=_frames(found, wish.times_s), seconds=found.media.decoded_s)
    if found.pcm is None:
        return seen
    return replace(
        seen,
        sound=_sound(found.pcm[: int(SOUND_S * AUDIO_HZ)]),
        wave=_wave(found.pcm),
        pitch=() if wish.speech is None else _pitch(found.pcm, wish.speech),
    )


def _frames(found: DecodedClip, times_s: Sequence[float]) -> tuple[Frame, ...]:
    """Take the pictures nearest to some times, each once; the run looked at these very ones."""
    if found.frames is None:
        return ()
    have = np.asarray(found.frame_times_s)
    places = sorted({int(np.abs(have - at).argmin()) for at in times_s})
    return tuple(_frame(found.frames[place], float(have[place])) for place in places)


def _frame(pixels: np.ndarray[Any, Any], at_s: float) -> Frame:
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "WEBP", quality=62, method=3)
    height, width = pixels.shape[:2]
    return Frame(at_s=at_s, uri=_data("image/webp", sink.getvalue()), width=width, height=height)


def _sound(pcm: Pcm) -> str:
    sink = io.BytesIO()
    soundfile.write(sink, pcm, AUDIO_HZ, format="MP3", compression_level=0.7)
    return _data("audio/mpeg", sink.getvalue())


def _wave(pcm: Pcm) -> tuple[float, ...]:
    edges = np.linspace(0, len(pcm), WAVE_BINS, endpoint=False).astype(int)
    return tuple(np.maximum.reduceat(np.abs(pcm), edges).clip(0, 1).round(3).tolist())


def _pitch(pcm: Pcm, speech: Span) -> tuple[tuple[float, float], ...]:
    times, hertz = pitch(pcm, [speech])
    voiced = ~np.isnan(hertz)
    return tuple(zip(times[voiced].round(3).tolist(), hertz[voiced].round(1).tolist(), strict=True))


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
