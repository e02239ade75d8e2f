"""How far `emer plan` is off: what it predicts of a run, against the run.

The corpus has lengths spread 20 times, from 1 to 20 seconds, even in their logarithm: films of the
demo looped by copying their packets, so that faces, voices and codecs are real and nothing is
encoded. It is planned from a canary of 5 % and then run, once with a model that takes a fixed time
and once with the embedded one. Ray is started anew for the plan and for the run. An error is
predicted over measured seconds, less one, start-up included in both.
"""

import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import av

from emer_ray import config as configuration
from emer_ray import demo_corpus, runner
from emer_ray.plan import PlanOptions
from emer_ray.plan import plan as run_plan
from emer_ray.relabel import relabel
from emer_ray.store import record

CLIPS: Final = 200
SHORTEST_S: Final = 1.0
SPREAD: Final = 20.0
CANARY: Final = 0.05
LATENCY_S: Final = 0.2
MODELS: Final[dict[str, dict[str, Any]]] = {
    "fake": {"backend": "fake", "options": {"latency_s": LATENCY_S}},
    "embedded": {"backend": "embedded"},
}


def plan(
    seed: int = 0, clips: int | None = None, say: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Measure both errors, with what was predicted and measured of each run."""
    count = clips or CLIPS
    with tempfile.TemporaryDirectory(prefix="emer-bench-") as folder:
        manifest = corpus(Path(folder), count, seed)
        found = {
            name: _compared(name, model, manifest, f"{folder}/{name}", count, say)
            for name, model in MODELS.items()
        }
    return {
        **{f"{name}_error": told["error"] for name, told in found.items()},
        "clips": count,
        "canary": round(CANARY * count),
        "spread": SPREAD,
        **found,
    }


def _compared(
    name: str,
    model: dict[str, Any],
    manifest: Path,
    run: str,
    count: int,
    say: Callable[[str], None],
) -> dict[str, Any]:
    config = configuration.parse(
        {
            "input": {"manifest": str(manifest)},
            "output": {"run": run},
            "models": {"main": model},
        }
    )
    say(f"{name}: planning")
    predicted = run_plan(config, PlanOptions(canary=round(CANARY * count)), say)
    runner.disconnect()
    say(f"{name}: {3600 * predicted['hours']:.1f} s predicted")
    measured = relabel(config)
    runner.disconnect()
    say(f"{name}: {measured['seconds']:.1f} s measured")
    assert measured["clips"] == count
    start = record.require(run)["starts"][-1]
    return {
        "error": start["plan"]["hours"]["error"],
        "predicted_s": round(3600 * predicted["hours"], 1),
        "measured_s": round(measured["seconds"], 1),
        "failed": measured["failed"],
        "bottleneck": predicted["bottleneck"],
        "parts_s": predicted["seconds"],
        "submitted_s": start["submitted_s"],
        "pools": start["plan"]["pools"],
    }


def corpus(folder: Path, clips: int, seed: int) -> Path:
    """Write films and a manifest in shuffled order; gives the manifest's path."""
    demo_corpus.build(folder / "demo", lambda _: None)
    sources = sorted((folder / "demo").glob("*.mp4"))
    draw = random.Random(seed)  # noqa: S311 - repeatable, not secret
    rows = []
    for number in range(clips):
        seconds = SHORTEST_S * SPREAD ** ((number + 0.5) / clips)
        film = folder / f"{number:05d}.mp4"
        _looped(draw.choice(sources), film, seconds)
        rows.append(f"clip-{number:05d},{film.name}")
    draw.shuffle(rows)
    manifest = folder / "clips.csv"
    manifest.write_text("\n".join(["clip_id,video_uri", *rows]) + "\n", encoding="utf-8")
    return manifest


def _looped(source: Path, target: Path, seconds: float) -> None:
    """Copy a film's packets over and over until so many seconds are full."""
    with av.open(str(source)) as film, av.open(str(target), "w") as copy:
        streams = [*film.streams.video[:1], *film.streams.audio[:1]]
        copies = {stream.index: copy.add_stream_from_template(stream) for stream in streams}
        packets: list[Any] = [packet for packet in film.demux(streams) if packet.dts is not None]
        starts = [float(packet.dts * packet.time_base) for packet in packets]
        ends = [float((packet.pts + packet.duration) * packet.time_base) for packet in packets]
        length_s, at_s = max(ends) - min(starts), 0.0
        while at_s < seconds:
            for packet in packets:
                if at_s + float(packet.pts * packet.time_base) >= seconds:
                    continue
                shift = round(at_s / packet.time_base)
                again = av.Packet(bytes(packet))
                again.stream = copies[packet.stream.index]
                again.time_base = packet.time_base
                again.pts, again.dts = packet.pts + shift, packet.dts + shift
                again.duration, again.is_keyframe = packet.duration, packet.is_keyframe
                copy.mux(again)
            at_s += length_s
