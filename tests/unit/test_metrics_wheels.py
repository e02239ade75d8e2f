"""The twelve mappings on a small made-up table, where every image can be read off."""

import csv
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from openpyxl import Workbook

from emer_ray.errors import ConfigError
from emer_ray.metrics import labels, lexicon, soft, wheels
from emer_ray.metrics.wheels import MAPPINGS, Wheels

ROWS = (
    ("glad", "merry", "gleeful"),
    ("glad", "calm", "still"),
    ("low", "blue", "teary"),
    ("low", "blue", "still"),  # a later row wins
)
FORMS = {
    "gleeful": ("gleeful",),
    "glee": ("gleeful", "teary"),
    "teary": ("teary",),
    "still": ("still",),
    "stillness": ("still",),
    "odd": ("odd",),
    "glad": ("glad",),
}
SYNONYMS = {
    "gleeful": ("gleeful", "merry"),
    "teary": ("teary",),
    "still": ("still",),
    "odd": (),
    "glad": ("glad",),
}
TABLE = Wheels("made-up", (ROWS,) * 5, FORMS, SYNONYMS)


def image(word: str) -> dict[str, str | None]:
    return dict(zip(MAPPINGS, TABLE.images[word], strict=True))


def test_images_follow_forms_then_synonyms_then_the_wheel() -> None:
    assert image("gleeful")["wheel.M1"] == "gleeful"
    assert image("gleeful")["wheel.M2"] == "gleeful"
    assert image("gleeful")["wheel.W1.L1"] == "glad"
    assert image("gleeful")["wheel.W1.L2"] == "merry"
    assert image("still")["wheel.W3.L1"] == "low"
    assert image("still")["wheel.W3.L2"] == "blue"
    assert image("glad")["wheel.W1.L2"] == "calm"  # first child in the alphabet


def test_m1_and_m2_follow_one_base_and_the_wheels_follow_all() -> None:
    glee = image("glee")
    assert glee["wheel.M1"] == "gleeful"
    # U = gleeful, merry, teary: the first in the alphabet that the wheel knows
    assert glee["wheel.W1.L1"] == "glad"


def test_a_form_without_synonyms_counts_for_m1_alone() -> None:
    assert image("odd") == {metric: "odd" if metric == "wheel.M1" else None for metric in MAPPINGS}


def scored(gold: list[list[str]], pred: list[list[str]]) -> dict[str, np.ndarray]:
    kind = pl.List(pl.String)
    g, p = labels.encode(pl.Series(gold, dtype=kind), pl.Series(pred, dtype=kind))
    return wheels.scores(g, p, TABLE)


def test_labels_are_lower_cased_and_stripped_and_duplicates_vanish() -> None:
    found = scored([[" Gleeful ", "gleeful", "nobody knows"]], [["GLEEFUL", "what"]])
    assert found["wheel.M1.p"].tolist() == [1.0]
    assert found["wheel.W1.L1.r"].tolist() == [1.0]


def test_a_reference_that_maps_to_nothing_is_skipped() -> None:
    found = scored([["odd"], []], [["glad"], ["glad"]])
    assert found["wheel.M1.p"][0] == 0.0
    assert np.isnan(found["wheel.W1.L1.p"]).all()


def test_hits_and_m_scores() -> None:
    kind = pl.List(pl.String)
    gold = pl.Series([["glad"], ["teary"], ["odd"], ["glad"]], dtype=kind)
    pred = pl.Series([["gleeful", "teary"], ["gleeful"], ["glad"], []], dtype=kind)
    g, p = labels.encode(gold, pred)
    found = wheels.hit_scores(g, p, TABLE, ["glad", "teary"])
    assert np.array_equal(found["hit.W1"], [1, 0, np.nan, 0], equal_nan=True)
    # both clusters of the data set were predicted for the first clip
    assert np.array_equal(found["mscore.W1"], [0.5, 0, np.nan, 0], equal_nan=True)
    alone = wheels.hit_scores(g, p, TABLE, ["glad"])
    assert alone["mscore.W1"][0] == 1.0


