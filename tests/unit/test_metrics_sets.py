"""Set scores: three ways to the same sizes, and the rules about empty sets and synonyms."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emer_ray.errors import ConfigError
from emer_ray.metrics import labels, sets

few = st.lists(st.sampled_from("abcdef"), max_size=5)
many = st.lists(st.integers(0, 200).map(str), max_size=25)


@given(st.lists(st.tuples(few, few), max_size=12))
def test_masks_give_the_sizes_of_python_sets(pairs: list[tuple[list[str], list[str]]]) -> None:
    _compare(pairs)


@given(st.lists(st.tuples(many, many), max_size=12))
def test_columns_and_pairs_do_too(pairs: list[tuple[list[str], list[str]]]) -> None:
    filler = ([str(number) for number in range(100)], [])  # more names than bits in a word
    _compare([*pairs, filler])
    _compare([*((g[:16], p[:16]) for g, p in pairs), *_short(filler[0])])


def _short(words: list[str]) -> list[tuple[list[str], list[str]]]:
    return [(words[start : start + 10], []) for start in range(0, len(words), 10)]


def _compare(pairs: list[tuple[list[str], list[str]]]) -> None:
    kind = pl.List(pl.String)
    gold, pred = (pl.Series([pair[side] for pair in pairs], dtype=kind) for side in (0, 1))
    g, p = labels.encode(gold, pred)
    found = sets.overlap(g, p, labels.number(g.words))
    for i, (one, two) in enumerate(pairs):
        a, b = set(one), set(two)
        assert (found.n_gold[i], found.n_pred[i], found.n_both[i]) == (len(a), len(b), len(a & b))


@pytest.mark.parametrize("widths", [(3, 60, 2, 64, 1), (64, 64), (65, 3), (0, 2)])
def test_mappings_that_share_a_word_do_not_mix(widths: tuple[int, ...]) -> None:
    words = [str(number) for number in range(70)]
    gold = pl.Series([words[i : i + 5] for i in range(60)])
    pred = pl.Series([words[i : i + 3] for i in range(60)])
    g, p = labels.encode(gold, pred)
    mappings = [
        labels.number(str(int(w) % width) if width and int(w) < 68 else None for w in g.words)
        for width in widths
    ]
    for found, images in zip(sets.overlaps(g, p, mappings), mappings, strict=True):
        one, two = g.recode(images), p.recode(images)
        for i in range(60):
            a = set(one.codes[one.offsets[i] : one.offsets[i + 1]].tolist())
            b = set(two.codes[two.offsets[i] : two.offsets[i + 1]].tolist())
            sizes = (found.n_gold[i], found.n_pred[i], found.n_both[i])
            assert sizes == (len(a), len(b), len(a & b))


def test_an_empty_reference_is_not_scored_and_an_empty_prediction_scores_0() -> None:
    g, p = labels.encode(pl.Series([["a"], [], []]), pl.Series([[], ["a"], []]))
    found = sets.overlap(g, p, labels.number(g.words))
    assert np.array_equal(found.precision, [0, np.nan, np.nan], equal_nan=True)
    assert np.array_equal(found.recall, [0, np.nan, np.nan], equal_nan=True)
    assert np.array_equal(found.jaccard, [0, np.nan, np.nan], equal_nan=True)


def test_unlike_sides_are_refused() -> None:
    (g,) = labels.encode(pl.Series([["a"]]))
    (p,) = labels.encode(pl.Series([["b"]]))
    with pytest.raises(ValueError, match="same clips"):
        sets.overlap(g, p, labels.number(g.words))


def test_groups_stand_for_their_first_word_and_later_groups_win() -> None:
    found = sets.grouped(
        [["Joyful", "sad"], ["a"], ["joyful "]],
        [["happy"], ["b"], ["happy"]],
        [[["happy", "joyful"], ["blue", "sad"]], [["a", "b"], ["c", "b"]], [["happy", "joyful"]]],
    )
    assert found.n_gold.tolist() == [2, 1, 1]
    assert found.n_both.tolist() == [1, 0, 0]  # "b" belongs to "c"; "joyful " is not stripped


def test_groups_are_read_from_an_answer() -> None:
    assert sets.groups_of("[['joyful', 'happy'], ['sad']]") == [["joyful", "happy"], ["sad"]]
    assert sets.groups_of("[[], , 'a' ]") == [["a"]] or sets.groups_of("") == []
    text = '{"x": "[[\'a\', \'b\']]", "y": [["c"]]}'
    assert sets.read_groups(text) == {"x": [["a", "b"]], "y": [["c"]]}


@pytest.mark.parametrize("text", ["{", "[]"])
def test_what_is_no_groups_file_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--groups"):
        sets.read_groups(text)
