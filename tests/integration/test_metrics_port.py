"""What a real Ray node exports of a run on its metrics port, and the dashboard on top of it.

The run has a Ray of its own, in another process: it reports every half second, has a GPU that is
none, and its counters are nobody else's.
"""

import json
import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests import rows

pytestmark = pytest.mark.ray

DASHBOARD = Path(__file__).parents[2] / "cluster" / "grafana.json"

CLIPS = 39
"""That are ok; one more is missing."""

IF_IT_HAPPENS = {"emer_retries_total", "emer_cost_usd_total"}
"""Counters that a run without retries and prices leaves alone."""

_SAMPLE = re.compile(r"^ray_(\w+)(?:\{(.*)\})? (\S+)$")
_LABEL = re.compile(r'(\w+)="([^"]*)"')


def main(config: str) -> None:
    """Run a configuration and print what the node exports when all of it has arrived."""
    import ray

    ray.init(
        address="local",
        num_cpus=4,
        num_gpus=1,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        _system_config={"metrics_report_interval_ms": 500},
    )
    from emer_ray import config as configuration
    from emer_ray.relabel import relabel

    relabel(configuration.parse(json.loads(config)))
    until = time.monotonic() + 20
    found = ""
    while time.monotonic() < until and _sum(found, "emer_clips_total", stage="write") < CLIPS:
        time.sleep(0.5)
        port = ray.nodes()[0]["MetricsExportPort"]  # type: ignore[no-untyped-call]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            found = answer.read().decode()
    print(found)


def _samples(text: str, name: str) -> list[tuple[dict[str, str], float]]:
    matches = (_SAMPLE.match(line) for line in text.splitlines())
    return [(dict(_LABEL.findall(m[2] or "")), float(m[3])) for m in matches if m and m[1] == name]


def _sum(text: str, name: str, **labels: str) -> float:
    """Add up a metric over workers."""
    return sum(value for found, value in _samples(text, name) if found | labels == found)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, synthetic: Path) -> str:
    folder = tmp_path_factory.mktemp("metrics")
    clips: list[dict[str, Any]] = [
        {"clip_id": f"c{number}", "video_uri": str(synthetic / f"c{number % 6}.mp4")}
        for number in range(CLIPS)
    ]
    clips.append({"clip_id": "lost", "video_uri": str(folder / "no.mp4")})
    config = {
        "input": {"manifest": rows.manifest(folder / "clips.jsonl", clips)},
        "output": {"run": str(folder / "run"), "shard_clips": 4},
        "media": {"frames": 4, "size_px": 64},
        "models": {"main": {"backend": "fake"}},
        "pools": {"explain": {"gpus": 1, "actors": 1}},
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.integration.test_metrics_port", json.dumps(config)],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    (folder / "exported.txt").write_text(done.stdout)
    return done.stdout


def test_the_port_tells_what_the_run_did(exported: str) -> None:
    for stage in ("encode", "explain", "parse", "write"):
        assert _sum(exported, "emer_clips_total", stage=stage, outcome="ok") == CLIPS
    assert _sum(exported, "emer_clips_total", stage="decode", outcome="ok") == CLIPS
    assert _sum(exported, "emer_clips_total", stage="decode", outcome="failed") == 1
    assert _sum(exported, "emer_clips_total", outcome="failed") == 1
    assert _samples(exported, "emer_dead_letter_total")[0][0]["class"] == "missing"
    assert _sum(exported, "emer_dead_letter_total") == 1
    assert _sum(exported, "emer_tokens_total", kind="out") > CLIPS
    shards = (CLIPS + 1) / 4
    assert _sum(exported, "emer_stage_seconds_count", stage="decode") == shards
    assert _sum(exported, "emer_stage_seconds_sum", stage="decode") > 0
    [(labels, share)] = _samples(exported, "emer_gpu_busy_ratio")
    assert labels["pool"] == "reason.main"
    assert 0 < share <= 1
    for name in IF_IT_HAPPENS:
        assert not _samples(exported, name)


def test_the_dashboard_shows_what_is_exported(exported: str) -> None:
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    asked = set(re.findall(r"\bray_(\w+)\{", DASHBOARD.read_text(encoding="utf-8")))
    assert len(asked) > 10
    there = {match[1] for line in exported.splitlines() if (match := _SAMPLE.match(line))}
    assert asked - there == IF_IT_HAPPENS
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    assert all(panel["description"] for panel in panels)


if __name__ == "__main__":
    main(sys.argv[1])
