"""How far a run is, whether a driver is at work, whether anything moves, and what failed."""

import calendar
import time
from typing import Any

from emer_ray import watch
from emer_ray.errors import RunDirError
from emer_ray.store import embeddings, index, lease, record


def status(run: str) -> dict[str, Any]:
    """Collect counts by outcome and failure kind, the driver at work, and the record's heads.

    `state` is running, stalled (a driver is at work, and nothing was stored for longer than
    `budget.stall_s`), died (a driver left its lease behind), stopped (clips are left, and nobody is
    at work), or finished. `idle_s` is the age of the newest part, or of what the first of two
    phases kept last; `clips_per_s` is since this start. `cost` is of all starts and `pools` of the
    last that has one, as of the newest snapshot. Null = not known.
    """
    journal = record.require(run)
    placed = index.load_manifest(run)
    if placed is None:
        raise RunDirError(
            f"{run}: has a run.json but no manifest.parquet; start `emer relabel` again"
        )
    outcomes, live = index.look(run)
    counts = index.counts(placed, outcomes)
    holder, found = lease.holder(run), lease.left(run)
    now = time.time()
    done = counts["ok"] + counts["failed"]
    left = counts["clips"] - done
    newest_s = max((part.modified_s for part in live), default=None)
    if journal["config"].get("output", {}).get("phases") == 2:
        newest_s = max(newest_s or 0.0, embeddings.newest_s(run) or 0.0) or None
    start = journal["starts"][-1] if journal["starts"] else {}
    pools = [start["cost"]["pools"] for start in journal["starts"] if "cost" in start]
    since_s = _since(start.get("at"), newest_s if holder is None else now)
    rate = max(0, done - start.get("skipped", 0)) / since_s if since_s else None
    quiet_s = min(now - (newest_s or 0.0), _since(start.get("at"), now) or now)
    stall_s = journal["config"].get("budget", {}).get("stall_s", 900.0)
    if holder is not None:
        state = "stalled" if left and quiet_s > stall_s else "running"
    elif not left:
        state = "finished"
    else:
        state = "stopped" if found is None else "died"
    return {
        "run": run,
        "state": state,
        **counts,
        "left": left,
        "driver": None if holder is None else {key: holder[key] for key in ("host", "pid", "beat")},
        "died": None
        if state != "died" or found is None
        else {key: found.get(key) for key in ("host", "pid", "beat")},
        "idle_s": None if newest_s is None else round(max(0.0, now - newest_s), 1),
        "clips_per_s": None if rate is None else round(rate, 3),
        "left_s": round(left / rate) if holder is not None and rate and left else None,
        "at_work": watch.in_progress(run) if holder is not None and left else [],
        "fingerprint": journal["fingerprint"],
        "recipe": journal["config"]["recipe"],
        "cost": journal.get("cost"),
        "pools": pools[-1] if pools else {},
        "starts": len(journal["starts"]),
        "last_start": start.get("at"),
    }


def _since(at: str | None, now: float | None) -> float | None:
    """Seconds from a time as run.json writes it; None where one of them is not known."""
    if at is None or now is None:
        return None
    return max(0.0, now - calendar.timegm(time.strptime(at, "%Y-%m-%dT%H:%M:%SZ"))) or None
