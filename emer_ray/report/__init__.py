"""One self-contained HTML page of a run, to be opened, browsed and doubted.

    emer report runs/first -o report.html

Made from the run directory alone; the media that its manifest names are opened for key frames,
waveform and sound of the sampled clips, unless their licence is gated or unknown. The page renders
and never computes: figures are those of `run.json`, `metrics.parquet` and `audit.parquet`, rows are
only counted.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from emer_ray import __version__, evaluate, storage
from emer_ray.compare import compare
from emer_ray.config import MediaConfig
from emer_ray.errors import ClipError, ConfigError, RunDirError
from emer_ray.records import is_gated

try:
    from emer_ray.report import cards, gather, look, page, sample, sections
except ModuleNotFoundError as missing:
    raise ConfigError(
        f"report: {missing.name} is not installed; pip install 'emer-ray[report]'"
    ) from None

CARDS = 48
"""Clips with a card, unless said otherwise."""
MOST_RAW = 20_000
"""Characters of a raw answer in the page; a model that repeats itself can fill megabytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What is said on the command line."""

    out: str | None = None
    """The file, local or s3://; null = `report.html` in the run directory."""
    compare: str | None = None
    """Another run, or a table of labels: what changed is shown too."""
    cards: int = CARDS
    clips: Sequence[str] = ()
    """Clips that get a card in any case."""
    seed: int = 0
    embed_media: bool = False
    """Embed pictures and sound of gated and unknown licences too."""


def report(run: str, options: Options | None = None) -> dict[str, Any]:
    """Write the page of a run; returns `run report clips cards withheld unreadable mb seconds`."""
    options = options or Options()
    started = time.monotonic()
    found = gather.read(run)
    if options.compare is not None:
        _compare(found, options.compare)
    audited, audit = found.table("audit.parquet"), found.said("audit.json")
    compared, comparison = found.table("comparison.parquet"), found.said("comparison.json")
    made = _cards(found, audited, options)
    values = {
        "version": __version__,
        "made_at": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "run": found,
        "what": sections.what_was_run(found, _provenance(made)),
        "outcome": sections.outcome(found),
        "spent": sections.spent(found),
        "labels": sections.labels(found),
        "metrics": sections.metrics(found),
        "audit": None if audited is None or audit is None else sections.audit(audited, audit),
        "compared": None
        if compared is None or comparison is None
        else sections.compare(compared, comparison),
        "cards": made,
        "card_of": {card.drawn.clip_id: card.number for card in made},
        "choices": _choices(made),
        "strata": sample.STRATA,
        "senses": cards.SENSES,
        "most_raw": MOST_RAW,
        "seed": options.seed,
        "embed_media": options.embed_media,
    }
    content = page.render(values).encode()
    uri = options.out or storage.join(run, "report.html")
    storage.write(uri, content)
    return {
        "run": run,
        "report": uri,
        "clips": found.clips.height,
        "cards": len(made),
        "withheld": sum(card.withheld for card in made),
        "unreadable": sum(bool(card.no_media) for card in made),
        "mb": round(len(content) / 1e6, 3),
        "seconds": round(time.monotonic() - started, 3),
    }


def _compare(found: gather.Run, other: str) -> None:
    """Have the comparison in the run directory be one with `other`; one that is there is kept."""
    said = found.said("comparison.json")
    if said is None or said["b"].rstrip("/") != other.rstrip("/"):
        compare(found.uri, other, evaluate.options())


def _cards(found: gather.Run, audited: pl.DataFrame | None, options: Options) -> list[cards.Card]:
    """Draw clips, look at their media, and put their cards together.

    Media of a gated or unknown licence are left alone unless asked for; what failed to decode is
    not tried again.
    """
    known = set(found.clips["clip_id"])
    if unknown := [clip_id for clip_id in options.clips if clip_id not in known]:
        raise RunDirError(f"{found.uri}: no clip {unknown[0]!r} in its manifest; see --clip")
    drawn = sample.draw(
        found,
        options.cards,
        seed=options.seed,
        chosen=options.clips,
        suspects=sections.suspects(audited),
    )
    names = [one.clip_id for one in drawn]
    chosen = found.clips.filter(pl.col("clip_id").is_in(names)).to_dicts()
    listed = {row["clip_id"]: row for row in chosen}
    rows = gather.full_rows(found, names)
    tried = [name for name in names if listed[name]["stage"] != "decode"]
    withheld = {name for name in tried if is_gated(listed[name]["licence_tag"])}
    if options.embed_media:
        withheld.clear()
    open_ = [name for name in tried if name not in withheld]
    wishes = [cards.wish(rows.get(name), listed[name]) for name in open_]
    settings = MediaConfig.model_validate(found.record["config"]["media"])
    seen: dict[str, look.Look | ClipError] = dict(
        zip(open_, look.look(wishes, settings), strict=True)
    )
    families = gather.families(1)
    return [
        cards.card(
            number,
            one,
            listed[one.clip_id],
            rows.get(one.clip_id),
            seen.get(one.clip_id),
            families,
            withheld=one.clip_id in withheld,
        )
        for number, one in enumerate(drawn, start=1)
    ]


def _choices(made: Sequence[cards.Card]) -> list[tuple[str, str, list[str]]]:
    """What cards can be filtered by, beside why they are there: attribute, title, values."""
    values = {
        ("families", "Family"): [name for card in made for name in card.families],
        ("old", "Old label"): [word for card in made for word in card.old],
        ("split", "Split"): [card.manifest["split"] for card in made],
        ("kind", "Failed as"): [card.manifest["kind"] for card in made],
    }
    return [(name, title, sorted({v for v in all_ if v})) for (name, title), all_ in values.items()]


def _provenance(made: Sequence[cards.Card]) -> dict[str, Any] | None:
    """Take what the rows say of their making from the first card that is ok."""
    rows = [card.row for card in made if card.row is not None and "provenance" in card.row]
    return rows[0]["provenance"] if rows else None
