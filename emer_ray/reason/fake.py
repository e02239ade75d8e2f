"""A reasoner that costs nothing: deterministic from the clip id, scriptable by clip id.

For tests and capacity planning. `latency_s` sleeps per clip, as one actor on one device would.
"""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from emer_ray.errors import ClipError, ConfigError
from emer_ray.records import Clues, Reply

Act = Literal["ok", "garbage", "empty", "refuse", "prose", "fail"]

WORDS = (
    *("happy", "amused", "grateful", "angry", "annoyed", "sad", "disappointed"),
    *("worried", "nervous", "surprised", "curious", "calm"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeOptions:
    """`models.<name>.options` of this backend."""

    latency_s: float = 0.0
    script: Mapping[str, Act] = field(default_factory=dict)

    @classmethod
    def of(cls, options: Mapping[str, object]) -> "FakeOptions":
        """Check plain options; raises ConfigError for an unknown one."""
        known = {"latency_s", "script"}
        if unknown := sorted(options.keys() - known):
            raise ConfigError(f"fake backend: unknown option {unknown[0]}; known: {sorted(known)}")
        return cls(**options)  # type: ignore[arg-type]


class FakeReasoner:
    """Answers with words drawn by a hash of the clip id."""

    def __init__(self, options: FakeOptions) -> None:
        self._options = options

    def explain(self, clues: Sequence[Clues]) -> list[Reply | ClipError]:
        """Answer every clip as its script says; `ok` where it says nothing."""
        time.sleep(self._options.latency_s * len(clues))
        return [self._reply(clip) for clip in clues]

    def _reply(self, clip: Clues) -> Reply | ClipError:
        match self._options.script.get(clip.clip_id, "ok"):
            case "ok":
                return _said(_answer(clip))
            case "garbage":
                return _said('{"visual_clues": [')
            case "empty":
                return Reply(raw="", finish="length")
            case "refuse":
                return Reply(raw="I cannot help with that.", finish="refusal")
            case "prose":
                return _said(
                    f"As an AI, I think:\n```json\n{_answer(clip)}\n```\nI hope this helps."
                )
            case "fail":
                return ClipError("error", "the script says so")

    def close(self) -> None:
        """Nothing to release."""


def _said(raw: str) -> Reply:
    return Reply(raw=raw, tokens_in=0, tokens_out=len(raw.split()))


def _answer(clip: Clues) -> str:
    draw = hashlib.sha256(clip.clip_id.encode()).digest()
    words = list(dict.fromkeys(WORDS[byte % len(WORDS)] for byte in draw[: 1 + draw[0] % 3]))
    seen = f"{0 if clip.frames is None else len(clip.frames)} frames were shown"
    heard = f"{0 if clip.pcm is None else len(clip.pcm)} samples were played"
    return json.dumps(
        {
            "visual_clues": [seen] if clip.has_video else [],
            "acoustic_clues": [heard] if clip.has_audio else [],
            "lexical_clues": [f"the words are: {clip.subtitle}"] if clip.subtitle else [],
            "explanation": f"A fake model drew {', '.join(words)} from the clip's name.",
            "labels": words,
        },
        ensure_ascii=False,
    )
