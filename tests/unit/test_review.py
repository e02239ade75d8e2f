"""Rounds of human checks: sheets that survive a spreadsheet, fair merging, right agreement."""

import csv
import io
import json
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from nltk.metrics import binary_distance
from openpyxl import load_workbook

from emer_ray import cli
from emer_ray.errors import ConfigError
from emer_ray.review import review, review_export, review_merge
from emer_ray.rounds import agreement, items, merging, sheets
from tests import run_directory

HOSTILE = '=HYPERLINK("http://evil.example","open me")'
CLIPS: list[dict[str, Any]] = [
    {
        "clip_id": "0001",
        "video_uri": "/v/1.mp4",
        "start_s": 1.5,
        "end_s": 4.0,
        "subtitle": "\u202eevil\x07 <script>alert(1)</script>\n@SUM(A1)",
        "visual": ["He smiles.", HOSTILE],
        "acoustic": ["The voice is flat."],
        "explanation": "-2+3+cmd|' /C calc'!A0 is what he says.",
        "labels": [("happy", 0.9), ("calm", 0.4)],
        "licence_tag": "gated:MER2023",
    },
    {
        "clip_id": "-3g5yACwYnA_1",
        "video_uri": "/v/2.mp4",
        "visual": ["她哭了。"],
        "labels": ["sad"],
    },
    {"clip_id": "1e5", "audio_uri": "/v/3.wav", "labels": []},
    {"clip_id": "gone", "video_uri": "/v/4.mp4", "failed": "corrupt"},
]


@pytest.fixture
def run(tmp_path: Path) -> str:
    return run_directory.write(tmp_path / "run", CLIPS)


def filled(
    uri: str, verdicts: Mapping[tuple[str, str], tuple[str, str]], rest: str | None = "accept"
) -> None:
    """Fill a sheet as a person would: in its xlsx cells, found by clip and item."""
    book = load_workbook(uri)
    sheet = book["review"]
    for row in sheet.iter_rows(min_row=2):
        clip_id, item = row[0].value, row[1].value
        verdict, text = verdicts.get((clip_id, item), (None, None))
        if verdict is None and rest and item != "clip" and "+" not in item:
            verdict = rest
        row[3].value, row[4].value = verdict, text
        if text:
            row[
                4
            ].data_type = "s"  # the cell is marked as text: programs take what is typed as it is
    book.save(uri)


def merged_rows(found: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["clip_id"]: row for row in pq.read_table(found["merged"]).to_pylist()}


