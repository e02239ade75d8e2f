"""Encoders: `encode(clips) -> clues`, one method, one answer per input, order kept (house §4.7)."""

from collections.abc import Sequence
from typing import Literal, Protocol

from emer_ray.errors import ClipError
from emer_ray.records import Clip, Clues, DecodedClip


class Encoder(Protocol):
    """What turns frames and sound into clues for a reasoner."""

    def encode(self, clips: Sequence[DecodedClip]) -> list[Clues | ClipError]: ...

    def close(self) -> None: ...


class Passthrough:
    """The encoder of models that look at frames and listen to sound themselves."""

    def __init__(self, language: Literal["en", "zh"] = "en") -> None:
        self._chinese = language == "zh"

    def _subtitle(self, clip: Clip) -> str | None:
        """Choose the given words in the language of the prompts, else in the other."""
        both = (clip.subtitle_zh, clip.subtitle_en)
        first, second = both if self._chinese else both[::-1]
        return first or second

    def encode(self, clips: Sequence[DecodedClip]) -> list[Clues | ClipError]:
        """Hand on frames, sound and the given subtitle."""
        return [
            Clues(
                clip_id=decoded.clip.clip_id,
                subtitle=self._subtitle(decoded.clip),
                subtitle_source="given" if self._subtitle(decoded.clip) else None,
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
