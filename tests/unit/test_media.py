"""What decoding a clip gives: which frames and when, which sound, which facts, which failures."""

import importlib.metadata
import io
import struct
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emer_ray.config import MediaConfig
from emer_ray.errors import ClipError, ConfigError, StorageError
from emer_ray.media import check_decoders, decode_clip
from emer_ray.media.sampling import choose, target_size
from emer_ray.records import Clip, DecodedClip
from tests import synth

SMALL = MediaConfig(frames=6, size_px=96)
TWELVE_FPS = [k / 12 for k in range(24)]


def decode(uri: str | None, settings: MediaConfig = SMALL, **clip: Any) -> DecodedClip:
    return decode_clip(Clip(clip_id="a", video_uri=uri, **clip), settings)


def numbers(decoded: DecodedClip) -> list[int]:
    assert decoded.frames is not None
    return [synth.frame_number(frame) for frame in decoded.frames]


def failure(uri: str | None, settings: MediaConfig = SMALL, **clip: Any) -> str:
    with pytest.raises(ClipError) as caught:
        decode(uri, settings, **clip)
    return caught.value.kind


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two seconds at 12 pictures a second with a tone."""
    return synth.clip(tmp_path_factory.mktemp("film") / "film.mp4")


@pytest.fixture(scope="module")
def long_film(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Twenty seconds with a key frame every two, and B frames between."""
    path = tmp_path_factory.mktemp("film") / "long.mp4"
    return synth.clip(path, seconds=20, key_every=24, b_frames=3)


# Sampling rules, as arithmetic. The upstream ones are by index, ours by time.


@pytest.mark.parametrize(
    ("sampling", "n", "length", "expected"),
    [
        ("centre", 6, 24, [2, 6, 10, 14, 18, 22]),
        ("centre", 5, 24, [2, 7, 12, 16, 21]),
        ("centre", 4, 3, [0, 1, 2]),
        ("affectgpt", 6, 24, [0, 4, 8, 12, 16, 20]),
        ("affectgpt", 5, 24, [0, 4, 9, 14, 19]),
        ("affectgpt", 4, 3, [0, 1, 2, 2]),
        ("segment_start", 5, 24, [0, 4, 8, 12, 16]),
        ("segment_start", 4, 3, [0, 1, 2, 2]),
        ("segment_start", 8, 9, [0, 1, 2, 3, 4, 5, 6, 7]),
    ],
)
def test_each_rule_chooses_its_frames(
    sampling: Any, n: int, length: int, expected: list[int]
) -> None:
    settings = MediaConfig(frames=n, sampling=sampling)
    assert choose(TWELVE_FPS[:length], length / 12, settings) == expected


def test_centre_goes_by_time_where_the_rate_varies() -> None:
    # One picture stands still for 3 of 4 seconds: it holds three of the four segments.
    assert choose([0.0, 3.0, 3.5], 4.0, MediaConfig(frames=4)) == [0, 2]


def test_centre_is_the_middle_index_on_a_millisecond_clock() -> None:
    rounded = [round(k / 24, 3) for k in range(48)]
    assert choose(rounded, 2.0, MediaConfig(frames=8)) == [3, 9, 15, 21, 27, 33, 39, 45]


def test_fps_takes_one_each_interval_up_to_the_limit() -> None:
    every_half = MediaConfig(frames=16, sampling="fps", fps=2)
    assert choose(TWELVE_FPS, 2.0, every_half) == [0, 6, 12, 18]
    assert choose(TWELVE_FPS, 2.0, MediaConfig(frames=3, sampling="fps", fps=2)) == [0, 6, 12]


def test_size_is_never_enlarged_unless_square() -> None:
    assert target_size(1280, 720, MediaConfig(size_px=224)) == (398, 224)
    assert target_size(100, 60, MediaConfig(size_px=224)) == (100, 60)
    assert target_size(100, 60, MediaConfig(size_px=224, resize="square")) == (224, 224)
    assert target_size(1280, 720, MediaConfig(resize="none")) == (1280, 720)


# Pictures and their times.


