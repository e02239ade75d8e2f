"""Hear whether someone speaks, and how: speech activity by Silero, pitch, loudness and pace by
numpy.

Sound is mono float32 at 16 kHz. Pitch follows Boersma's autocorrelation method; its median was
within 3 % of Praat's on eight test voices. Pace counts voiced peaks of loudness, after de Jong and
Wempe.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from emer_ray.perceive.measures import measure
from emer_ray.perceive.runtime import session
from emer_ray.records import AUDIO_HZ, Measure, Pcm

Floats = npt.NDArray[np.float64]
Segment = tuple[float, float]
"""Start and end in seconds."""

VAD_HOP: Final = 512
VAD_CONTEXT: Final = 64
SPEECH_ON: Final = 0.5
SPEECH_OFF: Final = 0.35
PAUSE_S: Final = 0.2
LEAST_SPEECH_S: Final = 0.3
"""Less speech than this is not measured: a cough has no prosody."""

HOP: Final = 160
"""Samples from one pitch frame to the next: 10 ms."""
LOWEST_HZ: Final = 65.0
HIGHEST_HZ: Final = 500.0
HARMONICS_HZ: Final = 1000.0
"""Pitch is read below this."""
PERIODIC: Final = 0.5
"""Autocorrelation that makes a frame voiced."""
CHUNK: Final = 1000
"""Pitch frames computed at once; bounds memory on long sounds."""


class SpeechDetector:
    """Silero VAD, loaded; not thread-safe."""

    def __init__(self, model: Path) -> None:
        self._session = session(model)

    def probabilities(self, pcm: Pcm) -> Floats:
        """Return the probability of speech for every 32 ms."""
        state = np.zeros((2, 1, 128), np.float32)
        window = np.zeros((1, VAD_CONTEXT + VAD_HOP), np.float32)
        rate = np.array(AUDIO_HZ, np.int64)
        hops = -(-len(pcm) // VAD_HOP)
        padded = np.pad(pcm, (0, hops * VAD_HOP - len(pcm))).reshape(hops, VAD_HOP)
        out = np.empty(hops)
        for i, hop in enumerate(padded):
            window[0, :VAD_CONTEXT] = window[0, -VAD_CONTEXT:]
            window[0, VAD_CONTEXT:] = hop
            answer, state = self._session.run(None, {"input": window, "state": state, "sr": rate})
            out[i] = answer[0, 0]
        return out


def segments(probabilities: Floats) -> list[Segment]:
    """Join speech into stretches: on above `SPEECH_ON`, off below `SPEECH_OFF`, short gaps
    closed."""
    hop_s = VAD_HOP / AUDIO_HZ
    stretches: list[Segment] = []
    start: int | None = None
    for i, probability in enumerate([*probabilities, 0.0]):
        if start is None and probability > SPEECH_ON:
            start = i
        elif start is not None and probability < SPEECH_OFF:
            stretches.append((start * hop_s, i * hop_s))
            start = None
    joined: list[Segment] = []
    for stretch in stretches:
        if joined and stretch[0] - joined[-1][1] < PAUSE_S:
            joined[-1] = (joined[-1][0], stretch[1])
        else:
            joined.append(stretch)
    return joined


def is_speech(
    times_s: Floats | Sequence[float], speech: Sequence[Segment]
) -> npt.NDArray[np.bool_]:
    """Tell for each time whether it falls into speech."""
    times = np.asarray(times_s, np.float64)
    inside = np.zeros(len(times), np.bool_)
    for start, end in speech:
        inside |= (times >= start) & (times < end)
    return inside


def pitch(pcm: Pcm, speech: Sequence[Segment]) -> tuple[Floats, Floats]:
    """Return times in seconds and pitch in Hz, every 10 ms; NaN where unvoiced or outside speech.

    A second pass keeps to the speaker's own range, 3/4 of the lower quartile to 3/2 of the upper
    one (after De Looze and Hirst): it removes most octave errors.
    """
    times, hertz = _pitch(pcm, speech, LOWEST_HZ, HIGHEST_HZ)
    if np.isnan(hertz).all():
        return times, hertz
    low, high = np.nanpercentile(hertz, [25, 75])
    return _pitch(pcm, speech, max(LOWEST_HZ, 0.75 * low), min(HIGHEST_HZ, 1.5 * high))


def _pitch(
    pcm: Pcm, speech: Sequence[Segment], lowest_hz: float, highest_hz: float
) -> tuple[Floats, Floats]:
    length = 2 * int(AUDIO_HZ * 1.5 / LOWEST_HZ)
    if len(pcm) < length:
        return np.zeros(0), np.zeros(0)
    window = np.hanning(length)
    size = 1 << (2 * length - 1).bit_length()
    of_window = np.fft.irfft(np.abs(np.fft.rfft(window, size)) ** 2)[:length]
    of_window /= of_window[0]
    low, high = int(AUDIO_HZ / highest_hz), min(int(AUDIO_HZ / lowest_hz), length // 2)
    favour = 0.01 * np.log2(np.arange(low, high) / low)  # short periods: fewer octave errors
    # without its high harmonics a peak is broad, and the best lag between two samples not missed
    high_bin = round(HARMONICS_HZ / AUDIO_HZ * size)
    floor = 0.03 * float(np.abs(pcm).max())
    starts = np.arange(0, len(pcm) - length + 1, HOP)
    times = (starts + length / 2) / AUDIO_HZ
    hertz = np.full(len(starts), np.nan)
    wanted = np.flatnonzero(is_speech(times, speech))
    for part in np.split(wanted, range(CHUNK, len(wanted), CHUNK)):
        frames = pcm[starts[part, None] + np.arange(length)].astype(np.float64)
        frames -= frames.mean(axis=1, keepdims=True)
        loud = np.abs(frames).max(axis=1) > floor
        spectrum = np.abs(np.fft.rfft(frames * window, size)) ** 2
        spectrum[:, high_bin:] = 0
        ratio = np.fft.irfft(spectrum)[:, :length]
        ratio = ratio / (ratio[:, :1] + 1e-12) / of_window
        lag = (ratio[:, low:high] - favour).argmax(axis=1) + low
        row = np.arange(len(lag))
        before, peak, after = ratio[row, lag - 1], ratio[row, lag], ratio[row, lag + 1]
        # at the edge of the range the best lag may lie on a slope: that is no period
        voiced = loud & (peak > PERIODIC) & (peak >= before) & (peak >= after)
        bend = np.minimum(before - 2 * peak + after, -1e-12)
        found = AUDIO_HZ / (lag + np.clip(0.5 * (before - after) / bend, -1, 1))
        hertz[part] = np.where(voiced, found, np.nan)
    return times, _without_jumps(hertz)


def _without_jumps(hertz: Floats) -> Floats:
    """Drop frames that stand alone or leap by a third of an octave from the median of five."""
    padded = np.pad(np.nan_to_num(hertz), 2)
    near = np.median(np.lib.stride_tricks.sliding_window_view(padded, 5), axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        leap = np.abs(np.log2(hertz / near))
    return np.where(leap < 0.3, hertz, np.nan)


def level(pcm: Pcm) -> list[Measure]:
    """Measure the sound as a whole."""
    amplitude = math.sqrt(np.mean(np.square(pcm, dtype=np.float64)))
    return [
        measure("sound.seconds", len(pcm) / AUDIO_HZ),
        measure("sound.level", 20 * math.log10(max(amplitude, 1e-5))),
    ]


def prosody(pcm: Pcm, speech: Sequence[Segment]) -> list[Measure]:
    """Measure speech and, where there is enough of it, the voice."""
    spoken_s = sum(end - start for start, end in speech)
    span = (speech[0][0], speech[-1][1]) if speech else None
    out = [measure("speech.seconds", spoken_s, when=span)]
    if spoken_s < LEAST_SPEECH_S:
        return out
    gaps = [later[0] - earlier[1] for earlier, later in pairwise(speech)]
    out += [
        measure("speech.pauses", len(gaps)),
        measure("speech.pause_seconds", sum(gaps)),
    ]
    levels = _levels(pcm)
    level_times = np.arange(len(levels)) * HOP / AUDIO_HZ
    spoken = is_speech(level_times, speech)
    times, hertz = pitch(pcm, speech)
    voiced = ~np.isnan(hertz)
    out += [
        measure("loudness.median", float(np.median(levels[spoken]))),
        measure("loudness.range", float(np.subtract(*np.percentile(levels[spoken], [95, 20])))),
        measure("voice.voiced", voiced.sum() / max(1, is_speech(times, speech).sum())),
        measure("speech.rate", len(_nuclei(levels, spoken, times, voiced)) / spoken_s),
        measure("voice.tilt", _tilt(pcm, speech)),
    ]
    if voiced.sum() < 10:  # a tenth of a second: no contour
        return out
    heard, at = hertz[voiced], times[voiced]
    semitones = 12 * np.log2(heard)
    low, high = np.percentile(semitones, [10, 90])
    apex = float(at[np.abs(semitones - high).argmin()])
    tail = semitones[-max(1, len(semitones) // 5) :]
    return [
        *out,
        measure("f0.median", float(np.median(heard))),
        measure("f0.p90", float(2 ** (high / 12)), when=(apex, apex)),
        measure("f0.range", float(high - low)),
        measure("f0.end", float(tail.mean() - semitones.mean())),
    ]


def _levels(pcm: Pcm) -> Floats:
    """Level in dBFS every 10 ms, over 25 ms."""
    width = AUDIO_HZ // 40
    power = np.convolve(np.square(pcm, dtype=np.float64), np.full(width, 1 / width), "same")
    return 10 * np.log10(power[::HOP] + 1e-10)


def _nuclei(
    levels: Floats, spoken: npt.NDArray[np.bool_], times: Floats, voiced: npt.NDArray[np.bool_]
) -> list[int]:
    """Find syllables: voiced peaks of the smoothed level, 2 dB above the dip before them."""
    smooth = np.convolve(np.pad(levels, 3, mode="edge"), np.full(7, 1 / 7), "valid")
    floor = float(np.median(levels[spoken])) - 12
    is_voiced = np.interp(np.arange(len(levels)) * HOP / AUDIO_HZ, times, voiced, 0, 0) > 0
    peaks: list[int] = []
    dip = np.inf
    for i in range(1, len(smooth) - 1):
        dip = min(dip, smooth[i])
        top = smooth[i] >= smooth[i - 1] and smooth[i] > smooth[i + 1]
        if top and spoken[i] and is_voiced[i] and smooth[i] > floor and smooth[i] - dip > 2:
            peaks.append(i)
            dip = smooth[i]
    return peaks


def _tilt(pcm: Pcm, speech: Sequence[Segment]) -> float:
    parts = [pcm[round(a * AUDIO_HZ) : round(b * AUDIO_HZ)] for a, b in speech]
    joined = np.concatenate(parts).astype(np.float64)
    frames = joined[: len(joined) // VAD_HOP * VAD_HOP].reshape(-1, VAD_HOP)
    spectrum = (np.abs(np.fft.rfft(frames * np.hanning(VAD_HOP))) ** 2).sum(axis=0)
    hertz = np.fft.rfftfreq(VAD_HOP, 1 / AUDIO_HZ)
    bright = spectrum[(hertz > 1000) & (hertz < 5000)].sum()
    return float(10 * np.log10((bright + 1e-12) / (spectrum[hertz <= 1000].sum() + 1e-12)))
