"""The sections of the page above the cards: what was run, how it ended, what the labels are.

Each function takes a run and returns plain data for the template: facts as (name, value) pairs,
plots, and tables. Rows are counted; every other figure is copied from where a command stored it.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any, Final

import polars as pl

from emer_ray import cost
from emer_ray.errors import FAILURE_KINDS
from emer_ray.metrics.lexicon import THEORIES
from emer_ray.records import is_gated
from emer_ray.report import gather, plots

Facts = list[tuple[str, str]]

POOL_COST: Final = ("actors", "busy_s", "idle_s", "busy_share", "clips_per_s_per_actor")
MOST_WORDS: Final = 20
MOST_PAIRED: Final = 10
MOST_GROUPS: Final = 12
GROUPED: Final[Mapping[str, str]] = {
    "split": "split",
    "corpus": "corpus",
    "speaker": "speaker",
    "label_onehot": "old label",
}
"""Columns of the manifest that labels are broken down by."""


def what_was_run(run: gather.Run, provenance: Mapping[str, Any] | None) -> dict[str, Any]:
    """Name recipe, models, media settings, versions, fingerprint, inputs and licences."""
    record = run.record
    config = record["config"]
    chosen = {key: value for key, value in config["input"].items() if value not in (None, False)}
    licences = gather.counted(run.clips["licence_tag"].fill_null("unknown"))
    used = [] if provenance is None else provenance["models"]
    return {
        "recipe": [
            ("recipe", config["recipe"]),
            ("language", config["language"]),
            ("modalities", ", ".join(config["modalities"])),
            *((f"samples of {step}", str(k)) for step, k in config["samples"].items()),
            *((f"input.{key}", str(value)) for key, value in chosen.items()),
            ("run", run.uri),
            ("fingerprint", record["fingerprint"]),
            *((("accepted", ", ".join(record["accepted"])),) if record["accepted"] else ()),
        ],
        "models": [
            (m["step"], m["backend"], m["model"] or "—", m["revision"] or "—", m["prompt_hash"])
            for m in used
        ],
        "settings": [
            (name, _settings(settings)) for name, settings in config["models"].items() if settings
        ],
        "media": [(key, str(value)) for key, value in config["media"].items() if value is not None],
        "versions": list(record["versions"].items()),
        "licences": licences,
        "gated": sum(n for tag, n in licences if is_gated(tag)),
        "starts": [_start(start) for start in record["starts"]],
    }


def _settings(settings: Mapping[str, Any]) -> str:
    said = {key: value for key, value in settings.items() if value not in (None, "", {}, False)}
    return ", ".join(f"{key} = {value}" for key, value in said.items())


def _start(start: Mapping[str, Any]) -> dict[str, Any]:
    cluster = start.get("cluster") or {}
    return {
        "at": start["at"],
        "host": start["host"],
        "cluster": ", ".join(f"{key} {value}" for key, value in cluster.items()),
        "seconds": start.get("seconds"),
        "skipped": start["skipped"],
        "shards": start["shards"],
        "choices": [
            (key, str(choice["value"]), choice["why"]) for key, choice in start["choices"].items()
        ],
    }


def foretold(starts: Sequence[Mapping[str, Any]]) -> list[tuple[Any, ...]]:
    """List what `emer plan` predicted, of the newest start that it spoke of: figure, predicted,
    measured, error.
    """
    *_, plan = [{}, *(start["plan"] for start in starts if start.get("plan"))]
    figures = {name: value for name, value in plan.items() if isinstance(value, Mapping)}
    by_pool = figures.pop("pools", {})
    figures |= {
        f"{pool}: {name}": value for pool, its in by_pool.items() for name, value in its.items()
    }
    return [
        (name, value["predicted"], value["measured"], value["error"])
        for name, value in figures.items()
    ]


def outcome(run: gather.Run) -> dict[str, Any]:
    """Count how clips ended, and copy time, answers and cost."""
    clips, record = run.clips, run.record
    counts = dict(gather.counted(clips["outcome"]))
    failed = clips.filter(pl.col("outcome") == "failed")
    kinds = failed.group_by("stage", "kind").len().sort("len", "stage", "kind", descending=True)
    failures = [(stage, kind, FAILURE_KINDS[kind], n) for stage, kind, n in kinds.iter_rows()]
    ok = run.ok
    seconds = sum(start.get("seconds") or 0.0 for start in record["starts"])
    return {
        "clips": clips.height,
        "counts": {name: counts.get(name, 0) for name in ("ok", "failed", "pending")},
        "failures": failures,
        "plot": plots.bars(
            "Failures by stage and kind",
            [(f"{stage}: {kind}", n) for stage, kind, _, n in failures],
            n=failed.height,
            unit="failed clips",
            what="stage: kind",
        )
        if failures
        else None,
        "media": [
            ("with picture", ok["has_video"].sum()),
            ("with sound", ok["has_audio"].sum()),
            ("shorter than declared", ok["short"].sum()),
        ],
        "answers": list(run.answers.iter_rows(named=True)),
        "foretold": foretold(record["starts"]),
        "seconds": seconds,
        "clips_per_s": (clips.height - counts.get("pending", 0)) / seconds if seconds else None,
        "usd": record.get("usd"),
        "usd_per_1000": None
        if record.get("usd") is None or not ok.height
        else 1000 * record["usd"] / ok.height,
    }


def spent(run: gather.Run) -> dict[str, Any] | None:
    """Copy what the run cost, in all and per thousand clips, and how busy its pools were."""
    found = run.record.get("cost")
    if found is None:
        return None
    pools = [start["cost"]["pools"] for start in run.record["starts"] if "cost" in start]
    return {
        "clips": found["clips"],
        "sums": cost.shown(found),
        "pools": [(name, *(pool[key] for key in POOL_COST)) for name, pool in pools[-1].items()],
    }


def labels(run: gather.Run) -> dict[str, list[plots.Plot]]:
    """Plot words and families, how many of them a clip has, and what goes together."""
    ok, n = run.ok, run.ok.height
    if not n:
        return {"words": [], "wheels": [], "spread": [], "groups": []}
    words = ok.select("clip_id", pl.col("words").alias("word")).explode("word").drop_nulls()
    wheels = [_families(words, wheel, n) for wheel in range(1, len(THEORIES) + 1)]
    first = _with_family(words, 1)
    return {
        "words": [
            plots.bars(
                "Most frequent words",
                gather.counted(words["word"], MOST_WORDS),
                n=n,
                unit="clips",
                what="label",
                says=f"{words['word'].n_unique():,} different words in all.",
            ),
            *_together(words, n),
        ],
        "wheels": wheels,
        "spread": list(_spread(ok, first, n)),
        "groups": list(_groups(ok, first)),
    }


def _with_family(words: pl.DataFrame, wheel: int) -> pl.DataFrame:
    known = gather.families(wheel)
    distinct = words["word"].unique()
    mapped = pl.DataFrame(
        {"word": distinct, "family": [gather.family_of(word, known) for word in distinct]},
        schema={"word": pl.String, "family": pl.String},
    )
    return words.join(mapped, on="word").select("clip_id", "family").unique()


def _families(words: pl.DataFrame, wheel: int, n: int) -> plots.Plot:
    return plots.bars(
        f"W{wheel} · {THEORIES[wheel - 1].capitalize()}",
        gather.counted(_with_family(words, wheel)["family"]),
        n=n,
        unit="clips",
        what="family",
        width=170,
    )


def _together(words: pl.DataFrame, n: int) -> Iterator[plots.Plot]:
    top = [word for word, _ in gather.counted(words["word"], MOST_PAIRED)]
    if len(top) < 2:
        return
    sets = words.filter(pl.col("word").is_in(top)).group_by("clip_id").agg("word")["word"]
    pairs: dict[tuple[str, str], int] = {}
    for found in sets:
        for pair in combinations(sorted(set(found), key=top.index), 2):
            pairs[pair] = pairs.get(pair, 0) + 1
    most = max(pairs.values(), default=1)
    cells = [
        (b, a, pairs.get((a, b), 0), pairs.get((a, b), 0) / most)
        for i, a in enumerate(top)
        for b in top[i + 1 :]
    ]
    yield plots.heat(
        "Words that go together",
        cells,
        rows=top[1:],
        columns=top[:-1],
        n=n,
        unit="clips",
        what=("label", "with"),
        says="Clips that carry both words, of the most frequent ones.",
    )


def _spread(ok: pl.DataFrame, families: pl.DataFrame, n: int) -> Iterator[plots.Plot]:
    sizes = ok["words"].list.len()
    yield plots.columns(
        "Labels per clip",
        _bins(sizes, 7),
        n=n,
        unit="clips",
        what="labels",
        says="None means: no clear emotion, which is an answer.",
    )
    per_clip = ok.select("clip_id").join(
        families.filter(pl.col("family") != gather.NO_FAMILY).group_by("clip_id").len("families"),
        on="clip_id",
        how="left",
    )["families"]
    yield plots.columns(
        "Families per clip (ambiguity)",
        _bins(per_clip.fill_null(0), 5),
        n=n,
        unit="clips",
        what="families of W1",
        says="More than one: the evidence points in several directions.",
    )
    for title, values, unit, says in (
        ("Support of labels", ok["supports"].explode(), "labels", "Share of the evidence or of "
         "sampled answers behind a label."),
        ("Confidence", ok["confidence"], "clips", "As the backend states it; not calibrated."),
    ):  # fmt: skip
        known = values.drop_nulls()
        if len(known):
            tenths = (known * 10).floor().clip(0, 9).cast(pl.Int64)
            counts = dict(gather.counted(tenths))
            yield plots.columns(
                title,
                [(f"{k / 10:.1f}", counts.get(str(k), 0)) for k in range(10)],
                n=len(known),
                unit=unit,
                what="from",
                says=says,
            )


def _bins(values: pl.Series, most: int) -> list[tuple[str, int]]:
    counts = dict(gather.counted(values))
    last = sum(n for value, n in counts.items() if int(value) >= most)
    bins = [(str(k), counts.get(str(k), 0)) for k in range(most)]
    return [*bins, (f"{most}+", last)] if last else bins


def _groups(ok: pl.DataFrame, families: pl.DataFrame) -> Iterator[plots.Plot]:
    """Families within each value of a column; the shade is the share of the group's clips."""
    order = [family for family, _ in gather.counted(families["family"])]
    for column, name in GROUPED.items():
        sizes = gather.counted(ok[column], MOST_GROUPS)
        if not sizes or (len(sizes) < 2 and column != "label_onehot"):
            continue
        placed = (
            ok.select("clip_id", group=pl.col(column)).drop_nulls().join(families, on="clip_id")
        )
        counts = {(g, f): n for g, f, n in placed.group_by("group", "family").len().iter_rows()}
        cells = [
            (f"{group} ({size:,})", family, counts.get((group, family), 0),
             counts.get((group, family), 0) / size)
            for group, size in sizes
            for family in order
        ]  # fmt: skip
        left = ok[column].n_unique() - ok[column].is_null().any() - len(sizes)
        yield plots.heat(
            f"By {name}",
            cells,
            rows=[f"{group} ({size:,})" for group, size in sizes],
            columns=order,
            n=sum(size for _, size in sizes),
            unit="clips",
            what=(f"{name} (clips)", "family of W1"),
            says="Clips with a label of the family; the shade is their share of the row."
            + (f" {left:,} smaller groups are left out." if left > 0 else ""),
        )


