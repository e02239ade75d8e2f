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
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from emer_ray import storage
from emer_ray.config import JudgedScore
from emer_ray.errors import ConfigError
from emer_ray.judge.questions import Case, Known, judged, schema
from emer_ray.judge.questions import families as judge_families
from emer_ray.metrics import comparison, fixed, inputs, labels, lexicon, sets, stats, suites
from emer_ray.metrics.comparison import Options, Plan
from emer_ray.metrics.stats import Aggregate

if TYPE_CHECKING:
    from emer_ray.judge.job import Judge, Progress  # would import Ray, which most uses do without

MOST_CELLS: Final = 400
"""Pairs of a gold label and a guess that `--json` lists; more are no table to read."""

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
    valence_range: tuple[float, float] | None = None,
    **plain: Any,
) -> Options:
    """Options out of what a command line gives: paths, `OURS=THEIRS` pairs and comma lists."""
    if valence_range is not None and not valence_range[0] < valence_range[1]:
        low, high = valence_range
        raise ConfigError(f"--valence-range {low} {high}: give the lower end first")
    return Options(
        wheels=lexicon.load(wheels, year) if wheels else lexicon.default(),
        groups=sets.read_groups(storage.read(groups)) if groups else None,
        columns=pairs(columns),
        by=_listed(by),
        classes=_listed(classes),
        valence_range=valence_range,
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
    items = (item.strip() for item in (text or "").split(","))
    return tuple(dict.fromkeys(item for item in items if item))


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
    judge: Mapping[str, Any] | None = None
    """What was asked of a judge, what failed, and what it cost."""

    def value(self, metric: str) -> float | None:
        """A metric over all clips. Raises `KeyError` where it was not computed."""
        return self._overall()[metric].value

    def summary(self) -> dict[str, Any]:
        """The JSON object of the command line."""
        metrics = {metric: _plain(row) for metric, row in self._overall().items()}
        judge = {} if self.judge is None else {"judge": dict(self.judge)}
        confusion: dict[str, Any] = {}
        if self.confusion is not None and self.confusion.height <= MOST_CELLS:
            confusion = {"confusion": self.confusion.to_dicts()}
        return {**self.facts, **judge, "metrics": metrics, **confusion}

    def table(self) -> str:
        """The aggregates over all clips for a person: one line a metric, facts on top."""
        lines = [_sentence(self.facts)]
        if self.judge is not None:
            lines.append(f"judge: {_sentence(self.judge)}")
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


def _sentence(facts: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items())


def _plain(row: Aggregate) -> dict[str, Any]:
    names = ("value", "n", "n_scored", "n_empty", "n_unparsable", "low", "high", "version")
    return {name: getattr(row, name) for name in names}


@dataclass(frozen=True, slots=True, kw_only=True)
class Aligned:
    """One partition with its rows side by side: predictions have a row for each reference."""

    gold: pl.DataFrame
    pred: pl.DataFrame
    rival: pl.DataFrame | None
    counts: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Predictions beside references, not read yet, so that partitions can be scored anywhere."""

    gold: pl.LazyFrame
    pred: pl.LazyFrame
    rival: pl.LazyFrame | None
    plan: Plan
    options: Options
    partitions: int
    judge: "Judge | None"
    scores: tuple[JudgedScore, ...]
    """What the judge is asked for."""
    system: str = ""
    """Part of the names of the judge's questions, where several systems are judged."""

    def aligned(self, number: int) -> Aligned:
        """One partition, aligned. Of rows with one name the last counts, as upstream."""
        gold_rows, pred_rows = (
            _part(side, number, self.partitions) for side in (self.gold, self.pred)
        )
        gold, pred = (_last(rows) for rows in (gold_rows, pred_rows))
        beside = _beside(gold, pred)
        rival = None
        if self.rival is not None:
            rival = _beside(gold, _last(_part(self.rival, number, self.partitions)))
        counts = {
            "clips": gold.height,
            "missing": beside["found"].null_count(),
            "extra": pred.join(gold, on="clip_id", how="anti").height,
            "duplicates": gold_rows.height - gold.height + pred_rows.height - pred.height,
        }
        return Aligned(gold=gold, pred=beside, rival=rival, counts=counts)

    def put(self, known: Known) -> None:
        """Put every question of the judge."""
        for number in range(self.partitions):
            for case in self.cases(self.aligned(number)):
                judged(case, self.scores, known)

    def cases(self, sides: Aligned) -> Iterator[Case]:
        """The clips as a judge sees them."""
        gold, parser = sides.gold, self.options.parser

        def said(frame: pl.DataFrame | None) -> list[str]:
            if frame is None or "explanation" not in frame.columns:
                return [""] * gold.height
            return [str(text or "").strip() for text in frame["explanation"]]

        def listed(frame: pl.DataFrame) -> list[list[str]]:
            if "openset" not in frame.columns:
                return [[]] * gold.height
            return [labels.parse(cell, parser) for cell in frame["openset"]]

        tags = gold["licence_tag"] if "licence_tag" in gold.columns else [None] * gold.height
        for clip_id, tag, right, mine, other, right_words, words in zip(
            *(gold["clip_id"], tags, said(gold), said(sides.pred), said(sides.rival)),
            *(listed(gold), listed(sides.pred)),
            strict=True,
        ):
            yield Case(
                clip_id=clip_id,
                system=self.system,
                gold=right,
                pred=mine,
                rival=other,
                gold_labels=right_words,
                pred_labels=words,
                licence_tag=tag,
            )


def align(
    pred: str,
    reference: str,
    options: Options,
    *,
    partitions: int = 1,
    judge: "Judge | None" = None,
    against: str | None = None,
    system: str = "",
    scores: tuple[JudgedScore, ...] | None = None,
) -> Comparison:
    """See what can be compared. Raises `ConfigError` for what a user can fix.

    The judge is asked for `scores`, else for what its configuration says and the tables allow.
    """
    inputs.refuse_absent([pred, _manifest(reference)], options.columns)
    gold = inputs.read(_manifest(reference), options.columns)
    found = inputs.read(pred, options.columns)
    rival = inputs.read(against, options.columns) if against else None
    if rival is not None and judge is None:
        raise ConfigError("--against needs a judge that compares the two; add --judge FILE")
    if rival is not None and "explanation" not in rival.collect_schema().names():
        raise ConfigError(f"--against {against}: no column explanation, which a judge compares")
    plan = comparison.plan(gold, found, options)
    if judge is None:
        scores = ()
    else:
        if "preference" in judge.config.scores and rival is None and not system:
            raise ConfigError("judge: the score preference compares two; add --against OTHER")
        if "groups" in judge.config.scores and options.groups is not None:
            raise ConfigError("judge: --groups has groups already; leave groups out of its scores")
        scores = scores or judge.scores(plan.has, rival=rival is not None)
        if options.groups is not None:
            scores = tuple(score for score in scores if score != "groups")
        if "groups" in scores:
            options = replace(options, groups_by=judge.version)
            plan = comparison.plan(gold, found, options)
        families = (*plan.families, *judge_families(scores, judge.version))
        plan = replace(plan, families=families)
    return Comparison(
        gold=gold,
        pred=found,
        rival=rival,
        plan=plan,
        options=options,
        partitions=partitions,
        judge=judge,
        scores=scores,
        system=system,
    )


def evaluate(
    pred: str,
    reference: str,
    options: Options | None = None,
    *,
    out: str | None = None,
    partitions: int = 1,
    run_partitions: Partitions = map,
    judge: "Judge | None" = None,
    against: str | None = None,
    on_progress: "Callable[[Progress], None]" = lambda _: None,
) -> Evaluation:
    """Score one set of predictions. Raises `ConfigError` for what a user can fix.

    `partitions` > 1 works on one hash partition of the clips at a time, for corpora larger than
    memory. A `judge` is asked for what it has not answered before; with `against`, it also says
    which of the two predictions of a clip it prefers.
    """
    options = options or Options(wheels=lexicon.default())
    compared = align(pred, reference, options, partitions=partitions, judge=judge, against=against)
    if judge is not None:
        judge.settle(compared.put, on_progress)
    return score(compared, pred, reference, out=out, run_partitions=run_partitions)


def score(
    compared: Comparison,
    pred: str,
    reference: str,
    *,
    out: str | None = None,
    run_partitions: Partitions = map,
) -> Evaluation:
    """Score what was compared, with what a judge has answered so far."""
    options, plan, partitions = compared.options, compared.plan, compared.partitions

    def work(number: int) -> Scored:
        scored = _scored(compared, number)
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
    judge = compared.judge
    result = Evaluation(
        facts=_facts(pred, reference, counts, options),
        metrics=rows,
        scores=scores if scores.height or not out else None,
        confusion=fixed.confusion(scores, "label.gold", "label.guess") if has_label else None,
        judge=None if judge is None else judge.facts(compared.scores),
    )
    if out is not None:
        if partitions == 1:
            storage.write(storage.join(out, "scores.parquet"), _parquet(scores))
        if partitions == 1 and "groups" in compared.scores:
            storage.write(storage.join(out, "groups.json"), _groups(scores))
        storage.write(storage.join(out, "metrics.parquet"), _parquet(stats.frame(rows)))
    return result


def _groups(scores: pl.DataFrame) -> bytes:
    """The judge's groups of synonyms as a file for `--groups`."""
    found = zip(scores["clip_id"].to_list(), scores["judge.groups"].to_list(), strict=True)
    groups = {clip_id: groups for clip_id, groups in found if groups is not None}
    return json.dumps(groups, ensure_ascii=False, indent=0).encode()


def _last(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.unique("clip_id", keep="last", maintain_order=True)


def _beside(gold: pl.DataFrame, pred: pl.DataFrame) -> pl.DataFrame:
    """A row for every clip of the reference; `found` is null where there is no prediction."""
    found = pred.with_columns(pl.lit(True).alias("found"))
    return gold.select("clip_id").join(found, on="clip_id", how="left", maintain_order="left")


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


def _scored(compared: Comparison, number: int) -> Scored:
    """Score one partition."""
    plan, options, judge = compared.plan, compared.options, compared.judge
    sides = compared.aligned(number)
    if judge is None:
        scores = comparison.score(sides.gold, sides.pred, plan, options)
    else:
        cases = compared.cases(sides)
        rows = [judged(case, compared.scores, judge.answers) for case in cases]
        verdicts = pl.DataFrame(rows, schema=schema(compared.scores))
        if "groups" in compared.scores:
            pairs = zip(sides.gold["clip_id"], verdicts["judge.groups"].to_list(), strict=True)
            options = replace(options, groups={c: g for c, g in pairs if g is not None})
        scores = comparison.score(sides.gold, sides.pred, plan, options)
        scores = scores.with_columns(verdicts.get_columns())
    totals = stats.totals(scores.lazy(), plan.families, options.by)
    return Scored(scores=scores, totals=totals, counts=sides.counts)


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
