"""How much of a window a stream promises."""

from typing import Any


def promised_s(stream: Any, start_s: float, end_s: float) -> float | None:
    """Seconds of a stream within a window, by the container's word; null where it says nothing."""
    if not stream.duration or stream.duration < 0:
        return None
    from_s = float((stream.start_time or 0) * stream.time_base)
    until_s = from_s + float(stream.duration * stream.time_base)
    return max(min(until_s, end_s) - max(from_s, start_s), 0.0)
