"""Tiny random models in the layout of the hub, made offline in seconds, for tests and benchmarks.

Their architecture is that of the real checkpoints, file names and weight names included; what they
say is noise. `omni25` and `omni3` take video and sound, `video_text` (Qwen2.5-VL), `qwen3_vl`,
`llava_video` and `audio_text` one of them, `text` neither.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    LlavaNextImageProcessor,
    LlavaNextVideoConfig,
    LlavaNextVideoForConditionalGeneration,
    LlavaNextVideoProcessor,
    LlavaNextVideoVideoProcessor,
    PreTrainedModel,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2_5OmniConfig,
    Qwen2_5OmniProcessor,
    Qwen2_5OmniThinkerConfig,
    Qwen2_5OmniThinkerForConditionalGeneration,
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioProcessor,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2TokenizerFast,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
    Qwen3OmniMoeConfig,
    Qwen3OmniMoeProcessor,
    Qwen3OmniMoeThinkerConfig,
    Qwen3OmniMoeThinkerForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
    WhisperFeatureExtractor,
)

HIDDEN = 128
HEADS = 2  # heads of 64: vLLM's CPU attention refuses 16
AUDIO_S = 30

SPECIAL = {
    "image_token": "<|IMAGE|>",
    "audio_token": "<|AUDIO|>",
    "video_token": "<|VIDEO|>",
    "vision_bos_token": "<|vision_bos|>",
    "vision_eos_token": "<|vision_eos|>",
    "audio_bos_token": "<|audio_bos|>",
    "audio_eos_token": "<|audio_eos|>",
}
LINES = [
    "The speaker looks happy and smiles, the voice is warm.",
    "anger sadness joy fear disgust surprise neutral",
    '{"visual_clues": ["smile"], "labels": ["joy"], "explanation": "raised pitch"}',
] * 50

CHAT = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.content is string %}{{ m.content }}{% else %}{% for c in m.content %}"
    "{% if c.type == 'video' %}<|vision_bos|><|VIDEO|><|vision_eos|>"
    "{% elif c.type == 'audio' %}<|audio_bos|><|AUDIO|><|audio_eos|>"
    "{% elif c.type == 'image' %}<|vision_bos|><|IMAGE|><|vision_eos|>"
    "{% else %}{{ c.text }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tokenizer(scratch: Path) -> Qwen2TokenizerFast:
    """Train a byte-level tokenizer on a few lines; every text can be encoded."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_pad|>", *SPECIAL.values()]
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    trained.train_from_iterator(LINES, trainer)
    scratch.mkdir(parents=True, exist_ok=True)
    trained.save(str(scratch / "trained.json"))
    made = Qwen2TokenizerFast(
        tokenizer_file=str(scratch / "trained.json"),
        pad_token="<|endoftext|>",  # noqa: S106 - no password
        eos_token="<|im_end|>",  # noqa: S106
        unk_token=None,
        extra_special_tokens=SPECIAL,
        chat_template=CHAT,
    )
    (scratch / "trained.json").unlink()
    return made


def _save(model: PreTrainedModel, tokens: Qwen2TokenizerFast, folder: Path) -> None:
    model.generation_config.eos_token_id = tokens.convert_tokens_to_ids("<|im_end|>")
    model.generation_config.pad_token_id = tokens.convert_tokens_to_ids("<|endoftext|>")
    model.save_pretrained(folder)


