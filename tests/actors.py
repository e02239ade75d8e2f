"""Which of our actors a local Ray still has."""

import time
from collections.abc import Set

import ray._private.state


def alive() -> set[str]:
    """Name the actors of pools that are not dead; they hold CPUs that the next run needs."""
    return {
        actor
        for actor, found in ray._private.state.actors().items()
        if found["State"] != "DEAD" and found["ActorClassName"].startswith("MapWorker")
    }


def wait_for_end(before: Set[str]) -> None:
    """Wait until no more are alive than `before`."""
    deadline = time.monotonic() + 60
    while left := alive() - before:
        assert time.monotonic() < deadline, f"still alive: {left}"
        time.sleep(0.2)
