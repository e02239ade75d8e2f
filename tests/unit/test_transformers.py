"""The transformers backend on tiny random models: split and unsplit give the same logits.

Tokens would not show a wrong position: with random weights they stay the same. So logits are
compared, at every step of greedy decoding, and negative controls must move them.
"""

import dataclasses
import json
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emer_ray import config, pipeline
from emer_ray.config import ModelConfig
from emer_ray.errors import ClipError, ConfigError, ModelError
from emer_ray.records import Clip, Clues, DecodedClip, MediaFacts, Part, Reply, Request, Tensor
from tests.tiny_settings import SMALL

pytestmark = pytest.mark.transformers

OMNI = ("omni25", "omni3")
FEATURES = ("input_features", "feature_attention_mask")
SPLITTABLE = (*OMNI, "video_text", "qwen3_vl")
BY_PIXELS = SPLITTABLE
"""Families whose processors take a number of pixels; the others take a size."""


def clues(number: int, *, frames: int = 7, seconds: float = 1.0) -> Clues:
    draw = np.random.default_rng(number)
    return Clues(
        clip_id=f"clip-{number}",
        has_video=True,
        has_audio=True,
        frames=draw.integers(0, 255, (frames, 90, 120, 3), dtype=np.uint8),
        frame_times_s=tuple(0.4 * i for i in range(frames)),
        pcm=(draw.standard_normal(int(16_000 * seconds)) * 0.1).astype(np.float32),
    )


def asked(seen: Clues, *kinds: str, seed: int = 0) -> Request:
    shown = [Part(kind=kind) for kind in (kinds or ("frames", "audio"))]  # type: ignore[arg-type]
    return Request(
        step="explain",
        form="explanation",
        clues=seen,
        system="Name the emotion.",
        parts=(*shown, Part(kind="text", text=f"Which emotion? {seen.clip_id}")),
        seed=seed,
    )


def reasoner(path: Path, *, split: bool = False, tokens: int = 12, **options: Any) -> Any:
    from emer_ray.checkpoint import TransformersOptions
    from emer_ray.reason.transformers import TransformersReasoner

    draws = {key: options.pop(key) for key in ("temperature", "top_p") if key in options}
    small = SMALL if path.name in BY_PIXELS else {}
    chosen = TransformersOptions(split=split, processor=small, dtype="float32", **options)
    config = ModelConfig(backend="transformers", model=str(path), max_tokens=tokens, **draws)
    return TransformersReasoner(path=path, model=config, options=chosen)


def senses(name: str) -> tuple[str, ...]:
    return ("frames", "audio") if name in OMNI else ("frames",)


def embedded(path: Path, seen: Clues, **options: Any) -> Clues:
    """Send a clip through the towers, as the pool before the language model does."""
    from emer_ray.checkpoint import TransformersOptions
    from emer_ray.encode.transformers import Towers

    facts = MediaFacts(
        **{f.name: None for f in dataclasses.fields(MediaFacts)}  # type: ignore[arg-type]
        | {"has_video": True, "has_audio": True, "decoded_s": 1.0, "short": False}
        | {"n_frames": len(seen.frame_times_s), "decoder": "test"}
    )
    chosen = TransformersOptions(split=True, processor=SMALL, dtype="float32", **options)
    taken = ("video", "audio") if path.name in OMNI else ("video",)
    towers = Towers(path=path, options=chosen, modalities=taken)
    decoded = DecodedClip(
        clip=Clip(clip_id=seen.clip_id),
        frames=seen.frames,
        frame_times_s=seen.frame_times_s,
        pcm=seen.pcm,
        media=facts,
    )
    (found,) = towers.embed([decoded])
    assert not isinstance(found, ClipError)
    return dataclasses.replace(seen, frames=None, pcm=None, tensors=found)


def logits(who: Any, *requests: Request) -> Any:
    import torch

    group = [who.prepare(request) for request in requests]
    return torch.stack(who.generate(group, output_logits=True).logits)


