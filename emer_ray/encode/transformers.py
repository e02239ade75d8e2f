"""The towers of a multimodal model alone: frames and sound in, embeddings out.

One clip at a time, so that a clip's embeddings do not depend on its neighbours. The language model
stands in another pool (`emer_ray.reason.transformers`) and gets what is named here as plain bytes:
embeddings, features of inner vision layers where the family has them, the grids from which it
counts positions, how the clip's place in a prompt is written, and the share of the clip that was
looked at where memory did not suffice for all. Nothing of the prompt is known here, so other
prompts may use the same embeddings.
"""

import logging
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import torch

from emer_ray import checkpoint
from emer_ray.checkpoint import GRIDS, TransformersOptions
from emer_ray.errors import ClipError
from emer_ray.records import DecodedClip, Modality, Tensor

log = logging.getLogger(__name__)


class Towers:
    """Vision and audio towers of one checkpoint, without its language model."""

    def __init__(
        self, *, path: Path, options: TransformersOptions, modalities: Collection[Modality]
    ) -> None:
        self._options = options
        self._modalities = modalities
        self._processor = checkpoint.processor(path, options)
        self._model = checkpoint.load(path, options, "towers")

    def embed(self, clips: Sequence[DecodedClip]) -> list[tuple[Tensor, ...] | ClipError]:
        """Embed each clip; one answer per clip, in order."""
        return [self._embed(clip) for clip in clips]

    def _embed(self, clip: DecodedClip) -> tuple[Tensor, ...] | ClipError:
        seen = clip.frames if "video" in self._modalities else None
        heard = clip.pcm if "audio" in self._modalities else None
        for share in checkpoint.SHARES:
            frames, times_s, pcm = checkpoint.fitted(
                self._options, seen, clip.frame_times_s, heard, share
            )
            try:
                with torch.inference_mode():
                    found = self._tensors(frames, times_s, pcm)
            except torch.OutOfMemoryError:
                log.warning("clip %s: no memory for %g of its budget", clip.clip.clip_id, share)
                torch.cuda.empty_cache()
            else:
                return found if share == 1 else (*found, _tensor("share", torch.tensor(share)))
        return ClipError("memory", "the towers have no memory for a quarter of the clip's budget")

    def _tensors(self, frames: Any, times_s: Sequence[float], pcm: Any) -> tuple[Tensor, ...]:
        if frames is None and pcm is None:
            return ()
        made = self._processor
        text = (made.video_token if frames is not None else "") + (
            made.audio_token if pcm is not None else ""
        )
        given = checkpoint.inputs(made, self._options, text, frames, times_s, pcm)
        found: dict[str, torch.Tensor] = {}
        device = self._model.device
        written = made.tokenizer.decode(given["input_ids"][0])
        if frames is not None:
            video = self._model.get_video_features(
                given["pixel_values_videos"].to(device),
                given["video_grid_thw"].to(device),
                return_dict=True,
            )
            found["video"] = torch.cat(tuple(video.pooler_output))
            for level, features in enumerate(getattr(video, "deepstack_features", None) or ()):
                found[f"video.deepstack.{level}"] = torch.cat(tuple(features))
            found |= {name: torch.as_tensor(given[name]) for name in GRIDS if name in given}
            # how its place in a prompt is written: tokens, in some families with times between
            found["video.text"] = _letters(
                written.split(made.audio_token)[0] if pcm is not None else written
            )
        if pcm is not None:
            mask = given["feature_attention_mask"]
            audio = self._model.get_audio_features(
                given["input_features"].to(device), mask.to(device), return_dict=True
            )
            found["audio"] = audio.last_hidden_state
            found["audio_feature_lengths"] = mask.sum(-1)
            found["audio.text"] = _letters(made.audio_token * written.count(made.audio_token))
        return tuple(_tensor(name, self._narrowed(name, value)) for name, value in found.items())

    def _narrowed(self, name: str, value: torch.Tensor) -> torch.Tensor:
        wanted = self._options.embeddings_dtype
        if value.is_floating_point() and name not in GRIDS and wanted != "auto":
            return value.to(getattr(torch, wanted))
        return value

    def close(self) -> None:
        """Let the towers go, and the memory of their device."""
        self._model = None
        torch.cuda.empty_cache()


def _tensor(name: str, value: torch.Tensor) -> Tensor:
    plain = value.detach().cpu().contiguous()
    return Tensor(
        name=name,
        dtype=str(plain.dtype).removeprefix("torch."),
        shape=tuple(plain.shape),
        data=plain.flatten().view(torch.uint8).numpy().tobytes(),  # bfloat16 is no numpy type
    )


def _letters(text: str) -> torch.Tensor:
    return torch.tensor(list(text.encode()), dtype=torch.uint8)
