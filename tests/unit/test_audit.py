"""`emer audit` on run directories that nobody ran, and on tables of others."""

import io
import json
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from emer_ray import cli, schema, storage
from emer_ray.audit import audit
from emer_ray.errors import ConfigError
from tests import planted, run_directory

CONTRACT = ("clips", "compared", "disagree", "noise_rate", "noise_low", "noise_high")


def planted_tables(folder: Path, **given: Any) -> tuple[dict[str, str], planted.Planted]:
    """Evidence of a planted corpus as somebody's table, its old labels, and a place for results."""
    corpus = planted.corpus(4, clips=600, **given)
    old, pred = folder / "old.csv", folder / "pred.jsonl"
    rows = zip(corpus.clip_ids(), corpus.old_words(), corpus.labels(), strict=True)
    with old.open("w") as labels, pred.open("w") as evidence:
        labels.write("name,label\n")
        for clip_id, word, said in rows:
            labels.write(f"{clip_id},{word}\n")
            listed = [{"label": label, "support": support} for label, support in said]
            evidence.write(json.dumps({"name": clip_id, "labels": listed}) + "\n")
    return {"run": str(pred), "labels": str(old), "out": str(folder / "out")}, corpus


def planted_run(folder: Path, **given: Any) -> tuple[str, planted.Planted]:
    """A run with the evidence of a planted corpus; its own manifest has the old labels."""
    corpus = planted.corpus(4, clips=200, classes=4, **given)
    rows = zip(corpus.clip_ids(), corpus.old_words(), corpus.labels(), strict=True)
    clips = [
        {
            "clip_id": clip_id,
            "video_uri": "x.mp4",
            "label_onehot": word,
            "labels": said,
            "explanation": f"because of {clip_id}",
            "speaker": f"s{number % 30}",
            "split": "test" if number % 3 else "train",
        }
        for number, (clip_id, word, said) in enumerate(rows)
    ]
    return run_directory.write(folder, clips), corpus


def stored(folder: str) -> pl.DataFrame:
    return pl.read_parquet(io.BytesIO(storage.read(storage.join(folder, "audit.parquet"))))


def test_a_run_is_audited(tmp_path: Path) -> None:
    run, corpus = planted_run(tmp_path / "run", evidence="clean", support="informative")
    result = CliRunner().invoke(cli.main, ["audit", run, "--top", "3", "--json"])
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout.splitlines()[-1])
    assert [facts[name] for name in CONTRACT[:3]] == [200, 200, int(corpus.wrong.sum())]
    assert facts["noise_low"] <= facts["noise_rate"] <= facts["noise_high"]
    assert "a question, not a verdict" in result.stdout
    assert "because of clip-" in result.stdout

    table = pq.read_table(Path(run) / "audit.parquet")
    assert table.schema.equals(schema.AUDIT)
    rows = stored(run)
    assert rows["rank"].to_list() == list(range(1, 201))
    assert rows["suspicion"].is_sorted(descending=True)
    wrong = {name for name, bad in zip(corpus.clip_ids(), corpus.wrong, strict=True) if bad}
    assert len(wrong & set(rows["clip_id"][:20])) >= 0.8 * len(wrong)
    first = rows.row(0, named=True)
    assert first["suspect"]
    assert first["disagree"]
    assert first["explanation"] == f"because of {first['clip_id']}"
    assert first["expected"][0]["family"] != first["old_family"]
    assert sum(each["share"] for each in first["expected"]) == pytest.approx(1)
    assert {each["old_family"] for each in first["neighbours"]} == {first["expected"][0]["family"]}
    assert first["clip_id"] not in {each["clip_id"] for each in first["neighbours"]}

    found = json.loads((Path(run) / "audit.json").read_text())
    assert {row["by"] for row in found["agreement"]} == {"", "old_family", "speaker", "split"}
    whole = next(r for r in found["agreement"] if (r["by"], r["metric"]) == ("", "audit.agree"))
    assert whole["value"] == pytest.approx(1 - facts["disagree"] / 200)
    assert whole["low"] < whole["value"] < whole["high"]
    assert sum(cell["clips"] for cell in found["confusion"]) == 200
    assert found["families_supported"]["new"] == {"1": 200}
    assert found["old_words"]["worried"] == "fear"
    assert found["new_words"]["furious"] == "anger"
    assert sum(each["clips"] for each in found["by_support"]) == 200


def test_an_audit_is_the_same_twice(tmp_path: Path) -> None:
    given, _ = planted_tables(tmp_path, evidence="rows", support="several")
    first, rows = audit(**given).summary(), stored(given["out"])
    assert audit(**given).summary() == first
    assert stored(given["out"]).equals(rows)
    assert first["ambiguous"] > 0


def test_evidence_at_chance_names_nobody(tmp_path: Path) -> None:
    given, _ = planted_tables(tmp_path, evidence="chance")
    found = audit(**given)
    assert (found.facts["noise_rate"], found.facts["suspects"]) == (None, 0)
    assert (found.facts["noise_low"], found.facts["noise_high"]) == (0.0, 1.0)
    assert "tells nothing" in found.table()
    rows = stored(given["out"])
    assert rows["rank"].null_count() == rows["suspicion"].null_count() == 600
    assert not rows["suspect"].any()


