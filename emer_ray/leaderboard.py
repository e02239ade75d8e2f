"""`emer leaderboard`: many systems scored the same way, best first.

A folder holds one table or run directory per system, or one folder per system with a table per
data set for MER-UniBench. With `preferences`, a table of judged pairs (`clip_id`, `first`,
`second`, `preference` = a1, a2 or same), systems are ranked by Bradley-Terry as well.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from emer_ray import storage
from emer_ray.errors import ConfigError
from emer_ray.evaluate import Comparison, Evaluation, align, evaluate, score
from emer_ray.judge.questions import Known, preference
from emer_ray.metrics import fixed, inputs, suites
from emer_ray.metrics.comparison import Options
from emer_ray.metrics.ranking import Duel, Rank, bradley_terry

if TYPE_CHECKING:
    from emer_ray.judge.job import Judge, Progress  # would import Ray, which most uses do without

TABLES: Final = (".csv", ".json", ".jsonl", ".ndjson", ".parquet", ".npz")
UNIBENCH: Final = "mer-unibench"
DEFAULT_METRICS: Final = (
    *("wheel.mean.L1.f", "wheel.mean.L2.f", "wheel.m_avg", "set.avg", "exact.f", "hit.mean"),
    *("waf", "uar", "acc", "sentiment.waf", "valence.ccc", "bleu4", "rouge_l", "meteor"),
)
"""Columns of the board, as far as the tables give them; the first one present orders it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """Systems in order, their scores, and their ranks by preference where pairs were judged."""

    by: str
    order: Sequence[str]
    scores: Mapping[str, Mapping[str, float | None]]
    preferences: Sequence[Rank] = field(default_factory=tuple)
    judge: Mapping[str, Any] | None = None
    """What was asked of a judge, what failed, and what it cost."""

    def summary(self) -> dict[str, Any]:
        """The JSON object of the command line."""
        return {
            "by": self.by,
            "order": list(self.order),
            "systems": {name: {"metrics": dict(self.scores[name])} for name in self.order},
            "preferences": [asdict(rank) for rank in self.preferences],
            **({} if self.judge is None else {"judge": dict(self.judge)}),
        }

    def table(self) -> str:
        """The board for a person."""
        metrics = list(next(iter(self.scores.values()), {}))
        width = max([len(name) for name in self.order] + [6])
        lines = ["  ".join([f"{'system':<{width}}", *(f"{m:>15}" for m in metrics)])]
        for name in self.order:
            cells = [self.scores[name].get(m) for m in metrics]
            shown = ["undefined" if cell is None else f"{cell:.4f}" for cell in cells]
            lines.append("  ".join([f"{name:<{width}}", *(f"{cell:>15}" for cell in shown)]))
        for rank in self.preferences:
            interval = "" if rank.low is None else f" [{rank.low:.3f}, {rank.high:.3f}]"
            lines.append(
                f"preference rank {rank.rank} of component {rank.component}: {rank.system} "
                f"log p {rank.log_p:.3f}{interval}, {rank.n_duels} duels"
            )
        return "\n".join(lines)