def _thinker_of_whole(folder: Path, whole: type, thinker_type: str, name: str) -> None:
    """Rewrite a thinker as the hub has it: a part of a larger model, its weights prefixed."""
    weights = load_file(folder / "model.safetensors")
    save_file(
        {f"thinker.{name}": tensor for name, tensor in weights.items()},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    thinker = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    thinker["model_type"] = thinker_type
    config = whole(thinker_config=thinker, enable_audio_output=False).to_dict()
    config["architectures"] = [name]
    (folder / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")


def _ids(tokens: Qwen2TokenizerFast) -> dict[str, int]:
    of = tokens.convert_tokens_to_ids
    return {
        "audio_token_id": of("<|AUDIO|>"),
        "image_token_id": of("<|IMAGE|>"),
        "video_token_id": of("<|VIDEO|>"),
        "vision_start_token_id": of("<|vision_bos|>"),
        "vision_end_token_id": of("<|vision_eos|>"),
        "audio_start_token_id": of("<|audio_bos|>"),
        "audio_end_token_id": of("<|audio_eos|>"),
    }


def _pictures(patch: int) -> dict[str, Any]:
    size = {"shortest_edge": 56 * 56, "longest_edge": 112 * 112}
    kinds = {"image_processor": Qwen2VLImageProcessor, "video_processor": Qwen2VLVideoProcessor}
    return {
        name: kind(patch_size=patch, temporal_patch_size=2, merge_size=2, size=dict(size))
        for name, kind in kinds.items()
    }


def _sounds() -> WhisperFeatureExtractor:
    return WhisperFeatureExtractor(
        feature_size=128, sampling_rate=16_000, hop_length=160, chunk_length=AUDIO_S, n_fft=400
    )


def omni25(folder: Path) -> Path:
    """Save a Qwen2.5-Omni of 1.6 million weights."""
    tokens = tokenizer(folder)
    Qwen2_5OmniProcessor(
        **_pictures(14), feature_extractor=_sounds(), tokenizer=tokens, chat_template=CHAT
    ).save_pretrained(folder)
    ids = _ids(tokens)
    config = Qwen2_5OmniThinkerConfig(
        audio_config={
            "num_mel_bins": 128,
            "encoder_layers": 2,
            "encoder_attention_heads": HEADS,
            "encoder_ffn_dim": 256,
            "d_model": HIDDEN,
            "output_dim": HIDDEN,
            "max_source_positions": 1500,
            "n_window": 100,
        },
        vision_config={
            "depth": 2,
            "hidden_size": HIDDEN,
            "intermediate_size": 256,
            "num_heads": HEADS,
            "patch_size": 14,
            "temporal_patch_size": 2,
            "spatial_merge_size": 2,
            "window_size": 112,
            "fullatt_block_indexes": [1],
            "out_hidden_size": HIDDEN,
        },
        text_config=_text(len(tokens), [8, 12, 12]),
        **ids,
        audio_token_index=ids["audio_token_id"],
        image_token_index=ids["image_token_id"],
        video_token_index=ids["video_token_id"],
        position_id_per_seconds=25,
        seconds_per_chunk=2,
        user_token_id=tokens.encode("user")[0],
        pad_token_id=tokens.pad_token_id,
        initializer_range=0.2,
    )
    torch.manual_seed(0)
    _save(Qwen2_5OmniThinkerForConditionalGeneration(config).eval(), tokens, folder)
    _thinker_of_whole(folder, Qwen2_5OmniConfig, "qwen2_5_omni_thinker", "Qwen2_5OmniModel")
    return folder


def _text(words: int, sections: list[int] | None = None) -> dict[str, Any]:
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": 1e6}
    if sections:
        rope["mrope_section"] = sections
    return {
        "vocab_size": words,
        "hidden_size": HIDDEN,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": HEADS,
        "num_key_value_heads": 1,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": False,
        "rope_parameters": rope,
        "use_sliding_window": False,
        "sliding_window": None,
        "initializer_range": 0.2,
    }


def omni3(folder: Path) -> Path:
    """Save a Qwen3-Omni: experts in the language model, features of two inner vision layers."""
    tokens = tokenizer(folder)
    Qwen3OmniMoeProcessor(
        **_pictures(16), feature_extractor=_sounds(), tokenizer=tokens, chat_template=CHAT
    ).save_pretrained(folder)
    config = Qwen3OmniMoeThinkerConfig(
        audio_config={
            "num_mel_bins": 128,
            "encoder_layers": 2,
            "encoder_attention_heads": HEADS,
            "encoder_ffn_dim": 128,
            "d_model": HIDDEN,
            "output_dim": HIDDEN,
            "max_source_positions": 1500,
            "n_window": 50,
            "n_window_infer": 400,
            "conv_chunksize": 500,
            "downsample_hidden_size": 32,
        },
        vision_config={
            "depth": 3,
            "hidden_size": HIDDEN,
            "intermediate_size": 128,
            "num_heads": HEADS,
            "patch_size": 16,
            "temporal_patch_size": 2,
            "spatial_merge_size": 2,
            "out_hidden_size": HIDDEN,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0, 1],
        },
        text_config={
            **_text(len(tokens), [12, 10, 10]),
            "num_hidden_layers": 3,
            "moe_intermediate_size": 64,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "head_dim": 64,
        },
        **_ids(tokens),
        user_token_id=tokens.encode("user")[0],
        position_id_per_seconds=13,
        initializer_range=0.2,
    )
    torch.manual_seed(0)
    _save(Qwen3OmniMoeThinkerForConditionalGeneration(config).eval(), tokens, folder)
    whole = "Qwen3OmniMoeForConditionalGeneration"
    _thinker_of_whole(folder, Qwen3OmniMoeConfig, "qwen3_omni_moe_thinker", whole)
    return folder


def video_text(folder: Path) -> Path:
    """Save a Qwen2.5-VL: pictures and text."""
    tokens = tokenizer(folder)
    Qwen2_5_VLProcessor(**_pictures(14), tokenizer=tokens, chat_template=CHAT).save_pretrained(
        folder
    )
    ids = {name: value for name, value in _ids(tokens).items() if not name.startswith("audio")}
    config = Qwen2_5_VLConfig(
        vision_config={
            "depth": 2,
            "hidden_size": HIDDEN,
            "intermediate_size": 256,
            "num_heads": HEADS,
            "patch_size": 14,
            "temporal_patch_size": 2,
            "spatial_merge_size": 2,
            "window_size": 112,
            "fullatt_block_indexes": [1],
            "out_hidden_size": HIDDEN,
            "tokens_per_second": 2,
        },
        text_config=_text(len(tokens), [8, 12, 12]),
        **ids,
    )
    torch.manual_seed(0)
    _save(Qwen2_5_VLForConditionalGeneration(config).eval(), tokens, folder)
    return folder


def qwen3_vl(folder: Path) -> Path:
    """Save a Qwen3-VL: pictures, with features of two inner layers, and text."""
    tokens = tokenizer(folder)
    kinds = _pictures(16) | {
        "video_processor": Qwen3VLVideoProcessor(
            patch_size=16, size={"shortest_edge": 56 * 56, "longest_edge": 8 * 112**2}
        )
    }
    Qwen3VLProcessor(**kinds, tokenizer=tokens, chat_template=CHAT).save_pretrained(folder)
    ids = {name: value for name, value in _ids(tokens).items() if not name.startswith("audio")}
    config = Qwen3VLConfig(
        vision_config={
            "depth": 3,
            "hidden_size": HIDDEN,
            "intermediate_size": 128,
            "num_heads": HEADS,
            "patch_size": 16,
            "temporal_patch_size": 2,
            "spatial_merge_size": 2,
            "out_hidden_size": HIDDEN,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0, 1],
        },
        text_config={**_text(len(tokens), [12, 10, 10]), "head_dim": 64},
        **ids,
    )
    torch.manual_seed(0)
    _save(Qwen3VLForConditionalGeneration(config).eval(), tokens, folder)
    return folder


