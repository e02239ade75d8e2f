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
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import polars as pl

from emer_ray import storage
from emer_ray.errors import ConfigError
from emer_ray.metrics import (
    fixed,
    inputs,
    labels,
    lexicon,
    sets,
    soft,
    stats,
    suites,
    valence,
    wheels,
)
from emer_ray.metrics.labels import Parser
from emer_ray.metrics.sets import Groups
from emer_ray.metrics.stats import Aggregate, Family
from emer_ray.metrics.wheels import Wheels

CLUSTERS: Final = ("source_id", "speaker")
"""Columns whose equal values mark clips that are not independent, best first."""

_MAX_CLASSES: Final = 1000

Partitions = Callable[[Callable[[int], "Scored"], Iterable[int]], Iterable["Scored"]]
"""How partitions are worked off: `map`, or something that does the same on a cluster."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a score depends on beside the two tables."""

    wheels: Wheels
    parser: Parser = "upstream"
    groups: Groups | None = None
    """Groups of synonyms per clip for the set-level scores; clips without an entry are not scored
    by them.
    """
    columns: Mapping[str, str] = field(default_factory=dict)
    by: tuple[str, ...] = ()
    """Columns to break every metric down by; `length` stands for bins of the clip length."""
    cluster: str | None = None
    classes: tuple[str, ...] = ()
    """Words of numeric gold labels, from 0 on."""
    valence_range: tuple[float, float] | None = None
    wordnet: str | None = None
    suite: str | None = None
    resamples: int = 1000
    seed: int = 0


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
    pairs = [column.partition("=") for column in columns]
    for ours, equals, theirs in pairs:
        if not (ours and equals and theirs):
            raise ConfigError(f"--columns {ours}{equals}{theirs}: give OURS=THEIRS")
    return Options(
        wheels=lexicon.load(wheels, year) if wheels else lexicon.default(),
        groups=sets.read_groups(storage.read(groups).decode()) if groups else None,
        columns={ours: theirs for ours, _, theirs in pairs},
        by=_listed(by),
        classes=_listed(classes),
        **plain,
    )


