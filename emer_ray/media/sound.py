"""Read the window of an audio file: by libsndfile and soxr where they can, else by FFmpeg."""

import math
import os
from contextlib import nullcontext
from pathlib import Path
from typing import Final

import numpy as np
import soundfile
import soxr

from emer_ray.config import MediaConfig
from emer_ray.errors import ClipError
from emer_ray.media import container
from emer_ray.media.source import Source
from emer_ray.media.track import Media, Sound, Window
from emer_ray.records import AUDIO_HZ, Pcm

DECODER: Final = f"soundfile {soundfile.__version__}, soxr {soxr.__version__}"

_BLOCK: Final = 16_384
_MIN_HZ: Final = 1_000
_MAX_HZ: Final = 768_000


def read(source: Source, uri: str, window: Window, settings: MediaConfig) -> Media:
    """Decode the sound of a file in a window.

    Raises `ClipError` (`not_media`, `corrupt`, `too_large`, `truncated`).
    """
    try:
        with soundfile.SoundFile(source) as file:
            if not _MIN_HZ <= file.samplerate <= _MAX_HZ:
                raise ClipError("corrupt", f"{uri}: says it has {file.samplerate} samples a second")
            return _read(file, uri, window, settings, file.frames * _missing_factor(source))
    except soundfile.LibsndfileError:  # another format; or damage, of which FFmpeg skips a frame
        if not isinstance(source, str):
            source.seek(0)
        return container.read(source, uri, window, settings, video=False)


def _read(
    file: soundfile.SoundFile,
    uri: str,
    window: Window,
    settings: MediaConfig,
    declared_frames: float,
) -> Media:
    hz = file.samplerate
    left_s = round(declared_frames / hz - window.start_s, 6)
    declared_s = left_s if window.asked_s is None else window.asked_s
    if left_s <= 0:
        raise ClipError(
            "truncated",
            f"{uri}: the window starts at {window.start_s:g} s, the file ends at "
            f"{declared_frames / hz:g} s",
        )
    if declared_s > settings.max_window_s:
        raise ClipError(
            "too_large",
            f"{uri}: {declared_s:.0f} s of sound; media.max_window_s is "
            f"{settings.max_window_s:g}, give start_s and end_s",
        )
    expected_s = min(declared_s, left_s)
    mono = _mono(file, round(window.start_s * hz), math.ceil(expected_s * hz))
    pcm = soxr.resample(mono, hz, AUDIO_HZ)
    return Media(
        declared_s=declared_s,
        pictures=None,
        sound=Sound(
            pcm=np.clip(pcm, -1.0, 1.0) if pcm.size else None,
            hz=hz,
            codec=file.subtype.lower(),
            decoded_s=mono.size / hz,
            expected_s=expected_s,
        ),
        decoder=DECODER,
    )


def _mono(file: soundfile.SoundFile, start: int, wanted: int) -> Pcm:
    """Read samples in small blocks, so that many channels never lie in memory together."""
    file.seek(start)
    blocks = file.blocks(blocksize=_BLOCK, frames=wanted, dtype="float32", always_2d=True)
    mono = (np.clip(np.nan_to_num(block), -1.0, 1.0).mean(axis=1) for block in blocks)
    return np.concatenate([np.zeros(0, np.float32), *mono])


def _missing_factor(source: Source) -> float:
    """How many times longer a RIFF file says it is than it is; libsndfile hides a lost tail."""
    with Path(source).open("rb") if isinstance(source, str) else nullcontext(source) as file:
        file.seek(0)
        head = file.read(8)
        n_bytes = file.seek(0, os.SEEK_END)
    said = int.from_bytes(head[4:], "little") + 8
    if not head.startswith(b"RIFF") or said == 0xFFFFFFFF + 8:  # written to a pipe, length unknown
        return 1.0
    return max(said / n_bytes, 1.0)
