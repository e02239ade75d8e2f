"""`emer submit` to a real cluster of two nodes, one of which is lost while the job works there."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from emer_ray import jobserver
from emer_ray.bench.chaos import read_trace, two_nodes
from tests import rows

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
CLIPS = 160

pytestmark = [pytest.mark.ray, pytest.mark.fault]


def emer(*words: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "emer_ray.cli", *words]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def until(reached: Callable[[], object], process: "subprocess.Popen[str] | None" = None) -> None:
    for _ in range(1200):
        if reached():
            return
        if process is not None and process.poll() is not None:
            pytest.fail(process.communicate()[1][-5000:])
        time.sleep(0.1)
    raise AssertionError("waited two minutes")


def ended(process: "subprocess.Popen[str]") -> tuple[int, Sequence[str], str]:
    out, err = process.communicate(timeout=240)
    return process.returncode, out.splitlines(), err


@pytest.fixture
def ray_folder() -> Iterator[Path]:
    """A folder with a short name: Ray's sockets lie in it, whose names may have 107 characters."""
    with tempfile.TemporaryDirectory(prefix="emer-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.mark.timeout(480)
def test_a_submitted_job_outlives_a_detached_terminal_and_a_lost_node(
    synthetic: Path,
    tmp_path: Path,
    ray_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", f"{BIN}:{os.environ['PATH']}")
    trace, run = tmp_path / "trace", str(tmp_path / "run")
    trace.touch()
    clips = [
        {"clip_id": f"c{number:03d}", "video_uri": str(synthetic / f"c{number % 6}.mp4")}
        for number in range(CLIPS)
    ]
    settings = {
        "input.manifest": rows.manifest(tmp_path / "clips.jsonl", clips),
        "output.run": run,
        "output.shard_clips": 4,
        "output.in_flight": 6,
        "media.frames": 2,
        "media.size_px": 64,
        "models.main.backend": "fake",
        "models.main.options": f'{{latency_s = 0.1, trace = "{trace}"}}',
        "pools.decode.actors": 2,
        "pools.explain.actors": 2,
    }
    said = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    with two_nodes(ray_folder, print, jobs=True) as cluster:
        words = ("submit", "jobs/relabel.toml", *said, "--address", cluster.jobs_url, "--json")
        first = emer(*words)
        until(lambda: len(read_trace(trace)) >= 8, first)
        first.send_signal(signal.SIGINT)
        code, out, err = ended(first)
        assert code == 0, err
        detached = json.loads(out[-1])
        assert (detached["status"], detached["state"]) == ("RUNNING", "running"), err
        assert f"`emer status {run}`" in err

        code, _, err = ended(emer(*words))
        assert code == 2
        assert f"job {detached['job']} is RUNNING already" in err

        until(cluster.actors_of_second)
        before = len({clip_id for _, clip_id in read_trace(trace)})
        cluster.lose_second_node()
        assert before < CLIPS
        log: list[str] = []
        job = jobserver.Server(cluster.jobs_url).follow(detached["job"], log.append)
        assert (job.status, job.exit_code) == ("SUCCEEDED", 0), "".join(log)
        code, out, _ = ended(emer("verify", run, "--json"))
        verdict = json.loads(out[-1])
        assert code == 0
        assert (verdict["clips"], verdict["ok"]) == (CLIPS, CLIPS)

        code, out, err = ended(emer(*words))  # nothing is left: it says so and ends
        again = json.loads(out[-1])
        assert (code, again["status"], again["state"]) == (0, "SUCCEEDED", "finished"), err
        assert again["job"] == detached["job"].removesuffix("-1") + "-2"
        assert f"{CLIPS} done before" in err
