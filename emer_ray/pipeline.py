"""The flow as a list of steps, computed from the recipe, and how it is staffed.

`steps` is the page to read first: what happens to a clip, in order. Work and staffing are two
objects: a `Step` knows its stage and settings, a `Pool` runs one or more neighbouring steps in the
same actors. Nothing here knows Ray; `run_local` is the serial twin of the distributed run and
gives equal tables.
"""

import hashlib
import importlib.metadata
import importlib.util
import itertools
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any, cast

import pyarrow as pa

from emer_ray import (
    __version__,
    checkpoint,
    containment,
    parse,
    prompts,
    recipes,
    stages,
    weights,
)
from emer_ray.config import (
    RESULTS_VERSION,
    MediaConfig,
    ModelConfig,
    PoolConfig,
    RunConfig,
    digest,
)
from emer_ray.errors import ConfigError
from emer_ray.reason import Seat
from emer_ray.reason.baselines import Baselines
from emer_ray.reason.fake import FakeOptions
from emer_ray.records import AUDIO_HZ, Modality, ModelUsed, Provenance
from emer_ray.store import embeddings

SPARE_CPUS = 1.0
"""Left to Ray Data's own tasks, which starve where actors hold every CPU (peers §3, row 3)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One arrow of the flow: a stage class and its settings."""

    name: str
    stage: Callable[..., stages.Stage]
    settings: Mapping[str, Any]
    pool: str
    """Neighbouring steps of one pool run in the same actors, so nothing travels between them."""
    shares_model: bool = False
    """Asks a model, and takes part in those that its pool's actor has loaded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What the steps must know of one start of a run, besides its configuration."""

    run: str
    baselines: Baselines = field(default_factory=dict)
    earlier: stages.Earlier = stages.NOTHING_EARLIER
    usd_left: float | None = None
    """What `budget.usd` still allows; null = no limit."""
    contained: bool = True
    """False in the serial twin: no claims, no watchdog."""


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
    shards: int = 1
    """Shards that an actor works on side by side."""
    queued: int = 1
    """Shards that are handed to an actor before it can begin."""


def recipe_of(config: RunConfig) -> recipes.Recipe:
    """Load the recipe with the modalities and samples that the configuration sets."""
    recipe = recipes.load(config.recipe)
    return recipes.adapted(recipe, config.modalities, config.samples)


def steps(config: RunConfig, start: Start) -> list[Step]:
    """Compute what happens to a clip, in reading order.

    A heavy column (frames, sound) dies after the last step that reads it. Encoding shares the
    decoders' actors, where frames need not travel, unless `pools.encode` staffs it apart.
    """
    recipe = recipe_of(config)
    models = {step.model: _model(config, step.model) for step in recipe.steps}
    for step in recipe.steps:
        _refuse_unfit(config, recipe, step)
    last_reader = _last_reader(recipe, models)
    claims_in = start.run if start.contained else None

    def guard(name: str, backend: str = "") -> containment.Guard:
        pool = config.pools.get(name, PoolConfig())
        return containment.Guard(
            run=claims_in,
            deadline_s=pool.deadline_s or 600.0,
            shards=pool.shards or SHARDS.get(backend, 1),
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
                "run": claims_in,
                "faults": config.faults.get("decode", {}),
                "drops": (),
                "earlier": start.earlier,
            },
            pool="decode",
        ),
        Step(
            name="encode",
            stage=stages.Encode,
            settings={
                "model": _encoded_for(recipe, models),
                "language": config.language,
                "guard": guard("encode"),
                "drops": containment.MEDIA if last_reader == "encode" else (),
                "earlier": start.earlier,
            },
            pool="encode" if "encode" in config.pools else "decode",
        ),
    ]
    seats = _seats(config, recipe, models, start)
    hashes = _towers_hashes(config, recipe)
    if config.output.embeddings and not hashes:
        raise ConfigError(
            f"output.embeddings: no model of recipe {recipe.name!r} has towers in a pool of their "
            f"own; set models.{recipe.steps[0].model}.options.split = true (transformers backend)"
        )
    asked = {step.name: _asked(step) for step in recipe.steps}
    for number, step in enumerate(recipe.steps):
        model = models[step.model]
        before = recipe.steps[number - 1].model if number else None
        after = [later.model for later in recipe.steps[number + 1 : number + 2]]
        looked_at = _looked_at(recipe, step.model)
        if is_split(model) and step.model != before and looked_at:
            name = towers_of(step.model)
            flow.append(
                Step(
                    name=name,
                    stage=stages.Embed,
                    settings={
                        "step": name,
                        "model": model,
                        "modalities": looked_at,
                        "asked": _lookers(recipe, step.model),
                        "towers_hash": hashes[name],
                        "keep_in": start.run if config.output.embeddings else None,
                        "guard": guard(name),
                        "drops": containment.MEDIA if last_reader == step.name else (),
                        "earlier": start.earlier,
                    },
                    pool=name,
                )
            )
        drops = containment.MEDIA if last_reader == step.name else ()
        if is_split(model) and after != [step.model]:
            drops = (*drops, "embeddings")
        flow.append(
            Step(
                name=step.name,
                stage=stages.Reason,
                settings={
                    "question": _question(config, step),
                    "reads": tuple(asked[read] for read in step.reads),
                    "samples": step.samples,
                    "model": models[step.model],
                    "seat": seats[step.model],
                    "guard": guard(step.name, models[step.model].backend),
                    "drops": drops,
                    "earlier": start.earlier,
                },
                pool=f"reason.{_engine(recipe, models, step.model)}",
                shares_model=True,
            )
        )
    flow.append(
        Step(
            name="parse",
            stage=stages.Parse,
            settings={"asked": tuple(asked.values()), "guard": guard("parse")},
            pool="write",
        )
    )
    flow.append(
        Step(
            name="write",
            stage=stages.Write,
            settings={
                "run": start.run,
                "provenance": provenance(config),
                "guard": guard("write"),
            },
            pool="write",
        )
    )
    return flow


