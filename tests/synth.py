"""Real clips made on the spot: a moving pattern whose pictures carry their number, and a tone.

`clip(path)` writes a small film with sound in some ten milliseconds; `frame_number` reads the
number of a picture back from its pixels, at any size it was scaled to. `cut` and `mutated` break
such a file.
"""

import random
import re
import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile

_BITS = 8


def clip(
    path: Path | str,
    *,
    seconds: float = 2,
    fps: int = 12,
    size: tuple[int, int] = (160, 120),
    video: bool = True,
    audio: bool = True,
    tone_hz: float = 440,
    codec: str = "libx264",
    audio_codec: str = "aac",
    pix_fmt: str = "yuv420p",
    key_every: int = 12,
    b_frames: int = 2,
    rotation_deg: int = 0,
    times_s: Sequence[float] | None = None,
    audio_seconds: float | None = None,
    audio_hz: int = 44_100,
    options: dict[str, str] | None = None,
) -> str:
    """Encode a film; the container is that of the path's suffix. Returns the path as text.

    `times_s` gives each picture its own time (variable rate). `rotation_deg` is the clockwise turn
    a player has to make; `size` is the upright size. The tone has amplitude 0.5; `tone_hz=0` is
    silence. `options` go to the container's writer.
    """
    with av.open(str(path), "w", options=options or {}) as container:
        film = sound = None
        if video:
            film = container.add_stream(codec, rate=fps, options=_fast(codec))
            film.width, film.height = size if rotation_deg % 180 == 0 else size[::-1]
            film.pix_fmt = pix_fmt
            film.codec_context.gop_size = key_every
            if codec in ("libx264", "mpeg4"):
                film.codec_context.max_b_frames = b_frames
            if rotation_deg:
                film.set_display_rotation(-rotation_deg)
            if times_s is not None:
                film.time_base = film.codec_context.time_base = Fraction(1, 12_800)
        if audio:
            sound = container.add_stream(audio_codec, rate=audio_hz, options=_fast(audio_codec))
            sound.layout = "stereo"
        timed: list[tuple[float, Any, av.VideoFrame | av.AudioFrame]] = []
        if film is not None:
            moments = times_s or [number / fps for number in range(round(seconds * fps))]
            for number, moment_s in enumerate(moments):
                stored = np.rot90(picture(number, size), rotation_deg // 90)
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(stored), format="rgb24")
                if times_s is not None:
                    frame.pts, frame.time_base = round(moment_s * 12_800), Fraction(1, 12_800)
                timed.append((moment_s, film, frame))
        if sound is not None:
            for piece in _tone(seconds if audio_seconds is None else audio_seconds, tone_hz, sound):
                timed.append((piece.pts / audio_hz, sound, piece))
        # By time, so that picture and sound lie side by side in the file as they do in real ones.
        for _, stream, each in sorted(timed, key=lambda entry: entry[0]):
            container.mux(stream.encode(each))
        for stream in (film, sound):
            if stream is not None:
                container.mux(stream.encode(None))
    return str(path)


