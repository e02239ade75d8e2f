"""How much of an engine's speed is left where it stands in the reason pool.

The same requests go to the engine alone, ready and all at once, and through the flow (runner,
claims, parse, parts on disk) behind a simulated decoder. The model is tiny and random, but looks,
listens and writes a fixed number of tokens: prompts and answers have the same lengths on both
sides, and what the pool adds weighs more than it would beside a large model. The engine has one
core to itself on both sides. Engine and pool take turns, pair by pair, because a machine is not
equally fast twice; of the pool counts what comes between the receipts of 10 and of 90 % of the
clips. Higher is better; 1 is the limit.
"""

import dataclasses
import importlib.util
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Collection, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import polars as pl
import pyarrow as pa

from emer_ray import checkpoint, containment, pipeline, prompts, runner, schema, stages
from emer_ray import config as configuration
from emer_ray.config import RunConfig
from emer_ray.errors import ClipError, ConfigError
from emer_ray.records import AUDIO_HZ, Clues, Request
from emer_ray.store import index

Engine = Literal["transformers", "vllm"]

CLIPS: Final = 96
PAIRS: Final = 5
SHARD: Final = 16
TOKENS: Final = 256
"""Of every answer: what an explanation takes."""
SIZE: Final = {"shortest_edge": 56 * 56, "longest_edge": 8 * 112**2}
"""Pixels of a clip: the processor's own limits make long prompts."""
TIMES_S: Final = (0.1, 0.35, 0.6, 0.85)
FRAMES: Final = (len(TIMES_S), 96, 112, 3)
START_S: Final = 600.0
"""For the engine alone to start, on a machine that has other work."""


