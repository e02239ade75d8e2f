"""Prompt texts by language, as package data in our own words, and how a question is put together.

    en/NAME.txt, zh/NAME.txt    instructions, which become the system text: nothing of a clip
    en/phrases.toml, zh/…       the words around frames, sound, subtitles and earlier answers

Whatever comes from a clip is data. It stands between tags as one JSON string in which `<`, control
and invisible characters are escaped, so that it can neither close its tag nor form a model's own
control token. File names and clip ids are not shown to a model at all.
"""

import dataclasses
import hashlib
import json
import re
import tomllib
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any, Final, Literal

from emer_ray.errors import ConfigError
from emer_ray.records import AnswerForm, Clues, Modality, Part, Request

Language = Literal["en", "zh"]

CLUE_KEYS: Final = ("visual_clues", "acoustic_clues", "lexical_clues")

INVISIBLE: Final = frozenset({"Cf", "Cs", "Zl", "Zp"})
"""Categories of characters that steer text without being seen: direction, joiners, separators."""

_CONTROL_WORD = re.compile(r"\[(?=/?[A-Z_]+\])")
"""Llama and Mistral write their turns as [INST]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A step of a recipe with its texts: what is the same for every clip."""

    step: str
    form: AnswerForm
    instructions: str
    phrases: Mapping[str, str]
    modalities: frozenset[Modality]
    choices: tuple[str, ...] = ()
    max_text_tokens: int = 4096
    answer_chars: int | None = None
    """Of all strings of a structured answer together; null = no limit."""


def names(language: Language) -> list[str]:
    """List the prompts that a step can ask; `judge_*` belong to `emer_ray.judge`."""
    folder = files(__package__).joinpath(language)
    found = (entry.name for entry in folder.iterdir())
    return sorted(
        name.removesuffix(".txt")
        for name in found
        if name.endswith(".txt") and not name.startswith("judge_")
    )


def text(name: str, language: Language) -> str:
    """Read a prompt that ships with the package, or one given as the path of a text file."""
    shipped = files(__package__).joinpath(language, f"{name}.txt")
    if shipped.is_file():
        return shipped.read_text(encoding="utf-8")
    if Path(name).is_file():
        return Path(name).read_text(encoding="utf-8")
    raise ConfigError(
        f"prompt {name!r}: neither a shipped {language} prompt ({', '.join(names(language))}) "
        f"nor a text file"
    )


@cache
def phrases(language: Language) -> Mapping[str, str]:
    """Read the words around a clip's data."""
    found = files(__package__).joinpath(language, "phrases.toml").read_text(encoding="utf-8")
    return tomllib.loads(found)


def text_hash(name: str, language: Language) -> str:
    """Hash a prompt's text with the words around it: they decide results, their names do not."""
    whole = text(name, language) + json.dumps(phrases(language), sort_keys=True)
    return hashlib.sha256(whole.encode()).hexdigest()


def question(
    *,
    step: str,
    prompt: str,
    form: AnswerForm,
    language: Language,
    modalities: Sequence[Modality] = ("video", "audio", "text"),
    choices: Sequence[str] = (),
    max_text_tokens: int = 4096,
    answer_chars: int | None = None,
) -> Question:
    """Fill a prompt's own blanks (`$choices`); raises ConfigError for one that nothing fills."""
    try:
        instructions = Template(text(prompt, language)).substitute(choices=", ".join(choices))
    except (KeyError, ValueError) as error:
        raise ConfigError(
            f"prompt {prompt!r}: cannot fill {error}; only $choices is known, write $$ for a dollar"
        ) from None
    return Question(
        step=step,
        form=form,
        instructions=instructions.strip(),
        phrases=phrases(language),
        modalities=frozenset(modalities),
        choices=tuple(choices),
        max_text_tokens=max_text_tokens,
        answer_chars=answer_chars,
    )


def render(
    question: Question,
    clues: Clues,
    earlier: Mapping[str, str],
    *,
    sample: int = 0,
    seed: int = 0,
    licence_tag: str | None = None,
) -> tuple[Request, tuple[str, ...]]:
    """Put a question about one clip: instructions, frames, sound, words, earlier answers.

    `earlier` maps a step to what its answer says; empty = that step had nothing to say. Returns the
    request and the names of what was shortened to fit `max_text_tokens`.
    """
    seen = _restricted(clues, question.modalities)
    data = dict(earlier)
    if "text" in question.modalities and clues.subtitle:
        data["subtitle"] = clues.subtitle
    data, cut = fitted(data, question.max_text_tokens)
    say = question.phrases
    parts: list[Part] = []
    if "video" in question.modalities:
        if not seen.has_video:
            parts.append(Part(kind="text", text=say["no_frames"]))
        else:
            times = ", ".join(f"{at:.1f}" for at in seen.frame_times_s)
            shown = Template(say["frames"]).substitute(count=len(seen.frame_times_s), times=times)
            parts += [Part(kind="text", text=shown), Part(kind="frames")]
    if "audio" in question.modalities:
        if not seen.has_audio:
            parts.append(Part(kind="text", text=say["no_audio"]))
        else:
            parts += [Part(kind="text", text=say["audio"]), Part(kind="audio")]
    lines = []
    if "text" in question.modalities:
        lines.append(
            f"{say['subtitle']}\n{fence('subtitle', data['subtitle'])}"
            if "subtitle" in data
            else say["no_subtitle"]
        )
    for step in earlier:
        said = data[step].strip()
        lines.append(
            f"{say['earlier']}\n{fence(step, said)}"
            if said
            else Template(say["no_earlier"]).substitute(step=step)
        )
    lines.append(say["closing"])
    parts.append(Part(kind="text", text="\n\n".join(lines)))
    request = Request(
        step=question.step,
        form=question.form,
        clues=seen,
        system=question.instructions,
        parts=tuple(parts),
        answer_schema=_schema(question),
        choices=question.choices,
        sample=sample,
        seed=seed,
        licence_tag=licence_tag,
    )
    return request, tuple(cut)


