"""`bench peers`: the loops run, die and run again as the others do; what they use is counted."""

import os
import subprocess
import sys

import pytest

from emer_ray.bench import peers, processes
from emer_ray.errors import ConfigError


def test_a_program_is_measured_killed_and_started_again() -> None:
    found = peers.peers(clips=160, kill_clips=160, programs=["loop", "asyncio"])
    for name in ("loop", "asyncio"):
        figures = found[name]
        assert figures["wall_s"] == pytest.approx(figures["start_s"] + figures["run_s"], abs=0.02)
        assert figures["run_s"] > 160 * 0.005
        assert figures["cpu_s"] > 0.8 * 160 * 0.005  # its decoding
        assert figures["rss_mb"] > 20
        assert (figures["lost"], figures["duplicated"]) == (0, 0)
    assert 80 <= found["loop"]["redone"] < 160  # it keeps nothing
    assert found["asyncio"]["redone"] <= 4 * 8  # batches under way


def test_a_program_that_fails_says_with_what(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(peers.PROGRAMS, "loop", ["loop.py", "--no-such-option"])
    found = peers.peers(clips=8, kill_clips=0, programs=["loop"])
    assert "unrecognized arguments: --no-such-option" in found["loop"]["error"]


def test_a_family_holds_orphans_and_leaves_others_out() -> None:
    sleeper = [sys.executable, "-c", "import time; time.sleep(60)"]
    with peers.adopting_orphans(), subprocess.Popen(sleeper) as other:
        others = frozenset(processes.children()[os.getpid()])
        # the parent of this sleeper is gone at once
        start = f"from subprocess import *; print(Popen({sleeper!r}, stdout=DEVNULL).pid)"
        orphan = int(subprocess.check_output([sys.executable, "-c", start]))
        assert [process.pid for process in peers.family(others)] == [orphan]
        look = peers.Look(others=others)
        os.kill(orphan, 9)
        peers._clear(look)
        assert peers.family(others) == []
        assert other.poll() is None
        other.kill()


def test_cpu_time_of_a_number_that_was_given_again_is_kept() -> None:
    look = peers.Look(others=frozenset())
    for cpu_s in (1.0, 3.0, 0.0, 0.5, 0.75):
        look.note(17, cpu_s)
    look.note(18, 2.0)
    assert look.cpu_s == 3.0 + 0.75 + 2.0


def test_unknown_programs_are_refused() -> None:
    with pytest.raises(ConfigError, match="--program spark: not one of ours, naive_ray"):
        peers.peers(programs=["spark"])
