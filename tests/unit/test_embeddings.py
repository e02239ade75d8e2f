"""Kept embeddings: another prompt answers as if it had looked itself, and nobody looks again."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from emer_ray import config, manifest, media, pipeline, stages, storage
from emer_ray.config import RunConfig
from emer_ray.errors import ConfigError, RunDirError
from emer_ray.store import embeddings, index, record
from tests import rows
from tests.tiny_settings import SMALL

pytestmark = pytest.mark.transformers


def clips(synthetic: Path) -> list[dict[str, Any]]:
    """Four clips: whole, without sound, without picture, and one that is missing."""
    return [
        {"clip_id": "whole", "video_uri": str(synthetic / "c0.mp4"), "subtitle_en": "Thanks!"},
        {"clip_id": "mute", "video_uri": str(synthetic / "mute.mp4")},
        {"clip_id": "sound", "audio_uri": str(synthetic / "voice.wav")},
        {"clip_id": "gone", "video_uri": str(synthetic / "gone.mp4")},
    ]


def asking(
    tiny: Path, scratch: Path, listed: Sequence[Mapping[str, Any]], **more: Any
) -> RunConfig:
    options = {"split": True, "dtype": "float32", "processor": SMALL}
    model = {"backend": "transformers", "model": str(tiny / "omni3"), "options": options}
    return config.parse(
        {
            "models": {"main": {**model, "max_tokens": 5}},
            "media": {"frames": 4, "size_px": 96},
            **more,
            "input": {
                "manifest": rows.manifest(scratch / "clips.jsonl", listed),
                **more.get("input", {}),
            },
        }
    )


def answered(run_config: RunConfig, run: str, *, shard_clips: int = 2) -> dict[str, Any]:
    """Run in this process as `relabel` would on Ray; give the stored rows."""
    found = pl.DataFrame(pl.from_arrow(manifest.load(run_config.input)))
    placed = index.assign_shards(found, None, shard_clips)
    index.save_manifest(run, placed)
    hashes = pipeline.step_hashes(run_config)
    record.save(run, {"fingerprint": "f", "step_hashes": hashes})
    earlier = stages.NOTHING_EARLIER
    if run_config.input.answers:
        there = record.require(run_config.input.answers)["step_hashes"]
        earlier = pipeline.taken_over(run_config, there)
        placed = index.with_earlier(placed, run_config.input.answers, pipeline.kept_shards(earlier))
    start = pipeline.Start(run=run, earlier=earlier, contained=False)
    tables = index.shard_tables(index.clips_of(placed, range(9)))
    list(pipeline.run_local(pipeline.steps(run_config, start), tables))
    return rows.stored(run)


def raw(stored: Mapping[str, Any]) -> dict[str, list[Any]]:
    """What the model was asked (in tokens) and said, by clip."""
    return {
        name: [(answer["tokens_in"], answer["raw"]) for answer in row["answers"] or ()]
        for name, row in stored.items()
    }


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.s3)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path) if request.param == "local" else request.getfixturevalue("bucket")


def test_another_prompt_reuses_embeddings_and_nobody_decodes_or_loads_towers(
    tiny: Path, synthetic: Path, tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeping = {"output": {"embeddings": True}}
    first, fresh, second = (storage.join(place, name) for name in ("first", "fresh", "second"))
    listed = clips(synthetic)
    answered(asking(tiny, tmp_path, listed, **keeping), first)
    looked = answered(asking(tiny, tmp_path, listed, language="zh", **keeping), fresh)
    (own,) = (
        v for k, v in pipeline.step_hashes(asking(tiny, tmp_path, listed)).items() if "_tow" in k
    )
    assert embeddings.shards(first, own) == embeddings.shards(fresh, own) == {0, 1}
    for shard in (0, 1):
        one, other = (embeddings.read(run, own, shard, light=False) for run in (first, fresh))
        assert one.keys() == other.keys()
        for name, row in one.items():
            assert row["tensors"] == other[name]["tensors"]
            assert row["embeddings"] == other[name]["embeddings"]

    def refused(*_: Any, **__: Any) -> None:
        raise AssertionError("somebody looked again")

    with monkeypatch.context() as closed:
        # the clip that failed has nothing kept, so the whole flow must do without it
        closed.setattr(media.Decoder, "__call__", refused)
        closed.setattr("emer_ray.encode.transformers.Towers.__init__", refused)
        again = asking(
            tiny, tmp_path, listed[:3], language="zh", input={"answers": first}, **keeping
        )
        reused = answered(again, second, shard_clips=3)
    whole = raw(looked)
    assert whole.pop("gone") == []
    assert raw(reused) == whole
    assert len({said[0][1] for said in whole.values()}) == 3
    assert [row["media"] for row in reused.values()] == [looked[name]["media"] for name in reused]
    assert embeddings.shards(second, own) == {0}  # a run that keeps embeddings keeps these too


def test_clips_that_differ_are_looked_at_and_other_words_are_no_reason(
    tiny: Path, synthetic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = clips(synthetic)[:2]
    first = str(tmp_path / "first")
    old = answered(asking(tiny, tmp_path, listed, output={"embeddings": True}), first)
    changed = [
        {**listed[0], "subtitle_en": "No!"},
        {**listed[1], "crop": [0, 0, 0.5, 1]},
        {"clip_id": "new", "video_uri": str(synthetic / "c3.mp4")},
    ]
    seen: list[str] = []
    looking = media.Decoder.__call__

    def noted(self: Any, batch: Sequence[Any]) -> Any:
        seen.extend(clip.clip_id for clip in batch)
        return looking(self, batch)

    monkeypatch.setattr(media.Decoder, "__call__", noted)
    mixed = asking(tiny, tmp_path, changed, input={"answers": first})
    found = raw(answered(mixed, str(tmp_path / "third")))
    assert seen == ["mute", "new"]
    assert found["whole"] != raw(old)["whole"]  # other words, so another prompt
    fourth = asking(tiny, tmp_path, changed)
    assert found == raw(answered(fourth, str(tmp_path / "fourth")))


def test_what_is_kept_is_checked_and_has_a_vector_per_clip(
    tiny: Path, synthetic: Path, tmp_path: Path
) -> None:
    run = str(tmp_path / "run")
    keeping = asking(tiny, tmp_path, clips(synthetic), output={"embeddings": True})
    answered(keeping, run)
    assert embeddings.models(run) == ["main"]
    vectors = embeddings.vectors(run)
    assert vectors["clip_id"].to_list() == ["whole", "mute", "sound"]
    assert [row is None for row in vectors["audio"]] == [False, True, False]
    assert [row is None for row in vectors["video"]] == [False, False, True]
    (own,) = (v for k, v in pipeline.step_hashes(keeping).items() if k == "main_towers")
    tensors = stages._tensors(embeddings.read(run, own, 0, light=False)["whole"])
    (video,) = (t for t in tensors if t.name == "video")
    tokens = np.frombuffer(video.data, np.float32).reshape(video.shape)
    np.testing.assert_allclose(vectors["video"][0].to_list(), tokens.mean(0), rtol=1e-5)
    assert embeddings.vectors(run, "main").equals(vectors)

    for other, said in (
        ({"media": {"frames": 3, "size_px": 96}}, "keeps no embeddings that fit"),
        ({"modalities": ["video"]}, "keeps no embeddings that fit"),
        ({"models": {"main": {"backend": "fake"}}}, "keeps no embeddings that fit"),
    ):
        unlike = asking(
            tiny, tmp_path, clips(synthetic), language="zh", input={"answers": run}, **other
        )
        with pytest.raises(ConfigError, match=said):
            answered(unlike, str(tmp_path / "other"))

    (kept,) = Path(run).rglob("00000000.parquet")
    data = bytearray(kept.read_bytes())
    data[100] ^= 1
    kept.write_bytes(data)
    again = asking(tiny, tmp_path, clips(synthetic), language="zh", input={"answers": run})
    with pytest.raises(RunDirError, match="do not match its own SHA-256"):
        answered(again, str(tmp_path / "again"))
    with pytest.raises(RunDirError, match="kept embeddings: none"):
        embeddings.vectors(str(tmp_path / "again"))


def test_half_floats_have_the_same_means() -> None:
    import torch

    values = torch.randn(6, 8)
    for dtype in ("float32", "bfloat16", "float16"):
        small = values.to(getattr(torch, dtype))
        about = {"name": "audio", "dtype": dtype, "shape": [6, 8], "n_bytes": small.nbytes}
        data = small.flatten().view(torch.uint8).numpy().tobytes()
        (found,) = embeddings._pooled([about], memoryview(data))
        np.testing.assert_allclose(found["values"], small.float().mean(0), rtol=1e-3, atol=1e-5)


def test_keeping_without_towers_is_refused(tmp_path: Path) -> None:
    vain = config.parse({"models": {"main": {"backend": "fake"}}, "output": {"embeddings": True}})
    with pytest.raises(ConfigError, match=r"set models\.main\.options\.split = true"):
        pipeline.steps(vain, pipeline.Start(run=str(tmp_path)))
