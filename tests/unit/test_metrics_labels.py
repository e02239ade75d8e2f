"""Reading label cells: the two parsers, and columns as numbers."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emer_ray.metrics import labels


@pytest.mark.parametrize(
    ("cell", "wanted"),
    [
        (None, []),
        (float("nan"), []),
        ("", []),
        ("   ", []),
        ("[]", []),
        ("[", []),
        ("['happy','sad']", ["happy", "sad"]),
        ('"happy", "sad"', ["happy", "sad"]),
        ("[happy, sad", ["happy", "sad"]),
        ("happy, sad]", ["happy", "sad"]),
        ("['don't']", ["don", "t"]),
        ("happy; sad", ["happy; sad"]),
        ("happy，sad", ["happy，sad"]),
        ("[],focused", ["]", "focused"]),
        (" ['happy']", ["[", "happy"]),
        ("[ happy ,  , sad ]", ["happy", "sad"]),
        (["As Is ", "x"], ["As Is ", "x"]),
        ((), []),
    ],
)
def test_the_upstream_parser_keeps_its_oddities(cell: object, wanted: list[str]) -> None:
    assert labels.parse(cell) == wanted  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("cell", "wanted"),
    [
        ('["happy", "don\'t care"]', ["happy", "don't care"]),
        ("['don't care', happy]", ["don't care", "happy"]),
        ("happy，sad、angry；calm", ["happy", "sad", "angry", "calm"]),
        ("[],focused", ["focused"]),
        ("[]", []),
        ("", []),
        ("[1, 2]", ["1", "2"]),
        ("高兴，惊讶", ["高兴", "惊讶"]),
    ],
)
def test_the_robust_parser_repairs(cell: str, wanted: list[str]) -> None:
    assert labels.parse(cell, "robust") == wanted


@given(st.lists(st.one_of(st.none(), st.text(max_size=30)), max_size=20))
def test_a_column_of_cells_is_read_as_cell_by_cell(cells: list[str | None]) -> None:
    (encoded,) = labels.encode(pl.Series(cells, dtype=pl.String))
    assert _rows(encoded) == [labels.parse(cell) for cell in cells]


@given(st.lists(st.lists(st.sampled_from(["a", "b", "A", " "]), max_size=4), max_size=20))
def test_a_column_of_lists_is_taken_as_it_is(lists: list[list[str]]) -> None:
    column = pl.Series(lists, dtype=pl.List(pl.String))
    encoded, again = labels.encode(column, column)
    assert _rows(encoded) == lists
    assert encoded.words == again.words
    assert (encoded.codes == again.codes).all()


def test_nulls_inside_lists_and_whole_null_columns_are_no_labels() -> None:
    holes = pl.Series([["a", None], None], dtype=pl.List(pl.String))
    nothing = pl.Series([None, None])
    one, two = labels.encode(holes, nothing)
    assert _rows(one) == [["a"], []]
    assert _rows(two) == [[], []]


def test_recoding_drops_words_without_an_image() -> None:
    (encoded,) = labels.encode(pl.Series([["a", "b"], [], ["b"]]))
    images = labels.number({"a": "A", "b": None}[word] for word in encoded.words)
    recoded = encoded.recode(images)
    assert _rows(recoded) == [["A"], [], []]
    assert np.array_equal(recoded.sizes, [1, 0, 0])


def _rows(encoded: labels.Labels) -> list[list[str]]:
    bounds = zip(encoded.offsets[:-1], encoded.offsets[1:], strict=True)
    return [[encoded.words[code] for code in encoded.codes[a:b]] for a, b in bounds]
