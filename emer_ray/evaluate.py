"""`emer evaluate`: every metric of the field for predictions against references, per clip and as
aggregates.

Predictions and references are tables or run directories (`metrics.inputs`). What is scored follows
from the columns both sides have: `openset` lists, a `label` out of a fixed set, `valence`,
`explanation`, `ranking`, `preference`. A clip without a prediction counts as an empty one; extra
predictions are counted and ignored. With `out` the per-clip scores go to `scores.parquet` (several
files of `scores/` when the corpus is read in partitions) and the aggregates to `metrics.parquet`.
docs/metrics.md gives every formula.
"""

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from emer_ray import storage
from emer_ray.errors import ConfigError
from emer_ray.metrics import comparison, fixed, inputs, lexicon, sets, stats, suites
from emer_ray.metrics.comparison import Options, Plan
from emer_ray.metrics.stats import Aggregate

Partitions = Callable[[Callable[[int], "Scored"], Iterable[int]], Iterable["Scored"]]
"""How partitions are worked off: `map`, or something that does the same on a cluster."""


def options(
    *,
    wheels: str | None = None,
    year: lexicon.Year = "2026",
    groups: str | None = None,
    columns: Sequence[str] = (),
    by: str | None = None,
    classes: str | None = None,
    **plain: Any,
) -> Options:
    """Options out of what a command line gives: paths, `OURS=THEIRS` pairs and comma lists."""
    return Options(
        wheels=lexicon.load(wheels, year) if wheels else lexicon.default(),
        groups=sets.read_groups(storage.read(groups).decode()) if groups else None,
        columns=pairs(columns),
        by=_listed(by),
        classes=_listed(classes),
        **plain,
    )


def pairs(columns: Sequence[str]) -> dict[str, str]:
    """Read `OURS=THEIRS` names of columns."""
    named = [column.partition("=") for column in columns]
    for ours, equals, theirs in named:
        if not (ours and equals and theirs):
            raise ConfigError(f"--columns {ours}{equals}{theirs}: give OURS=THEIRS")
    return {ours: theirs for ours, _, theirs in named}


def _listed(text: str | None) -> tuple[str, ...]:
    return tuple(item.strip() for item in (text or "").split(",") if item.strip())


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """One partition: per-clip scores, and what is added up over partitions."""

    scores: pl.DataFrame
    totals: pl.DataFrame
    counts: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """The result: facts about the comparison, aggregates, per-clip scores, confusion of fixed
    labels.
    """

    facts: Mapping[str, Any]
    metrics: Sequence[Aggregate]
    scores: pl.DataFrame | None
    """Null when the corpus was scored in partitions; then they are in `scores/`."""
    confusion: pl.DataFrame | None

    def value(self, metric: str) -> float | None:
        """A metric over all clips. Raises `KeyError` where it was not computed."""
        return self._overall()[metric].value

    def summary(self) -> dict[str, Any]:
        """The JSON object of the command line."""
        return {**self.facts, "metrics": {m: _plain(row) for m, row in self._overall().items()}}

    def table(self) -> str:
        """The aggregates over all clips for a person: one line a metric, facts on top."""
        lines = [", ".join(f"{name} {value}" for name, value in self.facts.items())]
        for row in self._overall().values():
            value = "undefined" if row.value is None else f"{row.value:9.4f}"
            interval = "" if row.low is None else f"  [{row.low:.4f}, {row.high:.4f}]"
            lines.append(
                f"{row.metric:<18}{value:>9}{interval:<20}  {row.n_scored} of {row.n} clips"
                f"  {row.version}"
            )
        return "\n".join(lines)

    def _overall(self) -> dict[str, Aggregate]:
        return {row.metric: row for row in self.metrics if row.by == ""}


def _plain(row: Aggregate) -> dict[str, Any]:
    names = ("value", "n", "n_scored", "n_empty", "n_unparsable", "low", "high", "version")
    return {name: getattr(row, name) for name in names}


