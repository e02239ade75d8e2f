"""One clip as a card: what it says, on one time axis, each clue tied to its evidence."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from emer_ray.errors import FAILURE_KINDS, ClipError
from emer_ray.report import gather
from emer_ray.report.look import Look, Span, Wish, clip_of
from emer_ray.report.sample import Drawn

SENSES: Final[Mapping[str, tuple[str, str]]] = {
    "visual": ("V", "seen"),
    "acoustic": ("A", "heard"),
    "lexical": ("L", "said"),
}
MOST_FRAMES: Final = 6
LEAST_FRAMES: Final = 4
_APART_S: Final = 0.12
"""A picture this near to a cited time shows it."""
_MOST_ALIKE: Final = 14
"""Pictures are at least this share of the clip apart: nearer ones look the same."""
_LEAST_QUOTE: Final = 12
"""Letters of a clue that must stand in the explanation to be linked: fewer are chance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """A measure behind a clue, ready to print."""

    measure: str
    value: str
    against: str
    start_s: float | None
    end_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Clue:
    """A clue with its name on the card: V1, A2, L1."""

    name: str
    sense: str
    text: str
    evidence: tuple[Evidence, ...]

    @property
    def spans(self) -> list[Span]:
        """The stretches of time that its evidence cites, each once."""
        found = [(e.start_s, e.end_s if e.end_s is not None else e.start_s) for e in self.evidence]
        return list(dict.fromkeys((a, b) for a, b in found if a is not None and b is not None))


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A key frame with the clues that cite its time."""

    at_s: float
    uri: str
    width: int
    height: int
    cited_by: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """Everything a card prints."""

    number: int
    drawn: Drawn
    manifest: Mapping[str, Any]
    row: Mapping[str, Any] | None
    labels: tuple[tuple[str, float | None, str], ...]
    """Word, support, family."""
    old: tuple[str, ...]
    clues: tuple[Clue, ...]
    told: tuple[tuple[str, str | None], ...]
    """The explanation in pieces: text, and the clue that it repeats."""
    seconds: float
    pictures: tuple[Picture, ...]
    look: Look
    speech: Span | None
    withheld: bool
    """Its media stay out of the page, because of their licence."""
    no_media: str
    """Why its media could not be opened; "" = they were, or nobody tried."""

    @property
    def outcome(self) -> str:
        return str(self.manifest["outcome"])

    @property
    def kind_means(self) -> str:
        return FAILURE_KINDS.get(self.manifest["kind"], "")

    @property
    def families(self) -> list[str]:
        return sorted({family for _, _, family in self.labels})

    @property
    def title(self) -> str:
        return str(dict(self.manifest["extra"] or ()).get("title") or "")

    def x(self, at_s: float) -> float:
        """Where a time lies on the axis, in per cent."""
        return round(100 * min(max(at_s / self.seconds, 0.0), 1.0), 2) if self.seconds else 0.0

    @property
    def ticks(self) -> list[float]:
        """Round seconds for the axis, five or so."""
        step = next((s for s in (0.2, 0.5, 1, 2, 5, 10, 20, 60, 120) if self.seconds / s <= 7), 300)
        return [round(k * step, 1) for k in range(int(self.seconds / step) + 1)]

    @property
    def wave(self) -> str:
        """The waveform as an SVG path in a box of as many bins by 2; its loudest fills it."""
        most = max(self.look.wave, default=0.0) or 1.0
        tops = [f"{x} {1 - v / most:.3f}" for x, v in enumerate(self.look.wave)]
        lows = [f"{x} {1 + v / most:.3f}" for x, v in enumerate(self.look.wave)]
        return f"M{'L'.join(tops)}L{'L'.join(reversed(lows))}Z" if tops else ""

    @property
    def pitch_range(self) -> tuple[float, float]:
        """Lowest and highest Hz of the drawing, at least an octave apart."""
        hertz = [hz for _, hz in self.look.pitch]
        low, high = min(hertz), max(hertz)
        middle = (low * high) ** 0.5
        return min(low, middle / 2**0.5), max(high, middle * 2**0.5)

    @property
    def pitch(self) -> str:
        """Pitch as an SVG path in a box of 1000 by 100, broken where voicing breaks or the
        pitch jumps."""
        if not self.look.pitch:
            return ""
        low, high = self.pitch_range
        steps, last_s, last_hz = [], -1.0, 1.0
        for at_s, hz in self.look.pitch:
            x, y = 10 * self.x(at_s), 100 * (1 - (hz - low) / (high - low))
            joined = at_s - last_s < 0.03 and 0.8 < hz / last_hz < 1.25
            steps.append(f"{'L' if joined else 'M'}{x:.1f} {y:.1f}")
            last_s, last_hz = at_s, hz
        return "".join(steps)


def wish(row: Mapping[str, Any] | None, manifest: Mapping[str, Any]) -> Wish:
    """Say which moments of a clip its card shows."""
    clues = () if row is None else _clues(row)
    return Wish(
        clip=clip_of(manifest),
        times_s=_key_times(clues, _seconds(row, manifest)),
        speech=None if row is None else _speech(row),
    )


def card(
    number: int,
    drawn: Drawn,
    manifest: Mapping[str, Any],
    row: Mapping[str, Any] | None,
    look: Look | ClipError | None,
    known: Mapping[str, str | None],
    *,
    withheld: bool,
) -> Card:
    """Put a card together; `look` is None where nobody looked, an error where it was in vain."""
    clues = () if row is None else _clues(row)
    seen = look if isinstance(look, Look) else Look()
    labels = [] if row is None else row.get("labels") or []
    return Card(
        number=number,
        drawn=drawn,
        manifest=manifest,
        row=row,
        labels=tuple(
            (each["label"], each["support"], gather.family_of(each["label"], known))
            for each in labels
        ),
        old=tuple(gather.old_labels(manifest)),
        clues=clues,
        told=_told("" if row is None else row.get("explanation") or "", clues),
        seconds=_seconds(row, manifest) or seen.seconds,
        pictures=tuple(
            Picture(
                at_s=frame.at_s,
                uri=frame.uri,
                width=frame.width,
                height=frame.height,
                cited_by=tuple(c.name for c in clues if _cites(c, frame.at_s)),
            )
            for frame in seen.frames
        ),
        look=seen,
        speech=None if row is None else _speech(row),
        withheld=withheld,
        no_media=str(look) if isinstance(look, ClipError) else "",
    )


def _seconds(row: Mapping[str, Any] | None, manifest: Mapping[str, Any]) -> float:
    media = None if row is None else row.get("media")
    if media is not None:
        return float(media["decoded_s"])
    end_s = manifest["end_s"]
    return 0.0 if end_s is None else float(end_s - (manifest["start_s"] or 0.0))


def _clues(row: Mapping[str, Any]) -> tuple[Clue, ...]:
    return tuple(
        Clue(
            name=f"{letter}{place}",
            sense=sense,
            text=clue["text"],
            evidence=tuple(_evidence(found) for found in clue["evidence"]),
        )
        for sense, (letter, _) in SENSES.items()
        for place, clue in enumerate(row.get(f"{sense}_clues") or (), start=1)
    )


def _evidence(found: Mapping[str, Any]) -> Evidence:
    value = "not known" if found["value"] is None else f"{found['value']:.4g} {found['unit']}"
    against = (
        "" if found["baseline"] is None else f"{found['baseline_source']} {found['baseline']:.4g}"
    )
    return Evidence(
        measure=found["measure"],
        value=value,
        against=against,
        start_s=found["start_s"],
        end_s=found["end_s"],
    )


def _speech(row: Mapping[str, Any]) -> Span | None:
    for found in row.get("measures") or ():
        if found["measure"] == "speech.seconds" and found["start_s"] is not None:
            return found["start_s"], found["end_s"]
    return None


def _cites(clue: Clue, at_s: float) -> bool:
    """Whether a clue's evidence names this moment: an apex, or an end of a stretch."""
    ends = {end for span in clue.spans for end in span}
    return clue.sense == "visual" and any(abs(end - at_s) <= _APART_S for end in ends)


