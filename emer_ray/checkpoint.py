"""Checkpoints in the layout of Hugging Face: where their files lie; loading them whole or in part.

    folder          read in place
    s3://…/prefix   copied once per node into the cache of `EMER_MODELS`, one process at a time
    owner/name      of the hub, with `models.<name>.revision`: from the hub's own cache, or fetched

Only safetensors (and GGUF, when named) are read, and code that comes with a checkpoint runs only if
`options.trust_remote_code` says so. A family that can be split is loaded as *towers* (what turns
frames and sound into embeddings) or as *language* (what answers): the other part is never read.
This module knows nothing of clips or prompts, and torch is loaded by those who call it for weights.
"""

import fcntl
import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from emer_ray import storage
from emer_ray.config import ModelConfig
from emer_ray.errors import ConfigError, ModelError, StorageError
from emer_ray.records import AUDIO_HZ, Frames, Modality, Pcm

Part = Literal["whole", "towers", "language"]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]

THINKERS: Final = {
    "qwen2_5_omni": "Qwen2_5OmniThinkerForConditionalGeneration",
    "qwen2_5_omni_thinker": "Qwen2_5OmniThinkerForConditionalGeneration",
    "qwen3_omni_moe": "Qwen3OmniMoeThinkerForConditionalGeneration",
    "qwen3_omni_moe_thinker": "Qwen3OmniMoeThinkerForConditionalGeneration",
}
"""Model type -> the class that listens, looks and writes; the library's own choice would also load
what speaks."""
SPLITTABLE: Final = {
    **THINKERS,
    "qwen2_5_vl": "Qwen2_5_VLForConditionalGeneration",
    "qwen3_vl": "Qwen3VLForConditionalGeneration",
}
"""Families whose language model takes what its towers made elsewhere."""
GRIDS: Final = ("video_grid_thw", "video_second_per_grid", "second_per_grid_ts")
"""Inputs from which positions of pictures are counted, by the names that families give them."""

FILES: Final = ("*.json", "*.safetensors", "*.txt", "*.jinja", "*.model", "*.gguf")
"""What is taken from a bucket or the hub: no pickles."""
CODE: Final = ("*.py",)

LANGUAGE_ONLY: Final = frozenset({"split", "batch_tokens", "max_prompt_tokens", "generate"})
"""Options that no tower's output depends on."""

SAYING: Final = ("config.json", "generation_config.json", "model.safetensors.index.json")

HUB_ID: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


class CheckpointOptions(BaseModel):
    """What the backends that load a checkpoint have in common."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dtype: Dtype = "auto"
    """Of weights and arithmetic; auto = as the checkpoint says."""
    max_frames: Count | None = None
    max_pixels: Count | None = None
    """Of one frame; larger ones are made smaller."""
    max_audio_s: Positive | None = None
    """Sound beyond it is not heard."""
    trust_remote_code: bool = False
    processor: dict[str, Any] = Field(default_factory=dict)
    """Goes to the processor: videos_kwargs, audio_kwargs; for vllm, plain keys such as size."""

    @classmethod
    def of(cls, model: ModelConfig, name: str = "<name>") -> Self:
        """Check plain options; raises ConfigError for an unknown or impossible one."""
        try:
            return cls.model_validate(model.options)
        except ValidationError as error:
            first = error.errors()[0]
            path = ".".join(["models", name, "options", *(str(part) for part in first["loc"])])
            known = ", ".join(cls.model_fields)
            wrong = (
                f"unknown; known: {known}" if first["type"] == "extra_forbidden" else first["msg"]
            )
            raise ConfigError(f"{path}: {wrong} (got {first['input']!r})") from None


class TransformersOptions(CheckpointOptions):
    """`models.<name>.options` of the transformers backend."""

    split: bool = False
    """Run the towers in a pool of their own and send embeddings to the language model."""
    embeddings_dtype: Dtype = "auto"
    """Of embeddings on their way between pools; auto = as the towers give them."""
    device: str = "auto"
    """auto = a GPU where the actor has one."""
    batch_tokens: Count = 16_384
    """Clips are asked together as long as prompt and answer, padded, take no more tokens."""
    max_prompt_tokens: Count | None = None
    """A clip whose prompt is longer is asked with fewer frames and less sound."""
    load: dict[str, Any] = Field(default_factory=dict)
    """Goes to `from_pretrained`: quantization_config, attn_implementation, device_map, …"""
    generate: dict[str, Any] = Field(default_factory=dict)
    """Goes to `generate`, for example repetition_penalty."""


class VllmOptions(CheckpointOptions):
    """`models.<name>.options` of the vllm backend."""

    NOT_RESULTS: ClassVar[frozenset[str]] = frozenset(
        {"tensor_parallel_size", "gpu_memory_utilization", "max_num_seqs"}
    )
    """Options that say where and how fast, not what."""

    tensor_parallel_size: Count = 1
    """GPUs of one engine; `pools.<step>.gpus` gives them to its actor."""
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] | None = None
    """Part of the GPU's memory for weights and cache; null = vLLM's own choice."""
    max_model_len: Count | None = None
    """Tokens of prompt and answer; null = as the checkpoint says. A clip whose prompt is longer is
    asked with fewer frames and less sound."""
    max_num_seqs: Count | None = None
    """Requests that the engine answers at a time."""
    structured: bool = True
    """Hold answers to the JSON schema of their step, where it has one."""
    sampling: dict[str, Any] = Field(default_factory=dict)
    """Goes to vLLM's SamplingParams, for example repetition_penalty or top_k."""
    engine_args: dict[str, Any] = Field(default_factory=dict)
    """Goes to vLLM's engine arguments, over what is set here: quantization, enforce_eager, …"""


