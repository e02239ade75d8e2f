"""`emer corpus`: what it writes is a manifest, in every form, and its figures are right."""

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from click.testing import CliRunner

from emer_ray import corpora, manifest
from emer_ray.cli import main
from emer_ray.config import InputConfig
from emer_ray.corpus import ENDINGS, corpus
from emer_ray.errors import ConfigError
from tests.corpus_trees import plant
from tests.unit.test_corpora_acted import CREMA_D
from tests.unit.test_corpora_faces import DFEW, FERV39K, MAFW
from tests.unit.test_corpora_mer import MER2023, MER2025
from tests.unit.test_corpora_speech import IEMOCAP, MELD, MOSEI

TREES = {
    "iemocap": IEMOCAP,
    "meld": MELD,
    "cmu-mosei": MOSEI,
    "mer2023": MER2023,
    "mer2025": MER2025,
    "dfew": DFEW,
    "ferv39k": FERV39K,
    "mafw": MAFW,
    "crema-d": CREMA_D,
}


def loaded(uri: str) -> pa.Table:
    return manifest.load(InputConfig(manifest=uri))


def comparable(table: pa.Table) -> list[dict[str, Any]]:
    """Rows with maps as dicts: their order means nothing."""
    rows = table.to_pylist()
    for row in rows:
        for name in ("extra", "label_scores"):
            row[name] = None if row[name] is None else dict(row[name])
    return rows


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("name", TREES)
def test_what_it_writes_is_the_manifest_of_its_rows(name: str, ending: str, tmp_path: Path) -> None:
    root = plant(tmp_path / "root", TREES[name])
    result = corpus(name, root, str(tmp_path / f"manifest{ending}"))
    rows = corpora.table(corpora.read(corpora.named(name), root).rows)
    assert comparable(loaded(result.manifest)) == comparable(rows)


def test_a_crop_a_window_and_shares_survive_every_form(tmp_path: Path) -> None:
    root = plant(tmp_path / "root", IEMOCAP)
    for ending in ENDINGS:
        result = corpus("iemocap", root, str(tmp_path / f"m{ending}"))
        row = loaded(result.manifest).to_pylist()[1]
        assert (row["start_s"], row["end_s"], row["crop"]) == (6.2901, 8.2357, [0.0, 0.0, 0.5, 1.0])


def test_counts_by_split_label_and_reason_and_the_list_of_what_is_left_out(
    tmp_path: Path,
) -> None:
    root = plant(tmp_path / "root", MELD)
    out = str(tmp_path / "meld.parquet")
    summary = corpus("MELD", root, out).summary()
    assert summary == {
        "corpus": "meld",
        "licence_tag": "gated:MELD",
        "clips": 4,
        "splits": {"test": 2, "dev": 1, "train": 1},
        "labels": {"neutral": 1, "surprise": 1, "none": 1, "joy": 1},
        "left_out": {
            "broken": 2,
            "unmatched": 2,
            "hidden": 1,
            "no_media": 1,
            "unreadable": 1,
        },
        "manifest": out,
        "left_out_list": str(tmp_path / "meld.left_out.csv"),
    }
    with (tmp_path / "meld.left_out.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == sum(summary["left_out"].values())
    assert {
        "what": "dev_dia110_utt7",
        "reason": "no_media",
        "detail": "the release has no such file",
    } in lines


def test_sentiments_are_counted_by_sign_and_open_words_one_by_one(tmp_path: Path) -> None:
    mosei = corpus("mosei", plant(tmp_path / "mosei", MOSEI), str(tmp_path / "m.csv"))
    assert mosei.summary()["labels"] == {"valence > 0": 1}
    mer = corpus("mer2025", plant(tmp_path / "mer", MER2025), str(tmp_path / "n.csv"))
    assert mer.summary()["labels"] == {"none": 3, "calm": 1, "self-deprecating": 1, "angry": 1}


def test_a_split_is_chosen_and_an_unknown_one_refused(tmp_path: Path) -> None:
    root = plant(tmp_path / "root", MELD)
    result = corpus("meld", root, str(tmp_path / "m.jsonl"), ["train", "dev"])
    assert loaded(result.manifest)["clip_id"].to_pylist() == ["dev_dia0_utt0", "train_dia0_utt0"]
    with pytest.raises(ConfigError, match="--split valid: no clip is in it; take of dev, test, tr"):
        corpus("meld", root, str(tmp_path / "m.jsonl"), ["valid"])


def test_another_ending_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"m.xlsx: a manifest ends in .parquet, .csv, .jsonl"):
        corpus("meld", str(tmp_path / "nowhere"), str(tmp_path / "m.xlsx"))


@pytest.mark.s3
def test_from_s3_to_s3(bucket: str) -> None:
    root = plant(f"{bucket}/CREMA-D", CREMA_D)
    result = corpus("crema-d", root, f"{bucket}/manifests/crema.parquet")
    table = loaded(result.manifest)
    assert table["video_uri"].to_pylist()[0] == f"{root}/VideoFlash/1001_IEO_ANG_HI.flv"
    assert result.left_out_uri == f"{bucket}/manifests/crema.left_out.csv"


def test_the_command_prints_figures_and_one_object_as_the_last_line(tmp_path: Path) -> None:
    root = plant(tmp_path / "root", MELD)
    arguments = ["corpus", "meld", root, "--split", "test", "-o", str(tmp_path / "m.csv"), "--json"]
    outcome = CliRunner().invoke(main, arguments)
    assert outcome.exit_code == 0, outcome.output
    found = json.loads(outcome.stdout.splitlines()[-1])
    assert (found["clips"], found["splits"]) == (2, {"test": 2})
    assert found["left_out"]["broken"] == 2
    assert "labels: surprise 1, none 1" in outcome.stdout


def test_the_command_lists_the_corpora_and_that_none_was_checked() -> None:
    outcome = CliRunner().invoke(main, ["corpus", "--list", "--json"])
    assert outcome.exit_code == 0
    known = json.loads(outcome.stdout.splitlines()[-1])["corpora"]
    assert [each["name"] for each in known] == [each.name for each in corpora.CORPORA]
    assert outcome.stdout.count("never run on a real copy") >= 2 * len(known)


def test_a_mistake_is_one_sentence_and_exit_code_2(tmp_path: Path) -> None:
    for arguments, says in (
        (["meld"], "give NAME ROOT -o FILE, or --list"),
        (["meldd", str(tmp_path), "-o", "m.csv"], "no corpus 'meldd'"),
        (["meld", str(tmp_path / "no"), "-o", "m.csv"], "there are no files"),
    ):
        outcome = CliRunner().invoke(main, ["corpus", *arguments])
        assert outcome.exit_code == 2
        assert says in outcome.stderr
