"""A folder of images as a clip: sorted by number, `fps` of them a second, the chosen ones read."""

import io
import re
from collections.abc import Sequence
from typing import Final

import av
import numpy as np

from emer_ray import storage
from emer_ray.config import MediaConfig
from emer_ray.errors import ClipError
from emer_ray.media.container import DECODER, open_container
from emer_ray.media.picture import Crop, Painter, check_pixels
from emer_ray.media.sampling import choose
from emer_ray.media.track import Media, Pictures, Window
from emer_ray.records import Frames

_ENDINGS: Final = (".jpg", ".jpeg", ".png")


def read(
    uri: str, fps: float, window: Window, settings: MediaConfig, crop: Crop | None = None
) -> Media:
    """Decode the chosen images of a folder, local or s3; picture k is shown from k / fps on.

    Raises `ClipError` (`missing`, `too_large`, `truncated`) and `StorageError`.
    """
    images = _images(uri, settings)
    declared_s = window.asked_s
    if declared_s is None:
        declared_s = len(images) / fps - window.start_s
    if declared_s > settings.max_window_s:
        raise ClipError(
            "too_large",
            f"{uri}: {declared_s:.0f} s of images; media.max_window_s is "
            f"{settings.max_window_s:g}, give start_s and end_s",
        )
    times_s = [round(k / fps - window.start_s, 6) for k in range(len(images))]
    inside = [k for k, time_s in enumerate(times_s) if 0 <= time_s < declared_s]
    if not inside:
        raise ClipError(
            "truncated",
            f"{uri}: {len(images)} images at {fps:g} fps have none in the window "
            f"from {window.start_s:g} s on",
        )
    shown_s = [times_s[k] for k in inside]
    chosen = choose(shown_s, shown_s[-1] + 1 / fps, settings)
    painter = Painter(settings, crop)
    found = {
        index: picture
        for index in dict.fromkeys(chosen)
        if (picture := _painted(images[inside[index]], settings, painter)) is not None
    }
    kept = [index for index in chosen if index in found]
    return Media(
        declared_s=declared_s,
        pictures=Pictures(
            frames=np.stack([found[index] for index in kept]) if kept else None,
            times_s=tuple(shown_s[index] for index in kept),
            width=painter.width,
            height=painter.height,
            fps=fps,
            variable_rate=False,
            rotation_deg=painter.rotation_deg,
            codec="images",
            decoded_s=len(inside) / fps * len(found) / len(set(chosen)),
            expected_s=len(inside) / fps,
        ),
        sound=None,
        decoder=DECODER,
    )


def _images(uri: str, settings: MediaConfig) -> Sequence[str]:
    folder = uri.rstrip("/")
    images = [
        entry.uri
        for entry in storage.listing(folder)
        if entry.uri.lower().endswith(_ENDINGS)
        and entry.uri.rpartition("/")[0] == folder
        and entry.size <= settings.max_mb * 2**20
    ]
    if not images:
        raise ClipError("missing", f"{uri}: no jpg or png here; check the folder of this clip")
    return sorted(images, key=_counted)


def _counted(uri: str) -> list[str | int]:
    """Order 2.jpg before 10.jpg: corpora number their pictures without zeros (DFEW)."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", uri)]


def _painted(uri: str, settings: MediaConfig, painter: Painter) -> Frames | None:
    """Decode one image; None when it is damaged."""
    try:
        source = io.BytesIO(storage.read(uri))
        with open_container(source, uri, settings, "jpeg_pipe,png_pipe") as container:
            stream = container.streams.video[0]
            check_pixels(stream.width, stream.height, uri, settings)
            return next((painter.paint(frame) for frame in container.decode(stream)), None)
    except MemoryError:
        raise
    except av.FFmpegError:
        return None
    except ClipError as error:
        if error.kind not in ("corrupt", "not_media"):
            raise
        return None
