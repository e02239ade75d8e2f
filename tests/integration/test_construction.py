"""The EMER construction from clips to checked labels in two languages, with fake models, by hand.

Serial twins of the runs: what this shows is that every step reads what the step before it wrote.
"""

from pathlib import Path
from typing import Any

import polars as pl
from openpyxl import load_workbook

from emer_ray import config, manifest, pipeline
from emer_ray.review import review_export, review_merge
from emer_ray.store import index, record
from tests import rows


def serially(listed: str, run: str, **sections: Any) -> str:
    """Run a configuration in this process; returns the run directory."""
    chosen = config.parse(
        {
            "input": {"manifest": listed},
            "output": {"run": run},
            "media": {"frames": 2, "size_px": 32},
            **sections,
        }
    )
    clips = pl.DataFrame(pl.from_arrow(manifest.load(chosen.input)))
    placed = index.assign_shards(clips, None, 4)
    index.save_manifest(run, placed)
    tables = index.shard_tables(
        index.clips_of(placed, placed["shards"].explode().unique().to_list())
    )
    flow = pipeline.steps(chosen, pipeline.Start(run=run, contained=False))
    for _ in pipeline.run_local(flow, tables):
        pass
    record.save(
        run,
        {
            "emer_ray": "test",
            "fingerprint": pipeline.fingerprint(chosen),
            "fingerprint_parts": pipeline.fingerprint_parts(chosen),
            "config": chosen.model_dump(mode="json"),
        },
    )
    return run


def filled(sheet: str, verdicts: dict[tuple[str, str], tuple[str, str]]) -> None:
    book = load_workbook(sheet)
    for row in book["review"].iter_rows(min_row=2):
        place = (row[0].value, row[1].value)
        default = ("", "") if "+" in row[1].value or row[1].value == "clip" else ("accept", "")
        row[3].value, row[4].value = verdicts.get(place, default)
    book.save(sheet)


def test_clips_become_a_checked_corpus_in_two_languages(synthetic: Path, tmp_path: Path) -> None:
    fake = {"backend": "fake"}
    listed = rows.manifest(
        tmp_path / "clips.jsonl",
        [
            {
                "clip_id": f"c{number}",
                "video_uri": str(synthetic / f"c{number}.mp4"),
                "subtitle_zh": "你今天来得真早",
                "subtitle_en": "You are early today",
            }
            for number in range(3)
        ],
    )

    # 1 and 2: machine clues; nobody has named an emotion yet
    labelled = serially(
        listed,
        str(tmp_path / "pre_label"),
        recipe="pre_label",
        language="zh",
        models=dict.fromkeys(("video", "audio", "audio_2", "text"), fake),
    )
    before = rows.stored(labelled)["c0"]
    assert [len(before[f"{s}_clues"]) for s in ("visual", "acoustic", "lexical")] == [1, 1, 0]
    assert before["labels"] == []
    assert {a["step"] for a in before["answers"]} == {"visual", "heard", "heard_again", "acoustic"}

    # 3: two rounds of people
    first = review_export(labelled, ["anna", "bo"])
    filled(
        first["sheets"][0],
        {
            ("c0", "visual.1"): ("edit", "她先皱眉，然后笑了。"),
            ("c1", "acoustic.1"): ("reject", ""),
            ("c2", "acoustic.1"): ("reject", ""),
            ("c2", "visual.1"): ("reject", ""),
        },
    )
    filled(
        first["sheets"][1],
        {
            ("c1", "acoustic.1"): ("reject", ""),
            ("c2", "acoustic.1"): ("reject", ""),
            ("c2", "visual.1"): ("reject", ""),
        },
    )
    review_merge(labelled)
    second = review_export(labelled, ["chen"], round_=2)
    filled(second["sheets"][0], {("c1", "visual.1"): ("edit", "他低下头。")})
    checked = review_merge(labelled, round_=2)["merged"]

    # 4, 5 and 7: the words in the light of checked clues, and labels, in Chinese
    replay = {"backend": "replay", "model": checked}
    chinese = serially(
        listed,
        str(tmp_path / "zh"),
        recipe="clue_multi",
        language="zh",
        models={"video": replay, "audio": replay, "text": fake},
    )
    stored = rows.stored(chinese)
    assert [clue["text"] for clue in stored["c0"]["visual_clues"]] == ["她先皱眉，然后笑了。"]
    assert stored["c0"]["explanation"].startswith("她先皱眉，然后笑了。")  # CLUE-Multi: in order
    assert stored["c1"]["acoustic_clues"] == []  # people rejected it: neither a clue nor a failure
    assert "step acoustic: the stored answer says that there is none" in stored["c1"]["notes"]
    # with no clue left the words are still there to be read
    assert stored["c2"]["visual_clues"] == []
    assert len(stored["c2"]["lexical_clues"]) == 1
    assert stored["c2"]["labels"]

    # 6 and 7: the same in English, with both lists of labels made one
    english = serially(
        listed,
        str(tmp_path / "en"),
        recipe="two_languages",
        language="en",
        models={"source": {"backend": "replay", "model": chinese}, "text": fake},
    )
    both = rows.stored(english)
    steps = {answer["step"] for answer in both["c0"]["answers"]}
    assert {"visual_there", "visual", "labels_here", "labels_translated", "labels"} <= steps
    assert "acoustic" not in {answer["step"] for answer in both["c1"]["answers"]}
    assert both["c0"]["labels"]

    # 8: people check the labels; what they made of it is a run like any other
    last = review_export(english, ["dee"])
    said = {
        "visual.1": "At first she frowns, then she smiles.",
        "acoustic.1": "Her voice is light and quick.",
        "lexical.1": "With that smile the words are teasing, no reproach.",
        "explanation": "She is glad about the visit and teases.",
    }
    edits = {("c0", item): ("edit", text) for item, text in said.items()}
    filled(last["sheets"][0], {**edits, ("c0", "label.+"): ("", "relieved; amused")})
    final = review_merge(english)["merged"]
    corpus = serially(
        listed,
        str(tmp_path / "corpus"),
        recipe="one_shot",
        models={"main": {"backend": "replay", "model": final}},
    )
    found = rows.stored(corpus)["c0"]
    assert "kind" not in found, found["message"]
    labels = {label["label"]: label["support"] for label in found["labels"]}
    assert labels["relieved"] == 1.0
    assert [clue["text"] for clue in found["visual_clues"]] == [said["visual.1"]]
    assert found["explanation"] == said["explanation"]
