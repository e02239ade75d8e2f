"""The embedded baseline: clue sentences from measures, labels by expression evidence and nearness.

No language model: every sentence is a rule over measures (`visual`, `acoustic`), every label a word
whose group the face supports (`vocabulary`). It is a baseline: its numbers are not to be compared
with those of large models. What it does not claim:

- no label where the best group's evidence is below `LEAST_EVIDENCE` or neutral leads;
- no surprise from a mouth that opens in speech;
- no emotion from a voice alone (it tells arousal, not which emotion), and none from words alone.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

from emer_ray.errors import ClipError
from emer_ray.reason import acoustic, visual
from emer_ray.reason.baselines import Baselines
from emer_ray.reason.vocabulary import GROUP_OF, GROUPS, WORDS, Values, Vocabulary, choose
from emer_ray.reason.wording import Found, index, number, without_numbers
from emer_ray.records import Clue, Clues, Measure, Reply, Request

LEAST_EVIDENCE: Final = 0.5
NETWORKS_WEIGHT: Final = 2 / 3
"""Of the evidence; the rest is the geometry's, as a third voice beside two networks."""
ARTICULATION: Final = 0.25
"""What remains of surprise and fear while the mouth opens in speech: articulation looks like
both."""
SMILE_APEX: Final = 0.1
"""Share of pictures with a smile from which its apex counts fully."""
VISUAL_WEIGHT: Final = 0.5
ACOUSTIC_WEIGHT: Final = 0.4
LEXICAL_WEIGHT: Final = 0.3
"""The most a subtitle may weigh, and only where it lies very close to some word."""
CLOSE: Final = (0.25, 0.5)
"""Cosine from which a subtitle begins to count, and from which it counts fully."""
AROUSAL_WEIGHT: Final = 0.15
"""The most that a fully aroused or subdued voice adds to or takes from a group's evidence."""
ARTICULATED: Final = frozenset({"surprised", "fearful"})
AROUSED: Final = frozenset({"happy", "angry", "fearful", "surprised"})
AROUSAL: Final = ("f0.median", "f0.range", "speech.rate", "loudness.median", "voice.tilt")
CALM: Final = 0.5
"""Arousal below one spread on average is none."""
MOST_CONFIDENCE: Final = 0.9
"""Small networks are over-confident; no clip is judged without doubt."""
VOICE_ALONE: Final = 0.1
"""Confidence in "no clear emotion" where only a voice was heard."""
FILES: Final = ("minilm.onnx", "minilm_tokenizer.json")