@pytest.mark.parametrize("name", SPLITTABLE)
@pytest.mark.parametrize("number", [0, 1])
def test_split_and_unsplit_give_equal_logits_at_every_step(
    tiny: Path, name: str, number: int
) -> None:
    seen, kinds = clues(number, frames=7 + number, seconds=1 + number), senses(name)
    whole = reasoner(tiny / name)
    language = reasoner(tiny / name, split=True)
    sent = embedded(tiny / name, seen)
    one, other = whole.prepare(asked(seen, *kinds)), language.prepare(asked(sent, *kinds))
    assert (one.inputs["input_ids"] == other.inputs["input_ids"]).all()
    expected = logits(whole, asked(seen, *kinds))
    assert expected.shape[0] == 12
    assert (expected - logits(language, asked(sent, *kinds))).abs().max() == 0
    # other pictures, or none of their grids, would show
    moved = embedded(tiny / name, dataclasses.replace(clues(9, frames=7 + number), pcm=seen.pcm))
    assert (expected - logits(language, asked(moved, *kinds))).abs().max() > 1e-3
    assert {t.name for t in sent.tensors} >= {"video", "video.text", "video_grid_thw"}


def test_logits_are_equal_when_the_towers_run_in_another_process(tiny: Path) -> None:
    seen = clues(2)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as other:
        jobs = {name: other.submit(embedded, tiny / name, seen) for name in SPLITTABLE}
        sent = {name: job.result(timeout=240) for name, job in jobs.items()}
    for name in SPLITTABLE:
        parted = logits(reasoner(tiny / name, split=True), asked(sent[name], *senses(name)))
        whole = logits(reasoner(tiny / name), asked(seen, *senses(name)))
        assert (whole - parted).abs().max() == 0, name


@pytest.mark.parametrize("name", OMNI)
@pytest.mark.parametrize("samples", [4_001, 16_000, 47_999])
def test_what_is_heard_of_a_sound_is_as_when_it_is_filled_up_to_five_minutes(
    tiny: Path, name: str, samples: int
) -> None:
    from emer_ray import checkpoint

    options = checkpoint.TransformersOptions()
    made = checkpoint.processor(tiny / name, options)
    sound = np.random.default_rng(samples).standard_normal(samples).astype(np.float32)
    mine = checkpoint.inputs(made, options, made.audio_token, None, (), sound)
    theirs = made(text=made.audio_token, audio=[sound.copy()], return_tensors="pt")
    assert mine["input_ids"].tolist() == theirs["input_ids"].tolist()
    heard, reference = ({k: given[k] for k in FEATURES} for given in (mine, theirs))
    length = int(reference["feature_attention_mask"].sum())
    assert int(heard["feature_attention_mask"][0, :length].sum()) == length
    assert int(heard["feature_attention_mask"].sum()) == length
    moved = heard["input_features"][..., :length] - reference["input_features"][..., :length]
    assert moved.abs().max() == 0
    assert heard["input_features"].shape[-1] <= length + 4  # and not 30,000


@pytest.mark.parametrize("name", OMNI)
def test_controls_move_the_logits(tiny: Path, name: str) -> None:
    """What the split path carries matters: without it the logits differ."""
    import torch

    language = reasoner(tiny / name, split=True)
    full = embedded(tiny / name, clues(0))
    right = logits(language, asked(full))

    def without(*names: str) -> Clues:
        kept = tuple(t for t in full.tensors if t.name not in names)
        return dataclasses.replace(full, tensors=kept)

    def silent(prefix: str) -> Clues:
        return dataclasses.replace(
            full,
            tensors=tuple(
                dataclasses.replace(t, data=bytes(len(t.data))) if t.name == prefix else t
                for t in full.tensors
            ),
        )

    for changed in (
        silent("audio"),
        silent("video"),
        without("video_grid_thw", "video_second_per_grid"),
    ):
        wrong = logits(language, asked(changed))
        assert wrong.shape == right.shape
        assert (wrong - right).abs().max() > 1e-3
    if name == "omni3":
        levels = [t.name for t in full.tensors if t.name.startswith("video.deepstack.")]
        assert levels == ["video.deepstack.0", "video.deepstack.1"]
        assert (logits(language, asked(silent(levels[1]))) - right).abs().max() > 1e-3
    only_seen = logits(language, asked(full, "frames"))
    assert torch.isfinite(only_seen).all()


