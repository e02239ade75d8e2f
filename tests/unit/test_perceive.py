"""Perception's arithmetic on signals of known truth; the networks see real clips elsewhere."""

import itertools

import numpy as np
import pytest

from emer_ray.perceive import Perceiver, tracks, voice
from emer_ray.perceive.expression import CLASSES
from emer_ray.perceive.faces import Face, geometry, has_smile_shape, overlap
from emer_ray.perceive.measures import GEOMETRY, MEASURES, measure
from emer_ray.perceive.over_time import (
    expressive,
    geometric,
    longest,
    percentile,
    turns,
)
from emer_ray.perceive.speech import _pieces, windows
from emer_ray.records import AUDIO_HZ, Clip, Clues, DecodedClip, Measure, MediaFacts

SECONDS = 2.0
TIME = np.arange(int(SECONDS * AUDIO_HZ)) / AUDIO_HZ
ALL = [(0.0, SECONDS)]


def sine(hertz: float | np.ndarray, amplitude: float = 0.3) -> np.ndarray:
    phase = np.cumsum(np.broadcast_to(hertz, TIME.shape)) / AUDIO_HZ
    return (amplitude * np.sin(2 * np.pi * phase)).astype(np.float32)


def sawtooth(hertz: float) -> np.ndarray:
    return (0.3 * (2 * (TIME * hertz % 1) - 1)).astype(np.float32)


def by_name(measures: list[Measure]) -> dict[str, Measure]:
    return {m.measure: m for m in measures}


@pytest.mark.parametrize("hertz", [80.0, 110.0, 162.5, 220.0, 315.0, 430.0])
@pytest.mark.parametrize("wave", [sine, sawtooth])
def test_pitch_of_a_steady_tone(wave, hertz) -> None:
    _, found = voice.pitch(wave(hertz), ALL)
    heard = found[~np.isnan(found)]
    assert len(heard) > 150  # of about 195 frames
    assert np.median(heard) == pytest.approx(hertz, rel=0.01)


def test_noise_and_silence_have_no_pitch() -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, len(TIME)).astype(np.float32)
    assert np.isnan(voice.pitch(noise, ALL)[1]).mean() > 0.95
    assert np.isnan(voice.pitch(np.zeros(len(TIME), np.float32), ALL)[1]).all()
    assert len(voice.pitch(np.zeros(100, np.float32), ALL)[1]) == 0


def test_pitch_is_read_in_speech_only() -> None:
    times, found = voice.pitch(sine(200.0), [(0.5, 1.0)])
    heard = times[~np.isnan(found)]
    assert heard.min() >= 0.5
    assert heard.max() < 1.0


def test_pitch_range_and_end_of_a_glide() -> None:
    rising = sine(150 * 2 ** (TIME / SECONDS / 2))  # half an octave up, evenly
    found = by_name(voice.prosody(rising, ALL))
    assert found["f0.range"].value == pytest.approx(6 * 0.8, abs=0.4)  # 10th to 90th percentile
    assert found["f0.end"].value == pytest.approx(6 * 0.4, abs=0.3)  # last fifth against the whole
    apex = found["f0.p90"]
    assert apex.start_s == pytest.approx(0.9 * SECONDS, abs=0.15)


def test_loudness_follows_amplitude_in_decibels() -> None:
    soft, loud = (by_name(voice.prosody(sine(150.0, a), ALL)) for a in (0.1, 0.2))
    assert loud["loudness.median"].value - soft["loudness.median"].value == pytest.approx(
        6.02, abs=0.05
    )
    assert by_name(voice.level(sine(150.0, 0.1)))["sound.level"].value == pytest.approx(
        20 * np.log10(0.1 / np.sqrt(2)), abs=0.01
    )
    assert by_name(voice.level(np.zeros(800, np.float32)))["sound.level"].value == -100


def test_tilt_rises_with_brightness() -> None:
    dull = by_name(voice.prosody(sine(200.0), ALL))["voice.tilt"].value
    bright = by_name(voice.prosody(sawtooth(200.0), ALL))["voice.tilt"].value
    assert dull < bright < 0


@pytest.mark.parametrize("rate", [2.0, 4.0, 6.0])
def test_rate_counts_syllables(rate) -> None:
    syllables = sine(140.0) * (0.5 - 0.5 * np.cos(2 * np.pi * rate * TIME)).astype(np.float32)
    found = by_name(voice.prosody(syllables, ALL))
    assert found["speech.rate"].value == pytest.approx(rate, abs=0.6)


