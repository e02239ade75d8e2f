import importlib.util
from pathlib import Path

import pytest

from emer_ray import config, containment, pipeline
from emer_ray.config import RunConfig
from emer_ray.errors import ConfigError


def fake(**sections: object) -> RunConfig:
    return config.parse({"models": {"main": {"backend": "fake"}}, **sections})


def embedded(**sections: object) -> RunConfig:
    return config.parse(sections)


def names(run_config: RunConfig) -> list[str]:
    return [step.name for step in pipeline.steps(run_config, pipeline.Start(run="r"))]


def test_the_flow_reads_in_order() -> None:
    assert names(fake()) == ["decode", "encode", "explain", "parse", "write"]


def test_heavy_columns_die_after_their_last_reader() -> None:
    def dying(run_config: RunConfig) -> list[str]:
        flow = pipeline.steps(run_config, pipeline.Start(run="r"))
        return [step.name for step in flow if step.settings.get("drops") == containment.MEDIA]

    assert dying(embedded()) == ["encode"]
    assert dying(fake()) == ["explain"]


def test_neighbours_of_one_pool_share_actors() -> None:
    def groups(run_config: RunConfig) -> list[list[str]]:
        flow = pipeline.steps(run_config, pipeline.Start(run="r"))
        staffed = pipeline.pools(flow, run_config, cpus=8, gpus=0)
        return [[step.name for step in pool.steps] for pool in staffed]

    assert groups(fake()) == [["decode", "encode"], ["explain"], ["parse", "write"]]
    apart = fake(pools={"encode": {"actors": 2}})
    assert groups(apart) == [["decode"], ["encode"], ["explain"], ["parse", "write"]]


def staffed(run_config: RunConfig, cpus: float, gpus: float) -> dict[str, pipeline.Pool]:
    flow = pipeline.steps(run_config, pipeline.Start(run="r"))
    return {pool.name: pool for pool in pipeline.pools(flow, run_config, cpus=cpus, gpus=gpus)}


def test_decoders_take_the_cpus_that_the_others_leave() -> None:
    pools = staffed(fake(), cpus=16, gpus=0)
    assert pools["decode"].max_actors == 14
    assert pools["reason.main"].max_actors == pools["write"].max_actors == 1


def test_a_model_on_gpus_gets_one_actor_per_gpu_from_the_start() -> None:
    pools = staffed(fake(pools={"explain": {"gpus": 1}}), cpus=16, gpus=4)
    assert (pools["reason.main"].min_actors, pools["reason.main"].max_actors) == (4, 4)


def engines(text: dict[str, object] | None = None, **sections: object) -> RunConfig:
    main = {"backend": "vllm", "model": "owner/name", "max_tokens": 100}
    models = {"main": main, "text": main | (text or {})}
    return config.parse({"recipe": "labels", "models": models, **sections})


