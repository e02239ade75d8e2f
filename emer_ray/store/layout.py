"""Which parts of a run count: the one question that everything that reads rows asks here.

The part of a shard counts as it lies there. `emer compact` puts the rows of many into a larger
part, which counts from the moment that a marker names it, and from the same moment the parts that
it was made from do not. The marker is one small object, `compact/NNNNNN.json`, so the swap is
atomic; the newest one holds. Each is created, never overwritten: of two compactors one wins, and
the other has changed nothing.

A part of a shard that is stored after its shard was compacted (by a zombie, or because the shard
was run or read again) hides that shard's rows in the compacted part, as it would have overwritten
a part of its own.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from emer_ray import storage
from emer_ray.errors import RunDirError, StorageError
from emer_ray.store import parts
from emer_ray.store.parts import Part

_FOLDER: Final = "compact"
_MARKER = re.compile(r"(\d{6,})\.json")
_CUTS: Final = 16
"""Pieces that a long listing is cut into."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Marker:
    """What the newest compaction says."""

    number: int = 0
    """0 = nothing was ever compacted."""
    parts: Sequence[str] = ()
    """Compacted parts that count."""
    taken: Mapping[str, str] = field(default_factory=dict)
    """Parts whose rows are in those, with the versions they had; they may still lie there."""


def live(run: str, shards: int = 0) -> list[Part]:
    """List the parts of a run that count, by name.

    `shards`, a guess at how many there are, lets an object store list in pieces, at the same time.
    """
    while True:
        marker = newest(run)
        found = listed(run, shards)
        if _numbers(run)[-1:] == ([marker.number] if marker.number else []):
            return _counted(found.values(), marker)


def listed(run: str, shards: int = 0) -> dict[str, Part]:
    """List everything that is a part by its name, whether it counts or not."""
    step = max(1000, shards // _CUTS)
    cuts = [f"{first:08d}" for first in range(step, shards, step)]
    found = {}
    for folder in parts.SCHEMAS:
        for entry in storage.listing(storage.join(run, folder), cuts):
            name = f"{folder}/{entry.uri.rsplit('/', 1)[-1]}"
            if parts.is_part(name) or parts.is_compacted(name):
                found[name] = Part(
                    name=name,
                    size=entry.size,
                    version=entry.version,
                    modified_s=entry.modified_s,
                )
    return found


def newest(run: str) -> Marker:
    """Read the marker that holds."""
    while numbers := _numbers(run):
        uri = marker_uri(run, numbers[-1])
        try:
            found = json.loads(storage.read(uri))
        except StorageError as error:
            if error.kind == "missing":  # a newer one has replaced it since
                continue
            raise
        except ValueError:
            found = None
        try:
            return Marker(number=numbers[-1], parts=found["parts"], taken=found["taken"])
        except (KeyError, TypeError):
            raise RunDirError(
                f"{uri}: not the marker of a compaction; restore it, because it tells which parts "
                f"count"
            ) from None
    return Marker()


def advance(run: str, old: Marker, named: Sequence[str], taken: Mapping[str, str]) -> Marker:
    """Put the next marker behind `old`; raises RunDirError when somebody else has done so."""
    new = Marker(number=old.number + 1, parts=list(named), taken=dict(taken))
    text = json.dumps({"parts": new.parts, "taken": new.taken}).encode()
    if not storage.create(marker_uri(run, new.number), text):
        raise RunDirError(f"{run}: compacted by somebody else meanwhile; nothing was changed here")
    return new


def drop_older(run: str, marker: Marker) -> None:
    """Delete the markers before one."""
    storage.delete_all(marker_uri(run, old) for old in _numbers(run) if old < marker.number)


def marker_uri(run: str, number: int) -> str:
    """Name a marker."""
    return storage.join(run, _FOLDER, f"{number:06d}.json")


def _numbers(run: str) -> list[int]:
    found = storage.listing(storage.join(run, _FOLDER))
    matches = (_MARKER.fullmatch(entry.uri.rsplit("/", 1)[-1]) for entry in found)
    return sorted(int(match[1]) for match in matches if match)


def _counted(found: Iterable[Part], marker: Marker) -> list[Part]:
    small: list[Part] = []
    large: list[Part] = []
    for part in found:
        if parts.is_compacted(part.name):
            if part.name in marker.parts:
                large.append(part)
        elif marker.taken.get(part.name) != part.version:
            small.append(part)
    if large:
        large = _hiding(large, small)
    return sorted([*small, *large], key=lambda part: part.name)


def _hiding(large: Sequence[Part], small: Sequence[Part]) -> list[Part]:
    """Hide in compacted parts what lies in parts of shards as well."""
    anew: dict[tuple[str, str], list[int]] = {}
    for part in small:
        key = (part.folder, parts.fingerprint_of(part.name))
        anew.setdefault(key, []).append(parts.shards_of(part.name)[0])
    found = []
    for part in large:
        first, last = parts.shards_of(part.name)
        same_key = anew.get((part.folder, parts.fingerprint_of(part.name)), ())
        hidden = frozenset(shard for shard in same_key if first <= shard <= last)
        found.append(replace(part, hidden=hidden))
    return found
