"""Stored answers in the shapes that people publish, without running anybody's pickle."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from emer_ray import parse, prompts
from emer_ray.config import ModelConfig
from emer_ray.errors import ClipError, ConfigError
from emer_ray.reason.replay import ReplayReasoner
from emer_ray.records import NOTHING, Answer, AnswerForm, Clues, Reply
from tests import run_directory


def replayed(path: Path, form: AnswerForm, clip_id: str = "a", **columns: str) -> Any:
    model = ModelConfig(backend="replay", model=str(path), options={"columns": columns})
    question = prompts.question(step="s", prompt="explain", form=form, language="en")
    request, _ = prompts.render(question, Clues(clip_id=clip_id), {})
    (found,) = ReplayReasoner(model).explain([request])
    return found


def read(path: Path, form: AnswerForm, **columns: str) -> parse.Reading:
    reply = replayed(path, form, **columns)
    assert isinstance(reply, Reply), reply
    return parse.read(
        Answer(
            step="s", sample=0, raw=reply.raw, finish="stop", tokens_in=0, tokens_out=0, latency_s=0
        ),
        form,
        ("happy", "sad"),
    )


def labels(reading: parse.Reading) -> list[str]:
    return [label.label for label in reading.labels]


def test_an_openset_cell_is_read_from_csv(tmp_path: Path) -> None:
    path = tmp_path / "openset.csv"
    path.write_text("name,openset\na,\"['happy', 'at ease']\"\nb,\"sad,worried\"\n")
    assert labels(read(path, "labels")) == ["happy", "at ease"]
    other = replayed(path, "labels", "b")
    assert parse.read(
        Answer(
            **{"step": "s", "sample": 0, "raw": other.raw, "finish": "stop"},
            **{"tokens_in": 0, "tokens_out": 0, "latency_s": 0.0},
        ),
        "labels",
    ).text == ("sad, worried")


def test_name2reason_is_read_from_json(tmp_path: Path) -> None:
    for found in ({"a": "He smiles."}, {"name2reason": {"a": "He smiles."}}):
        path = tmp_path / "reasons.json"
        path.write_text(json.dumps(found))
        assert read(path, "account").text == "He smiles."


def test_rows_are_read_from_jsonl_and_parquet(tmp_path: Path) -> None:
    said = "He\u2028smiles."  # ends a line for str.splitlines, not for JSON
    rows = [{"clip_id": "a", "reason": said, "openset": ["happy"], "valence": 2.5}]
    lines, table = tmp_path / "rows.jsonl", tmp_path / "rows.parquet"
    lines.write_text(json.dumps(rows[0], ensure_ascii=False) + "\n")
    pq.write_table(pa.Table.from_pylist(rows), table)
    for path in (lines, table):
        found = read(path, "explanation")
        assert found.explanation is not None
        assert (found.explanation.explanation, labels(found)) == (said, ["happy"])
        assert read(path, "valence").value == 2.5


def test_a_submission_is_read_from_npz_and_a_pickle_is_not(tmp_path: Path) -> None:
    path = tmp_path / "pred.npz"
    np.savez(path, filenames=np.array(["a", "b"]), fileitems=np.array(["[happy]", "[sad]"]))
    assert labels(read(path, "labels")) == ["happy"]
    np.savez(path, a=np.array("He smiles."))
    assert read(path, "account").text == "He smiles."
    np.savez(path, name2reason=np.array({"a": "He smiles."}, dtype=object))
    with pytest.raises(ConfigError, match="pickle, which can run code"):
        read(path, "account")


def test_columns_can_be_named_and_a_whole_answer_wins(tmp_path: Path) -> None:
    path = tmp_path / "system.csv"
    path.write_text("vid,said,english\na,{},He smiles.\n")
    assert read(path, "account", id="vid").text == "He smiles."
    path.write_text('vid;x\na,"{""labels"": [""sad""]}"\n'.replace(";", ","))
    assert labels(read(path, "explanation", id="vid", answer="x")) == ["sad"]


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    path = tmp_path / "openset.csv"
    path.write_text("name,openset\na,\n")
    missing = replayed(path, "labels", "z")
    assert isinstance(missing, ClipError)
    assert missing.kind == "no_answer"
    assert replayed(path, "account").kind == "no_answer"
    for text, said in (
        ("name,openset\na,x\na,y\n", "has two rows"),
        ("colour\nred\n", "needs a clip id"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=said):
            read(path, "labels")
    with pytest.raises(ConfigError, match="no column 'x'"):
        read(path, "labels", labels="x")
    (tmp_path / "x.txt").write_text("a")
    with pytest.raises(ConfigError, match="neither a run directory with explanations nor a csv"):
        read(tmp_path / "x.txt", "labels")


def test_a_run_and_a_merged_round_are_replayed_with_their_clues(tmp_path: Path) -> None:
    run = Path(
        run_directory.write(
            tmp_path / "run",
            [
                {
                    **{"clip_id": "a", "video_uri": "a.mp4", "visual": ["He nods.", "He smiles."]},
                    **{"explanation": "He agrees.", "labels": [("glad", 0.5)]},
                },
                {"clip_id": "gone", "video_uri": "b.mp4", "failed": "corrupt"},
            ],
        )
    )
    whole = read(run, "explanation").explanation
    assert whole is not None
    assert [clue.text for clue in whole.visual_clues] == ["He nods.", "He smiles."]
    assert [(label.label, label.support) for label in whole.labels] == [("glad", 0.5)]
    assert read(run, "visual").text == "He nods. He smiles."
    assert read(run, "account").text == "He agrees."
    # the run knows of acoustic clues, and this clip has none: no failure, and no answer
    assert (replayed(run, "acoustic").raw, replayed(run, "acoustic").finish) == ("", NOTHING)
    assert replayed(run, "visual", "gone").kind == "no_answer"
    cells = tmp_path / "cells.csv"
    cells.write_text('clip_id,visual,labels\na,"[""One."", ""Two.""]",\nb,Just this.,\n')
    assert read(cells, "visual").text == "One. Two."
    assert replayed(cells, "visual", "b").raw == "Just this."
