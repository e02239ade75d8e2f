"""How fast clips are decoded, against the bare libraries doing the same by hand.

The same generated films (5 s, H.264 and AAC: 1280x720 and 640x360 as x264 writes by default,
1280x720 as a phone does) are decoded to the same output by every method, one thread each: 8 frames
from the middle of 8 equal segments, shorter side 224, and mono 16 kHz sound. Methods take turns on
every film, so that what else runs on the machine hits all alike. The ratio is our throughput, child
process included, over that of the fastest bare library, film by film; higher is better.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import av
import numpy as np
import numpy.typing as npt

from emer_ray.clock import family_cpu_s
from emer_ray.config import MediaConfig
from emer_ray.media import Decoder, decode_clip
from emer_ray.records import AUDIO_HZ, Clip, DecodedClip

CLIPS: Final = 6
REPEATS: Final = 7
N_FRAMES: Final = 8
SECONDS: Final = 5
FPS: Final = 25
SOUND_HZ: Final = 44_100
SETTINGS: Final = MediaConfig(frames=N_FRAMES, size_px=224, resize="shorter", threads=1)
PHONE: Final = {"bf": "0", "g": "30"}
"""No B frames, a key frame every 30 pictures: fast to encode, little to skip when decoding."""
KINDS: Final[Sequence[tuple[tuple[int, int], dict[str, str]]]] = (
    ((1280, 720), {}),
    ((640, 360), {}),
    ((1280, 720), PHONE),
)
TARGET: Final = (398, 224)
"""Size of the frames: told to the bare libraries, found out by us."""

Output = tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]


Method = Callable[[str], Output]


def decode(
    seed: int = 0, clips: int | None = None, say: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Measure the ratio, with its spread, and milliseconds per clip of every method."""
    with (
        tempfile.TemporaryDirectory(prefix="emer-bench-") as folder,
        closing(Decoder(SETTINGS)) as decoder,
    ):
        say(f"writing {clips or CLIPS} films")
        films = [_film(Path(folder), number, seed) for number in range(clips or CLIPS)]
        methods: dict[str, Method] = {
            "ours": lambda film: _arrays(decoder([_clip(film)])[0]),
            "ours_in_process": lambda film: _arrays(decode_clip(_clip(film), SETTINGS)),
            "pyav": bare_pyav,
            **_decord_methods(),
        }
        equal = _are_equal([[method(film) for method in methods.values()] for film in films])
        wall_ms, cpu_ms = _timed(methods, films, say)
    ms = {name: statistics.fmean(films_ms) for name, films_ms in wall_ms.items()}
    best = min((name for name in ms if not name.startswith("ours")), key=lambda name: ms[name])
    ratios = _ratios(wall_ms[best], wall_ms["ours"])
    kinds = [ratios[number :: len(KINDS)] for number in range(min(len(KINDS), len(films)))]
    return {
        "ratio": round(statistics.geometric_mean(ratios), 3),
        "ratio_low": round(min(ratios), 3),
        "ratio_high": round(max(ratios), 3),
        "ratio_by_kind": [round(statistics.geometric_mean(kind), 3) for kind in kinds],
        "ratio_in_process": round(
            statistics.geometric_mean(_ratios(wall_ms[best], wall_ms["ours_in_process"])), 3
        ),
        "best_library": best,
        "equal": equal,
        "ms": {name: round(value, 1) for name, value in ms.items()},
        "cpu_ms": {name: round(statistics.fmean(t), 1) for name, t in cpu_ms.items()},
        "clips": len(films),
        "repeats": REPEATS,
    }


def bare_pyav(film: str) -> Output:
    """What one writes by hand with PyAV: every picture decoded, the wanted ones scaled."""
    with av.open(film) as container:
        stream = container.streams.video[0]
        stream.thread_type, stream.codec_context.thread_count = "NONE", 1
        wanted = set(_middles(stream.frames))
        frames = [
            frame.to_ndarray(format="rgb24", width=TARGET[0], height=TARGET[1])
            for number, frame in enumerate(container.decode(stream))
            if number in wanted
        ]
    return np.stack(frames), bare_pyav_sound(film)


def bare_pyav_sound(film: str) -> npt.NDArray[np.float32]:
    """The same for sound: FFmpeg's resampler, flushed."""
    with av.open(film) as container:
        resampler = av.AudioResampler(format="s16", layout="mono", rate=AUDIO_HZ)
        heard = [*container.decode(audio=0), None]
        pieces = [out.to_ndarray()[0] for frame in heard for out in resampler.resample(frame)]
    return np.concatenate(pieces).astype(np.float32) / np.float32(32_768)


