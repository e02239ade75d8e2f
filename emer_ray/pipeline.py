"""The flow as a list of steps, computed from the recipe, and how it is staffed.

`steps` is the page to read first: what happens to a clip, in order. Work and staffing are two
objects: a `Step` knows its stage and settings, a `Pool` runs one or more neighbouring steps in the
same actors. Nothing here knows Ray; `run_local` is the serial twin of the distributed run and
gives equal tables.
"""

import importlib.metadata
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from emer_ray import __version__, containment, recipes, stages, weights
from emer_ray.config import RESULTS_VERSION, ModelConfig, PoolConfig, RunConfig, digest
from emer_ray.errors import ConfigError
from emer_ray.reason.fake import FakeOptions
from emer_ray.records import ModelUsed, Provenance

SPARE_CPUS = 1.0
"""Left to Ray Data's own tasks, which starve where actors hold every CPU (peers §3, row 3)."""

Baselines = Mapping[str, tuple[float, float, int]]
"""Voice measure -> median, spread and number of clips, read off a run's own clips."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One arrow of the flow: a stage class and its settings."""

    name: str
    stage: Callable[..., stages.Stage]
    settings: Mapping[str, Any]
    pool: str
    """Neighbouring steps of one pool run in the same actors, so nothing travels between them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Staffing of neighbouring steps: how many actors of what size."""

    name: str
    steps: tuple[Step, ...]
    min_actors: int
    max_actors: int
    cpus: float
    gpus: float
    memory_mb: int | None
    reason: str
    """Why it is staffed so."""


def steps(
    config: RunConfig, *, run: str, baselines: Baselines, contained: bool = True
) -> list[Step]:
    """Compute what happens to a clip, in reading order.

    A heavy column (frames, sound) dies after the last step that reads it. Encoding shares the
    decoders' actors, where frames need not travel, unless `pools.encode` staffs it apart.
    """
    recipe = recipes.load(config.recipe)
    models = {step.model: _model(config, step.model) for step in recipe.steps}
    first = models[recipe.steps[0].model]
    last_reader = _last_reader(recipe, models)

    def guard(name: str) -> containment.Guard:
        pool = config.pools.get(name, PoolConfig())
        return containment.Guard(
            run=run if contained else None,
            deadline_s=pool.deadline_s or 600.0,
            memory_mb=pool.memory_mb,
            batch=pool.batch,
            faults=config.faults.get(name, {}),
        )

    flow = [
        Step(
            name="decode",
            stage=stages.Decode,
            settings={
                "media": config.media,
                "run": run if contained else None,
                "faults": config.faults.get("decode", {}),
                "drops": (),
            },
            pool="decode",
        ),
        Step(
            name="encode",
            stage=stages.Encode,
            settings={
                "model": first,
                "guard": guard("encode"),
                "drops": containment.HEAVY if last_reader == "encode" else (),
            },
            pool="encode" if "encode" in config.pools else "decode",
        ),
    ]
    for step in recipe.steps:
        flow.append(
            Step(
                name=step.name,
                stage=stages.Reason,
                settings={
                    "step": step.name,
                    "model": models[step.model],
                    "baselines": dict(baselines),
                    "guard": guard(step.name),
                    "drops": containment.HEAVY if last_reader == step.name else (),
                },
                pool=f"reason.{step.model}",
            )
        )
    flow.append(
        Step(
            name="parse", stage=stages.Parse, settings={"step": recipe.steps[-1].name}, pool="write"
        )
    )
    flow.append(
        Step(
            name="write",
            stage=stages.Write,
            settings={"run": run, "provenance": provenance(config)},
            pool="write",
        )
    )
    return flow


def _model(config: RunConfig, name: str) -> ModelConfig:
    model = config.models.get(name)
    if model is None:
        raise ConfigError(
            f"recipe {config.recipe!r} asks a model called {name!r}; add [models.{name}] "
            f"(configured: {', '.join(config.models) or 'none'})"
        )
    if model.backend == "fake":
        FakeOptions.of(model.options)
        return model
    if model.options:
        raise ConfigError(
            f"models.{name}.options: the embedded backend has none (got {model.options})"
        )
    if config.language != "en":
        raise ConfigError(
            f"language = {config.language!r}: the embedded baseline writes English only; set "
            f'language = "en" (Chinese subtitles are quoted as given)'
        )
    return model.model_copy(update={"revision": weights.revision("embedded")})


