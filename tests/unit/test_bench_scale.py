"""The arithmetic of `bench scale`, `bench memory` and `bench simulate`, on made-up notes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from emer_ray.bench import memory, processes, scale, simulate


def test_occupancy_counts_what_a_model_takes_and_only_in_the_window() -> None:
    # the window is 10 to 17: both have loaded by 10, and the first has done its last batch at 17
    steady = scale.Life(loaded=0.0, batches=[9.0, 11.0, 13.0, 15.0])
    late = scale.Life(loaded=10.0, batches=[10.0, 14.0, 16.0])
    assert scale.window([steady, late], 2.0) == (10.0, 17.0)
    assert scale.occupancy([steady, late], 2.0) == pytest.approx((1 + 2 + 2 + 2 + 2 + 2 + 1) / 14)


def test_a_replica_without_work_is_idle() -> None:
    busy = scale.Life(loaded=0.0, batches=[0.0, 1.0, 2.0, 3.0])
    starved = scale.Life(loaded=0.0, batches=[])
    assert scale.occupancy([busy, starved], 1.0) == pytest.approx(0.5)


def test_a_trail_is_read_as_it_was_noted(tmp_path: Path) -> None:
    (tmp_path / "17").write_text("loaded 1.5000\nbatch 2.0000\nbatch 3.5000\n")
    (tmp_path / "18").write_text("loaded 1.7500\n")
    lives = sorted(scale.read_trail(tmp_path), key=lambda life: life.loaded)
    assert lives == [
        scale.Life(loaded=1.5, batches=[2.0, 3.5]),
        scale.Life(loaded=1.75, batches=[]),
    ]


def test_peaks_are_those_of_the_clips_asked_about() -> None:
    samples = [(0, 900.0, 9.0), (10, 100.0, 50.0), (20, 120.0, 10.0), (30, 300.0, 300.0)]
    assert memory.peaks(samples, 0, 20) == {"mb": 150.0, "driver_mb": 120.0, "actors_mb": 50.0}


def test_a_process_is_seen_with_its_children() -> None:
    hoard = "import sys; held = bytearray(b'x' * 2**26); print(1, flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", hoard], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        child.stdout.readline()
        found = {process.pid: process for process in processes.family(os.getpid())}
        assert found[os.getpid()].kind == "driver"
        assert found[child.pid].kind == "system"
        assert 64 <= found[child.pid].pss_mb() < 100
        assert found[os.getpid()].cpu_s() > 0
        child.stdin.close()


@pytest.mark.parametrize("gpus", [1, 8, 64])
@pytest.mark.parametrize("cores_per_gpu", [1.0, 4.0, 16.0])
def test_a_long_simulation_comes_to_its_bottleneck(gpus: int, cores_per_gpu: float) -> None:
    plant = simulate.Plant(gpus=gpus, cores=8 + gpus * cores_per_gpu)
    found = simulate.predict(16 * 80 * gpus, plant, simulate.Costs())
    bound = min(found["capacity_clips_per_s"].values())
    assert 0.9 * bound < found["clips_per_s"] <= 1.01 * bound


def test_the_simulation_gives_back_the_run_that_its_costs_are_from() -> None:
    """64 replicas on two cores, small clips in shards of 64: 670 clips/s, 0.982 in its window."""
    plant = simulate.Plant(gpus=64, cores=2, shard_clips=64, decoders=6)
    found = simulate.predict(400_000, plant, simulate.Costs(decode_clip_s=0.0001))
    assert found["clips_per_s"] == pytest.approx(670, rel=0.05)
    assert found["occupancy"] == pytest.approx(0.982, abs=0.03)
