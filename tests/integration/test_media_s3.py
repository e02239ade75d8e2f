"""Clips on S3: fetched whole ahead of their turn, read in ranges when large, images by listing."""

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from emer_ray import meter, storage
from emer_ray.config import MediaConfig
from emer_ray.errors import ClipError
from emer_ray.media import Decoder, decode_clip, source
from emer_ray.records import Clip, DecodedClip
from tests import synth

pytestmark = pytest.mark.s3

SMALL = MediaConfig(frames=6, size_px=96)


def same(left: DecodedClip | ClipError, right: DecodedClip) -> bool:
    assert isinstance(left, DecodedClip)
    return np.array_equal(left.frames, right.frames) and np.array_equal(left.pcm, right.pcm)


def test_a_far_clip_decodes_as_the_near_one(bucket: str, tmp_path: Path) -> None:
    near = synth.clip(tmp_path / "a.mp4")
    storage.write(f"{bucket}/a.mp4", Path(near).read_bytes())
    storage.write(f"{bucket}/zero.mp4", b"")
    local = decode_clip(Clip(clip_id="near", video_uri=near), SMALL)
    far = [
        Clip(clip_id=name, video_uri=f"{bucket}/{name}.mp4") for name in ("a", "none", "zero", "a")
    ]
    with meter.metered() as spent, closing(Decoder(SMALL)) as decoder:
        first, missing, empty, last = decoder(far)
    assert spent.counts["bytes"]["read"] == 2 * Path(near).stat().st_size
    assert spent.counts["cpu"]["child"] > 0
    assert same(first, local)
    assert same(last, local)
    assert [getattr(answer, "kind", None) for answer in (missing, empty)] == ["missing", "empty"]


def test_a_large_object_is_read_in_ranges(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    near = synth.clip(tmp_path / "long.mp4", seconds=20)
    far = f"{bucket}/long.mp4"
    storage.write(far, Path(near).read_bytes())
    monkeypatch.setattr(source, "WHOLE_BYTES", 1000)
    assert source.fetch(far, SMALL) is None
    window = {"start_s": 11.25, "end_s": 13.0}
    local = decode_clip(Clip(clip_id="near", video_uri=near, **window), SMALL)
    assert same(decode_clip(Clip(clip_id="far", video_uri=far, **window), SMALL), local)


def test_far_sound_and_far_images(bucket: str, tmp_path: Path) -> None:
    folder = Path(synth.images(tmp_path / "images"))
    tone = synth.sound(tmp_path / "tone.wav", tone_hz=880)
    for image in folder.iterdir():
        storage.write(f"{bucket}/images/{image.name}", image.read_bytes())
    storage.write(f"{bucket}/tone.wav", Path(tone).read_bytes())
    near = Clip(clip_id="near", video_uri=str(folder), fps=6.0, audio_uri=tone)
    far = Clip(clip_id="far", video_uri=f"{bucket}/images", fps=6.0, audio_uri=f"{bucket}/tone.wav")
    with closing(Decoder(SMALL)) as decoder:
        assert same(decoder([far])[0], decode_clip(near, SMALL))
