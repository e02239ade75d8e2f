"""README.md of an export: what this is, where it comes from, figures, limits, licence.

Words that came from clips, models or corpora are escaped: a label cannot become a link or a script.
Figures are those of `metrics.parquet`, to the last digit, and none is computed here.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from emer_ray.inert import markdown
from emer_ray.release.files import Format, split_name
from emer_ray.release.rows import GATED, Row

HUB_LICENCES: Final = frozenset(
    {
        *("apache-2.0", "mit", "cc0-1.0", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0"),
        *("cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc-by-nc-nd-4.0", "odbl", "pddl", "unlicense"),
    }
)
"""Names of licences that are the same as SPDX ids in small letters and on the hub."""

SIZES: Final = (
    *((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M")),
    (10_000_000, "1M<n<10M"),
)

WORDS: Final = 20

COMPOSITE: Final = "whose picture and sound were put together for a demonstration"


@dataclass(kw_only=True)
class Tally:
    """What is counted while rows pass."""

    clips: int = 0
    splits: Counter[str] = field(default_factory=Counter)
    corpora: Counter[str] = field(default_factory=Counter)
    licences: Counter[str | None] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    unlabelled: int = 0
    composites: int = 0

    def add(self, row: Row) -> None:
        """Count a row."""
        self.clips += 1
        self.splits[split_name(row["split"])] += 1
        if row["corpus"]:
            self.corpora[row["corpus"]] += 1
        self.licences[row["licence_tag"]] += 1
        self.labels.update(row["labels"])
        self.unlabelled += not row["labels"]
        self.composites += bool(row["composite"])


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What a card says beside its figures."""

    format: Format
    record: Mapping[str, Any]
    """The run's `run.json`."""
    provenance: Mapping[str, Any]
    """Recipe and models of the run."""
    failed: Mapping[str, int]
    """Failure kind -> clips, which are not in the export."""
    left_out: Mapping[str, int]
    """Reason -> clips that are ok and not in the export either."""
    metrics: Sequence[Mapping[str, Any]] | None
    """Rows of `metrics.parquet` over all clips; null = nobody evaluated the run."""


