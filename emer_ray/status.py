"""How far a run is, whether a driver is at work, and what failed."""

from typing import Any

from emer_ray.errors import RunDirError
from emer_ray.store import index, lease, record


def status(run: str) -> dict[str, Any]:
    """Collect counts by outcome and failure kind, the driver at work, and the record's heads."""
    journal = record.require(run)
    placed = index.load_manifest(run)
    if placed is None:
        raise RunDirError(
            f"{run}: has a run.json but no manifest.parquet; start `emer relabel` again"
        )
    outcomes = index.outcomes(run)
    counts = index.counts(placed, outcomes)
    holder = lease.holder(run)
    return {
        "run": run,
        **counts,
        "left": counts["clips"] - counts["ok"] - counts["failed"],
        "driver": None if holder is None else {key: holder[key] for key in ("host", "pid", "beat")},
        "fingerprint": journal["fingerprint"],
        "recipe": journal["config"]["recipe"],
        "starts": len(journal["starts"]),
        "last_start": journal["starts"][-1]["at"],
    }
