"""Schemas: strict tables, and records that agree with them field by field."""

import dataclasses
import types
import typing
import weakref
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pytest

from emer_ray import records, schema

PAIRS = [
    (records.Measure, schema.MEASURE),
    (records.Clue, schema.CLUE),
    (records.Label, schema.LABEL),
    (records.Answer, schema.ANSWER),
    (records.MediaFacts, schema.MEDIA),
    (records.ModelUsed, schema.MODEL_USED),
    (records.Provenance, schema.PROVENANCE),
    (records.Receipt, schema.INDEX),
]
TABLES = {name: value for name, value in vars(schema).items() if isinstance(value, pa.Schema)}
SMALL = pa.schema([schema.CLIP_ID, schema.START_S])


def kind_of(hint: object) -> tuple[str, bool]:
    """Name the base type that a record's annotation asks of Arrow, and whether it takes None."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        inner = [arg for arg in typing.get_args(hint) if arg is not type(None)]
        assert len(inner) == 1, hint
        return kind_of(inner[0])[0], True
    if typing.get_origin(hint) is typing.Literal:
        return "string", False
    if typing.get_origin(hint) is tuple:
        return "list", False
    if typing.get_origin(hint) is Mapping:
        return "map", False
    return {str: "string", float: "double", int: "int", bool: "bool"}[hint], False  # type: ignore[index]


def kind_in(arrow: pa.DataType) -> str:
    if pa.types.is_integer(arrow):
        return "int"
    return next((name for name in ("list", "map") if str(arrow).startswith(name)), str(arrow))


@pytest.mark.parametrize(
    ("record", "arrow"), PAIRS, ids=lambda value: getattr(value, "__name__", "")
)
def test_a_record_and_its_schema_agree_in_names_order_types_and_nulls(record, arrow):
    hints = typing.get_type_hints(record)
    here = [(field.name, *kind_of(hints[field.name])) for field in dataclasses.fields(record)]
    fields = (
        list(arrow)
        if isinstance(arrow, pa.Schema)
        else [arrow.field(i) for i in range(arrow.num_fields)]
    )
    assert here == [(field.name, kind_in(field.type), field.nullable) for field in fields]


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(records.Clip)])
def test_a_clip_says_what_enters_the_pipeline(name):
    nullable = kind_of(typing.get_type_hints(records.Clip)[name])[1]
    assert schema.CLIPS.field(name).nullable == nullable


def test_a_table_keeps_rows_order_and_schema():
    table = schema.table(
        [{"clip_id": "b", "start_s": None}, {"start_s": 1.5, "clip_id": "a"}], SMALL
    )
    assert table.schema.equals(SMALL, check_metadata=True)
    assert table.to_pylist() == [
        {"clip_id": "b", "start_s": None},
        {"clip_id": "a", "start_s": 1.5},
    ]


def test_a_table_of_no_rows_has_its_columns():
    assert schema.table([], schema.EXPLANATIONS).schema.equals(schema.EXPLANATIONS)


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"clip_id": "a", "start_s": 0.0, "colour": 1}, r"row 1: unknown columns \['colour'\]"),
        ({"clip_id": "a"}, r"row 1: .*missing columns \['start_s'\]"),
        ({"clip_id": None, "start_s": 0.0}, "column clip_id: null"),
    ],
)
def test_a_table_refuses_what_arrow_would_swallow(row, complaint):
    with pytest.raises(ValueError, match=complaint):
        schema.table([{"clip_id": "ok", "start_s": 0.0}, row], SMALL)


MEASURE = dict.fromkeys(records.Measure.__dataclass_fields__) | {
    "measure": "pitch",
    "unit": "Hz",
}


@pytest.mark.parametrize(
    ("clues", "path"),
    [
        ([{"text": None, "evidence": []}], r"visual_clues\[\]\.text"),
        ([{"text": "a", "evidence": None}], r"visual_clues\[\]\.evidence"),
        ([{"text": "a", "evidence": [MEASURE | {"unit": None}]}], r"evidence\[\]\.unit"),
        ([None], r"visual_clues\[\]"),
    ],
)
def test_a_null_deep_inside_is_refused_with_its_path(clues, path):
    rows = [{"visual_clues": clues}]
    with pytest.raises(ValueError, match=path):
        schema.table(rows, pa.schema([schema.VISUAL_CLUES]))


def test_heavy_columns_hold_the_bytes_of_what_they_were_given_and_let_go_of_it():
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    turned, sound = pixels.T, np.ones(3, np.float32)
    gone = weakref.ref(sound)
    built = schema.column(
        [turned, None, b"", sound, sound.data.cast("B"), pa.py_buffer(b"ab")], pa.large_binary()
    )
    assert built.type == pa.large_binary()
    assert built.to_pylist() == [turned.tobytes(), None, b"", *[sound.tobytes()] * 2, b"ab"]
    del sound
    assert gone() is None, "a process would keep the frames of every clip it ever had"
    assert schema.column([], pa.large_binary()).to_pylist() == []
    with pytest.raises(TypeError):
        schema.column(["no bytes"], pa.large_binary())


def test_a_null_parent_hides_its_children():
    nullable = pa.schema([schema.MEDIA_FACTS, schema.MEASURES])
    table = schema.table(
        [{"media": None, "measures": None}, {"media": None, "measures": [MEASURE]}], nullable
    )
    assert table["media"].null_count == 2
    assert table["measures"][1].as_py() == [MEASURE]


def test_every_column_is_documented_and_spelled_once():
    spelled: dict[str, pa.Field] = {}
    for table, columns in TABLES.items():
        assert len(set(columns.names)) == len(columns.names), table
        for field in columns:
            assert field.metadata[b"doc"].strip(), field.name
            first = spelled.setdefault(field.name, field)
            # A failure has a stage where a clip in flight may have none.
            assert field.with_nullable(True).equals(first.with_nullable(True), check_metadata=True)


def test_the_data_contract_names_every_column_with_its_tables():
    rows = schema.documentation({"EXPLANATIONS": schema.EXPLANATIONS, "FAILURES": schema.FAILURES})
    contract = {name: (kind, tables) for name, kind, tables, _ in rows}
    assert contract.keys() == set(schema.EXPLANATIONS.names) | set(schema.FAILURES.names)
    assert contract["clip_id"] == ("string, required", "EXPLANATIONS, FAILURES")
    assert contract["labels"][0] == "list<{label, support}>, required"
    assert contract["provenance"][0] == "{fingerprint, recipe, models, versions}, required"
    assert schema.short_type(schema.LABEL_SCORES.type) == "map<string, double>"
