"""Sides of an audit: runs, tables and manifests become one frame of labels with support."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from emer_ray import schema
from emer_ray.errors import ConfigError
from emer_ray.metrics import sides
from tests import run_directory


def read(uri: str | Path, **given: Any) -> dict[str, Any]:
    frame = sides.read(str(uri), given.pop("columns", {}), parser="upstream", **given)
    return {
        row["clip_id"]: None
        if row["labels"] is None
        else {label["label"]: label["support"] for label in row["labels"]}
        for row in frame.to_dicts()
    }


def manifest(path: Path, *rows: dict[str, Any]) -> Path:
    blank = dict.fromkeys(schema.MANIFEST.names)
    table = schema.table(
        [{**blank, "clip_id": f"c{i}", "video_uri": "x", **row} for i, row in enumerate(rows)],
        schema.MANIFEST,
    )
    pq.write_table(table, path)
    return path


def test_old_labels_of_every_form(tmp_path: Path) -> None:
    path = manifest(
        tmp_path / "m.parquet",
        {"label_onehot": "sad", "label_ov": ["tired"], "valence": -1.0},
        {"label_ov": ["tired", "bored"]},
        {"label_scores": [("angry", 0.5), ("disgust", 0.3), ("happy", 0.2), ("sad", 0.0)]},
        {"label_ov": []},
        {"label_scores": [("angry", 0.0)]},
        {"valence": 2.0},
    )
    assert read(path) == {
        "c0": {"sad": None},
        "c1": {"tired": None, "bored": None},
        "c2": {"angry": 1.0, "disgust": 0.6},
        "c3": {},
        "c4": {},
        "c5": None,
    }
    assert read(path, source="openset")["c0"] == {"tired": None}
    assert read(path, source="valence")["c5"] == {"pleasant": None}
    only = manifest(tmp_path / "v.parquet", {"valence": -0.4}, {"valence": 0.0}, {})
    assert read(only) == {"c0": {"unpleasant": None}, "c1": {"neutral": None}, "c2": None}


def test_tables_of_anybody(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("name,openset\na,\"['sad', 'tired']\"\na,[angry]\nb,\n")
    assert read(table) == {"a": {"angry": None}, "b": None}
    table.write_text('name,feeling,label_scores\na,sad,"{""angry"": 1}"\n')
    assert read(table, columns={"label": "feeling"}) == {"a": {"sad": None}}
    assert read(table, columns={"label": "feeling"}, source="label_scores") == {"a": {"angry": 1}}
    table.write_text("name,label_scores\na,sad\n")
    with pytest.raises(ConfigError, match="'sad' is no JSON object"):
        read(table)
    table.write_text("name,feeling\na,sad\n")
    with pytest.raises(
        ConfigError, match=r"no clip has a label in .* the columns are clip_id, feeling"
    ):
        read(table)
    table.write_text("name,label\na,sad\n")
    with pytest.raises(ConfigError, match=r"--old valence: .* it has label"):
        read(table, source="valence")


def test_a_run_keeps_its_support(tmp_path: Path) -> None:
    run = run_directory.write(
        tmp_path / "run",
        [
            {"clip_id": "a", "video_uri": "x", "labels": [("sad", 0.7), "tired"]},
            {"clip_id": "b", "video_uri": "x", "failed": "missing", "label_onehot": "happy"},
        ],
    )
    assert read(run, also=("confidence",)) == {"a": {"sad": 0.7, "tired": None}}
    assert read(sides.manifest_of(run)) == {"a": None, "b": {"happy": None}}
    assert sides.manifest_of("other.csv") == "other.csv"