@pytest.mark.parametrize("name", SPLITTABLE)
def test_each_part_reads_only_its_own_weights(tiny: Path, name: str) -> None:
    from emer_ray import checkpoint

    options = checkpoint.TransformersOptions(split=True, dtype="float32")
    whole, towers, language = (
        {
            key: value.clone()
            for key, value in checkpoint.load(tiny / name, options, part)
            .state_dict(keep_vars=False)
            .items()
        }
        for part in ("whole", "towers", "language")
    )
    assert not towers.keys() & language.keys()
    assert towers.keys() | language.keys() == whole.keys()
    assert all((value == whole[key]).all() for key, value in (towers | language).items())


def test_a_clip_is_answered_alike_alone_and_among_others(tiny: Path) -> None:
    requests = [asked(clues(number, frames=4 + 3 * number)) for number in range(3)]
    requests.append(asked(dataclasses.replace(clues(3), pcm=None), "frames"))
    together = reasoner(tiny / "omni25", batch_tokens=10_000).explain(requests)
    alone = reasoner(tiny / "omni25", batch_tokens=1).explain(requests)
    assert [reply.raw for reply in together] == [reply.raw for reply in alone]
    assert len({reply.raw for reply in together}) > 1
    assert [reply.tokens_in for reply in together] == [reply.tokens_in for reply in alone]


def test_draws_follow_the_seed_of_a_request_and_not_its_neighbours(tiny: Path) -> None:
    who = reasoner(tiny / "omni25", temperature=1.0, top_p=0.9)
    first = asked(clues(0), seed=11)
    alone = who.explain([first])[0].raw
    assert who.explain([asked(clues(1), seed=5), first])[1].raw == alone
    requests = [dataclasses.replace(first, seed=seed) for seed in range(4)]
    drawn = [who.explain([request])[0].raw for request in requests]
    assert len(set(drawn)) > 1
    with ThreadPoolExecutor(4) as threads:  # as shards side by side do
        again = list(threads.map(lambda request: who.explain([request])[0].raw, requests))
    assert again == drawn


def test_embeddings_travel_in_half_the_bytes_when_asked(tiny: Path) -> None:
    wide = embedded(tiny / "omni25", clues(0)).tensors
    narrow = embedded(tiny / "omni25", clues(0), embeddings_dtype="bfloat16")
    sizes = {t.name: len(t.data) for t in wide}
    assert {t.name: len(t.data) for t in narrow.tensors if t.dtype == "bfloat16"} == {
        "video": sizes["video"] // 2,
        "audio": sizes["audio"] // 2,
    }
    assert isinstance(reasoner(tiny / "omni25", split=True).explain([asked(narrow)])[0], Reply)


