"""Exports: what others read, what they are told, and what they are refused."""

import csv
import html
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner
from markdown_it import MarkdownIt

from emer_ray import cli, inert, storage
from emer_ray.errors import ConfigError
from emer_ray.evaluate import evaluate, options
from emer_ray.export import export
from emer_ray.metrics import labels as cells
from emer_ray.release import files
from tests import run_directory

HOSTILE = "=cmd|' /C calc'!A0 <script>alert(1)</script> [click](http://evil) <video>"
CLIPS: list[dict[str, Any]] = [
    {
        "clip_id": "0001",
        "video_uri": "s3://media/1.mp4",
        "split": "test",
        "corpus": "mine | <b>",
        "subtitle": HOSTILE,
        "visual": ["He smiles."],
        "explanation": HOSTILE,
        "labels": [("happy", 0.75), ("at ease", None)],
        "label_ov": ["happy"],
        "licence_tag": "CC-BY-4.0",
    },
    {
        "clip_id": "-3g5yACwYnA_1",
        "video_uri": "/v/2.mp4",
        "audio_uri": "/v/2.wav",
        "split": "my split",
        "explanation": "她哭了。",
        "labels": ["sad", "don't know, [hm]", "</td><script>x"],
        "label_ov": ["sad"],
        "licence_tag": "CC-BY-4.0",
        "composite": True,
    },
    {
        "clip_id": "windowed",
        "video_uri": "/v/3.mp4",
        "start_s": 1.0,
        "labels": [],
        "label_ov": ["calm"],
        "licence_tag": "CC-BY-4.0",
    },
    {"clip_id": "gone", "video_uri": "/v/4.mp4", "failed": "corrupt", "licence_tag": "CC-BY-4.0"},
]


@pytest.fixture
def run(tmp_path: Path) -> str:
    return run_directory.write(tmp_path / "run", CLIPS)


def card_figures(card: str) -> dict[str, tuple[float | None, int, int]]:
    """Read the table of metrics out of a card."""
    found = {}
    for line in card.splitlines():
        if match := re.fullmatch(r"\| `([^`]+)` \| (\S+) \|.*\| (\d+) \| (\d+) \| [^|]+\|", line):
            value = None if match[2] == "undefined" else float(match[2])
            found[match[1]] = (value, int(match[3]), int(match[4]))
    return found


def test_hf_loads_offline_and_its_card_has_the_figures_of_the_run(
    run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    datasets = pytest.importorskip("datasets", reason="needs datasets: part of the extra dev")
    evaluate(run, run, options(resamples=50), out=run)
    target = str(tmp_path / "hub")
    found = export(run, "hf", target)
    assert (found["clips"], found["failed"], found["left_out"]) == (3, 1, {})
    assert found["splits"] == {"test": 1, "my_split": 1, "train": 1}
    loaded = datasets.load_dataset(target, cache_dir=str(tmp_path / "cache"))
    assert {name: len(rows) for name, rows in loaded.items()} == found["splits"]
    (row,) = loaded["test"]
    assert row["clip_id"] == "0001"
    assert row["labels"] == ["happy", "at ease"]
    assert row["supports"] == [0.75, None]
    assert row["explanation"] == HOSTILE  # Parquet shows nothing by itself: every letter is kept
    assert not {"video_uri", "label_ov", "label_onehot"} & set(row)

    card = Path(target, "README.md").read_text()
    metrics = pl.read_parquet(f"{run}/metrics.parquet").filter(pl.col("by") == "")
    stored = {
        row["metric"]: (row["value"], row["n_scored"], row["n"])
        for row in metrics.iter_rows(named=True)
    }
    assert card_figures(card) == stored
    assert stored["set.recall"][0] == pytest.approx(2 / 3)
    front = card.split("---\n")[1]
    fields = dict(line.split(": ", 1) for line in front.splitlines())
    assert json.loads(fields["license"]) == "cc-by-4.0"
    assert json.loads(fields["size_categories"]) == ["n<1K"]
    body = card.split("---\n", 2)[2]
    assert "<script" not in body
    assert "<b>" not in body
    assert "composites: 1 clips" in body
    assert "corrupt 1" in body
    assert "no diagnosis" in body
    assert "nothing here is real" in body  # the fake backend answered

    with pytest.raises(ConfigError, match="give an empty one"):
        export(run, "hf", target)


def test_markdown_shows_letters_and_nothing_else() -> None:
    """By a real Markdown reader; rich brings it along."""
    reader = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    for text in (HOSTILE, "# title", "- list", "`x` *y* _z_ ~~w~~", "&lt; | a", "<b>", "[a](b)"):
        shown = reader.render(inert.markdown(text)).strip()
        assert shown == f"<p>{html.escape(inert.plain(text), quote=False)}</p>", text
    assert inert.markdown("http://x") == "http\\://x"  # no link by itself


def test_csv_and_jsonl(run: str, tmp_path: Path) -> None:
    export(run, "csv", str(tmp_path / "csv"))
    data = (tmp_path / "csv/explanations.csv").read_bytes()
    assert data.startswith(b"\xef\xbb\xbf")
    rows = list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline="")))
    assert [row["clip_id"] for row in rows] == ["0001", "-3g5yACwYnA_1", "windowed"]
    assert not {cell[0] for row in rows for cell in row.values() if cell} & set("=@+")
    assert rows[0]["explanation"].startswith("'=cmd")
    assert json.loads(rows[1]["labels"]) == CLIPS[1]["labels"]
    assert "no `metrics.parquet`" in (tmp_path / "csv/README.md").read_text()
    # what we export can be scored again, as it is
    again = evaluate(str(tmp_path / "csv/explanations.csv"), run, options(resamples=0))
    assert again.value("set.recall") == pytest.approx(2 / 3)

    export(run, "jsonl", str(tmp_path / "jsonl"))
    lines = (tmp_path / "jsonl/explanations.jsonl").read_text().splitlines()
    assert [json.loads(line)["clip_id"] for line in lines] == [row["clip_id"] for row in rows]
    assert json.loads(lines[0])["explanation"] == HOSTILE