def test_soft_scores_count_near_labels() -> None:
    kind = pl.List(pl.String)
    gold = pl.Series([["gleeful"], ["gleeful"], ["gleeful"], ["odd"]], dtype=kind)
    pred = pl.Series([["gleeful", "nobody"], ["glad"], [], ["glad"]], dtype=kind)
    found = soft.scores(*labels.encode(gold, pred), TABLE)
    # glad and gleeful share level 1 on five wheels and level 2 on none
    assert np.array_equal(found["soft.p"], [1, 0.5, 0, np.nan], equal_nan=True)
    assert np.array_equal(found["soft.r"], [1, 0.5, 0, np.nan], equal_nan=True)


def write_csv(path: Path, header: list[str], rows: list[list[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def write_xlsx(path: Path, header: list[str], rows: list[list[str | None]]) -> None:
    book = Workbook()
    for row in [header, *rows]:
        book.active.append(row)
    book.save(path)


LEVELS = ["level1", "level2", "level3"]
GAPS: list[list[str | None]] = [
    ["Glad ", "merry", "gleeful"],
    [None, "calm", "still"],
    ["low", "blue", "teary"],
    [None, None, "still"],
]
RUNS = [["gleeful", ""], ["merry", "Gleeful"], ["teary", ""], ["still", ""], ["glad", "[]"]]


@pytest.mark.parametrize("kind", ["csv", "xlsx"])
def test_published_layouts_are_read(tmp_path: Path, kind: str) -> None:
    for number in range(1, 6):
        if kind == "csv":
            rows = [[cell or "" for cell in row] for row in GAPS]
            write_csv(tmp_path / f"wheel{number}.csv", LEVELS, rows)
        else:
            write_xlsx(tmp_path / f"wheel{number}.xlsx", LEVELS, GAPS)
    if kind == "csv":
        head = ["run", "word", "synonyms"]
        write_csv(tmp_path / "wheel_synonym_runs.csv", head, [["1", *row] for row in RUNS])
    else:
        head = [f"{name}_run{run}" for run in range(1, 9) for name in ("word", "synonym")]
        write_xlsx(tmp_path / "synonym.xlsx", head, [[*row] * 8 for row in RUNS])
    forms = [["gleeful", "glee"], ["teary", "['glee']"], ["still", "stillness"], ["glad", ""]]
    write_csv(tmp_path / "format.csv", ["name", "format"], forms)
    table = lexicon.load(str(tmp_path), "2025")
    assert table.version == "upstream-2025"
    assert table.wheels == (ROWS,) * 5
    assert dict(table.synonyms)["gleeful"] == ("gleeful", "merry")
    assert dict(table.forms)["glee"] == ("gleeful", "teary")
    for word in ("gleeful", "glee", "teary", "still", "glad"):
        assert table.images[word] == TABLE.images[word]


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"wheels\.json or wheel1\.csv"):
        lexicon.load(str(tmp_path))
    rows = {"wheels": {str(number): ROWS for number in range(5)}}
    (tmp_path / "wheels.json").write_text(json.dumps(rows))
    with pytest.raises(ConfigError, match="word forms of 2026"):
        lexicon.load(str(tmp_path))


def test_our_own_tables_place_every_word_on_every_wheel() -> None:
    own = lexicon.default()
    assert own.version == lexicon.DEFAULT_VERSION
    assert all(None not in row for row in own.images.values())
    for wheel in range(5):
        for level in (1, 2):
            assert len(set(own.clusters(wheel, level).values())) <= 64


@pytest.mark.parametrize(
    ("word", "level1", "level2"),
    [
        ("anger", "anger", "anger"),
        ("Frustration", "anger", "annoyance"),
        ("worry", "fear", "anxiety"),
        ("fearless", "enjoyment", "pride"),
        ("powerless", "fear", "anxiety"),
        ("neutral", "neutral", "neutral"),
        ("高兴", "enjoyment", "happiness"),
    ],
)
def test_our_own_tables_know_what_words_mean(word: str, level1: str, level2: str) -> None:
    row = dict(zip(MAPPINGS, lexicon.default().images[word.lower()], strict=True))
    assert (row["wheel.W1.L1"], row["wheel.W1.L2"]) == (level1, level2)