def metrics(run: gather.Run) -> dict[str, Any] | None:
    """Show `metrics.parquet` as `emer evaluate --out` left it."""
    table = run.table("metrics.parquet")
    if table is None:
        return None
    whole = table.filter((pl.col("by") == "") & pl.col("value").is_not_null())
    bounded = whole.filter(pl.col("value").is_between(0, 1))
    shown = [
        (row["metric"], row["value"], row["low"], row["high"], row["n_scored"])
        for row in bounded.iter_rows(named=True)
        if not row["metric"].endswith((".p", ".r"))
    ]
    n = max((row[4] for row in shown), default=0)
    groups = table.filter(pl.col("by") != "").sort("by", "group", "metric")
    return {
        "plot": plots.intervals(
            "Metrics with their 95 % intervals",
            shown[:MOST_SHOWN],
            n=n,
            unit="clips scored",
            says="Bootstrap over clusters of clips that are not independent.",
        )
        if shown
        else None,
        "rows": table.filter(pl.col("by") == "").rows(named=True),
        "groups": groups.head(MOST_ROWS).rows(named=True),
        "n_groups": groups.height,
    }


MOST_SHOWN: Final = 24
"""Metrics drawn; the table has all."""
MOST_ROWS: Final = 500
"""Rows of a breakdown; by speaker there can be tens of thousands."""

