"""Read the window of an audio file: by libsndfile and soxr where they can, else by FFmpeg."""

import math
from typing import Final

import numpy as np
import soundfile
import soxr

from emer_ray.config import MediaConfig
from emer_ray.errors import ClipError
from emer_ray.media import container
from emer_ray.media.source import Source
from emer_ray.media.track import Media, Sound, Window
from emer_ray.records import AUDIO_HZ

DECODER: Final = f"soundfile {soundfile.__version__}, soxr {soxr.__version__}"


def read(source: Source, uri: str, window: Window, settings: MediaConfig) -> Media:
    """Decode the sound of a file in a window.

    Raises `ClipError` (`not_media`, `corrupt`, `too_large`, `truncated`).
    """
    try:
        file = soundfile.SoundFile(source)
    except soundfile.LibsndfileError:
        if not isinstance(source, str):
            source.seek(0)
        return container.read(source, uri, window, settings, video=False)
    with file:
        return _read(file, uri, window, settings)


def _read(file: soundfile.SoundFile, uri: str, window: Window, settings: MediaConfig) -> Media:
    hz = file.samplerate
    left_s = file.frames / hz - window.start_s
    declared_s = left_s if window.asked_s is None else window.asked_s
    if left_s <= 0:
        raise ClipError(
            "truncated",
            f"{uri}: the window starts at {window.start_s:g} s, the file ends at "
            f"{file.frames / hz:g} s",
        )
    if declared_s > settings.max_window_s:
        raise ClipError(
            "too_large",
            f"{uri}: {declared_s:.0f} s of sound; media.max_window_s is "
            f"{settings.max_window_s:g}, give start_s and end_s",
        )
    file.seek(round(window.start_s * hz))
    wanted = math.ceil(min(declared_s, left_s) * hz)
    mono = _mono(file, wanted)
    pcm = soxr.resample(mono, hz, AUDIO_HZ) if mono.size else None
    return Media(
        declared_s=declared_s,
        pictures=None,
        sound=Sound(
            pcm=None if pcm is None else np.clip(np.nan_to_num(pcm), -1.0, 1.0),
            hz=hz,
            codec=file.subtype.lower(),
            decoded_s=mono.size / hz,
            expected_s=wanted / hz,
        ),
        decoder=DECODER,
    )


def _mono(file: soundfile.SoundFile, wanted: int) -> np.ndarray:
    """Read samples a second at a time, so that many channels never lie in memory together."""
    pieces = [np.zeros(0, np.float32)]
    while wanted > 0:
        try:
            block = file.read(min(file.samplerate, wanted), dtype="float32", always_2d=True)
        except soundfile.LibsndfileError:
            break
        if not len(block):
            break
        pieces.append(block.mean(axis=1))
        wanted -= len(block)
    return np.concatenate(pieces)
