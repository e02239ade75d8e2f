"""The metrics that a run exports while it works, one record per shard and label.

Ray exports each of them from every node's metrics port, its name after `ray_`.
"""

from collections.abc import Mapping
from typing import Any, Final

from emer_ray.meter import Counts

CLIPS: Final = "emer_clips_total"
TOKENS: Final = "emer_tokens_total"
STAGE_SECONDS: Final = "emer_stage_seconds"
RETRIES: Final = "emer_retries_total"
DEAD_LETTER: Final = "emer_dead_letter_total"
COST_USD: Final = "emer_cost_usd_total"
GPU_BUSY: Final = "emer_gpu_busy_ratio"

NAMES: Final = (CLIPS, TOKENS, STAGE_SECONDS, RETRIES, DEAD_LETTER, COST_USD, GPU_BUSY)

_BOUNDARIES_S: Final = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0]


class Metrics:
    """The metrics of one process, made by `ray.util.metrics` or whoever has the same classes."""

    def __init__(self, make: Any) -> None:
        self._clips = make.Counter(
            CLIPS, "Clips that left a stage, redone ones again", ("stage", "outcome")
        )
        self._tokens = make.Counter(TOKENS, "Tokens of prompts (in) and answers (out)", ("kind",))
        self._seconds = make.Histogram(
            STAGE_SECONDS, "Seconds at work on one shard", _BOUNDARIES_S, ("stage",)
        )
        self._retries = make.Counter(RETRIES, "Work done again, by why", ("class",))
        self._dead = make.Counter(DEAD_LETTER, "Clips that failed, by failure kind", ("class",))
        self._usd = make.Counter(COST_USD, "US dollars that answers cost by the price table", ())
        self._gpu_busy = make.Gauge(GPU_BUSY, "Share of its time that a GPU pool works", ("pool",))

    def emit(self, counts: Counts) -> None:
        """Record what one shard cost in one pool."""
        for outcome in ("ok", "failed"):
            for stage, n in counts.get(outcome, {}).items():
                self._clips.inc(n, {"stage": stage, "outcome": outcome})
        for stage, seconds in counts.get("seconds", {}).items():
            self._seconds.observe(seconds, {"stage": stage})
        for name, counter, tag in (
            ("tokens", self._tokens, "kind"),
            ("retries", self._retries, "class"),
            ("dead", self._dead, "class"),
        ):
            for label, n in counts.get(name, {}).items():
                counter.inc(n, {tag: label})
        if usd := counts.get("usd"):
            self._usd.inc(sum(usd.values()))

    def gpu_busy(self, shares: Mapping[str, float]) -> None:
        """Set the share of its time that each GPU pool was busy of late."""
        for pool, share in shares.items():
            self._gpu_busy.set(share, {"pool": pool})