def _engine(recipe: recipes.Recipe, models: Mapping[str, ModelConfig], name: str) -> str:
    """Name the first model of the recipe that is the same engine: one is enough for both."""
    if models[name].backend != "vllm":
        return name
    return next(step.model for step in recipe.steps if models[step.model] == models[name])


def is_split(model: ModelConfig) -> bool:
    """Tell whether a model's towers stand in a pool of their own."""
    if model.backend != "transformers":
        return False
    return checkpoint.TransformersOptions.of(model).split


def towers_of(model: str) -> str:
    """Name the step and the pool of a model's towers."""
    return f"{model}_towers"


def _looked_at(recipe: recipes.Recipe, model: str) -> tuple[Modality, ...]:
    """Name what any step of a model looks at or listens to: its towers encode no more."""
    asked = {m for step in recipe.steps if step.model == model for m in step.modalities}
    return tuple(m for m in ("video", "audio") if m in asked)


def _lookers(recipe: recipes.Recipe, model: str) -> tuple[str, ...]:
    """Name the steps of a model that look or listen."""
    mine = (step for step in recipe.steps if step.model == model)
    return tuple(step.name for step in mine if {"video", "audio"} & set(step.modalities))


def _towers_hashes(config: RunConfig, recipe: recipes.Recipe) -> dict[str, str]:
    """Hash what each split model's embeddings depend on but the clip, by the name of its towers."""
    hashes = {}
    for name in dict.fromkeys(step.model for step in recipe.steps):
        model = _model(config, name)
        looked_at = _looked_at(recipe, name)
        if is_split(model) and looked_at:
            options = checkpoint.TransformersOptions.of(model)
            hashes[towers_of(name)] = digest(
                {
                    "results_version": RESULTS_VERSION,
                    "model": [checkpoint.identity(model), model.revision],
                    "options": options.model_dump(
                        mode="json", exclude=set(checkpoint.LANGUAGE_ONLY)
                    ),
                    "modalities": looked_at,
                    "media": _media_parts(config),
                    "faults": config.faults.get(towers_of(name)),
                }
            )
    return hashes


def _asked(step: recipes.RecipeStep) -> parse.Asked:
    return parse.Asked(step=step.name, form=step.answer, choices=step.choices)


def asked(config: RunConfig) -> list[parse.Asked]:
    """List what the parser must know of the recipe's steps."""
    return [_asked(step) for step in recipe_of(config).steps]


ANSWER_CHARS_PER_TOKEN = 8
"""`answer_chars` where vLLM answers and nothing is said: twice what English prose needs."""


def _question(config: RunConfig, step: recipes.RecipeStep) -> prompts.Question:
    model = _model(config, step.model)
    answer_chars = model.answer_chars
    if answer_chars is None and model.backend == "vllm":
        answer_chars = ANSWER_CHARS_PER_TOKEN * model.max_tokens
    return prompts.question(
        step=step.name,
        prompt=step.prompt,
        form=step.answer,
        language=config.language,
        modalities=step.modalities,
        choices=step.choices,
        max_text_tokens=model.max_text_tokens,
        answer_chars=answer_chars,
    )


