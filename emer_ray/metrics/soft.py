"""A soft set score: labels count by how near they are on the wheels, not only when they are the
same.

Two labels are as similar as the share of the ten wheel mappings that give them one cluster. The
precision of a clip is the mean, over its predicted labels, of the similarity to the nearest
reference label; recall is the same the other way round. Labels without a cluster are dropped, as
the wheels drop them. Ours, not published anywhere: read it beside the exact match.
"""

import numpy as np

from emer_ray.metrics.labels import Labels, number
from emer_ray.metrics.stats import Family, Floats, Sums, Value, mean_sums, prf
from emer_ray.metrics.wheels import MAPPINGS, Wheels

_CELLS = [number for number, metric in enumerate(MAPPINGS) if ".L" in metric]


def scores(gold: Labels, pred: Labels, wheels: Wheels) -> dict[str, Floats]:
    """Soft precision and recall of each clip; NaN where no reference label has a cluster."""
    rows = [wheels.images.get(word.lower().strip()) for word in gold.words]
    cells = [tuple(row[i] for i in _CELLS) if row else () for row in rows]
    kinds = sorted({cell for cell in cells if any(cell)}, key=str)
    index = {cell: number for number, cell in enumerate(kinds)}
    images = [str(index[cell]) if cell in index else None for cell in cells]
    kinds_of = number(images)
    g, p = gold.recode(kinds_of), pred.recode(kinds_of)
    similar = _similarity([kinds[int(word)] for word in g.words])
    empty_gold, empty_pred = g.sizes == 0, p.sizes == 0
    precision, recall = _nearest(p, g, similar), _nearest(g, p, similar)
    return {
        "soft.p": np.where(empty_gold, np.nan, np.where(empty_pred, 0.0, precision)),
        "soft.r": np.where(empty_gold, np.nan, np.where(empty_pred, 0.0, recall)),
    }


def family(wheels: Wheels) -> Family:
    """F of the means, as for the other set scores."""

    def finish(s: Sums) -> dict[str, Value]:
        return prf("soft", s)

    return Family(version=wheels.version, sums=mean_sums(["soft.p", "soft.r"]), finish=finish)


def _similarity(kinds: list[tuple[str | None, ...]]) -> Floats:
    """[kinds, kinds] share of wheel mappings on which two kinds of labels agree."""
    names = {name: number for number, name in enumerate(sorted({n for k in kinds for n in k if n}))}
    codes = np.array([[names.get(n or "", -1) for n in kind] for kind in kinds]).reshape(
        -1, len(_CELLS)
    )
    same = np.zeros((len(kinds), len(kinds)))
    for column in codes.T:
        same += (column[:, None] == column[None, :]) & (column >= 0)[:, None]
    share: Floats = same / np.maximum((codes >= 0).sum(axis=1), 1)[:, None]
    return share


def _nearest(of: Labels, to: Labels, similar: Floats) -> Floats:
    """Mean over a clip's labels of the similarity to the nearest label on the other side."""
    clips = of.clips()
    runs = to.sizes[clips]
    clips, runs, codes = clips[runs > 0], runs[runs > 0], of.codes[runs > 0]
    total: Floats = np.zeros(len(of))
    if len(runs):
        starts = np.concatenate([[0], np.cumsum(runs)[:-1]])
        other = np.arange(runs.sum()) - np.repeat(starts - to.offsets[clips], runs)
        best = np.maximum.reduceat(similar[np.repeat(codes, runs), to.codes[other]], starts)
        total = np.bincount(clips, weights=best, minlength=len(of)).astype(np.float64)
    return total / np.maximum(np.bincount(clips, minlength=len(of)), 1)
