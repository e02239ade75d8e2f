"""How a measure is written inside a sentence, and how measures are looked up by name.

A number is spelled in one place only, so that a sentence and its evidence cannot drift apart.
"""

import re
from collections.abc import Mapping
from typing import Final

from emer_ray.records import Clue, Clues, Measure

Found = Mapping[str, Measure]

DIGITS: Final[Mapping[str, int]] = {
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
}
"""Digits after the point by unit; two where a unit is not listed."""


def index(clues: Clues) -> dict[str, Measure]:
    """Give the measures by name; those without a value are left out."""
    return {m.measure: m for m in clues.measures if m.value is not None}


def number(found: Found, name: str) -> float:
    """Give a measure's value, 0 where it was not measured."""
    measure = found.get(name)
    return 0.0 if measure is None or measure.value is None else measure.value


def without_numbers(clue: Clue) -> str:
    """Give the plain statement of a clue: brackets and the final stop taken off."""
    return re.sub(r" \([^()]*\)", "", clue.text).rstrip(".")


def pick(found: Found, *names: str) -> tuple[Measure, ...]:
    """Give the measures of these names, as far as they are there."""
    return tuple(found[name] for name in names if name in found)


def spelled(measure: Measure) -> str:
    """Write a measure's value with the digits its unit deserves."""
    return written(measure.value or 0.0, measure.unit)


def written(amount: float, unit: str) -> str:
    """Write a number with the digits its unit deserves."""
    digits = DIGITS.get(unit, 2)
    text = f"{amount:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def percent(measure: Measure) -> str:
    """Write a share as a percentage."""
    return f"{100 * (measure.value or 0):.0f} %"


def seconds(time: float | None) -> str:
    """Write a time without its unit."""
    return written(time or 0.0, "s")


def span(measure: Measure) -> str:
    """Write when a measure holds."""
    start, end = seconds(measure.start_s), seconds(measure.end_s)
    return f"at {start} s" if start == end else f"from {start} to {end} s"


def at(measure: Measure) -> str:
    """Say value, time and baseline of a length in the face."""
    unit = " of the eye distance" if measure.unit == "eye distances" else ""
    text = f"{spelled(measure)}{unit} at {seconds(measure.start_s)} s"
    if measure.baseline is None:
        return text
    return f"{text}, {measure.baseline_source} {written(measure.baseline, measure.unit)}"
