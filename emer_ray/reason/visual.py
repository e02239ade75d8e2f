"""What is seen, in sentences: each claim is decided by numbers the sentence carries.

Brows and eyes are hedged: small networks see them badly. This module knows no emotion words except
those the expression networks were asked for.
"""

from typing import Final

from emer_ray.reason.wording import Found, at, number, percent, pick, seconds, span, spelled
from emer_ray.records import Clue, Measure

SEEN_SHARE: Final = 0.8
"""Below this share of pictures with the main face the sentence says so."""
TURNED_DEG: Final = 25.0
SMILE_SHARE: Final = 0.1
"""Share of pictures with the shape of a smile from which it is mentioned."""
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
"""Eye distances per second below which a head is still, and above which it moves a lot."""
LEADS: Final = 0.5
"""Mean probability from which an expression is said to be read."""
MOMENT: Final = 0.6
"""Apex probability from which a moment is mentioned."""
EXPRESSIONS: Final = ("neutral", "happy", "sad", "angry", "fearful", "disgusted", "surprised")


def sentences(found: Found) -> list[Clue]:
    """Say what is seen; [] where nobody looked."""
    if "frames.seen" not in found:
        return []
    if "face.lead" not in found:
        text = f"No face is seen in any of {spelled(found['frames.seen'])} pictures."
        return [Clue(text=text, evidence=pick(found, "frames.seen", "face.coverage"))]
    out = [_presence(found)]
    rules = (_smile, _mouth, _brows, _eyes, _head, _expression)
    return out + [clue for rule in rules if (clue := rule(found)) is not None]


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


def _presence(found: Found) -> Clue:
    tracks, coverage = found["face.tracks"], found["face.coverage"]
    names = ["face.tracks", "face.coverage", "face.height"]
    one = number(found, "face.tracks") < 2
    text = (
        "One face is seen"
        if one
        else f"{spelled(tracks)} faces are seen; the main one is described"
    )
    parts = [f"in {percent(coverage)} of the pictures"]
    parts.append(f"{percent(found['face.height'])} of the picture high")
    if not one:
        names.append("face.lead")
        parts.append(f"leading the next by {percent(found['face.lead'])}")
    text = f"{text} ({', '.join(parts)})."
    if number(found, "face.coverage") < SEEN_SHARE:
        text += " It is not seen all the time."
    if number(found, "head.yaw") > TURNED_DEG:
        names.append("head.yaw")
        text += f" It is turned to the side ({spelled(found['head.yaw'])} degrees)."
    return Clue(text=text, evidence=pick(found, *names))


def _smile(found: Found) -> Clue | None:
    if number(found, "smile.share") < SMILE_SHARE:
        return None
    teeth = number(found, "mouth_open.median") > LIPS_APART
    kind = "a smile that opens the lips" if teeth else "a smile"
    names = ["smile.share", "mouth_width.p90", "corner_lift.p90"]
    names += ["mouth_open.median"] if teeth else []
    share = found["smile.share"]
    parts = [
        f"{percent(share)} of the pictures, longest {span(share)}",
        f"mouth width {at(found['mouth_width.p90'])}",
        f"corner lift {at(found['corner_lift.p90'])}",
    ]
    parts += [f"opening {spelled(found['mouth_open.median'])} of the eye distance"] if teeth else []
    text = f"The mouth widens and its corners rise into {kind} ({'; '.join(parts)})."
    return Clue(text=text, evidence=pick(found, *names))


def _mouth(found: Found) -> Clue | None:
    if number(found, "mouth_open.wide") < WIDE_SHARE:
        return None
    hold = found["mouth_open.hold"]
    opening = f"opening {at(found['mouth_open.p90'])}"
    names = ["mouth_open.wide", "mouth_open.p90", "mouth_open.hold"]
    reason = is_talking(found)
    if reason is None:
        if number(found, "mouth_open.hold") < HELD_S:
            return None
        text = f"The mouth drops open and stays open ({span(hold)}; {opening})."
        return Clue(text=text, evidence=pick(found, *names))
    parts = [opening]
    if "mouth_open.in_speech" in found:
        names.append("mouth_open.in_speech")
        parts.append(f"{percent(found['mouth_open.in_speech'])} of the wide openings in speech")
    elif "mouth_open.rhythm" in found:
        names.append("mouth_open.rhythm")
        parts.append(f"{spelled(found['mouth_open.rhythm'])} turns per second")
    parts.append(f"longest opening {spelled(hold)} s")
    text = f"The mouth opens wide, taken for speech since {reason} ({'; '.join(parts)})."
    return Clue(text=text, evidence=pick(found, *names))


def _brows(found: Found) -> Clue | None:
    """Against the clip's own median only; which state is rest, a clip that keeps changing hides."""
    if "brow_height.p90" not in found:
        return None
    low, high = found["brow_height.p10"], found["brow_height.p90"]
    if _rise(high) >= BROW_RISE:
        text = f"The eyebrows seem raised for a moment (brow height {at(high)})."
        return Clue(text=text, evidence=(high,))
    if number(found, "brow_height.p90") - number(found, "brow_height.p10") < BROW_RANGE:
        return None
    text = f"The eyebrows seem to go up and down (brow height {at(low)}; {at(high)})."
    return Clue(text=text, evidence=(low, high))


def _eyes(found: Found) -> Clue | None:
    if "eye_open.p90" not in found or _rise(found["eye_open.p90"]) < EYE_RISE:
        return None
    text = f"The eyes seem to widen for a moment (eye opening {at(found['eye_open.p90'])})."
    return Clue(text=text, evidence=pick(found, "eye_open.p90"))


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
    text = f"The head {says} ({spelled(found['head.motion'])} eye distances per second)."
    return Clue(text=text, evidence=pick(found, "head.motion"))


def _expression(found: Found) -> Clue | None:
    if "expression.neutral.mean" not in found:
        return None
    first = max(EXPRESSIONS, key=lambda e: number(found, f"expression.{e}.mean"))
    mean = found[f"expression.{first}.mean"]
    how = "reads as" if (mean.value or 0.0) >= LEADS else "is ambiguous, at best"
    text = f"The expression {how} {first} (probability {spelled(mean)} on average)"
    others = [e for e in EXPRESSIONS[1:] if e != first]
    moments = [e for e in others if number(found, f"expression.{e}.p90") >= MOMENT]
    peaks = [found[f"expression.{name}.p90"] for name in moments]
    looks = [
        f"a moment that looks {name} ({spelled(peak)} at {seconds(peak.start_s)} s)"
        for name, peak in zip(moments, peaks, strict=True)
    ]
    text += f", with {' and '.join(looks)}." if looks else "."
    return Clue(text=text, evidence=(mean, *peaks))
