"""Recipes: ordered prompts, each bound to a model name. The way of asking is data, not code (design
§6).

A recipe is a TOML file in this folder, or a path. It does not know which backend stands behind a
model name; that is `models.<name>` of the configuration.
"""

import hashlib
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from emer_ray.errors import ConfigError
from emer_ray.records import Modality


class RecipeStep(BaseModel):
    """One question: a prompt, who answers it, and what the answer may look at."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    prompt: str
    model: str = "main"
    modalities: tuple[Modality, ...] = ("video", "audio", "text")
    reads: tuple[str, ...] = ()
    """Earlier steps whose answers are put into the prompt."""
    samples: Annotated[int, Field(ge=1)] = 1


class Recipe(BaseModel):
    """An ordered list of questions; the last answer is the explanation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    summary: str
    steps: Annotated[tuple[RecipeStep, ...], Field(min_length=1)]


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
        if step.name in seen:
            raise ConfigError(f"recipe {name!r}: two steps are called {step.name}; rename one")
        seen.add(step.name)
    return recipe


def prompt_text(name: str, language: Literal["en", "zh"]) -> str:
    """Read a prompt that ships with the package, or one given as the path of a text file."""
    shipped = files("emer_ray.prompts").joinpath(language, f"{name}.txt")
    if shipped.is_file():
        return shipped.read_text(encoding="utf-8")
    if Path(name).is_file():
        return Path(name).read_text(encoding="utf-8")
    raise ConfigError(f"prompt {name!r}: neither a shipped {language} prompt nor a text file")


def prompt_hash(name: str, language: Literal["en", "zh"]) -> str:
    """Hash a prompt's text: it decides results, its name does not."""
    return hashlib.sha256(prompt_text(name, language).encode()).hexdigest()