def test_segments_join_short_gaps_and_ignore_flicker() -> None:
    hop = voice.VAD_HOP / AUDIO_HZ
    probabilities = np.array([0, 0.9, 0.4, 0.9, 0, 0, 0.9, *[0.1] * 10, 0.8, 0.8, 0])
    first, second = voice.segments(probabilities)
    assert first == pytest.approx((1 * hop, 7 * hop))  # 0.4 holds on, a gap of two hops is closed
    assert second == pytest.approx((17 * hop, 19 * hop))
    assert voice.segments(np.full(20, 0.45)) == []
    assert voice.segments(np.ones(3)) == [(0.0, pytest.approx(3 * hop))]


def test_pauses_are_counted_inside_speech_only() -> None:
    found = by_name(voice.prosody(sine(150.0), [(0.2, 0.8), (1.1, 1.6)]))
    assert found["speech.pauses"].value == 1
    assert found["speech.pause_seconds"].value == pytest.approx(0.3)
    assert (found["speech.seconds"].start_s, found["speech.seconds"].end_s) == (0.2, 1.6)


def test_too_little_speech_has_no_prosody() -> None:
    assert list(by_name(voice.prosody(sine(150.0), [(0.2, 0.4)]))) == ["speech.seconds"]
    assert by_name(voice.prosody(sine(150.0), []))["speech.seconds"].value == 0


def face(x: float, y: float = 100.0, size: float = 60.0, opening: float = 0.02) -> Face:
    """A face whose mesh has the eyes, chin and lips where they belong, at a given size."""
    points = np.zeros((468, 3), np.float32)
    eyes = 0.6 * size
    for index, (dx, dy) in {
        33: (-0.5, 0.0), 263: (0.5, 0.0), 133: (-0.2, 0.0), 362: (0.2, 0.0),
        159: (-0.35, -0.045), 145: (-0.35, 0.045), 386: (0.35, -0.045), 374: (0.35, 0.045),
        10: (0.0, -0.6), 152: (0.0, 1.0), 2: (0.0, 0.4), 55: (-0.14, -0.17), 285: (0.14, -0.17),
        61: (-0.29, 0.67), 291: (0.29, 0.67), 13: (0.0, 0.66 - opening / 2),
        14: (0.0, 0.66 + opening / 2),
    }.items():  # fmt: skip
        points[index, :2] = x + dx * eyes, y + dy * eyes
    half = size / 2
    box = np.array([x - half, y - half, x + half, y + half], np.float32)
    return Face(box=box, score=0.9, points=points, roll_deg=0.0)


def test_geometry_is_in_eye_distances_whatever_the_size() -> None:
    small, large = geometry(face(50, size=40)), geometry(face(300, size=200))
    assert small == pytest.approx(large, abs=1e-4)
    assert small["mouth_open"] == pytest.approx(0.02, abs=1e-4)
    assert small["mouth_width"] == pytest.approx(0.58, abs=1e-4)
    assert small["corner_drop"] == pytest.approx(0.27, abs=1e-4)
    assert small["corner_lift"] == pytest.approx(-0.01, abs=1e-4)
    assert small["brow_height"] == pytest.approx(0.17, abs=1e-4)
    assert small.keys() == {*GEOMETRY, "yaw_deg", "pitch_deg"}


@pytest.mark.parametrize(
    ("width", "lift", "drop", "smiles"),
    [
        (0.58, -0.005, 0.27, False),  # neutral
        (0.72, 0.04, 0.24, True),
        (0.70, 0.04, 0.27, True),  # a smile with an open mouth keeps its corners
        (0.65, 0.002, 0.24, False),  # pressed lips: wide, not lifted
        (0.58, 0.03, 0.33, False),  # a mouth that drops open
        (0.66, 0.03, 0.33, False),  # a wide vowel
    ],
)
def test_smile_shape(width, lift, drop, smiles) -> None:
    values = {"mouth_width": width, "corner_lift": lift, "corner_drop": drop}
    assert has_smile_shape(values) is smiles


def test_overlap() -> None:
    a, b = (np.array(box, np.float32) for box in ((0, 0, 10, 10), (5, 0, 15, 10)))
    assert overlap(a, a) == 1
    assert overlap(a, b) == pytest.approx(1 / 3)
    assert overlap(a, b + 20) == 0


def test_two_faces_keep_their_tracks_when_they_pass_close() -> None:
    found = [[face(100 + 4 * t), face(300 - 4 * t, y=150)] for t in range(20)]
    left, right = tracks.follow(found, [0.2 * t for t in range(20)])
    assert left.frames == right.frames == list(range(20))
    assert [f.box[0] for f in left.faces] == sorted(f.box[0] for f in left.faces)
    assert {float(f.box[1]) for f in right.faces} == {120.0}


