"""Read an explanation out of a model's raw answer. The raw answer is always kept beside the result.

Rungs, tried in order, and recorded: `json` (the answer is a JSON object), `object` (a JSON object
inside prose, a fence or thinking). An answer that has none is `unparsable`, never a label and
never neutral.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from emer_ray.errors import ClipError
from emer_ray.records import Answer, Clue, Explanation, Label, Measure

KEYS = ("visual_clues", "acoustic_clues", "lexical_clues", "explanation", "labels")


def explanation(answer: Answer) -> Explanation:
    """Read an answer; raises ClipError("unparsable") with the reason."""
    raw = answer.raw.strip()
    if not raw:
        raise ClipError("unparsable", f"step {answer.step}: the answer is empty ({answer.finish})")
    for rung, text in _candidates(raw):
        try:
            found = json.loads(text)
        except json.JSONDecodeError:
            continue
        if isinstance(found, dict) and found.keys() & set(KEYS):
            return _explanation(found, rung, answer.step)
    start = raw[:80].replace("\n", " ")
    raise ClipError("unparsable", f"step {answer.step}: no explanation in the answer {start!r}…")


def _candidates(raw: str) -> Iterator[tuple[str, str]]:
    yield "json", raw
    decoder = json.JSONDecoder()
    at = raw.find("{")
    while at >= 0:
        try:
            _, end = decoder.raw_decode(raw, at)
        except json.JSONDecodeError:
            end = at + 1
        else:
            yield "object", raw[at:end]
        at = raw.find("{", end)


def _explanation(found: Mapping[str, Any], rung: str, step: str) -> Explanation:
    try:
        return Explanation(
            visual_clues=_clues(found.get("visual_clues")),
            acoustic_clues=_clues(found.get("acoustic_clues")),
            lexical_clues=_clues(found.get("lexical_clues")),
            explanation=str(found.get("explanation") or ""),
            labels=_labels(found.get("labels")),
            confidence=_number(found.get("confidence")),
            parse_rung=rung,
        )
    except (TypeError, ValueError, KeyError) as error:
        raise ClipError("unparsable", f"step {step}: {type(error).__name__}: {error}") from None


def _clues(found: Any) -> tuple[Clue, ...]:
    return tuple(_clue(item) for item in _listed(found))


def _clue(found: Any) -> Clue:
    if isinstance(found, str):
        return Clue(text=found.strip())
    evidence = tuple(Measure(**measure) for measure in _listed(found.get("evidence")))
    return Clue(text=str(found["text"]), evidence=evidence)


def _labels(found: Any) -> tuple[Label, ...]:
    labels: dict[str, Label] = {}
    for item in _listed(found):
        plain = isinstance(item, str)
        word = (item if plain else str(item["label"])).strip().lower()
        if word:
            support = None if plain else _number(item.get("support"))
            labels.setdefault(word, Label(label=word, support=support))
    return tuple(labels.values())


def _listed(found: Any) -> list[Any]:
    if found is None or found == "":
        return []
    return found if isinstance(found, list) else [found]


def _number(found: Any) -> float | None:
    return None if found is None else float(found)
