"""Models of Hugging Face transformers: video, sound and text, or any part of it.

Unsplit, a model gets frames and sound. Split, it gets the embeddings that its towers made in
another pool (`emer_ray.encode.transformers`), and has no towers. Requests are asked together by a
budget of tokens, so that long clips do not take more memory than short ones. Greedy unless
`temperature` says otherwise; then every request draws from its own seed, whoever its neighbours
are. Memory that runs out halves the group, then the clip's frames and sound, and at last fails the
clip.
"""

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from emer_ray import checkpoint
from emer_ray.checkpoint import TransformersOptions
from emer_ray.config import ModelConfig
from emer_ray.errors import ClipError
from emer_ray.reason.chat import chat
from emer_ray.records import Reply, Request, Tensor

log = logging.getLogger(__name__)

PADDED = ("input_ids", "attention_mask", "mm_token_type_ids", "token_type_ids")
"""Inputs with one value per token of the prompt; shorter ones are padded on the left."""
FEATURES = ("input_features", "feature_attention_mask")
"""Inputs along the time of a sound; masked, so padding on the right is not heard."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A request as tensors, its share of the clip's frames and sound, and its tokens."""

    request: Request
    inputs: dict[str, Any]
    share: float = 1.0
    tensors: tuple[Tensor, ...] = ()

    @property
    def tokens(self) -> int:
        return int(self.inputs["input_ids"].shape[1])

    @property
    def shape(self) -> tuple[Any, ...]:
        """What two requests must have in common to be asked together."""
        return tuple(
            (name, tuple(value.shape[1:]))
            for name, value in sorted(self.inputs.items())
            if hasattr(value, "shape") and name not in PADDED and name not in FEATURES
        )


