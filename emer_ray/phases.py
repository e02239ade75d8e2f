"""The flow cut in two plans, so that GPUs are given back in between (`output.phases = 2`).

The first plan decodes and runs the towers of split models, and keeps what they make of each clip in
the run directory; the second reads that and runs the rest. Between them every actor is let go: no
tower waits for a language model, nor the other way round. Each plan passes over what lies there
already, so a start resumes in either. Rows are those of one plan.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import pyarrow as pa

from emer_ray import containment, pipeline, recipes, schema, stages
from emer_ray.config import RunConfig
from emer_ray.errors import ClipError, ConfigError, RunDirError
from emer_ray.store import drain, embeddings

RECALL: Final = "recall"
"""The pool that reads back what the first plan kept."""

FACTS: Final = ("decode", "encode")
"""Steps whose failures are known before any tower is asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Phases:
    """Two flows that are run one after the other."""

    encode: list[pipeline.Step]
    reason: list[pipeline.Step]
    towers: tuple[str, ...]
    """Hashes of what is kept in between."""

    def left(self, run: str, shards: Sequence[int]) -> list[int]:
        """List the shards of these whose embeddings are not kept yet."""
        kept = set.intersection(*(embeddings.shards(run, each) for each in self.towers))
        return [shard for shard in shards if shard not in kept]


def cut(flow: Sequence[pipeline.Step], config: RunConfig, run: str) -> Phases:
    """Cut the flow of one plan; raises ConfigError where nothing can be kept in between."""
    _refuse_unfit(config, pipeline.recipe_of(config))
    embedding = {step.name: step for step in flow if step.stage is stages.Embed}
    towers = tuple(step.settings["towers_hash"] for step in embedding.values())
    *others, last = [step for step in flow if step.name in FACTS] + [
        replace(step, settings={**step.settings, "keep_in": run}) for step in embedding.values()
    ]
    first = [replace(step, settings={**step.settings, "drops": ()}) for step in others]
    first.append(replace(last, settings={**last.settings, "drops": containment.MEDIA}))
    first.append(pipeline.Step(name="encoded", stage=Encoded, settings={}, pool=last.pool))
    kept = {"run": run, "towers": towers}
    second = [pipeline.Step(name=RECALL, stage=Recall, settings=kept, pool=RECALL)]
    own = stages.Earlier(run=run, towers=towers, own=True)
    for number, step in enumerate(flow):
        if step.stage is stages.Encode:
            second.append(replace(step, name=f"{RECALL}.encode", pool=RECALL))
        elif step.stage is stages.Embed:
            settings = {**step.settings, "keep_in": None, "earlier": own}
            pool = flow[number + 1].pool  # of the language model: what is read need not travel
            second.append(replace(step, name=f"{RECALL}.{step.name}", settings=settings, pool=pool))
        elif step.stage is not stages.Decode:
            second.append(step)
    return Phases(encode=first, reason=second, towers=towers)


def _refuse_unfit(config: RunConfig, recipe: recipes.Recipe) -> None:
    if config.input.answers:
        raise ConfigError(
            "output.phases = 2 keeps this run's own embeddings, and input.answers takes those of "
            "another; leave one of them out"
        )
    looking = [step for step in recipe.steps if {"video", "audio"} & set(step.modalities)]
    if not looking:
        raise ConfigError(
            f"output.phases = 2: recipe {recipe.name!r} looks at nothing, so there is nothing to "
            f"keep between two phases; set output.phases = 1"
        )
    for step in looking:
        if not pipeline.is_split(config.models[step.model]):
            raise ConfigError(
                f"output.phases = 2: step {step.name} looks at clips through models.{step.model}, "
                f"which has no towers of its own; set models.{step.model}.options.split = true "
                f"(transformers backend), or output.phases = 1"
            )


class Encoded:
    """The end of the first plan: the driver learns how each clip fared, and nothing else."""

    def __call__(self, table: pa.Table) -> pa.Table:
        told = table.select(["clip_id", "shard", "stage", "kind"]).to_pylist()
        own = {"part": "", "usd": None, "version": None}
        rows = [{**row, **own, "outcome": "failed" if row["kind"] else "ok"} for row in told]
        return schema.table(rows, schema.INDEX)

    def close(self) -> None:
        """Nothing to release."""


class Recall:
    """The begin of the second plan: what the first one found out about each clip's media."""

    def __init__(self, *, run: str, towers: Sequence[str]) -> None:
        self._run = run
        self._towers = towers[0]  # all of them know the failures before the first

    def __call__(self, table: pa.Table) -> pa.Table:
        if drain.requested(self._run):
            table = table.slice(0, 0)
        if not table.num_rows:
            return containment.through(table, stage="decode", to=schema.DECODED, work=list)
        shard = table["shard"][0].as_py()
        kept = embeddings.read(self._run, self._towers, shard, light=True)
        if lost := [name for name in table["clip_id"].to_pylist() if name not in kept]:
            raise RunDirError(
                f"{self._run}: nothing is kept of clip {lost[0]!r} in shard {shard}; delete "
                f"{embeddings.folder(self._towers)}/{shard:08d}.vectors.parquet and start again"
            )

        def facts(rows: list[containment.Row]) -> list[containment.Row | ClipError]:
            return [{name: kept[r["clip_id"]][name] for name in stages.MEDIA_FACTS} for r in rows]

        shards = table["shard"]
        table = table.set_column(table.column_names.index("earlier_shard"), "earlier_shard", shards)
        table = stages.failed_before(table, kept, "decode")
        table = containment.through(table, stage="decode", to=schema.DECODED, work=facts)
        return stages.failed_before(table, kept, "encode")

    def close(self) -> None:
        """Nothing to release."""