class EmbeddedReasoner:
    """The default reasoner; not thread-safe, deterministic to the byte."""

    def __init__(
        self, *, weights: Mapping[str, Path], missing: Mapping[str, str], baselines: Baselines
    ) -> None:
        self._baselines = baselines
        self._vocabulary: Vocabulary | None = None
        self._notes: tuple[str, ...] = ()
        lost = [name for name in FILES if name not in weights]
        if lost:
            reason = missing.get(lost[0], f"no file {lost[0]}")
            self._notes = (f"ranking of words by nearness: not available ({reason})",)
        else:
            self._vocabulary = Vocabulary(*(weights[name] for name in FILES))

    def explain(self, requests: Sequence[Request]) -> list[Reply | ClipError]:
        """Answer each clip with a JSON object; one answer per clip, in order."""
        return [Reply(raw=self._answer(request.clues)) for request in requests]

    def close(self) -> None:
        """Let the model go; a second call does nothing."""
        self._vocabulary = None

    def _answer(self, clues: Clues) -> str:
        found = index(clues)
        seen = visual.sentences(found)
        heard = acoustic.sentences(found, self._baselines)
        said, closeness = self._said(clues, found)
        evidence = visual_evidence(found)
        arousal = voice_arousal(found, self._baselines)
        labels = []
        if shows_emotion(evidence):
            preferences = self._preferences(seen, heard, clues.subtitle, closeness)
            labels = choose(_tuned(evidence, arousal), preferences, LEAST_EVIDENCE)
        confidence = _confidence(found, evidence, arousal)
        explanation = [
            *_account(seen, heard, clues, found),
            _conclusion(evidence, arousal, [word for word, _ in labels]),
            f"Doubt {1 - confidence:.2f} of 1; this is the reading of a baseline of small models.",
            *(f"Note: {note}." for note in (*clues.notes, *self._notes)),
        ]
        answer = {
            "visual_clues": [asdict(clue) for clue in seen],
            "acoustic_clues": [asdict(clue) for clue in heard],
            "lexical_clues": [asdict(clue) for clue in said],
            "explanation": " ".join(explanation),
            "labels": [{"label": word, "support": round(share, 3)} for word, share in labels],
            "confidence": round(confidence, 3),
        }
        return json.dumps(answer, ensure_ascii=False)

    def _said(self, clues: Clues, found: Found) -> tuple[list[Clue], float]:
        """Quote the subtitle; also give how much it may count, 0..1."""
        if not clues.subtitle:
            return [], 0.0
        text = f"The subtitle {_quoted(clues, found)}"
        evidence = [found["words.certainty"]] if "words.certainty" in found else []
        if self._vocabulary is None or not _is_latin(clues.subtitle):
            return [Clue(text=f"{text}.", evidence=tuple(evidence))], 0.0
        similarity = self._vocabulary.similarity(clues.subtitle)
        nearest = int(similarity.argmax())
        cosine = round(float(similarity[nearest]), 4)
        name = f"subtitle.nearness.{WORDS[nearest]}"
        evidence.append(Measure(measure=name, value=cosine, unit="cosine"))
        text += f"; of the emotion words it lies nearest to {WORDS[nearest]} (cosine {cosine:.2f})."
        return [Clue(text=text, evidence=tuple(evidence))], _ramp(cosine, *CLOSE)

    def _preferences(
        self, seen: Sequence[Clue], heard: Sequence[Clue], subtitle: str | None, closeness: float
    ) -> list[tuple[float, Values]]:
        """Score the words by nearness to what is seen, heard and said, the last one least."""
        if self._vocabulary is None:
            return []
        texts = [
            (VISUAL_WEIGHT, _joined("In the video", _telling(seen))),
            (ACOUSTIC_WEIGHT, _joined("In the audio", _telling(heard))),
            (LEXICAL_WEIGHT * closeness, f'The person says: "{subtitle}"'),
        ]
        return [
            (weight, self._vocabulary.preference(text)) for weight, text in texts if text and weight
        ]


def visual_evidence(found: Found, articulation: float = ARTICULATION) -> dict[str, float]:
    """Weigh what the face shows: 0..1 for each group and for neutral; {} without a face.

    A group's evidence is the mean over the clip and its apex, half each, so that a short moment
    counts; neutral has no apex. The networks give two thirds, the geometry one third where it knows
    something: smiles and a mouth that stays open.
    """
    if "smile.share" not in found and "expression.neutral.mean" not in found:
        return {}
    talking = visual.is_talking(found) is not None
    smile = number(found, "smile.share")
    held = number(found, "mouth_open.hold") >= visual.HELD_S
    shape = {
        "happy": (smile + _ramp(smile, 0, SMILE_APEX)) / 2,
        "surprised": float(held and not talking),
    }
    read, measured = "expression.neutral.mean" in found, "smile.share" in found
    weight = NETWORKS_WEIGHT if read and measured else float(read)
    evidence = {}
    for group in GROUPS:
        mean, apex = (number(found, f"expression.{group}.{s}") for s in ("mean", "p90"))
        networks = (mean + apex) / 2
        if talking and group in ARTICULATED:
            networks *= articulation
        evidence[group] = weight * networks + (1 - weight) * shape.get(group, 0.0)
    evidence["neutral"] = number(found, "expression.neutral.mean")
    return evidence


def shows_emotion(evidence: Mapping[str, float]) -> bool:
    """Tell whether a group has enough evidence and more than neutral."""
    best = max((evidence[group] for group in GROUPS if group in evidence), default=0.0)
    return best >= LEAST_EVIDENCE and best > evidence["neutral"]


def voice_arousal(found: Found, baselines: Baselines) -> float | None:
    """Average how far pitch, pace, loudness and tension lie above their baselines, -1..1."""
    away = [acoustic.spreads(found, name, baselines) for name in AROUSAL]
    known = [max(-2.0, min(2.0, spreads)) / 2 for spreads in away if spreads is not None]
    return sum(known) / len(known) if known else None


