"""An advisory lease that keeps two drivers from spending money on one run.

Correctness does not hang on it: parts overwrite each other with the same rows. A lease is
`lease.json` with host, process, boot id and a heartbeat; it is taken over at once when its process
is dead on this host, otherwise when the heartbeat is 30 s old, or with `--take-over`.
"""

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from emer_ray import storage
from emer_ray.errors import RunDirError, StorageError

log = logging.getLogger(__name__)

HEARTBEAT_S: Final = 10.0
STALE_S: Final = 30.0


@contextmanager
def held(run: str, *, take_over: bool = False) -> Iterator[None]:
    """Hold the lease of a run during a `with` block; raises RunDirError when it is taken."""
    uri = storage.join(run, "lease.json")
    mine = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "boot": _boot_id(),
        "id": uuid.uuid4().hex,
    }
    if not storage.create(uri, _beat(mine)):
        found = _read(uri)
        if found is not None and not take_over and _alive(found):
            raise RunDirError(
                f"{run}: another driver is at work (process {found.get('pid')} on "
                f"{found.get('host')}); wait for it, or start with --take-over when you know "
                f"that it is dead"
            )
        storage.write(uri, _beat(mine))
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(HEARTBEAT_S):
            try:
                found = _read(uri)
                if found is not None and found.get("id") != mine["id"]:
                    log.warning(
                        "%s: taken over by process %s on %s; both now do the same work, to the "
                        "same rows. Stop one of them",
                        *(run, found.get("pid"), found.get("host")),
                    )
                    return
                storage.write(uri, _beat(mine))
            except StorageError:  # the lease is advice; the run's own writes will speak up
                continue

    thread = threading.Thread(target=beat, name="emer-lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        found = _read(uri)
        if found is not None and found.get("id") == mine["id"]:
            storage.delete(uri)


def holder(run: str) -> Mapping[str, Any] | None:
    """Tell which living driver holds a run; None when nobody does."""
    found = left(run)
    return found if found is not None and _alive(found) else None


def left(run: str) -> Mapping[str, Any] | None:
    """Read the lease that lies in a run, whether its driver lives or died without a word."""
    return _read(storage.join(run, "lease.json"))


def _alive(lease: Mapping[str, Any]) -> bool:
    here = lease.get("host") == socket.gethostname() and lease.get("boot") == _boot_id()
    if here and not _process_exists(int(lease.get("pid", 0))):
        return False
    return time.time() - float(lease.get("beat", 0)) < STALE_S


def _process_exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _read(uri: str) -> Mapping[str, Any] | None:
    try:
        found = json.loads(storage.read(uri))
    except StorageError as error:
        if error.kind == "missing":
            return None
        raise
    except json.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None


def _beat(mine: Mapping[str, Any]) -> bytes:
    return json.dumps({**mine, "beat": time.time()}).encode()


def _boot_id() -> str:
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text().strip() if path.exists() else ""
