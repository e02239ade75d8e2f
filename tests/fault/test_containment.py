"""Contract: a clip that raises, hangs, crashes or swells costs itself and nothing else.

One run per stage group over good clips and poisoned ones, on a real Ray. The good ones are ok, each
poisoned one is a row whose kind names its end, and `verify` is clean.
"""

from pathlib import Path
from typing import Any

import pytest

from emer_ray import config
from emer_ray.relabel import relabel
from emer_ray.runner import Cluster
from emer_ray.store import index
from tests import rows

pytestmark = [pytest.mark.ray, pytest.mark.fault]

DECODE_ENDS = {
    "raise": "error",
    "hang": "timeout",
    "segfault": "crashed",
    "exit": "crashed",
    "bloat": "memory",
}
MODEL_ENDS = {"raise": "error", "hang": "timeout", "segfault": "crashed", "exit": "crashed"}


def test_each_poisoned_clip_pays_alone(local_ray: Cluster, synthetic: Path, tmp_path: Path) -> None:
    clips: list[dict[str, Any]] = [
        {"clip_id": f"good-{number:03d}", "video_uri": str(synthetic / f"c{number % 6}.mp4")}
        for number in range(60)
    ]
    expected: dict[str, tuple[str, str]] = {}
    faults: dict[str, dict[str, str]] = {"decode": {}, "explain": {}}
    for stage, ends in (("decode", DECODE_ENDS), ("explain", MODEL_ENDS)):
        for fault, kind in ends.items():
            name = f"{stage}-{fault}"
            clips.insert(
                len(expected) * 6, {"clip_id": name, "video_uri": str(synthetic / "c0.mp4")}
            )
            faults[stage][name] = fault
            expected[name] = (stage, kind)
    run = str(tmp_path / "run")
    summary = relabel(
        config.parse(
            {
                "input": {"manifest": rows.manifest(tmp_path / "clips.jsonl", clips)},
                "output": {"run": run, "shard_clips": 8},
                "media": {"frames": 2, "size_px": 64, "deadline_s": 3.0, "memory_mb": 400},
                "models": {"main": {"backend": "fake"}},
                "pools": {"explain": {"deadline_s": 0.5}},
                "faults": faults,
            }
        )
    )
    assert (summary["ok"], summary["failed"]) == (60, len(expected))
    found = rows.stored(run)
    ends = {name: (row["stage"], row["kind"]) for name, row in found.items() if "good" not in name}
    assert ends == expected
    assert index.verify(run).holds
