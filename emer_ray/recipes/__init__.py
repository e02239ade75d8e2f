"""Recipes: ordered prompts, each bound to a model name. The way of asking is data, not code (design
§6).

A recipe is a TOML file in this folder, or a path. It does not know which backend stands behind a
model name; that is `models.<name>` of the configuration.
"""

import tomllib
from collections.abc import Collection, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from emer_ray.errors import ConfigError
from emer_ray.records import AnswerForm, Modality


class RecipeStep(BaseModel):
    """One question: a prompt, who answers it, and what the answer may look at."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, StringConstraints(pattern="^[a-z][a-z0-9_]*$")]
    prompt: str
    answer: AnswerForm = "explanation"
    """What the answer holds, which decides how it is read and where it goes."""
    model: str = "main"
    modalities: tuple[Modality, ...] = ("video", "audio", "text")
    reads: tuple[str, ...] = ()
    """Earlier steps whose answers are put into the prompt."""
    choices: tuple[str, ...] = ()
    """The fixed set of a `one_hot` or `ranking` answer."""
    samples: Annotated[int, Field(ge=1)] = 1
    """Answers drawn; more than one gives labels their support (see docs/recipes.md)."""


class Recipe(BaseModel):
    """Ordered questions; a later answer replaces what an earlier one said of the same thing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    summary: str
    steps: Annotated[tuple[RecipeStep, ...], Field(min_length=1)]


def adapted(recipe: Recipe, modalities: Collection[Modality], samples: Mapping[str, int]) -> Recipe:
    """Restrict what steps look at, and set how many answers they draw.

    A step left with nothing to look at and nothing to read drops out, and so does its answer.
    """
    if unknown := sorted(samples.keys() - {step.name for step in recipe.steps}):
        raise ConfigError(
            f"samples.{unknown[0]}: recipe {recipe.name!r} has no such step; "
            f"it has {', '.join(step.name for step in recipe.steps)}"
        )
    kept: list[RecipeStep] = []
    for step in recipe.steps:
        left = tuple(m for m in step.modalities if m in modalities)
        reads = tuple(read for read in step.reads if read in {other.name for other in kept})
        if left or reads:
            k = samples.get(step.name, step.samples)
            kept.append(step.model_copy(update={"modalities": left, "reads": reads, "samples": k}))
    if not kept:
        raise ConfigError(
            f"recipe {recipe.name!r}: no step looks at {', '.join(modalities) or 'nothing'}; "
            f"widen the key modalities"
        )
    return recipe.model_copy(update={"steps": tuple(kept)})


def names() -> list[str]:
    """List the recipes that ship with the package."""
    return sorted(
        entry.name.removesuffix(".toml")
        for entry in files(__package__).iterdir()
        if entry.name.endswith(".toml")
    )


def load(name: str) -> Recipe:
    """Load a shipped recipe by name, or any recipe by the path of its TOML file."""
    if name in names():
        text = files(__package__).joinpath(f"{name}.toml").read_text(encoding="utf-8")
    elif name.endswith(".toml") and Path(name).is_file():
        text = Path(name).read_text(encoding="utf-8")
    else:
        raise ConfigError(
            f"recipe {name!r}: unknown; take {', '.join(names())} or the path of a TOML file"
        )
    try:
        recipe = Recipe.model_validate(tomllib.loads(text))
    except (tomllib.TOMLDecodeError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"recipe {name!r}: not a valid recipe ({reason})") from None
    seen: set[str] = set()
    for step in recipe.steps:
        if unknown := [read for read in step.reads if read not in seen]:
            raise ConfigError(
                f"recipe {name!r}: step {step.name} reads {unknown[0]}, which is not before it"
            )
        if (step.answer in ("one_hot", "ranking")) != bool(step.choices):
            raise ConfigError(
                f"recipe {name!r}: step {step.name}: choices belong to the answers one_hot and "
                f"ranking, and these need them"
            )
        if step.name in seen:
            raise ConfigError(f"recipe {name!r}: two steps are called {step.name}; rename one")
        seen.add(step.name)
    return recipe