def folder(model: str, revision: str | None, cache: Path, *, code: bool = False) -> Path:
    """Give the local folder of a checkpoint, copied or fetched first where it lies elsewhere."""
    patterns = (*FILES, *CODE) if code else FILES
    if storage.is_s3(model):
        return _copied(model, cache / "checkpoints", patterns)
    path = Path(model).expanduser()
    if (path / "config.json").is_file() or any(path.glob("*.gguf")):
        return path
    if path.exists() or not HUB_ID.fullmatch(model):
        raise ModelError(
            f"model {model!r}: no folder with a config.json; give a checkpoint's folder, an s3:// "
            f"prefix, or a hub id like owner/name"
        )
    if revision is None:
        raise ConfigError(
            f"model {model!r} is a hub id; set models.<name>.revision to a commit of it, so that "
            f"every node and every resume loads the same weights"
        )
    return _from_hub(model, revision, patterns)


def local_folder(model: ModelConfig, cache: Path) -> Path:
    """Give the local folder of a configured model's checkpoint (see `folder`)."""
    code = bool(model.options.get("trust_remote_code", False))
    return folder(model.model, model.revision, cache, code=code)


def _from_hub(model: str, revision: str, patterns: Sequence[str]) -> Path:
    from huggingface_hub import errors, snapshot_download

    try:
        return Path(snapshot_download(model, revision=revision, allow_patterns=list(patterns)))
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, OSError) as error:
        raise ModelError(
            f"model {model!r} at {revision}: neither in the hub's cache nor to be had "
            f"({type(error).__name__}); fetch it with `hf download`, or give a folder"
        ) from None


def _copied(prefix: str, cache: Path, patterns: Sequence[str]) -> Path:
    """Copy a prefix of a bucket; what it holds is part of the copy's name, so it may change."""
    objects = _files(_base(prefix), patterns)
    if not objects:
        raise ModelError(f"model {prefix!r}: no checkpoint there; give the prefix of its files")
    listed = json.dumps([prefix, [(name, e.size, e.modified_s) for name, e in objects]])
    target = cache / hashlib.sha256(listed.encode()).hexdigest()[:24]
    if target.is_dir():
        return target
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"{target.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.is_dir():  # another process of this node was faster
            return target
        half = cache / f".half-{target.name}"
        shutil.rmtree(half, ignore_errors=True)
        half.mkdir()
        for name, entry in objects:
            with storage.open_file(entry.uri) as source, (half / name).open("wb") as copy:
                shutil.copyfileobj(source, copy, 2**24)
                copy.flush()
                os.fsync(copy.fileno())
        half.rename(target)
    return target


