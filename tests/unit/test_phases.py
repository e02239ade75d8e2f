"""Two plans instead of one: the same rows, nothing looked at twice, and what cannot be cut."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from emer_ray import config, manifest, media, phases, pipeline
from emer_ray.config import RunConfig
from emer_ray.errors import ConfigError, RunDirError
from emer_ray.store import embeddings, index
from tests import rows
from tests.tiny_settings import SMALL

pytestmark = pytest.mark.transformers


def model(path: Path, **options: Any) -> dict[str, Any]:
    return {
        "backend": "transformers",
        "model": str(path),
        "max_tokens": 5,
        "options": {"dtype": "float32", **options},
    }


def asking(tiny: Path, synthetic: Path, scratch: Path, recipe: str) -> RunConfig:
    """Six clips: whole, mute, only sound; one missing, one whose towers fail, one not encoded."""
    films = ("c0", "mute", "gone", "c1", "c2")
    clips: list[dict[str, Any]] = [
        {"clip_id": name, "video_uri": str(synthetic / f"{name}.mp4"), "subtitle_en": name}
        for name in films
    ]
    clips.insert(2, {"clip_id": "sound", "audio_uri": str(synthetic / "voice.wav")})
    split = {name: model(tiny / name, split=True, processor=SMALL) for name in ("omni25", "omni3")}
    models = {
        "one_shot": {"main": split["omni25"]},
        "clue_merge": {
            "video": split["omni25"],
            "audio": split["omni3"],
            "text": model(tiny / "text"),
        },
    }[recipe]
    last = "main" if recipe == "one_shot" else "audio"
    return config.parse(
        {
            "recipe": recipe,
            "models": models,
            "media": {"frames": 4, "size_px": 96},
            "input": {"manifest": rows.manifest(scratch / "clips.jsonl", clips)},
            "faults": {f"{last}_towers": {"c1": "raise"}, "encode": {"c2": "raise"}},
        }
    )


def through(
    run_config: RunConfig, run: str, *, plans: int, shards: Sequence[int] = range(9)
) -> dict[str, Any]:
    found = pl.DataFrame(pl.from_arrow(manifest.load(run_config.input)))
    placed = index.assign_shards(found, None, 2)
    index.save_manifest(run, placed)
    flow = pipeline.steps(run_config, pipeline.Start(run=run, contained=False))
    cut = phases.cut(flow, run_config, run)
    for each in [flow] if plans == 1 else [cut.encode, cut.reason]:
        list(pipeline.run_local(each, index.shard_tables(index.clips_of(placed, shards))))
    return rows.stored(run)


@pytest.mark.parametrize("recipe", ["one_shot", "clue_merge"])
def test_rows_are_those_of_one_plan(
    tiny: Path, synthetic: Path, tmp_path: Path, recipe: str
) -> None:
    asked = asking(tiny, synthetic, tmp_path, recipe)
    one = through(asked, str(tmp_path / "one"), plans=1)
    two = through(asked, str(tmp_path / "two"), plans=2)
    assert two == one
    failed = {name: (row["stage"], row["kind"]) for name, row in two.items() if "kind" in row}
    assert failed["gone"] == ("decode", "missing")
    assert failed["c2"] == ("encode", "error")
    assert failed["c1"] == ("main_towers" if recipe == "one_shot" else "audio_towers", "error")
    assert any(row["answers"] for row in two.values())


def test_the_second_plan_looks_at_nothing_and_a_hole_in_what_is_kept_is_named(
    tiny: Path, synthetic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = asking(tiny, synthetic, tmp_path, "one_shot")
    run = str(tmp_path / "run")
    expected = through(asked, run, plans=2)
    flow = pipeline.steps(asked, pipeline.Start(run=run, contained=False))
    cut = phases.cut(flow, asked, run)
    assert cut.left(run, range(5)) == [3, 4]  # three shards of two clips are there

    def refused(*_: Any, **__: Any) -> None:
        raise AssertionError("somebody looked again")

    monkeypatch.setattr(media.Decoder, "__call__", refused)
    monkeypatch.setattr("emer_ray.encode.transformers.Towers.__init__", refused)
    placed = index.load_manifest(run)
    assert placed is not None
    tables = index.shard_tables(index.clips_of(placed, range(9)))
    list(pipeline.run_local(cut.reason, tables))
    assert rows.stored(run) == expected
    with pytest.raises(RunDirError, match=r"clip 'c0' in shard 2; delete embeddings/.*/00000002"):
        list(
            pipeline.run_local(
                cut.reason,
                [
                    tables[0].set_column(
                        tables[0].column_names.index("shard"), "shard", tables[2]["shard"]
                    )
                ],
            )
        )


def test_embeddings_of_clips_that_changed_meanwhile_are_forgotten(
    tiny: Path, synthetic: Path, tmp_path: Path
) -> None:
    asked = asking(tiny, synthetic, tmp_path, "one_shot")
    run = str(tmp_path / "run")
    through(asked, run, plans=2)
    before = index.load_manifest(run)
    assert before is not None
    assert index.changed_shards(before, before) == []
    cropped = pl.when(pl.col("clip_id") == "mute").then(0.5).otherwise("start_s").alias("start_s")
    changed = before.with_columns(cropped)
    back = before.with_columns(present=pl.col("clip_id") != "c2")
    assert index.changed_shards(changed, before) == [0]
    assert index.changed_shards(back, before) == []
    assert index.changed_shards(before, back) == [2]
    (towers,) = phases.cut(
        pipeline.steps(asked, pipeline.Start(run=run, contained=False)), asked, run
    ).towers
    assert embeddings.shards(run, towers) == {0, 1, 2}
    embeddings.forget(run, [0, 2])
    assert embeddings.shards(run, towers) == {1}
    assert len(list(Path(run).rglob("embeddings/**/*.parquet"))) == 2


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["models.main.options.split=false"], r"set models\.main\.options\.split = true"),
        (['modalities=["text"]'], "looks at nothing"),
        (["input.answers=somewhere"], "leave one of them out"),
    ],
)
def test_what_cannot_be_cut_is_refused(
    tiny: Path, tmp_path: Path, overrides: Sequence[str], said: str
) -> None:
    whole = model(tiny / "omni25", split=True, processor=SMALL)
    values: dict[str, Any] = {"models": {"main": whole}}
    asked = config.parse(config._read(None, overrides, values))
    flow = pipeline.steps(asked, pipeline.Start(run=str(tmp_path)))
    with pytest.raises(ConfigError, match=said):
        phases.cut(flow, asked, str(tmp_path))