def _last_reader(recipe: recipes.Recipe, models: Mapping[str, ModelConfig]) -> str:
    """Name the last step that looks at frames or listens to sound."""
    looking = [
        step.name
        for step in recipe.steps
        if models[step.model].backend != "embedded" and {"video", "audio"} & set(step.modalities)
    ]
    return looking[-1] if looking else "encode"


def pools(flow: Sequence[Step], config: RunConfig, *, cpus: float, gpus: float) -> list[Pool]:
    """Group neighbouring steps of one pool and staff the groups for a cluster of this size.

    What the configuration leaves open is chosen here, with the reason: a model on a GPU gets one
    actor per GPU; of the CPUs, each light pool takes a part of one and the decoders the rest.
    """
    groups: list[tuple[str, list[Step]]] = []
    for step in flow:
        if groups and groups[-1][0] == step.pool:
            groups[-1][1].append(step)
        else:
            groups.append((step.pool, [step]))
    names = [name for name, _ in groups]
    if len(set(names)) != len(names):
        again = next(name for name in names if names.count(name) > 1)
        groups = [
            (f"{name}.{i}" if name == again else name, g) for i, (name, g) in enumerate(groups)
        ]
    others = [
        _staffed(name, members, _wanted(members, config), gpus)
        for name, members in groups
        if name != "decode"
    ]
    taken = sum(pool.min_actors * pool.cpus for pool in others)
    name, members = groups[0]
    decoders = _decoders(name, members, _wanted(members, config), cpus, taken)
    chosen = [decoders, *others]
    _refuse_impossible(chosen, cpus=cpus, gpus=gpus)
    return chosen


def _staffed(name: str, members: Sequence[Step], want: PoolConfig, gpus: float) -> Pool:
    if want.gpus:
        actors, reason = max(1, int(gpus / want.gpus)), f"one per {want.gpus:g} of {gpus:g} GPUs"
    else:
        actors, reason = 1, "one light actor keeps up with the decoders of a node"
    return _pool(name, members, want, actors, 1.0 if want.gpus else 0.5, reason)


def _decoders(
    name: str, members: Sequence[Step], want: PoolConfig, cpus: float, taken: float
) -> Pool:
    each = 1.0 if want.cpus is None else want.cpus
    actors = max(1, int((cpus - taken - SPARE_CPUS) / each)) if each else 1
    reason = (
        f"{actors} of {each:g} CPUs fill {cpus:g} less {taken:g} for the other pools and "
        f"{SPARE_CPUS:g} for Ray's own tasks"
    )
    return _pool(name, members, want, actors, each, reason)


def _pool(
    name: str,
    members: Sequence[Step],
    want: PoolConfig,
    actors: int,
    cpus: float,
    reason: str,
) -> Pool:
    most = want.max_actors or want.actors or actors
    return Pool(
        name=name,
        steps=tuple(members),
        min_actors=min(want.actors or most, most),
        max_actors=most,
        cpus=cpus if want.cpus is None else want.cpus,
        gpus=want.gpus or 0.0,
        memory_mb=want.memory_mb,
        reason="set by the configuration" if want.actors else reason,
    )


def _wanted(members: Sequence[Step], config: RunConfig) -> PoolConfig:
    """Merge `pools.<step>` of a group's steps; the last step that says something wins."""
    said: dict[str, Any] = {}
    for step in members:
        own = config.pools.get(step.name)
        said |= own.model_dump(exclude_none=True) if own else {}
    return PoolConfig(**said)


def _refuse_impossible(chosen: Sequence[Pool], *, cpus: float, gpus: float) -> None:
    for kind, total, size in (("CPUs", cpus, "cpus"), ("GPUs", gpus, "gpus")):
        need = sum(pool.min_actors * getattr(pool, size) for pool in chosen)
        if need > total:
            parts = " + ".join(
                f"{pool.name} {pool.min_actors} × {getattr(pool, size):g}" for pool in chosen
            )
            raise ConfigError(
                f"pools need {need:g} {kind} at least ({parts}), the cluster has {total:g}; "
                f"lower pools.<step>.actors or pools.<step>.{size}"
            )


