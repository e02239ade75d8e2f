"""`emer audit`: where old labels and a run's evidence disagree, ranked, with reasons.

    emer audit runs/first --labels old.parquet

Both sides are put on one ground of emotion families (`metrics.families`), evidence is calibrated on
the clips of other folds (`metrics.noise`), and every compared clip becomes a row of
`audit.parquet`, the most doubtful old label on top. `audit.json` holds everything that is said of
all clips: agreement overall and per family, speaker and split, confusion, ambiguity, the mapping
of every word, and what the noise rate may be. A disagreement is a question, not a verdict: the
evidence may be what is wrong. docs/audit.md says how, and what cannot be known.
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
from emer_ray.metrics import (
    comparison,
    families,
    fixed,
    inputs,
    lexicon,
    likeness,
    noise,
    sides,
    stats,
)
from emer_ray.metrics.families import GroundName, Strengths
from emer_ray.metrics.labels import Parser
from emer_ray.metrics.noise import Bools
from emer_ray.metrics.sides import Source
from emer_ray.metrics.stats import Aggregate, Floats
from emer_ray.store import embeddings, record

SHOWN: Final = 20
BY: Final = ("old_family", "speaker", "split")
"""Columns that agreement is broken down by."""
MOST_GROUPS: Final = 12
"""Groups of one breakdown that are printed; `audit.json` has them all."""
FEWEST_RESAMPLES: Final = 20
NEIGHBOURS: Final = 3
MOST_WITH_NEIGHBOURS: Final = 2000
"""Clips that neighbours are looked up for: the suspects and the tenth on top, so many at most."""

_SUPPORT_BINS: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What was found: facts for programs, the rows of `audit.parquet`, and everything else."""

    facts: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]
    record: Mapping[str, Any]
    """`audit.json`: the facts, and what is too long for a line."""

    def summary(self) -> dict[str, Any]:
        """The JSON object of the command line."""
        return dict(self.facts)

    def table(self, top: int = SHOWN) -> str:
        """For a person: what is known of all clips, then the clips to look at first."""
        groups = _grouped(self.record["agreement"], self.record["confusion"])
        return "\n".join([*_told(self.facts), *groups, *_listed(self.rows, top)])


