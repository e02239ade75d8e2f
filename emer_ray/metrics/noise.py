"""How far evidence and old labels disagree, and what that says about the labels.

Evidence is calibrated first: `cross_fitted` learns from the clips of other folds how old labels
fall where the evidence is like this, so that its systematic confusions count as what they are and
no clip is judged by its own label. Everything else is read off those shares: the rank of a clip
(the share of its old label), its margin, the rate of confident learning (Northcutt, Jiang & Chuang,
JAIR 70, 2021), and a bound on the noise rate.

What it does not know: who is right. Two labellings alone never tell wrong labels from wrong
evidence, so no lower bound but 0 follows from them (docs/audit.md has the argument). The upper
bound needs one assumption: whatever a clip's true family is, its old label is more often that one
than any other single one, and given the clip, evidence and label err independently. Then no rule
can predict old labels from evidence more often than they are right.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from emer_ray.metrics import stats
from emer_ray.metrics.stats import BLOCK, Aggregate, Family, Floats, Sums, Value, ratio

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

N_FOLDS: Final = 5
FEWEST_CLUSTERS: Final = 10
"""With fewer clusters of clips, clips count as independent: folds and intervals need some."""
SUREST: Final = 0.1
"""Share of the clips that count as those whose evidence is surest."""
FEWEST_SUREST: Final = 30
ENOUGH: Final = 20_000
"""Clips that a calibration is fitted on at most: it has some hundred weights."""
CLEAR_MARGIN: Final = 0.5
"""A suspect's evidence goes with another old label more often than with its own, by at least so
much.
"""

_PENALTY: Final = 1.0
_STEPS: Final = 200
_SETTLED: Final = 1e-4


def features(strength: Floats, main: Ints, confidence: Floats | None = None) -> Floats:
    """Describe evidence to the calibration: the main family, every strength, how strong the main
    one is, and the row's own confidence beside it.

    `strength` is [clips, families], `main` the number of each clip's main family; `confidence` is
    [clips], NaN where a row has none.
    """
    top = np.zeros_like(strength)
    top[np.arange(len(strength)), main] = 1
    parts = [top, strength, top * strength]
    if confidence is not None and not np.isnan(confidence).all():
        known = np.where(np.isnan(confidence), np.nanmean(confidence), confidence)
        parts.append(top * known[:, None])
    return np.concatenate(parts, axis=1)


def cross_fitted(evidence: Floats, old: Floats, folds: Ints) -> tuple[Floats, Floats]:
    """Predict old labels from evidence, each fold by the others.

    `evidence` is [clips, features], `old` [clips, families] with rows of sum 1. Returns the
    predicted shares and, for comparison, the plain shares of the other folds' labels; both
    [clips, families].
    """
    expected, plain = np.empty_like(old), np.empty_like(old)
    for fold in np.unique(folds):
        mine = folds == fold
        others = _some(np.flatnonzero(~mine))
        expected[mine] = predicted(fitted(evidence[others], old[others]), evidence[mine])
        plain[mine] = _plain(old[others])
    return expected, plain


def _some(clips: Ints) -> Ints:
    """As many clips as a fit needs, drawn always alike."""
    if len(clips) <= ENOUGH:
        return clips
    drawn: Ints = np.random.default_rng(0).choice(clips, ENOUGH, replace=False)
    return drawn


def fitted(evidence: Floats, old: Floats) -> Floats:
    """Fit a multinomial logistic regression with an L2 penalty that pulls towards the plain shares.

    Newton steps with Böhning's fixed bound on the Hessian (1992), accelerated: no line search, and
    one small matrix to invert whatever the number of clips. Returns [1 + features, families].
    """
    x = _with_one(evidence)
    start = np.zeros((x.shape[1], old.shape[1]))
    start[0] = np.log(_plain(old))
    penalty = np.full(x.shape[1], _PENALTY)
    penalty[0] = 1e-6
    inverse = np.linalg.inv(0.5 * x.T @ x + np.diag(penalty))
    weights = ahead = start
    for step in range(_STEPS):
        gradient = x.T @ (old - _softmax(x @ ahead)) - penalty[:, None] * (ahead - start)
        moved = ahead + inverse @ gradient
        if np.abs(moved - weights).max() < _SETTLED:
            return moved
        ahead, weights = moved + step / (step + 3) * (moved - weights), moved
    return weights


def predicted(weights: Floats, evidence: Floats) -> Floats:
    """Shares of old labels, [clips, families]."""
    return _softmax(_with_one(evidence) @ weights)


def _with_one(evidence: Floats) -> Floats:
    return np.concatenate([np.ones((len(evidence), 1)), evidence], axis=1)


def _softmax(scores: Floats) -> Floats:
    powers: Floats = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares: Floats = powers / powers.sum(axis=1, keepdims=True)
    return shares


def _plain(old: Floats) -> Floats:
    counted: Floats = old.sum(axis=0) + 0.5
    shares: Floats = counted / counted.sum()
    return shares


def confident(expected: Floats, old: Ints) -> Ints:
    """Name for each clip the family that its evidence is confident of; -1 = none.

    Confident of a family is who expects it at least as much as clips that carry it do on average;
    of several the most expected one counts (confident learning, §3.1).
    """
    n = expected.shape[1]
    carried = np.bincount(old, minlength=n)
    mean = np.bincount(old, weights=expected[np.arange(len(old)), old], minlength=n)
    threshold = np.where(carried > 0, mean / np.maximum(carried, 1), np.inf)
    reached = expected >= threshold - 1e-12
    best: Ints = np.where(reached, expected, -1.0).argmax(axis=1)
    return np.where(reached.any(axis=1), best, -1)


def confident_rate(sure: Ints, carries: Bools, old: Ints) -> float | None:
    """Share of wrong labels by the confident joint, its rows weighed by their labels' frequency;
    null where no evidence is confident.

    It takes confident evidence to be right, so weak evidence makes it too high. `carries` is
    [clips, families], for clips with several old labels; `old` is the main one.
    """
    counted = sure >= 0
    if not counted.any():
        return None
    n = carries.shape[1]
    wrong = counted & ~carries[np.arange(len(old)), np.maximum(sure, 0)]
    seen = np.bincount(old[counted], minlength=n).astype(np.float64)
    share = ratio(np.bincount(old[wrong], minlength=n).astype(np.float64), seen, undefined=0.0)
    return float((share * np.bincount(old, minlength=n)).sum() / len(old))


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What the evidence says about each clip's old label, and about all of them."""

    expected: Floats
    """[clips, families] how old labels fall where the evidence is like this."""
    rival: Ints
    """The most expected family that the clip does not carry."""
    suspicion: Floats
    """1 less the expected share of the clip's own families."""
    margin: Floats
    suspect: Bools
    claims: bool
    """False where the evidence says nothing about the labels: then no clip is a suspect."""
    rate: float | None
    low: float
    high: float
    confident_rate: float | None
    metrics: Sequence[Aggregate]