def leaderboard(
    folder: str,
    reference: str,
    options: Options,
    *,
    metrics: Sequence[str] = (),
    suite: str | None = None,
    preferences: str | None = None,
    judge: "Judge | None" = None,
    on_progress: "Callable[[Progress], None]" = lambda _: None,
) -> Board:
    """Score every system of a folder against one reference (or a folder of nine).

    A `judge` scores every system and compares every pair of them; its preferences are ranked.
    """
    ranks = _ranks(preferences, options) if preferences else []
    if suite == UNIBENCH:
        if judge is not None:
            raise ConfigError(f"--suite {UNIBENCH}: has no judged score; leave --judge out")
        systems = _systems(folder)
        scores = {name: _unibench(uri, reference, options) for name, uri in systems.items()}
    elif suite is None:
        found = contest(folder, reference, options, judge)
        if judge is not None:
            judge.settle(found.put, on_progress)
            ranks += bradley_terry(
                found.duels(), resamples=min(options.resamples, 200), seed=options.seed
            )
        scores = found.scores()
    else:
        raise ConfigError(f"--suite {suite}: unknown; a leaderboard knows {UNIBENCH}")
    present = {metric for found in scores.values() for metric in found}
    if unknown := [metric for metric in metrics if metric not in present]:
        raise ConfigError(
            f"--metrics {unknown[0]}: none such; there are {', '.join(sorted(present))}"
        )
    judged = sorted(metric for metric in present if metric.startswith("judge."))
    standard = [UNIBENCH, *suites.UNIBENCH] if suite else [*DEFAULT_METRICS, *judged]
    shown = [metric for metric in (metrics or standard) if metric in present] or sorted(present)
    by = shown[0]
    kept = {name: {metric: found.get(metric) for metric in shown} for name, found in scores.items()}
    order = sorted(kept, key=lambda name: (-_or_lowest(kept[name][by]), name))
    facts = None if judge is None else judge.facts(())
    return Board(by=by, order=order, scores=kept, preferences=ranks, judge=facts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """Systems beside one reference, not scored yet; with a judge, every pair of them as well."""

    systems: Mapping[str, Comparison]
    pairs: Mapping[tuple[str, str], Comparison]

    def put(self, known: Known) -> None:
        """Put every question of the judge."""
        for compared in (*self.systems.values(), *self.pairs.values()):
            compared.put(known)

    def scores(self) -> dict[str, dict[str, float | None]]:
        """Every metric of every system."""
        return {name: _values(score(found, name, "")) for name, found in self.systems.items()}

    def duels(self) -> list[Duel]:
        """What the judge preferred, of what it has answered."""
        return [
            Duel(case.clip_id, first, second, verdict.value)
            for (first, second), compared in self.pairs.items()
            if compared.judge is not None
            for case in compared.cases(compared.aligned(0))
            for verdict, _ in [preference(case, compared.judge.answers)]
            if verdict.value is not None
        ]


def contest(folder: str, reference: str, options: Options, judge: "Judge | None") -> Contest:
    """Set every system beside the reference, and beside every other where a judge prefers one."""
    uris = _systems(folder)
    plain = replace(options, resamples=0)
    systems = {
        name: align(uri, reference, plain, judge=judge, system=name) for name, uri in uris.items()
    }
    duelling = judge is not None and (
        not judge.config.scores or "preference" in judge.config.scores
    )
    texts = [name for name, found in systems.items() if "explanation" in found.plan.has]
    pairs = {
        (one, two): align(
            uris[one],
            reference,
            plain,
            judge=judge,
            against=uris[two],
            system=f"{one} or {two}",
            scores=("preference",),
        )
        for one, two in combinations(texts if duelling else [], 2)
    }
    return Contest(systems=systems, pairs=pairs)


def _or_lowest(value: float | None) -> float:
    return float("-inf") if value is None else value


def _systems(folder: str) -> dict[str, str]:
    """Every table and every sub-folder of a folder, by name."""
    base = folder.rstrip("/")
    inside = (entry.uri.removeprefix(base).lstrip("/") for entry in storage.listing(base))
    names = sorted({name.split("/")[0] for name in inside})
    systems = {}
    for name in names:
        stem, dot, ending = name.rpartition(".")
        if dot and f".{ending.lower()}" in TABLES:
            systems[stem] = storage.join(base, name)
        elif not dot:
            systems[name] = storage.join(base, name)
    if not systems:
        raise ConfigError(f"{folder}: no systems there; it needs a table or folder for each")
    return systems


def _scores(uri: str, reference: str, options: Options) -> dict[str, float | None]:
    return _values(evaluate(uri, reference, replace(options, resamples=0)))


def _values(found: Evaluation) -> dict[str, float | None]:
    return {metric: values["value"] for metric, values in found.summary()["metrics"].items()}


def _unibench(uri: str, reference: str, options: Options) -> dict[str, float | None]:
    """The primary metric of each of the nine sets, and their mean; null where a set is missing."""
    values: dict[str, float | None] = {}
    for name, part in suites.UNIBENCH.items():
        pred, gold = (_table_of(folder, name) for folder in (uri, reference))
        if pred is not None and gold is not None:
            values[name] = _scores(pred, gold, options).get(part.primary)
    return {UNIBENCH: suites.unibench(values), **{n: values.get(n) for n in suites.UNIBENCH}}


def _table_of(folder: str, name: str) -> str | None:
    candidates = [storage.join(folder, name + ending) for ending in TABLES]
    return next((uri for uri in candidates if storage.exists(uri)), None)


def _ranks(uri: str, options: Options) -> list[Rank]:
    rows = inputs.read(uri, options.columns).collect()
    absent = [name for name in ("first", "second", "preference") if name not in rows.columns]
    if absent:
        raise ConfigError(f"--preferences {uri}: no column {', '.join(absent)}")
    names = rows.select(pl.col("clip_id", "first", "second").cast(pl.String)).rows()
    answers = [fixed.preference(answer) for answer in rows["preference"]]
    duels = [
        Duel(clip, first, second, answer)
        for (clip, first, second), answer in zip(names, answers, strict=True)
    ]
    return bradley_terry(duels, resamples=min(options.resamples, 200), seed=options.seed)