def audit(
    run: str,
    labels: str | None = None,
    *,
    out: str | None = None,
    on: GroundName = "auto",
    old: Source | None = None,
    checked: str | None = None,
    columns: Mapping[str, str] | None = None,
    parser: Parser = "upstream",
    cluster: str | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Audit:
    """Hold old labels against the evidence of a run, and store what comes out in the run.

    `labels` is a manifest or a table; without it the run's own manifest counts. `run` may be a
    table of somebody's predictions as well, then `out` says where results go. `checked` is a table
    of labels that people gave after looking again. Raises ConfigError for what a user can fix.
    """
    is_run = not inputs.is_table(run)
    folder = out or (run if is_run else None)
    if folder is None:
        raise ConfigError(f"audit {run}: a table has no folder for results; give --out DIR")
    if resamples < FEWEST_RESAMPLES:
        raise ConfigError(
            f"--resamples {resamples}: what the audit claims rests on intervals; give "
            f"{FEWEST_RESAMPLES} or more"
        )
    given = sides.read(sides.manifest_of(labels or run), columns or {}, parser=parser, source=old)
    also = ("confidence", "measures") if is_run else ()
    new = sides.read(run, {} if is_run else columns or {}, parser=parser, also=also)
    ground = _ground(on, given)
    both = _compared(run, _pairs(given, new), ground)
    found = _find(both, cluster, resamples, seed)
    settled = _settled(both, checked, ground, parser) if checked else {}
    space, basis = _space(run if is_run else None, both.clips)
    rows = _rows(both, found, space)
    scores = _scores(both, found, cluster)
    agreement = _agreement(scores, resamples, seed)
    facts = {
        "run": run,
        "labels": labels or run,
        "clips": given.height,
        "compared": both.clips.height,
        "disagree": int(found.disagree.sum()),
        **_noise(found.noise, settled, both.clips.height),
        "suspects": int(found.noise.suspect.sum()),
        "claims": found.noise.claims,
        **_overall([*agreement, *found.noise.metrics]),
        "kappa": _kappa(scores["old_family"], scores["new_family"]),
        "ambiguous": int(((both.after.strength > 0).sum(axis=1) > 1).sum()),
        "not_compared": both.left_out,
        "extra": new.join(given, on="clip_id", how="anti").height,
        "ground": ground.name,
        "wheels": ground.wheels.version,
        "neighbours_by": basis,
        "checked": settled or None,
        "seed": seed,
        "resamples": resamples,
        "table": storage.join(folder, "audit.parquet"),
    }
    everything = {
        **facts,
        "agreement": [asdict(row) for row in agreement],
        "calibration": [asdict(row) for row in found.noise.metrics],
        "confusion": fixed.confusion(scores, "old_family", "new_family").to_dicts(),
        "families_supported": {
            "old": _sizes(both.before.strength),
            "new": _sizes(both.after.strength),
        },
        "by_support": _by_support(both.after, ~found.disagree),
        "old_words": ground.mapping(_words(given["labels"])),
        "new_words": ground.mapping(_words(new["labels"])),
    }
    _store(folder, rows, everything)
    return Audit(facts=facts, rows=rows, record=everything)


def _store(folder: str, rows: Sequence[Mapping[str, Any]], record: Mapping[str, Any]) -> None:
    buffer = io.BytesIO()
    pq.write_table(schema.table(rows, schema.AUDIT), buffer, compression="zstd")
    storage.write(storage.join(folder, "audit.parquet"), buffer.getvalue())
    text = json.dumps(record, ensure_ascii=False, indent=1)
    storage.write(storage.join(folder, "audit.json"), text.encode())


def _overall(rows: Sequence[Aggregate]) -> dict[str, float | None]:
    return {row.metric.removeprefix("audit."): row.value for row in rows if row.by == ""}


def _pairs(given: pl.DataFrame, new: pl.DataFrame) -> pl.DataFrame:
    """A row per clip of the old labels with what the run says of it, null where it says nothing."""
    wanted = {"labels": "new_labels", "confidence": "confidence", "explanation": "explanation"}
    wanted["measures"] = "measures"
    mine = new.select(
        "clip_id", *(pl.col(name).alias(to) for name, to in wanted.items() if name in new.columns)
    )
    texts = [name for name in ("speaker", "source_id", "split") if name in given.columns]
    sides_of = given.select("clip_id", "labels", *(pl.col(name).cast(pl.String) for name in texts))
    joined = sides_of.join(mine, on="clip_id", how="left", maintain_order="left")
    for name, kind in _COLUMNS.items():
        if name not in joined.columns:
            joined = joined.with_columns(pl.lit(None, kind).alias(name))
    return joined


_COLUMNS: Final[Mapping[str, pl.DataType | type[pl.DataType]]] = {
    "speaker": pl.String,
    "source_id": pl.String,
    "split": pl.String,
    "confidence": pl.Float64,
    "explanation": pl.String,
}


def _ground(on: GroundName, given: pl.DataFrame) -> families.Ground:
    """Choose the ground: valence where nothing else is known; split by a closed set of labels."""
    sources = set(given["source"].drop_nulls())
    if on == "auto" and sources == {"valence"}:
        on = "valence"
    words = _words(given["labels"]) if sources <= {"label", "label_scores"} else None
    return families.ground(on, words, lexicon.default())


def _words(labels: pl.Series) -> list[str]:
    flat = labels.drop_nulls().explode().drop_nulls()
    return [] if flat.is_empty() else flat.struct.field("label").unique().sort().to_list()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Both:
    """Clips whose old labels and evidence both have a family."""

    clips: pl.DataFrame
    before: Strengths
    after: Strengths
    left_out: Mapping[str, int]
    """Reason to number of clips."""


def _compared(run: str, pairs: pl.DataFrame, ground: families.Ground) -> _Both:
    """Keep what can be compared, and count the rest by reason."""
    reason = (
        pl.when(pl.col("labels").is_null())
        .then(pl.lit("no_old_label"))
        .when(pl.col("old").is_null())
        .then(pl.lit("old_label_without_family"))
        .when(pl.col("new_labels").is_null())
        .then(pl.lit("no_evidence"))
        .when(pl.col("new").is_null())
        .then(pl.lit("evidence_without_family"))
    )
    mains = {
        "old": families.strengths(pairs["labels"], ground).main,
        "new": families.strengths(pairs["new_labels"], ground).main,
    }
    judged = pairs.with_columns(**mains).with_columns(reason.alias("reason"))
    counted = judged["reason"].drop_nulls().value_counts(sort=True)
    left_out: dict[str, int] = dict(counted.iter_rows())
    clips = judged.filter(pl.col("reason").is_null()).drop("reason", *mains)
    if clips.is_empty():
        raise ConfigError(
            f"audit {run}: no clip has an old label and evidence that both have a family "
            f"({_reasons(left_out)}); check that clip ids are the same on both sides"
        )
    return _Both(
        clips=clips,
        before=families.strengths(clips["labels"], ground),
        after=families.strengths(clips["new_labels"], ground),
        left_out=left_out,
    )


def _reasons(counted: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {n}" for name, n in counted.items()) or "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """The findings with the names of their families."""

    noise: noise.Findings
    families: tuple[str, ...]
    disagree: Bools


def _find(both: _Both, cluster: str | None, resamples: int, seed: int) -> _Found:
    before, after = both.before, both.after
    names = before.families
    agree = np.zeros(both.clips.height, bool)
    for name in set(names) & set(after.families):
        mine = before.strength[:, names.index(name)] > 0
        agree |= mine & (after.strength[:, after.families.index(name)] > 0)
    confidence = both.clips["confidence"].cast(pl.Float64).fill_null(np.nan).to_numpy()
    findings = noise.findings(
        before.shares,
        before.main_numbers(),
        noise.features(after.strength, after.main_numbers(), confidence),
        ~agree,
        stats.blocks(_clusters(both.clips, cluster)),
        resamples=resamples,
        seed=seed,
    )
    return _Found(noise=findings, families=names, disagree=~agree)


def _clusters(compared: pl.DataFrame, cluster: str | None) -> pl.Series:
    """Clips that are not independent; where there are too few groups, every clip is its own."""
    if cluster is not None and cluster not in compared.columns:
        raise ConfigError(f"--cluster {cluster}: take of speaker, source_id, split")
    ids = [cluster] if cluster else list(comparison.CLUSTERS)
    found = compared.select(pl.coalesce(*ids, "clip_id").alias("id"))["id"]
    return found if found.n_unique() >= noise.FEWEST_CLUSTERS else compared["clip_id"]


def _settled(both: _Both, checked: str, ground: families.Ground, parser: Parser) -> dict[str, int]:
    """Count the old labels that people looked at again, and what they found."""
    before = both.before
    again = sides.read(checked, {}, parser=parser).select("clip_id", again="labels")
    rows = both.clips.select("clip_id").join(again, on="clip_id", how="left", maintain_order="left")
    truth = families.strengths(rows["again"], ground)
    right = np.zeros(len(rows), bool)
    for number, name in enumerate(before.families):
        if name in truth.families:
            said = truth.strength[:, truth.families.index(name)] > 0
            right |= said & (before.strength[:, number] > 0)
    looked = truth.main.is_not_null().to_numpy()
    return {"clips": int(looked.sum()), "wrong": int((looked & ~right).sum())}


def _noise(found: noise.Findings, settled: Mapping[str, int], compared: int) -> dict[str, Any]:
    """The noise rate and its bounds. What people checked is settled: it moves both bounds."""
    wrong = settled.get("wrong", 0)
    right = settled.get("clips", 0) - wrong
    low = max(found.low, wrong / compared)
    high = max(min(found.high, 1 - right / compared), low)
    rate = found.rate if found.rate is None else min(max(found.rate, low), high)
    return {
        "noise_rate": rate,
        "noise_low": low,
        "noise_high": high,
        "confident_rate": found.confident_rate,
    }


def _rows(both: _Both, found: _Found, space: Floats) -> list[dict[str, Any]]:
    """The rows of `audit.parquet`, the most doubtful label first; ties by margin, then by id."""
    findings, names = found.noise, found.families
    before, after, ids = both.before, both.after, both.clips["clip_id"].to_list()
    rivals = [names[number] for number in findings.rival]
    order = sorted(
        range(len(ids)),
        key=lambda i: (-findings.suspicion[i], -findings.margin[i], ids[i]),
    )
    top = order[: max(len(order) // 10, 1)] if findings.claims else []
    doubted = dict.fromkeys([*top, *np.flatnonzero(findings.suspect).tolist()])
    near = _neighbours(list(doubted)[:MOST_WITH_NEIGHBOURS], rivals, ids, before, space)
    old_shares = families.listed(before.families, before.shares)
    new_shares = families.listed(after.families, after.shares)
    expected = families.listed(names, findings.expected)
    light = both.clips.drop("measures", strict=False).to_dicts()
    mains = before.main.to_list(), after.main.to_list()
    rows = []
    for rank, i in enumerate(order, start=1):
        clip = light[i]
        rows.append(
            {
                "clip_id": clip["clip_id"],
                "rank": rank if findings.claims else None,
                "suspect": bool(findings.suspect[i]),
                "suspicion": float(findings.suspicion[i]) if findings.claims else None,
                "margin": float(findings.margin[i]),
                "disagree": bool(found.disagree[i]),
                "old_labels": [label["label"] for label in clip["labels"]],
                "old_family": mains[0][i],
                "old_families": old_shares[i],
                "new_labels": clip["new_labels"],
                "new_family": mains[1][i],
                "new_families": new_shares[i],
                "expected": expected[i],
                "confidence": clip["confidence"],
                "explanation": clip["explanation"] or "",
                "neighbours": near.get(i, []),
                "split": clip["split"],
                "speaker": clip["speaker"],
                "source_id": clip["source_id"],
            }
        )
    return rows


def _neighbours(
    doubted: Sequence[int],
    rivals: Sequence[str],
    ids: Sequence[str],
    before: Strengths,
    space: Floats,
) -> dict[int, list[dict[str, Any]]]:
    """For each doubted clip the nearest clips that carry the label its evidence expects."""
    carries = np.array(before.main.to_list(), dtype=object)
    found: dict[int, list[dict[str, Any]]] = {}
    for rival in dict.fromkeys(rivals[i] for i in doubted):
        mine = [i for i in doubted if rivals[i] == rival]
        others = np.flatnonzero(carries == rival).tolist()
        for i, near in zip(mine, likeness.nearest(space, mine, others, NEIGHBOURS), strict=True):
            found[i] = [
                {"clip_id": ids[place], "old_family": rival, "similarity": similarity}
                for place, similarity in near
            ]
    return found


def _space(run: str | None, compared: pl.DataFrame) -> tuple[Floats, str]:
    """Vectors that neighbours are looked up in, and what they are made of."""
    kept = embeddings.models(run) if run is not None and record.load(run) else []
    if not kept:
        return likeness.space(compared), likeness.BASIS
    vectors = embeddings.vectors(run or "", kept[0])
    aligned = compared.select("clip_id").join(
        vectors, on="clip_id", how="left", maintain_order="left"
    )
    return (
        likeness.learned([aligned["video"], aligned["audio"]]),
        f"kept embeddings of {kept[0]}: means over picture and sound, centred",
    )


def _scores(both: _Both, found: _Found, cluster: str | None) -> pl.DataFrame:
    """What agreement is added up from, a row per clip."""
    return (
        both.clips.select("speaker", "split")
        .with_columns(
            both.before.main.alias("old_family"),
            both.after.main.alias("new_family"),
            pl.Series("agree", ~found.disagree),
            pl.Series("suspect", found.noise.suspect),
            pl.lit(value=False).alias("empty"),
            stats.blocks(_clusters(both.clips, cluster)).alias(stats.BLOCK),
        )
        .with_columns(agree_main=pl.col("old_family") == pl.col("new_family"))
    )


def _agreement(scores: pl.DataFrame, resamples: int, seed: int) -> list[Aggregate]:
    """Agreement over all clips and per group: any family in common, and the main one."""
    columns = {name: f"audit.{name}" for name in ("agree", "agree_main", "suspect")}
    family = stats.means(list(columns.values()), "audit")
    by = [name for name in BY if scores[name].null_count() < len(scores)]
    named = scores.rename(columns)
    summed = stats.totals(named.lazy(), [family], by)
    return stats.aggregate(summed, [family], resamples=resamples, seed=seed)


def _kappa(one: pl.Series, other: pl.Series) -> float | None:
    """Cohen's kappa of the main families; null where chance alone would agree always."""
    n = len(one)
    agree = float((one == other).mean() or 0.0)  # type: ignore[arg-type]
    counts = [dict(side.value_counts().iter_rows()) for side in (one, other)]
    chance = sum(count * counts[1].get(name, 0) for name, count in counts[0].items()) / n**2
    return None if chance == 1 else (agree - chance) / (1 - chance)


def _sizes(strength: Floats) -> dict[str, int]:
    """How many clips speak for how many families: the ambiguity of each side."""
    sizes, counts = np.unique((strength > 0).sum(axis=1), return_counts=True)
    return {str(size): int(count) for size, count in zip(sizes, counts, strict=True)}


def _by_support(after: Strengths, agree: Bools) -> list[dict[str, Any]]:
    """Agreement in fifths of the strongest family's support: does the run know when it is sure?"""
    support = after.strength.max(axis=1)
    edges = np.unique(np.quantile(support, np.linspace(0, 1, _SUPPORT_BINS + 1)))
    places = np.clip(np.searchsorted(edges, support, side="right") - 1, 0, max(len(edges) - 2, 0))
    return [
        {
            "low": float(support[places == place].min()),
            "high": float(support[places == place].max()),
            "clips": int((places == place).sum()),
            "agree": float(agree[places == place].mean()),
        }
        for place in np.unique(places)
    ]


def _told(facts: Mapping[str, Any]) -> list[str]:
    lines = [
        f"{facts['compared']} of {facts['clips']} clips compared (left out: "
        f"{_reasons(facts['not_compared'])})",
        f"ground: {facts['ground']} (wheels {facts['wheels']})",
        f"no family in common: {facts['disagree']} clips; main families agree on "
        f"{facts['agree_main']:.1%}, kappa {_number(facts['kappa'])}",
        f"ambiguous: {facts['ambiguous']} clips whose evidence supports several families",
    ]
    if not facts["claims"]:
        return [
            *lines,
            "the evidence tells nothing about the old labels: no suspects, no noise rate",
        ]
    rate = facts["noise_rate"]
    lines.append(
        f"wrong old labels: between {facts['noise_low']:.1%} and {facts['noise_high']:.1%} (95 %); "
        + (
            f"{rate:.1%} if the evidence is right where it is surest"
            if rate is not None
            else "the evidence is too weak to name a rate"
        )
    )
    lines.append(
        f"suspects: {facts['suspects']}. A suspect is a question, not a verdict: the evidence may "
        "be what is wrong"
    )
    return lines


def _grouped(
    agreement: Sequence[Mapping[str, Any]], confusion: Sequence[Mapping[str, Any]]
) -> list[str]:
    """Agreement per family, speaker and split, the lowest first, as far as a person reads."""
    lines = []
    for by in BY:
        rows = [row for row in agreement if (row["by"], row["metric"]) == (by, "audit.agree_main")]
        rows.sort(key=lambda row: (row["value"], row["group"]))
        if rows:
            more = f", the lowest {MOST_GROUPS} of {len(rows)}" if len(rows) > MOST_GROUPS else ""
            lines.append(f"main families agree, by {by}{more}:")
        for row in rows[:MOST_GROUPS]:
            interval = "" if row["low"] is None else f" [{row['low']:.1%}, {row['high']:.1%}]"
            others = [
                cell
                for cell in confusion
                if by == "old_family" and cell["gold"] == row["group"] != cell["guess"]
            ]
            others.sort(key=lambda cell: -cell["clips"])
            read = ", ".join(f"{cell['guess']} {cell['clips']}" for cell in others[:3])
            lines.append(
                f"  {row['group'] or 'none':<24}{row['n']:>7} clips {row['value']:>7.1%}{interval}"
                + (f"  else {read}" if read else "")
            )
    return lines


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def _listed(rows: Sequence[Mapping[str, Any]], top: int) -> list[str]:
    lines = []
    for row in rows[:top]:
        if row["rank"] is None:
            break
        new = ", ".join(
            label["label"] + ("" if label["support"] is None else f" ({label['support']:.2f})")
            for label in row["new_labels"]
        )
        near = ", ".join(f"{n['clip_id']} {n['similarity']:.2f}" for n in row["neighbours"])
        best = row["expected"][0]
        lines += [
            f"{row['rank']:>5}. {row['clip_id']}: was {', '.join(row['old_labels'])}; evidence "
            f"says {new or 'no clear emotion'} (expects {best['family']} {best['share']:.0%}, "
            f"margin {row['margin']:.2f}{', suspect' if row['suspect'] else ''})"
        ]
        if row["explanation"]:
            lines.append(f"       {sides.short(row['explanation'])}")
        if near:
            lines.append(f"       like {near}, labelled {row['neighbours'][0]['old_family']}")
    return lines
