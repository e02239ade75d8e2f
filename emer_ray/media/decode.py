"""Decode one clip in the calling process: read its tracks, judge whether enough of them is there.

The rule: every track that the manifest or the container declares must decode for at least half of
the declared window, or the clip fails as `truncated` (as `corrupt` when nothing at all decodes);
under 90 % it is ok and marked `short`. A clip that never had sound, or never had pictures, is ok.
"""

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from types import MappingProxyType
from typing import Final

import av

from emer_ray.config import MediaConfig
from emer_ray.errors import ClipError, ConfigError, StorageError
from emer_ray.media import container, images, sound
from emer_ray.media.source import opened
from emer_ray.media.track import Media, Window
from emer_ray.records import Clip, DecodedClip, MediaFacts

SHORT: Final = 0.9
TRUNCATED: Final = 0.5
"""Shares of the declared window (design §4)."""

_NEEDED: Final = ("h264", "hevc", "vp9", "mpeg4", "mjpeg", "png", "aac", "mp3", "opus", "vorbis")

_NOTHING_HELD: Final[Mapping[str, bytes]] = MappingProxyType({})


def decode_clip(
    clip: Clip, settings: MediaConfig, held: Mapping[str, bytes] = _NOTHING_HELD
) -> DecodedClip:
    """Decode a clip's window to frames and mono 16 kHz sound; `held` has bytes fetched before.

    Raises `ClipError`.
    """
    window = Window(start_s=clip.start_s or 0.0, end_s=clip.end_s)
    parts = []
    try:
        if clip.video_uri is not None and clip.fps is not None:
            parts.append(images.read(clip.video_uri, clip.fps, window, settings, clip.crop))
        elif clip.video_uri is not None:
            own_sound = clip.audio_uri is None
            with opened(clip.video_uri, settings, held) as source:
                parts.append(
                    container.read(
                        source,
                        clip.video_uri,
                        window,
                        settings,
                        crop=clip.crop,
                        audio=own_sound,
                    )
                )
        if clip.audio_uri is not None:
            with opened(clip.audio_uri, settings, held) as source:
                parts.append(sound.read(source, clip.audio_uri, window, settings))
    except StorageError as error:
        raise ClipError(error.kind, str(error)) from None
    return _judged(clip, parts)


def check_decoders() -> None:
    """Refuse a machine whose decoders cannot be trusted; raises `ConfigError`."""
    if _installed("decord") and _installed("decord2"):
        raise ConfigError(
            "decord and decord2 are both installed and overwrite each other's files; "
            "type: pip uninstall -y decord decord2 && pip install decord2"
        )
    absent = sorted(set(_NEEDED) - av.codecs_available)
    if absent:
        raise ConfigError(
            f"this FFmpeg cannot decode {', '.join(absent)}; "
            "install PyAV from its wheel: pip install --force-reinstall av"
        )


def _installed(distribution: str) -> bool:
    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True


def _judged(clip: Clip, parts: list[Media]) -> DecodedClip:
    """Put the parts together, or fail the clip for what is missing of them."""
    pictures = next((part.pictures for part in parts if part.pictures is not None), None)
    heard = next((part.sound for part in parts if part.sound is not None), None)
    tracks = {"video": pictures, "audio": heard}
    declared_s = next((part.declared_s for part in parts if part.declared_s is not None), None)
    decoded_s = max((t.decoded_s for t in tracks.values() if t is not None), default=0.0)
    shares = {
        name: track.decoded_s / track.expected_s
        for name, track in tracks.items()
        if track is not None and track.expected_s > 0
    }
    if declared_s:
        shares["window"] = decoded_s / declared_s
    worst = min(shares, key=lambda name: shares[name], default=None)
    frames = None if pictures is None else pictures.frames
    pcm = None if heard is None else heard.pcm
    name = clip.video_uri or clip.audio_uri
    if frames is None and pcm is None:
        raise ClipError("corrupt", f"{name}: nothing in it decodes; copy the file again")
    if worst is not None and shares[worst] < TRUNCATED:
        raise ClipError(
            "truncated",
            f"{name}: {shares[worst]:.0%} of its {worst} decodes; copy the file again or "
            "correct start_s and end_s",
        )
    return DecodedClip(
        clip=clip,
        frames=frames,
        frame_times_s=() if pictures is None else pictures.times_s,
        pcm=pcm,
        media=MediaFacts(
            has_video=frames is not None,
            has_audio=pcm is not None,
            declared_s=declared_s,
            decoded_s=decoded_s,
            short=worst is not None and shares[worst] < SHORT,
            width=(pictures.width or None) if pictures else None,
            height=(pictures.height or None) if pictures else None,
            fps=pictures.fps if pictures else None,
            variable_rate=pictures.variable_rate if pictures else None,
            rotation_deg=pictures.rotation_deg if pictures else None,
            n_frames=0 if frames is None else len(frames),
            audio_hz=heard.hz if heard else None,
            video_codec=pictures.codec if pictures else None,
            audio_codec=heard.codec if heard else None,
            decoder="; ".join(dict.fromkeys(part.decoder for part in parts)),
        ),
    )