def _key_times(clues: Sequence[Clue], seconds: float) -> tuple[float, ...]:
    """Choose moments to show: apexes first, then ends of stretches; evened out with the rest."""
    spans = [span for clue in clues if clue.sense == "visual" for span in clue.spans]
    spans.sort(key=lambda span: span[1] - span[0])
    apart_s = max(_APART_S, seconds / _MOST_ALIKE)
    times: list[float] = []
    for at_s in [end for span in spans for end in span]:
        if len(times) < MOST_FRAMES and all(abs(at_s - other) > apart_s for other in times):
            times.append(at_s)
    for place in range(LEAST_FRAMES):
        at_s = seconds * (place + 0.5) / LEAST_FRAMES
        if len(times) < LEAST_FRAMES and all(abs(at_s - t) > seconds / 10 for t in times):
            times.append(at_s)
    return tuple(sorted(times))


def _told(explanation: str, clues: Sequence[Clue]) -> tuple[tuple[str, str | None], ...]:
    """Cut an explanation where it repeats the head of a clue, so that each piece can link there."""
    lower = explanation.lower()
    found: list[tuple[int, int, str]] = []
    for clue in clues:
        head = clue.text.split(" (")[0].rstrip(".。 ").lower()
        start = lower.find(head)
        if len(head) >= _LEAST_QUOTE and start >= 0 and len(lower) == len(explanation):
            found.append((start, start + len(head), clue.name))
    pieces: list[tuple[str, str | None]] = []
    at = 0
    for start, end, name in sorted(found):
        if start >= at:
            pieces += [(explanation[at:start], None), (explanation[start:end], name)]
            at = end
    return tuple((text, name) for text, name in [*pieces, (explanation[at:], None)] if text)