def _tuned(evidence: Mapping[str, float], arousal: float | None) -> dict[str, float]:
    """Let the voice shift the balance of groups that the face supports; it removes none."""
    shift = AROUSAL_WEIGHT * (arousal or 0.0)
    return {
        group: max(LEAST_EVIDENCE, min(1.0, share + (shift if group in AROUSED else -shift)))
        for group, share in evidence.items()
        if group != "neutral" and share >= LEAST_EVIDENCE
    }


def _confidence(found: Found, evidence: Mapping[str, float], arousal: float | None) -> float:
    """Say how much the answer deserves trust: evidence, face seen all along, no rival face."""
    if not evidence:
        return 0.0 if arousal is None else VOICE_ALONE
    if shows_emotion(evidence):
        trust = max(evidence[group] for group in GROUPS)
    else:  # what was put down to articulation may have been an emotion after all
        undiscounted = visual_evidence(found, articulation=1.0)
        trust = 1 - max(undiscounted[group] for group in GROUPS)
    trust = min(trust, MOST_CONFIDENCE)
    for name in ("face.coverage", "face.lead"):
        trust *= 0.5 + 0.5 * number(found, name)
    return trust


def _account(seen: Sequence[Clue], heard: Sequence[Clue], clues: Clues, found: Found) -> list[str]:
    account = []
    if clues.has_video:
        account.append(_joined("In the video", seen) or "What is seen was not looked at.")
    else:
        account.append("The clip has no picture.")
    if clues.has_audio:
        account.append(_joined("In the audio", heard) or "What is heard was not listened to.")
    else:
        account.append("The clip has no sound.")
    if (clues.n_faces or 0) > 1:
        account.append(f"The main character is {clues.main_face}.")
    if clues.subtitle:
        account.append(f"In the text, the subtitle {_quoted(clues, found)}.")
    return account


def _conclusion(evidence: Mapping[str, float], arousal: float | None, words: Sequence[str]) -> str:
    if not evidence and arousal is None:
        return "There is no face and no voice to judge: no emotion is claimed."
    if not evidence:
        level = _arousal(arousal)
        return (
            f"There is no face to judge. A voice alone tells arousal (here {level}), not which "
            f"emotion: none is claimed."
        )
    best = max(GROUPS, key=lambda group: evidence[group])
    if not words:
        needed = max(LEAST_EVIDENCE, evidence["neutral"])
        return (
            f"No clear emotion: the strongest reading, {best}, has {evidence[best]:.2f} of 1, and "
            f"{needed:.2f} is needed to stand out from a neutral face."
        )
    groups = sorted({GROUP_OF[word] for word in words}, key=lambda group: -evidence[group])
    shown = " and ".join(f"{group} ({evidence[group]:.2f} of 1)" for group in groups)
    voice = "" if arousal is None else f", and the voice is {_arousal(arousal)}"
    return f"The face reads as {shown}{voice}; this points to {_listed(words)}."


def _arousal(arousal: float | None) -> str:
    if arousal is None or abs(arousal) < CALM:
        return "neither aroused nor subdued"
    return "aroused" if arousal > 0 else "subdued"


def _quoted(clues: Clues, found: Found) -> str:
    words = (clues.subtitle or "").rstrip(".。")
    sure = number(found, "words.certainty")
    certainty = f" with certainty {sure:.2f}" if "words.certainty" in found else ""
    return f'({clues.subtitle_source}{certainty}) reads "{words}"'


def _is_latin(text: str) -> bool:
    """Tell whether the encoder, which knows English only, can make something of a text."""
    return all(ord(letter) < 0x250 for letter in text if letter.isalpha())


def _telling(clues: Sequence[Clue]) -> list[Clue]:
    """Keep what lies off a baseline and what the expression reads as; presence tells nothing."""
    return [
        clue
        for clue in clues
        if any(m.baseline is not None or m.measure.startswith("expression.") for m in clue.evidence)
    ]


def _joined(opening: str, clues: Sequence[Clue]) -> str:
    plain = [without_numbers(clue) for clue in clues]
    return f"{opening}, {'; '.join(text[0].lower() + text[1:] for text in plain)}." if plain else ""


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _ramp(amount: float, low: float, high: float) -> float:
    return max(0.0, min(1.0, (amount - low) / (high - low)))
