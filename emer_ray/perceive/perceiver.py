"""Perceive a clip with small models on one thread: faces, expression, voice and words become
measures.

Everything a clue sentence may claim is a measure here. A part whose weights are absent is a note
with its reason; the other parts work on. Nothing here decides what a clip means.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Literal

import cv2
import numpy as np
import numpy.typing as npt

from emer_ray.errors import ClipError
from emer_ray.perceive.expression import ExpressionReader
from emer_ray.perceive.faces import FaceFinder
from emer_ray.perceive.measures import measure
from emer_ray.perceive.over_time import expressive, geometric
from emer_ray.perceive.speech import FILES, Recogniser
from emer_ray.perceive.tracks import follow, prominence
from emer_ray.perceive.voice import (
    LEAST_SPEECH_S,
    Segment,
    SpeechDetector,
    is_speech,
    level,
    prosody,
    segments,
)
from emer_ray.records import Clues, DecodedClip, Frames, Measure, Pcm

Values = npt.NDArray[np.float64]
Source = Literal["given", "recognised"]

LEAST_CERTAINTY: Final = 0.5
"""Recognised words less likely than not are noise, or of another language than English."""
FACE_FILES: Final = ("face_detection_full_range.tflite", "face_landmark.tflite")
EXPRESSION_FILES: Final = ("face_expression.onnx", "fer_mini_xception.tflite")
SPEECH_FILE: Final = "silero_vad.onnx"
WORDS_FILES: Final = tuple(f"moonshine/{name}" for name in FILES)


class Perceiver:
    """The embedded encoder; not thread-safe, deterministic."""

    def __init__(self, *, weights: Mapping[str, Path], missing: Mapping[str, str]) -> None:
        cv2.setNumThreads(0)  # one thread an actor
        self._notes: list[str] = []
        self._faces = self._expression = self._speech = self._words = None
        if self._complete("faces", FACE_FILES, weights, missing):
            self._faces = FaceFinder(*(weights[name] for name in FACE_FILES))
        rgb, grey = (weights.get(name) for name in EXPRESSION_FILES)
        if rgb is not None or grey is not None:
            self._expression = ExpressionReader(rgb, grey)
        if self._expression is None or rgb is None or grey is None:
            part = "expression" if self._expression is None else "second expression network"
            self._complete(part, EXPRESSION_FILES, weights, missing)
        if self._complete("speech activity", (SPEECH_FILE,), weights, missing):
            self._speech = SpeechDetector(weights[SPEECH_FILE])
        if self._complete("speech recognition", WORDS_FILES, weights, missing):
            self._words = Recogniser(*(weights[name] for name in WORDS_FILES))

    def encode(self, clips: Sequence[DecodedClip]) -> list[Clues | ClipError]:
        """Perceive each clip; one answer per clip, in order."""
        return [self._clues(clip) for clip in clips]

    def close(self) -> None:
        """Let the models go; a second call does nothing."""
        self._faces = self._expression = self._speech = self._words = None

    def _complete(
        self,
        part: str,
        files: Sequence[str],
        weights: Mapping[str, Path],
        missing: Mapping[str, str],
    ) -> bool:
        lost = [name for name in files if name not in weights]
        if lost:
            reason = missing.get(lost[0], f"no file {lost[0]}")
            self._notes.append(f"{part}: not available ({reason})")
        return not lost

    def _clues(self, clip: DecodedClip) -> Clues:
        measures: list[Measure] = []
        notes = list(self._notes)
        speech: list[Segment] = []
        subtitle = (clip.clip.subtitle_en or clip.clip.subtitle_zh or "").strip() or None
        source: Source | None = "given" if subtitle else None
        if clip.pcm is not None and len(clip.pcm):
            pcm = np.nan_to_num(clip.pcm)
            measures += level(pcm)
            if self._speech is not None:
                speech = segments(self._speech.probabilities(pcm))
                measures += prosody(pcm, speech)
            if subtitle is None:
                subtitle, certainty = self._recognised(pcm, speech, notes)
                source = "recognised" if subtitle else None
                measures += certainty
        n_faces, main_face = None, None
        if clip.frames is not None and len(clip.frames) and self._faces is not None:
            times = np.asarray(clip.frame_times_s)
            seen, n_faces, main_face = self._look(clip.frames, times, speech)
            measures += seen
        return Clues(
            clip_id=clip.clip.clip_id,
            measures=tuple(measures),
            n_faces=n_faces,
            main_face=main_face,
            subtitle=subtitle,
            subtitle_source=source,
            notes=tuple(notes),
            has_video=clip.frames is not None,
            has_audio=clip.pcm is not None,
            frames=clip.frames,
            frame_times_s=clip.frame_times_s,
            pcm=clip.pcm,
        )

    def _recognised(
        self, pcm: Pcm, speech: Sequence[Segment], notes: list[str]
    ) -> tuple[str | None, list[Measure]]:
        if self._words is None or sum(end - start for start, end in speech) < LEAST_SPEECH_S:
            return None, []
        words, certainty = self._words.transcribe(pcm, speech)
        if certainty < LEAST_CERTAINTY:
            notes.append(
                f"speech recognition: not used (certainty {certainty:.2f}, "
                f"{LEAST_CERTAINTY:.2f} is needed; only English is known)"
            )
            return None, []
        return words, [measure("words.certainty", certainty)]

    def _look(
        self, frames: Frames, times: Values, speech: Sequence[Segment]
    ) -> tuple[list[Measure], int, str]:
        assert self._faces is not None
        tracks = follow([self._faces.find(picture) for picture in frames], times.tolist())
        measures = [
            measure("frames.seen", len(frames)),
            measure("face.tracks", len(tracks)),
        ]
        if not tracks:
            return [*measures, measure("face.coverage", 0)], 0, "no face was found"
        speaking = is_speech(times, speech)
        scores = [prominence(t, len(frames), frames.shape[1], speaking.tolist()) for t in tracks]
        ranked = sorted(range(len(tracks)), key=lambda i: -scores[i])
        main = tracks[ranked[0]]
        second = scores[ranked[1]] if len(ranked) > 1 else 0.0
        height = float(np.median([face.box[3] - face.box[1] for face in main.faces]))
        measures += [
            measure("face.coverage", len(main.frames) / len(frames)),
            measure("face.lead", 1 - second / scores[ranked[0]]),
            measure("face.height", height / frames.shape[1]),
            *geometric(main, times, speech),
        ]
        if self._expression is not None:
            pairs = zip(main.frames, main.faces, strict=True)
            read = np.stack([self._expression.read(frames[i], face) for i, face in pairs])
            measures += expressive(read, times[main.frames])
        return measures, len(tracks), _why_main(scores[ranked[0]], second, len(tracks))


def _why_main(first: float, second: float, n_tracks: int) -> str:
    if n_tracks == 1:
        return "the only face that was followed"
    return (
        f"the first of {n_tracks} faces by size x time x mouth motion during speech "
        f"({first:.3f} against {second:.3f} for the next)"
    )