def test_steps_of_one_engine_share_it_and_its_actors_take_shards_side_by_side(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if importlib.util.find_spec("vllm") is None:
        with pytest.raises(ConfigError, match=r"pip install 'emer-ray\[vllm\]'"):
            staffed(engines(), 16, 0)
    monkeypatch.setattr(pipeline, "_refuse_without_vllm", lambda _: None)
    pools = staffed(engines(), 16, 0)
    assert [step.name for step in pools["reason.main"].steps] == ["explain", "labels"]
    assert (pools["reason.main"].shards, pools["decode"].shards) == (8, 1)
    apart = staffed(engines({"seed": 1}, pools={"labels": {"shards": 3}}), 16, 0)
    assert (apart["reason.main"].shards, apart["reason.text"].shards) == (8, 3)
    tight = {"options": {"tensor_parallel_size": 2}}
    two = staffed(engines(tight, pools={"labels": {"gpus": 2}}), 16, 4)
    assert two["reason.text"].max_actors == 2
    with pytest.raises(ConfigError, match=r"labels\.gpus = 1, .* tensor_parallel_size = 2"):
        staffed(engines(tight, pools={"labels": {"gpus": 1}}), 16, 4)
    with pytest.raises(ConfigError, match=r"explain\.shards: only models of the backends"):
        staffed(embedded(pools={"explain": {"shards": 2}}), 16, 0)


def test_answers_of_an_engine_have_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def limits(run_config: RunConfig) -> list[int | None]:
        flow = pipeline.steps(run_config, pipeline.Start(run="r"))
        asked = [step.settings.get("question") for step in flow]
        return [question.answer_chars for question in asked if question]

    monkeypatch.setattr(pipeline, "_refuse_without_vllm", lambda _: None)
    assert limits(engines({"answer_chars": 50})) == [800, 50]
    assert limits(fake()) == [None]


def test_the_configuration_has_the_last_word() -> None:
    pools = staffed(fake(pools={"decode": {"actors": 2, "max_actors": 5, "cpus": 0.5}}), 16, 0)
    assert (pools["decode"].min_actors, pools["decode"].max_actors) == (2, 5)
    assert pools["decode"].cpus == 0.5
    assert pools["decode"].reason == "set by the configuration"


@pytest.mark.parametrize("section", [{"actors": 9, "cpus": 1}, {"gpus": 1}])
def test_pools_that_can_never_be_scheduled_are_refused_with_the_sum(
    section: dict[str, float],
) -> None:
    with pytest.raises(ConfigError, match=r"pools need .* at least .* the cluster has"):
        staffed(fake(pools={"explain": section}), cpus=8, gpus=0)


def test_a_shard_fits_a_block_where_frames_travel() -> None:
    media = {"frames": 16, "size_px": 448}

    def clips(run_config: RunConfig) -> int:
        flow = pipeline.steps(run_config, pipeline.Start(run="r"))
        return pipeline.shard_clips(run_config, flow)[0]

    assert clips(embedded(media=media)) == 16  # frames die where they were decoded
    assert clips(fake(media=media)) == 7
    assert clips(fake(media=media, output={"block_mb": 1000})) == 16
    assert clips(fake(media={"frames": 999, "size_px": 2000})) == 1


def test_a_shard_fits_a_block_whether_frames_or_embeddings_are_heavier() -> None:
    def chosen(split: bool, **more: object) -> tuple[int, str]:
        options = {"split": split, **more}
        main = {"backend": "transformers", "model": "owner/name", "options": options}
        found = config.parse(
            {
                "models": {"main": main},
                "media": {"size_px": 448},
                "output": {"shard_clips": 99, "block_mb": 1000},
            }
        )
        return pipeline.shard_clips(found, pipeline.steps(found, pipeline.Start(run="r")))

    whole, split, wide = (
        chosen(False),
        chosen(True),
        chosen(True, embeddings_dtype="float32"),
    )
    assert wide[0] < split[0] < whole[0] < 99
    assert "MB of frames and pcm each" in whole[1]
    assert "MB of embeddings each" in split[1]
    few = chosen(True, max_frames=2)
    assert few == whole  # the frames that travel to the towers are heavier


def test_the_fingerprint_holds_what_decides_results_and_nothing_else() -> None:
    base = pipeline.fingerprint(fake())
    same = [
        fake(pools={"explain": {"actors": 1}}),
        fake(output={"run": "elsewhere"}),
        fake(input={"manifest": "other.csv", "limit": 3}),
        fake(media={"threads": 2, "deadline_s": 5}),
        fake(budget={"failed_share": 0.9}),
    ]
    other = [
        fake(media={"frames": 4}),
        fake(language="zh"),
        config.parse({"models": {"main": {"backend": "fake", "options": {"latency_s": 1.0}}}}),
        embedded(),
    ]
    assert {pipeline.fingerprint(found) for found in same} == {base}
    assert len({pipeline.fingerprint(found) for found in other} | {base}) == len(other) + 1


def test_a_model_that_nobody_configured_is_named() -> None:
    lonely = config.parse({"models": {"other": {"backend": "fake"}}})
    with pytest.raises(ConfigError, match=r"\[models\.main\]"):
        pipeline.steps(lonely, pipeline.Start(run="r"))


def test_an_unknown_option_of_a_backend_is_refused() -> None:
    wrong = config.parse({"models": {"main": {"backend": "fake", "options": {"latency": 1}}}})
    with pytest.raises(ConfigError, match="unknown option latency"):
        pipeline.steps(wrong, pipeline.Start(run="r"))


@pytest.mark.weights
def test_the_weights_that_are_present_are_part_of_the_fingerprint(
    weights: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = pipeline.fingerprint_parts(embedded())["models.main.revision"]
    monkeypatch.setenv("EMER_MODELS", str(tmp_path))
    assert pipeline.fingerprint_parts(embedded())["models.main.revision"] not in (None, before)


def test_the_baseline_refuses_a_language_it_cannot_write() -> None:
    with pytest.raises(ConfigError, match="writes English only"):
        pipeline.steps(embedded(language="zh"), pipeline.Start(run="r"))
