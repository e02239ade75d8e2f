"""Everything that two aligned tables can be scored by: which metrics apply, and their per-clip
columns.

A `Plan` holds what must be known of the whole data set before a part of it is scored, so that parts
give the same columns anywhere.
"""

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

import numpy as np
import polars as pl

from emer_ray.errors import ConfigError
from emer_ray.metrics import fixed, labels, sets, soft, stats, valence, wheels
from emer_ray.metrics.labels import Parser
from emer_ray.metrics.sets import Groups
from emer_ray.metrics.stats import Family
from emer_ray.metrics.wheels import Wheels

COMPARABLE: Final[tuple[str, ...]] = ("openset", "label", "valence", "explanation", "preference")
"""Columns compared with the column of the same name."""

DERIVED: Final[Mapping[str, str]] = {"ranking": "label", "sentiment": "valence"}
"""Predicted columns compared with another column of the reference."""

CLUSTERS: Final = ("source_id", "speaker")
"""Columns whose equal values mark clips that are not independent, best first."""

_MAX_CLASSES: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a score depends on beside the two tables."""

    wheels: Wheels
    parser: Parser = "upstream"
    groups: Groups | None = None
    """Groups of synonyms per clip for the set-level scores; clips without an entry are not scored
    by them.
    """
    groups_by: str | None = None
    """The judge that gives the groups, clip by clip; `groups` then has those of the clips at hand.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is true of the whole data set and must be known before a part of it is scored."""

    has: frozenset[str]
    """What is compared: `COMPARABLE` columns of both sides, `DERIVED` ones, and `hits`, open labels
    against one gold word.
    """
    gold_words: tuple[str, ...]
    language: Literal["en", "zh"]
    families: tuple[Family, ...]


def plan(gold: pl.LazyFrame, pred: pl.LazyFrame, options: Options) -> Plan:
    """See what can be scored. Columns without content give way to those that have some."""
    given, guessed = (set(side.collect_schema().names()) for side in (gold, pred))
    has = _comparable(_filled(gold), guessed) or _comparable(given, guessed)
    if not has:
        raise ConfigError(
            f"nothing to compare: the reference has {', '.join(sorted(given))}, the predictions "
            f"{', '.join(sorted(guessed))}; name the columns with --columns OURS=THEIRS "
            f"(ours are {', '.join([*COMPARABLE, 'ranking', 'sentiment'])})"
        )
    _need_columns("--by", options.by, gold, pred)
    _need_columns("--cluster", [options.cluster] if options.cluster else [], gold, pred)
    words: tuple[str, ...] = ()
    if has & {"label", "ranking", "hits"}:
        column = gold.select(_word(options.classes)).unique().collect()["label"]
        words = tuple(sorted(column.drop_nulls()))
    language = _language(gold) if "explanation" in has else "en"
    found = Plan(has=frozenset(has), gold_words=words, language=language, families=())
    return replace(found, families=tuple(_families(found, options)))


def _comparable(given: Set[str], guessed: Set[str]) -> set[str]:
    has: set[str] = {name for name in COMPARABLE if name in given and name in guessed}
    has |= {guess for guess, truth in DERIVED.items() if guess in guessed and truth in given}
    return has | ({"hits"} if "label" in given and "openset" in guessed else set())


def _filled(gold: pl.LazyFrame) -> set[str]:
    """Columns of the reference with content: a manifest has them all, most of them null."""
    counts = gold.select(pl.all().count()).collect().row(0, named=True)
    return {name for name, count in counts.items() if count > 0}


def _language(gold: pl.LazyFrame) -> Literal["en", "zh"]:
    """Chinese if most letters of the reference texts are."""
    texts = pl.col("explanation")
    letters = [texts.str.count_matches(kind).sum() for kind in (r"\p{Han}", r"\p{Latin}")]
    han, latin = gold.select(a=letters[0], b=letters[1]).collect().row(0)
    return "zh" if han > latin else "en"


def _need_columns(
    option: str, names: Sequence[str], gold: pl.LazyFrame, pred: pl.LazyFrame
) -> None:
    """Refuse a breakdown by a column that the reference does not have; `length` is derived."""
    given, guessed = (side.collect_schema().names() for side in (gold, pred))
    timed = {"start_s", "end_s"} <= {*given} or "duration_s" in {*given, *guessed}
    known = [*given, *(["length"] if timed else [])]
    for name in names:
        if name not in known:
            raise ConfigError(f"{option} {name}: the reference has only {', '.join(known)}")
        if gold.collect_schema().get(name, pl.String()).is_nested():
            raise ConfigError(f"{option} {name}: holds lists or objects, not one value per clip")


def _word(classes: Sequence[str]) -> pl.Expr:
    """The gold label as a word: lower case, numbers looked up in `classes`, blank as null."""
    text = pl.col("label").cast(pl.String).str.strip_chars().str.to_lowercase()
    numbered = {str(number): word.lower() for number, word in enumerate(classes)}
    return text.replace(numbered).replace("", None).alias("label")


def _families(plan: Plan, options: Options) -> Iterable[Family]:
    if "openset" in plan.has:
        if options.groups_by is not None:
            yield sets.set_family(f"groups by {options.groups_by}", "judge.groups.unparsable")
        else:
            yield sets.set_family("groups" if options.groups is not None else "identity")
        yield sets.exact_family()
        yield wheels.family(options.wheels)
        yield soft.family(options.wheels)
    if "hits" in plan.has:
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
    counted = ["n_labels_gold"] if "openset" in plan.has else []
    counted += ["n_labels_pred"] if plan.has & {"openset", "hits"} else []
    yield stats.means(counted, options.parser)


def score(gold: pl.DataFrame, pred: pl.DataFrame, plan: Plan, options: Options) -> pl.DataFrame:
    """Per-clip scores of clips in the order of `gold`; both frames have one row per clip."""
    columns: dict[str, Any] = {}
    if plan.has & {"label", "ranking", "hits"}:
        columns["label.gold"] = gold.select(_word(options.classes))["label"]
    if "openset" in plan.has:
        g, p = labels.encode(gold["openset"], pred["openset"], parser=options.parser)
        columns |= {"n_labels_gold": g.sizes, "n_labels_pred": p.sizes}
        columns |= _set_scores(gold, pred, options, g, p)
        columns |= wheels.scores(g, p, options.wheels)
        columns |= soft.scores(g, p, options.wheels)
    if "hits" in plan.has:
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
        guesses = [fixed.preference(a) for a in pred["preference"]]
        columns["pref.guess"] = pl.Series(guesses, dtype=pl.String)
    if plan.has & {"valence", "sentiment"}:
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


def binary(plan: Plan) -> dict[str, pl.Expr]:
    """Metrics that are means of yes and no, and what a row of scores says; null = not scored."""
    found: dict[str, pl.Expr] = {}
    if "hits" in plan.has:
        found |= {f"hit.{wheel}": pl.col(f"hit.{wheel}") == 1 for wheel in wheels.HITS}
    if "label" in plan.has:
        found["acc"] = _right("label.gold", "label.guess")
    if "ranking" in plan.has:
        found |= {name: pl.col(name) == 1 for name in ("top1", "top2")}
    if plan.has & {"valence", "sentiment"}:
        found["sentiment.acc"] = _right("sentiment.gold_class", "sentiment.guess_class")
    return found


def _right(gold: str, guess: str) -> pl.Expr:
    """Without gold null, without a guess wrong."""
    known = pl.col(gold).is_not_null()
    return pl.when(known).then((pl.col(gold) == pl.col(guess)).fill_null(value=False))


def leading(plan: Plan) -> pl.Expr:
    """One score of a clip for people, of a row of scores: right or wrong of a fixed label, else the
    mean hit, else the mean F of five wheels at level 1; null where nothing of it applies.
    """
    if "label" in plan.has:
        return _right("label.gold", "label.guess").cast(pl.Float64)
    if "hits" in plan.has:
        return pl.mean_horizontal(f"hit.{wheel}" for wheel in wheels.HITS)
    if "openset" in plan.has:
        return pl.mean_horizontal(_f(f"wheel.{wheel}.L1") for wheel in wheels.HITS)
    return pl.lit(None, pl.Float64)


def _f(metric: str) -> pl.Expr:
    p, r = pl.col(f"{metric}.p"), pl.col(f"{metric}.r")
    return pl.when(p + r > 0).then(2 * p * r / (p + r)).when((p + r).is_not_null()).then(0.0)


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
    return pred.select(pl.all_horizontal(_blank(pred, name) for name in given).alias("e"))["e"]


def _blank(frame: pl.DataFrame, name: str) -> pl.Expr:
    if isinstance(frame.schema[name], pl.List):
        return pl.col(name).list.len().fill_null(0) == 0
    return pl.col(name).cast(pl.String).fill_null("") == ""


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
    if taken := {*options.by, *cluster} & {*frame.columns} - {"clip_id"}:
        raise ConfigError(
            f"--by {min(taken)}: a column of the scores has this name; call yours otherwise"
        )
    carried = {"split", "speaker", "source_id", "corpus", *options.by, *cluster} - {"label"}
    frame = frame.with_columns(
        gold.select(name for name in gold.columns if name in carried and name not in frame.columns)
    )
    if "label.gold" in frame.columns:
        frame = frame.with_columns(pl.col("label.gold").alias("label"))
    elif "label" in {*options.by, *cluster}:
        frame = frame.with_columns(gold.select(_word(options.classes)))
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
        start, end = (pl.col(name).cast(pl.Float64, strict=False) for name in ("start_s", "end_s"))
        window = end - start.fill_null(0)
        known.append(gold.select(window).to_series())
    for frame in (gold, pred):
        if "duration_s" in frame.columns:
            known.append(frame["duration_s"].cast(pl.Float64, strict=False))
    if not known:
        return None
    columns = pl.DataFrame([series.alias(str(i)) for i, series in enumerate(known)])
    return columns.select(pl.coalesce(pl.all()).alias("seconds")).to_series()
