"""Configuration: precedence, `--set`, and errors that say what to type."""

import pytest
from pydantic import ValidationError

from emer_ray import config
from emer_ray.errors import ConfigError


@pytest.fixture
def toml(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(
        'recipe = "clue_merge"\n[input]\nmanifest = "clips.csv"\nlimit = 5\n'
        '[models.main]\nbackend = "fake"\noptions = { a = 1, deep = { b = 2 } }\n',
        encoding="utf-8",
    )
    return path


def test_no_file_and_no_override_is_a_real_run():
    assert config.load(None) == config.RunConfig()


def test_defaults_give_way_to_the_file_and_the_file_to_set(toml):
    defaults = {"recipe": "one_shot", "language": "zh", "input": {"limit": 1, "sample": 9}}
    run = config.load(toml, ["input.limit=7"], defaults)
    assert (run.recipe, run.language) == ("clue_merge", "zh")
    assert (run.input.manifest, run.input.limit, run.input.sample) == ("clips.csv", 7, 9)


def test_a_later_set_wins_and_leaves_its_neighbours(toml):
    run = config.load(toml, ["models.main.options.deep.b=3", "models.main.options.deep.b=4"])
    assert run.models["main"].options == {"a": 1, "deep": {"b": 4}}
    assert run.models["main"].backend == "fake"


@pytest.mark.parametrize(
    ("override", "section", "key", "value"),
    [
        ("input.limit=10", "input", "limit", 10),
        ("input.limit = 10", "input", "limit", 10),
        ("input.allow_http=true", "input", "allow_http", True),
        ("input.manifest=s3://bucket/a=b.csv", "input", "manifest", "s3://bucket/a=b.csv"),
        ("input.manifest= clips of today.csv", "input", "manifest", "clips of today.csv"),
        ('input.manifest="7"', "input", "manifest", "7"),
        ("input.where=split = 'test'", "input", "where", "split = 'test'"),
        ("input.where='split'", "input", "where", "split"),
        ("budget.failed_share=0.5", "budget", "failed_share", 0.5),
        ("media.deadline_s=5", "media", "deadline_s", 5.0),
    ],
)
def test_set_reads_toml_and_takes_the_rest_as_a_string(override, section, key, value):
    found = getattr(getattr(config.load(None, [override]), section), key)
    assert (found, type(found)) == (value, type(value))


def test_set_reads_lists_and_tables():
    run = config.load(None, ["models.main.options.modes=['a', 'b']", "pools.reason={ actors = 2 }"])
    assert run.models["main"].options == {"modes": ["a", "b"]}
    assert run.pools["reason"].actors == 2


@pytest.mark.parametrize("override", ["input.limit", "=3", "  = 3"])
def test_set_without_key_or_value_says_how_to_write_it(override):
    with pytest.raises(ConfigError, match=r"give KEY=VALUE, for example --set input\.limit=100"):
        config.load(None, [override])


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("input.limt=1", "unknown key input.limt: did you mean input.limit?"),
        ("recip=x", "unknown key recip: did you mean recipe?"),
        ("media.shard_clips=1", "unknown key media.shard_clips: did you mean output.shard_clips?"),
        (
            "models.main.modle=x",
            "unknown key models.main.modle: did you mean models.main.model?",
        ),
        (
            "pools.decode.actor=1",
            "unknown key pools.decode.actor: did you mean pools.decode.actors?",
        ),
        (
            "budget.colour=1",
            "unknown key budget.colour: known keys here: "
            "failed_share, stop_early, stall_s, drain_s, usd",
        ),
    ],
)
def test_a_wrong_key_is_answered_with_the_nearest_right_one(override, sentence):
    with pytest.raises(ConfigError) as caught:
        config.load(None, [override])
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["input.limit=0"], ["input.limit", "got 0"]),
        (["language=fr"], ["language", "'en' or 'zh'", "got 'fr'"]),
        (["budget.failed_share=2"], ["budget.failed_share", "got 2"]),
        (["input=3"], ["input:", "got 3"]),
        (["media.sampling=fps"], ["media", 'fps is needed with sampling = "fps"']),
        (["input.limit=0", "recip=x"], ["input.limit", "; ", "unknown key recip"]),
    ],
)
def test_a_wrong_value_is_one_line_with_key_and_value(overrides, said):
    with pytest.raises(ConfigError) as caught:
        config.load(None, overrides)
    message = str(caught.value)
    assert "\n" not in message
    assert all(part in message for part in said), message


def test_a_file_that_is_not_there_toml_or_text_is_one_sentence(tmp_path):
    absent, broken, binary = (tmp_path / name for name in ("absent", "broken", "binary"))
    broken.write_text("recipe = \n")
    binary.write_bytes(b"\xff\xfe\x00")
    for path, said in ((absent, "No such file"), (broken, "not TOML"), (binary, "not TOML")):
        with pytest.raises(ConfigError, match=f"configuration {path}: .*{said}"):
            config.load(path)


def test_a_configuration_is_frozen():
    run = config.RunConfig()
    with pytest.raises(ValidationError, match="frozen"):
        run.input.limit = 3  # type: ignore[misc]


def test_every_known_key_can_be_set():
    keys = config.known_keys()
    assert len(set(keys)) == len(keys)
    for key in keys:
        override = key.replace("<name>", "main").replace("<step>", "decode") + "=[1, 'wrong']"
        # A list fits none of them, so the answer shows whether the key was found.
        with pytest.raises(ConfigError) as caught:
            config.load(None, [override])
        assert "unknown key" not in str(caught.value)


def test_a_digest_does_not_depend_on_the_order_of_keys():
    assert config.digest({"a": 1, "b": "文"}) == config.digest({"b": "文", "a": 1})
    assert config.digest({"a": 1}) != config.digest({"a": 1.5})
    # Pinned: fingerprints of runs on disk are made of it.
    assert config.digest({"a": [1, None]}) == (
        "a290b55a84a4e851c13e570346d396a0ff58e13e3b458112237484f9ed3b8950"
    )