def llava_video(folder: Path) -> Path:
    """Save a LLaVA-NeXT-Video: pictures of one size, pooled two by two, and text."""
    tokens = tokenizer(folder)
    side = {"height": 56, "width": 56}
    LlavaNextVideoProcessor(
        video_processor=LlavaNextVideoVideoProcessor(size={"shortest_edge": 56}, crop_size=side),
        image_processor=LlavaNextImageProcessor(size={"shortest_edge": 56}, crop_size=side),
        tokenizer=tokens,
        chat_template=CHAT,
        patch_size=14,
        vision_feature_select_strategy="default",
    ).save_pretrained(folder)
    ids = _ids(tokens)
    config = LlavaNextVideoConfig(
        vision_config={
            "model_type": "clip_vision_model",
            "hidden_size": HIDDEN,
            "intermediate_size": 256,
            "num_hidden_layers": 3,
            "num_attention_heads": HEADS,
            "image_size": 56,
            "patch_size": 14,
        },
        text_config={"model_type": "qwen2", **_text(len(tokens))},
        image_token_index=ids["image_token_id"],
        video_token_index=ids["video_token_id"],
        image_grid_pinpoints=[[56, 112], [112, 56]],
    )
    torch.manual_seed(0)
    _save(LlavaNextVideoForConditionalGeneration(config).eval(), tokens, folder)
    return folder


def audio_text(folder: Path) -> Path:
    """Save a Qwen2-Audio: sound and text."""
    tokens = tokenizer(folder)
    Qwen2AudioProcessor(
        feature_extractor=_sounds(), tokenizer=tokens, chat_template=CHAT
    ).save_pretrained(folder)
    config = Qwen2AudioConfig(
        audio_config={
            "model_type": "qwen2_audio_encoder",
            "num_mel_bins": 128,
            "encoder_layers": 2,
            "encoder_attention_heads": HEADS,
            "encoder_ffn_dim": 256,
            "d_model": HIDDEN,
            "max_source_positions": 1500,
        },
        text_config={"model_type": "qwen2", **_text(len(tokens))},
        audio_token_index=tokens.convert_tokens_to_ids("<|AUDIO|>"),
    )
    torch.manual_seed(0)
    _save(Qwen2AudioForConditionalGeneration(config).eval(), tokens, folder)
    return folder


def text(folder: Path) -> Path:
    """Save a language model that takes text only."""
    tokens = tokenizer(folder)
    tokens.save_pretrained(folder)
    config = Qwen2Config(**_text(len(tokens)))
    torch.manual_seed(0)
    _save(Qwen2ForCausalLM(config).eval(), tokens, folder)
    return folder


ALL = (omni25, omni3, video_text, qwen3_vl, llava_video, audio_text, text)
