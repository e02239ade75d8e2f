"""Clue sentences out of measures alone: what is claimed is decided by numbers the sentence carries.

Each sentence says in brackets which measure, which value, when, and against what; each number in it
stands in its evidence. Brows and eyes are hedged: small networks see them badly. This module knows
nothing of emotion words except those the expression networks were asked for.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from emer_ray.reason.baselines import Baselines, against
from emer_ray.records import Clue, Clues, Measure

Found = Mapping[str, Measure]

SEEN_SHARE: Final = 0.8
"""Below this share of pictures with the main face the sentence says so."""
TURNED_DEG: Final = 25.0
SMILE_SHARE: Final = 0.1
LIPS_APART: Final = 0.06
"""Median opening, in eye distances, of a smile that shows teeth."""
WIDE_SHARE: Final = 0.05
"""A mouth wide open in fewer pictures than this may be a slip of the mesh."""
HELD_S: Final = 0.6
"""A mouth seen open for this long is no vowel; even stressed ones are shorter."""
SPEECH_RHYTHM: Final = 1.2
"""Turns of the mouth per second that look like speech; a held expression has fewer than one."""
BROW_RISE: Final = 0.025
BROW_RANGE: Final = 0.035
EYE_RISE: Final = 0.05
"""Changes of brows (eye distances) and eyes (share of their width) that are more than jitter."""
STILL: Final = 0.1
LIVELY: Final = 1.0
LEADS: Final = 0.5
"""Mean probability from which an expression is said to be read."""
MOMENT: Final = 0.6
"""Apex probability from which a moment is mentioned."""
SOMEWHAT: Final = 1.0
MUCH: Final = 2.0
"""Spreads from the baseline that make a voice somewhat, or much, higher, faster, …"""
RISE: Final = 2.0
SILENT_DBFS: Final = -60.0
EXPRESSIONS: Final = ("neutral", "happy", "sad", "angry", "fearful", "disgusted", "surprised")

VOICE_WORDS: Final[Mapping[str, tuple[str, str, str]]] = {
    "f0.median": (
        *("pitch", "The voice is {} higher-pitched than usual"),
        "The voice is {} lower-pitched than usual",
    ),
    "f0.range": (
        *("pitch range", "The pitch swings {} more widely than usual"),
        "The pitch is {} flatter than usual",
    ),
    "speech.rate": (
        *("pace", "The speech is {} faster than usual"),
        "The speech is {} slower than usual",
    ),
    "loudness.median": (
        *("loudness", "The voice is {} louder than usual"),
        "The voice is {} quieter than usual",
    ),
    "loudness.range": (
        *("stress", "The words are {} more strongly stressed than usual"),
        "The words are {} more evenly stressed than usual",
    ),
    "voice.tilt": (
        *("brightness", "The voice is {} brighter and tenser than usual"),
        "The voice is {} softer and duller than usual",
    ),
}
"""What a measure of the voice is called, and what is said where it lies above or below its
baseline; *usual* is that baseline, and the sentence names it."""


def index(clues: Clues) -> dict[str, Measure]:
    """Give the measures by name; those without a value are left out."""
    return {m.measure: m for m in clues.measures if m.value is not None}


def number(found: Found, name: str) -> float:
    """Give a measure's value, 0 where it was not measured."""
    measure = found.get(name)
    return 0.0 if measure is None or measure.value is None else measure.value


def visual(found: Found) -> list[Clue]:
    """Say what is seen; [] where nobody looked."""
    if "frames.seen" not in found:
        return []
    if "face.lead" not in found:
        text = f"No face is seen in any of {_n(found['frames.seen'])} pictures."
        return [Clue(text=text, evidence=_pick(found, "frames.seen", "face.coverage"))]
    out = [_presence(found)]
    rules = (_smile, _mouth, _brows, _eyes, _head, _expression)
    return out + [clue for rule in rules if (clue := rule(found)) is not None]