def picture(number: int, size: tuple[int, int]) -> np.ndarray:
    """Draw picture `number` [height, width, 3]: its number as bars, below them red, green, blue."""
    width, height = size
    x = np.arange(width) / width
    image = np.zeros((height, width, 3), np.uint8)
    bit = (x * _BITS).astype(int)
    image[: height // 2] = np.where((number >> bit) & 1, 235, 16)[None, :, None]
    third = (x * 3).astype(int)
    for channel in range(3):
        image[height // 2 :, third == channel, channel] = 200
    top = height // 2 + (number * 5) % max(height // 2 - 8, 1)
    image[top : top + 8, (number * 7) % width :][:, :8] = 255  # something that moves
    return image


def frame_number(frame: np.ndarray) -> int:
    """Read the number of an upright picture [height, width, 3], 0 to 255."""
    height, width = frame.shape[:2]
    columns = [int((bit + 0.5) / _BITS * width) for bit in range(_BITS)]
    row = frame[height // 4, columns].mean(axis=1)
    return sum(1 << bit for bit, level in enumerate(row) if level > 128)


def tone(seconds: float, tone_hz: float, rate_hz: int) -> np.ndarray:
    """A sine of amplitude 0.5, float32."""
    return 0.5 * np.sin(2 * np.pi * tone_hz * np.arange(round(seconds * rate_hz)) / rate_hz).astype(
        np.float32
    )


def pitch_hz(pcm: np.ndarray, rate_hz: int = 16_000) -> float:
    """The strongest frequency of a sound."""
    spectrum = np.abs(np.fft.rfft(pcm * np.hanning(len(pcm))))
    return float(spectrum.argmax() * rate_hz / len(pcm))


def sound(path: Path | str, *, seconds: float = 2, tone_hz: float = 440, hz: int = 44_100) -> str:
    """Write a tone as stereo wav, flac, ogg or mp3, as the suffix says."""
    mono = tone(seconds, tone_hz, hz)
    soundfile.write(str(path), np.stack([mono, mono], axis=1), hz)
    return str(path)


def images(folder: Path, *, n: int = 12, size: tuple[int, int] = (160, 120)) -> str:
    """Write a folder of numbered jpegs and one that is a png."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(n):
        codec, suffix = ("png", "png") if number == n - 1 else ("mjpeg", "jpg")
        encoder: Any = av.CodecContext.create(codec, "w")
        encoder.width, encoder.height = size
        encoder.pix_fmt = "rgb24" if codec == "png" else "yuvj420p"
        encoder.time_base = Fraction(1, 1)
        frame = av.VideoFrame.from_ndarray(picture(number, size), format="rgb24")
        packets = [*encoder.encode(frame.reformat(format=encoder.pix_fmt)), *encoder.encode(None)]
        (folder / f"{number:05d}.{suffix}").write_bytes(b"".join(map(bytes, packets)))
    return str(folder)


def cut(path: Path | str, target: Path, share: float) -> str:
    """Copy the first `share` of a file's bytes."""
    data = Path(path).read_bytes()
    target.write_bytes(data[: int(len(data) * share)])
    return str(target)


def mutated(data: bytes, seed: int, other: bytes, size: tuple[int, int] = (160, 120)) -> bytes:
    """Damage a file in one of seven ways, in turn by seed; `other` is one of another container.

    Its tables are found by their names, its sizes by the numbers that are those of its pictures.
    """
    rng = random.Random(seed)
    damages = (_cut, _flipped, _edited, _huge, _zeroed, _mixed, _looping)
    return damages[seed % len(damages)](data, rng, other, size)


def _cut(data: bytes, rng: random.Random, *_: Any) -> bytes:
    return data[: rng.randrange(100, len(data))]


def _flipped(data: bytes, rng: random.Random, *_: Any) -> bytes:
    damaged = bytearray(data)
    for _flip in range(rng.choice([1, 5, 50, 500])):
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def _edited(data: bytes, rng: random.Random, *_: Any) -> bytes:
    """Overwrite bytes where containers keep their tables."""
    damaged, places = bytearray(data), range(len(data))
    places = [*places[:1024], *places[-4096:]]
    for _edit in range(rng.choice([1, 5, 50, 500])):
        damaged[rng.choice(places)] = rng.randrange(256)
    return bytes(damaged)


def _huge(data: bytes, rng: random.Random, _: bytes, size: tuple[int, int]) -> bytes:
    """Claim pictures, or a sound, as large as the fields can say, or nearly so."""
    most = rng.choice([0, 4096, 16_384, 32_767, 65_535])
    width, height = size
    for form, unit in ((">HH", 1), ("<HH", 1), ("<II", 1), (">II", 1 << 16)):
        there = [struct.pack(form, *(unit * side for side in pair)) for pair in (size, size[::-1])]
        for old in there:
            data = data.replace(old, struct.pack(form, unit * most, unit * most))
    for name, side in ((b"\xb0", width), (b"\xba", height)):  # of Matroska
        data = data.replace(name + b"\x81" + bytes([side]), name + b"\x84" + b"\x7f\xff\xff\xff")
        data = data.replace(name + b"\x82" + side.to_bytes(2), name + b"\x82" + most.to_bytes(2))
    if data[:4] in (b"RIFF", b"fLaC"):
        data = data.replace(struct.pack("<I", 44_100), struct.pack("<I", 44_100 * (most or 97_391)))
        place = data.find(b"data") + 4
        data = data[:place] + struct.pack("<I", 2**32 - 1 - most) + data[place + 4 :]
    return data


def _zeroed(data: bytes, rng: random.Random, *_: Any) -> bytes:
    """Leave zeros in places, as a torn download does; or nothing at all."""
    length = rng.choice([0, 1, 64, len(data) // 8, len(data) // 2, len(data)])
    if not length:
        return b""
    start = rng.randrange(len(data) - length + 1)
    return data[:start] + bytes(length) + data[start + length :]


def _mixed(data: bytes, rng: random.Random, other: bytes, *_: Any) -> bytes:
    """Give it a suffix that lies, another file's end, or another format's first bytes."""
    cut = rng.randrange(len(data))
    signs = (
        b"PK\x03\x04",
        b"#EXTM3U\nfile:///etc/passwd\n",
        b"<html>",
        b"\x89PNG\r\n\x1a\n",
        b"ID3",
    )
    return rng.choice([other, data[:cut] + other[-cut:], rng.choice(signs) + data])


def _looping(data: bytes, rng: random.Random, *_: Any) -> bytes:
    """Let times stand still, leap, run backwards, or start again and again."""
    damaged = bytearray(data)
    step = rng.choice([0, 1, 2**31 - 1, 2**32 - 512, 2**32 - 1])
    for table in re.finditer(rb"[sc]tts", data):
        (count,) = struct.unpack_from(">I", data, table.end() + 4)
        for entry in range(min(count, 1000)):
            struct.pack_into(">I", damaged, table.end() + 12 + 8 * entry, step)
    for header in re.finditer(rb"strh", data):  # of AVI: scale and rate
        struct.pack_into("<II", damaged, header.end() + 24, *rng.sample([0, 1, 2**32 - 1, step], 2))
    if damaged != data:
        return bytes(damaged)
    again = data[max(0, data.find(b"\x1f\x43\xb6\x75")) :]  # the clusters of Matroska
    unknown = re.sub(
        rb"(\x18\x53\x80\x67).{8}", b"\\1\x01" + b"\xff" * 7, data, count=1, flags=re.S
    )
    return unknown + again * rng.choice([1, 3, 40])


def _tone(seconds: float, tone_hz: float, stream: Any) -> list[av.AudioFrame]:
    hz = stream.rate
    whole = np.round(tone(seconds, tone_hz, hz) * 32_767).astype(np.int16)
    frames = []
    for at in range(0, len(whole), 1024):
        piece = np.repeat(whole[at : at + 1024], 2)[None]
        frame = av.AudioFrame.from_ndarray(piece, format="s16", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = hz, at, Fraction(1, hz)
        frames.append(frame)
    return frames


def _fast(codec: str) -> dict[str, str]:
    return {
        "libx264": {"preset": "veryfast", "crf": "24"},
        "aac": {"aac_coder": "fast"},
        "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"},
    }.get(codec, {})