@pytest.mark.parametrize("name", OMNI)
def test_the_bytes_of_embeddings_are_estimated_rather_too_high_than_too_low(
    tiny: Path, name: str
) -> None:
    from emer_ray import checkpoint

    seen = clues(0, frames=7, seconds=3)
    sent = embedded(tiny / name, seen).tensors
    options = {"split": True, "dtype": "float32", "processor": SMALL}
    model = ModelConfig(backend="transformers", model=str(tiny / name), options=options)
    guess = checkpoint.embedding_bytes(
        model, ("video", "audio"), frames=7, frame_pixels=90 * 120, audio_s=3
    )
    assert sum(len(t.data) for t in sent) <= guess <= 2 * sum(len(t.data) for t in sent)


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        *((name, ["frames"]) for name in ("video_text", "qwen3_vl", "llava_video")),
        *(("audio_text", ["audio"]), ("text", ["text"])),
    ],
)
def test_models_of_one_modality_answer_about_it(tiny: Path, name: str, kinds: list[str]) -> None:
    from emer_ray import checkpoint

    takes = checkpoint.modalities(checkpoint.settings(tiny / name))
    assert takes == {"text"} | {"frames": {"video"}, "audio": {"audio"}}.get(kinds[0], set())
    who = reasoner(tiny / name)
    requests = [asked(clues(number), *kinds) for number in range(2)]
    replies = who.explain(requests)
    assert all(isinstance(reply, Reply) and reply.tokens_out for reply in replies)
    assert replies[0] != replies[1]
    # the same question about other pictures or sound
    other = dataclasses.replace(clues(1), clip_id="clip-0")
    moved = (logits(who, requests[0]) - logits(who, asked(other, *kinds))).abs().max()
    assert (moved > 1e-3) == (name != "text")


def test_what_does_not_fit_is_asked_with_less_and_says_so(tiny: Path) -> None:
    full = reasoner(tiny / "omni25").explain([asked(clues(0, frames=16, seconds=8))])[0]
    assert full.notes == ()
    less = reasoner(tiny / "omni25", max_prompt_tokens=full.tokens_in - 50)
    reply = less.explain([asked(clues(0, frames=16, seconds=8))])[0]
    assert reply.tokens_in <= full.tokens_in - 50
    assert reply.notes == ("answered with 0.5 of its frames and sound, to fit its budget",)
    (failed,) = reasoner(tiny / "omni25", max_prompt_tokens=20).explain([asked(clues(0))])
    assert isinstance(failed, ClipError)
    assert failed.kind == "too_large"


def test_memory_that_runs_out_halves_the_group_then_the_clip_then_fails(tiny: Path) -> None:
    """The device's own error, raised by what stands where `generate` does."""
    import torch

    who = reasoner(tiny / "omni25")
    roomy = who.generate
    sizes: list[tuple[int, float]] = []

    def cramped(room: float) -> None:
        def generate(group: Any, **extra: Any) -> Any:
            sizes.append((len(group), group[0].share))
            if sum(item.share for item in group) > room:
                raise torch.OutOfMemoryError("rehearsed")
            return roomy(group, **extra)

        who.generate = generate

    requests = [asked(clues(number)) for number in range(4)]
    cramped(2)
    assert all(isinstance(reply, Reply) for reply in who.explain(requests))
    assert sizes == [(4, 1), (2, 1), (2, 1)]
    cramped(0.5)
    (lighter,) = who.explain(requests[:1])
    assert lighter.notes == ("answered with 0.5 of its frames and sound, to fit its budget",)
    cramped(0)
    (failed,) = who.explain(requests[:1])
    assert (type(failed), failed.kind) == (ClipError, "memory")


