"""Whole runs on a real local Ray with the fake model: what unit tests of the parts cannot show.

Parity with the serial twin; resume; grown manifests; foreign directories; budgets; retry of failed
clips; the same on a local path and on S3.
"""

from pathlib import Path
from typing import Any

import pytest

from emer_ray import config, pipeline, runner, storage
from emer_ray.config import RunConfig
from emer_ray.errors import BudgetError, ConfigError, RunDirError
from emer_ray.relabel import Progress, RelabelOptions, relabel
from emer_ray.runner import Cluster
from emer_ray.show import show
from emer_ray.status import status
from emer_ray.store import index, record
from tests import actors, rows

pytestmark = pytest.mark.ray

MEDIA = {"frames": 4, "size_px": 64}


def listed(synthetic: Path, count: int, **columns: Any) -> list[dict[str, Any]]:
    return [
        {
            "clip_id": f"clip-{number:03d}",
            "video_uri": str(synthetic / f"c{number % 6}.mp4"),
            "subtitle": f"line {number}",
            **columns,
        }
        for number in range(count)
    ]


def fake(
    manifest: str, run: str, options: dict[str, Any] | None = None, **sections: Any
) -> RunConfig:
    return config.parse(
        {
            "input": {"manifest": manifest},
            "output": {"run": run, "shard_clips": 4},
            "media": MEDIA,
            "models": {"main": {"backend": "fake", "options": options or {}}},
            **sections,
        }
    )


def test_ray_and_the_serial_twin_give_equal_tables(
    local_ray: Cluster, synthetic: Path, tmp_path: Path
) -> None:
    clips = listed(synthetic, 10)
    clips[3]["video_uri"] = "nowhere.mp4"
    clips[5] = {"clip_id": "sound", "audio_uri": str(synthetic / "voice.wav")}
    clips[6]["video_uri"] = str(synthetic / "mute.mp4")
    clips[7] |= {"start_s": 0.25, "end_s": 0.75, "crop": [0, 0, 0.5, 1]}
    manifest = rows.manifest(tmp_path / "clips.jsonl", clips)
    script = {"clip-001": "garbage", "clip-002": "prose"}
    distributed = fake(
        manifest, str(tmp_path / "ray"), {"script": script}, budget={"failed_share": 1}
    )
    seen: list[Progress] = []
    summary = relabel(distributed, on_progress=seen.append)
    assert (summary["ok"], summary["failed"], summary["skipped"]) == (8, 2, 0)
    assert seen[-1].ok + seen[-1].failed == 10

    twin = str(tmp_path / "twin")
    placed = index.load_manifest(str(tmp_path / "ray"))
    assert placed is not None
    index.save_manifest(twin, placed)
    tables = index.shard_tables(
        index.clips_of(placed, index.unfinished(placed, index.outcomes(twin)))
    )
    flow = pipeline.steps(distributed, pipeline.Start(run=twin, contained=False))
    outcomes = rows.receipts(list(pipeline.run_local(flow, tables)))
    assert sorted(name for name, outcome in outcomes.items() if outcome == "failed") == [
        "clip-001",
        "clip-003",
    ]
    ours = rows.stored(str(tmp_path / "ray"))
    assert ours == rows.stored(twin)
    assert ours["clip-003"]["kind"] == "missing"
    assert ours["clip-002"]["parse_rung"] == "fenced"
    assert ours["sound"]["media"]["has_video"] is False
    assert ours["clip-006"]["media"]["has_audio"] is False
    assert ours["clip-007"]["media"]["decoded_s"] == pytest.approx(0.5, abs=0.1)
    assert ours["clip-000"]["subtitle"] == "line 0"
    assert not list((tmp_path / "ray").rglob("claims/**/*.json"))
    _cost_is_that_of_ten_clips(tmp_path / "ray", synthetic)


def _cost_is_that_of_ten_clips(run: Path, synthetic: Path) -> None:
    journal = record.require(str(run))
    cost = journal["starts"][-1]["cost"]
    assert (cost["clips"], journal["cost"]["starts"]) == (10, 1)
    assert cost["bytes_written"] == sum(part.stat().st_size for part in run.glob("*/*-*.parquet"))
    assert cost["bytes_read"] > sum(path.stat().st_size for path in synthetic.glob("c[0-2].mp4"))
    assert cost["tokens_out"] > 0
    pools = cost["pools"]
    assert {name: pool["clips"] for name, pool in pools.items()} == dict.fromkeys(
        ("decode", "reason.main", "write"), 10
    )
    assert {step for pool in pools.values() for step in pool["steps"]} == {
        *("decode", "encode", "explain", "parse", "write")
    }
    for pool in pools.values():
        assert 0 < pool["busy_s"] <= sum(pool["steps"].values()) + 0.01
        assert pool["idle_s"] > 0
    alive_s = sum(pool["cpus"] * (pool["busy_s"] + pool["idle_s"]) for pool in pools.values())
    assert cost["cpu_s"] == pytest.approx(alive_s, abs=0.01)
    assert cost["gpu_s"] == 0