def test_frames_times_and_facts_of_a_plain_film(film: str) -> None:
    decoded = decode(film)
    media = decoded.media
    assert numbers(decoded) == [2, 6, 10, 14, 18, 22]
    assert decoded.frame_times_s == pytest.approx(
        [k / 12 for k in (2, 6, 10, 14, 18, 22)], abs=1e-5
    )
    assert decoded.frames is not None
    assert decoded.frames.shape == (6, 96, 128, 3)
    assert (media.width, media.height, media.fps, media.n_frames) == (160, 120, 12.0, 6)
    assert (media.video_codec, media.audio_codec, media.audio_hz) == ("h264", "aac", 44_100)
    assert (media.has_video, media.has_audio, media.short) == (True, True, False)
    assert (media.variable_rate, media.rotation_deg, media.declared_s) == (False, 0, 2.0)
    assert media.decoded_s == pytest.approx(2.0, abs=0.05)
    assert media.decoder.startswith("PyAV")


@pytest.mark.parametrize("sampling", ["centre", "affectgpt", "segment_start"])
def test_decoding_only_what_is_wanted_changes_no_pixel(long_film: str, sampling: Any) -> None:
    everything = decode(long_film, MediaConfig(frames=240, size_px=96))
    few = decode(long_film, MediaConfig(frames=7, size_px=96, sampling=sampling))
    assert everything.frames is not None
    assert few.frames is not None
    places = [everything.frame_times_s.index(time_s) for time_s in few.frame_times_s]
    assert len(everything.frames) == 240
    assert np.array_equal(few.frames, everything.frames[places])


def test_two_threads_decode_what_one_does(long_film: str) -> None:
    one, two = (decode(long_film, MediaConfig(size_px=96, threads=n)) for n in (1, 2))
    assert one.frames is not None
    assert np.array_equal(one.frames, two.frames)


def test_a_window_reached_by_seeking_shows_what_the_whole_file_does(long_film: str) -> None:
    whole = decode(long_film, MediaConfig(frames=240, size_px=96))
    window = decode(long_film, MediaConfig(frames=99, size_px=96), start_s=11.25, end_s=13.0)
    assert whole.frames is not None
    assert whole.pcm is not None
    assert window.pcm is not None
    assert window.frame_times_s == pytest.approx([k / 12 for k in range(21)], abs=1e-5)
    assert np.array_equal(window.frames, whole.frames[135:156])
    same_sound = whole.pcm[round(11.25 * 16_000) :][: len(window.pcm)]
    assert len(window.pcm) == 28_000
    assert np.abs(window.pcm - same_sound).max() < 0.05  # aligned to half a sample
    assert window.media.declared_s == 1.75
    assert window.media.decoded_s == pytest.approx(1.75)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mkv", {}),
        ("a.ts", {}),  # seeks to any picture, not to key frames
        ("a.flv", {}),
        ("h264.avi", {"audio_codec": "libmp3lame"}),  # no time stamps, B frames
        ("mpeg4.avi", {"codec": "mpeg4", "audio_codec": "libmp3lame"}),
        ("plain.avi", {"codec": "mpeg4", "b_frames": 0, "audio_codec": "libmp3lame"}),
        ("vp9.webm", {"codec": "libvpx-vp9", "audio": False}),
    ],
)
def test_windows_of_every_container_show_what_the_whole_file_does(
    tmp_path: Path, name: str, options: dict[str, Any]
) -> None:
    path = synth.clip(tmp_path / name, seconds=12, key_every=24, **options)
    every = MediaConfig(frames=144, size_px=96)
    whole = decode(path, every)
    assert whole.frames is not None
    for start_s, end_s in ((2.2, 3.3), (6.6, 8.1), (10.0, 12.0)):
        window = decode(path, every, start_s=start_s, end_s=end_s)
        inside = [
            number
            for number, time_s in enumerate(whole.frame_times_s)
            if start_s - 1e-5 <= time_s < end_s - 1e-5
        ]
        assert np.array_equal(window.frames, whole.frames[inside])
        assert window.media.short is False


def test_a_window_between_two_pictures_shows_the_earlier_one(tmp_path: Path) -> None:
    slides = synth.clip(tmp_path / "slides.mp4", times_s=[0, 1, 2, 3], audio=False)
    decoded = decode(slides, start_s=1.4, end_s=1.8)
    assert (numbers(decoded), decoded.frame_times_s) == ([1], (0.0,))
    assert decoded.media.short is False


def test_variable_rate_keeps_true_times(tmp_path: Path) -> None:
    times_s = [0, 0.1, 0.2, 0.9, 1.0, 1.1, 1.2, 1.3, 1.9, 2.0]
    decoded = decode(synth.clip(tmp_path / "vfr.mp4", times_s=times_s), MediaConfig(size_px=96))
    assert decoded.media.variable_rate is True
    assert decoded.frame_times_s == pytest.approx([times_s[k] for k in numbers(decoded)], abs=1e-4)


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_a_turned_film_comes_upright(tmp_path: Path, turn: int) -> None:
    decoded = decode(synth.clip(tmp_path / "turned.mp4", rotation_deg=turn))
    assert numbers(decoded) == [2, 6, 10, 14, 18, 22]
    assert (decoded.media.rotation_deg, decoded.media.width) == (turn, 160)


