"""`run.json`: what was run, on what, with which choices and why, and what came of it."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from emer_ray import storage
from emer_ray.errors import RunDirError

_SECRET = re.compile(r"(key|token|secret|password)s?$", re.IGNORECASE)
_IN_A_URI = re.compile(
    r"(?<=//)[^/@\s]+@|([?&][^=&\s]*(?:key|token|secret|password|sig|credential)[^=&\s]*=)[^&\s]+",
    re.IGNORECASE,
)
"""A name and password before a host, and what makes a presigned URI a key."""


def load(run: str) -> dict[str, Any] | None:
    """Read a run's record; None where there is none yet."""
    uri = storage.join(run, "run.json")
    if not storage.exists(uri):
        return None
    try:
        found = json.loads(storage.read(uri))
    except json.JSONDecodeError:
        raise RunDirError(f"{uri}: not JSON; restore it, or start a new run directory") from None
    if not isinstance(found, dict) or "fingerprint" not in found:
        raise RunDirError(f"{uri}: not the record of a run; give another output.run")
    return found


def require(run: str) -> dict[str, Any]:
    """Read a run's record; raises RunDirError where there is none."""
    found = load(run)
    if found is None:
        raise RunDirError(f"{run}: not a run directory (no run.json); give the path of a run")
    return found


def save(run: str, record: Mapping[str, Any]) -> None:
    """Store a run's record in one put, with secrets blanked."""
    text = json.dumps(_redacted(record), indent=2, ensure_ascii=False)
    storage.write(storage.join(run, "run.json"), text.encode())


def plan(run: str, fingerprint: str) -> dict[str, Any] | None:
    """Read what `emer plan` predicted of this directory's configuration; None where it did not."""
    uri = storage.join(run, "plan.json")
    if not storage.exists(uri):
        return None
    try:
        found: dict[str, Any] = json.loads(storage.read(uri))
    except json.JSONDecodeError:
        raise RunDirError(f"{uri}: not JSON; delete it, or run `emer plan` again") from None
    return found if found.get("fingerprint") == fingerprint else None


def refuse_foreign(
    run: str, record: Mapping[str, Any], parts: Mapping[str, Any], accepted: Sequence[str]
) -> list[str]:
    """Refuse a directory made under another fingerprint, with the keys that differ.

    Keys in `accepted` may differ; those that do are returned, to be recorded.
    """
    old = record["fingerprint_parts"]
    plain = json.loads(json.dumps(_redacted(parts)))  # what is not recorded cannot differ
    differ = sorted(key for key in old.keys() | plain.keys() if old.get(key) != plain.get(key))
    refused = [key for key in differ if key not in accepted]
    if refused:
        shown = "; ".join(
            f"{key}: {old.get(key)!r} there, {plain.get(key)!r} here" for key in refused
        )
        raise RunDirError(
            f"{run}: made with another configuration ({shown}); take another output.run, or accept "
            f"mixed rows with {' '.join(f'--accept {key}' for key in refused)}"
        )
    return differ


def _redacted(value: Any, name: str = "") -> Any:
    if isinstance(value, Mapping):
        return {key: _redacted(item, str(key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_redacted(item) for item in value]
    if not isinstance(value, str) or not value:
        return value
    if _SECRET.search(name):
        return "(not recorded)"
    return _IN_A_URI.sub(r"\1", value) if "://" in value else value
