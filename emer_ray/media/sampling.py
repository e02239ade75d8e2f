"""Which frames of a window to keep, and at which size. Pure arithmetic; knows no files.

`affectgpt` and `segment_start` are the rules of the published systems, by index; `centre` and `fps`
go by time, so that a variable frame rate does not bend them.
"""

from bisect import bisect_right
from collections.abc import Sequence

from emer_ray.config import MediaConfig


def choose(times_s: Sequence[float], end_s: float, settings: MediaConfig) -> list[int]:
    """Choose indices into frames shown at `times_s` (ascending), the last of them until `end_s`.

    `centre` and `fps` name each frame once, so they may give fewer than asked; the two upstream
    rules repeat the last frame instead.
    """
    n, length = settings.frames, len(times_s)
    if not length:
        return []
    match settings.sampling:
        case "centre":
            segment_s = (end_s - times_s[0]) / n
            return _shown(times_s, [times_s[0] + (k + 0.5) * segment_s for k in range(n)])
        case "fps":
            assert settings.fps is not None
            at_s = (times_s[0] + k / settings.fps for k in range(n))
            return _shown(times_s, [t for t in at_s if t < end_s])
        case "affectgpt":
            step = length / min(n, length)
            chosen = [int(k * step) for k in range(min(n, length))]
        case "segment_start":
            step = max(length // n, 1)
            chosen = list(range(0, length, step))[:n]
    return chosen + [chosen[-1]] * (n - len(chosen))


def _shown(times_s: Sequence[float], moments_s: Sequence[float]) -> list[int]:
    """Index the frames on display at some moments, each frame once."""
    # A frame that starts within the tick of a millisecond clock after the moment counts as begun.
    found = (max(bisect_right(times_s, moment + 1.001e-3) - 1, 0) for moment in moments_s)
    return list(dict.fromkeys(found))


def target_size(width: int, height: int, settings: MediaConfig) -> tuple[int, int]:
    """Size (width, height) of the kept frames of an upright, cropped picture."""
    if settings.resize == "square":
        return settings.size_px, settings.size_px
    shorter = min(width, height)
    if settings.resize == "none" or shorter <= settings.size_px:
        return width, height
    scale = settings.size_px / shorter
    return max(round(width * scale), 1), max(round(height * scale), 1)