def _decord_methods() -> dict[str, Method]:
    """The same by hand with decord, where it is installed: with its own sound, and with PyAV's."""
    try:
        import decord
    except ImportError:
        return {}

    def pictures(film: str) -> npt.NDArray[np.uint8]:
        reader = decord.VideoReader(film, width=TARGET[0], height=TARGET[1], num_threads=1)
        frames: npt.NDArray[np.uint8] = reader.get_batch(_middles(len(reader))).asnumpy()
        return frames

    def sound(film: str) -> npt.NDArray[np.float32]:
        reader = decord.AudioReader(film, sample_rate=AUDIO_HZ, mono=True)
        pcm: npt.NDArray[np.float32] = reader[:].asnumpy()[0]
        return pcm

    return {
        "decord": lambda film: (pictures(film), sound(film)),
        "decord_and_pyav_sound": lambda film: (pictures(film), bare_pyav_sound(film)),
    }


def _timed(
    methods: dict[str, Method], films: Sequence[str], say: Callable[[str], None]
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Milliseconds of each method on each film, wall and CPU: the median of its rounds."""
    names = list(methods)
    rounds: dict[str, list[list[tuple[float, float]]]] = {n: [[] for _ in films] for n in names}
    for number in range(REPEATS):
        say(f"round {number + 1} of {REPEATS}")
        for turn, film in enumerate(films):
            first = (number + turn) % len(names)  # nobody always comes after the same neighbour
            for name in names[first:] + names[:first]:
                wall_s, cpu_s = time.perf_counter(), family_cpu_s()
                methods[name](film)
                spent = time.perf_counter() - wall_s, family_cpu_s() - cpu_s
                rounds[name][turn].append(spent)

    def medians_ms(which: int) -> dict[str, list[float]]:
        return {
            name: [statistics.median(spent[which] for spent in film) * 1e3 for film in rounds[name]]
            for name in names
        }

    return medians_ms(0), medians_ms(1)


def _are_equal(outputs: Sequence[Sequence[Output]]) -> bool:
    """Check that all methods deliver the same frames and the same sound, up to rounding."""
    return all(
        frames.shape == wanted.shape
        and float(np.abs(frames.astype(np.int16) - wanted).mean()) < 3
        and abs(len(pcm) - len(heard)) < AUDIO_HZ / 100
        and float(np.corrcoef(pcm[:AUDIO_HZ], heard[:AUDIO_HZ])[0, 1]) > 0.99
        for (wanted, heard), *others in outputs
        for frames, pcm in others
    )


def _ratios(theirs_ms: Sequence[float], ours_ms: Sequence[float]) -> list[float]:
    return [theirs / ours for theirs, ours in zip(theirs_ms, ours_ms, strict=True)]


def _middles(length: int) -> list[int]:
    return [int((k + 0.5) * length / N_FRAMES) for k in range(N_FRAMES)]


def _clip(film: str) -> Clip:
    return Clip(clip_id=film, video_uri=film)


def _arrays(decoded: DecodedClip | Exception) -> Output:
    if isinstance(decoded, Exception):
        raise decoded
    assert decoded.frames is not None
    assert decoded.pcm is not None
    return decoded.frames, decoded.pcm


def _film(folder: Path, number: int, seed: int) -> str:
    """Write a film as corpora have them: a head that moves before a still, slightly noisy room."""
    (width, height), options = KINDS[number % len(KINDS)]
    rng = np.random.default_rng([seed, number])
    path = str(folder / f"{number}.mp4")
    blocks = rng.integers(40, 200, (height // 20, width // 20, 3), dtype=np.uint8)
    room = np.kron(blocks, np.ones((20, 20, 1), np.uint8)) + rng.integers(
        0, 24, (height, width, 3), dtype=np.uint8
    )
    noise = [rng.integers(0, 6, (height, width, 3), dtype=np.uint8) for _ in range(5)]
    y, x = np.mgrid[:height, :width]
    with av.open(path, "w") as container:
        video = container.add_stream("libx264", rate=FPS, options=options)
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        audio = container.add_stream("aac", rate=SOUND_HZ)
        for moment in range(SECONDS * FPS):
            sway = (0.1 * np.sin(moment / 11) * width, 0.05 * np.sin(moment / 5) * height)
            across, down = (x - width / 2 - sway[0]) / width, (y - height / 2 - sway[1]) / height
            head = (across**2 * 30 + down**2 * 9 < 1)[:, :, None]
            skin = (150 + 60 * np.sin(down * 40 + moment / 3)).astype(np.uint8)[:, :, None]
            image = np.where(head, skin, room) + noise[moment % len(noise)]
            container.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(video.encode(None))
        time_s = np.arange(SECONDS * SOUND_HZ) / SOUND_HZ
        wave = 0.5 * np.sin(2 * np.pi * (200 + 100 * time_s) * time_s)
        for at in range(0, len(wave), 1024):
            piece = (wave[None, at : at + 1024] * 32_767).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(piece, format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = SOUND_HZ, at, Fraction(1, SOUND_HZ)
            container.mux(audio.encode(frame))
        container.mux(audio.encode(None))
    return path