def acoustic(found: Found, baselines: Baselines) -> list[Clue]:
    """Say what is heard; [] without sound."""
    if "sound.seconds" not in found:
        return []
    if "loudness.median" not in found:
        return [_speechless(found)]
    unusual = [c for n in VOICE_WORDS if (c := _unusual(found, n, baselines)) is not None]
    out = [_speech(found), *unusual]
    if "f0.median" in found and not _is_unusual(found, "f0.median", baselines):
        text = f"The median pitch of the voice is {_n(found['f0.median'])} Hz"
        out.append(_level(found, "f0.median", text, baselines))
    if number(found, "f0.end") > RISE:
        text = f"The pitch rises towards the end (by {_n(found['f0.end'])} semitones)."
        out.append(Clue(text=text, evidence=_pick(found, "f0.end")))
    if not unusual and (even := _even(found, baselines)) is not None:
        out.append(even)
    return out


def spreads(found: Found, name: str, baselines: Baselines) -> float | None:
    """Give how many spreads a measure lies above its baseline, None where it has none."""
    base = against(name, baselines)
    if base is None or name not in found:
        return None
    return (number(found, name) - base[0]) / max(base[1], 1e-6)


def is_talking(found: Found) -> str | None:
    """Say why an open mouth is taken for articulation, or None.

    With sound: it is wide open while speech is heard. Without: it opens and closes rhythmically, or
    is never seen open for longer than a vowel lasts.
    """
    if number(found, "mouth_open.wide") < WIDE_SHARE:
        return None
    if "speech.seconds" in found:
        return "speech is heard" if number(found, "mouth_open.in_speech") >= 0.5 else None
    if number(found, "mouth_open.rhythm") >= SPEECH_RHYTHM:
        return "it opens and closes rhythmically"
    if number(found, "mouth_open.hold") >= HELD_S:
        return None
    if "mouth_open.rhythm" not in found:
        return "the pictures lie too far apart to tell"
    return "it is never seen open for longer than a vowel lasts"


def without_numbers(clue: Clue) -> str:
    """Give the plain statement of a clue: brackets and the final stop taken off."""
    return re.sub(r" \([^()]*\)", "", clue.text).rstrip(".")


def _presence(found: Found) -> Clue:
    tracks, coverage = found["face.tracks"], found["face.coverage"]
    names = ["face.tracks", "face.coverage", "face.height"]
    one = number(found, "face.tracks") < 2
    text = "One face is seen" if one else f"{_n(tracks)} faces are seen; the main one is described"
    parts = [f"in {_percent(coverage)} of the pictures"]
    parts.append(f"{_percent(found['face.height'])} of the picture high")
    if not one:
        names.append("face.lead")
        parts.append(f"leading the next by {_percent(found['face.lead'])}")
    text = f"{text} ({', '.join(parts)})."
    if number(found, "face.coverage") < SEEN_SHARE:
        text += " It is not seen all the time."
    if number(found, "head.yaw") > TURNED_DEG:
        names.append("head.yaw")
        text += f" It is turned to the side ({_n(found['head.yaw'])} degrees)."
    return Clue(text=text, evidence=_pick(found, *names))


def _smile(found: Found) -> Clue | None:
    if number(found, "smile.share") < SMILE_SHARE:
        return None
    teeth = number(found, "mouth_open.median") > LIPS_APART
    kind = "a smile that opens the lips" if teeth else "a smile"
    names = ["smile.share", "mouth_width.p90", "corner_lift.p90"]
    names += ["mouth_open.median"] if teeth else []
    share = found["smile.share"]
    parts = [
        f"{_percent(share)} of the pictures, longest {_span(share)}",
        f"mouth width {_at(found['mouth_width.p90'])}",
        f"corner lift {_at(found['corner_lift.p90'])}",
    ]
    parts += [f"opening {_n(found['mouth_open.median'])} of the eye distance"] if teeth else []
    text = f"The mouth widens and its corners rise into {kind} ({'; '.join(parts)})."
    return Clue(text=text, evidence=_pick(found, *names))