def test_what_cannot_be_compared_is_counted(tmp_path: Path) -> None:
    clips: list[dict[str, Any]] = [
        {"clip_id": "a", "labels": ["happy"]},
        {"clip_id": "b", "labels": []},
        {"clip_id": "c", "labels": ["zzz"]},
        {"clip_id": "d", "failed": "missing"},
        {"clip_id": "e", "labels": ["sad"]},
        {"clip_id": "f", "labels": ["sad"]},
        {"clip_id": "extra", "labels": ["sad"]},
    ]
    run = run_directory.write(tmp_path / "run", [{"video_uri": "x", **clip} for clip in clips])
    old = tmp_path / "old.csv"
    old.write_text("name,label\na,joy\nb,neutral\nc,sad\nd,sad\ne,xxx\nf,\n")
    facts = audit(run, str(old)).summary()
    assert facts["not_compared"] == {
        "evidence_without_family": 1,
        "no_evidence": 1,
        "old_label_without_family": 1,
        "no_old_label": 1,
    }
    assert (facts["clips"], facts["compared"], facts["extra"]) == (6, 2, 1)
    assert facts["disagree"] == 0
    assert not facts["claims"]
    old.write_text("name,label\nother,sad\n")
    with pytest.raises(ConfigError, match=r"no clip has an old label and evidence.*no_evidence 1"):
        audit(run, str(old))


def test_what_people_checked_is_settled(tmp_path: Path) -> None:
    given, corpus = planted_tables(tmp_path, evidence="rows")
    free = audit(**given).facts
    looked = tmp_path / "checked.csv"
    ids = corpus.clip_ids()
    wrong = [name for name, bad in zip(ids, corpus.wrong, strict=True) if bad][:30]
    right = [name for name, bad in zip(ids, corpus.wrong, strict=True) if not bad][:450]
    words = dict(zip(ids, corpus.old_words(), strict=True))
    other = {"happy": "sad"}
    lines = [f"{name},{other.get(words[name], 'happy')}" for name in wrong]
    lines += [f"{name},{words[name]}" for name in right]
    looked.write_text("name,label\n" + "\n".join(lines) + "\n")
    facts = audit(**given, checked=str(looked)).facts
    assert facts["checked"] == {"clips": 480, "wrong": 30}
    assert facts["noise_low"] == 30 / 600 > free["noise_low"]
    assert facts["noise_high"] == 1 - 450 / 600 < free["noise_high"]
    assert facts["noise_low"] <= facts["noise_rate"] <= facts["noise_high"]


def test_tables_of_others_and_open_vocabulary(tmp_path: Path) -> None:
    pred, old = tmp_path / "pred.csv", tmp_path / "old.csv"
    pred.write_text('name,openset\na,"[sad, tired]"\nb,[happy]\nc,"[angry, amused]"\n')
    old.write_text('name,openset\na,"[sorrowful, furious]"\nb,[angry]\nc,[joyful]\n')
    with pytest.raises(ConfigError, match="give --out DIR"):
        audit(str(pred), str(old))
    facts = audit(str(pred), str(old), out=str(tmp_path / "out")).facts
    assert (facts["compared"], facts["disagree"]) == (3, 1)
    rows = {row["clip_id"]: row for row in stored(str(tmp_path / "out")).to_dicts()}
    assert [each["family"] for each in rows["a"]["old_families"]] == ["anger", "sadness"]
    assert rows["a"]["old_family"] == "sadness"
    assert rows["c"]["old_labels"] == ["joyful"]


def test_valence_is_compared_where_nothing_else_is_known(tmp_path: Path) -> None:
    pred, old = tmp_path / "pred.csv", tmp_path / "old.csv"
    pred.write_text("name,openset\na,[sad]\nb,[happy]\nc,[surprised]\n")
    old.write_text("name,valence\na,-0.4\nb,-1\nc,0\n")
    facts = audit(str(pred), str(old), out=str(tmp_path / "out")).facts
    assert facts["ground"].startswith("valence")
    assert facts["disagree"] == 1


def test_mistakes_are_one_sentence(tmp_path: Path) -> None:
    run = run_directory.write(
        tmp_path / "run", [{"clip_id": "a", "video_uri": "x", "labels": ["sad"]}]
    )
    result = CliRunner().invoke(cli.main, ["audit", run])
    assert result.exit_code == 2
    assert result.stderr.startswith("emer: ")
    assert "no clip has a label in label, openset" in result.stderr
    old = tmp_path / "old.csv"
    old.write_text("name,label\na,sad\n")
    assert audit(run, str(old)).facts["compared"] == 1
    with pytest.raises(ConfigError, match="--resamples 0"):
        audit(run, str(old), resamples=0)
    with pytest.raises(ConfigError, match="--cluster nope"):
        audit(run, str(old), cluster="nope")
