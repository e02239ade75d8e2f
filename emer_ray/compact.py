"""Rewrite the small parts of a run into few of about 128 MB.

    emer compact s3://bucket/run

Sixteen clips to a part lose little when a run is stopped, and cost a request each when it is read.
Rows stay as they are; resuming, retrying and every reader go on as before, also while this runs.
"""

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from emer_ray.store import compaction, lease, record


def compact(
    run: str, *, take_over: bool = False, say: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Compact a run; raises RunDirError while a driver is at work on it.

    Stopped at any moment, nothing is lost, and the next call goes on.
    """
    started = time.monotonic()
    record.require(run)
    done = compaction.Compacted()
    with lease.held(run, take_over=take_over):
        for step in compaction.steps(run, done):
            say(step)
    return {"run": run, **asdict(done), "seconds": round(time.monotonic() - started, 3)}
