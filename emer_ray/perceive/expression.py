"""Read the expression of a face: the mean of two small networks over seven classes.

Each alone is wrong in its own way (one is over-confident, the other takes surprise for fear); the
mean of both is better than either. Trained on posed and scraped pictures: a baseline, not a judge.
Anger, sadness, fear and disgust are untested here for want of pictures with usable rights.
"""

from pathlib import Path
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from emer_ray.perceive.faces import Face, upright_crop
from emer_ray.perceive.runtime import interpreter, session
from emer_ray.records import Frames

CLASSES: Final = ("neutral", "happy", "sad", "angry", "fearful", "disgusted", "surprised")
_FER_CLASSES: Final = ("angry", "disgusted", "fearful", "happy", "sad", "surprised", "neutral")
_FROM_FER: Final = [_FER_CLASSES.index(name) for name in CLASSES]
CROP_PX: Final = 112
FER_PX: Final = 64
MARGIN: Final = 1.05
"""Side of the crop as a multiple of the mesh's longer side."""


class ExpressionReader:
    """Two loaded networks, or the one that is there; not thread-safe."""

    def __init__(self, rgb: Path | None, grey: Path | None) -> None:
        self._rgb = None if rgb is None else session(rgb)
        self._grey = None if grey is None else interpreter(grey)

    def read(self, picture: Frames, face: Face) -> npt.NDArray[np.float64]:
        """Return [networks, 7] probabilities in the order of `CLASSES`."""
        flat = face.points[:, :2]
        low, high = flat.min(axis=0), flat.max(axis=0)
        side = MARGIN * float((high - low).max())
        crop, _ = upright_crop(picture, (low + high) / 2, side, np.radians(face.roll_deg), CROP_PX)
        rows = []
        if self._rgb is not None:
            rows.append(self._rgb.run(None, {"rgb": crop[None].astype(np.float32)})[0][0])
        if self._grey is not None:
            grey = cv2.resize(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), (FER_PX, FER_PX))
            scaled = (grey.astype(np.float32) / 255 - 0.5) * 2
            self._grey.set_tensor(
                self._grey.get_input_details()[0]["index"], scaled[None, :, :, None]
            )
            self._grey.invoke()
            output = self._grey.get_tensor(self._grey.get_output_details()[0]["index"])[0]
            rows.append(output[_FROM_FER])
        return np.asarray(rows, np.float64)
