"""Ranking systems from pairwise preferences: Bradley-Terry with ties, components and intervals.

A tie is half a win for each. Systems that were never compared, not even through others, cannot be
ranked against each other: every connected component is ranked by itself. Where a group of systems
never lost to the rest of its component (or never won), the data alone would put it infinitely far
away; half a win both ways is then added to each pair between the two (science §c.10).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from emer_ray.metrics.fixed import Preference
from emer_ray.metrics.stats import Floats

_CLOSE: Final = 1e-8
_MOST_ROUNDS: Final = 100_000
_PSEUDO: Final = 0.5


@dataclass(frozen=True, slots=True)
class Duel:
    """One comparison of two systems on one clip."""

    clip_id: str
    first: str
    second: str
    outcome: Preference


@dataclass(frozen=True, slots=True, kw_only=True)
class Rank:
    """Where a system stands in its component."""

    system: str
    component: int
    rank: int
    log_p: float
    """Log strength; its mean over the component is 0."""
    low: float | None
    high: float | None
    """95 % bootstrap interval over clips; null without resampling."""
    n_duels: int


def bradley_terry(duels: Sequence[Duel], *, resamples: int = 200, seed: int = 0) -> list[Rank]:
    """Rank all systems that occur, best first, component by component."""
    if not duels:
        return []
    systems = sorted({system for duel in duels for system in (duel.first, duel.second)})
    index = {system: place for place, system in enumerate(systems)}
    clips = sorted({duel.clip_id for duel in duels})
    clip_of = {clip: place for place, clip in enumerate(clips)}
    # One row per duel: its clip, its two systems, and the first one's share of the win.
    share = {"a1": 1.0, "a2": 0.0, "same": 0.5}
    rows = np.array(
        [(clip_of[d.clip_id], index[d.first], index[d.second]) for d in duels], dtype=np.int64
    ).reshape(-1, 3)
    shares = np.array([share[duel.outcome] for duel in duels])

    def wins_with(weights: Floats) -> Floats:
        wins = np.zeros((len(systems), len(systems)))
        weight = weights[rows[:, 0]]
        np.add.at(wins, (rows[:, 1], rows[:, 2]), weight * shares)
        np.add.at(wins, (rows[:, 2], rows[:, 1]), weight * (1 - shares))
        return wins

    wins = wins_with(np.ones(len(clips)))
    strengths, components = fit(wins), component_of(wins)
    drawn = []
    rng = np.random.default_rng(seed)
    for _ in range(resamples):
        weights = rng.multinomial(len(clips), np.full(len(clips), 1 / len(clips)))
        drawn.append(fit(wins_with(weights.astype(np.float64)), components))
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0) if drawn else (None, None)
    n_duels = (wins + wins.T).sum(axis=1)
    ranks = [
        Rank(
            system=system,
            component=int(components[i]),
            rank=1 + int(((components == components[i]) & (strengths > strengths[i])).sum()),
            log_p=float(strengths[i]),
            low=None if low is None else float(low[i]),
            high=None if high is None else float(high[i]),
            n_duels=round(float(n_duels[i])),
        )
        for i, system in enumerate(systems)
    ]
    return sorted(ranks, key=lambda rank: (rank.component, rank.rank, rank.system))


def fit(wins: Floats, components: npt.NDArray[np.int64] | None = None) -> Floats:
    """Log strengths from `wins[i, j]` = wins of i over j; mean 0 in each component."""
    components = component_of(wins) if components is None else components
    wins = _connected(wins, components)
    games = wins + wins.T
    p = np.ones(len(wins))
    for _ in range(_MOST_ROUNDS):
        expected = (games / (p[:, None] + p[None, :])).sum(axis=1)
        new = np.divide(wins.sum(axis=1), expected, out=np.ones(len(wins)), where=expected > 0)
        for component in np.unique(components):
            inside = components == component
            new[inside] /= np.exp(np.log(new[inside]).mean())
        moved = np.abs(np.log(new) - np.log(p)).max(initial=0)
        p = new
        if moved < _CLOSE:
            break
    strengths: Floats = np.log(p)
    return strengths


def component_of(wins: Floats) -> npt.NDArray[np.int64]:
    """Number of each system's component, 0 for the largest."""
    reach = _reach((wins + wins.T) > 0)
    names = [int(np.flatnonzero(row)[0]) for row in reach]
    order = sorted(set(names), key=lambda name: (-names.count(name), name))
    return np.array([order.index(name) for name in names], dtype=np.int64)


def _connected(wins: Floats, components: npt.NDArray[np.int64]) -> Floats:
    """Add pseudo-wins until everybody beats everybody of the component through others.

    A resample may have lost all duels of a system; it then meets every other one once.
    """
    beats = _reach(wins > 0)
    apart = (components[:, None] == components[None, :]) & ~(beats & beats.T)
    met = (wins + wins.T) > 0
    added: Floats = wins + _PSEUDO * (apart & met)
    beats = _reach(added > 0)
    still = (components[:, None] == components[None, :]) & ~(beats & beats.T)
    added += _PSEUDO * still
    return added


def _reach(edges: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Transitive closure, every node reaching itself."""
    reach = edges | np.eye(len(edges), dtype=np.bool_)
    while True:
        further = (reach.astype(np.int64) @ reach.astype(np.int64)) > 0
        if (further == reach).all():
            return reach
        reach = further
