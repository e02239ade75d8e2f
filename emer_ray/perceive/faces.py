"""Find faces in pictures and measure them: BlazeFace (full range) finds, a 468-point mesh fits,
geometry measures.

Both networks are Google's (Apache-2.0), run by LiteRT on one thread; the decoding code is ours.
Knows single pictures only: `tracks` joins them over time.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from emer_ray.perceive.runtime import interpreter
from emer_ray.records import Frames

Array = npt.NDArray[np.float32]

DETECTOR_PX: Final = 192
DETECTOR_STRIDE: Final = 4
MESH_PX: Final = 192
DETECTION_SCORE: Final = 0.6
MESH_SCORE: Final = 0.5
SAME_FACE_IOU: Final = 0.3
TILE: Final = 0.6
"""Side of a tile as a share of the picture; 2 x 2 tiles overlap by a third."""
FACES_PER_FRAME: Final = 6
"""The largest ones; a crowd costs 2 ms a face and holds no more main characters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Face:
    """A face in one picture, in pixels of that picture."""

    box: Array
    """x0, y0, x1, y1."""
    score: float
    points: Array
    """[468, 3] mesh; z in pixels too, towards the camera negative."""
    roll_deg: float


@dataclass(frozen=True, slots=True)
class _Detection:
    score: float
    box: Array
    eyes: Array
    """[2, 2]: the eye on the left of the picture, the one on the right."""