def settings(path: Path) -> dict[str, Any]:
    """Read a checkpoint's `config.json`."""
    try:
        found: dict[str, Any] = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise ModelError(f"{path / 'config.json'}: {error}; the checkpoint is damaged") from None
    return found


def modalities(found: Mapping[str, Any]) -> set[Modality]:
    """Tell from a `config.json` what a model takes."""
    inner = found.get("thinker_config", found)
    takes: set[Modality] = {"text"}
    if "vision_config" in inner:
        takes.add("video")
    if "audio_config" in inner:
        takes.add("audio")
    return takes


def identity(model: ModelConfig) -> str:
    """Name what is in a checkpoint, wherever it lies; its own name where it cannot be read here."""
    if not storage.is_s3(model.model) and not Path(model.model).expanduser().is_dir():
        return model.model
    base = _base(model.model)
    listed = [(name, entry.size) for name, entry in _files(base, FILES)]
    said = [storage.read(storage.join(base, name)) for name, _ in listed if name in SAYING]
    return hashlib.sha256(json.dumps(listed).encode() + b"".join(said)).hexdigest()[:16]


def _base(model: str) -> str:
    return (model if storage.is_s3(model) else str(Path(model).expanduser())).rstrip("/")


def _files(base: str, patterns: Sequence[str]) -> list[tuple[str, storage.Entry]]:
    """List a checkpoint's own files by name; folders beside them are not part of it."""
    named = [(entry.uri.removeprefix(base + "/"), entry) for entry in storage.listing(base + "/")]
    return sorted(
        (name, entry)
        for name, entry in named
        if "/" not in name and any(Path(name).match(pattern) for pattern in patterns)
    )


def takes(model: ModelConfig) -> frozenset[Modality]:
    """Tell what a configured model takes; everything, where its files cannot be read from here."""
    found = _told(model, "config.json")
    if found is None:
        if "gguf_file" in model.options.get("load", {}):
            return frozenset(("text",))
        return frozenset(("video", "audio", "text"))
    seen = modalities(found)
    return frozenset(seen if _shows_video(model, found) else seen - {"video"})


def _shows_video(model: ModelConfig, found: Mapping[str, Any]) -> bool:
    """Tell a model that takes frames in time from one that takes single pictures."""
    inner = found.get("thinker_config", found)
    if "video_token_id" in inner or "video_token_index" in inner:
        return True
    return _video_processor(model) is not None


def _video_processor(model: ModelConfig) -> Any:
    """Read how a checkpoint prepares frames, from its own file or the one for all its inputs."""
    own = _told(model, "video_preprocessor_config.json")
    return own or (_told(model, "processor_config.json") or {}).get("video_processor")


def cannot_split(model: ModelConfig) -> str | None:
    """Name the family of a checkpoint that cannot be split; None where it can, or is unknown."""
    kind = (_told(model, "config.json") or {}).get("model_type")
    return None if kind is None or kind in SPLITTABLE else str(kind)


FRAME_PIXELS: Final = (128 * 28 * 28, 768 * 28 * 28)
"""Least and most pixels that a Qwen processor makes of a frame, where its file does not say."""
AUDIO_TOKENS_PER_S: Final = 25
"""Of Qwen2.5-Omni and Qwen2-Audio; Qwen3-Omni makes half as many."""
TYPICAL: Final[Mapping[str, Any]] = {
    "vision_config": {"deepstack_visual_indexes": [0, 1, 2]},
    "text_config": {"hidden_size": 4096},
}
"""Where a checkpoint's own files cannot be read from here."""


