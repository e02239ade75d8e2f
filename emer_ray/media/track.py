"""What the readers of pictures and of sound hand over: the data, and what was found on the way."""

from dataclasses import dataclass

from emer_ray.records import Frames, Pcm


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The part of a file to look at, seconds on the file's clock."""

    start_s: float
    end_s: float | None
    """Null = end of file."""

    @property
    def asked_s(self) -> float | None:
        """Length the manifest asks for; null where it leaves the end open."""
        return None if self.end_s is None else round(self.end_s - self.start_s, 6)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    """The video of a window."""

    frames: Frames | None
    """[n, height, width, 3] RGB; null when none decoded."""
    times_s: tuple[float, ...]
    width: int
    """Upright picture before any crop or resize."""
    height: int
    fps: float | None
    variable_rate: bool | None
    rotation_deg: int
    codec: str
    decoded_s: float
    expected_s: float
    """Seconds that the file's own words promise for this window."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sound:
    """The audio of a window."""

    pcm: Pcm | None
    """Mono float32 at 16 kHz, from the start of the window; null when none decoded."""
    hz: int
    codec: str
    decoded_s: float
    expected_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Media:
    """What one file gave."""

    declared_s: float | None
    """Length of the window: the manifest's word, else the container's, else null."""
    pictures: Pictures | None
    """Null = the file has no such track in this window."""
    sound: Sound | None
    decoder: str
