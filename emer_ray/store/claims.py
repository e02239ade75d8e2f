"""Claims: marks of work in progress that bound how often a clip may kill its process.

Ray retries a shard for ever when its process dies. Before a stage works on a shard it creates a
claim; a claim found already there means that a process died on the shard, so the shard then goes
clip by clip, each clip claimed alone. A clip claimed alone three times without a result is given
up. Claims lie in the run directory, so the bound holds across driver restarts and node loss
(design §5).
"""

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast

from emer_ray import storage
from emer_ray.errors import FailureKind, StorageError

ALONE_TRIES: Final = 3


@dataclass(slots=True, kw_only=True)
class Claim:
    """The mark of one shard in one stage, while this process holds it."""

    uri: str
    first: bool
    """True when no process died on this shard before."""
    alone: dict[str, int] = field(default_factory=dict)
    """Times each clip was tried alone without a result."""
    blamed: dict[str, FailureKind] = field(default_factory=dict)
    """Clips whose process was ended by its own watchdog, and why."""
    trying: str | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def exhausted(self, clip_id: str) -> bool:
        """Tell whether a clip has used up its tries."""
        return self.alone.get(clip_id, 0) >= ALONE_TRIES

    def try_alone(self, clip_id: str) -> None:
        """Count one more lonely try of a clip, before it starts."""
        with self._lock:
            self.trying = clip_id
            self.alone[clip_id] = self.alone.get(clip_id, 0) + 1
            self._save()

    def succeeded(self, clip_id: str) -> None:
        """Forget the tries of a clip that gave a result, before a neighbour may end the process."""
        with self._lock:
            self.alone.pop(clip_id, None)
            self.trying = None
            self._save()

    def blame(self, kind: FailureKind) -> None:
        """Say why this process ends now, if it is because of a clip tried alone."""
        with self._lock:
            if self.trying is not None:
                self.blamed[self.trying] = kind
            self._save()

    def release(self) -> None:
        """Remove the mark: the whole shard has results."""
        storage.delete(self.uri)

    def _save(self) -> None:
        storage.write(self.uri, _dump(self.alone, self.blamed))


def claim(run: str, stage: str, shard: int) -> Claim:
    """Mark a shard before a stage works on it; `first` is false when its mark was there already."""
    uri = storage.join(run, "claims", stage, f"{shard:08d}.json")
    if storage.create(uri, _dump({}, {})):
        return Claim(uri=uri, first=True)
    state = _load(uri)
    return Claim(uri=uri, first=False, alone=dict(state["alone"]), blamed=dict(state["blamed"]))


def clear(run: str) -> None:
    """Remove the marks of a run of which nothing is left to do.

    A process that ends between storing a shard and releasing its claim leaves one.
    """
    storage.delete_all(entry.uri for entry in storage.listing(storage.join(run, "claims")))


def _load(uri: str) -> Mapping[str, Any]:
    """Read what a claim counts.

    Nothing where it is gone by now, because whoever held it lived on (a process of a driver that
    was killed, or of a second one), or torn, as a death leaves it where files have no hard links.
    """
    nothing: Mapping[str, Any] = {"alone": {}, "blamed": {}}
    try:
        return cast(Mapping[str, Any], json.loads(storage.read(uri)))
    except StorageError as error:
        if error.kind != "missing":
            raise
        return nothing
    except json.JSONDecodeError:
        return nothing


def _dump(alone: Mapping[str, int], blamed: Mapping[str, FailureKind]) -> bytes:
    return json.dumps({"alone": dict(alone), "blamed": dict(blamed)}).encode()
