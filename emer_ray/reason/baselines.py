"""What a voice is measured against: the run's own clips, else published norms, else nothing.

Pitch and loudness have no norm: the one depends on who speaks, the other on the microphone. They
are called high or loud against the run's own clips only.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from emer_ray.records import Measure

Baselines = Mapping[str, tuple[float, float, int]]
"""Measure -> median, spread, number of clips behind them."""

MEASURED: Final = (
    "f0.median",
    "f0.range",
    "speech.rate",
    "loudness.median",
    "loudness.range",
    "voice.tilt",
)
LEAST_CLIPS: Final = 5
LEAST_SPREAD: Final = 0.05
"""As a share of the median: clips that are all alike must not make every difference large."""

NORMS: Final[Mapping[str, tuple[float, float]]] = {
    "f0.range": (6.7, 2.3),
    "speech.rate": (4.2, 1.0),
}
"""Median and spread in adult conversation, from the literature, not measured again here: pitch is
said to vary by a standard deviation of some 2 to 4 semitones, English conversation to run at some 4
syllables per second."""

NORM_SOURCE: Final = "published norm of adult conversation"


def voice_baselines(clips: Sequence[Sequence[Measure]]) -> dict[str, tuple[float, float, int]]:
    """Compute the baselines of a run from the measures of its clips, in any order.

    A measure that fewer than `LEAST_CLIPS` clips have gets none.
    """
    values: dict[str, list[float]] = {name: [] for name in MEASURED}
    for measures in clips:
        for measure in measures:
            if measure.measure in values and measure.value is not None:
                values[measure.measure].append(measure.value)
    return {name: _centre(found) for name, found in values.items() if len(found) >= LEAST_CLIPS}


def against(name: str, baselines: Baselines) -> tuple[float, float, str] | None:
    """Give median, spread and source for a measure, or None where nothing can be claimed."""
    if name in baselines:
        median, spread, n = baselines[name]
        return median, spread, f"median of {n} clips of this run"
    if name in NORMS:
        return *NORMS[name], NORM_SOURCE
    return None


def _centre(values: Sequence[float]) -> tuple[float, float, int]:
    found = np.sort(np.asarray(values, np.float64))
    median = float(np.median(found))
    # 1.4826 makes the median deviation a standard deviation where values are normal
    spread = 1.4826 * float(np.median(np.abs(found - median)))
    return round(median, 4), round(max(spread, LEAST_SPREAD * abs(median)), 4), len(found)