def test_towers_without_memory_look_at_less_and_the_answer_says_so(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from emer_ray.encode.transformers import Towers

    roomy = Towers._tensors
    tried: list[int] = []

    def cramped(self: Towers, frames: Any, times_s: Any, pcm: Any) -> Any:
        tried.append(len(frames))
        if len(frames) > 4:
            raise torch.OutOfMemoryError("rehearsed")
        return roomy(self, frames, times_s, pcm)

    monkeypatch.setattr(Towers, "_tensors", cramped)
    seen = embedded(tiny / "omni3", clues(0, frames=8))
    assert tried == [8, 4]
    language = reasoner(tiny / "omni3", split=True)
    note = ("answered with 0.5 of its frames and sound, to fit its budget",)
    for kinds in (("frames", "audio"), ("audio",)):
        (reply,) = language.explain([asked(seen, *kinds)])
        assert isinstance(reply, Reply)
        assert reply.notes == note
    assert language.prepare(asked(seen, "text")).tensors == ()


def test_requests_are_grouped_by_length_within_a_budget_of_tokens() -> None:
    import torch

    from emer_ray.reason.transformers import Prepared, grouped

    def prepared(tokens: int, pixels: int = 6) -> Prepared:
        ids = {"input_ids": torch.zeros(1, tokens), "pixel_values": torch.zeros(3, pixels)}
        return Prepared(request=asked(clues(0)), inputs=ids)

    sizes = [30, 10, 70, 20, 500, 15]
    groups = grouped([prepared(n) for n in sizes], max_tokens=10, budget=160)
    assert [[item.tokens for item in group] for group in groups] == [[10, 15, 20, 30], [70], [500]]
    assert all(
        len(group) * (max(item.tokens for item in group) + 10) <= 160 for group in groups[:2]
    )
    apart = grouped([prepared(10), prepared(10, pixels=8)], max_tokens=10, budget=10**6)
    assert [len(group) for group in apart] == [1, 1]


def test_loading_takes_the_options_given_and_nothing_unsafe(tiny: Path, tmp_path: Path) -> None:
    import shutil

    from emer_ray import checkpoint

    def load(path: Path, **options: Any) -> Any:
        chosen = checkpoint.TransformersOptions(**options)
        checkpoint.processor(path, chosen)
        return checkpoint.load(path, chosen)

    eager = load(tiny / "text", load={"attn_implementation": "eager"}, dtype="bfloat16")
    assert (eager.config._attn_implementation, str(eager.dtype)) == ("eager", "torch.bfloat16")
    assert str(load(tiny / "text", device="meta").device) == "meta"
    # quantization goes to the library as it is: here it lacks what it would need
    four_bits = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    with pytest.raises(ModelError, match="bitsandbytes"):
        load(tiny / "text", load={"quantization_config": four_bits})

    pickled = shutil.copytree(tiny / "text", tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(ModelError, match="cannot load it"):
        load(pickled)
    torn = shutil.copytree(tiny / "text", tmp_path / "torn")
    (torn / "model.safetensors").write_bytes((torn / "model.safetensors").read_bytes()[:1000])
    with pytest.raises(ModelError, match="cannot load it"):
        load(torn)
    coded = shutil.copytree(tiny / "text", tmp_path / "coded")
    found = json.loads((coded / "config.json").read_text(encoding="utf-8"))
    found |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.C", "AutoModel": "mine.M"}}
    (coded / "config.json").write_text(json.dumps(found), encoding="utf-8")
    (coded / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')", encoding="utf-8")
    with pytest.raises(ModelError, match="cannot load it"):
        load(coded)
    assert not (tmp_path / "ran").exists()


def test_budgets_of_frames_pixels_and_sound() -> None:
    from emer_ray import checkpoint

    seen = clues(0, frames=8, seconds=4)
    options = checkpoint.TransformersOptions(max_frames=4, max_pixels=60 * 45, max_audio_s=1.5)
    frames, times_s, pcm = checkpoint.fitted(options, seen.frames, seen.frame_times_s, seen.pcm)
    assert frames is not None
    assert pcm is not None
    assert frames.shape == (4, 45, 60, 3)
    assert times_s == [0.4 * i for i in (1, 3, 5, 7)]
    assert len(pcm) == 24_000


def test_options_are_checked_and_families_that_cannot_be_split_refused(tiny: Path) -> None:
    from emer_ray.checkpoint import TransformersOptions

    with pytest.raises(ConfigError, match=r"models\.main\.options\.dtyp: unknown; known: dtype"):
        TransformersOptions.of(ModelConfig(options={"dtyp": "float32"}), "main")
    for name, kind in (
        ("text", "qwen2"),
        ("audio_text", "qwen2_audio"),
        ("llava_video", "llava_next_video"),
    ):
        with pytest.raises(ModelError, match=f"a {kind} cannot be split .*split = false"):
            reasoner(tiny / name, split=True)


def test_what_a_checkpoint_cannot_do_is_refused_before_anything_starts(
    tiny: Path, tmp_path: Path
) -> None:
    def steps(path: Path, **options: Any) -> None:
        main = {"backend": "transformers", "model": str(path), "options": options}
        pipeline.steps(config.parse({"models": {"main": main}}), pipeline.Start(run="r"))

    steps(tiny / "omni3", split=True)
    for name, blind in (
        *(("video_text", "audio"), ("llava_video", "audio"), ("audio_text", "video")),
        ("text", "audio and video"),
    ):
        with pytest.raises(ConfigError, match=f"cannot take {blind};"):
            steps(tiny / name)
    # a model of single pictures has a vision tower too, but no place for a video
    found = {"model_type": "llava", "vision_config": {}, "audio_config": {}, "hidden_size": 8}
    (tmp_path / "config.json").write_text(json.dumps(found), encoding="utf-8")
    with pytest.raises(ConfigError, match="cannot take video;"):
        steps(tmp_path)
    found |= {"video_token_id": 3}
    (tmp_path / "config.json").write_text(json.dumps(found), encoding="utf-8")
    steps(tmp_path)
    with pytest.raises(ConfigError, match=r"'main' is a llava, which cannot be split \(qwen2_5_om"):
        steps(tmp_path, split=True)


def test_checkpoints_come_from_a_folder_a_bucket_or_a_pinned_hub_id(
    tiny: Path, tmp_path: Path
) -> None:
    from emer_ray import checkpoint

    assert checkpoint.folder(str(tiny / "text"), None, tmp_path) == tiny / "text"
    with pytest.raises(ModelError, match=r"no folder with a config\.json"):
        checkpoint.folder(str(tmp_path), None, tmp_path)
    with pytest.raises(ConfigError, match=r"set models\.<name>\.revision"):
        checkpoint.folder("owner/name", None, tmp_path)
    with pytest.raises(ModelError, match="neither in the hub's cache"):
        checkpoint.folder("owner/name", "main", tmp_path)


@pytest.mark.s3
def test_a_checkpoint_in_a_bucket_is_copied_once(tiny: Path, tmp_path: Path, bucket: str) -> None:
    from emer_ray import checkpoint, storage

    for path in (tiny / "text").iterdir():
        storage.write(storage.join(bucket, "model", path.name), path.read_bytes())
    storage.write(storage.join(bucket, "model", "weights.bin"), b"a pickle")
    first = checkpoint.folder(storage.join(bucket, "model"), None, tmp_path)
    assert {path.name for path in first.iterdir()} == {p.name for p in (tiny / "text").iterdir()}
    before = (first / "config.json").stat().st_mtime_ns
    again = checkpoint.folder(storage.join(bucket, "model"), None, tmp_path)
    assert (again, (again / "config.json").stat().st_mtime_ns) == (first, before)
    with pytest.raises(ModelError, match="no checkpoint there"):
        checkpoint.folder(storage.join(bucket, "nothing"), None, tmp_path)


def test_a_checkpoint_is_known_by_what_it_holds(tiny: Path, tmp_path: Path) -> None:
    import shutil

    from emer_ray import checkpoint

    def named(path: Path | str) -> str:
        return checkpoint.identity(ModelConfig(backend="transformers", model=str(path)))

    moved = shutil.copytree(tiny / "text", tmp_path / "elsewhere")
    assert named(moved) == named(tiny / "text") != named(tiny / "omni25")
    (moved / "generation_config.json").write_text("{}", encoding="utf-8")
    assert named(moved) != named(tiny / "text")
    assert named("owner/name") == "owner/name"


def test_a_tensor_survives_the_row(tiny: Path) -> None:
    from emer_ray import stages

    tensors = (
        Tensor(name="video", dtype="bfloat16", shape=(2, 3), data=bytes(range(12))),
        Tensor(name="video_grid_thw", dtype="int64", shape=(1, 3), data=bytes(24)),
    )
    row = stages._tensor_row(tensors)
    assert [bytes(t.data) for t in stages._tensors(row)] == [t.data for t in tensors]
    assert [(t.name, t.shape) for t in stages._tensors(row)] == [(t.name, t.shape) for t in tensors]
