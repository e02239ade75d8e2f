"""Recipes: what ships loads, settings narrow it, and what cannot work is refused at the door."""

from pathlib import Path

import pytest

from emer_ray import config, pipeline, prompts, recipes
from emer_ray.config import RunConfig
from emer_ray.errors import ConfigError


def run(recipe: str, **sections: object) -> RunConfig:
    names = {step.model for step in recipes.load(recipe).steps}
    models = {name: {"backend": "fake"} for name in names}
    return config.parse({"recipe": recipe, "models": models, **sections})


def names(run_config: RunConfig) -> list[str]:
    flow = pipeline.steps(run_config, pipeline.Start(run="r"))
    return [step.name for step in flow if step.shares_model]


def test_what_the_papers_compare_ships() -> None:
    assert set(recipes.names()) >= {
        *("one_shot", "no_subtitle", "subtitle_in_prompt", "clue_merge", "labels"),
        *("one_hot", "ranking", "valence", "sentiment", "translate"),
    }


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_becomes_a_flow(name: str, language: str) -> None:
    chosen = run(name, language=language)
    assert names(chosen) == [step.name for step in recipes.load(name).steps]
    assert len(pipeline.fingerprint(chosen)) == 64


def test_subtitles_reach_the_looking_model_in_s1_only() -> None:
    def reads_words(recipe: str) -> dict[str, bool]:
        return {step.name: "text" in step.modalities for step in recipes.load(recipe).steps}

    assert reads_words("no_subtitle") == {"describe": False, "labels": False}
    assert reads_words("subtitle_in_prompt") == {"describe": True, "labels": False}
    assert reads_words("subtitle_merge")["merge"]
    assert reads_words("clue_merge") == {
        **{"visual": False, "acoustic": False},
        **{"merge": True, "labels": False},
    }


def test_neighbours_of_one_model_share_a_pool_and_a_rate() -> None:
    staffed = run("clue_merge", pools={"merge": {"actors": 3}})
    flow = pipeline.steps(staffed, pipeline.Start(run="r"))
    pools = pipeline.pools(flow, staffed, cpus=16, gpus=0)
    assert [pool.name for pool in pools] == [
        *("decode", "reason.video", "reason.audio", "reason.text", "write"),
    ]
    seats = {step.name: step.settings["seat"].actors for step in flow if step.shares_model}
    assert seats == {"visual": 1, "acoustic": 1, "merge": 3, "labels": 3}


def test_modalities_narrow_a_recipe_and_empty_steps_drop_out() -> None:
    assert names(run("clue_merge", modalities=["audio", "text"])) == [
        *("acoustic", "merge", "labels"),
    ]
    left = pipeline.recipe_of(run("clue_merge", modalities=["text"]))
    assert [(step.name, step.reads) for step in left.steps] == [
        ("merge", ()),
        ("labels", ("merge",)),
    ]
    with pytest.raises(ConfigError, match="no step looks at text"):
        pipeline.recipe_of(run("no_subtitle", modalities=["text"]))


def test_samples_are_a_setting() -> None:
    assert pipeline.recipe_of(run("one_shot", samples={"explain": 5})).steps[0].samples == 5
    with pytest.raises(ConfigError, match=r"samples\.explian: .* has no such step"):
        pipeline.recipe_of(run("one_shot", samples={"explian": 5}))


def hosted(recipe: str, **model: object) -> RunConfig:
    found = {"backend": "openai", "model": "m", **model}
    names = {step.model for step in recipes.load(recipe).steps}
    return config.parse({"recipe": recipe, "models": dict.fromkeys(names, found)})


def test_a_model_without_a_sense_is_refused_before_anything_starts() -> None:
    with pytest.raises(ConfigError, match=r"step explain: model 'main' \(openai\) cannot take aud"):
        names(hosted("one_shot"))
    assert names(hosted("one_shot", options={"audio": "input_audio"})) == ["explain"]
    assert names(hosted("clue_merge", options={"audio": "input_audio"}))


def test_samples_that_would_be_equal_are_refused() -> None:
    options = {"audio": "input_audio"}
    greedy = hosted("one_shot", options=options).model_copy(update={"samples": {"explain": 3}})
    with pytest.raises(ConfigError, match="3 samples of 'main' would be equal"):
        names(greedy)
    drawn = hosted("one_shot", options=options, temperature=0.7)
    assert names(drawn.model_copy(update={"samples": {"explain": 3}})) == ["explain"]


def test_the_embedded_model_answers_explanations_only() -> None:
    wrong = config.parse({"recipe": "labels", "models": {"main": {}, "text": {}}})
    with pytest.raises(ConfigError, match="the embedded backend composes explanations"):
        names(wrong)


def test_step_hashes_change_with_what_decides_an_answer_and_with_nothing_else() -> None:
    base = pipeline.step_hashes(run("labels"))
    one_shot = pipeline.step_hashes(run("one_shot"))
    assert one_shot["explain"] == base["explain"]
    frames = pipeline.step_hashes(run("labels", media={"frames": 3}))
    assert frames["explain"] != base["explain"]
    assert frames["labels"] != base["labels"]  # it reads explain
    staffed = run("labels", pools={"labels": {"actors": 2}}, output={"run": "r"})
    assert pipeline.step_hashes(staffed) == base
    models = {"main": {"backend": "fake"}, "text": {"backend": "fake", "max_tokens": 5}}
    other = config.parse({"recipe": "labels", "models": models})
    assert pipeline.step_hashes(other)["explain"] == base["explain"]
    assert pipeline.step_hashes(other)["labels"] != base["labels"]


def test_places_rates_and_prices_decide_no_result() -> None:
    def print_of(**given: object) -> str:
        return pipeline.fingerprint(hosted("labels", **given))

    audio = {"audio": "input_audio"}
    base = print_of(options=audio)
    assert print_of(options={**audio, "in_flight": 99, "base_url": "https://x.org/v1"}) == base
    assert print_of(options=audio, price={"input_usd": 1}, send_gated=True) == base
    assert print_of(options={**audio, "detail": "low"}) != base
    assert print_of(options=audio, temperature=0.5) != base


STEP = '[[steps]]\nname = "{}"\nprompt = "{}"\n'


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        (STEP.format("a b", "explain"), "not a valid recipe"),
        (STEP.format("a", "explain") * 2, "two steps are called a"),
        (STEP.format("a", "explain") + 'reads = ["b"]\n', "reads b, which is not before it"),
        (STEP.format("a", "explain") + 'answer = "one_hot"\n', "choices belong to"),
        (STEP.format("a", "explain") + 'answer = "mood"\n', "not a valid recipe"),
    ],
)
def test_a_recipe_that_cannot_work_is_refused(tmp_path: Path, steps: str, said: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f'name = "mine"\nsummary = "s"\n{steps}')
    with pytest.raises(ConfigError, match=said):
        recipes.load(str(path))


def test_no_prompt_is_left_without_a_recipe_or_a_reason() -> None:
    used = {step.prompt for name in recipes.names() for step in recipes.load(name).steps}
    assert used <= set(prompts.names("en"))