def _encoded_for(recipe: recipes.Recipe, models: Mapping[str, ModelConfig]) -> ModelConfig:
    """Name the model that clips are prepared for: perception where one of them needs it."""
    used = [models[step.model] for step in recipe.steps]
    return next((model for model in used if model.backend == "embedded"), used[0])


def _seats(
    config: RunConfig,
    recipe: recipes.Recipe,
    models: Mapping[str, ModelConfig],
    start: Start,
) -> dict[str, Seat]:
    """Share rate limits among the actors of a model, and money among the actors of all models."""
    actors: dict[str, int] = {}
    before = None
    for step in recipe.steps:
        if step.model != before:  # each group of neighbouring steps is a pool of its own
            group = [s.name for s in recipe.steps if s.model == step.model]
            wanted = [config.pools[name] for name in group if name in config.pools]
            most = max((pool.max_actors or pool.actors or 1 for pool in wanted), default=1)
            actors[step.model] = actors.get(step.model, 0) + most
        before = step.model
    priced = sum(actors[name] for name, model in models.items() if model.price)
    if config.budget.usd is not None and not priced:
        raise ConfigError(
            "budget.usd is set, but no model of the recipe has a price; add "
            f"[models.{recipe.steps[0].model}.price] with input_usd and output_usd"
        )
    each_usd = None if start.usd_left is None else start.usd_left / priced
    return {
        name: Seat(
            actors=actors[name],
            usd=each_usd if model.price else None,
            baselines=dict(start.baselines),
        )
        for name, model in models.items()
    }


def _model(config: RunConfig, name: str) -> ModelConfig:
    model = config.models.get(name)
    if model is None:
        raise ConfigError(
            f"recipe {config.recipe!r} asks a model called {name!r}; add [models.{name}] "
            f"(configured: {', '.join(config.models) or 'none'})"
        )
    sees(model, name)
    if model.backend != "embedded":
        return model
    if config.language != "en":
        raise ConfigError(
            f"language = {config.language!r}: the embedded baseline writes English only; set "
            f'language = "en" (Chinese subtitles are quoted as given)'
        )
    return model.model_copy(update={"revision": weights.revision("embedded")})


def sees(model: ModelConfig, name: str) -> frozenset[Modality]:
    """Tell what a model can look at; raises ConfigError for options its backend does not have."""
    everything: frozenset[Modality] = frozenset(("video", "audio", "text"))
    match model.backend:
        case "fake":
            FakeOptions.of(model.options)
            return everything
        case "openai":
            return cast(frozenset[Modality], openai_backend().OpenAIOptions.of(model).modalities)
        case "replay":
            from emer_ray.reason.replay import ReplayOptions

            ReplayOptions.of(model)
            return everything
        case "transformers":
            checkpoint.TransformersOptions.of(model, name)
            return checkpoint.takes(model)
        case "vllm":
            checkpoint.VllmOptions.of(model, name)
            _refuse_without_vllm(name)
            return checkpoint.takes(model)
        case "embedded":
            if model.options:
                raise ConfigError(
                    f"models.{name}.options: the embedded backend has none (got {model.options})"
                )
            return everything


def _refuse_without_vllm(name: str) -> None:
    """Notice before anything starts what an engine would notice minutes later, on a worker."""
    if importlib.util.find_spec("vllm") is None:
        raise ConfigError(
            f"models.{name}: vllm is not installed; pip install 'emer-ray[vllm]' in an environment "
            f"of its own, on every node (docs/vllm.md)"
        )


def openai_backend() -> ModuleType:
    """Import the backend; raises ConfigError where its extra is not installed."""
    try:
        from emer_ray.reason import openai
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"openai backend: {error.name} is not installed; pip install 'emer-ray[openai]'"
        ) from None
    return openai


DRAWS_NOTHING = ("embedded", "replay")
"""Backends with one answer per question, which look at no frame and listen to no sound."""


