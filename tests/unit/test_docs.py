"""The documentation says what the code does."""

import importlib.util
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from emer_ray import config, prompts, recipes, weights

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")

spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
assert spec is not None
assert spec.loader is not None
generate = importlib.util.module_from_spec(spec)
spec.loader.exec_module(generate)


@pytest.mark.parametrize("page", generate.PAGES, ids=lambda page: page.name)
def test_the_generated_parts_of_a_page_are_fresh(page: Path) -> None:
    assert generate.generated(page) == page.read_text(encoding="utf-8"), "run `make docs`"


@pytest.mark.parametrize(("words", "command"), list(generate.commands()), ids=lambda x: str(x))
def test_every_command_has_help_worth_reading(words: str, command: object) -> None:
    text = generate.help_of(words)
    assert len(command.help or "") > 40, f"{words} has no help"  # type: ignore[attr-defined]
    assert "--help" in text


@pytest.mark.parametrize(
    ("name", "model", "may_be_left_out"),
    [
        ("relabel", config.RunConfig, {"models.main.options", "models.main.price", "samples"}),
        (
            "judge",
            config.JudgeConfig,
            {f"models.judge.{key}" for key in ("options", "price", "answer_chars")}
            | {"pools.judge.shards"},
        ),
    ],
)
def test_the_job_configuration_explains_every_key(
    name: str, model: Any, may_be_left_out: set[str]
) -> None:
    text = (ROOT / "jobs" / f"{name}.toml").read_text(encoding="utf-8")
    section = ""
    named = set()
    for line in text.splitlines():
        if found := re.match(r"#? ?\[([\w.]+)\]", line):
            section = found[1] + "."
        elif found := re.match(r"#? ?(\w+) = ", line):
            named.add(section + found[1])
    known = {
        key.replace("<name>", "main").replace("<step>", "decode")
        for key in config.known_keys(model)
    }
    assert known - named <= may_be_left_out
    assert {key for key in named if ".options." not in key} <= known


def test_the_job_configuration_is_a_run() -> None:
    loaded = config.load(ROOT / "jobs" / "relabel.toml")
    assert loaded.models["main"].backend == "embedded"
    assert config.load_judge(ROOT / "jobs" / "judge.toml").models.judge.backend == "openai"


def test_the_file_map_names_what_is_there() -> None:
    block = README.split("<!-- file map -->")[1].split("```")[1]
    for line in block.strip().splitlines():
        path = line.split()[0]
        if path != "text":
            assert (ROOT / path).exists(), path


def test_shipped_recipes_load_and_their_prompts_exist_in_both_languages() -> None:
    for name in recipes.names():
        for step in recipes.load(name).steps:
            for language in ("en", "zh"):
                assert prompts.text(step.prompt, language).strip()  # type: ignore[arg-type]


def test_the_readme_says_how_much_a_demo_downloads() -> None:
    megabytes = sum(source.size for source in weights.sources("embedded")) / 1e6
    assert f"{megabytes:.0f} MB of pinned weights" in README


def test_dependencies_are_bounded() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    for line in [*project["dependencies"], *[line for extra in extras for line in extra]]:
        requirement = line.split(";")[0]
        assert re.search(r"==|<", requirement) or requirement.startswith(("pip>", "pillow>")), line
