"""How well `emer audit` finds planted label errors, and whether its bounds hold (docs/audit.md).

    python -m benchmarks.audit_planted [DRAWS]

Each draw is a corpus of 2,000 clips with a tenth of its old labels flipped: 4 to 8 families, even
or uneven, flips that are uniform, to one partner or uneven, and one of four kinds of support.
"""

import sys
from typing import Any

import numpy as np
import polars as pl

from emer_ray.metrics import noise, stats
from tests import planted
from tests.planted import Evidence, Planted, average_precision

EVIDENCE: tuple[Evidence, ...] = ("clean", "rows", "partner", "uniform", "chance")


def kind(draw: int, evidence: Evidence) -> dict[str, Any]:
    """What a corpus is like; at chance only support that tells nothing, for the other kinds do."""
    rng = np.random.default_rng(10_000 + draw)
    chosen = {
        "classes": int(rng.integers(4, 9)),
        "flips": str(rng.choice(["uniform", "pair", "uneven"])),
        "support": str(rng.choice(["none", "informative", "empty", "several"])),
        "even": bool(rng.integers(2)),
    }
    if evidence == "chance":
        chosen["support"] = ("none", "empty")[draw % 2]
    return chosen


def judged(corpus: Planted) -> noise.Findings:
    """The audit's findings, without its families and files."""
    clips = np.arange(len(corpus.old))
    return noise.findings(
        np.eye(corpus.strength.shape[1])[corpus.old],
        corpus.old,
        noise.features(corpus.strength, corpus.guess),
        corpus.strength[clips, corpus.old] <= 0,
        stats.blocks(pl.Series(corpus.clip_ids())),
        resamples=200,
    )


def row(draw: int, evidence: Evidence) -> dict[str, Any]:
    """One draw's figures."""
    given = kind(draw, evidence)
    corpus = planted.corpus(draw, evidence=evidence, **given)
    found = judged(corpus)
    plain = average_precision((corpus.guess != corpus.old).astype(float), corpus.wrong)
    ours = average_precision(found.suspicion, corpus.wrong)
    top = np.argsort(-found.suspicion, kind="stable")[: len(corpus.old) // 10]
    return {
        **given,
        "claims": found.claims,
        "covered": found.low <= corpus.wrong.mean() <= found.high,
        "high": found.high,
        "ap": ours,
        "ap_plain": plain,
        "better": ours > plain,
        "top_tenth": corpus.wrong[top].sum() / corpus.wrong.sum(),
        "rate": found.rate,
    }


def main(draws: int) -> None:
    """Print a line per kind of evidence, then where the ranking loses, and the rate by support."""
    for evidence in EVIDENCE:
        rows = pl.DataFrame(
            [row(draw, evidence) for draw in range(draws)], infer_schema_length=None
        )
        means = rows.select(pl.mean("claims", "covered", "high", "ap", "ap_plain", "better"))
        print(evidence, {name: round(value, 3) for name, value in means.row(0, named=True).items()})
        print("  top tenth", round(float(rows["top_tenth"].mean()), 3), rows["top_tenth"].min())
        print("  better by flips", dict(rows.group_by("flips").agg(pl.mean("better")).rows()))
        rates = rows.group_by("support").agg(pl.mean("rate")).sort("support").rows()
        known = rows["rate"].cast(pl.Float64)  # all null at chance
        print("  rate", known.mean(), known.quantile(0.05), known.quantile(0.95))
        print("  rate by support", dict(rates), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
