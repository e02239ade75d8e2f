"""Who may import whom: the best one-page map of the code.

Imports point down only. Modules of the floor called work do not import each other; they meet in
`stages`. A name with a dot below it (`store`) stands for its whole package.
"""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "emer_ray"

FLOORS: dict[str, tuple[str, ...]] = {
    "words": ("errors", "schema", "records", "config", "storage", "inert", "meter", "clock"),
    "work": (
        *("manifest", "media", "perceive", "encode", "reason", "parse", "store", "weights"),
        *("weights_tfjs", "metrics", "recipes", "prompts", "demo_corpus", "corpora"),
        "checkpoint",
        *("rounds", "release"),
    ),
    "wiring": ("containment", "stages", "pipeline", "phases", "cost", "gate", "telemetry"),
    "running": ("runner", "jobserver", "watch", "judge", "trial"),
    "verbs": (
        *("relabel", "verify", "status", "show", "demo", "models", "evaluate", "leaderboard"),
        *("bench", "corpus", "reparse", "review", "export", "audit", "compare", "compact"),
        *("report", "desk", "plan", "submit"),
    ),
    "skin": ("cli",),
}

OWN_FLOOR_ALLOWED = {
    ("schema", "errors"),
    ("records", "errors"),
    ("config", "errors"),
    ("config", "records"),
    ("storage", "errors"),
    ("storage", "meter"),
    ("weights", "weights_tfjs"),
    ("demo_corpus", "weights"),
    ("encode", "checkpoint"),
    ("reason", "checkpoint"),
    ("stages", "containment"),
    ("pipeline", "containment"),
    ("pipeline", "stages"),
    ("phases", "containment"),
    ("phases", "pipeline"),
    ("phases", "stages"),
    ("parse", "metrics"),  # one grammar of label cells, for answers and for tables
    ("metrics", "store"),  # a run directory is scored like any table of predictions
    ("reason", "store"),  # and its answers can be replayed
    ("judge", "runner"),
    ("trial", "runner"),
    ("plan", "relabel"),
    ("bench", "plan"),
    ("submit", "status"),
    ("demo", "relabel"),
    ("bench", "relabel"),
    ("demo", "show"),
    ("demo", "report"),
    ("report", "compare"),
    ("report", "evaluate"),
    ("leaderboard", "evaluate"),
    ("review", "desk"),
}
"""Imports between modules of one floor, each a decision."""

LIBRARIES: dict[str, set[str]] = {
    "ray": {"runner", "jobserver", "trial", "bench"},
    "click": {"cli"},
    "pydantic": {"config", "recipes", "checkpoint", "plan"},
    "boto3": {"storage", "bench"},
    "polars": {
        *("manifest", "store", "metrics", "relabel", "show", "evaluate", "leaderboard", "bench"),
        *("export", "audit", "compare", "reparse", "report", "judge", "plan"),
    },
    "decord": {"media", "bench"},
    "av": {"media", "bench", "demo_corpus"},
    "httpx": {"reason"},
    "jinja2": {"report"},
    "vl_convert": {"report", "bench"},
    "aiohttp": {"desk", "jobserver"},
    "onnxruntime": {"perceive", "reason"},
    "ai_edge_litert": {"perceive"},
    "torch": {"checkpoint", "encode", "reason", "bench"},
    "transformers": {"checkpoint", "encode", "reason", "bench"},
    "vllm": {"reason", "bench"},
}
"""Who may import a library that shapes its importer."""


def _module_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{name.name}" for name in node.names} | {node.module}
    return found


def _floor(module: str) -> int:
    for number, members in enumerate(FLOORS.values()):
        if module in members:
            return number
    raise AssertionError(f"{module} stands on no floor; add it to FLOORS")


SOURCES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    importer = _module_of(path)
    modules = {name for members in FLOORS.values() for name in members}
    for name in _imports(path):
        parts = name.split(".")
        if parts[0] != "emer_ray" or len(parts) < 2 or parts[1] not in modules:
            continue
        imported = parts[1]
        if imported == importer:
            continue
        above, below = _floor(importer), _floor(imported)
        allowed = below < above or (importer, imported) in OWN_FLOOR_ALLOWED
        assert allowed, f"{importer} (floor {above}) imports {imported} (floor {below})"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_libraries_stay_where_they_belong(path: Path) -> None:
    importer = _module_of(path)
    for name in _imports(path):
        library = name.split(".")[0]
        assert importer in LIBRARIES.get(library, {importer}), f"{importer} imports {library}"


def test_the_package_imports_nothing_from_outside_itself() -> None:
    outside = {"jobs", "benchmarks", "tests"}
    for path in SOURCES:
        assert not {name.split(".")[0] for name in _imports(path)} & outside, path


def test_the_base_needs_no_torch() -> None:
    heavy = {"torch", "transformers", "vllm", "tensorflow"}
    modules = ("encode/transformers.py", "reason/transformers.py", "bench/tiny_models.py")
    behind_an_extra = {PACKAGE / module for module in modules}
    for path in set(SOURCES) - behind_an_extra:
        top = {
            name.name
            for node in ast.parse(path.read_text(encoding="utf-8")).body
            if isinstance(node, ast.Import)
            for name in node.names
        }
        assert not {name.split(".")[0] for name in top} & heavy, path
