"""Contract: whatever a file does to the decoder, its own clip pays, and nothing is left behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from emer_ray.config import Fault, MediaConfig
from emer_ray.errors import FAILURE_KINDS, ClipError
from emer_ray.media import Decoder, decode_clip
from emer_ray.records import Clip, DecodedClip
from tests import synth

pytestmark = pytest.mark.fault

SMALL = MediaConfig(frames=4, size_px=64, deadline_s=2, memory_mb=400)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> str:
    return synth.clip(tmp_path_factory.mktemp("film") / "film.mp4", seconds=1)


@pytest.fixture
def decoder() -> Iterator[Decoder]:
    with closing(Decoder(SMALL)) as decoder:
        yield decoder


def kinds(answers: Sequence[DecodedClip | ClipError]) -> list[str]:
    return [a.kind if isinstance(a, ClipError) else "ok" for a in answers]


def children(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that temporary files of children would lie in."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


def leftovers(scratch: Path) -> list[Path]:
    """What a decoder could leave: temporary files, shared memory."""
    return [*scratch.iterdir(), *Path("/dev/shm").glob("*emer*")]


def gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"


def eventually(condition: object, seconds: float = 10) -> bool:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.mark.parametrize(
    ("fault", "kind", "says"),
    [
        ("segfault", "crashed", "SIGSEGV"),
        ("exit", "crashed", "exit code 3"),
        ("hang", "timeout", "media.deadline_s"),
        ("bloat", "memory", "media.memory_mb"),
        ("raise", "error", "RuntimeError: rehearsed fault"),
    ],
)
def test_one_clip_pays_and_its_neighbours_do_not(
    film: str, scratch: Path, fault: Fault, kind: str, says: str
) -> None:
    mine = children(os.getpid())
    clips = [Clip(clip_id=name, video_uri=film) for name in ("a", "poison", "b")]
    with closing(Decoder(SMALL, faults={"poison": fault})) as decoder:
        answers = decoder(clips)
        assert len(set(children(os.getpid())) - set(mine)) == 1
    assert kinds(answers) == ["ok", kind, "ok"]
    assert says in str(answers[1])
    alone = decode_clip(clips[0], SMALL)
    for answer, clip in zip(answers[::2], clips[::2], strict=True):
        assert isinstance(answer, DecodedClip)
        assert answer.clip == clip
        assert answer.media == alone.media
        assert np.array_equal(answer.frames, alone.frames)
        assert np.array_equal(answer.pcm, alone.pcm)
    assert children(os.getpid()) == mine
    assert leftovers(scratch) == []


def test_a_child_killed_from_outside_costs_no_clip(film: str, decoder: Decoder) -> None:
    clips = [Clip(clip_id="a", video_uri=film)]
    mine = children(os.getpid())
    assert kinds(decoder(clips)) == ["ok"]
    (child,) = set(children(os.getpid())) - set(mine)
    os.kill(child, signal.SIGKILL)
    assert kinds(decoder(clips)) == ["ok"]


def test_close_twice_and_no_clips(film: str) -> None:
    decoder = Decoder(SMALL)
    assert decoder([]) == []
    assert kinds(decoder([Clip(clip_id="a", video_uri=film)])) == ["ok"]
    decoder.close()
    decoder.close()


PARENT = """
import sys, time
from emer_ray.config import MediaConfig
from emer_ray.media import Decoder
from emer_ray.records import Clip
settings = MediaConfig(frames=4, size_px=64, deadline_s=600)
decoder = Decoder(settings, faults={"hang": "hang"})
decoder([Clip(clip_id="a", video_uri=sys.argv[1])])
print("ready", flush=True)
if sys.argv[2] == "busy":
    decoder([Clip(clip_id="hang", video_uri=sys.argv[1])])
time.sleep(600)
"""


@pytest.mark.parametrize("state", ["idle", "busy"])
def test_the_child_dies_with_its_parent(film: str, scratch: Path, state: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, film, state], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "ready\n"
        (child,) = children(parent.pid)
        os.kill(child, signal.SIGINT)  # Ctrl-C reaches the whole group; the child leaves it be
        time.sleep(0.3)
        assert not gone(child)
        parent.kill()
    assert eventually(lambda: gone(child))
    assert leftovers(scratch) == []


def damaged(folder: Path, seeds: range) -> Iterator[Clip]:
    """Damaged copies of films and sounds in several containers, one file per seed."""
    wholes = [
        synth.clip(folder / "end.mp4"),
        synth.clip(folder / "fast.mp4", options={"movflags": "faststart"}),
        synth.clip(folder / "a.mkv"),
        synth.clip(folder / "a.avi", codec="mpeg4", audio_codec="libmp3lame"),
        synth.clip(folder / "a.webm", codec="libvpx-vp9", audio_codec="libopus", audio_hz=48_000),
        synth.clip(folder / "a.ts"),
        synth.sound(folder / "a.wav"),
        synth.sound(folder / "a.flac"),
    ]
    for seed in seeds:
        whole = Path(wholes[seed % len(wholes)])
        path = folder / f"{seed:05d}{whole.suffix}"
        path.write_bytes(synth.mutated(whole.read_bytes(), seed // len(wholes)))
        sound = whole.suffix in (".wav", ".flac")
        yield Clip(
            clip_id=path.name,
            video_uri=None if sound else str(path),
            audio_uri=str(path) if sound else None,
        )
        path.unlink()


@pytest.mark.parametrize(
    "seeds",
    [range(60), pytest.param(range(60, 1060), marks=pytest.mark.slow)],
    ids=["some", "many"],
)
def test_damaged_files_end_as_rows_of_a_known_kind(
    film: str, tmp_path: Path, decoder: Decoder, seeds: range
) -> None:
    good = Clip(clip_id="good", video_uri=film)
    ends: dict[str, str] = {}
    slowest_s = 0.0
    for clip in damaged(tmp_path, seeds):
        start_s = time.monotonic()
        (ends[clip.clip_id],) = kinds(decoder([clip]))
        slowest_s = max(slowest_s, time.monotonic() - start_s)
        if len(ends) % 20 == 0:
            assert kinds(decoder([good])) == ["ok"]
    assert len(ends) == len(seeds)
    assert set(ends.values()) <= {"ok", *FAILURE_KINDS}
    assert {"ok", "corrupt", "truncated"} <= set(ends.values())
    # `error` would be an exception nobody thought of.
    assert [name for name, kind in ends.items() if kind == "error"] == []
    assert slowest_s < 2 * SMALL.deadline_s + 5


def test_memory_stays_flat_over_good_and_bad_files(
    film: str, tmp_path: Path, decoder: Decoder
) -> None:
    bad = synth.cut(film, tmp_path / "bad.mp4", 0.7)
    clips = [Clip(clip_id=str(n), video_uri=(film, bad)[n % 2]) for n in range(60)]
    mine = children(os.getpid())
    assert set(kinds(decoder(clips))) == {"ok", "corrupt"}
    (child,) = set(children(os.getpid())) - set(mine)

    def resident_mb() -> float:
        pages = int(Path(f"/proc/{child}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    before_mb = resident_mb()
    for _ in range(4):
        decoder(clips)
    assert resident_mb() - before_mb < 8