@pytest.mark.parametrize("turn", [0, 90])
def test_a_crop_is_of_the_upright_picture(tmp_path: Path, turn: int) -> None:
    path = synth.clip(tmp_path / "film.mp4", rotation_deg=turn)
    decoded = decode(path, crop=(0.7, 0.55, 0.95, 1.0))
    assert decoded.frames is not None
    assert decoded.frames.shape == (6, 54, 40, 3)
    red, green, blue = np.median(decoded.frames, axis=(0, 1, 2))
    assert blue > 150 > 60 > max(red, green)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("odd.mp4", {"size": (161, 121), "pix_fmt": "yuv444p"}),
        ("vp9.webm", {"codec": "libvpx-vp9", "audio_codec": "libopus", "audio_hz": 48_000}),
        ("mpeg4.avi", {"codec": "mpeg4", "audio_codec": "libmp3lame"}),
        ("h264.avi", {"audio_codec": "libmp3lame"}),
        ("h264.mkv", {}),
        ("h264.ts", {}),
        ("h264.flv", {}),
    ],
)
def test_containers_and_codecs_give_the_same_frames(
    tmp_path: Path, name: str, options: dict[str, Any]
) -> None:
    decoded = decode(synth.clip(tmp_path / name, **options))
    assert numbers(decoded) == [2, 6, 10, 14, 18, 22]
    assert decoded.frame_times_s[1] - decoded.frame_times_s[0] == pytest.approx(4 / 12, abs=2e-3)
    assert decoded.pcm is not None
    assert synth.pitch_hz(decoded.pcm) == pytest.approx(440, abs=1)


def test_one_picture_is_one_frame(tmp_path: Path) -> None:
    decoded = decode(synth.clip(tmp_path / "one.mp4", times_s=[0], audio=False))
    assert (numbers(decoded), decoded.media.variable_rate) == ([0], None)
    repeated = decode(decoded.clip.video_uri, MediaConfig(frames=4, sampling="affectgpt"))
    assert numbers(repeated) == [0, 0, 0, 0]


# Sound.


def test_sound_is_mono_16_khz_at_its_level(film: str) -> None:
    pcm = decode(film).pcm
    assert pcm is not None
    assert pcm.dtype == np.float32
    assert len(pcm) == pytest.approx(32_000, abs=400)
    assert synth.pitch_hz(pcm) == pytest.approx(440, abs=1)
    assert np.abs(pcm).max() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "m4a"])
