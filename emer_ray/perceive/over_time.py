"""Measure one face over time: medians, apexes, stretches, rhythm. Arithmetic only, no networks."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from emer_ray.perceive.expression import CLASSES
from emer_ray.perceive.faces import (
    MOST_YAW_DEG,
    NEUTRAL_FACE,
    NEUTRAL_SOURCE,
    POSE_DEG,
    WIDE_OPEN,
    geometry,
    has_smile_shape,
)
from emer_ray.perceive.measures import GEOMETRY, measure
from emer_ray.perceive.tracks import Track
from emer_ray.perceive.voice import Segment, is_speech
from emer_ray.records import Measure

Values = npt.NDArray[np.float64]

OWN_MEDIAN_S: Final = 3.0
"""A face seen over at least this long is measured against its own median."""
OWN_SOURCE: Final = "own median"
RHYTHM_HZ: Final = 3.5
"""Slower sampling cannot show the rhythm of speech."""
POSED: Final = frozenset({"brow_height", "brow_gap", "eye_open"})
"""Measures that a nod or a turn of the head changes."""
TURN: Final = 0.03
"""Change of the mouth's opening, in eye distances, that counts as opening or closing."""


def geometric(track: Track, times: Values, speech: Sequence[Segment]) -> list[Measure]:
    """Measure the geometry of one face over time; nothing where it is turned away throughout."""
    rows = [geometry(face) for face in track.faces]
    at = times[track.frames]
    yaw = np.abs([row["yaw_deg"] for row in rows])
    out = [measure("head.yaw", float(np.median(yaw)))]
    if at[-1] > at[0]:
        out.append(measure("head.motion", _motion(track, at)))
    frontal = yaw <= MOST_YAW_DEG
    if not frontal.any():
        return out
    rows = [row for row, keep in zip(rows, frontal, strict=True) if keep]
    at = at[frontal]
    long = at[-1] - at[0] >= OWN_MEDIAN_S
    calm = _near_own_pose(rows)
    for name in GEOMETRY:
        values = np.array([row[name] for row in rows])
        apexes = calm if name in POSED else slice(None)
        median = float(np.median(values[apexes]))
        typical = NEUTRAL_FACE[name][0] if name in NEUTRAL_FACE else None
        normal = None if typical is None else (typical, NEUTRAL_SOURCE)
        own = (median, OWN_SOURCE) if long else normal
        out.append(measure(f"{name}.median", median, against=normal))
        for statistic, share in (("p10", 10), ("p90", 90)):
            value, apex = percentile(values[apexes], at[apexes], share)
            out.append(measure(f"{name}.{statistic}", value, when=(apex, apex), against=own))
    smiles = np.array([has_smile_shape(row) for row in rows])
    out.append(measure("smile.share", smiles.mean(), when=longest(smiles, at)))
    opening = np.array([row["mouth_open"] for row in rows])
    wide = (opening > WIDE_OPEN) & ~smiles
    held = longest(wide, at)
    out.append(measure("mouth_open.wide", wide.mean()))
    out.append(measure("mouth_open.hold", held[1] - held[0] if held else 0, when=held))
    if wide.any() and speech:
        out.append(measure("mouth_open.in_speech", is_speech(at[wide], speech).mean()))
    if at[-1] > at[0] and float(np.median(np.diff(at))) <= 1 / RHYTHM_HZ:
        out.append(measure("mouth_open.rhythm", turns(opening) / float(at[-1] - at[0])))
    return out


def expressive(read: Values, at: Values) -> list[Measure]:
    """Measure what the networks read: [pictures, networks, 7] probabilities."""
    mean = read.mean(axis=1)
    out = []
    for i, name in enumerate(CLASSES):
        value, apex = percentile(mean[:, i], at, 90)
        out.append(measure(f"expression.{name}.mean", mean[:, i].mean()))
        out.append(measure(f"expression.{name}.p90", value, when=(apex, apex)))
    if read.shape[1] > 1:
        shared = np.minimum(read[:, 0], read[:, 1]).sum(axis=1)
        out.append(measure("expression.agreement", shared.mean()))
    return out


def percentile(values: Values, at: Values, share: float) -> tuple[float, float]:
    """Give a percentile that is one of the values, and its time: the apex."""
    value = float(np.percentile(values, share, method="nearest"))
    return value, float(at[int(np.flatnonzero(values == value)[0])])


def longest(holds: npt.NDArray[np.bool_], at: Values) -> tuple[float, float] | None:
    """Find the longest run of pictures in which something holds: the times of its first and last.

    It may have lasted up to a picture longer on either side. None where it never holds.
    """
    if not holds.any():
        return None
    edges = np.flatnonzero(np.diff(np.concatenate([[0], holds.astype(np.int8), [0]])))
    runs = [(float(at[a]), float(at[b - 1])) for a, b in edges.reshape(-1, 2)]
    return max(runs, key=lambda run: run[1] - run[0])


def turns(values: Values) -> int:
    """Count how often a series turns between rising and falling, changes below `TURN` ignored."""
    count = direction = 0
    low = high = float(values[0])
    for value in values[1:].tolist():
        low, high = min(low, value), max(high, value)
        if direction >= 0 and value < high - TURN:
            count += direction != 0
            direction, low = -1, value
        elif direction <= 0 and value > low + TURN:
            count += direction != 0
            direction, high = 1, value
    return count


def _near_own_pose(rows: Sequence[Mapping[str, float]]) -> npt.NDArray[np.bool_]:
    """Find the pictures whose head pose lies near the clip's median; all of them if none does."""
    near = np.ones(len(rows), np.bool_)
    for name in ("yaw_deg", "pitch_deg"):
        angles = np.array([row[name] for row in rows])
        near &= np.abs(angles - np.median(angles)) <= POSE_DEG
    return near if near.any() else np.ones(len(rows), np.bool_)


def _motion(track: Track, at: Values) -> float:
    """Mean speed of the face's centre, in its own eye distances per second."""
    centres = np.array([(face.box[:2] + face.box[2:]) / 2 for face in track.faces])
    eyes = np.median([np.linalg.norm(face.points[33] - face.points[263]) for face in track.faces])
    return float(np.hypot(*np.diff(centres, axis=0).T).sum() / (eyes + 1e-6) / (at[-1] - at[0]))
