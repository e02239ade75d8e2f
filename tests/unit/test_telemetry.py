"""What a run exports; a scrape of Ray's own port is in tests/integration."""

from typing import Any

from emer_ray import telemetry


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
    ray = _Recorder()
    metrics = telemetry.Metrics(ray)
    assert set(ray.kinds) == set(telemetry.NAMES)
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
    assert ray.records == [
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
    ray = _Recorder()
    telemetry.Metrics(ray).emit({})
    assert ray.records == []
