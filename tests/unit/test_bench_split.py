"""The benchmark of the split path, small: float32 alone agrees, and what it counts is there."""

from pathlib import Path

import pytest

from emer_ray import config
from emer_ray.bench.split import _agreeing, split
from emer_ray.errors import ConfigError
from tests.tiny_settings import SMALL

pytestmark = pytest.mark.transformers


def test_answers_agree_and_bytes_are_counted(tiny: Path) -> None:
    options = {"dtype": "float32", "processor": SMALL, "batch_tokens": 1}
    main = {"backend": "transformers", "model": str(tiny / "omni3"), "max_tokens": 4}
    found = split(
        config.parse(
            {
                "models": {"main": {**main, "options": options}},
                "media": {"frames": 4, "size_px": 64},
            }
        ),
        clips=2,
    )
    assert (found["clips"], found["answers_equal"]) == (2, 1)
    assert found["equal_before_first_difference"] == 1
    assert found["embedding_bytes"] > 0
    assert found["media_bytes"] >= 2 * 4 * 64 * 64 * 3
    assert found["ratio"] > 0


def test_agreement_ends_at_the_first_difference() -> None:
    assert _agreeing("abcd", "abcd") == 1
    assert _agreeing("abcd", "abxd") == 0.5
    assert _agreeing("ab", "abcd") == 0.5
    assert _agreeing("", "a") == 0


def test_a_configuration_without_such_a_model_is_refused() -> None:
    with pytest.raises(ConfigError, match="no step of the recipe looks through a model of"):
        split(config.parse({"models": {"main": {"backend": "fake"}}}))
