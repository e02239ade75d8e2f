"""Which clips are alike: a vector per clip, and the nearest of some others by cosine.

The vectors are those that a run kept of its model (`learned`), else made of what it says of each
clip (`space`): its label words by support, and the means of the measures behind its clues. Then
clips with equal labels are near by definition; what was taken is said wherever neighbours are
shown.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import polars as pl

from emer_ray.metrics.stats import Floats

MOST_WORDS: Final = 256
"""Label words that are dimensions, the most frequent ones."""
_CLIPPED: Final = 3.0
_AT_ONCE: Final = 512
_ALIKE: Final = 1e-9

BASIS: Final = "label words by support, and means of the measures; not learned"


def space(clips: pl.DataFrame) -> Floats:
    """Vectors of length 1 or 0, [clips, dimensions], of the columns `new_labels` and `measures`."""
    parts = [_unit(_words(clips["new_labels"]))]
    if "measures" in clips.columns and clips["measures"].null_count() < len(clips):
        parts.append(_unit(_measures(clips["measures"])))
    return _unit(np.concatenate(parts, axis=1))


def learned(parts: Sequence[pl.Series]) -> Floats:
    """Vectors of length 1 or 0 out of vectors per clip and modality, null where a clip has none.

    Each part is centred first: what a model's mean vectors have in common says nothing.
    """
    found = []
    for part in parts:
        known = part.is_not_null().to_numpy()
        if known.any():
            width = len(part.drop_nulls()[0])
            vectors = np.zeros((len(part), width))
            vectors[known] = np.stack(part.drop_nulls().to_list())
            vectors[known] -= vectors[known].mean(axis=0)
            found.append(_unit(vectors))
    return _unit(np.concatenate(found, axis=1)) if found else np.zeros((len(parts[0]), 1))


def _unit(vectors: Floats) -> Floats:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Floats = np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)
    return unit


def _words(labels: pl.Series) -> Floats:
    rows = pl.DataFrame({"clip": np.arange(len(labels)), "label": labels})
    said = rows.explode("label").drop_nulls("label").unnest("label")
    often = said["label"].value_counts(sort=True).sort("count", "label", descending=[True, False])
    place = {word: number for number, word in enumerate(often["label"][:MOST_WORDS])}
    kept = said.filter(pl.col("label").is_in(list(place)))
    vectors = np.zeros((len(labels), len(place)))
    columns = [place[word] for word in kept["label"]]
    vectors[kept["clip"].to_numpy(), columns] = kept["support"].fill_null(1.0).to_numpy()
    return vectors


def _measures(measures: pl.Series) -> Floats:
    """Mean of each measure over a clip, as deviations from all clips; 0 where a clip has none."""
    rows = pl.DataFrame({"clip": np.arange(len(measures)), "measure": measures})
    said = rows.explode("measure").drop_nulls("measure").unnest("measure")
    means = said.drop_nulls("value").group_by("clip", "measure").agg(pl.col("value").mean())
    names = {name: number for number, name in enumerate(sorted(means["measure"].unique()))}
    values = np.full((len(measures), len(names)), np.nan)
    columns = [names[name] for name in means["measure"]]
    values[means["clip"].to_numpy(), columns] = means["value"].to_numpy()
    known = ~np.isnan(values)
    count = np.maximum(known.sum(axis=0), 1)
    centred = np.where(known, values - np.where(known, values, 0).sum(axis=0) / count, 0.0)
    spread = np.sqrt((centred**2).sum(axis=0) / count)
    scaled = np.divide(centred, spread, out=np.zeros_like(centred), where=spread > 0)
    clipped: Floats = np.clip(scaled, -_CLIPPED, _CLIPPED)
    return clipped


def nearest(
    vectors: Floats, of: Sequence[int], among: Sequence[int], count: int
) -> list[list[tuple[int, float]]]:
    """For each clip of `of` the `count` clips of `among` with the largest cosine, of equals the
    first; itself and clips that are not alike at all (0 or less) are left out.
    """
    found: list[list[tuple[int, float]]] = []
    others = np.asarray(among, dtype=np.int64)
    for start in range(0, len(of), _AT_ONCE):
        mine = np.asarray(of[start : start + _AT_ONCE], dtype=np.int64)
        likeness = vectors[mine] @ vectors[others].T
        likeness[mine[:, None] == others[None, :]] = 0
        best = np.argsort(-likeness, axis=1, kind="stable")[:, :count]
        for row, places in zip(likeness, best, strict=True):
            found.append([(int(others[p]), float(row[p])) for p in places if row[p] > _ALIKE])
    return found