MOST_LISTED: Final = 50
"""Suspects, or changed clips, that are listed."""


def audit(table: pl.DataFrame, said: Mapping[str, Any]) -> dict[str, Any]:
    """Show `audit.parquet` and `audit.json` as `emer audit` left them."""
    filled = table.with_columns(pl.col("new_family").fill_null(gather.NO_FAMILY))
    pairs = filled.group_by("old_family", "new_family").len()
    counts = {(a, b): k for a, b, k in pairs.iter_rows()}
    old, new = gather.counted(filled["old_family"]), gather.counted(filled["new_family"])
    sizes = dict(old)
    columns = [name for name in sizes if name in dict(new)]
    columns += [name for name, _ in new if name not in sizes]
    ranked = table.filter(pl.col("rank").is_not_null()).sort("rank")
    agreement = [row for row in said["agreement"] if row["value"] is not None]
    return {
        "facts": [
            ("old labels", said["labels"]),
            ("compared on", said["ground"]),
            ("clips compared", f"{said['compared']:,} of {said['clips']:,}"),
            *(
                (f"not compared: {why.replace('_', ' ')}", f"{n:,}")
                for why, n in said["not_compared"].items()
            ),
            ("disagree: no family in common", f"{said['disagree']:,}"),
            ("suspects", f"{said['suspects']:,}"),
            ("noise rate of the old labels", _noise(said)),
            *(
                (_AGREEMENT.get(row["metric"], row["metric"]), _bounded(row))
                for row in agreement
                if row["by"] == ""
            ),
            ("Cohen's kappa", "—" if said["kappa"] is None else f"{said['kappa']:.3f}"),
            ("clips whose labels are of several families", f"{said['ambiguous']:,}"),
        ],
        "claims": said["claims"],
        "groups": [row for row in agreement if row["by"]][:MOST_ROWS],
        "n_groups": sum(1 for row in agreement if row["by"]),
        "plot": plots.heat(
            "Old labels against the run's",
            [
                (f"{a} ({size:,})", b, counts.get((a, b), 0), counts.get((a, b), 0) / size)
                for a, size in old
                for b in columns
            ],
            rows=[f"{a} ({size:,})" for a, size in old],
            columns=columns,
            n=table.height,
            unit="clips",
            what=("family of the old label (clips)", "largest family of the run's labels"),
            says="Rows: family of the old label; columns: largest family of the run's labels; the "
            "shade is the share of the row.",
        ),
        "suspects": ranked.head(MOST_LISTED).rows(named=True),
        "ranked": ranked.height,
    }


