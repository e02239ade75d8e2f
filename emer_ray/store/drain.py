"""A request to stop politely: decoders take on no more shards, what is in flight is finished.

The request is an object in the run directory, so that it reaches every node.
"""

from emer_ray import storage

_NAME = "drain.json"


def request(run: str) -> None:
    """Ask every decoder of a run to take on nothing more."""
    storage.write(storage.join(run, _NAME), b"{}")


def requested(run: str) -> bool:
    """Tell whether somebody asked."""
    return storage.exists(storage.join(run, _NAME))


def clear(run: str) -> None:
    """Take the request back."""
    storage.delete(storage.join(run, _NAME))
