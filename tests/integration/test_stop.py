"""Stopping: a driver asked to stop finishes what is in flight; one that dies is replaced."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from emer_ray import storage, watch
from emer_ray.errors import Interrupted
from emer_ray.store import claims, drain, index, layout
from tests import rows

ROOT = Path(__file__).parents[2]
EMER = [sys.executable, "-m", "emer_ray.cli", "relabel"]


def arguments(synthetic: Path, folder: Path) -> tuple[list[str], str]:
    clips = [
        {"clip_id": f"c{number:03d}", "video_uri": str(synthetic / f"c{number % 6}.mp4")}
        for number in range(120)
    ]
    run = str(folder / "run")
    settings = {
        **{"input.manifest": rows.manifest(folder / "clips.jsonl", clips), "output.run": run},
        **{"output.shard_clips": "4", "models.main.backend": "fake", "media.size_px": "64"},
        **{"media.frames": "2", "models.main.options.latency_s": "0.1"},
        "output.in_flight": "4",
    }
    return [part for key, value in settings.items() for part in ("--set", f"{key}={value}")], run


def wait_for_parts(run: str, process: subprocess.Popen[str], count: int) -> None:
    until = time.monotonic() + 120
    while len(layout.live(run)) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.1)


@pytest.mark.ray
def test_sigterm_finishes_what_is_in_flight_and_asks_to_be_resumed(
    synthetic: Path, tmp_path: Path
) -> None:
    said, run = arguments(synthetic, tmp_path)
    driver = subprocess.Popen([*EMER, *said], stderr=subprocess.PIPE, text=True)
    wait_for_parts(run, driver, 3)
    driver.send_signal(signal.SIGTERM)
    _, err = driver.communicate(timeout=60)
    assert driver.returncode == Interrupted.exit_code, err
    assert "nothing in flight; starting again resumes" in err
    verdict = index.verify(run)
    assert 0 < verdict.missing < 120
    assert verdict.missing % 4 == 0
    assert not list(storage.listing(storage.join(run, "claims")))
    assert not drain.requested(run)
    done = subprocess.run([*EMER, *said, "--json"], capture_output=True, text=True)
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["ok"] == 120
    assert summary["skipped"] == 120 - verdict.missing


@pytest.mark.ray
def test_the_job_starts_a_dead_driver_again(synthetic: Path, tmp_path: Path) -> None:
    said, run = arguments(synthetic, tmp_path)
    job = subprocess.Popen(
        [sys.executable, str(ROOT / "jobs" / "relabel.py"), *said],
        stdout=subprocess.PIPE,
        text=True,
    )
    wait_for_parts(run, job, 3)
    driver = json.loads(storage.read(storage.join(run, "lease.json")))["pid"]
    assert driver != job.pid
    os.kill(driver, signal.SIGKILL)
    out, _ = job.communicate(timeout=120)
    assert job.returncode == 0
    assert "the driver ended with -9; starting it again, 3 tries left" in out
    assert index.verify(run).holds


def test_without_a_sign_of_life_the_log_names_what_is_at_work(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    claims.claim(str(tmp_path), "explain", 7)
    with (
        caplog.at_level(logging.WARNING),
        watch.unstalled(str(tmp_path), 0.2, lambda: ["free: 3 CPUs"]) as alive,
    ):
        time.sleep(0.6)
        alive()
    said = "\n".join(caplog.messages)
    assert "no clip finished for" in said
    assert "explain works on shard 7 since" in said
    assert "free: 3 CPUs" in said


def test_signs_of_life_keep_it_quiet(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with watch.unstalled(str(tmp_path), 5.0, list) as alive:
        alive()
    assert not caplog.messages
