"""`emer compare`: two runs, or a run and old labels, clip by clip.

    emer compare runs/first runs/second --labels old.parquet

Says which labels changed and where most, with both explanations; how often each side names each
family of emotions; and, with a reference, the difference of every metric with a paired bootstrap
and McNemar's test. A row per clip goes to `comparison.parquet`, everything else to
`comparison.json`. docs/audit.md describes both.
"""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from emer_ray import schema, storage
from emer_ray.errors import ConfigError
from emer_ray.metrics import comparison, families, inputs, paired, sides, stats
from emer_ray.metrics.comparison import Options
from emer_ray.metrics.families import GroundName, Strengths
from emer_ray.metrics.noise import Bools
from emer_ray.metrics.paired import Difference
from emer_ray.metrics.stats import Floats

SHOWN: Final = 20
MOST_WORDS: Final = 30
"""Label words listed that one side says more often than the other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What came out: facts for programs, and the rows of `comparison.parquet`."""

    facts: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]

    def summary(self) -> dict[str, Any]:
        """The JSON object of the command line."""
        return dict(self.facts)

    def table(self, top: int = SHOWN) -> str:
        """For a person: what differs over all clips, then the clips that changed most."""
        return "\n".join([*_told(self.facts), *_listed(self.rows, top)])


def compare(
    a: str,
    b: str,
    options: Options,
    labels: str | None = None,
    *,
    out: str | None = None,
    on: GroundName = "auto",
) -> Comparison:
    """Compare two sides, each a run or a table of labels, on the clips that both have.

    `labels` is a reference that both are scored against. Results go to `out`, else into `a` where
    it is a run. Raises ConfigError for what a user can fix.
    """
    first, second = (_side(uri, options) for uri in (a, b))
    common = first.select("clip_id").join(second.select("clip_id"), on="clip_id", how="semi")
    if common.is_empty():
        raise ConfigError(f"compare {a} {b}: no clip id is on both sides; check the ids")
    mine, theirs = (
        common.join(side, on="clip_id", how="left", maintain_order="left")
        for side in (first, second)
    )
    ground = families.ground(on, _closed(first, second), options.wheels)
    one, other = (families.strengths(side["labels"], ground) for side in (mine, theirs))
    change = _change(one, other)
    changed = _apart(one, other)
    blocks = stats.blocks(_clusters(mine, theirs, options.cluster))
    shifts = _shifts(one, other, blocks, options)
    metrics, scored = _scored(a, b, labels, options) if labels else ([], None)
    rows = _rows(mine, theirs, one, other, change, changed, scored)
    folder = out or (None if inputs.is_table(a) else a)
    facts = {
        "a": a,
        "b": b,
        "labels": labels,
        "clips": common.height,
        "only_a": first.height - common.height,
        "only_b": second.height - common.height,
        "changed": int(changed.sum()),
        "change": float(change.mean()),
        "labels_per_clip": [_per_clip(side["labels"]) for side in (mine, theirs)],
        "families": [asdict(shift) for shift in shifts],
        "metrics": {each.metric: _plain(each) for each in metrics},
        "words": _words(mine["labels"], theirs["labels"]),
        "ground": ground.name,
        "wheels": options.wheels.version,
        "seed": options.seed,
        "resamples": options.resamples,
        "table": storage.join(folder, "comparison.parquet") if folder else None,
    }
    if folder:
        buffer = io.BytesIO()
        pq.write_table(schema.table(rows, schema.COMPARISON), buffer, compression="zstd")
        storage.write(storage.join(folder, "comparison.parquet"), buffer.getvalue())
        text = json.dumps(facts, ensure_ascii=False, indent=1)
        storage.write(storage.join(folder, "comparison.json"), text.encode())
    return Comparison(facts=facts, rows=rows)


def _side(uri: str, options: Options) -> pl.DataFrame:
    """Read a side; clips without labels are not on it."""
    columns = options.columns if inputs.is_table(uri) else {}
    found = sides.read(uri, columns, parser=options.parser)
    blank = [name for name in ("explanation", *comparison.CLUSTERS) if name not in found.columns]
    return found.filter(pl.col("labels").is_not_null()).with_columns(
        pl.lit(None, pl.String).alias(name) for name in blank
    )