def reason(
    seed: int = 0,
    clips: int | None = None,
    pairs: int = PAIRS,
    backend: Engine | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Measure tokens per second of the pool over those of the engine alone; median of the pairs.

    `interval` holds the lowest and the highest ratio of a pair.
    """
    engine: Engine = backend or ("vllm" if importlib.util.find_spec("vllm") else "transformers")
    for needed in ("torch", "transformers", engine):
        if not importlib.util.find_spec(needed):
            raise ConfigError(
                f"bench reason: {needed} is not installed; pip install 'emer-ray[{engine}]'"
            )
    from emer_ray.bench import tiny_models

    count, cores = clips or CLIPS, os.sched_getaffinity(0)
    core = min(cores)
    # the driver, and through it Ray and all that it starts, keep off the engine's core
    os.sched_setaffinity(0, cores - {core} or cores)
    os.environ["VLLM_CPU_OMP_THREADS_BIND"] = str(core)  # of engines on a CPU, wherever they start
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    with tempfile.TemporaryDirectory(prefix="emer-bench-") as folder:
        config = _config(engine, tiny_models.omni25(Path(folder) / "model"))
        spawn = multiprocessing.get_context("spawn")
        here, there = spawn.Pipe()
        alone = spawn.Process(target=_alone, args=(there, config, count, seed, core))
        alone.start()
        try:
            found = []
            for number in range(pairs):
                engine_alone = _asked(here, alone)
                pool = _pool(config, count, seed, core, f"{folder}/{number}")
                found.append((pool, engine_alone))
                said = f"engine {engine_alone:.1f}, pool {pool:.1f} tokens/s"
                say(f"{said}: {pool / engine_alone:.3f}")
        finally:
            alone.kill()
            alone.join()
    ratios = [pool / engine_alone for pool, engine_alone in found]
    return {
        "ratio": round(statistics.median(ratios), 4),
        "interval": [round(min(ratios), 4), round(max(ratios), 4)],
        "backend": engine,
        "pool_tokens_s": round(statistics.median(pool for pool, _ in found), 1),
        "engine_tokens_s": round(statistics.median(each for _, each in found), 1),
        "pairs": pairs,
        "clips": count,
        "tokens_out": TOKENS,
        "core": core,
    }


def _config(engine: Engine, path: Path) -> RunConfig:
    """Configure a model that never ends by itself, so that every answer is equally long."""
    options: dict[str, Any] = {"dtype": "float32"}
    if engine == "vllm":
        options |= {
            "max_model_len": 2048,
            "max_num_seqs": SHARD,
            "structured": False,
            "processor": {"size": SIZE},
            "sampling": {"ignore_eos": True},
            # the engine alone sees the same clips again and again, and must not remember them
            "engine_args": {
                "enforce_eager": True,
                "enable_prefix_caching": False,
                "mm_processor_cache_gb": 0,
            },
        }
    else:
        options |= {
            "processor": {"videos_kwargs": {"size": SIZE}},
            "generate": {"min_new_tokens": TOKENS},
        }
    model = {"backend": engine, "model": str(path), "max_tokens": TOKENS, "options": options}
    return configuration.parse(
        {
            "models": {"main": model},
            "output": {"shard_clips": SHARD},
            "pools": {"explain": {"actors": 1, "cpus": 1}},
        }
    )


def _media(number: int, seed: int) -> tuple[Any, Any]:
    """Make frames and a second of sound, of each clip its own."""
    rng = np.random.default_rng([seed, number])
    sound = 0.1 * rng.standard_normal(AUDIO_HZ)
    return rng.integers(0, 255, FRAMES, np.uint8), sound.astype(np.float32)


class SimulatedDecode:
    """Hands on frames and sound that cost next to nothing."""

    def __init__(self, *, seed: int, drops: Collection[str] = ()) -> None:
        self._seed = seed

    def __call__(self, table: pa.Table) -> pa.Table:
        return containment.through(table, stage="decode", to=schema.DECODED, work=self._work)

    def _work(self, rows: list[containment.Row]) -> list[containment.Row | ClipError]:
        return [self._decoded(int(row["clip_id"])) for row in rows]

    def _decoded(self, number: int) -> containment.Row:
        frames, pcm = _media(number, self._seed)
        facts = {
            **dict.fromkeys(schema.MEDIA_FACTS.type.names),
            **{"has_video": True, "has_audio": True, "decoded_s": 1.0, "short": False},
            **{"n_frames": len(frames), "decoder": "simulated"},
        }
        return {
            "frames": frames,
            "frame_shape": list(frames.shape),
            "frame_times_s": list(TIMES_S),
            "pcm": pcm,
            "media": facts,
        }

    def close(self) -> None:
        """Nothing to release."""


class PinnedReason(stages.Reason):
    """The stage as it is, its engine on one core."""

    def __init__(self, *, core: int, **settings: Any) -> None:
        super().__init__(**settings)
        if settings["model"].backend == "transformers":
            _pin(self._reasoner(), core)


def _pin(reasoner: Any, core: int) -> None:
    """Let a model of transformers generate on one core; what prepares its inputs is free."""
    import torch

    torch.set_num_threads(1)
    generate = reasoner.generate

    def pinned(group: Sequence[Any], **extra: Any) -> Any:
        before = os.sched_getaffinity(0)  # of this thread
        os.sched_setaffinity(0, {core})
        try:
            return generate(group, **extra)
        finally:
            os.sched_setaffinity(0, before)

    reasoner.generate = pinned


def _pool(config: RunConfig, clips: int, seed: int, core: int, run: str) -> float:
    """Run the flow; gives the tokens per second of its steady state."""
    rows = [
        {**dict.fromkeys(schema.MANIFEST.names), "clip_id": f"{i:06d}", "video_uri": "simulated"}
        for i in range(clips)
    ]
    listed = pl.DataFrame(pl.from_arrow(schema.table(rows, schema.MANIFEST)))
    placed = index.assign_shards(listed, None, SHARD)
    decode, *rest = pipeline.steps(config, pipeline.Start(run=run))
    flow = [dataclasses.replace(decode, stage=SimulatedDecode, settings={"seed": seed})]
    for step in rest:
        if step.stage is stages.Reason:
            settings = {**step.settings, "core": core}
            step = dataclasses.replace(step, stage=PinnedReason, settings=settings)
        flow.append(step)
    cluster = runner.connect()
    pools = pipeline.pools(flow, config, cpus=cluster.cpus, gpus=0)
    shards = index.unfinished(placed, index.outcomes(run))
    tables = index.shard_tables(index.clips_of(placed, shards))
    runner.data_context()
    done = 0
    arrivals: list[tuple[int, float]] = []
    for receipts in runner.run(pools, tables, in_flight=pipeline.in_flight(config, pools)):
        done += receipts.num_rows
        arrivals.append((done, time.perf_counter()))
    assert done == clips, f"{done} receipts of {clips} clips"
    first = next((n, at) for n, at in arrivals if n >= 0.1 * clips)
    last = next((n, at) for n, at in arrivals if n >= 0.9 * clips)
    return (last[0] - first[0]) * TOKENS / (last[1] - first[1])


def _asked(pipe: Connection, alone: multiprocessing.process.BaseProcess) -> float:
    """Let the engine alone answer everything once; gives its tokens per second."""
    pipe.send("go")
    until = time.monotonic() + START_S
    while not pipe.poll(1.0):
        if not alone.is_alive() or time.monotonic() > until:
            raise RuntimeError("the engine alone did not answer; its own words are above")
    return float(pipe.recv())


def _alone(pipe: Connection, config: RunConfig, clips: int, seed: int, core: int) -> None:
    """Answer the same requests with the bare engine, in a process of its own, as often as told."""
    model = config.models["main"]
    (step,) = [
        step
        for step in pipeline.steps(config, pipeline.Start(run=""))
        if step.stage is stages.Reason
    ]
    requests = [_request(step.settings["question"], number, seed) for number in range(clips)]
    path = Path(model.model)
    if model.backend == "vllm":
        from vllm import LLM

        from emer_ray.reason.vllm import engine_args, prompt, sampling

        options = checkpoint.VllmOptions.of(model)
        processor = checkpoint.processor(path, options)
        given = [prompt(processor, options, request) for request in requests]
        drawn = [sampling(model, options, request) for request in requests]
        engine = LLM(**engine_args(path, options))

        def answer() -> int:
            outputs = engine.generate(given, drawn, use_tqdm=False)
            return sum(len(output.outputs[0].token_ids) for output in outputs)
    else:
        from emer_ray.reason.transformers import Prepared, TransformersReasoner, grouped

        plain = checkpoint.TransformersOptions.of(model)
        reasoner = TransformersReasoner(path=path, model=model, options=plain)
        _pin(reasoner, core)
        ready = [item for item in map(reasoner.prepare, requests) if isinstance(item, Prepared)]
        groups = [
            group
            for start in range(0, clips, SHARD)
            for group in grouped(ready[start : start + SHARD], TOKENS, plain.batch_tokens)
        ]

        def answer() -> int:
            return sum(
                reasoner.generate(group).sequences[:, group[-1].tokens :].numel()
                for group in groups
            )

    answer()  # what is done once, at first use
    while pipe.recv() == "go":
        started = time.perf_counter()
        tokens = answer()
        assert tokens == clips * TOKENS, f"{tokens} tokens of {clips} answers"
        pipe.send(tokens / (time.perf_counter() - started))


def _request(question: prompts.Question, number: int, seed: int) -> Request:
    frames, pcm = _media(number, seed)
    clues = Clues(
        clip_id=f"{number:06d}",
        has_video=True,
        has_audio=True,
        frames=frames,
        frame_times_s=TIMES_S,
        pcm=pcm,
    )
    return prompts.render(question, clues, {})[0]
