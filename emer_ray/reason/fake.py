"""A reasoner that costs nothing: deterministic from the clip id, scriptable by clip id.

For tests and capacity planning. `latency_s` sleeps per clip, as one actor on one device would;
`trace` tells afterwards which clips were asked about, how often and when.
"""

import hashlib
import json
import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from emer_ray.errors import ClipError, ConfigError
from emer_ray.records import Reply, Request

Act = Literal["ok", "garbage", "empty", "refuse", "prose", "loop", "cut", "fail"]

WORDS = (
    *("happy", "amused", "grateful", "angry", "annoyed", "sad", "disappointed"),
    *("worried", "nervous", "surprised", "curious", "calm"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeOptions:
    """`models.<name>.options` of this backend."""

    latency_s: float = 0.0
    trace: str | None = None
    """Local file that gets a line for each clip, before it is answered: time, clip id."""
    script: Mapping[str, Act] = field(default_factory=dict)

    @classmethod
    def of(cls, options: Mapping[str, object]) -> "FakeOptions":
        """Check plain options; raises ConfigError for an unknown one."""
        known = {"latency_s", "script", "trace"}
        if unknown := sorted(options.keys() - known):
            raise ConfigError(f"fake backend: unknown option {unknown[0]}; known: {sorted(known)}")
        return cls(**options)  # type: ignore[arg-type]


class FakeReasoner:
    """Answers with words drawn by a hash of the clip id, in the form that the step asks for."""

    def __init__(self, options: FakeOptions) -> None:
        self._options = options
        self._device = threading.Lock()

    def explain(self, requests: Sequence[Request]) -> list[Reply | ClipError]:
        """Answer every request as the clip's script says; `ok` where it says nothing."""
        with self._device:
            if self._options.trace is not None:
                _trace(self._options.trace, requests)
            time.sleep(self._options.latency_s * len(requests))
        return [self._reply(request) for request in requests]

    def _reply(self, request: Request) -> Reply | ClipError:
        match self._options.script.get(request.clues.clip_id, "ok"):
            case "ok":
                return _said(_answer(request))
            case "garbage":
                return _said('{"visual_clues": [')
            case "empty":
                return Reply(raw="", finish="length")
            case "refuse":
                return Reply(raw="I cannot help with that.", finish="refusal")
            case "prose":
                return _said(
                    f"As an AI, I think:\n```json\n{_answer(request)}\n```\nI hope this helps."
                )
            case "loop":
                return Reply(raw="happy and so " * 200, finish="length")
            case "cut":
                answer = _answer(request)
                return Reply(raw=answer[: len(answer) // 2], finish="length")
            case "fail":
                return ClipError("error", "the script says so")

    def close(self) -> None:
        """Nothing to release."""


def _trace(path: str, requests: Sequence[Request]) -> None:
    """Append in one write, so that lines of several processes do not mix."""
    now = time.time()
    lines = "".join(f"{now:.3f} {request.clues.clip_id}\n" for request in requests)
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, lines.encode())
    finally:
        os.close(file)


def _said(raw: str) -> Reply:
    return Reply(raw=raw, tokens_in=0, tokens_out=len(raw.split()))


def _answer(request: Request) -> str:
    named = request.clues.clip_id + (f":{request.sample}" if request.sample else "")
    draw = hashlib.sha256(named.encode()).digest()
    words = list(dict.fromkeys(WORDS[byte % len(WORDS)] for byte in draw[: 1 + draw[0] % 3]))
    match request.form:
        case "explanation":
            return json.dumps(_explanation(request, words), ensure_ascii=False)
        case "labels":
            return json.dumps({"labels": words})
        case "one_hot":
            return json.dumps({"label": request.choices[draw[1] % len(request.choices)]})
        case "ranking":
            turn = draw[1] % len(request.choices)
            return json.dumps({"ranking": [*request.choices[turn:], *request.choices[:turn]]})
        case "valence":
            return json.dumps({"valence": draw[1] / 25.5 - 5})
        case "sentiment":
            return json.dumps({"sentiment": ("positive", "negative", "neutral")[draw[1] % 3]})
        case "visual" | "acoustic" | "lexical" | "account" | "text":
            return f"{_seen(request)}; {_heard(request)}; a fake model thinks of {words[0]}"


def _explanation(request: Request, words: Sequence[str]) -> dict[str, object]:
    clip = request.clues
    return {
        "visual_clues": [_seen(request)] if clip.has_video else [],
        "acoustic_clues": [_heard(request)] if clip.has_audio else [],
        "lexical_clues": [f"the words are: {clip.subtitle}"] if clip.subtitle else [],
        "explanation": f"A fake model drew {', '.join(words)} from the clip's name.",
        "labels": list(words),
    }


def _seen(request: Request) -> str:
    frames = request.clues.frames
    return f"{0 if frames is None else len(frames)} frames were shown"


def _heard(request: Request) -> str:
    pcm = request.clues.pcm
    return f"{0 if pcm is None else len(pcm)} samples were played"
