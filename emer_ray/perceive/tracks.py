"""Follow faces from picture to picture, and choose the main character.

The stated rule: size x time x mouth motion during speech. A shot change that puts another face in
the same place goes unnoticed: nothing here recognises people.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from emer_ray.perceive.faces import Face, geometry, overlap

GAP_S: Final = 1.5
"""A face may be unseen for this long and still be the same one."""
LEAST_OVERLAP: Final = 0.1
NEAR: Final = 0.75
"""Without overlap: centres at most this many face heights apart."""
LIKE_SIZE: Final = 1.6
LEAST_SHARE: Final = 0.1
"""A face seen in fewer pictures than this is a false alarm or a passer-by."""
FULL_MOTION: Final = 0.05
"""Spread of the mouth's opening, in eye distances, that counts as talking outright."""


@dataclass(slots=True)
class Track:
    """One face over time: the pictures it is seen in, by index, and the face in each."""

    frames: list[int] = field(default_factory=list)
    faces: list[Face] = field(default_factory=list)


def follow(found: Sequence[Sequence[Face]], times_s: Sequence[float]) -> list[Track]:
    """Join the faces of each picture into tracks; the best match first, each face in one track."""
    tracks: list[Track] = []
    for frame, faces in enumerate(found):
        alive = [t for t in tracks if times_s[frame] - times_s[t.frames[-1]] <= GAP_S]
        pairs = sorted(
            (
                (-likeness, t, f)
                for t, track in enumerate(alive)
                for f, face in enumerate(faces)
                if (likeness := _likeness(track.faces[-1], face)) > 0
            ),
        )
        taken_tracks: set[int] = set()
        taken_faces: set[int] = set()
        for _, t, f in pairs:
            if t not in taken_tracks and f not in taken_faces:
                taken_tracks.add(t)
                taken_faces.add(f)
                alive[t].frames.append(frame)
                alive[t].faces.append(faces[f])
        tracks += [Track([frame], [face]) for f, face in enumerate(faces) if f not in taken_faces]
    least = 1 if len(found) < 4 else max(2, round(LEAST_SHARE * len(found)))
    return [track for track in tracks if len(track.frames) >= least]


def prominence(track: Track, n_frames: int, height_px: int, speaking: Sequence[bool]) -> float:
    """Score a track by size x time x mouth motion during speech; talking counts double."""
    size = float(np.median([face.box[3] - face.box[1] for face in track.faces])) / height_px
    opening = [
        geometry(face)["mouth_open"]
        for frame, face in zip(track.frames, track.faces, strict=True)
        if speaking[frame]
    ]
    motion = min(1.0, float(np.std(opening)) / FULL_MOTION) if len(opening) > 1 else 0.0
    return size * len(track.frames) / n_frames * (1 + motion)


def _likeness(a: Face, b: Face) -> float:
    """0 = not the same face; above 1 = the boxes overlap."""
    shared = overlap(a.box, b.box)
    if shared >= LEAST_OVERLAP:
        return 1 + shared
    heights = float(a.box[3] - a.box[1]), float(b.box[3] - b.box[1])
    apart = float(np.hypot(*(_centre(a) - _centre(b)))) / max(heights)
    if apart > NEAR or max(heights) > LIKE_SIZE * min(heights):
        return 0.0
    return 1 - apart


def _centre(face: Face) -> np.ndarray:
    return (face.box[:2] + face.box[2:]) / 2
