"""Encoders: `encode(clips) -> clues`, one method, one answer per input, order kept (house §4.7)."""

from collections.abc import Sequence
from typing import Protocol

from emer_ray.errors import ClipError
from emer_ray.records import Clues, DecodedClip


class Encoder(Protocol):
    """What turns frames and sound into clues for a reasoner."""

    def encode(self, clips: Sequence[DecodedClip]) -> list[Clues | ClipError]: ...

    def close(self) -> None: ...


class Passthrough:
    """The encoder of models that look at frames and listen to sound themselves."""

    def encode(self, clips: Sequence[DecodedClip]) -> list[Clues | ClipError]:
        """Hand on frames, sound and the given subtitle."""
        return [
            Clues(
                clip_id=decoded.clip.clip_id,
                subtitle=decoded.clip.subtitle_en or decoded.clip.subtitle_zh,
                subtitle_source="given"
                if decoded.clip.subtitle_en or decoded.clip.subtitle_zh
                else None,
                has_video=decoded.frames is not None,
                has_audio=decoded.pcm is not None,
                frames=decoded.frames,
                frame_times_s=decoded.frame_times_s,
                pcm=decoded.pcm,
            )
            for decoded in clips
        ]

    def close(self) -> None:
        """Nothing to release."""