@pytest.mark.s3
def test_a_run_on_s3_resumes_grows_and_retries(
    local_ray: Cluster, synthetic: Path, tmp_path: Path, bucket: str
) -> None:
    for path in synthetic.iterdir():
        storage.write(storage.join(bucket, "media", path.name), path.read_bytes())
    clips = [
        {**row, "video_uri": f"media/{Path(row['video_uri']).name}"} for row in listed(synthetic, 9)
    ]
    clips[8]["video_uri"] = "media/late.mp4"
    uri, run = storage.join(bucket, "clips.jsonl"), storage.join(bucket, "run")

    def put(count: int) -> None:
        path = Path(rows.manifest(tmp_path / "clips.jsonl", clips[:count]))
        storage.write(uri, path.read_bytes())

    put(6)
    first = relabel(fake(uri, run))
    assert (first["clips"], first["ok"], first["skipped"]) == (6, 6, 0)
    fetched = sum(len(storage.read(storage.join(bucket, "media", f"c{k}.mp4"))) for k in range(6))
    assert record.require(run)["cost"]["bytes_read"] == fetched
    before = rows.stored(run)
    again = relabel(fake(uri, run))
    assert (again["ok"], again["skipped"]) == (6, 6)
    assert len(record.require(run)["starts"]) == 2
    assert record.require(run)["starts"][1]["shards"] == 0
    assert record.require(run)["cost"]["starts"] == 1

    put(9)
    grown = relabel(fake(uri, run))
    assert (grown["ok"], grown["failed"], grown["skipped"]) == (8, 1, 6)
    assert {name: rows.stored(run)[name] for name in before} == before
    assert status(run)["kinds"] == {"decode:missing": 1}

    storage.write(storage.join(bucket, "media", "late.mp4"), (synthetic / "c0.mp4").read_bytes())
    still = relabel(fake(uri, run))
    assert (still["failed"], still["skipped"]) == (1, 9)
    retried = relabel(fake(uri, run), RelabelOptions(retry_failed=["missing"]))
    assert (retried["ok"], retried["failed"]) == (9, 0)
    verdict = index.verify(run)
    assert verdict.holds
    assert (verdict.superseded, verdict.extra) == (1, 0)
    shown = show(run, "clip-008")
    assert (shown["outcome"], shown["row"]["attempt"]) == ("ok", 2)
    assert shown["superseded"][0]["kind"] == "missing"
    assert not list(storage.listing(storage.join(run, "claims")))


def test_another_configuration_is_refused_unless_it_is_accepted(
    local_ray: Cluster, synthetic: Path, tmp_path: Path
) -> None:
    manifest = rows.manifest(tmp_path / "clips.jsonl", listed(synthetic, 4))
    run = str(tmp_path / "run")
    relabel(fake(manifest, run))
    other = fake(manifest, run, media={**MEDIA, "frames": 3})
    with pytest.raises(RunDirError, match=r"media\.frames: 4 there, 3 here"):
        relabel(other)
    more = rows.manifest(tmp_path / "clips.jsonl", listed(synthetic, 6))
    mixed = relabel(
        fake(more, run, media={**MEDIA, "frames": 3}), RelabelOptions(accept=["media.frames"])
    )
    assert (mixed["ok"], mixed["skipped"]) == (6, 4)
    assert record.require(run)["accepted"] == ["media.frames"]
    frames = [row["media"]["n_frames"] for _, row in sorted(rows.stored(run).items())]
    assert frames == [4, 4, 4, 4, 3, 3]


def test_too_many_failures_are_an_error_after_everything_is_stored(
    local_ray: Cluster, synthetic: Path, tmp_path: Path
) -> None:
    clips = listed(synthetic, 8)
    for row in clips[:3]:
        row["video_uri"] = "nowhere.mp4"
    manifest = rows.manifest(tmp_path / "clips.jsonl", clips)
    run = str(tmp_path / "run")
    with pytest.raises(BudgetError, match="3 of 8 clips failed"):
        relabel(fake(manifest, run))
    assert index.verify(run).holds


def test_a_run_whose_first_clips_all_fail_alike_is_stopped(
    local_ray: Cluster, synthetic: Path, tmp_path: Path
) -> None:
    clips = [{"clip_id": f"c{number}", "video_uri": "nowhere.mp4"} for number in range(600)]
    manifest = rows.manifest(tmp_path / "clips.jsonl", clips)
    run = str(tmp_path / "run")
    before = actors.alive()
    with pytest.raises(BudgetError, match="all failed in decode as 'missing'") as stopped:
        relabel(fake(manifest, run))
    runner.connect()
    actors.wait_for_end(before)
    del stopped  # held until here, with all that an error holds
    assert 0 < len(rows.stored(run)) < 600


def test_a_run_needs_to_be_told_where_from_and_where_to(synthetic: Path) -> None:
    with pytest.raises(ConfigError, match=r"input\.manifest is not set"):
        relabel(config.parse({"output": {"run": "somewhere"}}))
    with pytest.raises(ConfigError, match=r"output\.run is not set"):
        relabel(config.parse({"input": {"manifest": str(synthetic)}}))