_AGREEMENT: Final = {
    "audit.agree": "agree: a family in common",
    "audit.agree_main": "agree on the largest family",
    "audit.suspect": "share of suspects",
}


def _noise(said: Mapping[str, Any]) -> str:
    low, high = said["noise_low"], said["noise_high"]
    bounds = "—" if low is None or high is None else f"between {low:.3f} and {high:.3f}"
    return bounds if said["noise_rate"] is None else f"{said['noise_rate']:.3f}, {bounds}"


def _bounded(row: Mapping[str, Any]) -> str:
    value = f"{row['value']:.3f}"
    return value if row["low"] is None else f"{value} [{row['low']:.3f}, {row['high']:.3f}]"


def compare(table: pl.DataFrame, said: Mapping[str, Any]) -> dict[str, Any]:
    """Show `comparison.parquet` and `comparison.json` as `emer compare` left them."""
    metrics = [{"metric": name, **each} for name, each in said["metrics"].items()]
    shifts = [
        (each["metric"], each["difference"], each["low"], each["high"], each["n"])
        for each in said["families"]
        if each["difference"] is not None
    ]
    a, b = said["labels_per_clip"]
    return {
        "a": said["a"],
        "b": said["b"],
        "facts": [
            ("a", said["a"]),
            ("b", said["b"]),
            ("clips on both sides", f"{said['clips']:,}"),
            ("only in a, only in b", f"{said['only_a']:,}, {said['only_b']:,}"),
            ("changed: no family in common", f"{said['changed']:,}"),
            ("mean change, 0 to 1", f"{said['change']:.3f}"),
            ("labels per clip, a and b", f"{a:.2f}, {b:.2f}"),
            ("compared on", said["ground"]),
        ],
        "plot": plots.intervals(
            "Families that b names more often, or less",
            shifts,
            n=said["clips"],
            unit="clips",
            says="Share of clips that name the family, b less a, with its paired 95 % interval.",
        )
        if shifts
        else None,
        "words": [(word["label"], word["a"], word["b"]) for word in said["words"]],
        "differences": [*said["families"], *metrics],
        "clips": table.filter(pl.col("change") > 0).sort("rank").head(MOST_LISTED).rows(named=True),
        "moved": table.filter(pl.col("change") > 0).height,
    }


def suspects(table: pl.DataFrame | None) -> Sequence[tuple[str, str]]:
    """Name the audit's suspects, the worst first, each with its reason."""
    if table is None:
        return []
    found = table.filter(pl.col("suspect")).sort("rank", nulls_last=True)
    return [
        (clip_id, f"suspect {rank} of the audit: old label {', '.join(old)}, evidence for {new}")
        for clip_id, rank, old, new in found.select(
            "clip_id", "rank", "old_labels", "new_family"
        ).iter_rows()
    ]