def _refuse_unfit(config: RunConfig, recipe: recipes.Recipe, step: recipes.RecipeStep) -> None:
    """Refuse a step that its model cannot take, before anything starts."""
    model = config.models[step.model]
    where = f"recipe {recipe.name!r}, step {step.name}"
    if blind := sorted(set(step.modalities) - sees(model, step.model)):
        raise ConfigError(
            f"{where}: model {step.model!r} ({model.backend}) cannot take {' and '.join(blind)}; "
            f"let its options say how it takes them, choose another recipe, or leave them out "
            f"with --set 'modalities={[m for m in config.modalities if m not in blind]}'"
        )
    if is_split(model) and (kind := checkpoint.cannot_split(model)):
        raise ConfigError(
            f"{where}: model {step.model!r} is a {kind}, which cannot be split "
            f"({', '.join(checkpoint.SPLITTABLE)} can); set models.{step.model}.options.split = "
            f"false"
        )
    if model.backend == "embedded" and step.answer != "explanation":
        raise ConfigError(
            f"{where}: the embedded backend composes explanations and reads no prompt; give "
            f"[models.{step.model}] a backend that answers with {step.answer}"
        )
    drawn = model.backend == "fake" or model.temperature > 0
    if step.samples > 1 and (model.backend in DRAWS_NOTHING or not drawn):
        raise ConfigError(
            f"{where}: {step.samples} samples of {step.model!r} would be equal; set "
            f"models.{step.model}.temperature above 0 (a {model.backend} model "
            f"{'cannot draw' if model.backend in DRAWS_NOTHING else 'then draws'})"
        )


def _last_reader(recipe: recipes.Recipe, models: Mapping[str, ModelConfig]) -> str:
    """Name the last step before which frames or sound are needed.

    A split model's towers need them, before the first of its neighbouring steps.
    """
    looking = [
        step.name
        for step in recipe.steps
        if models[step.model].backend not in DRAWS_NOTHING
        and {"video", "audio"} & set(step.modalities)
    ]
    if not looking:
        return "encode"
    names = [step.name for step in recipe.steps]
    last = names.index(looking[-1])
    model = recipe.steps[last].model
    while is_split(models[model]) and last and recipe.steps[last - 1].model == model:
        last -= 1
    return names[last]


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
    chosen = [
        staffed(name, members, _wanted(members, config), gpus)
        for name, members in groups
        if name != "decode"
    ]
    name, members = groups[0]
    if name == "decode":
        taken = sum(pool.min_actors * pool.cpus for pool in chosen)
        decoders = _decoders(name, members, _wanted(members, config), cpus, taken)
        chosen = [decoders, *chosen]
    refuse_impossible(chosen, cpus=cpus, gpus=gpus)
    return chosen


def staffed(name: str, members: Sequence[Step], want: PoolConfig, gpus: float) -> Pool:
    model = next((s.settings["model"] for s in members if s.shares_model), None)
    backend = model.backend if model else ""
    if want.shards and backend not in SHARDS:
        raise ConfigError(
            f"pools.{members[0].name}.shards: only models of the backends {', '.join(SHARDS)} "
            f"work on several shards side by side; leave it out"
        )
    if model and backend == "vllm" and want.gpus and want.gpus >= 1:
        tensor_parallel_size = checkpoint.VllmOptions.of(model).tensor_parallel_size
        if want.gpus != tensor_parallel_size:
            raise ConfigError(
                f"pools.{members[0].name}.gpus = {want.gpus:g}, but the model's "
                f"tensor_parallel_size = {tensor_parallel_size}; an actor holds one engine, so "
                f"give both the same number"
            )
    if want.gpus:
        actors, reason = max(1, int(gpus / want.gpus)), f"one per {want.gpus:g} of {gpus:g} GPUs"
    else:
        actors, reason = 1, "one light actor keeps up with the decoders of a node"
    pool = _pool(name, members, want, actors, 1.0 if want.gpus else 0.5, reason)
    queued = QUICK if members[-1].stage is stages.Write else 1
    return replace(pool, shards=want.shards or SHARDS.get(backend, 1), queued=queued)


QUICK = 16
"""Shards that wait at a writer. Ray Data hands out work some five to ten times a second, and learns
as seldom that it is done: one shard at a time would hold a writer of milliseconds to ten a second.
"""


SHARDS: Mapping[str, int] = {"fake": 2, "transformers": 2, "vllm": 8}
"""Shards that an actor works on side by side, by backend. Two: the inputs of one are prepared while
the model answers the other; more: an engine's batches are full."""


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


def refuse_impossible(chosen: Sequence[Pool], *, cpus: float, gpus: float) -> None:
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
        models: dict[str, Any] = {}
        self._stages = {
            step.name: step.stage(
                **step.settings, **({"shared": models} if step.shares_model else {})
            )
            for step in members
        }

    def __call__(self, table: pa.Table) -> pa.Table:
        with containment.claims_kept():
            for stage in self._stages.values():
                table = stage(table)
        return table

    @property
    def stages(self) -> Mapping[str, stages.Stage]:
        """The loaded stages by their steps, in the order in which they are called."""
        return self._stages

    def close(self) -> None:
        """Release what the stages hold."""
        for stage in self._stages.values():
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
    return config.output.in_flight or sum(pool.max_actors * (3 + pool.shards) for pool in chosen)


