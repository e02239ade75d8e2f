"""Contract: drivers may die, come back different, or be two; the run does not notice.

One story: a driver is killed while a clip that kills its process is being found out; another takes
over with other pools, shards and limits; a third is refused, then forces its way in; at last the
clip that failed is tried again.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from emer_ray import storage
from emer_ray.config import Fault
from emer_ray.errors import StorageError
from emer_ray.store import index, lease
from tests import rows

pytestmark = [pytest.mark.ray, pytest.mark.fault, pytest.mark.slow, pytest.mark.timeout(1200)]

EMER = [sys.executable, "-m", "emer_ray.cli", "relabel", "--json"]
CLIPS = 120
POISON = "c010"


def eventually(condition: Callable[[], bool], *drivers: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 400
    while not condition():
        assert all(driver.poll() is None for driver in drivers), drivers[0].communicate()
        assert time.monotonic() < until
        time.sleep(0.05)


def test_drivers_die_change_and_meet(synthetic: Path, tmp_path: Path) -> None:
    clips = [
        {"clip_id": f"c{number:03d}", "video_uri": str(synthetic / f"c{number % 6}.mp4")}
        for number in range(CLIPS)
    ]
    run, manifest = str(tmp_path / "run"), rows.manifest(tmp_path / "clips.jsonl", clips)
    trace = tmp_path / "trace"

    def start(*more: str, fault: Fault | None = "exit") -> subprocess.Popen[str]:
        settings = {
            **{"input.manifest": manifest, "output.run": run, "models.main.backend": "fake"},
            **{"media.size_px": "64", "media.frames": "2", "output.shard_clips": "4"},
            "models.main.options": f'{{latency_s = 0.3, trace = "{trace}"}}',
            **({"faults.explain": f'{{{POISON} = "{fault}"}}'} if fault else {}),
        }
        said = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
        return subprocess.Popen(
            [*EMER, *said, *more], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def tries() -> int:
        found = 0
        for entry in storage.listing(storage.join(run, "claims")):
            try:
                state = json.loads(storage.read(entry.uri))
            except StorageError:  # released since it was listed
                continue
            found = max(found, state["alone"].get(POISON, 0))
        return found

    first = start()
    eventually(lambda: tries() >= 2, first)
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    counted = tries()
    assert counted >= 2

    # fewer shards in flight, other pools, another size of new shards: staffing decides no result
    second = start(
        *("--set", "pools.explain.actors=2", "--set", "output.in_flight=3"),
        *("--set", "output.shard_clips=7", "--set", "output.block_mb=64"),
    )
    eventually(lambda: (lease.holder(run) or {}).get("pid") == second.pid, second)
    seen: list[int] = []
    eventually(lambda: bool(seen.append(tries()) or index.outcomes(run)["kind"].count()), second)
    assert not {number for number in seen if 0 < number < counted}, "the tries were forgotten"

    refused = start()
    out, said = refused.communicate(timeout=400)
    assert refused.returncode == 2, said
    assert f"another driver is at work (process {second.pid}" in said
    assert out == ""
    third = start("--take-over")
    for driver in (second, third):
        out, said = driver.communicate(timeout=600)
        assert driver.returncode == 0, said
        summary = json.loads(out.splitlines()[-1])
        assert (summary["ok"], summary["failed"]) == (CLIPS - 1, 1)
    verdict = index.verify(run)
    assert verdict.holds
    assert (verdict.ok, verdict.failed, verdict.superseded) == (CLIPS - 1, 1, 0)
    assert rows.stored(run)[POISON]["kind"] == "crashed"
    assert not list(Path(run).rglob("claims/**/*.json"))

    calls = len(trace.read_text().splitlines())
    again = start("--retry-failed=crashed", "--accept", "faults", fault=None)
    out, said = again.communicate(timeout=400)
    assert again.returncode == 0, said
    assert json.loads(out.splitlines()[-1])["ok"] == CLIPS
    assert len(trace.read_text().splitlines()) == calls + 1
    verdict = index.verify(run)
    assert verdict.holds
    assert (verdict.ok, verdict.failed, verdict.superseded) == (CLIPS, 0, 1)
