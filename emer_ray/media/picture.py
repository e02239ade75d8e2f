"""One decoded picture made ready: upright, cropped, resized, RGB."""

from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from emer_ray.config import MediaConfig
from emer_ray.errors import ClipError
from emer_ray.media.sampling import target_size
from emer_ray.records import Frames

Crop = tuple[float, float, float, float]
"""x0, y0, x1, y1 as fractions of the upright picture."""


def check_pixels(width: int, height: int, uri: str, settings: MediaConfig) -> None:
    """Refuse a picture by its declared size, before anything of that size is allocated."""
    if width * height > settings.max_pixels:
        raise ClipError(
            "too_large",
            f"{uri}: pictures of {width}x{height}; raise media.max_pixels "
            f"(now {settings.max_pixels})",
        )


class Painter:
    """Turns the pictures of one clip into arrays of one size, that of the first."""

    def __init__(self, settings: MediaConfig, crop: Crop | None) -> None:
        self.width = self.height = self.rotation_deg = 0
        self._settings, self._crop = settings, crop
        self._size: tuple[int, int] | None = None
        self._scaler = VideoReformatter()  # keeps its tables between pictures of equal size

    def paint(self, frame: Any) -> Frames:
        """Give [height, width, 3] RGB of a decoded frame; scaling is done by libswscale."""
        turn_deg = -round(frame.rotation / 90) * 90 % 360
        upright = (frame.width, frame.height)[:: -1 if turn_deg % 180 else 1]
        if self._size is None:
            self.width, self.height = upright
            self.rotation_deg = turn_deg
        if self._crop is not None:
            x0, y0, x1, y1 = _pixels(self._crop, *upright)
            whole = np.rot90(frame.to_ndarray(format="rgb24"), -turn_deg // 90)
            cut = np.ascontiguousarray(whole[y0:y1, x0:x1])
            frame, upright, turn_deg = av.VideoFrame.from_ndarray(cut), (x1 - x0, y1 - y0), 0
        if self._size is None:
            self._size = target_size(upright[0], upright[1], self._settings)
        width, height = self._size[:: -1 if turn_deg % 180 else 1]
        scaled = self._scaler.reformat(frame, width, height, "rgb24").to_ndarray()
        return np.rot90(scaled, -turn_deg // 90)


def _pixels(crop: Crop, width: int, height: int) -> tuple[int, int, int, int]:
    """Edges of a crop in whole pixels, at least one wide and high."""
    x0, y0 = min(int(crop[0] * width), width - 1), min(int(crop[1] * height), height - 1)
    return x0, y0, max(round(crop[2] * width), x0 + 1), max(round(crop[3] * height), y0 + 1)