def _mouth(found: Found) -> Clue | None:
    if number(found, "mouth_open.wide") < WIDE_SHARE:
        return None
    hold = found["mouth_open.hold"]
    opening = f"opening {_at(found['mouth_open.p90'])}"
    names = ["mouth_open.wide", "mouth_open.p90", "mouth_open.hold"]
    reason = is_talking(found)
    if reason is None:
        if number(found, "mouth_open.hold") < HELD_S:
            return None
        text = f"The mouth drops open and stays open ({_span(hold)}; {opening})."
        return Clue(text=text, evidence=_pick(found, *names))
    parts = [opening]
    if "mouth_open.in_speech" in found:
        names.append("mouth_open.in_speech")
        parts.append(f"{_percent(found['mouth_open.in_speech'])} of the wide openings in speech")
    elif "mouth_open.rhythm" in found:
        names.append("mouth_open.rhythm")
        parts.append(f"{_n(found['mouth_open.rhythm'])} turns per second")
    parts.append(f"longest opening {_n(hold)} s")
    text = f"The mouth opens wide, taken for speech since {reason} ({'; '.join(parts)})."
    return Clue(text=text, evidence=_pick(found, *names))


def _brows(found: Found) -> Clue | None:
    """Against the clip's own median only; which state is rest, a clip that keeps changing hides."""
    if "brow_height.p90" not in found:
        return None
    low, high = found["brow_height.p10"], found["brow_height.p90"]
    if _rise(high) >= BROW_RISE:
        text = f"The eyebrows seem raised for a moment (brow height {_at(high)})."
        return Clue(text=text, evidence=(high,))
    if number(found, "brow_height.p90") - number(found, "brow_height.p10") < BROW_RANGE:
        return None
    text = f"The eyebrows seem to go up and down (brow height {_at(low)}; {_at(high)})."
    return Clue(text=text, evidence=(low, high))


def _eyes(found: Found) -> Clue | None:
    if "eye_open.p90" not in found or _rise(found["eye_open.p90"]) < EYE_RISE:
        return None
    text = f"The eyes seem to widen for a moment (eye opening {_at(found['eye_open.p90'])})."
    return Clue(text=text, evidence=_pick(found, "eye_open.p90"))


def _rise(measure: Measure) -> float:
    """Give how far a measure lies above its baseline, 0 where it has none."""
    if measure.value is None or measure.baseline is None:
        return 0.0
    return measure.value - measure.baseline


def _head(found: Found) -> Clue | None:
    if "head.motion" not in found:
        return None
    speed = number(found, "head.motion")
    says = "moves a lot" if speed > LIVELY else "is almost still" if speed < STILL else None
    if says is None:
        return None
    text = f"The head {says} ({_n(found['head.motion'])} eye distances per second)."
    return Clue(text=text, evidence=_pick(found, "head.motion"))


def _expression(found: Found) -> Clue | None:
    if "expression.neutral.mean" not in found:
        return None
    first = max(EXPRESSIONS, key=lambda e: number(found, f"expression.{e}.mean"))
    mean = found[f"expression.{first}.mean"]
    how = "reads as" if (mean.value or 0.0) >= LEADS else "is ambiguous, at best"
    text = f"The expression {how} {first} (probability {_n(mean)} on average)"
    others = [e for e in EXPRESSIONS[1:] if e != first]
    moments = [e for e in others if number(found, f"expression.{e}.p90") >= MOMENT]
    peaks = [found[f"expression.{name}.p90"] for name in moments]
    looks = [
        f"a moment that looks {name} ({_n(peak)} at {_s(peak.start_s)} s)"
        for name, peak in zip(moments, peaks, strict=True)
    ]
    text += f", with {' and '.join(looks)}." if looks else "."
    return Clue(text=text, evidence=(mean, *peaks))


def _speechless(found: Found) -> Clue:
    names = ("sound.level", "speech.seconds") if "speech.seconds" in found else ("sound.level",)
    level = found["sound.level"]
    if number(found, "sound.level") < SILENT_DBFS:
        text = f"The sound is silent (level {_n(level)} dBFS)."
    elif "speech.seconds" in found:
        text = f"There is sound but hardly any speech ({_n(found['speech.seconds'])} s of it)."
    else:
        text = f"There is sound (level {_n(level)} dBFS)."
    return Clue(text=text, evidence=_pick(found, *names))