class Chain:
    """The stages of one pool, called one after the other on the same table."""

    def __init__(self, members: Sequence[Step]) -> None:
        self._stages = [step.stage(**step.settings) for step in members]

    def __call__(self, table: pa.Table) -> pa.Table:
        for stage in self._stages:
            table = stage(table)
        return table

    def close(self) -> None:
        """Release what the stages hold."""
        for stage in self._stages:
            stage.close()


def run_local(flow: Sequence[Step], tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Run the flow in this process, shard by shard: the serial twin."""
    chain = Chain(flow)
    try:
        for table in tables:
            yield chain(table)
    finally:
        chain.close()


def in_flight(config: RunConfig, chosen: Sequence[Pool]) -> int:
    """Choose how many shards may be under way: enough that no actor waits for its next."""
    return config.output.in_flight or 4 * sum(pool.max_actors for pool in chosen)


def provenance(config: RunConfig) -> Provenance:
    """State what every row of this run depends on."""
    recipe = recipes.load(config.recipe)
    return Provenance(
        fingerprint=fingerprint(config),
        recipe=recipe.name,
        models=tuple(
            ModelUsed(
                step=step.name,
                backend=config.models[step.model].backend,
                model=config.models[step.model].model or config.models[step.model].backend,
                revision=_model(config, step.model).revision,
                prompt_hash=recipes.prompt_hash(step.prompt, config.language),
            )
            for step in recipe.steps
        ),
        versions=versions(),
    )


def versions() -> dict[str, str]:
    """List the versions that a result may depend on."""
    known = (
        "av",
        "decord2",
        "numpy",
        "onnxruntime",
        "opencv-python-headless",
        "pyarrow",
        "ray",
        "soxr",
    )
    found = {name: importlib.metadata.version(name) for name in known}
    return {"emer_ray": __version__, "python": platform.python_version(), **found}


NOT_RESULTS = {"media": {"threads", "deadline_s", "memory_mb"}}


def fingerprint_parts(config: RunConfig) -> dict[str, Any]:
    """List the keys that decide results, by their dotted path, with their values.

    Recipe, prompt texts, models and their options, media settings and `RESULTS_VERSION`; neither
    staffing nor paths nor the manifest (design §5).
    """
    recipe = recipes.load(config.recipe)
    asked = sorted({step.model for step in recipe.steps})
    parts: dict[str, Any] = {
        "results_version": RESULTS_VERSION,
        "language": config.language,
        "recipe": digest(recipe.model_dump(mode="json"))[:16],
    }
    for step in recipe.steps:
        parts[f"prompts.{step.prompt}"] = recipes.prompt_hash(step.prompt, config.language)[:16]
    for name in asked:
        model = _model(config, name)
        parts |= {
            f"models.{name}.{key}": value for key, value in model.model_dump(mode="json").items()
        }
    media = config.media.model_dump(mode="json", exclude=NOT_RESULTS["media"])
    parts |= {f"media.{key}": value for key, value in media.items()}
    if config.faults:
        parts["faults"] = config.faults
    return parts


def fingerprint(config: RunConfig) -> str:
    """Hash what decides results: two runs with one fingerprint may share rows."""
    return digest(fingerprint_parts(config))


def needs_baselines(config: RunConfig) -> bool:
    """Tell whether a model compares voices with those of the run's own clips."""
    recipe = recipes.load(config.recipe)
    return any(_model(config, step.model).backend == "embedded" for step in recipe.steps)


def shard_clips(config: RunConfig, flow: Sequence[Step]) -> tuple[int, str]:
    """Choose the clips of a shard, with the reason: a shard travels between pools as one block."""
    wanted = config.output.shard_clips
    heavy = flow[1].settings["drops"] == () or flow[0].pool != flow[1].pool
    if not heavy:
        return wanted, "output.shard_clips; frames and sound do not leave the decoders' actors"
    media = config.media
    long_side = media.size_px if media.resize == "square" else media.size_px * 16 / 9
    clip_mb = (media.frames * media.size_px * long_side * 3 + 20 * 16_000 * 4) / 2**20
    fit = max(1, int(config.output.block_mb / clip_mb))
    if fit >= wanted:
        return wanted, "output.shard_clips"
    return fit, f"{fit} clips of about {clip_mb:.1f} MB fill a block of {config.output.block_mb} MB"
