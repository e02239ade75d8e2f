"""The common ground: which family a word is in, and how labels of clips add up to families."""

from typing import get_args

import numpy as np
import polars as pl
import pytest

from emer_ray import cli
from emer_ray.metrics import families, lexicon, likeness, sides
from emer_ray.metrics.families import Ground, GroundName

WHEELS = lexicon.default()
SIX = ("neutral", "angry", "happy", "sad", "worried", "surprise")


def on(name: GroundName = "auto", closed: tuple[str, ...] | None = SIX) -> Ground:
    return families.ground(name, closed, WHEELS)


def labels(*clips: dict[str, float | None] | None) -> pl.Series:
    return sides._supported(list(clips))


def test_the_command_line_offers_what_there_is() -> None:
    assert get_args(GroundName) == cli.GROUNDS
    assert sides.SOURCES == cli.OLD_LABELS


@pytest.mark.parametrize(
    "closed",
    [
        SIX,
        ("anger", "disgust", "fear", "joy", "neutral", "sadness", "surprise"),
        ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised"),
        ("angry", "happy", "excited", "sad", "neutral", "frustrated", "fear", "surprise"),
        (
            *("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise"),
            *("contempt", "anxiety", "disappointment"),
        ),
    ],
)
def test_labels_of_a_corpus_are_told_apart(closed: tuple[str, ...]) -> None:
    ground = on(closed=closed)
    found = [ground.of(word) for word in closed]
    assert all(list(of.values()) == [1.0] for of in found)
    assert len({next(iter(of)) for of in found}) == len(closed)


def test_a_family_is_split_only_where_it_must_be() -> None:
    assert on().name == "level 1 of the wheel ekman"
    assert on().of("Cheerful ") == {"enjoyment": 1.0}
    split = on(closed=("happy", "calm", "angry"))
    assert "enjoyment among calm, happy" in split.name
    assert split.of("relaxed") == {"enjoyment: calm": 1.0}
    assert split.of("cheerful") == {"enjoyment: happy": 1.0}
    assert split.of("furious") == {"anger": 1.0}
    assert on(closed=("happy", "joy", "worried", "nervous")).name == on().name
    alike = on(closed=("sadness", "helplessness", "disappointment"))
    assert alike.of("sadness") == alike.of("helplessness") != alike.of("disappointment")
    assert on(closed=("happy", "excited")).of("relaxed") == {
        "enjoyment: excited": 0.5,
        "enjoyment: happy": 0.5,
    }


def test_other_grounds() -> None:
    assert on("plutchik").of("curious") == {"anticipation": 1.0}
    assert on("ekman", ("happy", "calm")).of("calm") == {"enjoyment": 1.0}
    valence = on("valence", None)
    signs = {word: next(iter(valence.of(word))) for word in ("happy", "sad", "surprised")}
    assert signs == {"happy": "pleasant", "sad": "unpleasant", "surprised": "neutral"}
    assert [valence.of(word) for word in families.VALENCES] == [
        {word: 1.0} for word in families.VALENCES
    ]
    assert on().mapping(["sad", "zzz"]) == {"sad": "sadness", "zzz": None}


def test_labels_add_up_to_families() -> None:
    found = families.strengths(
        labels(
            {"nervous": 0.4, "worried": 0.7, "happy": 0.1},
            {"sad": None, "angry": None},
            {},
            {"zzz": 0.9},
            None,
        ),
        on(),
    )
    assert found.families == ("anger", "enjoyment", "fear", "neutral", "sadness")
    assert found.main.to_list() == ["fear", "sadness", "neutral", None, None]
    assert found.strength[0].tolist() == [0, 0.1, 0.7, 0, 0]
    assert found.shares[0].tolist() == pytest.approx([0, 0.125, 0.875, 0, 0])
    assert found.shares[1].tolist() == [0.5, 0, 0, 0, 0.5]
    assert found.shares[3:].sum() == 0


def test_neighbours_are_the_likest_and_never_oneself() -> None:
    said = labels({"sad": 1.0}, {"sad": 0.9, "angry": 0.8}, {"happy": None}, {"sad": 0.2})
    measures = pl.Series(
        [[{"measure": "pitch", "value": hz}] for hz in (100.0, 300.0, 310.0, 110.0)]
    )
    space = likeness.space(pl.DataFrame({"new_labels": said, "measures": measures}))
    assert np.allclose(np.linalg.norm(space, axis=1), 1)
    near = likeness.nearest(space, [0, 1], [0, 1, 2, 3], 2)
    assert [place for place, _ in near[0]] == [3], "what is unlike is no neighbour"
    assert [place for place, _ in near[1]] == [2]
    assert likeness.nearest(space, [0], [0], 2) == [[]]


def test_kept_vectors_are_centred_and_may_be_missing() -> None:
    video = pl.Series([[10.0, 1.0], [10.0, -1.0], None, [10.0, 0.9]])
    audio = pl.Series([[1.0], [-1.0], [1.0], None], dtype=pl.List(pl.Float64))
    space = likeness.learned([video, audio])
    assert np.linalg.norm(space, axis=1) == pytest.approx([1, 1, 1, 1])
    assert [place for place, _ in likeness.nearest(space, [0], [1, 2, 3], 3)[0]] == [2, 3]
    assert not likeness.learned([pl.Series([None, None], dtype=pl.List(pl.Float64))]).any()
