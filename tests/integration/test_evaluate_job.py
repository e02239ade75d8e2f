"""Partitions as tasks of a local Ray give the numbers and files of one pass in memory."""

import json
import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from emer_ray.evaluate import evaluate
from emer_ray.metrics import lexicon
from emer_ray.metrics.comparison import Options

ROOT = Path(__file__).parents[2]
WORDS = ["happy", "sad", "angry", "worried", "calm", "zzzz"]


@pytest.mark.ray
def test_the_door_scores_partitions_on_ray(tmp_path: Path) -> None:
    n = 500
    ids = [f"c{i}" for i in range(n)]
    gold = [[WORDS[i % 5], WORDS[i % 3]] for i in range(n)]
    pred = [[WORDS[i % 4]] if i % 7 else [] for i in range(n)]
    for name, lists in (("gold", gold), ("pred", pred)):
        frame = pl.DataFrame({"name": ids, "openset": lists, "explanation": ["he smiles"] * n})
        frame.write_parquet(tmp_path / f"{name}.parquet")
    files = [str(tmp_path / "pred.parquet"), "--reference", str(tmp_path / "gold.parquet")]
    more = ["--partitions", "3", "--out", str(tmp_path / "out"), "--json"]
    done = subprocess.run(
        [sys.executable, "jobs/evaluate.py", *files, *more],
        cwd=ROOT,
        env={key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    whole = evaluate(files[0], files[2], Options(wheels=lexicon.default())).summary()
    assert found["clips"] == n
    for metric, values in whole["metrics"].items():
        other = found["metrics"][metric]
        assert other["n_scored"] == values["n_scored"], metric
        for key in ("value", "low", "high"):
            assert other[key] == pytest.approx(values[key], abs=1e-12), metric
    assert pl.read_parquet(tmp_path / "out" / "scores" / "*.parquet").height == n
    assert (tmp_path / "out" / "metrics.parquet").exists()
