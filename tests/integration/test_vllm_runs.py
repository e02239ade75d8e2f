"""vLLM for real, on the CPU: in the reason pool, and as a server behind the openai backend.

The model is tiny and random, in the layout of the hub. What it says is noise, yet noise in the form
that was asked for, and equal token for token to what transformers says of the same clip.
"""

import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emer_ray import config, parse, prompts
from emer_ray.checkpoint import TransformersOptions, VllmOptions
from emer_ray.config import ModelConfig
from emer_ray.errors import ClipError
from emer_ray.records import Answer, AnswerForm, Clues, Modality, Reply, Request
from emer_ray.relabel import relabel
from emer_ray.runner import Cluster
from emer_ray.store import index, record
from tests import rows

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.ray,
    pytest.mark.timeout(1800),
    pytest.mark.filterwarnings("ignore"),  # vLLM's own
    pytest.mark.skipif(not importlib.util.find_spec("vllm"), reason="make test-vllm has it"),
]

SIZE = {"shortest_edge": 56 * 56, "longest_edge": 8 * 112**2}
OPTIONS: dict[str, Any] = {
    "dtype": "float32",
    "max_model_len": 2048,
    "max_num_seqs": 16,
    "processor": {"size": SIZE},
    "engine_args": {"enforce_eager": True},
}


def clues(number: int, subtitle: str = "Well, then.", audio_s: float = 1.0) -> Clues:
    frames = np.random.default_rng(number).integers(0, 255, (4, 96, 112, 3), np.uint8)
    times = np.arange(int(16_000 * audio_s)) / 16_000
    pcm = 0.3 * np.random.default_rng(number).standard_normal(len(times)) * np.sin(300 * times)
    return Clues(
        clip_id=f"clip-{number}",
        has_video=True,
        has_audio=True,
        subtitle=subtitle,
        subtitle_source="given",
        frames=frames,
        frame_times_s=(0.1, 0.35, 0.6, 0.85),
        pcm=pcm.astype(np.float32),
    )


def asked(
    found: Clues,
    *modalities: Modality,
    form: AnswerForm = "explanation",
    prompt: str = "explain",
    seed: int = 0,
    choices: tuple[str, ...] = (),
) -> Request:
    question = prompts.question(
        step=prompt,
        prompt=prompt,
        form=form,
        language="en",
        modalities=modalities or ("video", "audio", "text"),
        choices=choices,
        answer_chars=48,
    )
    return prompts.render(question, found, {}, seed=seed)[0]


def said(reply: Reply | ClipError) -> str:
    assert isinstance(reply, Reply), reply
    return reply.raw.rstrip("\ufffd")  # of a cut-off character vLLM shows nothing


