"""What the golden results are, and how they are made again: `python -m tests.golden_results`.

The serial twin explains the demo clips with the embedded models, and clips made on the spot, broken
ones among them, with the fake one. Of each clip remain its labels with their support and its clue
sentences, or the kind of its failure.
"""

import itertools
import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from emer_ray import config, demo_corpus, manifest, pipeline
from emer_ray.config import RESULTS_VERSION
from emer_ray.store import index
from tests import rows, synth

FOLDER = Path(__file__).parent / "golden"
FILE = FOLDER / f"results_v{RESULTS_VERSION}.json"

Results = Mapping[str, Mapping[str, list[str]]]
"""Backend -> clip -> lines."""

TOLERANCE = 0.03
"""Share by which a number may differ, on top of one step of the last digit it shows. Another CPU
adds in another order and quantises otherwise: that moves a probability by far less than this, but
may tip its last digit."""

APEX = re.compile(r"\b(at|from|to) [\d.]+(?= s\b| to [\d.]+ s\b)")
"""Left out: among pictures that are nearly alike, the last digit decides which one is the apex."""
NUMBER = re.compile(r"\d+(?:\.\d+)?")


def results(folder: Path) -> dict[str, dict[str, list[str]]]:
    """Explain everything anew; writes clips and runs into an empty folder."""
    script = {"garbage": "garbage", "refuse": "refuse", "prose": "prose", "fail": "fail"}
    return {
        "embedded": _explained(demo_corpus.build(folder / "demo"), folder / "embedded", {}),
        "fake": _explained(_synthetic(folder, [*script]), folder / "fake", script),
    }


def _synthetic(folder: Path, scripted: list[str]) -> str:
    film = synth.clip(folder / "film.mp4", seconds=1)
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("no film")
    clips: list[dict[str, Any]] = [
        {"clip_id": "whole", "video_uri": film, "subtitle_en": "Well, then."},
        {"clip_id": "window", "video_uri": film, "start_s": 0.25, "end_s": 0.75},
        {"clip_id": "past_the_end", "video_uri": film, "start_s": 0.5, "end_s": 5.0},
        {"clip_id": "mute", "video_uri": synth.clip(folder / "mute.mp4", seconds=1, audio=False)},
        {"clip_id": "voice", "audio_uri": synth.sound(folder / "voice.wav", seconds=1)},
        {"clip_id": "gone", "video_uri": "gone.mp4"},
        {"clip_id": "empty", "video_uri": "empty.mp4"},
        {"clip_id": "text", "video_uri": "text.mp4"},
        *({"clip_id": name, "video_uri": film} for name in scripted),
    ]
    return rows.manifest(folder / "synthetic.jsonl", clips)


def _explained(listed: Path | str, run: Path, script: Mapping[str, str]) -> dict[str, list[str]]:
    model = {"backend": "fake", "options": {"script": script}} if script else {}
    run_config = config.parse({"input": {"manifest": str(listed)}, "models": {"main": model}})
    clips = pl.DataFrame(pl.from_arrow(manifest.load(run_config.input)))
    placed = index.assign_shards(clips, None, 16)
    flow = pipeline.steps(run_config, pipeline.Start(run=str(run), contained=False))
    list(pipeline.run_local(flow, index.shard_tables(index.clips_of(placed, [0]))))
    return {name: _lines(row) for name, row in sorted(rows.stored(str(run)).items())}


def _lines(row: Mapping[str, Any]) -> list[str]:
    if "kind" in row:
        return [f"failed in {row['stage']}: {row['kind']}"]
    clues = row["visual_clues"] + row["acoustic_clues"] + row["lexical_clues"]
    labels = [
        f"label {each['label']}" + ("" if each["support"] is None else f" {each['support']:.2f}")
        for each in row["labels"]
    ]
    return (labels or ["no label"]) + [APEX.sub(r"\1 …", clue["text"]) for clue in clues]


def differences(found: Results, expected: Results) -> list[str]:
    """List the lines that are not as expected, numbers within `TOLERANCE`."""
    return [
        f"{backend}, {clip}: {new!r} was {old!r}"
        for backend in sorted(found.keys() | expected.keys())
        for clip in sorted({*found.get(backend, {}), *expected.get(backend, {})})
        for new, old in itertools.zip_longest(
            found.get(backend, {}).get(clip, []), expected.get(backend, {}).get(clip, [])
        )
        if new is None or old is None or not _alike(new, old)
    ]


def _alike(new: str, old: str) -> bool:
    if NUMBER.sub("#", new) != NUMBER.sub("#", old):
        return False
    pairs = zip(NUMBER.findall(new), NUMBER.findall(old), strict=True)
    return all(abs(float(a) - float(b)) <= _slack(b) for a, b in pairs)


def _slack(number: str) -> float:
    digits = len(number.partition(".")[2])
    return 10.0**-digits + TOLERANCE * float(number) + 1e-9


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        made = results(Path(scratch))
    for outdated in FOLDER.glob("results_v*.json"):
        outdated.unlink()
    FILE.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
