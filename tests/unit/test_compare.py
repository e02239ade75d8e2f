"""`emer compare` on run directories that nobody ran, and on tables of old labels."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from emer_ray import cli, schema
from emer_ray.compare import compare
from emer_ray.errors import ConfigError
from emer_ray.evaluate import evaluate, options
from tests import run_directory

WORDS = ("happy", "angry", "sad", "worried")


def run_of(folder: Path, said: list[Any], texts: str = "because") -> str:
    clips = [
        {
            "clip_id": f"c{number:02d}",
            "video_uri": "x.mp4",
            "label_onehot": WORDS[number % 4],
            "labels": labels,
            "explanation": f"{texts} {number}",
            "source_id": f"film-{number // 2}",
        }
        for number, labels in enumerate(said)
    ]
    return run_directory.write(folder, clips)


@pytest.fixture
def runs(tmp_path: Path) -> tuple[str, str]:
    """The second run names every family that the first does, but for clips 0 to 3, and is right
    there.
    """
    right = [[WORDS[number % 4]] for number in range(24)]
    wrong = [["neutral"], [("bored", 0.9), ("angry", 0.1)], ["happy"], []]
    return (
        run_of(tmp_path / "first", [*wrong, *right[4:]]),
        run_of(tmp_path / "second", right, "for"),
    )


def test_two_runs_are_compared(runs: tuple[str, str]) -> None:
    a, b = runs
    result = CliRunner().invoke(cli.main, ["compare", a, b, "--labels", a, "--json"])
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout.splitlines()[-1])
    assert (facts["clips"], facts["changed"]) == (24, 3)
    assert facts["change"] == pytest.approx((3 + 0.9) / 24)
    shift = {each["metric"]: each for each in facts["families"]}
    assert (shift["neutral"]["a"], shift["neutral"]["b"]) == (2 / 24, 0)
    assert (shift["neutral"]["a_only"], shift["neutral"]["b_only"]) == (2, 0)
    assert shift["fear"]["difference"] == pytest.approx(1 / 24)
    hit = facts["metrics"]["hit.W1"]
    assert (hit["a"], hit["b"], hit["a_only"], hit["b_only"]) == (21 / 24, 1, 0, 3)
    assert hit["p"] == pytest.approx(2 * 0.5**3)
    assert 0 <= hit["low"] <= hit["difference"] <= hit["high"]
    for name, uri in (("a", a), ("b", b)):
        alone = evaluate(uri, a, options())
        for metric, values in facts["metrics"].items():
            assert values[name] == alone.value(metric), metric
    assert {"label": "worried", "a": 5, "b": 6} in facts["words"]
    assert "McNemar p" in result.stdout

    table = pq.read_table(Path(a) / "comparison.parquet")
    assert table.schema.equals(schema.COMPARISON)
    rows = table.to_pylist()
    assert [row["clip_id"] for row in rows[:4]] == ["c00", "c02", "c03", "c01"]
    assert [row["changed"] for row in rows[:5]] == [True, True, True, False, False]
    first = rows[0]
    assert (first["explanation_a"], first["explanation_b"]) == ("because 0", "for 0")
    assert (first["score_a"], first["score_b"]) == (0, 1)
    assert first["reference_labels"] == ["happy"]
    assert rows[2]["labels_a"] == []
    assert json.loads((Path(a) / "comparison.json").read_text())["changed"] == 3


def test_a_run_against_old_labels(runs: tuple[str, str], tmp_path: Path) -> None:
    old = tmp_path / "old.csv"
    old.write_text("name,label\n" + "".join(f"c{n:02d},{WORDS[n % 4]}\n" for n in range(20)))
    facts = compare(runs[0], str(old), options(), out=str(tmp_path / "out")).facts
    assert (facts["clips"], facts["only_a"], facts["changed"]) == (20, 4, 3)
    assert facts["metrics"] == {}
    row = pq.read_table(tmp_path / "out" / "comparison.parquet").to_pylist()[0]
    assert (row["explanation_b"], row["reference_labels"], row["score_a"]) == (None, None, None)
    assert facts["table"] == str(tmp_path / "out" / "comparison.parquet")
    assert compare(str(old), runs[0], options()).facts["table"] is None


def test_a_side_with_itself_has_no_difference(runs: tuple[str, str]) -> None:
    found = compare(runs[0], runs[0], options(), runs[0])
    assert found.facts["changed"] == 0
    for values in [*found.facts["families"], *found.facts["metrics"].values()]:
        assert values["difference"] in (0, None)
        assert values["p"] in (1, None)
    assert all(row["score_a"] == row["score_b"] for row in found.rows)
    assert "(change" not in found.table()


def test_sides_without_a_clip_in_common_are_refused(runs: tuple[str, str], tmp_path: Path) -> None:
    old = tmp_path / "old.csv"
    old.write_text("name,label\nother,sad\n")
    with pytest.raises(ConfigError, match="no clip id is on both sides"):
        compare(runs[0], str(old), options())
