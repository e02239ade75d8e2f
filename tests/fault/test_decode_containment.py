"""Contract: whatever a file does to the decoder, its own clip pays, and nothing is left behind."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emer_ray.config import Fault, MediaConfig
from emer_ray.errors import FAILURE_KINDS, ClipError
from emer_ray.media import Decoder, decode_clip
from emer_ray.media import decoder as decoding
from emer_ray.records import Clip, DecodedClip
from emer_ray.store import index
from tests import rows, synth

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


def resident_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def ours(started: Sequence[int]) -> list[int]:
    """List this process and those of its decoders' children that live."""
    return [os.getpid(), *(pid for pid in started if not gone(pid))]


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


def damaged(folder: Path, seeds: range) -> list[dict[str, str]]:
    """List damaged copies of films and sounds in several containers, and a good clip per nine."""
    wholes = [
        synth.clip(folder / "end.mp4"),
        synth.clip(folder / "fast.mp4", options={"movflags": "faststart"}),
        synth.clip(folder / "a.mkv"),
        synth.clip(folder / "a.avi", codec="mpeg4", audio_codec="libmp3lame"),
        synth.clip(folder / "a.webm", codec="libvpx-vp9", audio_codec="libopus", audio_hz=48_000),
        synth.clip(folder / "a.ts"),
        synth.clip(folder / "jpegs.avi", codec="mjpeg", pix_fmt="yuvj420p", audio=False),
        synth.sound(folder / "a.wav"),
        synth.sound(folder / "a.flac"),
    ]
    listed = []
    for seed in seeds:
        whole, other = (Path(wholes[(seed + more) % len(wholes)]) for more in (0, 2))
        path = folder / f"{seed:05d}{whole.suffix}"
        damage = seed // len(wholes)
        path.write_bytes(synth.mutated(whole.read_bytes(), damage, other.read_bytes()))
        heard = "audio_uri" if whole.suffix in (".wav", ".flac") else "video_uri"
        listed.append({"clip_id": path.name, heard: str(path)})
        if seed % 9 == 0:
            listed.append({"clip_id": f"good-{seed}", "video_uri": wholes[0]})
    return listed


@pytest.mark.parametrize(
    "seeds",
    [
        range(150),
        pytest.param(range(150, 1150), marks=[pytest.mark.slow, pytest.mark.timeout(900)]),
    ],
    ids=["some", "many"],
)
def test_damaged_files_end_as_rows_and_leave_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seeds: range
) -> None:
    """Through the serial twin, so that processes and memory are this test's own."""
    started: list[int] = []
    resident: list[float] = []

    class Counted(decoding._Child):
        def __init__(self, *settings: Any) -> None:
            super().__init__(*settings)
            started.append(self._process.pid)

    monkeypatch.setattr(decoding, "_Child", Counted)
    listed = damaged(tmp_path, seeds)
    run = rows.local_run(
        {
            "input": {"manifest": rows.manifest(tmp_path / "clips.jsonl", listed)},
            "output": {"run": str(tmp_path / "run"), "shard_clips": 10},
            "media": SMALL.model_dump(),
            "models": {"main": {"backend": "fake"}},
            "budget": {"failed_share": 1},
        },
        each=lambda: resident.append(sum(map(resident_mb, ours(started)))),
    )
    found = rows.stored(run)
    ends = {name: row.get("kind") or "ok" for name, row in found.items()}
    assert ends.keys() == {row["clip_id"] for row in listed}
    assert index.verify(run).holds
    assert {kind for name, kind in ends.items() if name.startswith("good")} == {"ok"}
    counted = Counter(ends.values())
    print(dict(counted), f"{len(started)} child processes", resident[:: len(resident) // 5])
    assert counted.keys() <= {"ok", *FAILURE_KINDS}
    assert {"ok", "corrupt", "truncated", "not_media", "too_large"} <= counted.keys()
    # `error` would be an exception nobody thought of.
    assert [name for name, kind in ends.items() if kind == "error"] == []
    # one child after another, and a new one only where a clip cost the old one
    assert len(started) <= 1 + counted["timeout"] + counted["memory"] + 2 * counted["crashed"]
    warm = len(resident) // 5
    assert max(resident[warm:]) - max(resident[: warm + 1]) < 20


def test_memory_stays_flat_over_good_and_bad_files(
    film: str, tmp_path: Path, decoder: Decoder
) -> None:
    bad = synth.cut(film, tmp_path / "bad.mp4", 0.7)
    clips = [Clip(clip_id=str(n), video_uri=(film, bad)[n % 2]) for n in range(60)]
    mine = children(os.getpid())
    assert set(kinds(decoder(clips))) == {"ok", "corrupt"}
    (child,) = set(children(os.getpid())) - set(mine)

    before_mb = resident_mb(child)
    for _ in range(4):
        decoder(clips)
    assert resident_mb(child) - before_mb < 8