def _speech(found: Found) -> Clue:
    spoken, pauses = found["speech.seconds"], found["speech.pauses"]
    text = f"Speech is heard ({_n(spoken)} s between {_s(spoken.start_s)} and {_s(spoken.end_s)} s"
    names = ["speech.seconds", "speech.pauses"]
    if pauses.value:
        names.append("speech.pause_seconds")
        times = "1 pause" if pauses.value == 1 else f"{_n(pauses)} pauses"
        text += f", {times} of {_n(found['speech.pause_seconds'])} s in all"
    return Clue(text=text + ").", evidence=_pick(found, *names))


def _is_unusual(found: Found, name: str, baselines: Baselines) -> bool:
    return abs(spreads(found, name, baselines) or 0.0) >= SOMEWHAT


def _unusual(found: Found, name: str, baselines: Baselines) -> Clue | None:
    if not _is_unusual(found, name, baselines):
        return None
    away = spreads(found, name, baselines) or 0.0
    _, high, low = VOICE_WORDS[name]
    words = (high if away > 0 else low).format("much" if abs(away) >= MUCH else "somewhat")
    return _level(found, name, f"{words} ({_n(found[name])} {found[name].unit}", baselines)


def _level(found: Found, name: str, text: str, baselines: Baselines) -> Clue:
    """End a sentence about a voice with what it was measured against."""
    base = against(name, baselines)
    bracket = "; " if "(" in text else " ("
    if base is None:
        ending = "no baseline: neither high nor low can be said"
        return Clue(text=f"{text}{bracket}{ending}).", evidence=(found[name],))
    measure = replace(found[name], baseline=base[0], baseline_source=base[2])
    away = Measure(
        measure=f"{name}.deviation",
        value=round(spreads(found, name, baselines) or 0.0, 2),
        unit="spreads",
    )
    ending = f"{base[2]} {_format(base[0], measure.unit)}"
    return Clue(text=f"{text}{bracket}{ending}).", evidence=(measure, away))


def _even(found: Found, baselines: Baselines) -> Clue | None:
    """Say that a voice is unremarkable, with all that was compared."""
    compared = [
        _level(found, n, "", baselines) for n in VOICE_WORDS if against(n, baselines) and n in found
    ]
    if not compared:
        return None
    evidence = tuple(measure for clue in compared for measure in clue.evidence)
    parts = [
        f"{VOICE_WORDS[m.measure][0]} {_n(m)} against {_format(m.baseline or 0, m.unit)}"
        for m in evidence
        if m.baseline is not None
    ]
    return Clue(text=f"The voice is even ({'; '.join(parts)}).", evidence=evidence)


def _pick(found: Found, *names: str) -> tuple[Measure, ...]:
    return tuple(found[name] for name in names if name in found)


def _n(measure: Measure) -> str:
    return _format(measure.value or 0.0, measure.unit)


def _format(number: float, unit: str) -> str:
    digits = {
        "pictures": 0,
        "faces": 0,
        "pauses": 0,
        "Hz": 0,
        "degrees": 0,
        "dBFS": 0,
        "dB": 0,
        "s": 1,
        "semitones": 1,
        "per s": 1,
        "syllables per s": 1,
    }.get(unit, 2)
    text = f"{number:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def _percent(measure: Measure) -> str:
    return f"{100 * (measure.value or 0):.0f} %"


def _s(seconds: float | None) -> str:
    return _format(seconds or 0.0, "s")


def _span(measure: Measure) -> str:
    start, end = _s(measure.start_s), _s(measure.end_s)
    return f"at {start} s" if start == end else f"from {start} to {end} s"


def _at(measure: Measure) -> str:
    """Say value, time and baseline of a length in the face."""
    unit = " of the eye distance" if measure.unit == "eye distances" else ""
    text = f"{_n(measure)}{unit} at {_s(measure.start_s)} s"
    if measure.baseline is None:
        return text
    return f"{text}, {measure.baseline_source} {_format(measure.baseline, measure.unit)}"
