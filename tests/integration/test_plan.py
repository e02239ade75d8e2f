"""A plan from a real canary on a real local Ray, and the run beside it."""

import json
from pathlib import Path

import pytest

from emer_ray import config, storage
from emer_ray.config import RunConfig
from emer_ray.errors import BudgetError, ConfigError
from emer_ray.plan import PlanOptions, plan
from emer_ray.plan.forecast import Rate, Shard
from emer_ray.relabel import relabel
from emer_ray.runner import Cluster
from emer_ray.store import record

pytestmark = pytest.mark.ray


def listed(synthetic: Path, tmp_path: Path, count: int) -> str:
    names = [synthetic / f"c{number % 6}.mp4" for number in range(count)]
    names[5] = synthetic / "nowhere.mp4"
    lines = ["clip_id,video_uri", *(f"clip-{n:02d},{name}" for n, name in enumerate(names))]
    (tmp_path / "clips.csv").write_text("\n".join(lines) + "\n")
    return str(tmp_path / "clips.csv")


def fake(manifest: str, run: str, latency_s: float = 0.05) -> RunConfig:
    return config.parse(
        {
            "input": {"manifest": manifest},
            "output": {"run": run, "shard_clips": 4},
            "media": {"frames": 4, "size_px": 64},
            "models": {"main": {"backend": "fake", "options": {"latency_s": latency_s}}},
        }
    )


def test_a_plan_leaves_a_prediction_and_the_run_puts_its_figures_beside_it(
    local_ray: Cluster, synthetic: Path, tmp_path: Path
) -> None:
    run = str(tmp_path / "run")
    chosen = fake(listed(synthetic, tmp_path, 24), run)
    found = plan(chosen, PlanOptions(usd_per_hour=3.6))
    assert {"clips", "bottleneck", "clips_per_s", "hours", "usd", "pools"} <= set(found)
    assert found["clips"] == 24
    assert list(found["pools"]) == ["decode", "reason.main", "write"]
    explain = found["canary"]["pools"]["reason.main"]["steps"]["explain"]
    wall, cpu = (Rate(**explain[kind]).of(Shard(clips=4)) for kind in ("wall", "cpu"))
    assert wall > 3 * 0.05  # it sleeps: on a busy machine longer, never shorter
    assert cpu < wall
    assert found["usd"] == pytest.approx(3.6 * found["hours"], rel=1e-3)
    assert found["media_hours"] > 0
    assert isinstance(found["notes"], list)
    # nothing but the plan is left, so the directory is as good as new
    assert [entry.uri for entry in storage.listing(f"{run}/")] == [f"{run}/plan.json"]
    assert json.loads(storage.read(f"{run}/plan.json")) == json.loads(json.dumps(found))

    relabel(chosen)
    beside = record.require(run)["starts"][-1]["plan"]
    assert beside["clips"]["measured"] == 24
    assert beside["hours"]["predicted"] == found["hours"]
    assert beside["hours"]["measured"] > 0
    assert beside["pools"]["reason.main"]["busy_s"]["measured"] > 0.9
    again = plan(chosen)
    assert (again["clips"], again["hours"], again["bottleneck"]) == (0, 0.0, None)

    # the rates serve for machines that are not here, without another canary
    elsewhere = fake(listed(synthetic, tmp_path, 24), str(tmp_path / "other"))
    prices = tmp_path / "prices.toml"
    prices.write_text('date = "2026-01-01"\nsource = "x"\n[machines.big]\ncpus = 64\nusd = 2.0\n')
    rates = tmp_path / "rates.json"
    rates.write_text(json.dumps(found))
    there = plan(elsewhere, PlanOptions(on=["4xbig"], prices=str(prices), rates=str(rates)))
    assert there["hardware"]["cpus"] == 256
    assert there["usd"] == pytest.approx(8 * there["hours"], rel=1e-3)
    other = fake(listed(synthetic, tmp_path, 24), run, latency_s=0.06)
    with pytest.raises(Exception, match="made with another configuration"):
        plan(other)


def test_a_canary_that_fails_whole_says_why(
    local_ray: Cluster, synthetic: Path, tmp_path: Path
) -> None:
    (tmp_path / "a.mp4").write_bytes(b"no film")
    lines = ["clip_id,video_uri", *(f"c{n},{tmp_path / 'a.mp4'}" for n in range(3))]
    (tmp_path / "clips.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(BudgetError, match="3 in decode as not_media"):
        plan(fake(str(tmp_path / "clips.csv"), str(tmp_path / "run")))
    with pytest.raises(ConfigError, match=r"output\.run is not set"):
        plan(config.parse({"input": {"manifest": str(tmp_path / "clips.csv")}}))
