"""What the golden results are, and how they are made again: `python -m tests.golden_results`.

Sentences are kept without their numbers, because another CPU may round a network's output another
way; that each number is right is the business of the embedded tests.
"""

import json
import re
import tempfile
from pathlib import Path
from typing import Any

import polars as pl

from emer_ray import config, demo_corpus, manifest, pipeline
from emer_ray.config import RESULTS_VERSION
from emer_ray.store import index
from tests import rows

FILE = Path(__file__).parent / "golden" / f"results_v{RESULTS_VERSION}.json"


def results(folder: Path) -> dict[str, Any]:
    """Explain the demo clips with both backends by the serial twin; labels and coarse sentences."""
    listed = demo_corpus.build(folder / "clips")
    found: dict[str, Any] = {}
    for backend in ("embedded", "fake"):
        run_config = config.parse(
            {
                "input": {"manifest": str(listed)},
                "models": {"main": {"backend": backend}},
            }
        )
        run = str(folder / backend)
        clips = pl.DataFrame(pl.from_arrow(manifest.load(run_config.input)))
        placed = index.assign_shards(clips, None, 16)
        flow = pipeline.steps(run_config, run=run, baselines={}, contained=False)
        list(pipeline.run_local(flow, index.shard_tables(index.clips_of(placed, [0]))))
        found[backend] = {name: _coarse(row) for name, row in sorted(rows.stored(run).items())}
    return found


def _coarse(row: dict[str, Any]) -> dict[str, Any]:
    if "kind" in row:
        return {"stage": row["stage"], "kind": row["kind"]}
    senses = ("visual", "acoustic", "lexical")
    return {
        "labels": [label["label"] for label in row["labels"]],
        "clues": [
            _without_numbers(clue["text"]) for sense in senses for clue in row[f"{sense}_clues"]
        ],
    }


def _without_numbers(sentence: str) -> str:
    return re.sub(r"\d+(\.\d+)?", "#", sentence)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        made = results(Path(scratch))
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