def test_an_engine_answers_what_transformers_answers_and_ends(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from emer_ray.reason.vllm import VllmReasoner

    path = tiny / "omni25"
    greedy = ModelConfig(backend="vllm", model=str(path), max_tokens=400)
    free = VllmOptions.model_validate({**OPTIONS, "structured": False})
    with closing(VllmReasoner(path=path, model=greedy, options=free)) as engine:
        check_engine(engine, greedy, tiny, monkeypatch)
    engine.close()
    assert not engines()


def check_engine(
    engine: Any, greedy: ModelConfig, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from emer_ray.reason.transformers import TransformersReasoner

    path = tiny / "omni25"
    short = greedy.model_copy(update={"max_tokens": 24})
    monkeypatch.setattr(engine, "_config", short)
    whole = TransformersReasoner(
        path=path,
        model=short,
        options=TransformersOptions(dtype="float32", processor={"videos_kwargs": {"size": SIZE}}),
    )
    looks: list[tuple[Modality, ...]] = [("text",), ("video",), ("audio",), ()]
    requests = [asked(clues(number), *look) for look in looks for number in (1, 2)]
    here, there = engine.explain(requests), whole.explain(requests)
    assert [said(reply) for reply in here] == [said(reply) for reply in there]
    assert [r.tokens_in for r in here] == [r.tokens_in for r in there]  # type: ignore[union-attr]
    one, two = (said(reply) for reply in here[2:4])
    assert one != two  # of other frames it says something else
    with ThreadPoolExecutor(4) as threads:  # as shards do
        again = list(threads.map(lambda request: engine.explain([request])[0], requests))
    assert [said(reply) for reply in again] == [said(reply) for reply in here]

    monkeypatch.setattr(engine, "_config", short.model_copy(update={"temperature": 1.0}))
    drawn = engine.explain([asked(clues(1), seed=seed) for seed in (7, 7, 8)])
    assert said(drawn[0]) == said(drawn[1]) != said(drawn[2])

    monkeypatch.setattr(engine, "_config", short)
    long, heavy = engine.explain(
        [asked(clues(1, "x" * 5000)), asked(clues(1, "x" * 800, audio_s=30.0))]
    )
    assert isinstance(long, ClipError)
    assert long.kind == "too_large"
    assert isinstance(heavy, Reply)
    assert heavy.notes == ("answered with 0.5 of its frames and sound, to fit its budget",)

    monkeypatch.setattr(engine, "_config", greedy.model_copy(update={"temperature": 1.0}))
    monkeypatch.setattr(engine, "_options", VllmOptions.model_validate(OPTIONS))
    words = ("happy", "sad", "neutral")
    forms: list[tuple[AnswerForm, str, tuple[str, ...]]] = [
        ("explanation", "explain", ()),
        ("labels", "labels", ()),
        ("one_hot", "one_hot", words),
        ("ranking", "ranking", words),
        ("valence", "valence", ()),
        ("sentiment", "sentiment", ()),
    ]
    wanted = [
        (form, choices, asked(clues(1), form=form, prompt=name, seed=seed, choices=choices))
        for form, name, choices in forms
        for seed in range(4)
    ]
    for (form, choices, _), reply in zip(
        wanted, engine.explain([request for _, _, request in wanted]), strict=True
    ):
        assert isinstance(reply, Reply)
        assert reply.finish == "stop", (form, reply.raw)
        answer = Answer(
            step="s",
            sample=0,
            raw=reply.raw,
            finish=reply.finish,
            tokens_in=reply.tokens_in,
            tokens_out=reply.tokens_out,
            latency_s=reply.latency_s,
        )
        assert parse.read(answer, form, choices).rung == "json"

    assert engines()


def engines() -> set[int]:
    """Find vLLM's processes below this one."""
    parents: dict[int, int] = {}
    named: set[int] = set()
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            lines = dict(line.split(":\t", 1) for line in status.read_text().splitlines())
        except (FileNotFoundError, ProcessLookupError):
            continue  # gone meanwhile
        pid = int(status.parent.name)
        parents[pid] = int(lines["PPid"])
        if lines["Name"].startswith("VLLM") and not lines["State"].startswith("Z"):
            named.add(pid)

    def mine(pid: int) -> bool:
        while pid and pid != os.getpid():
            pid = parents.get(pid, 0)
        return bool(pid)

    return {pid for pid in named if mine(pid)}


def clips(synthetic: Path, tmp_path: Path, **subtitles: str) -> str:
    listed = [
        {
            "clip_id": f"c{number}",
            "video_uri": str(synthetic / f"c{number % 6}.mp4"),
            "subtitle_en": subtitles.get(f"c{number}", f"the words of clip {number}"),
        }
        for number in range(10)
    ]
    return rows.manifest(tmp_path / "clips.jsonl", listed)


def labels(manifest: str, run: Path, model: dict[str, Any]) -> dict[str, Any]:
    return relabel(
        config.parse(
            {
                "recipe": "labels",
                "input": {"manifest": manifest},
                "output": {"run": str(run), "shard_clips": 4},
                "media": {"frames": 4, "size_px": 96},
                "models": {"main": model, "text": model},
                "budget": {"failed_share": 1},
            }
        )
    )


def check_answers(row: dict[str, Any]) -> None:
    explained, labelled = row["answers"]
    assert list(json.loads(explained["raw"])) == [
        *("visual_clues", "acoustic_clues", "lexical_clues", "explanation", "labels")
    ]
    assert list(json.loads(labelled["raw"])) == ["labels"]
    assert row["parse_rung"] == "json"
    for answer in row["answers"]:
        assert answer["finish"] == "stop"
        assert answer["tokens_in"] > 100
        assert answer["tokens_out"] > 2


def test_every_row_of_a_run_is_structured_and_a_clip_that_kills_the_engine_pays_alone(
    local_ray: Cluster, tiny: Path, synthetic: Path, tmp_path: Path
) -> None:
    manifest = clips(synthetic, tmp_path, c1="x" * 5000, c6="zqzqzqzqzq")
    inside = {"enforce_eager": True, "logits_processors": ["deadly:Deadly"]}
    model = {
        "backend": "vllm",
        "model": str(tiny / "omni25"),
        "temperature": 1.0,
        "max_tokens": 1024,
        "max_text_tokens": 100_000,
        "answer_chars": 128,
        "options": {**OPTIONS, "max_model_len": 3072, "engine_args": inside},
    }
    run = tmp_path / "run"
    summary = labels(manifest, run, model)
    assert (summary["ok"], summary["failed"]) == (8, 2)
    found = rows.stored(str(run))
    ends = {name: (row["stage"], row["kind"]) for name, row in found.items() if row.get("kind")}
    assert ends == {"c1": ("explain", "too_large"), "c6": ("explain", "crashed")}
    for name in found.keys() - ends.keys():
        check_answers(found[name])
    assert index.verify(str(run)).holds
    assert not list(run.rglob("claims/**/*.json"))
    choices = record.require(str(run))["starts"][0]["choices"]
    assert choices["pools.reason.main"]["steps"] == ["explain", "labels"]  # one engine for both
    assert "pools.reason.text" not in choices
    until = time.monotonic() + 60
    while engines() and time.monotonic() < until:
        time.sleep(0.5)
    assert not engines()


@contextmanager
def server(model: Path, log: Path) -> Iterator[str]:
    """Run `vllm serve` on a free port; it holds answers to schemas without free spaces."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    compact = {"backend": "guidance", "disable_any_whitespace": True}
    command = [
        *(str(Path(sys.executable).parent / "vllm"), "serve", str(model)),
        *("--served-model-name", "tiny-omni", "--host", "127.0.0.1", "--port", str(port)),
        *("--dtype", "float32", "--max-model-len", "3072", "--max-num-seqs", "16"),
        *("--enforce-eager", "--generation-config", "vllm"),
        "--no-enable-chunked-prefill",  # see reason/vllm.py
        *("--limit-mm-per-prompt", json.dumps({"video": 1, "audio": 1, "image": 0})),
        *("--mm-processor-kwargs", json.dumps({"size": SIZE})),
        *("--structured-outputs-config", json.dumps(compact)),
    ]
    environment = {**os.environ, "VLLM_NO_USAGE_STATS": "1"}
    with log.open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment)
    try:
        until = time.monotonic() + 900
        while True:
            assert process.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < until, log.read_text()[-3000:]
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except OSError:
                time.sleep(1)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(120)


def test_the_same_recipe_goes_through_a_server_of_vllm(
    local_ray: Cluster, tiny: Path, synthetic: Path, tmp_path: Path
) -> None:
    manifest = clips(synthetic, tmp_path, c1="x" * 5000)
    with server(tiny / "omni25", tmp_path / "server.log") as url:
        model = {
            "backend": "openai",
            "model": "tiny-omni",
            "temperature": 1.0,
            "max_tokens": 1024,
            "max_text_tokens": 100_000,
            "answer_chars": 128,
            "options": {
                **{"base_url": url, "video": "video_url", "audio": "input_audio"},
                **{"in_flight": 8, "timeout_s": 300.0},
            },
        }
        summary = labels(manifest, tmp_path / "run", model)
    assert (summary["ok"], summary["failed"]) == (9, 1)
    found = rows.stored(summary["run"])
    assert (found["c1"]["stage"], found["c1"]["kind"]) == ("explain", "rejected")
    for name in found.keys() - {"c1"}:
        check_answers(found[name])
    assert index.verify(summary["run"]).holds