def _listed(text: str | None) -> tuple[str, ...]:
    return tuple(item.strip() for item in (text or "").split(",") if item.strip())


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is true of the whole data set and must be known before a part of it is scored."""

    has: frozenset[str]
    """Columns that both sides have."""
    hits: bool
    gold_words: tuple[str, ...]
    language: Any
    families: tuple[Family, ...]


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
    sides = _Sides(pred, reference, options)
    plan = _plan(sides, options)

    def work(number: int) -> Scored:
        scored = _partition(sides, plan, options, number, partitions)
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


class _Sides:
    """Predictions and references as lazy frames, read again by every partition."""

    def __init__(self, pred: str, reference: str, options: Options) -> None:
        self.pred = inputs.read(pred, options.columns)
        self.gold = inputs.read(_manifest(reference), options.columns)


def _manifest(reference: str) -> str:
    """A run directory as reference means its manifest, which carries the old labels."""
    inside = storage.join(reference, "manifest.parquet")
    return (
        inside if "." not in reference.rsplit("/", 1)[-1] and storage.exists(inside) else reference
    )


def _plan(sides: _Sides, options: Options) -> Plan:
    gold, pred = sides.gold.collect_schema(), sides.pred.collect_schema()
    comparable = ("openset", "label", "valence", "explanation", "ranking", "preference")
    has = {name for name in comparable if name in gold.names() and name in pred.names()}
    if "label" in gold.names() and "ranking" in pred.names():
        has.add("ranking")
    if "valence" in gold.names() and "sentiment" in pred.names():
        has.add("sentiment")
    hits = "label" in gold.names() and "openset" in pred.names()
    _need_columns("--by", options.by, sides)
    _need_columns("--cluster", [options.cluster] if options.cluster else [], sides)
    if not has and not hits:
        raise ConfigError(
            f"nothing to compare: the reference has {', '.join(gold.names())}, the predictions "
            f"{', '.join(pred.names())}; name the columns with --columns OURS=THEIRS "
            f"(ours are {', '.join(comparable)})"
        )
    words: tuple[str, ...] = ()
    if "label" in gold.names():
        column = sides.gold.select(_word(options.classes)).unique().collect()["label"]
        words = tuple(sorted(column.drop_nulls()))
    language = None
    if "explanation" in has:
        from emer_ray.metrics import text

        head = sides.gold.select("explanation").drop_nulls().head(200).collect()["explanation"]
        language = text.language_of(head.to_list())
    plan = Plan(has=frozenset(has), hits=hits, gold_words=words, language=language, families=())
    return replace(plan, families=tuple(_families(plan, options)))


def _need_columns(option: str, names: Sequence[str], sides: _Sides) -> None:
    """Refuse a breakdown by a column that the reference does not have; `length` is derived."""
    gold, pred = (side.collect_schema().names() for side in (sides.gold, sides.pred))
    timed = {"start_s", "end_s"} <= set(gold) or "duration_s" in gold or "duration_s" in pred
    known = [*gold, *(["length"] if timed else [])]
    for name in names:
        if name not in known:
            raise ConfigError(f"{option} {name}: the reference has only {', '.join(known)}")


def _word(classes: Sequence[str]) -> pl.Expr:
    """The gold label as a word: lower case, numbers looked up in `classes`, blank as null."""
    text = pl.col("label").cast(pl.String).str.strip_chars().str.to_lowercase()
    numbered = {str(number): word.lower() for number, word in enumerate(classes)}
    return text.replace(numbered).replace("", None).alias("label")


def _families(plan: Plan, options: Options) -> Iterable[Family]:
    if "openset" in plan.has:
        yield sets.set_family("groups" if options.groups is not None else "identity")
        yield sets.exact_family()
        yield wheels.family(options.wheels)
        yield soft.family(options.wheels)
    if plan.hits:
        yield wheels.hit_family(options.wheels)
    if "label" in plan.has:
        if len(plan.gold_words) > _MAX_CLASSES:
            raise ConfigError(
                f"label: {len(plan.gold_words)} different gold labels are no fixed set; "
                "call an open-vocabulary column openset"
            )
        names = {kind: kind for kind in ("acc", "waf", "uar", "war")}
        yield fixed.classification("label.gold", "label.guess", plan.gold_words, names)
    if "ranking" in plan.has:
        yield fixed.topk_family()
    if "preference" in plan.has:
        yield from fixed.preference_families()
    if "valence" in plan.has:
        yield valence.family()
    if plan.has & {"valence", "sentiment"}:
        yield valence.sentiment_family()
    if "explanation" in plan.has:
        from emer_ray.metrics import text

        yield from text.families(plan.language, wordnet=options.wordnet is not None)
    labelled = [name for name in ("n_labels_gold", "n_labels_pred") if _has_lists(name, plan)]
    yield stats.means(labelled, options.parser)


def _has_lists(name: str, plan: Plan) -> bool:
    return "openset" in plan.has or (name == "n_labels_pred" and plan.hits)


def _partition(sides: _Sides, plan: Plan, options: Options, number: int, partitions: int) -> Scored:
    def part(frame: pl.LazyFrame) -> pl.DataFrame:
        if partitions > 1:
            frame = frame.filter(pl.col("clip_id").hash(0) % partitions == number)
        return frame.collect()

    gold_rows, pred_rows = part(sides.gold), part(sides.pred)
    gold = gold_rows.unique("clip_id", keep="last", maintain_order=True)
    pred = pred_rows.unique("clip_id", keep="last", maintain_order=True)
    aligned = gold.select("clip_id").join(
        pred.with_columns(pl.lit(True).alias("found")),
        on="clip_id",
        how="left",
        maintain_order="left",
    )
    scores = _score(gold, aligned, plan, options)
    counts = {
        "clips": gold.height,
        "missing": gold.height - int(aligned["found"].fill_null(False).sum()),
        "extra": pred.join(gold, on="clip_id", how="anti").height,
        "duplicates": gold_rows.height - gold.height + pred_rows.height - pred.height,
    }
    return Scored(
        scores=scores, totals=stats.totals(scores.lazy(), plan.families, options.by), counts=counts
    )


def _score(gold: pl.DataFrame, pred: pl.DataFrame, plan: Plan, options: Options) -> pl.DataFrame:
    """Per-clip scores of clips in the order of `gold`; both frames have one row per clip."""
    columns: dict[str, Any] = {}
    if "label" in gold.columns:
        columns["label.gold"] = gold.select(_word(options.classes))["label"]
    if "openset" in plan.has:
        g, p = labels.encode(gold["openset"], pred["openset"], parser=options.parser)
        columns |= {"n_labels_gold": g.sizes, "n_labels_pred": p.sizes}
        columns |= _set_scores(gold, pred, options, g, p)
        columns |= wheels.scores(g, p, options.wheels)
        columns |= soft.scores(g, p, options.wheels)
    if plan.hits:
        one = columns["label.gold"].reshape((-1, 1)).arr.to_list()
        g, p = labels.encode(one, pred["openset"], parser=options.parser)
        columns["n_labels_pred"] = p.sizes
        columns |= wheels.hit_scores(g, p, options.wheels, plan.gold_words)
    if "label" in plan.has:
        columns["label.guess"] = pred.select(_word(options.classes))["label"]
    if "ranking" in plan.has:
        known = plan.gold_words
        candidates = fixed.EMER_CANDIDATES if set(known) <= set(fixed.EMER_CANDIDATES) else known
        ranked = [fixed.ranking(answer, candidates) for answer in pred["ranking"]]
        columns |= fixed.topk_scores(columns["label.gold"].to_list(), ranked)
    if "preference" in plan.has:
        columns["pref.gold"] = pl.Series([_side(a) for a in gold["preference"]], dtype=pl.String)
        columns["pref.guess"] = pl.Series([fixed.preference(a) for a in pred["preference"]])
    if "valence" in gold.columns and plan.has & {"valence", "sentiment"}:
        columns |= _valence(gold, pred, plan, options)
    if "explanation" in plan.has:
        from emer_ray.metrics import text

        texts = gold["explanation"].to_list(), pred["explanation"].to_list()
        columns |= text.scores(*texts, plan.language, options.wordnet)
    empty = _empty(pred, columns)
    frame = pl.DataFrame({"clip_id": gold["clip_id"], **columns, "empty": empty})
    frame = frame.with_columns(pl.col(pl.Float64).fill_nan(None))
    if "preference" in plan.has:
        frame = frame.with_columns(fixed.preference_columns())
    if plan.has & {"valence", "sentiment"}:
        frame = frame.with_columns(valence.sentiment_columns())
    frame = frame.with_columns(
        pl.lit(options.wheels.version).alias("wheels"), pl.lit(options.parser).alias("parser")
    )
    return _with_groups(frame, gold, pred, options)


def _side(answer: str | None) -> str | None:
    return None if answer is None else fixed.preference(answer)


def _empty(pred: pl.DataFrame, columns: Mapping[str, Any]) -> pl.Series:
    """Clips with nothing predicted: no row, no labels, or no text."""
    if "n_labels_pred" in columns:
        return pl.Series(columns["n_labels_pred"] == 0)
    given = [
        name for name in ("label", "explanation", "valence", "ranking") if name in pred.columns
    ]
    if not given:
        return pred["found"].is_null()
    blank = [pl.col(name).cast(pl.String, strict=False).fill_null("") == "" for name in given]
    return pred.select(pl.all_horizontal(blank).alias("empty"))["empty"]


def _set_scores(
    gold: pl.DataFrame, pred: pl.DataFrame, options: Options, g: labels.Labels, p: labels.Labels
) -> dict[str, Any]:
    if options.groups is None:
        found = sets.overlap(g, p, labels.number(word.lower() for word in g.words))
        level = {"set.accuracy": found.precision, "set.recall": found.recall}
    else:
        level = _grouped(gold, pred, options)
    return {**level, **sets.exact_scores(g, p)}


def _grouped(gold: pl.DataFrame, pred: pl.DataFrame, options: Options) -> dict[str, Any]:
    assert options.groups is not None
    names = gold["clip_id"].to_list()
    rows = [number for number, name in enumerate(names) if name in options.groups]
    found = sets.grouped(
        [labels.parse(gold["openset"][row], options.parser) for row in rows],
        [labels.parse(pred["openset"][row], options.parser) for row in rows],
        [options.groups[names[row]] for row in rows],
    )
    columns = {}
    for name, part in (("set.accuracy", found.precision), ("set.recall", found.recall)):
        column = np.full(len(names), np.nan)
        column[rows] = part
        columns[name] = column
    return columns


def _valence(
    gold: pl.DataFrame, pred: pl.DataFrame, plan: Plan, options: Options
) -> dict[str, pl.Series]:
    low, high = options.valence_range or (None, None)
    numbers = pl.Series([valence.number(v) for v in gold["valence"]], dtype=pl.Float64)
    columns = {"valence.gold": numbers}
    if "valence" in plan.has:
        guesses = [valence.number(v, low, high) for v in pred["valence"]]
        columns["valence.guess"] = pl.Series(guesses, dtype=pl.Float64)
        columns["valence.unparsable"] = columns["valence.guess"].is_null()
    if "sentiment" in plan.has:
        feeling = [valence.sentiment(v) for v in pred["sentiment"]]
        columns["sentiment.guess"] = pl.Series(feeling, dtype=pl.Float64)
    else:
        columns["sentiment.guess"] = columns["valence.guess"]
    return columns


def _with_groups(
    frame: pl.DataFrame, gold: pl.DataFrame, pred: pl.DataFrame, options: Options
) -> pl.DataFrame:
    """Add the columns that clips are grouped and clustered by, and the block of each cluster."""
    cluster = [options.cluster] if options.cluster else []
    carried = {"split", "speaker", "source_id", "corpus", *options.by, *cluster} - {"label"}
    frame = frame.with_columns(
        gold.select(name for name in gold.columns if name in carried and name not in frame.columns)
    )
    if "label.gold" in frame.columns:
        frame = frame.with_columns(pl.col("label.gold").alias("label"))
    seconds = _seconds(gold, pred)
    if seconds is not None:
        frame = frame.with_columns(stats.length_bin(seconds).alias("length"))
    ids = [name for name in cluster or CLUSTERS if name in frame.columns]
    clusters = frame.select(pl.coalesce(pl.col(*ids, "clip_id").cast(pl.String)).alias("id"))["id"]
    return frame.with_columns(stats.blocks(clusters).alias(stats.BLOCK))


def _seconds(gold: pl.DataFrame, pred: pl.DataFrame) -> pl.Series | None:
    """Length of each clip: its window, else what the manifest or the run measured."""
    known: list[pl.Series] = []
    if {"start_s", "end_s"} <= set(gold.columns):
        window = pl.col("end_s").cast(pl.Float64) - pl.col("start_s").cast(pl.Float64).fill_null(0)
        known.append(gold.select(window).to_series())
    for frame in (gold, pred):
        if "duration_s" in frame.columns:
            known.append(frame["duration_s"].cast(pl.Float64))
    if not known:
        return None
    columns = pl.DataFrame([series.alias(str(i)) for i, series in enumerate(known)])
    return columns.select(pl.coalesce(pl.all()).alias("seconds")).to_series()


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
