"""`emer models`: what weights there are, get them, put them where a cluster finds them.

The work is in `weights`; here it becomes plain rows. Nothing here loads a model.
"""

import logging
from collections.abc import Iterable
from typing import Any

from emer_ray import weights

log = logging.getLogger(__name__)


def models_list() -> dict[str, Any]:
    """List every file of every set: its package, licence and size, and where it is or why not."""
    return {"cache": str(weights.cache_dir()), "files": _rows(weights.names())}


def models_fetch(name: str = "embedded", progress: weights.Progress = log.info) -> dict[str, Any]:
    """Fetch a set into the cache; what could not be had is `missing`, with what is lost by it."""
    folder = weights.fetch(name, progress)
    files = len(weights.locate(name))
    return {"set": name, "folder": str(folder), "files": files, "missing": _missing(name)}


def models_push(name: str, uri: str, progress: weights.Progress = log.info) -> dict[str, Any]:
    """Copy a fetched set to a bucket prefix, from which `EMER_MODELS` serves a cluster."""
    written = weights.push(name, uri, progress)
    return {"set": name, "uri": uri, "files": written, "missing": _missing(name)}


def _missing(name: str) -> list[dict[str, str]]:
    return [
        {"file": row["file"], "reason": row["missing"], "lost": row["gives"]}
        for row in _rows([name])
        if row["missing"] is not None
    ]


def _rows(names: Iterable[str]) -> list[dict[str, Any]]:
    rows = []
    for name in names:
        present, missing = weights.locate(name), weights.missing(name)
        for source in weights.sources(name):
            rows += [
                {
                    "set": name,
                    "file": file.name,
                    "mb": round(file.size / 1e6, 1),
                    "licence": file.licence,
                    "package": source.package,
                    "version": source.version,
                    "registry": source.registry,
                    "gives": source.gives,
                    "path": str(present[file.name]) if file.name in present else None,
                    "missing": missing.get(file.name),
                }
                for file in source.files
            ]
    return rows