def embedding_bytes(
    model: ModelConfig,
    seen: Collection[Modality],
    *,
    frames: int,
    frame_pixels: float,
    audio_s: float,
) -> float:
    """Estimate what the towers of a model send for one clip, in bytes, rather too much than less.

    Vision tokens are sent once more for each inner layer whose features the family uses.
    """
    options = TransformersOptions.of(model)
    found = _told(model, "config.json") or TYPICAL
    inner = found.get("thinker_config", found)
    vision = inner.get("vision_config", {})
    dtype = options.embeddings_dtype if options.embeddings_dtype != "auto" else options.dtype
    if dtype == "auto":
        dtype = found.get("dtype") or inner.get("dtype") or "bfloat16"
    width = inner.get("text_config", inner).get("hidden_size", 4096) * (
        4 if dtype == "float32" else 2
    )
    total = 0.0
    if "video" in seen:
        size = {
            **(_video_processor(model) or {}),
            **options.processor.get("videos_kwargs", {}),
        }.get("size", {})
        least = size.get("shortest_edge", FRAME_PIXELS[0])
        most = size.get("longest_edge", FRAME_PIXELS[1])
        pixels = max(least, min(most, frame_pixels, options.max_pixels or frame_pixels))
        side = vision.get("patch_size", 14) * vision.get("spatial_merge_size", 2)
        # rounding to whole tokens may add half of one at each end of a row and a column
        per_side = math.sqrt(pixels) / side + 1
        steps = -(-min(frames, options.max_frames or frames) // 2)
        levels = 1 + len(vision.get("deepstack_visual_indexes", ()))
        total += steps * per_side**2 * levels * width
    if "audio" in seen:
        total += min(audio_s, options.max_audio_s or audio_s) * AUDIO_TOKENS_PER_S * width
    return total


def _told(model: ModelConfig, name: str) -> Any:
    """Read one of a checkpoint's JSON files where it lies; None where that cannot be done here."""
    base = _base(model.model)
    if not storage.is_s3(base) and not Path(base).is_dir():
        return None
    try:
        return json.loads(storage.read(storage.join(base, name)))
    except (StorageError, json.JSONDecodeError):
        return None


def processor(path: Path, options: CheckpointOptions) -> Any:
    """Load what turns text, frames and sound into a model's inputs; for text alone a tokenizer."""
    from transformers import AutoProcessor, AutoTokenizer

    gguf = options.load.get("gguf_file") if isinstance(options, TransformersOptions) else None
    kind = AutoTokenizer if gguf or modalities(settings(path)) == {"text"} else AutoProcessor
    extra = {"gguf_file": gguf} if gguf else {}
    code = options.trust_remote_code
    made = _made(kind, path, trust_remote_code=code, local_files_only=True, **extra)
    if not made.chat_template:
        raise ModelError(f"{path} has no chat template; take an instruction-tuned checkpoint")
    return made


def load(path: Path, options: TransformersOptions, part: Part = "whole") -> Any:
    """Load a model, or one part of it, ready to answer."""
    import torch

    device = options.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    wanted = {
        "dtype": options.dtype,
        "local_files_only": True,
        "trust_remote_code": options.trust_remote_code,
        **({} if "gguf_file" in options.load else {"use_safetensors": True}),
        **({} if device == "cpu" else {"device_map": {"": device}}),
        **options.load,
    }
    kind = _class(path, options)
    wholly_or_not = kind if part == "whole" else _part_of(kind, part)
    return _made(wholly_or_not, path, **wanted).eval()


def _made(kind: Any, path: Path, **wanted: Any) -> Any:
    """Build something from a checkpoint's files; raises ModelError for what they do not allow."""
    from safetensors import SafetensorError

    try:
        return kind.from_pretrained(path, **wanted)
    except (ImportError, OSError, SafetensorError, TypeError, ValueError) as error:
        said = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ModelError(
            f"{path}: transformers cannot load it ({said}); check models.<name>.model and options"
        ) from error


def _class(path: Path, options: TransformersOptions) -> Any:
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES

    kind = "llm" if "gguf_file" in options.load else settings(path)["model_type"]
    if kind in SPLITTABLE:
        return getattr(transformers, SPLITTABLE[kind])
    if options.split:
        raise ModelError(
            f"{path}: a {kind} cannot be split here ({', '.join(SPLITTABLE)} can); "
            f"set models.<name>.options.split = false"
        )
    if kind in MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES:
        return transformers.AutoModelForMultimodalLM
    return transformers.AutoModelForCausalLM


def _part_of(kind: Any, part: Part) -> Any:
    """Make the class of a model that lacks what the other pool does.

    The library builds a model without memory, then reads the weights that it has a place for: what
    is taken away before is never read. Renaming of weights goes by class name, so it is kept.
    """

    def build(self: Any, config: Any) -> None:
        kind.__init__(self, config)
        core = self.model if hasattr(self.model, "visual") else self  # inside since 5.2x
        if part == "language":
            del core.visual
            if hasattr(core, "audio_tower"):
                del core.audio_tower
        elif core is self:
            del self.model, self.lm_head
        else:
            del core.language_model, self.lm_head

    changed: dict[str, Any] = {
        "__init__": build,
        "__module__": kind.__module__,
        "_keys_to_ignore_on_load_unexpected": [".*"],
    }
    if part == "towers":
        changed["_tied_weights_keys"] = None
        changed["get_input_embeddings"] = lambda self: None
    return type(kind.__name__, (kind,), changed)


def inputs(
    made: Any,
    options: TransformersOptions,
    text: str,
    frames: Frames | None,
    times_s: Sequence[float],
    pcm: Pcm | None,
) -> dict[str, Any]:
    """Turn one prompt with its frames and sound into the tensors a model takes."""
    extra: dict[str, Any] = {name: dict(value) for name, value in options.processor.items()}
    if frames is not None:
        from transformers.video_utils import VideoMetadata

        rate = frame_rate(times_s)
        about = VideoMetadata(
            total_num_frames=len(frames),
            fps=rate,
            duration=len(frames) / rate,
            frames_indices=list(range(len(frames))),
        )
        videos = {"do_sample_frames": False, "fps": rate, "video_metadata": [about]}
        extra["videos"] = [frames.copy()]  # torch takes no memory that it may not write to
        extra["videos_kwargs"] = {**videos, **extra.get("videos_kwargs", {})}
    if pcm is not None:
        extra["audio"] = [pcm.copy()]
        sounds = {"sampling_rate": AUDIO_HZ, **_padded_to(made, len(pcm))}
        extra["audio_kwargs"] = {**sounds, **extra.get("audio_kwargs", {})}
    return dict(made(text=text, return_tensors="pt", **extra))


HEARD_BY_MASK: Final = ("Qwen2_5OmniProcessor", "Qwen3OmniMoeProcessor")
"""Processors that fill up every sound to 300 s, for models that listen only where a mask says."""


def _padded_to(made: Any, samples: int) -> dict[str, int]:
    """Say to which length a sound is filled up: just so far that what is heard stays the same.

    A window that begins within the sound ends within one window's length after it. The spectrum of
    300 s takes a hundred times what that of three does, and 150 MB.
    """
    if type(made).__name__ not in HEARD_BY_MASK:
        return {}
    spectrum = made.feature_extractor
    room = samples + spectrum.n_fft
    return {"max_length": min(spectrum.n_samples, room + -room % spectrum.hop_length)}


def frame_rate(times_s: Sequence[float]) -> float:
    """Give the rate of frames chosen from a clip; a single one counts as one per second."""
    if len(times_s) < 2 or times_s[-1] <= times_s[0]:
        return 1.0
    return (len(times_s) - 1) / (times_s[-1] - times_s[0])


SHARES: Final = (1.0, 0.5, 0.25)
"""Parts of a clip's frames and sound that are tried, largest first, where memory or tokens end."""


def fitted(
    options: CheckpointOptions,
    frames: Frames | None,
    times_s: Sequence[float],
    pcm: Pcm | None,
    share: float = 1.0,
) -> tuple[Frames | None, Sequence[float], Pcm | None]:
    """Keep a clip within its budget of frames, pixels and sound, or within a share of it."""
    if frames is not None:
        most = min(len(frames), options.max_frames or len(frames))
        kept = max(1, int(most * share))
        if kept < len(frames):
            chosen = [int((i + 0.5) * len(frames) / kept) for i in range(kept)]
            frames, times_s = frames[chosen], [times_s[i] for i in chosen]
        frames = _shrunk(frames, options.max_pixels)
    if pcm is not None:
        limit = len(pcm) if options.max_audio_s is None else int(options.max_audio_s * AUDIO_HZ)
        pcm = pcm[: max(1, int(min(len(pcm), limit) * share))]
    return frames, times_s, pcm


def _shrunk(frames: Frames, max_pixels: int | None) -> Frames:
    height, width = frames.shape[1:3]
    if max_pixels is None or height * width <= max_pixels:
        return frames
    import cv2

    scale = math.sqrt(max_pixels / (height * width))
    size = (max(1, int(width * scale)), max(1, int(height * scale)))
    return np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames])