def _closed(*both: pl.DataFrame) -> list[str] | None:
    """Words of the sides that have a closed set of labels, if any."""
    words: set[str] = set()
    for side in both:
        if set(side["source"].unique()) <= {"label", "label_scores"}:
            flat = side["labels"].explode().drop_nulls()
            words |= set(flat.struct.field("label").unique()) if len(flat) else set()
    return sorted(words) or None


def _aligned(one: Strengths, other: Strengths) -> tuple[tuple[str, ...], Floats, Floats]:
    """Shares of both sides over the families of either, [clips, families]."""
    names = tuple(sorted({*one.families, *other.families}))
    found = []
    for side in (one, other):
        shares = np.zeros((len(side.strength), len(names)))
        shares[:, [names.index(name) for name in side.families]] = side.shares
        found.append(shares)
    return names, found[0], found[1]


def _change(one: Strengths, other: Strengths) -> Floats:
    """Total variation of the shares; 1 where only one side has a family at all."""
    _, a, b = _aligned(one, other)
    half: Floats = np.abs(a - b).sum(axis=1) / 2
    return np.where((a.sum(axis=1) > 0) == (b.sum(axis=1) > 0), half, 1.0)


def _apart(one: Strengths, other: Strengths) -> Bools:
    _, a, b = _aligned(one, other)
    shared = (np.minimum(a, b) > 0).any(axis=1)
    said = (np.maximum(a, b) > 0).any(axis=1)
    return np.greater(said, shared)


def _clusters(mine: pl.DataFrame, theirs: pl.DataFrame, cluster: str | None) -> pl.Series:
    names = [cluster] if cluster else list(comparison.CLUSTERS)
    known = [
        side[name].cast(pl.String)
        for side in (mine, theirs)
        for name in names
        if name in side.columns
    ]
    columns = [column.alias(str(number)) for number, column in enumerate([*known, mine["clip_id"]])]
    return pl.DataFrame(columns).select(pl.coalesce(pl.all()).alias("id"))["id"]


def _shifts(
    one: Strengths, other: Strengths, blocks: pl.Series, options: Options
) -> list[Difference]:
    """How often each side names each family."""
    names, a, b = _aligned(one, other)
    frames = [
        pl.DataFrame({name: side[:, place] > 0 for place, name in enumerate(names)}).with_columns(
            pl.lit(value=False).alias("empty"), blocks.alias(stats.BLOCK)
        )
        for side in (a, b)
    ]
    found = paired.differences(
        frames[0],
        frames[1],
        [stats.means(list(names), "share of clips that name it")],
        binary={name: pl.col(name) for name in names},
        resamples=options.resamples,
        seed=options.seed,
    )
    return sorted(found, key=lambda each: -abs(each.difference or 0.0))


def _scored(
    a: str, b: str, labels: str, options: Options
) -> tuple[list[Difference], dict[str, pl.DataFrame]]:
    """Score both sides against one reference on all of its clips; a missing answer is an empty
    one.
    """
    gold = inputs.read(sides.manifest_of(labels), options.columns).collect()
    gold = gold.unique("clip_id", keep="last", maintain_order=True)
    guesses = [inputs.read(uri, options.columns).collect() for uri in (a, b)]
    both = [name for name in guesses[0].columns if name in guesses[1].columns]
    guesses = [
        side.select(both).unique("clip_id", keep="last", maintain_order=True) for side in guesses
    ]
    plan = comparison.plan(gold.lazy(), guesses[0].lazy(), options)
    aligned = [
        gold.select("clip_id").join(
            side.with_columns(pl.lit(value=True).alias("found")),
            on="clip_id",
            how="left",
            maintain_order="left",
        )
        for side in guesses
    ]
    scores = [comparison.score(gold, side, plan, options) for side in aligned]
    found = paired.differences(
        scores[0],
        scores[1],
        plan.families,
        binary=comparison.binary(plan),
        resamples=options.resamples,
        seed=options.seed,
    )
    gold_words = sides.read(
        sides.manifest_of(labels), options.columns, parser=options.parser
    ).select("clip_id", "labels")
    leading = {
        name: side.select("clip_id", comparison.leading(plan).alias("score"))
        for name, side in zip("ab", scores, strict=True)
    }
    return found, {**leading, "gold": gold_words}


