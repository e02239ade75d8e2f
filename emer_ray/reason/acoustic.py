"""What is heard, in sentences: each claim about a voice is made against a baseline it names."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from emer_ray.reason.baselines import Baselines, against
from emer_ray.reason.wording import Found, number, pick, seconds, spelled, written
from emer_ray.records import Clue, Measure

SOMEWHAT: Final = 1.0
MUCH: Final = 2.0
"""Spreads from the baseline that make a voice somewhat, or much, higher, faster, …"""
RISE_SEMITONES: Final = 2.0
SILENT_DBFS: Final = -60.0
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


def sentences(found: Found, baselines: Baselines) -> list[Clue]:
    """Say what is heard; [] without sound."""
    if "sound.seconds" not in found:
        return []
    if "loudness.median" not in found:
        return [_speechless(found)]
    unusual = [c for n in VOICE_WORDS if (c := _unusual(found, n, baselines)) is not None]
    out = [_speech(found), *unusual]
    if "f0.median" in found and not _is_unusual(found, "f0.median", baselines):
        text = f"The median pitch of the voice is {spelled(found['f0.median'])} Hz"
        out.append(_level(found, "f0.median", text, baselines))
    if number(found, "f0.end") > RISE_SEMITONES:
        text = f"The pitch rises towards the end (by {spelled(found['f0.end'])} semitones)."
        out.append(Clue(text=text, evidence=pick(found, "f0.end")))
    if not unusual and (even := _even(found, baselines)) is not None:
        out.append(even)
    return out


def spreads(found: Found, name: str, baselines: Baselines) -> float | None:
    """Give how many spreads a measure lies above its baseline, None where it has none.

    Rounded as it is shown, so that a claim and its evidence agree at the border.
    """
    base = against(name, baselines)
    if base is None or name not in found:
        return None
    return round((number(found, name) - base[0]) / max(base[1], 1e-6), 2)


def _speechless(found: Found) -> Clue:
    names = ("sound.level", "speech.seconds") if "speech.seconds" in found else ("sound.level",)
    level = found["sound.level"]
    if number(found, "sound.level") < SILENT_DBFS:
        text = f"The sound is silent (level {spelled(level)} dBFS)."
    elif "speech.seconds" in found:
        text = f"There is sound but hardly any speech ({spelled(found['speech.seconds'])} s of it)."
    else:
        text = f"There is sound (level {spelled(level)} dBFS)."
    return Clue(text=text, evidence=pick(found, *names))


def _speech(found: Found) -> Clue:
    spoken, pauses = found["speech.seconds"], found["speech.pauses"]
    start, end = seconds(spoken.start_s), seconds(spoken.end_s)
    text = f"Speech is heard ({spelled(spoken)} s between {start} and {end} s"
    names = ["speech.seconds", "speech.pauses"]
    if pauses.value:
        names.append("speech.pause_seconds")
        times = "1 pause" if pauses.value == 1 else f"{spelled(pauses)} pauses"
        text += f", {times} of {spelled(found['speech.pause_seconds'])} s in all"
    return Clue(text=text + ").", evidence=pick(found, *names))


def _is_unusual(found: Found, name: str, baselines: Baselines) -> bool:
    return abs(spreads(found, name, baselines) or 0.0) >= SOMEWHAT


def _unusual(found: Found, name: str, baselines: Baselines) -> Clue | None:
    if not _is_unusual(found, name, baselines):
        return None
    away = spreads(found, name, baselines) or 0.0
    _, high, low = VOICE_WORDS[name]
    words = (high if away > 0 else low).format("much" if abs(away) >= MUCH else "somewhat")
    return _level(found, name, f"{words} ({spelled(found[name])} {found[name].unit}", baselines)


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
        value=spreads(found, name, baselines),
        unit="spreads",
    )
    ending = f"{base[2]} {written(base[0], measure.unit)}"
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
        f"{VOICE_WORDS[m.measure][0]} {spelled(m)} against {written(m.baseline or 0, m.unit)}"
        for m in evidence
        if m.baseline is not None
    ]
    return Clue(text=f"The voice is even ({'; '.join(parts)}).", evidence=evidence)