def test_alpha_is_that_of_krippendorffs_own_example() -> None:
    """Krippendorff 2011, "Computing Krippendorff's alpha-reliability", data with gaps: 0.743."""
    columns = {
        "A": [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
        "B": [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
        "C": [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
        "D": [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
    }
    units = {
        str(unit): {who: said[unit] for who, said in columns.items() if said[unit] is not None}
        for unit in range(12)
    }
    assert agreement.alpha(units, binary_distance) == pytest.approx(0.743, abs=5e-4)
    # sets of one word each are a nominal scale
    as_sets = {
        unit: {who: frozenset([str(value)]) for who, value in said.items()}
        for unit, said in units.items()
    }
    for distance in (agreement.masi, agreement.jaccard):
        assert agreement.alpha(as_sets, distance) == pytest.approx(0.743, abs=5e-4)


def test_alpha_of_sets_is_one_less_observed_over_expected_disagreement() -> None:
    a, b = frozenset({"sad", "tired"}), frozenset({"sad"})
    # Passonneau 2006: one set inside the other counts two thirds of their Jaccard index
    assert agreement.masi(a, b) == pytest.approx(1 - 1 / 2 * 2 / 3)
    assert agreement.masi(a, frozenset({"sad", "angry"})) == pytest.approx(1 - 1 / 3 * 1 / 3)
    assert (
        agreement.masi(frozenset(), frozenset()) == 0 == agreement.jaccard(frozenset(), frozenset())
    )
    assert agreement.masi(a, frozenset()) == 1
    said = {"1": {"x": a, "y": b}, "2": {"x": b, "y": frozenset()}, "3": {"x": a}}
    values = [a, b, b, frozenset()]
    observed = (agreement.masi(a, b) + agreement.masi(b, frozenset())) / 2
    pairs = [(v, w) for i, v in enumerate(values) for j, w in enumerate(values) if i != j]
    expected = sum(agreement.masi(v, w) for v, w in pairs) / len(pairs)
    assert agreement.alpha(said, agreement.masi) == pytest.approx(1 - observed / expected)
    assert agreement.alpha({"1": {"x": a, "y": a}}, agreement.masi) is None  # nothing to expect
    assert agreement.alpha({"1": {"x": a}, "2": {"y": b}}, agreement.masi) is None  # nobody twice


def test_a_sheet_is_inert_and_survives_a_spreadsheet(run: str, tmp_path: Path) -> None:
    found = review_export(run, ["anna", "bo"], endings=["xlsx", "csv", "jsonl", "parquet"])
    assert (found["clips"], found["items"]) == (3, 8)
    place = Path(found["folder"])
    with zipfile.ZipFile(place / "sheets/anna.xlsx") as archive:
        parts = {name: archive.read(name).decode() for name in archive.namelist()}
    assert "<f>" not in parts["xl/worksheets/sheet1.xml"]  # no cell is a formula
    assert 'quotePrefix="1"' in parts["xl/styles.xml"]
    shown = "".join(parts.values())
    assert "\u202e" not in shown
    assert "\x07" not in shown
    told = load_workbook(place / "sheets/anna.xlsx")["review"]
    cells = {(row[0].value, row[1].value): row for row in told.iter_rows(min_row=2)}
    assert cells["0001", "visual.2"][2].value == HOSTILE  # its letters are all there
    assert cells["0001", "visual.2"][2].data_type == "s"
    assert cells["0001", "clip"][7].value == "/v/1.mp4#t=1.5,4"
    assert cells["1e5", "clip"][0].value == "1e5"
    assert ("gone", "clip") not in cells

    text = (place / "sheets/anna.csv").read_bytes()
    assert text.startswith(b"\xef\xbb\xbf")
    rows = list(csv.reader(io.StringIO(text.decode("utf-8-sig"), newline="")))
    starts = {cell[0] for row in rows for cell in row if cell}
    assert not starts & set("=@\t\r")
    given = {row[2] for row in rows}
    assert f"'{HOSTILE}" in given
    assert {row[0] for row in rows[1:]} == {"0001", "-3g5yACwYnA_1", "1e5"}  # ids stay ids

    # each form gives the same judgements back, and a semicolon for a comma does no harm
    by_form = {
        ending: sheets.read(f"anna.{ending}", (place / f"sheets/anna.{ending}").read_bytes())
        for ending in sheets.ENDINGS
    }
    semicolons = io.StringIO(newline="")
    csv.writer(semicolons, delimiter=";").writerows(rows)
    by_form["semicolons"] = sheets.read("anna.csv", semicolons.getvalue().encode())
    given = {each.item: each for each in items_of(place) if each.clip_id == "0001"}
    for name, marks in by_form.items():
        assert [(m.clip_id, m.item) for m in marks] == [
            (m.clip_id, m.item) for m in by_form["parquet"]
        ], name
        assert merging.checked(name, marks, items_of(place), 1) == [], name
    assert given["clip"].given == CLIPS[0]["subtitle"]  # what was given is kept to the letter


def items_of(place: Path) -> list[items.Given]:
    return [items.Given(**row) for row in pq.read_table(place / "items.parquet").to_pylist()]


def test_two_rounds_of_two_annotators_merge(run: str) -> None:
    first = review_export(run, ["anna", "bo", "chen"])
    anna, bo, chen = first["sheets"]
    filled(
        anna,
        {
            ("0001", "visual.2"): ("reject", ""),
            ("0001", "acoustic.1"): ("edit", "The voice trembles."),
            ("0001", "label.2"): ("edit", "Nervous; uneasy"),
            ("0001", "label.+"): ("", "shy，proud"),
            ("-3g5yACwYnA_1", "visual.+"): ("add", "=She wipes a tear."),
            ("1e5", "clip"): ("accept", ""),
        },
    )
    filled(
        bo,
        {
            ("0001", "visual.2"): ("reject", ""),
            ("0001", "acoustic.1"): ("edit", "The voice is  trembling."),
            ("0001", "label.2"): ("reject", ""),
            ("1e5", "label.+"): ("", "bored"),
        },
    )
    filled(chen, {("0001", "explanation"): ("reject", "")})
    found = review_merge(run)
    assert (found["clips"], found["reviewed"]) == (3, 3)
    rows = merged_rows(found)
    one = rows["0001"]
    assert [clue["text"] for clue in one["visual_clues"]] == ["He smiles."]
    # two corrections and one acceptance: one each, so a correction goes first, and it is listed
    assert [clue["text"] for clue in one["acoustic_clues"]] == ["The voice trembles."]
    assert one["explanation"] == CLIPS[0]["explanation"]
    support = {label["label"]: label["support"] for label in one["labels"]}
    assert support == pytest.approx(
        {"happy": 1, "nervous": 1 / 3, "uneasy": 1 / 3, "calm": 1 / 3, "shy": 1 / 3, "proud": 1 / 3}
    )
    assert one["annotators"] == ["anna", "bo", "chen"]
    assert one["licence_tag"] == "gated:MER2023"
    assert [c["text"] for c in rows["-3g5yACwYnA_1"]["visual_clues"]] == [
        "她哭了。",
        "=She wipes a tear.",
    ]
    conflicts = pq.read_table(f"{first['folder']}/conflicts.parquet").to_pylist()
    why = {(row["clip_id"], row["item"]): row["reason"] for row in conflicts}
    assert why == {
        ("0001", "visual.2"): "split",
        ("0001", "acoustic.1"): "edits",
        ("0001", "explanation"): "split",
        ("0001", "label.2"): "split",
    }
    figures = json.loads(Path(first["folder"], "agreement.json").read_text())
    assert figures["labels"]["clips"] == 3
    assert figures["annotators"]["bo"]["rejected"] == 2
    assert math.isclose(figures["annotators"]["chen"]["kept_share"], 7 / 8)

    # merging again changes nothing; exporting again would lose what people wrote
    assert review_merge(run)["alpha_masi"] == found["alpha_masi"]
    with pytest.raises(ConfigError, match="exported before"):
        review_export(run, ["anna"])

    second = review_export(run, ["dee", "eli"], round_=2, endings=["csv"])
    given = {(e.clip_id, e.item): e.given for e in items_of(Path(second["folder"]))}
    assert given["0001", "acoustic.1"] == "The voice trembles."
    assert given["-3g5yACwYnA_1", "visual.2"] == "=She wipes a tear."
    again = review_merge(run, round_=2)
    assert again["reviewed"] == 0  # nobody has judged yet: everything stays as it was given
    assert [c["text"] for c in merged_rows(again)["0001"]["acoustic_clues"]] == [
        "The voice trembles."
    ]


def test_ties_flags_and_thresholds() -> None:
    def given(item: str, text: str | None) -> items.Given:
        return items.Given(clip_id="c", item=item, given=text, annotators=["a", "b"])

    def mark(who: str, item: str, verdict: Any, text: str | None = None, **more: Any) -> items.Mark:
        plain: dict[str, Any] = {"note": None, "flag": None, "look_at": None, "round": 1} | more
        return items.Mark(
            clip_id="c", item=item, given=None, verdict=verdict, text=text, annotator=who, **plain
        )

    shown = [given("clip", "hi"), given("visual.1", "He nods."), given("label.1", "sad")]
    marks = [
        mark("a", "visual.1", "reject"),
        mark("b", "visual.1", "accept"),
        mark("a", "label.1", "reject"),
        mark("b", "label.1", "reject"),
        mark("b", "label.+1", "add", "calm"),
        mark("b", "clip", None, note="dark", flag=True),
    ]
    found = merging.merge(shown, marks, 1)
    (row,) = found.rows
    assert [clue["text"] for clue in row["visual_clues"]] == ["He nods."]
    assert row["labels"] == [{"label": "calm", "support": 0.5}]
    assert row["flagged_by"] == ["b"]
    assert row["notes"] == ["b: dark"]
    assert {c["item"]: c["reason"] for c in found.conflicts} == {"visual.1": "tie", "clip": "flag"}
    assert merging.merge(shown, marks, 1, min_support=0.6).rows[0]["labels"] == []
    sets = merging.label_sets(shown, marks)
    assert sets == {"c": {"a": frozenset(), "b": frozenset({"calm"})}}


@pytest.mark.parametrize(
    ("column", "value", "says"),
    [
        ("C", "something else", "restore the column given"),
        ("B", "visual.9", "no such item was given"),
        ("A", "9999", "no such clip was given"),
        ("I", "mallory", "not to mallory"),
        ("J", "2", "belongs to round 2"),
        ("D", "maybe", "none of accept, edit, reject, add"),
        ("E", "words", "write edit"),
    ],
)
def test_a_damaged_sheet_is_refused_in_a_sentence(
    run: str, column: str, value: str, says: str
) -> None:
    (uri,) = review_export(run, ["anna"])["sheets"]
    filled(uri, {})
    book = load_workbook(uri)
    book["review"][f"{column}3"] = value  # the row of 0001, visual.1
    book.save(uri)
    with pytest.raises(ConfigError, match=says):
        review_merge(run)


def test_work_is_shared_out_evenly_and_in_changing_company() -> None:
    clips = [str(number) for number in range(40)]
    found = items.shared_out(clips, ["a", "b", "c", "d"], 2, seed=3)
    counts = {name: sum(name in who for who in found.values()) for name in "abcd"}
    assert set(counts.values()) == {20}
    assert len({tuple(who) for who in found.values()}) >= 5
    assert found == items.shared_out(clips, ["a", "b", "c", "d"], 2, seed=3)
    with pytest.raises(ConfigError, match="per-clip"):
        items.shared_out(clips, ["a"], 2, seed=0)
    for names in (["../x"], ["a", "A"], [""]):
        with pytest.raises(ConfigError):
            items.named(names)


def test_the_page_is_refused_where_it_would_give_media_away(
    run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="gated:MER2023 are served to this machine only"):
        review(run, annotators=["anna"], host="0.0.0.0", port=0)
    with pytest.raises(ConfigError, match="this round is of anna"):
        review(run, annotators=["bo"], port=0)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    with pytest.raises(ConfigError, match="set HOME"):
        review(run, port=0)


def test_the_commands_speak_json_and_take_sheets_from_elsewhere(run: str, tmp_path: Path) -> None:
    runner = CliRunner()
    wanted = tmp_path / "suspects.csv"
    wanted.write_text("clip_id\n1e5\n0001\nunknown\n")
    out = str(tmp_path / "elsewhere")
    exported = runner.invoke(
        cli.main,
        [
            *("review", "export", run, "--annotators", "anna,bo", "-o", out, "--json"),
            *("--clips", str(wanted), "--format", "csv"),
        ],
    )
    assert exported.exit_code == 0, exported.output
    found = json.loads(exported.stdout.splitlines()[-1])
    assert found["clips"] == 2
    assert found["folder"] == f"{out}/round1"
    sent = tmp_path / "anna (1).csv"
    sent.write_bytes(
        Path(found["sheets"][0])
        .read_bytes()
        .replace(b"visual.1,He smiles.,,", b"visual.1,He smiles.,accept,")
    )
    merged = runner.invoke(cli.main, ["review", "merge", run, str(sent), "-o", out, "--json"])
    assert merged.exit_code == 0, merged.output
    assert json.loads(merged.stdout.splitlines()[-1])["annotators"]["anna"]["judged"] == 1
    again = tmp_path / "anna (2).csv"
    again.write_bytes(sent.read_bytes())
    twice = runner.invoke(cli.main, ["review", "merge", run, str(sent), str(again), "-o", out])
    assert twice.exit_code == 2
    assert "name the sheets that count" in twice.output
    early = runner.invoke(cli.main, ["review", "export", run, "--annotators", "x", "--round", "2"])
    assert early.exit_code == 2
    assert "round 1 is not merged yet" in early.output