def _rows(
    mine: pl.DataFrame,
    theirs: pl.DataFrame,
    one: Strengths,
    other: Strengths,
    change: Floats,
    changed: Bools,
    scored: Mapping[str, pl.DataFrame] | None,
) -> list[dict[str, Any]]:
    ids = mine["clip_id"].to_list()
    per_clip = {name: dict(frame.iter_rows()) for name, frame in (scored or {}).items()}
    labels = [side["labels"].to_list() for side in (mine, theirs)]
    texts = [side["explanation"].cast(pl.String).to_list() for side in (mine, theirs)]
    shares = [families.listed(side.families, side.shares) for side in (one, other)]
    order = sorted(range(len(ids)), key=lambda i: (not changed[i], -change[i], ids[i]))
    rows = []
    for rank, i in enumerate(order, start=1):
        gold = per_clip.get("gold", {}).get(ids[i])
        rows.append(
            {
                "clip_id": ids[i],
                "rank": rank,
                "changed": bool(changed[i]),
                "change": float(change[i]),
                "labels_a": labels[0][i],
                "labels_b": labels[1][i],
                "families_a": shares[0][i],
                "families_b": shares[1][i],
                "explanation_a": texts[0][i],
                "explanation_b": texts[1][i],
                "reference_labels": gold and [label["label"] for label in gold],
                "score_a": per_clip.get("a", {}).get(ids[i]),
                "score_b": per_clip.get("b", {}).get(ids[i]),
            }
        )
    return rows


def _per_clip(labels: pl.Series) -> float:
    return float(labels.list.len().mean() or 0.0)  # type: ignore[arg-type]


def _words(a: pl.Series, b: pl.Series) -> list[dict[str, Any]]:
    """Label words whose number of clips differs most."""
    counted = []
    for name, side in (("a", a), ("b", b)):
        flat = side.explode().drop_nulls()
        words = flat.struct.field("label") if len(flat) else pl.Series("label", [], pl.String)
        counted.append(words.value_counts(name=name))
    both = counted[0].join(counted[1], on="label", how="full", coalesce=True)
    filled = both.with_columns(pl.col("a", "b").fill_null(0).cast(pl.Int64))
    differ = filled.with_columns(more=(pl.col("b") - pl.col("a")).abs()).filter(pl.col("more") > 0)
    top = differ.sort("more", "label", descending=[True, False]).head(MOST_WORDS)
    return top.select("label", "a", "b").to_dicts()


def _plain(found: Difference) -> dict[str, Any]:
    return {name: value for name, value in asdict(found).items() if name != "metric"}


def _told(facts: Mapping[str, Any]) -> list[str]:
    lines = [
        f"{facts['clips']} clips on both sides, {facts['only_a']} only on the first, "
        f"{facts['only_b']} only on the second",
        f"ground: {facts['ground']} (wheels {facts['wheels']})",
        f"changed: {facts['changed']} clips have no family in common; mean change "
        f"{facts['change']:.3f}",
        "labels per clip: {:.2f} and {:.2f}".format(*facts["labels_per_clip"]),
    ]
    shifts = [_line(each["metric"], each) for each in facts["families"]]
    metrics = [_line(name, each) for name, each in facts["metrics"].items()]
    head = f"{'':<22}{'first':>9}{'second':>9}{'difference':>12}  95 % of it"
    for title, table in (("share of clips with", shifts), ("against the reference", metrics)):
        if table:
            lines += [f"{title:<22}{head[22:]}", *table]
    return lines


def _line(name: str, each: Mapping[str, Any]) -> str:
    a, b, difference = (
        "undefined" if each[key] is None else f"{each[key]:.4f}" for key in ("a", "b", "difference")
    )
    interval = "" if each["low"] is None else f"[{each['low']:+.4f}, {each['high']:+.4f}]"
    test = (
        ""
        if each["p"] is None
        else f"  McNemar p {each['p']:.3g} ({each['a_only']} to {each['b_only']})"
    )
    return f"{name:<22}{a:>9}{b:>9}{difference:>12}  {interval}{test}"


def _listed(rows: Sequence[Mapping[str, Any]], top: int) -> list[str]:
    lines = []
    for row in rows[:top]:
        if row["change"] == 0:
            break
        said = [
            ", ".join(label["label"] for label in row[f"labels_{side}"]) or "no clear emotion"
            for side in "ab"
        ]
        lines.append(
            f"{row['rank']:>5}. {row['clip_id']}: {said[0]} | {said[1]} (change "
            f"{row['change']:.2f})"
        )
        for side in "ab":
            if row[f"explanation_{side}"]:
                lines.append(f"       {side}: {sides.short(row[f'explanation_{side}'])}")
    return lines
