"""Models in a vLLM engine inside the reason pool: continuous batching, answers held to schemas.

The engine runs in processes of its own and is asked through one event loop, in a thread of this
actor. Shards are at work side by side (`pools.<step>.shards`): each gives the engine all its
requests at once and waits for its own, so that the engine never runs dry between two shards. Frames
and sound go in as they were decoded. Nothing but requests that fail becomes a row: an engine that
dies takes the actor with it (`EngineDied`), and Ray starts both again.
"""

import asyncio
import logging
import os
import threading
import time
from collections.abc import Coroutine, Sequence
from concurrent.futures import wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from emer_ray import checkpoint
from emer_ray.checkpoint import SHARES, VllmOptions
from emer_ray.config import ModelConfig
from emer_ray.errors import ClipError, EngineDied, ModelError
from emer_ray.reason.chat import chat
from emer_ray.records import AUDIO_HZ, Reply, Request

log = logging.getLogger(__name__)

T = TypeVar("T")

CLOSE_S = 30.0
"""For an engine to end by itself; then it is killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What the engine is given, and the share of the clip's frames and sound that is in it."""

    given: dict[str, Any]
    share: float


class VllmReasoner:
    """One engine behind `explain`, which several threads may call at a time."""

    def __init__(self, *, path: Path, model: ModelConfig, options: VllmOptions) -> None:
        # nothing about a run is reported to anybody
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        self._config = model
        self._options = options
        self._processor = checkpoint.processor(path, options)
        self._count = 0
        self._engine: Any = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="vllm", daemon=True)
        self._thread.start()
        try:
            self._engine = self._called(self._started(path))
        except Exception as error:
            self.close()
            raise ModelError(
                f"{path}: vLLM does not start ({type(error).__name__}: {_first_line(error)}); its "
                f"own words are in this worker's log"
            ) from error

    async def _started(self, path: Path) -> Any:
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        return AsyncLLM.from_engine_args(AsyncEngineArgs(**engine_args(path, self._options)))

    def _called(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def explain(self, requests: Sequence[Request]) -> list[Reply | ClipError]:
        """Answer each request; one answer per request, in order."""
        asked = [
            asyncio.run_coroutine_threadsafe(
                self._answered(request, self._prompt(request)), self._loop
            )
            for request in requests
        ]
        wait(asked)
        return [future.result() for future in asked]

    def _prompt(self, request: Request, share: float = 1.0) -> Prompt:
        given = prompt(self._processor, self._options, request, share)
        return Prompt(given=given, share=share)

    async def _answered(self, request: Request, prompt: Prompt) -> Reply | ClipError:
        """Ask; where vLLM refuses, again with less of the clip's frames and sound."""
        from vllm.exceptions import VLLMClientError

        started = time.perf_counter()
        try:
            done = await self._generated(request, prompt)
        except VLLMClientError as error:
            if getattr(error, "parameter", None) in ("input_tokens", "input_text"):
                return ClipError("too_large", _first_line(error))  # the words alone are too many
            # too many tokens of frames and sound are a refusal like any other, but in its words
            smaller = [share for share in SHARES if share < prompt.share]
            if not smaller or "multi_modal_data" not in prompt.given:
                return ClipError("rejected", _first_line(error))
            lighter = await asyncio.to_thread(self._prompt, request, smaller[0])
            return await self._answered(request, lighter)
        said = done.outputs[0]
        if said.finish_reason not in ("stop", "length"):
            return ClipError("error", f"vLLM ended the answer with {said.finish_reason!r}")
        notes: tuple[str, ...] = ()
        if prompt.share < 1:
            notes = (f"answered with {prompt.share:g} of its frames and sound, to fit its budget",)
        return Reply(
            raw=said.text,
            finish=said.finish_reason,
            tokens_in=len(done.prompt_token_ids),
            tokens_out=len(said.token_ids),
            latency_s=time.perf_counter() - started,
            notes=notes,
        )

    async def _generated(self, request: Request, prompt: Prompt) -> Any:
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        self._count += 1
        name = str(self._count)
        try:
            drawn = sampling(self._config, self._options, request)
            outputs = self._engine.generate(prompt.given, drawn, name)
            async for done in outputs:
                if done.finished:
                    return done
        except EngineDeadError as error:
            raise EngineDied(_first_line(error)) from error
        except EngineGenerateError as error:
            if self._engine.errored:
                raise EngineDied(_first_line(error)) from error
            raise error.__cause__ or error from None
        raise AssertionError("vLLM left a request without its last output")

    def close(self) -> None:
        """End the engine and free its memory; a second call does nothing."""
        if self._loop.is_closed():
            return
        engine, self._engine = self._engine, None
        self._called(_ended(engine))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _ended(engine: Any) -> None:
    if engine is not None:
        engine.shutdown(timeout=CLOSE_S)
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def prompt(
    processor: Any, options: VllmOptions, request: Request, share: float = 1.0
) -> dict[str, Any]:
    """Put a request as vLLM takes it: a text with placeholders, frames and sound beside it."""
    shown, clues = {part.kind for part in request.parts}, request.clues
    frames, times_s, pcm = checkpoint.fitted(
        options,
        clues.frames if "frames" in shown else None,
        clues.frame_times_s,
        clues.pcm if "audio" in shown else None,
        share,
    )
    given: dict[str, Any] = {"prompt": chat(processor, request)}
    media: dict[str, Any] = {}
    settings = dict(options.processor)
    if frames is not None:
        rate = checkpoint.frame_rate(times_s)
        about = {
            "total_num_frames": len(frames),
            "fps": rate,
            "duration": len(frames) / rate,
            "frames_indices": list(range(len(frames))),
            "do_sample_frames": False,
        }
        media["video"] = [(frames, about)]
        settings = {"fps": rate, "do_sample_frames": False, **settings}
    if pcm is not None:
        media["audio"] = [(pcm, AUDIO_HZ)]
    if media:
        given |= {"multi_modal_data": media, "mm_processor_kwargs": settings}
    return given


def sampling(model: ModelConfig, options: VllmOptions, request: Request) -> Any:
    """Say how one request is drawn, and which form its answer must have."""
    from vllm.sampling_params import RequestOutputKind, SamplingParams, StructuredOutputsParams

    schema = request.answer_schema if options.structured else None
    return SamplingParams(
        **{
            "temperature": model.temperature,
            "top_p": model.top_p,
            "seed": request.seed if model.temperature > 0 else None,
            "max_tokens": model.max_tokens,
            "structured_outputs": schema and StructuredOutputsParams(json=dict(schema)),
            "output_kind": RequestOutputKind.FINAL_ONLY,
            **options.sampling,
        }
    )


def engine_args(path: Path, options: VllmOptions) -> dict[str, Any]:
    """Write what a checkpoint and its options mean as arguments of vLLM's engine."""
    takes = checkpoint.modalities(checkpoint.settings(path))
    media = {"video": 1, "audio": 1} if takes != {"text"} else {}
    limits = {kind: most for kind, most in media.items() if kind in takes}
    given: dict[str, Any] = {
        "model": str(path),
        "dtype": options.dtype,
        "trust_remote_code": options.trust_remote_code,
        "tensor_parallel_size": options.tensor_parallel_size,
        # Ray holds the GPUs of the actor already: the engine's workers are its own processes
        "distributed_executor_backend": "mp" if options.tensor_parallel_size > 1 else None,
        "gpu_memory_utilization": options.gpu_memory_utilization,
        "max_model_len": options.max_model_len,
        "max_num_seqs": options.max_num_seqs,
        "limit_mm_per_prompt": {**limits, "image": 0} if limits else None,
        # sampling is said with every request, not by a file beside the weights
        "generation_config": "vllm",
        # between two keys a model could write spaces for ever; xgrammar lets bare control signs
        # into strings that have a limit, which is no JSON
        "structured_outputs_config": {"backend": "guidance", "disable_any_whitespace": True},
        "disable_log_stats": True,
        # on a CPU, a seeded request whose prompt is read in pieces kills vLLM 0.32
        "enable_chunked_prefill": False if _on_cpu() else None,
    }
    return {name: item for name, item in given.items() if item is not None} | options.engine_args


def _on_cpu() -> bool:
    from vllm.platforms import current_platform

    return bool(current_platform.is_cpu())


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