class TransformersReasoner:
    """One model, or the language part of one, behind `explain`."""

    def __init__(self, *, path: Path, model: ModelConfig, options: TransformersOptions) -> None:
        self._config = model
        self._options = options
        self._preparing = threading.Lock()
        self._answering = threading.Lock()
        self._processor = checkpoint.processor(path, options)
        self._tokenizer = getattr(self._processor, "tokenizer", self._processor)
        self._model = checkpoint.load(path, options, "language" if options.split else "whole")
        pad = self._tokenizer.pad_token_id
        self._pad = int(self._tokenizer.eos_token_id if pad is None else pad)
        ends = self._model.generation_config.eos_token_id
        self._ends = set(ends if isinstance(ends, list) else [ends]) - {None}
        self._ends |= {self._tokenizer.eos_token_id}

    def explain(self, requests: Sequence[Request]) -> list[Reply | ClipError]:
        """Answer each request; one answer per request, in order.

        While one shard is answered, another thread may prepare the next.
        """
        prepared = [self.prepare(request) for request in requests]
        ready = [item for item in prepared if isinstance(item, Prepared)]
        replies: dict[int, Reply | ClipError] = {}
        with self._answering:
            for group in grouped(ready, self._config.max_tokens, self._options.batch_tokens):
                for item, reply in zip(group, self._answers(group), strict=True):
                    replies[id(item)] = reply
        return [item if isinstance(item, ClipError) else replies[id(item)] for item in prepared]

    def prepare(self, request: Request, share: float = 1.0) -> Prepared | ClipError:
        """Turn a request into tensors; with less of its frames and sound where it is too long."""
        with self._preparing:
            return self._prepare(request, share)

    def _prepare(self, request: Request, share: float) -> Prepared | ClipError:
        limit = self._options.max_prompt_tokens
        shares = [s for s in checkpoint.SHARES if s <= share]
        for each in shares:
            item = self._prepared(request, each)
            if limit is None or item.tokens <= limit:
                return item
            if self._options.split:
                break  # the towers have already looked at all of it
        return ClipError(
            "too_large",
            f"the prompt has {item.tokens} tokens, max_prompt_tokens is {limit}; lower max_frames, "
            f"max_pixels or max_audio_s",
        )

    def _prepared(self, request: Request, share: float) -> Prepared:
        clues, text = request.clues, chat(self._processor, request)
        if self._options.split:
            tensors = _used(request)
            for tensor in tensors:
                kind, _, rest = tensor.name.partition(".")
                if rest == "text":
                    token = getattr(self._processor, f"{kind}_token")
                    text = text.replace(token, bytes(tensor.data).decode())
            given = dict(self._tokenizer(text, return_tensors="pt"))
            if self._processor.return_mm_token_type_ids:
                kinds = self._processor.create_mm_token_type_ids(given["input_ids"].tolist())
                given["mm_token_type_ids"] = torch.tensor(kinds)
            share = next((float(_torch(t)) for t in tensors if t.name == "share"), 1.0)
            return Prepared(request=request, inputs=given, share=share, tensors=tensors)
        shown = {part.kind for part in request.parts}
        frames, times_s, pcm = checkpoint.fitted(
            self._options,
            clues.frames if "frames" in shown else None,
            clues.frame_times_s,
            clues.pcm if "audio" in shown else None,
            share,
        )
        given = checkpoint.inputs(self._processor, self._options, text, frames, times_s, pcm)
        return Prepared(request=request, inputs=given, share=share)

    def _answers(self, group: Sequence[Prepared]) -> list[Reply | ClipError]:
        try:
            output = self.generate(group)
        except torch.OutOfMemoryError:
            output = None  # answered below, once the failed attempt's memory is free
        if output is not None:
            width = max(item.tokens for item in group)
            return [
                self._reply(item, row)
                for item, row in zip(group, output.sequences[:, width:].tolist(), strict=True)
            ]
        torch.cuda.empty_cache()
        if len(group) > 1:
            half = len(group) // 2
            return [*self._answers(group[:half]), *self._answers(group[half:])]
        smaller = [share for share in checkpoint.SHARES if share < group[0].share]
        if self._options.split or not smaller:
            return [ClipError("memory", "the model has no memory for this clip on its own")]
        lighter = self.prepare(group[0].request, smaller[0])
        return [lighter] if isinstance(lighter, ClipError) else self._answers([lighter])

    def generate(self, group: Sequence[Prepared], **extra: Any) -> Any:
        """Let the model write; `sequences` of the result hold prompts, padded left, and answers."""
        with torch.inference_mode():
            given = self._collated(group)
        settings: dict[str, Any] = {
            "max_new_tokens": self._config.max_tokens,
            "do_sample": False,
            "pad_token_id": self._pad,
            "return_dict_in_generate": True,
            **self._options.generate,
            **extra,
        }
        if self._config.temperature > 0:
            settings["logits_processor"] = self._draws(group)
        with torch.inference_mode():
            return self._model.generate(**given, **settings)

    def _draws(self, group: Sequence[Prepared]) -> list[Any]:
        from transformers import TemperatureLogitsWarper, TopPLogitsWarper

        chain: list[Any] = [TemperatureLogitsWarper(self._config.temperature)]
        if self._config.top_p < 1:
            chain.append(TopPLogitsWarper(self._config.top_p))
        return [*chain, SeededDraw([item.request.seed for item in group])]

    def _collated(self, group: Sequence[Prepared]) -> dict[str, Any]:
        device, width = self._model.device, max(item.tokens for item in group)
        given: dict[str, Any] = {}
        for name in {name for item in group for name in item.inputs}:
            values = [item.inputs[name] for item in group if name in item.inputs]
            if name in PADDED:
                fill = self._pad if name == "input_ids" else 0
                values = [_padded(v, (width - v.shape[1], 0), fill) for v in values]
            elif name in FEATURES:
                most = max(v.shape[-1] for v in values)
                values = [_padded(v, (0, most - v.shape[-1]), 0) for v in values]
            given[name] = torch.cat([torch.as_tensor(v) for v in values]).to(device)
        return given | self._embedded(group, given["input_ids"]) if self._options.split else given

    def _embedded(self, group: Sequence[Prepared], ids: torch.Tensor) -> dict[str, Any]:
        """Put embeddings where placeholders are, and hand on what positions are counted from.

        Vision goes by the library's own door for encoded input, which knows features of inner
        layers; sound has no such door and is put in place here.
        """
        found: dict[str, list[torch.Tensor]] = {}
        for item in group:
            for tensor in item.tensors:
                found.setdefault(tensor.name, []).append(_torch(tensor).to(ids.device))
        given: dict[str, Any] = {
            name: torch.cat(found[name])
            for name in (*checkpoint.GRIDS, "audio_feature_lengths")
            if name in found
        }
        if "audio" in found:
            words = self._model.get_input_embeddings()(ids)
            places = (ids == self._model.config.audio_token_id)[..., None]
            sounds = torch.cat(found["audio"]).to(words.dtype)
            given["inputs_embeds"] = words.masked_scatter(places, sounds)
        if "video" in found:
            from transformers.modeling_outputs import BaseModelOutputWithPooling
            from transformers.models.qwen3_omni_moe import modeling_qwen3_omni_moe

            levels = [name for name in found if name.startswith("video.deepstack.")]
            seen: Any = BaseModelOutputWithPooling(pooler_output=tuple(found["video"]))
            if levels:
                seen = modeling_qwen3_omni_moe.BaseModelOutputWithDeepstackFeatures(
                    pooler_output=tuple(found["video"]),
                    deepstack_features=[tuple(found[level]) for level in levels],
                )
            given["mm_encoder_outputs"] = {"video": seen}
        return given

    def _reply(self, item: Prepared, written: Sequence[int]) -> Reply:
        length = next((i for i, token in enumerate(written) if token in self._ends), None)
        kept = written if length is None else written[:length]
        notes: tuple[str, ...] = ()
        if item.share < 1:
            notes = (f"answered with {item.share:g} of its frames and sound, to fit its budget",)
        return Reply(
            raw=self._tokenizer.decode(kept, skip_special_tokens=True),
            finish="length" if length is None else "stop",
            tokens_in=item.tokens,
            tokens_out=len(kept) + (length is not None),
            notes=notes,
        )

    def close(self) -> None:
        """Let the model go, and the memory of its device; a second call does nothing."""
        self._model = None
        torch.cuda.empty_cache()