def card(tally: Tally, about: About) -> str:
    """Write the card."""
    corpora = ", ".join(tally.corpora) or "a corpus without a name"
    parts = [
        _front_matter(tally, about),
        f"# Explanations and emotion labels for {markdown(corpora)}",
        f"{tally.clips} clips, explained by emer_ray {about.record['emer_ray']}: clues seen, heard "
        "and said, why they point to an emotional state, and open-vocabulary emotion labels. Rows "
        "are keyed by the corpus's own clip ids. **No media are included**, and no labels of the "
        "corpus: join them by `clip_id`.",
        "## Files",
        _files(about.format),
        "## Where this comes from",
        _provenance(about),
        "## Figures",
        _counts(tally, about),
        _metrics(about.metrics),
        "## Limits",
        _limits(about),
        "## Licence",
        _licence(tally, about),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(tally: Tally, about: About) -> str:
    """YAML, of which JSON is a part: every value is written as JSON."""
    config = about.record["config"]
    licence, name = _hub_licence(tally)
    found: dict[str, Any] = {
        "pretty_name": f"emer_ray explanations: {', '.join(tally.corpora) or 'unnamed corpus'}",
        "license": licence,
        **({"license_name": name} if name else {}),
        "language": [config["language"]],
        "tags": ["emotion-recognition", "explainable", "open-vocabulary", "multimodal"],
        "size_categories": [next((s for n, s in SIZES if tally.clips < n), "n>10M")],
    }
    if about.format == "hf":
        files = [{"split": s, "path": f"data/{s}-*.parquet"} for s in sorted(tally.splits)]
        found["configs"] = [{"config_name": "default", "data_files": files}]
    lines = (f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in found.items())
    return "\n".join(["---", *lines, "---"])


def _hub_licence(tally: Tally) -> tuple[str, str | None]:
    tags = set(tally.licences)
    if len(tags) == 1 and (tag := next(iter(tags))) and tag.lower() in HUB_LICENCES:
        return tag.lower(), None
    if tags - {None}:
        return "other", ", ".join(sorted(tag for tag in tags if tag))
    return "unknown", None


def _files(form: Format) -> str:
    match form:
        case "hf":
            return (
                "`data/SPLIT-*.parquet`. `datasets.load_dataset(FOLDER)` reads them, offline too. "
                "Clips without a split are in `train`; other signs than letters, digits and _ in "
                "the name of a split became _."
            )
        case "csv":
            return (
                "`explanations.csv`, UTF-8 with BOM, lists as JSON. A cell that a spreadsheet "
                "program would take for a formula has an apostrophe in front."
            )
        case "jsonl":
            return "`explanations.jsonl`, one clip a line."
        case "mer":
            return (
                "The tables of the MER challenges: `openset.csv` (name, openset), `openset.npz` "
                "(filenames, fileitems; strings, no pickle), `reason.csv` (name, reason), and "
                "`disdim.csv` (name, discrete, valence) where the recipe asked for them. Quotes, "
                "commas and brackets inside a label became spaces, because the challenges' parser "
                "separates there."
            )
        case "llama-factory":
            return (
                "`dataset_info.json` and `emer.json` for LLaMA-Factory (sharegpt, dataset `emer`). "
                "Media are named by URI: it must be able to open them where it runs."
            )


def _provenance(about: About) -> str:
    record, used = about.record, about.provenance
    starts = [start["at"] for start in record.get("starts", ()) if "at" in start]
    lines = [
        "| | |",
        "|---|---|",
        f"| run | fingerprint `{record['fingerprint']}`"
        + (f", last started {markdown(starts[-1])}" if starts else "")
        + " |",
        f"| recipe | {markdown(used['recipe'])}, language {record['config']['language']} |",
    ]
    for model in used["models"]:
        revision = f", revision {markdown(model['revision'])}" if model["revision"] else ""
        lines.append(
            f"| step {markdown(model['step'])} | {markdown(model['model'])} "
            f"({markdown(model['backend'])} backend){revision}, prompt "
            f"`{model['prompt_hash'][:12]}` |"
        )
    media = record["config"]["media"]
    lines.append(
        f"| media | {media['frames']} frames ({media['sampling']}), size {media['size_px']} px "
        f"({media['resize']}), sound 16 kHz mono |"
    )
    versions = ", ".join(f"{markdown(k)} {markdown(str(v))}" for k, v in record["versions"].items())
    lines.append(f"| versions | {versions} |")
    return "\n".join(lines)


def _counts(tally: Tally, about: About) -> str:
    words = ", ".join(f"{markdown(word)} {n}" for word, n in tally.labels.most_common(WORDS))
    per_clip = tally.labels.total() / tally.clips if tally.clips else 0.0
    splits = ", ".join(f"{split} {n}" for split, n in sorted(tally.splits.items()))
    failed = ", ".join(f"{kind} {n}" for kind, n in sorted(about.failed.items())) or "none"
    left = ", ".join(f"{why} {n}" for why, n in sorted(about.left_out.items())) or "none"
    return "\n".join(
        [
            f"- clips: {tally.clips} ({splits})",
            f"- failed in the run and not here, by kind: {failed}",
            f"- explained and not here, by reason: {left}",
            f"- labels: {tally.labels.total()}, {per_clip:.2f} a clip, {len(tally.labels)} "
            f"different words; {tally.unlabelled} clips have none, which means: no clear emotion",
            f"- most frequent: {words or 'none'}",
            *([f"- composites: {tally.composites} clips, {COMPOSITE}"] if tally.composites else []),
        ]
    )


def _metrics(metrics: Sequence[Mapping[str, Any]] | None) -> str:
    if metrics is None:
        return (
            "Nobody compared these labels with human ones: there is no `metrics.parquet` in the "
            "run. `emer evaluate RUN --reference GOLD --out RUN` makes it."
        )
    lines = [
        "Against human references, from the run's `metrics.parquet` (formulas: docs/metrics.md of "
        "emer_ray; intervals: bootstrap, 95 %):",
        "",
        "| metric | value | low | high | scored | of | version |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in metrics:
        cells = [_number(row[name]) for name in ("value", "low", "high")]
        lines.append(
            f"| `{row['metric']}` | {' | '.join(cells)} | {row['n_scored']} | {row['n']} | "
            f"{markdown(row['version'])} |"
        )
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "undefined" if value is None else repr(value)


def _limits(about: About) -> str:
    backends = {model["backend"] for model in about.provenance["models"]}
    lines = [
        "- A label is a reading of what can be seen, heard and said in one clip. It is not what a "
        "person feels, no diagnosis, and no ground for a decision about anybody.",
        "- Explanations were written by machines. They can state clues that are not there."
        if backends - {"replay"}
        else "- Explanations are stored answers, by models or people: see the steps above.",
        "- Cultures and people show emotion differently; models carry the bias of their training.",
    ]
    if "embedded" in backends:
        lines.append(
            "- The embedded models are a baseline of small classifiers and signal processing. Do "
            "not compare them with multimodal language models."
        )
    if "fake" in backends:
        lines.append("- **The fake backend answers from the clip id alone: nothing here is real.**")
    return "\n".join(lines)


def _licence(tally: Tally, about: About) -> str:
    tags = [
        f"- {'unknown' if tag is None else markdown(tag)}: {n} clips"
        for tag, n in tally.licences.most_common()
    ]
    told = ["Labels and explanations were made from media under these licences:", "", *tags, ""]
    if any(tag and tag.startswith(GATED) for tag in tally.licences):
        told.append(
            "**Gated** means: under an agreement with the corpus's owner, which may forbid to pass "
            "on these files. Whoever exported them said to have the right (--i-have-the-right)."
        )
    if None in tally.licences:
        told.append("Unknown means: nobody said. Find out before you pass these files on.")
    return "\n".join(told).rstrip()
