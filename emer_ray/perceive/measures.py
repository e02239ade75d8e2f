"""Every measure that perception can read off a clip: its name, its unit, what it says.

The statistic is part of the name. `median` and `p10`/`p90` are over the pictures that show the main
face (or over voiced speech); a `p10`/`p90` carries the time of the picture that comes nearest to
it, the apex. Lengths in the face are in *eye distances* (between the outer corners of the eyes), so
that they depend neither on the size of the picture nor on the distance to the camera.
"""

from typing import Final

from emer_ray.perceive.expression import CLASSES
from emer_ray.records import Measure

GEOMETRY: Final = {
    "mouth_open": "gap between the inner lips",
    "mouth_width": "distance of the mouth corners from each other",
    "corner_lift": "height of the mouth corners above the middle of the lips",
    "corner_drop": "distance of the mouth corners below the base of the nose",
    "eye_open": "height of the eyes as a share of their width",
    "brow_height": "height of the inner ends of the brows above the inner eye corners",
    "brow_gap": "distance of the inner ends of the brows from each other",
}
"""Geometry of one face, named as `faces.geometry` gives it."""

STATISTICS: Final = ("median", "p10", "p90")

MEASURES: Final[dict[str, tuple[str, str]]] = {
    "frames.seen": ("pictures", "pictures looked at"),
    "face.tracks": ("faces", "faces followed over time"),
    "face.coverage": ("share", "share of the pictures that show the main face"),
    "face.lead": ("share", "how far the main face leads the next one; 1 = there is no other"),
    "face.height": ("share", "median height of the main face as a share of the picture's height"),
    "head.yaw": ("degrees", "median turn of the head to the side, without its sign"),
    "head.motion": ("eye distances per s", "mean speed of the face in the picture"),
    **{
        f"{name}.{statistic}": (
            "share" if name == "eye_open" else "eye distances",
            f"{says}, {statistic}",
        )
        for name, says in GEOMETRY.items()
        for statistic in STATISTICS
    },
    "smile.share": ("share", "share of the pictures with the shape of a smile; longest stretch"),
    "mouth_open.wide": ("share", "share of the pictures with the mouth wide open and no smile"),
    "mouth_open.hold": ("s", "longest stretch of these"),
    "mouth_open.rhythm": ("per s", "how often the mouth turns between opening and closing"),
    "mouth_open.in_speech": ("share", "share of the same pictures that fall into speech"),
    **{
        f"expression.{name}.{statistic}": ("probability", f"networks' {name}, {statistic}")
        for name in CLASSES
        for statistic in ("mean", "p90")
    },
    "expression.agreement": ("share", "overlap of the two networks' distributions, mean"),
    "sound.seconds": ("s", "length of the sound"),
    "sound.level": ("dBFS", "root mean square of the whole sound"),
    "speech.seconds": ("s", "speech, from its first to its last stretch, without pauses"),
    "speech.pauses": ("pauses", "pauses of 0.2 s or more between stretches of speech"),
    "speech.pause_seconds": ("s", "silence inside speech, all pauses together"),
    "speech.rate": ("syllables per s", "voiced peaks of loudness per second of speech"),
    "f0.median": ("Hz", "pitch of voiced speech"),
    "f0.p90": ("Hz", "high pitch of voiced speech, at its time"),
    "f0.range": ("semitones", "from the 10th to the 90th percentile of pitch"),
    "f0.end": ("semitones", "pitch of the last fifth of voiced speech against the whole"),
    "voice.voiced": ("share", "share of speech that is voiced"),
    "words.certainty": ("probability", "geometric mean over the recognised words"),
    "loudness.median": ("dBFS", "level of speech"),
    "loudness.range": ("dB", "from the 20th to the 95th percentile of the level of speech"),
    "voice.tilt": ("dB", "energy of speech from 1 to 5 kHz against the energy below 1 kHz"),
}


def measure(
    name: str,
    value: float,
    *,
    when: tuple[float, float] | None = None,
    against: tuple[float, str] | None = None,
) -> Measure:
    """Make a measure of a known name: `when` in seconds, `against` a baseline and its source.

    Four decimals are more than any of them is good for.
    """
    start_s, end_s = (None, None) if when is None else (round(float(t), 3) for t in when)
    return Measure(
        measure=name,
        value=round(float(value), 4),
        unit=MEASURES[name][0],
        start_s=start_s,
        end_s=end_s,
        baseline=None if against is None else round(float(against[0]), 4),
        baseline_source=None if against is None else against[1],
    )