def findings(
    old: Floats,
    main: Ints,
    evidence: Floats,
    disagree: Bools,
    blocks: pl.Series,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> Findings:
    """Judge old labels by evidence.

    `old` is [clips, families] with rows of sum 1 and `main` the largest of each; `evidence` comes
    from `features`, `blocks` from `stats.blocks`.
    """
    expected, plain = cross_fitted(evidence, old, _folds(blocks))
    carries = old > 0
    clips = np.arange(len(old))
    own = np.where(carries, expected, 0.0).sum(axis=1)
    rival = np.where(carries, -1.0, expected).argmax(axis=1)
    best_own = np.where(carries, expected, -1.0).max(axis=1)
    margin = expected[clips, rival] - best_own
    margin = np.where(carries.all(axis=1), -1.0, margin)
    guess = expected.argmax(axis=1)
    surest = _surest(expected)
    scores = pl.DataFrame(
        {
            "right": carries[clips, guess],
            "gain": (old * np.log(expected / plain)).sum(axis=1),
            "surest": surest,
            "empty": np.zeros(len(old), bool),
        }
    ).with_columns(blocks.alias(BLOCK))
    rows = stats.aggregate(
        stats.totals(scores.lazy(), [FAMILY]), [FAMILY], resamples=resamples, seed=seed
    )
    overall = {row.metric: row for row in rows}
    gain, wrong, left = (overall[f"audit.{name}"] for name in ("gain", "unpredicted", "surest"))
    claims = gain.low is not None and gain.low > 0
    sure = confident(expected, main)
    suspect = disagree & (margin >= CLEAR_MARGIN) & claims
    high = wrong.high if claims and wrong.high is not None else 1.0
    known = claims and left.value is not None and left.value <= 0.5
    return Findings(
        expected=expected,
        rival=rival,
        suspicion=1 - own,
        margin=margin,
        suspect=suspect,
        claims=claims,
        rate=min(left.value, high) if known and left.value is not None else None,
        low=0.0,
        high=high,
        confident_rate=confident_rate(sure, carries, main) if claims else None,
        metrics=rows,
    )


def _folds(blocks: pl.Series) -> Ints:
    """Folds of whole blocks, of nearly equal size whatever their numbers."""
    order: Ints = blocks.rank("dense").to_numpy().astype(np.int64)
    shuffled = np.random.default_rng(0).permutation(order.max() + 1)
    folds: Ints = shuffled[order] % N_FOLDS
    return folds


def _surest(expected: Floats) -> Bools:
    """The tenth of the clips whose best family is most expected, and those that equal the last."""
    best = expected.max(axis=1)
    count = min(max(int(len(best) * SUREST), FEWEST_SUREST), len(best))
    least = np.partition(best, len(best) - count)[len(best) - count]
    chosen: Bools = best >= least - 1e-9
    return chosen


def _finish(s: Sums) -> dict[str, Value]:
    n = s["n"]
    return {
        "audit.unpredicted": (1 - ratio(s["right"], n), n),
        "audit.surest": (1 - ratio(s["surest_right"], s["surest"]), s["surest"]),
        "audit.gain": (ratio(s["gain"], n), n),
    }


FAMILY: Final = Family(
    version="cross-fitted",
    sums={
        "right": pl.col("right"),
        "surest": pl.col("surest"),
        "surest_right": pl.col("surest") & pl.col("right"),
        "gain": pl.col("gain"),
    },
    finish=_finish,
)
"""`audit.unpredicted`: share of the clips whose old label the evidence does not expect most, which
the noise rate is not above; `audit.surest`: that share where the evidence is surest; `audit.gain`:
nats that the evidence tells about an old label, 0 or less = nothing."""