def test_mer_tables_are_read_back_by_the_published_parser(run: str, tmp_path: Path) -> None:
    found = export(run, "mer", str(tmp_path / "mer"))
    assert found["files"] == ["openset.csv", "openset.npz", "reason.csv", "README.md"]
    rows = list(csv.DictReader((tmp_path / "mer/openset.csv").open(newline="")))
    read = {row["name"]: cells.parse(row["openset"], "upstream") for row in rows}
    assert read["0001"] == ["happy", "at ease"]
    assert read["-3g5yACwYnA_1"] == ["sad", "don t know hm", "</td><script>x"]
    assert read["windowed"] == []
    with np.load(tmp_path / "mer/openset.npz", allow_pickle=False) as arrays:
        assert arrays["filenames"].tolist() == [row["name"] for row in rows]
        assert arrays["fileitems"].tolist() == [row["openset"] for row in rows]
    reasons = list(csv.DictReader((tmp_path / "mer/reason.csv").open(newline="")))
    assert reasons[1] == {"name": "-3g5yACwYnA_1", "reason": "她哭了。"}


def test_llama_factory_has_one_place_per_medium_and_leaves_windows_out(
    run: str, tmp_path: Path
) -> None:
    found = export(run, "llama-factory", str(tmp_path / "lf"))
    assert found["left_out"] == {"window": 1}
    about = json.loads((tmp_path / "lf/dataset_info.json").read_text())["emer"]
    entries = json.loads((tmp_path / "lf" / about["file_name"]).read_text())
    assert about["columns"]["messages"] == "messages"
    for entry in entries:
        text = "".join(message["content"] for message in entry["messages"])
        for tag, column in (("<video>", "videos"), ("<audio>", "audios")):
            assert text.count(tag) == len(entry[about["columns"][column]]), entry
        roles = [message[about["tags"]["role_tag"]] for message in entry["messages"]]
        assert roles == [about["tags"]["user_tag"], about["tags"]["assistant_tag"]]
    assert entries[0]["videos"] == ["s3://media/1.mp4"]
    assert entries[1]["audios"] == ["/v/2.wav"]
    assert json.loads(entries[0]["messages"][1]["content"])["labels"] == ["happy", "at ease"]
    assert "window 1" in (tmp_path / "lf/README.md").read_text()


def test_gated_clips_need_a_word(tmp_path: Path) -> None:
    gated = {**CLIPS[1], "clip_id": "g", "licence_tag": "gated:MER2023"}
    run = run_directory.write(tmp_path / "run", [*CLIPS, gated])
    runner = CliRunner()
    told = ["export", run, "--format", "jsonl", "-o", str(tmp_path / "out"), "--json"]
    refused = runner.invoke(cli.main, told)
    assert refused.exit_code == 2
    assert "1 of MER2023" in refused.output
    assert "--i-have-the-right" in refused.output
    assert not (tmp_path / "out").exists()
    allowed = runner.invoke(cli.main, [*told, "--i-have-the-right"])
    assert allowed.exit_code == 0, allowed.output
    found = json.loads(allowed.stdout.splitlines()[-1])
    assert found["licences"] == {"CC-BY-4.0": 3, "gated:MER2023": 1}
    card = (tmp_path / "out/README.md").read_text()
    assert "said to have the right" in card


@pytest.mark.s3
def test_a_bucket_serves_as_well(run: str, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "ROWS", 1)
    target = f"{bucket}/exports/first"
    found = export(run, "hf", target)
    there = [entry.uri.removeprefix(f"{target}/") for entry in storage.listing(target)]
    assert sorted(there) == sorted(found["files"])
    assert pl.read_parquet(storage.read(f"{target}/data/test-00000.parquet")).height == 1
