"""Emotion corpora as their owners publish them, read into rows of a manifest.

A corpus is a `Corpus`: a function from a listing (`Tree`) to rows, and what its user has to know.
`read` runs one and accounts for everything under ROOT: a row, or left out with a reason.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from emer_ray.corpora import generic
from emer_ray.corpora.afew import AFEW
from emer_ray.corpora.crema_d import CREMA_D
from emer_ray.corpora.dfew import DFEW
from emer_ray.corpora.emer import EMER_V1, EMER_V2
from emer_ray.corpora.enterface import ENTERFACE05
from emer_ray.corpora.ferv39k import FERV39K
from emer_ray.corpora.iemocap import IEMOCAP
from emer_ray.corpora.mafw import MAFW
from emer_ray.corpora.meld import MELD
from emer_ray.corpora.mer2023 import MER2023
from emer_ray.corpora.mer2024 import MER2024
from emer_ray.corpora.mer2025 import MER2025, MER2026
from emer_ray.corpora.mosei import CMU_MOSEI
from emer_ray.corpora.mosi import CMU_MOSI
from emer_ray.corpora.ravdess import RAVDESS
from emer_ray.corpora.row import REASONS, Corpus, LeftOut, Reason, Row, table
from emer_ray.corpora.savee import SAVEE
from emer_ray.corpora.sims import CH_SIMS
from emer_ray.corpora.simsv2 import CH_SIMS_V2
from emer_ray.corpora.tree import Tree
from emer_ray.errors import ConfigError, ManifestError

__all__ = [
    "CORPORA",
    "REASONS",
    "Corpus",
    "Found",
    "LeftOut",
    "Reason",
    "Row",
    "named",
    "read",
    "table",
]

CORPORA: Final = (
    *(MER2023, MER2024, MER2025, MER2026, EMER_V1, EMER_V2),
    *(IEMOCAP, MELD, CMU_MOSI, CMU_MOSEI, CH_SIMS, CH_SIMS_V2),
    *(DFEW, FERV39K, MAFW, RAVDESS, CREMA_D, AFEW, SAVEE, ENTERFACE05),
)

_ALSO_CALLED: Final = {
    "ovmerd": "emer-v2",
    "ovmerd+": "emer-v2",
    "mosi": "cmu-mosi",
    "mosei": "cmu-mosei",
    "sims": "ch-sims",
    "simsv2": "ch-sims-v2",
    "enterface": "enterface05",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What is under ROOT: rows in the order of the corpus, and everything else with its reason."""

    rows: list[Row]
    left_out: list[LeftOut]


def named(name: str) -> Corpus:
    """Find a corpus by its name, however it is spelled, or by the TOML file that describes it."""
    if name.endswith(".toml"):
        return generic.load(name)
    plain = _plain(_ALSO_CALLED.get(_plain(name), name))
    for corpus in CORPORA:
        if plain == _plain(corpus.name):
            return corpus
    raise ConfigError(
        f"no corpus {name!r}; take {', '.join(corpus.name for corpus in CORPORA)}, or a .toml file "
        "that describes another (docs/corpora.md)"
    )


def read(corpus: Corpus, root: str) -> Found:
    """List ROOT once and read it as a corpus; media are not opened.

    Raises `ManifestError` where nothing of the corpus is there, and `StorageError`.
    """
    tree = Tree(root)
    rows = list(_sound(tree, corpus.rows(tree)))
    tree.leave_rest()
    if not rows:
        some = "; ".join(f"{left.what}: {left.detail}" for left in tree.left_out[:3])
        raise ManifestError(
            f"{root}: no clip of {corpus.title}{f' ({some})' if some else ''}. Expected are "
            f"{'; '.join(corpus.layout)}"
        )
    filled = [replace(r, corpus=corpus.name, licence_tag=corpus.licence_tag) for r in rows]
    return Found(rows=filled, left_out=tree.left_out)


def _sound(tree: Tree, rows: Iterator[Row]) -> Iterator[Row]:
    """Leave out what a manifest would refuse: second rows of a clip, windows that are none."""
    seen: set[str] = set()
    for row in rows:
        start_s = row.start_s or 0.0
        if row.clip_id in seen:
            uri = row.video_uri or row.audio_uri
            tree.leave(row.clip_id, "duplicate", f"{uri}: a row before this one has the name")
        elif start_s < 0 or (row.end_s is not None and row.end_s <= start_s):
            window = f"{row.start_s} to {row.end_s} s is no window"
            tree.leave(row.clip_id, "unreadable", window)
        else:
            seen.add(row.clip_id)
            yield row


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9+]", "", name.lower())
