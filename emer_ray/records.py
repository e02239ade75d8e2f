"""The rows as dataclasses: typed views of the schema for modules that work on one clip at a time.

The definition lives in `schema`; a test asserts that names, order and nullability agree. Times are
seconds from the start of the clip's window unless a field says otherwise.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Modality = Literal["video", "audio", "text"]
AnswerForm = Literal[
    "explanation",
    "visual",
    "acoustic",
    "lexical",
    "account",
    "labels",
    "one_hot",
    "ranking",
    "valence",
    "sentiment",
    "text",
]
"""What a step's answer holds. `explanation`: everything, as one object. `visual`, `acoustic`,
`lexical`: clues in prose. `account`: prose on why the clues point somewhere. `labels`: emotion
words. The others are projections, which stay in `answers`: one word of a fixed set, all of them in
order, a number, a sentiment, any text."""
Frames = npt.NDArray[np.uint8]
Pcm = npt.NDArray[np.float32]

NOTHING = "nothing"
"""`Reply.finish` of who was asked and has nothing to say: no answer, and no failure either."""

AUDIO_HZ = 16_000
"""Rate of every decoded sound in the project."""


def flat(record: Any) -> dict[str, Any]:
    """Give a record of plain values as a row; `dataclasses.asdict` copies each of them."""
    return {name: getattr(record, name) for name in record.__slots__}


def is_gated(licence_tag: str | None) -> bool:
    """Tell whether a licence is gated or unknown, so that a clip's media may not leave unasked."""
    tag = (licence_tag or "").strip().lower()
    return tag in ("", "unknown") or tag.startswith("gated")


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """What to look at: a window of a file, and the words said in it."""

    clip_id: str
    video_uri: str | None = None
    audio_uri: str | None = None
    start_s: float | None = None
    """Start of the window in the file; null = 0."""
    end_s: float | None = None
    """End of the window in the file; null = end of file."""
    crop: tuple[float, float, float, float] | None = None
    """x0, y0, x1, y1 as fractions of the upright picture."""
    fps: float | None = None
    """Given when `video_uri` is a folder of images."""
    subtitle_zh: str | None = None
    subtitle_en: str | None = None
    licence_tag: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaFacts:
    """What was found in the file."""

    has_video: bool
    has_audio: bool
    declared_s: float | None
    """Length of the window: the manifest's word, else the container's; null where both are mute."""
    decoded_s: float
    short: bool
    """Decoded less than 90 % of the declared window."""
    width: int | None
    """Upright picture before any resize."""
    height: int | None
    fps: float | None
    """Average rate."""
    variable_rate: bool | None
    rotation_deg: int | None
    """Clockwise turn that was applied to make the picture upright: 0, 90, 180, 270."""
    n_frames: int
    """Frames kept."""
    audio_hz: int | None
    """Rate in the file, before resampling to 16 kHz."""
    video_codec: str | None
    audio_codec: str | None
    decoder: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodedClip:
    """Frames with their times, and sound."""

    clip: Clip
    frames: Frames | None
    """[n, height, width, 3] RGB; null without video."""
    frame_times_s: tuple[float, ...]
    pcm: Pcm | None
    """[samples], mono, 16 kHz, -1..1; null without sound."""
    media: MediaFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """A number read off a clip."""

    measure: str
    value: float | None
    unit: str
    start_s: float | None = None
    end_s: float | None = None
    baseline: float | None = None
    baseline_source: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Clue:
    """A piece of evidence in one modality: a sentence and the measures behind it."""

    text: str
    evidence: tuple[Measure, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """What a tower made of a clip, as raw bytes: bfloat16 is no numpy type."""

    name: str
    dtype: str
    """In torch's words: float32, bfloat16, int64, …"""
    shape: tuple[int, ...]
    data: bytes | memoryview


@dataclass(frozen=True, slots=True, kw_only=True)
class Clues:
    """What was perceived, ready for a model: a reasoner sees only this, never a path."""

    clip_id: str
    measures: tuple[Measure, ...] = ()
    n_faces: int | None = None
    main_face: str | None = None
    subtitle: str | None = None
    """The words to use: given, else recognised; null = none."""
    subtitle_source: Literal["given", "recognised"] | None = None
    notes: tuple[str, ...] = ()
    """What was not available, and why."""
    has_video: bool = False
    has_audio: bool = False
    frames: Frames | None = None
    frame_times_s: tuple[float, ...] = ()
    pcm: Pcm | None = None
    tensors: tuple[Tensor, ...] = ()
    """What the model's towers made of frames and sound, where they stand in another pool."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A piece of the user's message: words, or the place where frames or sound go."""

    kind: Literal["text", "frames", "audio"]
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One question about one clip, ready for a model."""

    step: str
    form: AnswerForm
    clues: Clues
    """What the step may look at; frames, sound and words it may not see are null here."""
    system: str
    """The instructions. Nothing that came from a clip is in them."""
    parts: tuple[Part, ...]
    """The user's message in order; whatever came from a clip is inside fences."""
    answer_schema: Mapping[str, Any] | None = None
    """JSON schema of the answer; null = prose."""
    choices: tuple[str, ...] = ()
    sample: int = 0
    seed: int = 0
    """Of this clip, step and sample; a backend that draws uses nothing else."""
    licence_tag: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a model said."""

    raw: str
    finish: str = "stop"
    """stop, length, refusal, … in the backend's words."""
    tokens_in: int | None = None
    tokens_out: int | None = None
    latency_s: float | None = None
    usd: float | None = None
    """What the answer cost, by the price table; null = no price is known."""
    notes: tuple[str, ...] = ()
    """What the row should say about this answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A reply with its place in the recipe."""

    step: str
    sample: int
    raw: str
    finish: str
    tokens_in: int | None
    tokens_out: int | None
    latency_s: float | None
    usd: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """An open-vocabulary emotion word."""

    label: str
    support: float | None = None
    """0..1: share of evidence or of sampled answers behind it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What we keep of a clip: the clues, why they point somewhere, and the labels that follow."""

    visual_clues: tuple[Clue, ...] = ()
    acoustic_clues: tuple[Clue, ...] = ()
    lexical_clues: tuple[Clue, ...] = ()
    explanation: str = ""
    labels: tuple[Label, ...] = ()
    """Empty = no clear emotion."""
    confidence: float | None = None
    parse_rung: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelUsed:
    """Which model answered which step, and how it was asked."""

    step: str
    backend: str
    model: str
    revision: str | None
    prompt_hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """What a row depends on."""

    fingerprint: str
    recipe: str
    models: tuple[ModelUsed, ...]
    versions: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What happened to a clip: all that the driver sees."""

    clip_id: str
    shard: int
    outcome: Literal["ok", "failed"]
    stage: str | None
    kind: str | None
    part: str
    usd: float | None = None
    version: str | None = None