def provenance(config: RunConfig) -> Provenance:
    """State what every row of this run depends on."""
    recipe = recipe_of(config)
    return Provenance(
        fingerprint=fingerprint(config),
        recipe=recipe.name,
        models=tuple(
            ModelUsed(
                step=step.name,
                backend=config.models[step.model].backend,
                model=config.models[step.model].model or config.models[step.model].backend,
                revision=_model(config, step.model).revision,
                prompt_hash=prompts.text_hash(step.prompt, config.language),
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
    extras = [name for name in ("torch", "transformers", "vllm") if importlib.util.find_spec(name)]
    found = {name: importlib.metadata.version(name) for name in (*known, *extras)}
    return {"emer_ray": __version__, "python": platform.python_version(), **found}


NOT_RESULTS = {
    "media": {"threads", "deadline_s", "memory_mb"},
    "models": {"price", "send_gated"},
    "recipe": {"name", "summary"},
}


def fingerprint_parts(config: RunConfig) -> dict[str, Any]:
    """List the keys that decide results, by their dotted path, with their values.

    Recipe, prompt texts, models and their options, media settings and `RESULTS_VERSION`; neither
    staffing, prices, places nor the manifest (design §5).
    """
    recipe = recipe_of(config)
    plain = recipe.model_dump(mode="json", exclude=NOT_RESULTS["recipe"])
    parts: dict[str, Any] = {
        "results_version": RESULTS_VERSION,
        "language": config.language,
        "recipe": digest(plain)[:16],
    }
    for step in recipe.steps:
        parts[f"prompts.{step.prompt}"] = prompts.text_hash(step.prompt, config.language)[:16]
    for name in sorted({step.model for step in recipe.steps}):
        found = model_parts(_model(config, name))
        parts |= {f"models.{name}.{key}": value for key, value in found.items()}
    parts |= {f"media.{key}": value for key, value in _media_parts(config).items()}
    if config.faults:
        parts["faults"] = config.faults
    return parts


def _media_parts(config: RunConfig) -> dict[str, Any]:
    return config.media.model_dump(mode="json", exclude=NOT_RESULTS["media"])


def model_parts(model: ModelConfig) -> dict[str, Any]:
    """List what decides a model's answers, whatever its name in the recipe."""
    found = model.model_dump(mode="json", exclude=NOT_RESULTS["models"])
    if model.backend == "openai":
        places = openai_backend().NOT_RESULTS
        found["options"] = {k: item for k, item in model.options.items() if k not in places}
    if model.backend == "replay":  # the stored answers decide, not where they lie
        from emer_ray.reason.replay import contents

        found["model"] = hashlib.sha256(contents(model.model)).hexdigest()[:16]
    if model.backend in ("transformers", "vllm"):
        found["model"] = checkpoint.identity(model)
    if model.backend == "vllm":
        places = checkpoint.VllmOptions.NOT_RESULTS
        found["options"] = {k: item for k, item in model.options.items() if k not in places}
    return found


def step_hashes(config: RunConfig) -> dict[str, str]:
    """Hash each step with everything its answer depends on but the clip: two runs with one hash
    give one answer (`input.answers`). Towers are steps here: their answer is embeddings.
    """
    recipe = recipe_of(config)
    perception = _encoded_for(recipe, config.models).backend
    hashes = _towers_hashes(config, recipe)
    for step in recipe.steps:
        looks = {"video", "audio"} & set(step.modalities)
        hashes[step.name] = digest(
            {
                "results_version": RESULTS_VERSION,
                "question": [step.answer, sorted(step.modalities), step.choices, step.samples],
                "step": step.name,  # it stands in the seeds and in the tags of later prompts
                "prompt": prompts.text_hash(step.prompt, config.language),
                "model": model_parts(_model(config, step.model)),
                "media": _media_parts(config) if looks else None,
                "words": [perception, config.language] if "text" in step.modalities else None,
                "reads": {read: hashes[read] for read in step.reads},
                "faults": config.faults.get(step.name),
            }
        )
    return hashes


def taken_over(config: RunConfig, hashes: Mapping[str, str]) -> stages.Earlier:
    """Choose what `input.answers` spares, given the step hashes of that run.

    Raises ConfigError when no step is equal there and no embeddings are kept.
    """
    run = config.input.answers
    assert run is not None
    recipe, mine = recipe_of(config), step_hashes(config)
    equal = frozenset(
        step.name for step in recipe.steps if hashes.get(step.name) == mine[step.name]
    )
    towers = {
        name: own
        for name, own in _towers_hashes(config, recipe).items()
        if own in hashes.values() and embeddings.shards(run, own)
    }
    if not equal and not towers:
        raise ConfigError(
            f"input.answers: {run} has no step that is asked exactly as here "
            f"(here: {', '.join(mine)}; there: {', '.join(hashes) or 'none'}) and keeps no "
            f"embeddings that fit; compare recipe, prompts, models and media settings, or leave "
            f"the key out"
        )
    looking = [
        step
        for step in recipe.steps
        if {"video", "audio"} & set(step.modalities)
        or config.models[step.model].backend == "embedded"
    ]
    return stages.Earlier(
        run=run,
        steps=equal,
        facts=bool(looking) and {step.name for step in looking} <= equal,
        towers=tuple(towers.values()),
        embedded=bool(looking) and all(towers_of(step.model) in towers for step in looking),
    )


def kept_shards(earlier: stages.Earlier) -> set[int]:
    """List the shards of an earlier run that keep the embeddings of all its towers."""
    if earlier.run is None or not earlier.towers:
        return set()
    return set.intersection(*(embeddings.shards(earlier.run, each) for each in earlier.towers))


def fingerprint(config: RunConfig) -> str:
    """Hash what decides results: two runs with one fingerprint may share rows."""
    return digest(fingerprint_parts(config))


def needs_baselines(config: RunConfig) -> bool:
    """Tell whether a model compares voices with those of the run's own clips."""
    recipe = recipe_of(config)
    return any(_model(config, step.model).backend == "embedded" for step in recipe.steps)


def shard_clips(config: RunConfig, flow: Sequence[Step]) -> tuple[int, str]:
    """Choose the clips of a shard, with the reason: a shard travels between pools as one block."""
    wanted = config.output.shard_clips
    clip_bytes, columns = _heaviest(config, flow)
    if not clip_bytes:
        return wanted, "output.shard_clips; frames and sound do not leave the decoders' actors"
    fit = max(1, int(config.output.block_mb * 2**20 / clip_bytes))
    if fit >= wanted:
        return wanted, "output.shard_clips"
    return fit, (
        f"{fit} clips with about {clip_bytes / 2**20:.1f} MB of {' and '.join(columns)} each fill "
        f"a block of {config.output.block_mb} MB"
    )


def _heaviest(config: RunConfig, flow: Sequence[Step]) -> tuple[float, list[str]]:
    """Estimate the bytes of a clip where most travel from one pool to the next, and of what."""
    alive: dict[str, float] = {}
    heaviest: tuple[float, list[str]] = (0.0, [])
    for step, after in itertools.pairwise(flow):
        if step.stage is stages.Decode:
            alive = _media_bytes(config.media)
        if step.stage is stages.Embed:
            alive["embeddings"] = checkpoint.embedding_bytes(
                step.settings["model"],
                step.settings["modalities"],
                frames=config.media.frames,
                frame_pixels=_frame_pixels(config.media),
                audio_s=TYPICAL_S,
            )
        for column in step.settings.get("drops", ()):
            alive.pop(column, None)
        if step.pool != after.pool:
            heaviest = max(heaviest, (sum(alive.values()), list(alive)))
    return heaviest


def travelling_bytes(config: RunConfig, name: str) -> tuple[float, float]:
    """Estimate what a clip sends to a model of transformers: as media, and as embeddings."""
    embedded = checkpoint.embedding_bytes(
        config.models[name],
        _looked_at(recipe_of(config), name),
        frames=config.media.frames,
        frame_pixels=_frame_pixels(config.media),
        audio_s=TYPICAL_S,
    )
    return sum(_media_bytes(config.media).values()), embedded


TYPICAL_S = 20.0
"""Seconds of a clip, for estimates of its sound."""


def _frame_pixels(media: MediaConfig) -> float:
    return media.size_px * (media.size_px if media.resize == "square" else media.size_px * 16 / 9)


def _media_bytes(media: MediaConfig) -> dict[str, float]:
    return {"frames": media.frames * _frame_pixels(media) * 3, "pcm": TYPICAL_S * AUDIO_HZ * 4}
