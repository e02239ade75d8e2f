"""Planted label errors through whole runs on Ray: stored evidence in, ranked doubts out.

The small one is on S3 from end to end; the slow one is the size that the project promises.
"""

import io
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner

from emer_ray import cli, config, storage
from emer_ray.audit import audit
from emer_ray.relabel import relabel
from emer_ray.runner import Cluster
from tests import planted, rows

pytestmark = pytest.mark.ray


def replayed(base: str, sound: str, corpus: planted.Planted, name: str = "run") -> str:
    """Relabel a planted corpus with its stored evidence; returns the run directory."""
    answers, manifest = (storage.join(base, f"{name}.{kind}.jsonl") for kind in ("pred", "clips"))
    ids = corpus.clip_ids()
    lines = [
        {
            "name": clip_id,
            "reason": f"what speaks for it in {clip_id}",
            "openset": [{"label": label, "support": support} for label, support in said],
        }
        for clip_id, said in zip(ids, corpus.labels(), strict=True)
    ]
    clips: list[dict[str, Any]] = [
        {"clip_id": clip_id, "audio_uri": sound, "label_onehot": word, "speaker": f"s{n % 40}"}
        for n, (clip_id, word) in enumerate(zip(ids, corpus.old_words(), strict=True))
    ]
    for uri, listed in ((answers, lines), (manifest, clips)):
        text = "".join(json.dumps(row) + "\n" for row in listed)
        storage.write(uri, text.encode())
    run = storage.join(base, name)
    summary = relabel(
        config.parse(
            {
                "input": {"manifest": manifest},
                "output": {"run": run, "shard_clips": 64},
                "models": {"main": {"backend": "replay", "model": answers}},
                "modalities": ["audio", "text"],
            }
        )
    )
    assert summary["ok"] == len(ids)
    return run


def on_top(run: str, corpus: planted.Planted) -> float:
    ranked = pl.read_parquet(io.BytesIO(storage.read(storage.join(run, "audit.parquet"))))
    wrong = {name for name, bad in zip(corpus.clip_ids(), corpus.wrong, strict=True) if bad}
    top = ranked.sort("rank")["clip_id"][: len(ranked) // 10]
    return len(wrong & set(top)) / len(wrong)


@pytest.mark.s3
def test_planted_errors_are_found_on_s3(local_ray: Cluster, synthetic: Path, bucket: str) -> None:
    sound = storage.join(bucket, "voice.wav")
    storage.write(sound, (synthetic / "voice.wav").read_bytes())
    corpus = planted.corpus(7, clips=192, evidence="clean", support="informative")
    run = replayed(bucket, sound, corpus)
    result = CliRunner().invoke(cli.main, ["audit", run, "--json"])
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout.splitlines()[-1])
    assert facts["disagree"] == corpus.wrong.sum()
    assert facts["noise_low"] <= corpus.wrong.mean() <= facts["noise_high"]
    assert on_top(run, corpus) >= 0.8
    listed = {row["clip_id"]: row for row in rows.stored(run).values()}
    first = pl.read_parquet(io.BytesIO(storage.read(storage.join(run, "audit.parquet")))).row(
        0, named=True
    )
    assert first["explanation"] == listed[first["clip_id"]]["explanation"] != ""

    other = planted.corpus(7, clips=192, evidence="rows")
    second = replayed(bucket, sound, other, "second")
    result = CliRunner().invoke(cli.main, ["compare", run, second, "--labels", run, "--json"])
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout.splitlines()[-1])
    assert facts["metrics"]["hit.W1"]["high"] < 0
    assert facts["metrics"]["hit.W1"]["p"] < 1e-6
    assert storage.exists(storage.join(run, "comparison.parquet"))


@pytest.mark.slow
@pytest.mark.parametrize("evidence", ["clean", "rows", "chance"])
def test_two_thousand_clips(
    local_ray: Cluster, synthetic: Path, tmp_path: Path, evidence: planted.Evidence
) -> None:
    corpus = planted.corpus(11, evidence=evidence)
    run = replayed(str(tmp_path), str(synthetic / "voice.wav"), corpus)
    facts = audit(run).facts
    if evidence == "clean":
        assert on_top(run, corpus) >= 0.8
    if evidence == "chance":
        assert (facts["noise_rate"], facts["suspects"]) == (None, 0)
    else:
        assert facts["noise_low"] <= 0.1 <= facts["noise_high"] < 0.5