def test_a_separate_audio_file_replaces_the_films_sound(
    film: str, tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"other.{suffix}"
    if suffix == "m4a":
        synth.clip(path, video=False, tone_hz=880)
    else:
        synth.sound(path, tone_hz=880)
    decoded = decode(film, audio_uri=str(path), start_s=0.5, end_s=1.5)
    assert decoded.pcm is not None
    assert len(decoded.pcm) == pytest.approx(16_000, abs=1)
    assert synth.pitch_hz(decoded.pcm) == pytest.approx(880, abs=1)
    assert numbers(decoded) == [7, 9, 11, 13, 15, 17]


def test_absent_and_silent_modalities_are_facts(tmp_path: Path) -> None:
    deaf = decode(synth.clip(tmp_path / "deaf.mp4", audio=False))
    assert (deaf.pcm, deaf.media.has_audio, deaf.media.audio_codec) == (None, False, None)
    blind = decode(synth.clip(tmp_path / "blind.mp4", video=False))
    assert (blind.frames, blind.media.has_video, blind.media.n_frames) == (None, False, 0)
    assert (blind.media.width, blind.media.fps) == (None, None)
    silent = decode(synth.clip(tmp_path / "silent.mp4", tone_hz=0))
    assert silent.pcm is not None
    assert (silent.media.has_audio, float(np.abs(silent.pcm).max())) == (True, 0.0)


def test_a_shorter_sound_track_is_not_damage(tmp_path: Path) -> None:
    decoded = decode(synth.clip(tmp_path / "film.mp4", seconds=4, audio_seconds=1))
    assert (decoded.media.short, decoded.media.declared_s) == (False, 4.0)


class Failing(io.BytesIO):
    """An object whose store breaks off after some reads."""

    def __init__(self, data: bytes, reads: int) -> None:
        super().__init__(data)
        self.reads = reads

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads -= 1
        if self.reads < 0:
            raise StorageError("storage", "the connection keeps breaking")
        return super().read(size)


@pytest.mark.parametrize("reads", [0, 1, 4])
def test_a_store_that_breaks_off_is_not_mistaken_for_a_short_file(
    long_film: str, monkeypatch: pytest.MonkeyPatch, reads: int
) -> None:
    data = Path(long_film).read_bytes()
    monkeypatch.setattr(
        "emer_ray.media.decode.opened", lambda *_: nullcontext(Failing(data, reads))
    )
    assert failure("s3://bucket/long.mp4") == "storage"


# Folders of images.


def test_a_folder_of_images_is_a_clip(tmp_path: Path) -> None:
    folder = synth.images(tmp_path / "images", n=12)
    decoded = decode(folder, fps=6.0)
    assert numbers(decoded) == [1, 3, 5, 7, 9, 11]
    assert decoded.frame_times_s == pytest.approx([k / 6 for k in (1, 3, 5, 7, 9, 11)], abs=1e-5)
    assert (decoded.media.declared_s, decoded.media.has_audio) == (2.0, False)
    assert numbers(decode(folder, fps=6.0, start_s=0.5, end_s=1.0)) == [3, 4, 5]


def test_damaged_images_are_left_out_until_half_is_gone(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    synth.images(folder, n=10)
    everything = MediaConfig(frames=10)
    (folder / "00004.jpg").write_bytes(b"not a picture")
    assert numbers(decode(str(folder), everything, fps=5.0)) == [0, 1, 2, 3, 5, 6, 7, 8, 9]
    for number in range(6):
        (folder / f"{number:05d}.jpg").write_bytes(b"not a picture")
    assert failure(str(folder), everything, fps=5.0) == "truncated"
    assert failure(str(tmp_path / "nothing"), fps=5.0) == "missing"


# Failures, each by its kind.


def test_files_that_are_no_media(tmp_path: Path) -> None:
    for name, data, kind in (
        ("zero.mp4", b"", "empty"),
        ("text.mp4", b"this is a subtitle file, renamed\n" * 40, "not_media"),
        ("page.mp4", b"<html><body>404 not found</body></html>", "not_media"),
        ("random.mp4", np.random.default_rng(0).bytes(40_000), "not_media"),
    ):
        (tmp_path / name).write_bytes(data)
        assert failure(str(tmp_path / name)) == kind, name
    assert failure(str(tmp_path / "nowhere.mp4")) == "missing"
    assert failure(str(tmp_path)) == "missing"


def test_a_playlist_cannot_make_us_open_what_it_names(film: str, tmp_path: Path) -> None:
    for name, text in (
        ("list.mp4", f"ffconcat version 1.0\nfile {film}\n"),
        ("list.m3u8", f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{film}\n#EXT-X-ENDLIST\n"),
    ):
        (tmp_path / name).write_text(text)
        assert failure(str(tmp_path / name)) == "not_media"


@pytest.mark.parametrize(
    ("suffix", "share", "outcome"),
    [
        ("mp4", 0.6, "corrupt"),  # its index is at the end
        ("fast.mp4", 0.3, "truncated"),
        ("fast.mp4", 0.75, "short"),
        ("mkv", 0.3, "truncated"),
        ("mkv", 0.75, "short"),
        ("wav", 0.3, "truncated"),
        ("wav", 0.75, "short"),
        ("flac", 0.3, "truncated"),
    ],
)
def test_a_file_cut_off(tmp_path: Path, suffix: str, share: float, outcome: str) -> None:
    whole = tmp_path / f"whole.{suffix}"
    if suffix in ("wav", "flac"):
        synth.sound(whole)
    else:
        synth.clip(whole, options={"movflags": "faststart"} if "fast" in suffix else {})
    path = synth.cut(whole, tmp_path / f"cut.{suffix}", share)
    uris: dict[str, Any] = {"uri": path}
    if suffix in ("wav", "flac"):
        uris = {"uri": None, "audio_uri": path}
    if outcome != "short":
        assert failure(**uris) == outcome
        return
    media = decode(**uris).media
    assert media.short is True
    assert media.declared_s is not None
    assert 0.5 < media.decoded_s / media.declared_s < 0.9


def test_a_window_beyond_the_end(film: str) -> None:
    assert failure(film, start_s=5.0, end_s=6.0) == "truncated"
    assert failure(film, start_s=1.0, end_s=9.0) == "truncated"
    assert decode(film, start_s=1.0, end_s=2.4).media.short is True


def test_a_film_whose_pictures_do_not_decode_fails_although_it_sounds(tmp_path: Path) -> None:
    path = tmp_path / "film.mkv"
    synth.clip(path, codec="mpeg4")
    data = path.read_bytes()
    path.write_bytes(data.replace(b"V_MPEG4/ISO/ASP", b"V_MPEG4/XXX/XXX"))
    assert failure(str(path)) == "truncated"


def test_limits_are_kept_before_anything_is_decoded(film: str, tmp_path: Path) -> None:
    assert failure(film, MediaConfig(max_pixels=10_000)) == "too_large"
    assert failure(film, MediaConfig(max_window_s=1.5)) == "too_large"
    assert decode(film, MediaConfig(max_window_s=1.5), start_s=0.5).media.declared_s == 1.5
    big = tmp_path / "big.mp4"
    with big.open("wb") as file:
        file.truncate(3 * 2**20)
    assert failure(str(big), MediaConfig(max_mb=2)) == "too_large"


def test_a_stream_without_a_stated_end_is_bounded(tmp_path: Path) -> None:
    live = synth.clip(tmp_path / "live.mkv", seconds=4, options={"live": "1"})
    assert decode(live).media.declared_s is None
    assert failure(live, MediaConfig(max_window_s=2)) == "too_large"


@pytest.mark.parametrize(
    ("table", "offset", "value", "expected"),
    [
        (b"mvhd", 20, 0xFFFFFFF0, {"ok", "too_large"}),
        (b"mdhd", 20, 0xFFFFFFF0, {"ok", "too_large", "truncated"}),
        (b"tkhd", 24, 0xFFFFFFF0, {"ok", "too_large", "truncated"}),
        (b"avc1", 28, 0xFFFFFFFF, {"ok", "too_large", "corrupt"}),
        (b"stts", 12, 0xFFFFFFF0, {"ok", "too_large", "corrupt", "truncated"}),
        (b"stsz", 8, 0xFFFFFFF0, {"corrupt", "truncated", "not_media", "memory"}),
    ],
)
def test_headers_that_lie_end_quickly(
    film: str, tmp_path: Path, table: bytes, offset: int, value: int, expected: set[str]
) -> None:
    data = bytearray(Path(film).read_bytes())
    at = data.index(table) + offset
    data[at : at + 4] = value.to_bytes(4, "big")
    path = tmp_path / "lie.mp4"
    path.write_bytes(data)
    try:
        decode(str(path))
        outcome = "ok"
    except ClipError as error:
        outcome = error.kind
    assert outcome in expected


def test_an_absurd_duration_is_refused_by_the_header_alone(tmp_path: Path) -> None:
    path = tmp_path / "film.mkv"
    synth.clip(path)
    data = bytearray(path.read_bytes())
    at = data.index(b"\x44\x89\x88") + 3  # Matroska: Duration, eight bytes, milliseconds
    data[at : at + 8] = struct.pack(">d", 1e12)
    path.write_bytes(data)
    assert failure(str(path)) == "too_large"
    assert decode(str(path), start_s=0.5, end_s=1.5).media.declared_s == 1.0


def test_time_that_runs_in_a_circle_ends(tmp_path: Path) -> None:
    once = Path(synth.clip(tmp_path / "once.ts")).read_bytes()
    circle = tmp_path / "circle.ts"
    circle.write_bytes(once * 20)
    decoded = decode(str(circle), MediaConfig(max_window_s=60))
    assert decoded.media.has_video


def test_both_decord_distributions_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    check_decoders()
    real: Callable[[str], str] = importlib.metadata.version
    monkeypatch.setattr(
        "emer_ray.media.decode.version", lambda name: "0" if "decord" in name else real(name)
    )
    with pytest.raises(ConfigError, match="decord and decord2"):
        check_decoders()


def test_pictures_of_a_folder_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    synth.images(tmp_path / "padded", n=12)
    (tmp_path / "bare").mkdir()
    for path in (tmp_path / "padded").iterdir():
        path.rename(tmp_path / "bare" / f"{int(path.stem)}{path.suffix}")
    clip = Clip(clip_id="a", video_uri=str(tmp_path / "bare"), fps=12.0)
    frames = decode_clip(clip, MediaConfig(frames=12, resize="none")).frames
    assert frames is not None
    assert [synth.frame_number(frame) for frame in frames] == list(range(12))
