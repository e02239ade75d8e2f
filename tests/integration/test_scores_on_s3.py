"""Everything that a score is made of, and what comes out, in an object store: as on a disk."""

import io
import json
from pathlib import Path
from typing import Any

import polars as pl
from click.testing import CliRunner

from emer_ray import storage
from emer_ray.cli import main

LEVELS = "level1,level2,level3\nglad,merry,gleeful\nlow,blue,teary\n"
SYNONYMS = "run,word,synonyms\n" + "".join(
    f"1,{word},\n" for word in ("glad", "merry", "gleeful", "low", "blue", "teary")
)
FORMS = "name,format\ngleeful,glee\nteary,tears\n"
FILES = {
    **{f"wheels/wheel{number}.csv": LEVELS for number in range(1, 6)},
    "wheels/wheel_synonym_runs.csv": SYNONYMS,
    "wheels/wheel_format_2026.csv": FORMS,
    "gold.csv": 'name,openset,split\na,"[glee, tears]",x\nb,[tears],y\n',
    "groups.json": '{"a": [["glee", "gleeful"]], "b": []}',
    "systems/good.csv": 'name,openset\na,"[gleeful, tears]"\nb,[tears]\n',
    "systems/bad.jsonl": '{"name": "a", "openset": ["glee"]}\n',
    "pairs.csv": "clip_id,first,second,preference\n1,good,bad,a1\n2,bad,good,same\n",
}


def emer(*arguments: str) -> dict[str, Any]:
    result = CliRunner().invoke(main, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return found


def scored(base: str) -> tuple[dict[str, Any], dict[str, Any], pl.DataFrame]:
    for name, text in FILES.items():
        storage.write(f"{base}/{name}", text.encode())
    tables = ["--reference", f"{base}/gold.csv", "--wheels", f"{base}/wheels"]
    tables += ["--groups", f"{base}/groups.json"]
    one = emer("evaluate", f"{base}/systems/good.csv", *tables, "--out", f"{base}/out")
    parted = ["--by", "split", "--partitions", "2", "--out", f"{base}/parted"]
    parts = emer("evaluate", f"{base}/systems/good.csv", *tables, *parted)
    assert parts["metrics"] == one["metrics"]
    assert storage.exists(f"{base}/parted/scores/00001.parquet")
    metrics = pl.read_parquet(io.BytesIO(storage.read(f"{base}/out/metrics.parquet")))
    assert storage.exists(f"{base}/out/scores.parquet")
    pairs = ["--preferences", f"{base}/pairs.csv"]
    return one["metrics"], emer("leaderboard", f"{base}/systems", *tables, *pairs), metrics


def test_scores_and_boards_are_the_same_in_a_bucket_and_on_a_disk(
    bucket: str, tmp_path: Path
) -> None:
    far, near = scored(f"{bucket}/deep"), scored(str(tmp_path))
    assert far[0] == near[0]
    assert far[0]["wheel.M1.f"]["version"] == "upstream-2026"
    assert far[0]["set.avg"]["value"] == 1.0
    assert far[1] == near[1]
    assert far[1]["order"] == ["good", "bad"]
    assert [rank["system"] for rank in far[1]["preferences"]] == ["good", "bad"]
    assert far[2].equals(near[2])


def test_what_is_not_in_the_bucket_is_one_sentence(bucket: str) -> None:
    for arguments in (
        ["evaluate", f"{bucket}/no.csv", "--reference", f"{bucket}/no.csv"],
        ["evaluate", f"{bucket}/no.parquet", "--reference", f"{bucket}/no.parquet"],
        ["evaluate", f"{bucket}/run", "--reference", f"{bucket}/run"],
        ["leaderboard", f"{bucket}/systems", "--reference", f"{bucket}/gold.csv"],
    ):
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 2, result.output
        assert bucket in result.stderr
        assert len(result.stderr.strip().splitlines()) == 1
