"""How much of a clip there is to see and to hear, by the header of its file; nothing is decoded."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import av

from emer_ray import storage
from emer_ray.config import MediaConfig
from emer_ray.errors import ClipError, StorageError
from emer_ray.media.container import open_container
from emer_ray.media.source import is_far
from emer_ray.records import Clip


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """Seconds of a clip's window; 0 where there is no such track."""

    video_s: float
    audio_s: float


def extents(clips: Sequence[Clip], settings: MediaConfig) -> list[Extent | None]:
    """Tell what decoding would look at and listen to; None where no header says.

    A file that cannot be opened is among those: what is wrong with it, the run will say.
    """
    return [_extent(clip, settings) for clip in clips]


def _extent(clip: Clip, settings: MediaConfig) -> Extent | None:
    uri = clip.video_uri or clip.audio_uri
    if uri is None or clip.fps is not None:  # a folder of images has no header
        return None
    try:
        video, audio, whole_s = _header(uri, settings)
    except (ClipError, StorageError, OSError):
        return None
    end_s = clip.end_s if clip.end_s is not None else whole_s
    if end_s is None:
        return None
    seconds = max(0.0, end_s - (clip.start_s or 0.0))
    seen = clip.video_uri is not None and video
    heard = audio or (clip.video_uri is not None and clip.audio_uri is not None)
    return Extent(video_s=seconds * seen, audio_s=seconds * heard)


def _header(uri: str, settings: MediaConfig) -> tuple[bool, bool, float | None]:
    """Say whether there are pictures and sound, and for how many seconds."""
    if not is_far(uri):
        with open_container(uri, uri, settings) as container:
            return _told(container)
    with storage.open_file(uri) as file, open_container(file, uri, settings) as container:
        return _told(container)


def _told(container: Any) -> tuple[bool, bool, float | None]:
    seconds = container.duration / av.time_base if container.duration else None
    return bool(container.streams.video), bool(container.streams.audio), seconds