class FaceFinder:
    """Two loaded networks; not thread-safe."""

    def __init__(self, detector: Path, mesh: Path) -> None:
        self._detector = interpreter(detector)
        self._mesh = interpreter(mesh)
        outputs = self._detector.get_output_details()
        self._boxes = next(d["index"] for d in outputs if d["shape"][-1] == 16)
        self._scores = next(d["index"] for d in outputs if d["shape"][-1] == 1)
        outputs = self._mesh.get_output_details()
        self._points = next(d["index"] for d in outputs if d["shape"][-1] == 468 * 3)
        self._present = next(d["index"] for d in outputs if d["shape"][-1] == 1)
        grid = (np.arange(DETECTOR_PX // DETECTOR_STRIDE, dtype=np.float32) + 0.5) / (
            DETECTOR_PX // DETECTOR_STRIDE
        )
        self._anchors = np.stack(np.meshgrid(grid, grid), axis=-1).reshape(-1, 2)

    def find(self, picture: Frames) -> list[Face]:
        """Return the faces of an RGB picture [height, width, 3], largest first.

        Tiles are searched only where the whole picture shows nobody and is not tiny: they find
        faces half as large, at five times the cost.
        """
        found = self._detect(picture)
        height, width = picture.shape[:2]
        if not found and min(height, width) >= DETECTOR_PX / 2:
            for y in (0, int(height * (1 - TILE))):
                for x in (0, int(width * (1 - TILE))):
                    tile = picture[y : y + int(height * TILE), x : x + int(width * TILE)]
                    found += [_moved(d, x, y) for d in self._detect(tile)]
        distinct: list[_Detection] = []
        for detection in sorted(found, key=lambda d: -d.score):
            if all(overlap(detection.box, other.box) < SAME_FACE_IOU for other in distinct):
                distinct.append(detection)
        distinct.sort(key=lambda d: -float(d.box[3] - d.box[1]))
        faces = [self._fit(picture, detection) for detection in distinct[:FACES_PER_FRAME]]
        return [face for face in faces if face is not None]

    def _detect(self, picture: Frames) -> list[_Detection]:
        height, width = picture.shape[:2]
        side = max(height, width)
        square = np.zeros((side, side, 3), np.uint8)
        top, left = (side - height) // 2, (side - width) // 2
        square[top : top + height, left : left + width] = picture
        small = cv2.resize(square, (DETECTOR_PX, DETECTOR_PX), interpolation=cv2.INTER_AREA)
        self._detector.set_tensor(
            self._detector.get_input_details()[0]["index"],
            (small.astype(np.float32) / 127.5 - 1)[None],
        )
        self._detector.invoke()
        raw = self._detector.get_tensor(self._boxes)[0]
        logits = self._detector.get_tensor(self._scores)[0, :, 0]
        scores = 1 / (1 + np.exp(-np.clip(logits, -80, 80)))
        found = []
        for k in np.flatnonzero(scores > DETECTION_SCORE):
            # x, y, width, height, then six points, all in detector pixels relative to the anchor's
            # centre
            values = raw[k] / DETECTOR_PX
            centre = values[:2] + self._anchors[k]
            corners = np.stack([centre - values[2:4] / 2, centre + values[2:4] / 2])
            eyes = values[4:8].reshape(2, 2) + self._anchors[k]
            shift = np.array([left, top], np.float32)
            found.append(
                _Detection(float(scores[k]), (corners * side - shift).ravel(), eyes * side - shift)
            )
        return found

    def _fit(self, picture: Frames, detection: _Detection) -> Face | None:
        x0, y0, x1, y1 = detection.box
        across = detection.eyes[1] - detection.eyes[0]
        roll = math.atan2(float(across[1]), float(across[0]))
        centre = np.array([(x0 + x1) / 2, (y0 + y1) / 2])
        # the mesh expects the detection turned upright and enlarged by half
        crop, to_picture = upright_crop(
            picture, centre, 1.5 * float(max(x1 - x0, y1 - y0)), roll, MESH_PX
        )
        self._mesh.set_tensor(
            self._mesh.get_input_details()[0]["index"], crop[None].astype(np.float32) / 255
        )
        self._mesh.invoke()
        logit = float(self._mesh.get_tensor(self._present).ravel()[0])
        if 1 / (1 + math.exp(-max(-80.0, min(80.0, logit)))) < MESH_SCORE:
            return None
        points = self._mesh.get_tensor(self._points).reshape(468, 3)
        scale = float(np.hypot(*to_picture[:, 0]))
        flat = points[:, :2] @ to_picture[:, :2].T + to_picture[:, 2]
        return Face(
            box=detection.box.astype(np.float32),
            score=detection.score,
            points=np.concatenate([flat, points[:, 2:] * scale], axis=1).astype(np.float32),
            roll_deg=math.degrees(roll),
        )


def upright_crop(
    picture: Frames, centre: Array, side: float, roll: float, size_px: int
) -> tuple[Frames, npt.NDArray[np.float64]]:
    """Cut a square around `centre`, turned by `roll` (radians); also return the 2 x 3 map from crop
    to picture."""
    scale = side / size_px
    turn = np.array([[math.cos(roll), -math.sin(roll)], [math.sin(roll), math.cos(roll)]]) * scale
    middle = np.array([size_px / 2, size_px / 2])
    to_picture = np.concatenate([turn, (centre - turn @ middle)[:, None]], axis=1)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    crop = cv2.warpAffine(picture, to_picture, (size_px, size_px), flags=flags)
    return np.asarray(crop, np.uint8), to_picture


def overlap(a: Array, b: Array) -> float:
    """Intersection over union of two boxes."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return float(width * height / (both - width * height))


def _moved(detection: _Detection, x: int, y: int) -> _Detection:
    box = detection.box + np.array([x, y, x, y], np.float32)
    return _Detection(detection.score, box, detection.eyes + np.array([x, y], np.float32))


NEUTRAL_FACE: Final = {
    "mouth_open": (0.02, 0.03),
    "mouth_width": (0.58, 0.04),
    "corner_lift": (-0.005, 0.01),
    "corner_drop": (0.27, 0.02),
}
"""Neutral face: median and spread between people, in eye distances. The medians are of the five
neutral faces in the test media; the spread of the width is about what the literature gives for
mouths, not measured again here, the others are set so that those five lie well inside. Brows and
eyes have none: they differ more between people than between moods."""

NEUTRAL_SOURCE: Final = "typical neutral face"
SMILE_SPREADS: Final = 1.5
DROPPED_SPREADS: Final = 0.5
WIDE_OPEN: Final = 0.12
"""Opening of the mouth, in eye distances, that speech passes only for the length of a vowel."""
MOST_YAW_DEG: Final = 35.0
"""Beyond this the far half of the mesh is a guess."""
POSE_DEG: Final = 10.0
"""Brows and eyes are compared between pictures whose head pose lies this near the clip's median: a
nod changes them as much as a mood does."""


def geometry(face: Face) -> dict[str, float]:
    """Measure a face; names as in `measures.GEOMETRY`, and yaw_deg, pitch_deg.

    Distances are taken in three dimensions, heights along the line from chin to forehead, so that a
    turned or tilted head changes them little.
    """
    points = face.points.astype(np.float64)

    def distance(a: int, b: int) -> float:
        return float(np.linalg.norm(points[a] - points[b]))

    eyes = distance(33, 263) + 1e-6
    up = points[10] - points[152]
    up = up / (np.linalg.norm(up) + 1e-6)

    def above(a: int, b: int) -> float:
        return float(np.dot(points[a] - points[b], up)) / eyes

    across = points[263] - points[33]
    return {
        "mouth_open": distance(13, 14) / eyes,
        "mouth_width": distance(61, 291) / eyes,
        "corner_lift": (above(61, 13) + above(291, 13) + above(61, 14) + above(291, 14)) / 4,
        "corner_drop": (above(2, 61) + above(2, 291)) / 2,
        "eye_open": (
            distance(159, 145) / distance(33, 133) + distance(386, 374) / distance(263, 362)
        )
        / 2,
        "brow_height": (above(55, 133) + above(285, 362)) / 2,
        "brow_gap": distance(55, 285) / eyes,
        "yaw_deg": math.degrees(math.atan2(float(across[2]), float(across[0]))),
        "pitch_deg": math.degrees(math.asin(max(-1.0, min(1.0, float(up[2]))))),
    }


def has_smile_shape(values: dict[str, float]) -> bool:
    """Tell whether the mouth is wide and its corners lie high, against a typical neutral face.

    All together: pressed lips are wide but not lifted, a mouth open for a vowel is lifted but not
    wide, and a mouth that drops open takes its corners down with it.
    """
    lifted = min(_spreads(values, "mouth_width"), _spreads(values, "corner_lift"))
    return lifted >= SMILE_SPREADS and _spreads(values, "corner_drop") <= DROPPED_SPREADS


def _spreads(values: dict[str, float], name: str) -> float:
    median, spread = NEUTRAL_FACE[name]
    return (values[name] - median) / spread