def test_a_track_survives_a_gap_but_not_a_long_one() -> None:
    times = [0.25 * t for t in range(24)]
    seen = [[] if 4 <= t < 8 else [face(100)] for t in range(24)]
    assert [len(t.frames) for t in tracks.follow(seen, times)] == [20]
    seen = [[] if 4 <= t < 14 else [face(100)] for t in range(24)]
    assert [len(t.frames) for t in tracks.follow(seen, times)] == [4, 10]


def test_a_single_false_alarm_is_no_person() -> None:
    seen = [[face(100)] if t != 7 else [face(100), face(400, size=90)] for t in range(16)]
    assert len(tracks.follow(seen, [0.25 * t for t in range(16)])) == 1
    assert len(tracks.follow([[face(100)]], [0.0])) == 1  # a picture alone is enough


def _prominence(size: float, frames: range, opening: list[float], speaking: bool) -> float:
    track = tracks.Track(
        list(frames), [face(100, size=size, opening=opening[i % len(opening)]) for i in frames]
    )
    return tracks.prominence(track, 20, 360, [speaking] * 20)


def test_prominence_is_size_times_time_times_motion_in_speech() -> None:
    still = _prominence(60, range(20), [0.02], True)
    assert still == pytest.approx(60 / 360, abs=1e-3)
    assert _prominence(120, range(20), [0.02], True) == pytest.approx(2 * still, rel=1e-3)
    assert _prominence(60, range(10), [0.02], True) == pytest.approx(still / 2, rel=1e-3)
    assert _prominence(60, range(20), [0.02, 0.2], True) == pytest.approx(2 * still, rel=1e-3)
    assert _prominence(60, range(20), [0.02, 0.2], False) == pytest.approx(still, rel=1e-3)


def test_turns_count_articulation_not_a_held_mouth() -> None:
    at = np.arange(0, 4, 1 / 8)
    talking = 0.1 + 0.08 * np.sin(2 * np.pi * 1.5 * at)
    held = np.where((at > 1) & (at < 2.5), 0.25, 0.02)
    jitter = 0.05 + 0.01 * np.sin(2 * np.pi * 3 * at)
    assert turns(talking) / 4 == pytest.approx(3, abs=0.5)
    assert turns(held) == 1
    assert turns(jitter) == 0


def test_longest_stretch_is_what_was_seen() -> None:
    at = np.arange(6) * 0.5
    assert longest(np.array([0, 1, 1, 0, 1, 1], bool), at) == (0.5, 1.0)
    assert longest(np.array([1, 0, 1, 1, 1, 0], bool), at) == (1.0, 2.0)
    assert longest(np.array([0, 0, 1, 0, 0, 0], bool), at) == (1.0, 1.0)
    assert longest(np.zeros(6, bool), at) is None


def test_a_percentile_is_a_picture_and_its_time() -> None:
    values = np.array([0.1, 0.9, 0.2, 0.3, 0.8, 0.1, 0.2, 0.1, 0.3, 0.2])
    at = np.arange(10) * 0.4
    value, time = percentile(values, at, 90)
    assert value in values
    assert time == at[list(values).index(value)]
    assert (value, time) == (0.8, 1.6)


def test_a_long_clip_is_measured_against_its_own_median() -> None:
    opening = [0.02] * 12 + [0.25] * 4
    track = tracks.Track(list(range(16)), [face(100, opening=o) for o in opening])
    found = by_name(geometric(track, np.arange(16) * 0.25, []))
    peak = found["mouth_open.p90"]
    assert (peak.value, peak.baseline, peak.baseline_source) == (0.25, 0.02, "own median")
    assert peak.start_s == peak.end_s == 3.0
    hold = found["mouth_open.hold"]
    assert (hold.value, hold.start_s, hold.end_s) == (0.75, 3.0, 3.75)
    short = by_name(geometric(track, np.arange(16) * 0.1, []))["mouth_open.p90"]
    assert short.baseline_source == "typical neutral face"


def test_rhythm_is_not_claimed_from_sparse_pictures() -> None:
    track = tracks.Track(
        list(range(8)), [face(100, opening=0.02 + 0.2 * (i % 2)) for i in range(8)]
    )
    assert "mouth_open.rhythm" in by_name(geometric(track, np.arange(8) * 0.25, []))
    assert "mouth_open.rhythm" not in by_name(geometric(track, np.arange(8) * 0.5, []))


def test_open_mouth_in_speech() -> None:
    track = tracks.Track(list(range(8)), [face(100, opening=0.2)] * 8)
    found = by_name(geometric(track, np.arange(8) * 0.25, [(0.0, 1.0)]))
    assert found["mouth_open.in_speech"].value == 0.5


def test_a_face_turned_away_gives_no_geometry() -> None:
    away = face(100)
    away.points[263, 2] = 60  # the far eye lies deep in the picture
    found = by_name(geometric(tracks.Track([0, 1], [away, away]), np.array([0.0, 0.3]), []))
    assert found["head.yaw"].value > 35
    assert not any(name.startswith("mouth") for name in found)


