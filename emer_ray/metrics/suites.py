"""Named sets of scores: the challenges of MER2023 to MER2026 and the nine sets of MER-UniBench."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from emer_ray.errors import ConfigError
from emer_ray.metrics.stats import Aggregate

Parts = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Challenge:
    """A score that a challenge ranked by, out of our metrics."""

    what: str
    needs: tuple[str, ...]
    score: Callable[[Parts], float]


def _plain(what: str, metric: str) -> Challenge:
    return Challenge(what, (metric,), lambda parts: parts[metric])


def _joint(what: str) -> Challenge:
    return Challenge(
        what, ("waf", "valence.mse"), lambda parts: parts["waf"] - 0.25 * parts["valence.mse"]
    )


CHALLENGES: Final[Mapping[str, Challenge]] = {
    "mer2023.multi": _joint("WAF - 0.25 MSE of valence"),
    "mer2023.noise": _joint("WAF - 0.25 MSE of valence"),
    "mer2023.semi": _plain("WAF", "waf"),
    "mer2024.semi": _plain("WAF", "waf"),
    "mer2024.noise": _plain("WAF", "waf"),
    "mer2024.ov": _plain("mean of set-level accuracy and recall", "set.avg"),
    "mer2025.semi": _plain("WAF", "waf"),
    "mer2025.fg": Challenge(
        "mean of the five-wheel F at level 1 and at level 2",
        ("wheel.mean.L1.f", "wheel.mean.L2.f"),
        lambda parts: (parts["wheel.mean.L1.f"] + parts["wheel.mean.L2.f"]) / 2,
    ),
    "mer2026.cross": _plain("WAF of the listener's emotion", "waf"),
    "mer2026.fg": _plain("five-wheel F at level 1", "wheel.mean.L1.f"),
    "mer2026.prefer": _plain("WAF over two classes", "pref2.waf"),
}
"""Challenge track to its score (science §c.11). MER2025's description track was judged by people.
"""


def challenge(name: str, rows: Sequence[Aggregate]) -> list[Aggregate]:
    """The score of a track for every group in `rows`; null where one of its metrics is undefined or
    absent.
    """
    if name not in CHALLENGES:
        raise ConfigError(f"--suite {name}: unknown; there are {', '.join(CHALLENGES)}")
    track = CHALLENGES[name]
    groups: dict[tuple[str, str], dict[str, Aggregate]] = {}
    for row in rows:
        groups.setdefault((row.by, row.group), {})[row.metric] = row
    result = []
    for metrics in groups.values():
        absent = [metric for metric in track.needs if metric not in metrics]
        if absent:
            raise ConfigError(
                f"--suite {name}: needs {', '.join(absent)}, which the columns do not give"
            )
        used = [metrics[metric] for metric in track.needs]
        parts = {row.metric: row.value for row in used if row.value is not None}
        value = track.score(parts) if len(parts) == len(used) else None
        n_scored = min(row.n_scored for row in used)
        result.append(
            replace(used[0], metric=name, value=value, n_scored=n_scored, low=None, high=None)
        )
    return result


@dataclass(frozen=True, slots=True)
class Set:
    """One data set of MER-UniBench."""

    part: str
    n: int
    """Clips the paper scored."""
    primary: str


UNIBENCH: Final[Mapping[str, Set]] = {
    "ovmerd+": Set("all", 532, "wheel.mean.L1.f"),
    "mer2023": Set("MER-MULTI", 411, "hit.mean"),
    "mer2024": Set("MER-SEMI", 1169, "hit.mean"),
    "iemocap": Set("session 5, four labels", 1241, "hit.mean"),
    "meld": Set("test", 2610, "hit.mean"),
    "cmumosi": Set("test", 686, "sentiment.waf"),
    "cmumosei": Set("test", 4659, "sentiment.waf"),
    "sims": Set("test", 457, "sentiment.waf"),
    "simsv2": Set("test", 1034, "sentiment.waf"),
}
"""The nine sets by the name of their files, with the metric each is ranked by (science §c.9)."""


def unibench(values: Mapping[str, float | None]) -> float | None:
    """Mean of the nine primary metrics; null until all nine are there."""
    known = [value for name in UNIBENCH if (value := values.get(name)) is not None]
    return sum(known) / len(UNIBENCH) if len(known) == len(UNIBENCH) else None
