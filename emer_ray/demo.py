"""The whole thing on a laptop: small weights, ten clips, explanations, and a page to look at.

    emer demo --folder runs/demo

The models are a baseline that says what it measured; nothing about quality can be read off these
clips, which carry no gold labels.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from emer_ray import config as configuration
from emer_ray import demo_corpus, weights
from emer_ray.errors import ConfigError
from emer_ray.relabel import Progress, relabel
from emer_ray.show import show
from emer_ray.store import index, layout


def demo(
    folder: Path,
    say: Callable[[str], None] = lambda _: None,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> dict[str, Any]:
    """Fetch, explain and collect: relabel's summary, `rows` to print, `parquet` and `report` to
    open; `report` is null where its extra is not installed.

    The second call fetches nothing and explains nothing again.
    """
    say("weights (fetched once, then cached):")
    weights.fetch("embedded", lambda line: say(f"  {line}"))
    for name, reason in weights.missing("embedded").items():
        say(f"  {name}: not available ({reason})")
    listed = demo_corpus.build(folder / "clips", lambda line: say(f"  {line}"))
    run = str(folder / "run")
    config = configuration.parse({"input": {"manifest": str(listed)}, "output": {"run": run}})
    say(f"explaining the clips of {listed} into {run}:")
    summary = relabel(config, on_progress=on_progress)
    placed = index.load_manifest(run)
    assert placed is not None
    return {
        **summary,
        "rows": [show(run, clip_id) for clip_id in placed.filter("present")["clip_id"]],
        "parquet": [str(folder / "run" / part.name) for part in layout.live(run)],
        "report": _report(run, say),
    }


def _report(run: str, say: Callable[[str], None]) -> str | None:
    """Write the page of the run; says what is missing where it cannot be written."""
    try:
        from emer_ray.report import report
    except ConfigError as error:
        say(str(error))
        return None
    return str(report(run)["report"])