def evaluate(
    pred: str,
    reference: str,
    options: Options | None = None,
    *,
    out: str | None = None,
    partitions: int = 1,
    run_partitions: Partitions = map,
) -> Evaluation:
    """Score one set of predictions. Raises `ConfigError` for what a user can fix.

    `partitions` > 1 works on one hash partition of the clips at a time, for corpora larger than
    memory.
    """
    options = options or Options(wheels=lexicon.default())
    gold_rows = inputs.read(_manifest(reference), options.columns)
    pred_rows = inputs.read(pred, options.columns)
    plan = comparison.plan(gold_rows, pred_rows, options)

    def work(number: int) -> Scored:
        gold, guessed = (_part(side, number, partitions) for side in (gold_rows, pred_rows))
        scored = _scored(gold, guessed, plan, options)
        if out is not None and partitions > 1:
            name = storage.join(out, "scores", f"{number:05d}.parquet")
            storage.write(name, _parquet(scored.scores))
            return replace(scored, scores=scored.scores.clear())
        return scored

    parts = list(run_partitions(work, range(partitions)))
    summed = stats.merge([part.totals for part in parts])
    counts = {name: sum(part.counts[name] for part in parts) for name in parts[0].counts}
    rows = stats.aggregate(summed, plan.families, resamples=options.resamples, seed=options.seed)
    if options.suite:
        rows += suites.challenge(options.suite, rows)
    scores = pl.concat([part.scores for part in parts])
    has_label = "label" in plan.has and scores.height > 0
    result = Evaluation(
        facts=_facts(pred, reference, counts, options),
        metrics=rows,
        scores=scores if scores.height or not out else None,
        confusion=fixed.confusion(scores, "label.gold", "label.guess") if has_label else None,
    )
    if out is not None:
        if partitions == 1:
            storage.write(storage.join(out, "scores.parquet"), _parquet(scores))
        storage.write(storage.join(out, "metrics.parquet"), _parquet(stats.frame(rows)))
    return result


def _parquet(frame: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    return buffer.getvalue()


def _manifest(reference: str) -> str:
    """A run directory as reference means its manifest, which carries the old labels."""
    inside = storage.join(reference, "manifest.parquet")
    return inside if not inputs.is_table(reference) and storage.exists(inside) else reference


def _part(side: pl.LazyFrame, number: int, partitions: int) -> pl.DataFrame:
    """The clips of one partition; which one a clip belongs to follows from its id alone."""
    if partitions > 1:
        side = side.filter(pl.col("clip_id").hash(0) % partitions == number)
    return side.collect()


def _scored(
    gold_rows: pl.DataFrame, pred_rows: pl.DataFrame, plan: Plan, options: Options
) -> Scored:
    """Align the two sides and score them. Of rows with one name the last counts, as upstream."""
    gold = gold_rows.unique("clip_id", keep="last", maintain_order=True)
    pred = pred_rows.unique("clip_id", keep="last", maintain_order=True)
    found = pred.with_columns(pl.lit(True).alias("found"))
    aligned = gold.select("clip_id").join(found, on="clip_id", how="left", maintain_order="left")
    scores = comparison.score(gold, aligned, plan, options)
    counts = {
        "clips": gold.height,
        "missing": aligned["found"].null_count(),
        "extra": pred.join(gold, on="clip_id", how="anti").height,
        "duplicates": gold_rows.height - gold.height + pred_rows.height - pred.height,
    }
    totals = stats.totals(scores.lazy(), plan.families, options.by)
    return Scored(scores=scores, totals=totals, counts=counts)


def _facts(
    pred: str, reference: str, counts: Mapping[str, int], options: Options
) -> dict[str, Any]:
    return {
        "pred": pred,
        "reference": reference,
        **counts,
        "wheels": options.wheels.version,
        "parser": options.parser,
        "groups": None if options.groups is None else len(options.groups),
        "seed": options.seed,
        "resamples": options.resamples,
    }
