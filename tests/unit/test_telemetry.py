"""What a run exports; a scrape of Ray's own port is in tests/integration."""

import inspect
import json
import re
from pathlib import Path
from typing import Any

import ray.data
from ray.data._internal.execution.interfaces.op_runtime_metrics import OpRuntimeMetrics

from emer_ray import telemetry

DASHBOARD = Path(__file__).parents[2] / "cluster" / "grafana.json"


class _Recorder:
    """Stands where `ray.util.metrics` does and notes what is recorded."""

    def __init__(self) -> None:
        self.kinds: dict[str, str] = {}
        self.records: list[tuple[str, float, dict[str, str]]] = []

    def __getattr__(self, kind: str) -> Any:
        def make(name: str, description: str, *rest: Any) -> Any:
            assert description
            self.kinds[name] = kind
            [tags] = [r for r in rest if isinstance(r, tuple)]
            return _Made(self.records, name, tags)

        return make


class _Made:
    def __init__(self, records: list[Any], name: str, tags: tuple[str, ...]) -> None:
        self._records, self._name, self._tags = records, name, tags

    def inc(self, value: float, tags: dict[str, str] | None = None) -> None:
        assert value > 0
        assert tuple(tags or ()) == self._tags
        self._records.append((self._name, value, tags or {}))

    observe = set = inc


def test_counts_of_a_shard_become_metrics() -> None:
    made = _Recorder()
    metrics = telemetry.Metrics(made)
    assert set(made.kinds) == set(telemetry.NAMES)
    metrics.emit(
        {
            "ok": {"decode": 15},
            "failed": {"decode": 1},
            "dead": {"corrupt": 1},
            "seconds": {"decode": 2.5},
            "tokens": {"in": 300, "out": 20},
            "retries": {"endpoint": 2},
            "usd": {"answers": 0.25},
            "bytes": {"read": 10},
        }
    )
    metrics.gpu_busy({"reason.main": 0.98})
    assert made.records == [
        ("emer_clips_total", 15, {"stage": "decode", "outcome": "ok"}),
        ("emer_clips_total", 1, {"stage": "decode", "outcome": "failed"}),
        ("emer_stage_seconds", 2.5, {"stage": "decode"}),
        ("emer_tokens_total", 300, {"kind": "in"}),
        ("emer_tokens_total", 20, {"kind": "out"}),
        ("emer_retries_total", 2, {"class": "endpoint"}),
        ("emer_dead_letter_total", 1, {"class": "corrupt"}),
        ("emer_cost_usd_total", 0.25, {}),
        ("emer_gpu_busy_ratio", 0.98, {"pool": "reason.main"}),
    ]


def test_a_shard_that_cost_nothing_records_nothing() -> None:
    made = _Recorder()
    telemetry.Metrics(made).emit({})
    assert made.records == []


def test_the_dashboard_names_what_somebody_exports() -> None:
    stats = Path(inspect.getfile(ray.data)).with_name("_internal") / "stats.py"
    theirs = set(re.findall(r'"(data_\w+)"', stats.read_text(encoding="utf-8")))
    theirs |= {f"data_{metric.name}" for metric in OpRuntimeMetrics.get_metrics()}
    text = DASHBOARD.read_text(encoding="utf-8")
    named = set(re.findall(r"\bray_(\w+)[{,]", text))
    assert {name for name in named if name.startswith("data_")} <= theirs
    ours = {re.sub(r"_(bucket|sum|count)$", "", n) for n in named if n.startswith("emer_")}
    assert ours == set(telemetry.NAMES)
    assert all(name.startswith(("emer_", "data_")) for name in named)


def test_the_dashboard_is_laid_out() -> None:
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        cells = {
            (place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
        letters = [target["refId"] for target in panel.get("targets", ())]
        assert letters == sorted(set(letters))
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
