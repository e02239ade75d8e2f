"""Contract: a clip that raises, hangs, crashes or swells costs itself and nothing else.

One run over good clips and poisoned ones, on a real Ray. The good ones are ok, each poisoned one is
a row whose stage and kind name its end, and `verify` is clean.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from emer_ray import config
from emer_ray.relabel import relabel
from emer_ray.runner import Cluster
from emer_ray.store import index
from tests import rows

pytestmark = [pytest.mark.ray, pytest.mark.fault]

ENDS = {
    "raise": "error",
    "hang": "timeout",
    "segfault": "crashed",
    "exit": "crashed",
    "bloat": "memory",
}
"""Every disaster with the failure kind that names it."""


def poisoned(
    synthetic: Path, good: int, stages: Mapping[str, Sequence[str]]
) -> tuple[list[dict[str, Any]], dict[str, dict[str, str]], dict[str, tuple[str, str]]]:
    """List good clips with poisoned ones spread among them, the faults, and how they must end."""
    clips: list[dict[str, Any]] = [
        {"clip_id": f"good-{number:03d}", "video_uri": str(synthetic / f"c{number % 6}.mp4")}
        for number in range(good)
    ]
    expected: dict[str, tuple[str, str]] = {}
    faults: dict[str, dict[str, str]] = {}
    apart = len(clips) // sum(len(names) for names in stages.values())
    for stage, names in stages.items():
        for fault in names:
            name = f"{stage}-{fault}"
            place = len(expected) * (apart + 1)
            clips.insert(place, {"clip_id": name, "video_uri": str(synthetic / "c0.mp4")})
            faults.setdefault(stage, {})[name] = fault
            expected[name] = (stage, ENDS[fault])
    return clips, faults, expected


def ends_of(run: str) -> dict[str, tuple[str, str]]:
    return {
        name: (row["stage"], row["kind"])
        for name, row in rows.stored(run).items()
        if row.get("kind") is not None
    }


def test_each_poisoned_clip_pays_alone(local_ray: Cluster, synthetic: Path, tmp_path: Path) -> None:
    stages = {"decode": [*ENDS], "explain": [*ENDS], "parse": ["raise"], "write": ["raise"]}
    clips, faults, expected = poisoned(synthetic, 60, stages)
    run = str(tmp_path / "run")
    summary = relabel(
        config.parse(
            {
                "input": {"manifest": rows.manifest(tmp_path / "clips.jsonl", clips)},
                "output": {"run": run, "shard_clips": 4},
                "media": {"frames": 2, "size_px": 64, "deadline_s": 5.0, "memory_mb": 400},
                "models": {"main": {"backend": "fake"}},
                "pools": {"explain": {"deadline_s": 3.0, "memory_mb": 600}},
                "faults": faults,
            }
        )
    )
    assert (summary["ok"], summary["failed"]) == (60, len(expected))
    assert ends_of(run) == expected
    assert index.verify(run).holds
    assert not list(Path(run).rglob("claims/**/*.json"))


RECIPE = """
name = "every backend"
summary = "One run through every backend that runs in our own processes."
[[steps]]
name = "explain"
prompt = "explain"
model = "main"
[[steps]]
name = "think"
prompt = "visual_clue"
answer = "text"
model = "thinker"
modalities = ["video"]
[[steps]]
name = "say"
prompt = "labels"
answer = "text"
model = "talker"
modalities = []
reads = ["think"]
"""


@pytest.mark.slow
@pytest.mark.weights
@pytest.mark.transformers
@pytest.mark.timeout(3600)
def test_each_poisoned_clip_pays_alone_in_every_backend(
    local_ray: Cluster, synthetic: Path, weights: object, tiny: Path, tmp_path: Path
) -> None:
    """`encode` and `explain` are the embedded backend, `think` is fake, `say` is transformers."""
    stages = {
        name: [*ENDS] for name in ("decode", "encode", "explain", "think", "say", "parse", "write")
    }
    clips, faults, expected = poisoned(synthetic, 500, stages)
    (tmp_path / "recipe.toml").write_text(RECIPE, encoding="utf-8")
    run = str(tmp_path / "run")
    started = time.monotonic()
    summary = relabel(
        config.parse(
            {
                "recipe": str(tmp_path / "recipe.toml"),
                "input": {"manifest": rows.manifest(tmp_path / "clips.jsonl", clips)},
                "output": {"run": run, "shard_clips": 4},
                "media": {"frames": 2, "size_px": 96, "deadline_s": 10.0, "memory_mb": 400},
                "models": {
                    "main": {"backend": "embedded"},
                    "thinker": {"backend": "fake"},
                    "talker": {
                        "backend": "transformers",
                        "model": str(tiny / "text"),
                        "max_tokens": 4,
                        "options": {"dtype": "float32"},
                    },
                },
                "pools": {
                    "decode": {"actors": 1},
                    "encode": {"deadline_s": 15.0, "memory_mb": 1800},
                    "explain": {"deadline_s": 8.0, "memory_mb": 1000},
                    "think": {"deadline_s": 5.0, "memory_mb": 600},
                    "say": {"deadline_s": 15.0, "memory_mb": 1800},
                    "parse": {"deadline_s": 5.0, "memory_mb": 600},
                    "write": {"deadline_s": 5.0, "memory_mb": 600},
                },
                "faults": faults,
            }
        )
    )
    print(f"{len(clips)} clips, {len(expected)} poisoned, {time.monotonic() - started:.0f} s")
    assert (summary["ok"], summary["failed"]) == (500, len(expected))
    assert ends_of(run) == expected
    assert index.verify(run).holds
    assert not list(Path(run).rglob("claims/**/*.json"))