def _restricted(clues: Clues, modalities: frozenset[Modality]) -> Clues:
    kept: dict[str, Any] = {}
    if "video" not in modalities:
        kept |= {"frames": None, "frame_times_s": (), "has_video": False}
    if "audio" not in modalities:
        kept |= {"pcm": None, "has_audio": False}
    if "text" not in modalities:
        kept |= {"subtitle": None, "subtitle_source": None}
    return dataclasses.replace(clues, **kept)


def fence(tag: str, data: str) -> str:
    """Write data as one line between tags that nothing inside it can close."""
    clean = "".join(letter for letter in data if unicodedata.category(letter) not in INVISIBLE)
    quoted = json.dumps(clean, ensure_ascii=False).replace("<", "\\u003c").replace(">", "\\u003e")
    inert = _CONTROL_WORD.sub(r"\\u005b", quoted)
    return f"<{tag}>{inert}</{tag}>"


def estimate_tokens(data: str) -> int:
    """Estimate tokens without a tokenizer, on the high side: 3 letters each, or one CJK sign."""
    wide = sum(ord(letter) >= 0x2E80 for letter in data)
    return wide + -(-(len(data) - wide) // 3)


def fitted(data: Mapping[str, str], max_tokens: int) -> tuple[dict[str, str], list[str]]:
    """Shorten the longest texts until all together fit; returns what was shortened as well."""
    sizes = {name: estimate_tokens(item) for name, item in data.items()}
    if sum(sizes.values()) <= max_tokens:
        return dict(data), []
    # the level above which texts are cut, found from the shortest text upwards
    left, cap = max_tokens, 0
    for rank, size in enumerate(sorted(sizes.values())):
        cap = left // (len(sizes) - rank)
        if size > cap:
            break
        left -= size
    cut = [name for name, size in sizes.items() if size > cap]
    return {name: _cut(item, cap) if name in cut else item for name, item in data.items()}, cut


def _cut(item: str, tokens: int) -> str:
    low, high = 0, len(item)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (
            (middle, high) if estimate_tokens(item[:middle]) + 1 <= tokens else (low, middle - 1)
        )
    return item[:low] + "…"


def answer_schema(form: AnswerForm, choices: Sequence[str] = ()) -> dict[str, Any] | None:
    """Give the JSON schema of a form's answer; None where the answer is prose.

    Every key is required and none may be added, as servers of structured output demand.
    """
    words: dict[str, Any] = {"type": "array", "items": {"type": "string"}}
    one = {"type": "string", "enum": list(choices)} if choices else {"type": "string"}
    match form:
        case "explanation":
            return _object(
                {
                    **dict.fromkeys(CLUE_KEYS, words),
                    "explanation": {"type": "string"},
                    "labels": words,
                }
            )
        case "labels":
            return _object({"labels": words})
        case "one_hot":
            return _object({"label": one})
        case "ranking":
            return _object({"ranking": {"type": "array", "items": one}})
        case "valence":
            return _object({"valence": {"type": "number"}})
        case "sentiment":
            kinds = ["positive", "negative", "neutral"]
            return _object({"sentiment": {"type": "string", "enum": kinds}})
        case "visual" | "acoustic" | "lexical" | "account" | "text":
            return None


def _schema(question: Question) -> dict[str, Any] | None:
    schema = answer_schema(question.form, question.choices)
    if schema is None or question.answer_chars is None:
        return schema
    return bounded(schema, question.answer_chars)


SHARES: Final = {**dict.fromkeys(CLUE_KEYS, 4), "explanation": 9, "labels": 3}
"""Parts of an answer's characters, by key."""
ITEM_CHARS: Final = {**dict.fromkeys(CLUE_KEYS, 240), "labels": 40}
"""Characters of one item, where there are enough for several."""
MOST_ITEMS: Final = 24
"""Of a list. A list that goes round in circles must still be long enough to be known as one."""


def bounded(schema: Mapping[str, Any], chars: int) -> dict[str, Any]:
    """Give every list, string and number of an answer's schema an end.

    All strings together have `chars` characters at most (or one each, where that is more). With a
    limit of an eighth of the answer's tokens, every answer is whole, whatever the tokenizer.
    """
    free = {
        name: SHARES.get(name, 3)
        for name, kind in schema["properties"].items()
        if {"type": "string"} in (kind, kind.get("items"))
    }
    found: dict[str, Any] = {}
    for name, kind in schema["properties"].items():
        share = max(1, chars * free.get(name, 0) // max(1, sum(free.values())))
        if kind["type"] == "number":
            found[name] = {**kind, "minimum": -5, "maximum": 5}
        elif kind["type"] == "array" and name in free:
            most = min(MOST_ITEMS, max(1, share // ITEM_CHARS.get(name, 40)))
            item = {**kind["items"], "maxLength": max(1, share // most)}
            found[name] = {**kind, "items": item, "maxItems": most}
        elif kind["type"] == "array":
            found[name] = {**kind, "maxItems": len(kind["items"]["enum"])}
        elif name in free:
            found[name] = {**kind, "maxLength": share}
        else:
            found[name] = kind
    return {**schema, "properties": found}


def _object(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }
