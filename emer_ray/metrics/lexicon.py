"""The tables behind the wheels: ours from the package, or a folder in the layout of a published
release.

A folder holds the wheels (`wheels.json`, or `wheel1` to `wheel5` as csv or xlsx), the word forms of
the chosen year and the synonyms. Both published years differ in the forms only: in 2025 "fear" also
means its opposite.
"""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any, Final, Literal

from emer_ray import storage
from emer_ray.errors import ConfigError
from emer_ray.metrics.labels import parse
from emer_ray.metrics.wheels import Row, Wheels

Year = Literal["2025", "2026"]

DEFAULT_VERSION: Final = "emer-1"
"""Name of the tables in the package; raised when one of their words changes."""

THEORIES: Final = ("ekman", "shaver", "plutchik", "circumplex", "geneva")
"""The five accounts of emotion that our wheels W1 to W5 follow."""

_LEVELS: Final = ("level1", "level2", "level3")
_RUNS: Final = 8


@cache
def default() -> Wheels:
    """The package's own tables (docs/metrics.md says from which sources)."""
    folder = files("emer_ray.metrics") / "tables"
    words = _rows("words.csv", (folder / "words.csv").read_bytes())
    return Wheels(
        version=DEFAULT_VERSION,
        wheels=tuple(_own_wheel(words, theory) for theory in THEORIES),
        forms=_forms("forms.csv", (folder / "forms.csv").read_bytes()),
        synonyms=_synonyms("words.csv", (folder / "words.csv").read_bytes()),
    )


def _own_wheel(words: Iterable[Mapping[str, str]], theory: str) -> tuple[Row, ...]:
    """Rows of one of our wheels: a word's place is written "level 1/level 2"."""
    places = [(*row[theory].split("/"), row["word"]) for row in words]
    return tuple((one, two, word) for one, two, word in places)


def load(folder: str, year: Year = "2026") -> Wheels:
    """Read a folder of published tables. Raises `ConfigError` that names the missing file."""
    wheels = _first(folder, [["wheels.json"], *(_five(kind) for kind in ("csv", "xlsx"))], "wheels")
    forms = _first(
        folder,
        [[f"wheel_format_{year}.csv"], [f"wheel_format_{year}.json"], ["format.csv"]],
        f"word forms of {year}",
    )[0]
    synonyms = _first(
        folder,
        [["wheel_synonym_runs.csv"], ["wheel_synonym.json"], ["synonym.xlsx"], ["synonym.csv"]],
        "synonyms",
    )[0]
    data = {name: storage.read(storage.join(folder, name)) for name in [*wheels, forms, synonyms]}
    return _read(data, wheels=wheels, forms=forms, synonyms=synonyms, version=f"upstream-{year}")


def _five(kind: str) -> list[str]:
    return [f"wheel{number}.{kind}" for number in range(1, 6)]


def _first(folder: str, choices: Sequence[Sequence[str]], what: str) -> Sequence[str]:
    for names in choices:
        if all(storage.exists(storage.join(folder, name)) for name in names):
            return names
    known = " or ".join(
        names[0] if len(names) == 1 else f"{names[0]} … {names[-1]}" for names in choices
    )
    raise ConfigError(f"--wheels {folder}: no table of {what} there; it needs {known}")


def _read(
    data: Mapping[str, bytes], *, wheels: Sequence[str], forms: str, synonyms: str, version: str
) -> Wheels:
    return Wheels(
        version=version,
        wheels=_wheels(data, wheels),
        forms=_forms(forms, data[forms]),
        synonyms=_synonyms(synonyms, data[synonyms]),
    )


def _wheels(data: Mapping[str, bytes], names: Sequence[str]) -> tuple[tuple[Row, ...], ...]:
    if names == ["wheels.json"]:
        found = json.loads(data["wheels.json"])["wheels"]
        tables = [[dict(zip(_LEVELS, row, strict=True)) for row in rows] for rows in found.values()]
    else:
        tables = [_rows(name, data[name]) for name in names]
    if len(tables) != 5:
        raise ConfigError(f"wheels.json: {len(tables)} wheels, the metrics need exactly five")
    return tuple(_filled(rows) for rows in tables)


def _filled(rows: Iterable[Mapping[str, str]]) -> tuple[Row, ...]:
    """An empty level repeats the last one above it."""
    last = ["", "", ""]
    result: list[Row] = []
    for row in rows:
        for column, level in enumerate(_LEVELS):
            last[column] = str(row[level] or "").lower().strip() or last[column]
        result.append((last[0], last[1], last[2]))
    return tuple(result)


def _forms(name: str, data: bytes) -> dict[str, tuple[str, ...]]:
    if name.endswith(".json"):
        return {form: tuple(bases) for form, bases in json.loads(data)["rows"].items()}
    pairs = []
    for row in _rows(name, data):
        pairs += [(form, row["name"]) for form in (*parse(row["format"]), row["name"])]
    return _grouped(pairs)


def _synonyms(name: str, data: bytes) -> dict[str, tuple[str, ...]]:
    if name.endswith(".json"):
        return {base: tuple(words) for base, words in json.loads(data)["rows"].items()}
    rows = _rows(name, data)
    if rows and "word_run1" in rows[0]:
        runs = range(1, _RUNS + 1)
        rows = [
            {"word": row[f"word_run{run}"], "synonyms": row[f"synonym_run{run}"]}
            for run in runs
            for row in rows
        ]
    pairs = []
    for row in rows:
        word = row["word"].lower().strip()
        listed = (synonym.lower().strip() for synonym in parse(row["synonyms"]))
        pairs += [(base, word) for base in (word, *listed)]
    return _grouped(pairs)


def _grouped(pairs: Iterable[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    groups: dict[str, set[str]] = {}
    for key, value in pairs:
        groups.setdefault(key, set()).add(value)
    return {key: tuple(sorted(values)) for key, values in groups.items()}


def _rows(name: str, data: bytes) -> list[dict[str, str]]:
    if name.endswith(".xlsx"):
        from openpyxl import load_workbook  # 0.3 s of CPU, which every actor would pay

        sheet: Any = load_workbook(io.BytesIO(data), read_only=True, data_only=True).worksheets[0]
        head, *body = [
            ["" if cell is None else str(cell) for cell in row]
            for row in sheet.iter_rows(values_only=True)
        ]
        return [dict(zip(head, row, strict=False)) for row in body if any(row)]
    return list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline="")))
