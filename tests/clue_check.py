"""Check a clue sentence against its own evidence: each number in it, and the claim it makes.

A sentence that no rule here knows fails, so a new sentence needs a rule.
"""

import re
from collections.abc import Callable, Mapping

from emer_ray.records import Clue, Measure

Evidence = Mapping[str, Measure]
Rule = Callable[[Evidence, re.Match[str]], bool]

NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?: %)?")


def numbers(text: str) -> list[str]:
    """List the numbers of a sentence, quoted words left out."""
    return NUMBER.findall(re.sub(r'"[^"]*"', "", text))


def unsupported(clue: Clue) -> list[str]:
    """List the numbers of a clue that its evidence does not hold."""
    known = [
        number
        for m in clue.evidence
        for number in (m.value, m.start_s, m.end_s, m.baseline)
        if number is not None
    ]
    named = {number for m in clue.evidence for number in numbers(m.baseline_source or "")}
    return [n for n in numbers(clue.text) if n not in named and not _among(n, known)]


def _among(text: str, known: list[float]) -> bool:
    percent = text.endswith(" %")
    plain = text.removesuffix(" %")
    digits = len(plain.partition(".")[2])
    scale = 100 if percent else 1
    return any(abs(float(plain) - scale * k) <= 0.5001 * 10**-digits for k in known)


def _compared(evidence: Evidence, name: str, sign: int, degree: str) -> bool:
    away = sign * evidence[f"{name}.deviation"].value
    return evidence[name].baseline is not None and (
        away >= 2 if degree == "much" else 1 <= away < 2
    )


def _voice(name: str, sign: int) -> Rule:
    return lambda evidence, match: _compared(evidence, name, sign, match[1])


def _value(name: str, low: float, high: float = float("inf")) -> Rule:
    return lambda evidence, match: low <= evidence[name.format(*match.groups())].value <= high


def _risen(name: str, least: float) -> Rule:
    def holds(evidence: Evidence, match: re.Match[str]) -> bool:
        m = evidence[name]
        return m.baseline is not None and m.value - m.baseline >= least

    return holds


def _up_and_down(evidence: Evidence, match: re.Match[str]) -> bool:
    return evidence["brow_height.p90"].value - evidence["brow_height.p10"].value >= 0.035


def _even(evidence: Evidence, match: re.Match[str]) -> bool:
    away = [m.value for name, m in evidence.items() if name.endswith(".deviation")]
    return bool(away) and all(abs(a) < 1 for a in away)


RULES: list[tuple[str, Rule]] = [
    (r"^No face is seen", _value("face.coverage", 0, 0)),
    (r"^One face is seen", _value("face.tracks", 1, 1)),
    (r"^\d+ faces are seen", _value("face.tracks", 2)),
    (r"not seen all the time", _value("face.coverage", 0, 0.8)),
    (r"turned to the side", _value("head.yaw", 25)),
    (r"into a smile", _value("smile.share", 0.1)),
    (r"smile that opens the lips", _value("mouth_open.median", 0.06)),
    (r"drops open and stays open", _value("mouth_open.hold", 0.6)),
    (r"^The mouth (opens wide|drops open)", _value("mouth_open.wide", 0.05)),
    (r"since speech is heard", _value("mouth_open.in_speech", 0.5)),
    (r"closes rhythmically", _value("mouth_open.rhythm", 1.2)),
    (r"since it is never seen open", _value("mouth_open.hold", 0, 0.6)),
    (r"too far apart to tell", _value("mouth_open.hold", 0, 0.6)),
    (r"brows seem raised", _risen("brow_height.p90", 0.025)),
    (r"brows seem to go up and down", _up_and_down),
    (r"eyes seem to widen", _risen("eye_open.p90", 0.05)),
    (r"head moves a lot", _value("head.motion", 1)),
    (r"head is almost still", _value("head.motion", 0, 0.1)),
    (r"expression reads as (\w+)", _value("expression.{}.mean", 0.5)),
    (r"ambiguous, at best (\w+)", _value("expression.{}.mean", 0, 0.5)),
    (r"with a moment that looks (\w+)", _value("expression.{}.p90", 0.6)),
    (r"and a moment that looks (\w+)", _value("expression.{}.p90", 0.6)),
    (r"sound is silent", _value("sound.level", -200, -60)),
    (r"hardly any speech", _value("speech.seconds", 0, 0.3)),
    (r"^There is sound \(", _value("sound.level", -60)),
    (r"^Speech is heard", _value("speech.seconds", 0.3)),
    (r"\d pauses? of", _value("speech.pauses", 1)),
    (r"rises towards the end", _value("f0.end", 2)),
    (r"^The voice is even", _even),
    (r"^The median pitch of the voice", _value("f0.median", 60, 500)),
    (r"(somewhat|much) higher-pitched than usual", _voice("f0.median", 1)),
    (r"(somewhat|much) lower-pitched than usual", _voice("f0.median", -1)),
    (r"(somewhat|much) more widely than usual", _voice("f0.range", 1)),
    (r"(somewhat|much) flatter than usual", _voice("f0.range", -1)),
    (r"(somewhat|much) faster than usual", _voice("speech.rate", 1)),
    (r"(somewhat|much) slower than usual", _voice("speech.rate", -1)),
    (r"(somewhat|much) louder than usual", _voice("loudness.median", 1)),
    (r"(somewhat|much) quieter than usual", _voice("loudness.median", -1)),
    (r"(somewhat|much) more strongly stressed", _voice("loudness.range", 1)),
    (r"(somewhat|much) more evenly stressed", _voice("loudness.range", -1)),
    (r"(somewhat|much) brighter and tenser", _voice("voice.tilt", 1)),
    (r"(somewhat|much) softer and duller", _voice("voice.tilt", -1)),
    (r"recognised with certainty", _value("words.certainty", 0.5, 1)),
    (r"nearest to (\w+)", _value("subtitle.nearness.{}", -1, 1)),
    (
        r"^The subtitle \((given|recognised with certainty \d\.\d\d)\) reads ",
        lambda evidence, match: True,
    ),
]


def check(clue: Clue) -> None:
    """Fail where a number or a claim of a clue is not borne out by its evidence."""
    assert not unsupported(clue), (unsupported(clue), clue)
    evidence = {m.measure: m for m in clue.evidence}
    plain = re.sub(r'"[^"]*"', "", clue.text)
    claims = [(m, rule) for pattern, rule in RULES if (m := re.search(pattern, plain))]
    assert claims, f"no rule knows {clue.text!r}"
    for match, rule in claims:
        assert rule(evidence, match), (match[0], clue)
