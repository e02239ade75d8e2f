"""`emer export`: a relabeled corpus as files that others read, keyed by the corpus's own ids.

    emer export runs/first --format hf -o exports/first

`--format` is one of hf, csv, jsonl, mer, llama-factory; DEST is a folder, local or s3://, that is
still empty. Beside the data lies README.md, a dataset card with provenance, figures, limits and
licence. Media are never copied. Clips under an agreement (`licence_tag` gated:…) are refused unless
`have_the_right`. hf is written piece by piece; every other format is one file, made in memory.
"""

import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import polars as pl

from emer_ray import config as configuration
from emer_ray import parse, pipeline, prompts, storage
from emer_ray.errors import ClipError, ConfigError, RunDirError
from emer_ray.records import Answer
from emer_ray.release import card, files, rows
from emer_ray.release.files import Files, Format
from emer_ray.store import index, record

PROJECTIONS = ("one_hot", "ranking", "valence", "sentiment")

COLUMNS = [
    *("clip_id", "labels", "explanation", "visual_clues", "acoustic_clues", "lexical_clues"),
    *("confidence", "subtitle", "subtitle_source", "answers", "licence_tag", "composite"),
]


def export(
    run: str, form: Format, destination: str, *, have_the_right: bool = False
) -> dict[str, Any]:
    """Write a run's explanations as `form` into the folder `destination`.

    Raises `ConfigError` for clips that may not be handed on and for a folder that is not empty.
    """
    journal = record.require(run)
    config = configuration.parse(journal["config"])
    placed = index.load_manifest(run)
    if placed is None:
        raise RunDirError(f"{run}: not a run directory (no manifest.parquet); give the path of one")
    present = placed.filter("present")
    rows.refuse_gated(run, present["licence_tag"].to_list(), have_the_right)
    if next(iter(storage.listing(destination)), None) is not None:
        raise ConfigError(
            f"{destination}: there is something in this folder already, and files of two exports "
            f"would mix; give an empty one"
        )
    listed = {row["clip_id"]: row for row in present.iter_rows(named=True)}
    asked = [step for step in pipeline.asked(config) if step.form in PROJECTIONS]
    tally, left_out = card.Tally(), Counter[str]()
    written = []
    for name, data in _files(form, run, listed, asked, config, tally, left_out):
        storage.write(storage.join(destination, name), data)
        written.append(name)
    failed = index.final(index.outcomes(run)).filter(
        (pl.col("outcome") == "failed") & pl.col("clip_id").is_in(list(listed))
    )
    about = card.About(
        format=form,
        record=journal,
        provenance=asdict(pipeline.provenance(config)),
        failed=dict(Counter(failed["kind"].to_list())),
        left_out=left_out,
        metrics=_metrics(run),
    )
    text = card.card(tally, about)
    storage.write(storage.join(destination, "README.md"), text.encode())
    return {
        "run": run,
        "format": form,
        "destination": destination,
        "clips": tally.clips,
        "failed": failed.height,
        "left_out": dict(left_out),
        "splits": dict(tally.splits),
        "licences": {tag or "unknown": n for tag, n in tally.licences.items()},
        "metrics": None if about.metrics is None else len(about.metrics),
        "files": [*written, "README.md"],
    }


def _files(
    form: Format,
    run: str,
    listed: Mapping[str, Mapping[str, Any]],
    asked: Sequence[parse.Asked],
    config: configuration.RunConfig,
    tally: card.Tally,
    left_out: Counter[str],
) -> Files:
    """Choose who writes; every row that is handed on is counted as it passes."""

    def counted() -> Iterator[rows.Row]:
        for found in _explained(run):
            row = rows.row(found, listed[found["clip_id"]], _said(found["answers"], asked))
            tally.add(row)
            yield row

    match form:
        case "hf":
            return files.hf(counted())
        case "csv":
            return files.csv_file(counted())
        case "jsonl":
            return files.jsonl(counted())
        case "mer":
            return files.mer(counted())
        case "llama-factory":
            return _for_llama_factory(run, listed, config, tally, left_out)


def _for_llama_factory(
    run: str,
    listed: Mapping[str, Mapping[str, Any]],
    config: configuration.RunConfig,
    tally: card.Tally,
    left_out: Counter[str],
) -> Files:
    instructions = prompts.text("explain", config.language).strip()
    say = prompts.phrases(config.language)

    def asked(row: rows.Row) -> str:
        words = row["subtitle"]
        data = f"{say['subtitle']}\n{prompts.fence('subtitle', words)}" if words else None
        return f"{instructions}\n\n{data or say['no_subtitle']}"

    def whole() -> Iterator[tuple[rows.Row, Mapping[str, Any]]]:
        for found in _explained(run):
            mine = listed[found["clip_id"]]
            if reason := files.part_of_a_file(mine):
                left_out[reason] += 1
                continue
            row = rows.row(found, mine, {})
            tally.add(row)
            yield row, mine

    return files.llama_factory(whole(), asked)


def _explained(run: str) -> Iterator[dict[str, Any]]:
    for table in index.explained(run, COLUMNS):
        yield from table.to_pylist()


def _said(answers: Sequence[Mapping[str, Any]], asked: Sequence[parse.Asked]) -> dict[str, Any]:
    """Read what the recipe's projections answered; one that cannot be read is null."""
    said: dict[str, Any] = {}
    for step in asked:
        mine = [Answer(**answer) for answer in answers or () if answer["step"] == step.step]
        if not mine:
            continue
        try:
            value = parse.draw(mine, step.form, step.choices).kept.value
        except ClipError:
            continue
        said[step.form] = list(value) if isinstance(value, tuple) else value
    return said


def _metrics(run: str) -> list[dict[str, Any]] | None:
    """Read the aggregates over all clips, where somebody evaluated the run."""
    uri = storage.join(run, "metrics.parquet")
    if not storage.exists(uri):
        return None
    frame = pl.read_parquet(io.BytesIO(storage.read(uri)))
    return frame.filter(pl.col("by") == "").to_dicts()
