"""What splitting a model costs and changes: its towers apart from its language model, or whole.

    emer bench split my.toml --clips 10

Both paths answer the same decoded clips, in this process and one after the other, turn about: the
first looking step of the recipe, as a run would ask it. Answers are compared as texts, times per
stage, and the bytes that would travel between pools. In float32 and one clip at a time the answers
are equal (docs/transformers.md); this says how often they are with your types and batches.
"""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

import emer_ray
from emer_ray import manifest, pipeline, stages
from emer_ray.config import RunConfig
from emer_ray.errors import ConfigError
from emer_ray.store import index

CLIPS: Final = 10
DEMO: Final = Path(emer_ray.__file__).parent / "demo_media" / "manifest.csv"
TURNS: Final = 3


def split(
    config: RunConfig, clips: int | None = None, say: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Measure agreement, seconds and bytes of the split path against the unsplit one.

    `ratio` is unsplit over split seconds, of all stages after encode in one process: below 1 the
    split costs time here, which several pools at work together may win back.
    """
    name = _model(config)
    listed = config.input.model_copy(
        update={
            "limit": clips or config.input.limit or CLIPS,
            "manifest": config.input.manifest or str(DEMO),
        }
    )
    flows = {path: _flow(config, name, split=path == "split") for path in ("unsplit", "split")}
    shared = pipeline.Chain(flows["split"][:2])
    placed = index.assign_shards(pl.DataFrame(pl.from_arrow(manifest.load(listed))), None, 10**6)
    (table,) = index.shard_tables(index.clips_of(placed, [0]))
    table = shared(table)
    shared.close()
    table = table.filter(pc.is_null(table["kind"]))
    say(f"{table.num_rows} clips decoded")
    seconds: dict[str, list[float]] = {"unsplit": [], "towers": [], "language": []}
    answers: dict[str, list[str]] = {}
    chains = {path: [pipeline.Chain([step]) for step in flow[2:]] for path, flow in flows.items()}
    embedded = 0
    for _ in range(TURNS):
        out, spent = _timed(chains["unsplit"], table)
        seconds["unsplit"] += spent
        answers["unsplit"] = _answers(out)
        (towers, language) = chains["split"]
        between, spent = _timed([towers], table)
        seconds["towers"] += spent
        embedded = _bytes(between, "embeddings")
        out, spent = _timed([language], between)
        seconds["language"] += spent
        answers["split"] = _answers(out)
    for chain in (*chains["unsplit"], *chains["split"]):
        chain.close()
    pairs = list(zip(answers["unsplit"], answers["split"], strict=True))
    middle = {part: statistics.median(found) for part, found in seconds.items()}
    return {
        "clips": len(pairs),
        "answers_equal": sum(one == other for one, other in pairs) / max(1, len(pairs)),
        "equal_before_first_difference": statistics.fmean(_agreeing(*pair) for pair in pairs),
        "ratio": middle["unsplit"] / (middle["towers"] + middle["language"]),
        **{f"{part}_s": round(found, 3) for part, found in middle.items()},
        "turns": TURNS,
        "media_bytes": _bytes(table, "frames") + _bytes(table, "pcm"),
        "embedding_bytes": embedded,
    }


def _model(config: RunConfig) -> str:
    """Name the model of the first step that looks through a model of transformers."""
    for step in pipeline.recipe_of(config).steps:
        if config.models[step.model].backend == "transformers" and {"video", "audio"} & set(
            step.modalities
        ):
            return step.model
    raise ConfigError(
        "bench split: no step of the recipe looks through a model of the transformers backend; "
        "give a configuration with one (docs/transformers.md)"
    )


def _flow(config: RunConfig, name: str, *, split: bool) -> list[pipeline.Step]:
    """Take the flow up to the model's first answer, with media that live to the end of it."""
    model = config.models[name]
    options = {**model.options, "split": split}
    models = {**config.models, name: model.model_copy(update={"options": options})}
    changed = config.model_copy(update={"models": models})
    flow = pipeline.steps(changed, pipeline.Start(run="", contained=False))
    last = next(
        i
        for i, step in enumerate(flow)
        if step.stage is stages.Reason and step.settings["model"] == models[name]
    )
    kept = [step for step in flow[: last + 1] if step.stage is not stages.Reason] + [flow[last]]
    return [
        pipeline.Step(
            name=step.name,
            stage=step.stage,
            settings={**step.settings, "drops": ()},
            pool=step.pool,
            shares_model=step.shares_model,
        )
        for step in kept
    ]


def _timed(chains: list[pipeline.Chain], table: pa.Table) -> tuple[pa.Table, list[float]]:
    started = time.perf_counter()
    for chain in chains:
        table = chain(table)
    return table, [time.perf_counter() - started]


def _answers(table: pa.Table) -> list[str]:
    return [
        row["answers"][-1]["raw"] if row["answers"] else f"({row['kind']})"
        for row in table.select(["answers", "kind"]).to_pylist()
    ]


def _agreeing(one: str, other: str) -> float:
    if one == other:
        return 1.0
    same = next(
        (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b),
        min(len(one), len(other)),
    )
    return same / max(len(one), len(other))


def _bytes(table: pa.Table, column: str) -> int:
    return int(pc.sum(pc.binary_length(table[column])).as_py() or 0)