class SeededDraw:
    """Draw a token per row from the row's own generator, whoever its neighbours are.

    Greedy choice after adding Gumbel noise to the scores is a draw from their distribution.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        uniform = torch.stack(
            [torch.rand(scores.shape[1], generator=each) for each in self._generators]
        )
        noise = -torch.log(-torch.log(uniform.clamp(1e-20, 1 - 1e-7)))
        return scores + noise.to(scores)


def grouped(ready: Sequence[Prepared], max_tokens: int, budget: int) -> list[list[Prepared]]:
    """Group requests of like length and shape within a budget of padded tokens.

    A request that is over the budget alone is a group of its own.
    """
    groups: list[list[Prepared]] = []
    for item in sorted(ready, key=lambda item: (item.shape, item.tokens)):
        last = groups[-1] if groups else []
        size = (item.tokens + max_tokens) * (len(last) + 1)
        if last and size <= budget and item.shape == last[0].shape:
            last.append(item)
        else:
            groups.append([item])
    return groups


def _padded(value: torch.Tensor, ends: tuple[int, int], fill: int) -> torch.Tensor:
    return torch.nn.functional.pad(value, ends, value=fill)


def _used(request: Request) -> tuple[Tensor, ...]:
    """Take the tensors of what the request shows; a step may look at less than was encoded."""
    shown = {part.kind for part in request.parts} - {"text"}
    left_out = {"frames": ("video", "second_per_grid"), "audio": ("audio",)}
    prefixes = tuple(p for kind, names in left_out.items() if kind not in shown for p in names)
    return tuple(t for t in request.clues.tensors if shown and not t.name.startswith(prefixes))


def _torch(tensor: Tensor) -> torch.Tensor:
    flat = torch.frombuffer(bytearray(tensor.data), dtype=getattr(torch, tensor.dtype))
    return flat.reshape(tensor.shape)