def test_a_nod_is_no_raised_brow() -> None:
    rows = [face(100) for _ in range(16)]
    for nod in rows[6:8]:
        nod.points[10, 2] = 40  # the forehead goes back
        nod.points[[55, 285], 1] -= 4  # and the brows seem to climb
    track = tracks.Track(list(range(16)), rows)
    found = by_name(geometric(track, np.arange(16) * 0.25, []))
    assert found["brow_height.p90"].value == found["brow_height.median"].value
    level = [face(100) for _ in range(16)]
    for raised in level[6:8]:
        raised.points[[55, 285], 1] -= 4
    found = by_name(geometric(tracks.Track(list(range(16)), level), np.arange(16) * 0.25, []))
    assert found["brow_height.p90"].value > found["brow_height.median"].value + 0.1
    assert found["brow_height.p90"].start_s == 1.5


def test_expression_statistics() -> None:
    read = np.zeros((10, 2, 7))
    read[:, :, 0] = 1
    read[8] = np.eye(7)[[1, 6]]  # the networks disagree in one picture
    found = by_name(expressive(read, np.arange(10) * 0.4))
    assert found["expression.neutral.mean"].value == pytest.approx(0.9)
    assert found["expression.happy.mean"].value == pytest.approx(0.05)
    assert found["expression.agreement"].value == pytest.approx(0.9)
    assert "expression.agreement" not in by_name(expressive(read[:, :1], np.arange(10) * 0.4))
    assert {f"expression.{name}.p90" for name in CLASSES} <= found.keys()


def test_measures_have_known_names_units_and_four_decimals() -> None:
    made = measure("f0.median", 123.456789, when=(0.12345, 1), against=(1 / 3, "somewhere"))
    assert made == Measure(
        measure="f0.median",
        value=123.4568,
        unit="Hz",
        start_s=0.123,
        end_s=1.0,
        baseline=0.3333,
        baseline_source="somewhere",
    )
    with pytest.raises(KeyError):
        measure("f0.mode", 1.0)
    assert all(unit and says for unit, says in MEASURES.values())


def test_windows_for_recognition_stay_short_and_cover_speech() -> None:
    speech = [(0.0, 8.0), (9.0, 17.0), (18.0, 25.0), (30.0, 75.0)]
    cut = windows(speech, 75.0)
    assert all(end - start <= 20.4 for start, end in cut)
    assert cut[0] == (0.0, 17.2)
    for start, end in speech:
        inside = [max(0.0, min(end, b) - max(start, a)) for a, b in cut]
        assert sum(inside) >= end - start
    assert all(a[0] < b[0] for a, b in itertools.pairwise(cut))


def test_token_file() -> None:
    long = b"x" * 200
    data = bytes([3]) + b"abc" + bytes([0]) + bytes([128 + 200 % 128, 200 // 128]) + long
    assert _pieces(data) == [b"abc", b"", long]


FACTS = MediaFacts(
    has_video=True,
    has_audio=True,
    declared_s=2.0,
    decoded_s=2.0,
    short=False,
    width=64,
    height=48,
    fps=4.0,
    variable_rate=False,
    rotation_deg=0,
    n_frames=8,
    audio_hz=16000,
    video_codec=None,
    audio_codec=None,
    decoder="test",
)


def decoded(clip: Clip) -> DecodedClip:
    return DecodedClip(
        clip=clip,
        frames=np.zeros((8, 48, 64, 3), np.uint8),
        frame_times_s=tuple(0.25 * i for i in range(8)),
        pcm=sine(200.0),
        media=FACTS,
    )


def test_without_weights_every_part_says_why_and_nothing_is_claimed() -> None:
    missing = {"face_landmark.tflite": "npm is not here", "silero_vad.onnx": "version withdrawn"}
    with_reasons = Perceiver(weights={}, missing=missing)
    clips = [
        decoded(Clip(clip_id=name, subtitle_zh=zh)) for name, zh in (("a", None), ("b", "你好"))
    ]
    first, second = with_reasons.encode(clips)
    assert isinstance(first, Clues)
    assert isinstance(second, Clues)
    assert [first.clip_id, second.clip_id] == ["a", "b"]
    parts = [note.split(":")[0] for note in first.notes]
    assert parts == ["faces", "expression", "speech activity", "speech recognition"]
    assert "speech activity: not available (version withdrawn)" in first.notes
    assert {m.measure for m in first.measures} == {"sound.seconds", "sound.level"}
    assert (first.n_faces, first.main_face, first.subtitle) == (None, None, None)
    assert (second.subtitle, second.subtitle_source) == ("你好", "given")
    with_reasons.close()
    with_reasons.close()
