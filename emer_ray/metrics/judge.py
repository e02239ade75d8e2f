"""Scores given by a language model: prompts in, verdicts out, nothing about the model.

A judge is anything with `ask(prompts) -> replies`. Answers are kept by a hash of model and prompt,
so a question is paid for once; an answer that cannot be read is asked for once more, then it is
null and counted, never a low score. What can be decided without a question (an empty prediction)
is. Prompts are the `judge_*.txt` of `emer_ray/prompts`.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib.resources import files
from string import Template
from typing import Final, Generic, Protocol, TypeVar

import numpy as np
import polars as pl

from emer_ray import storage
from emer_ray.errors import ClipError
from emer_ray.metrics import fixed, sets
from emer_ray.metrics.fixed import Preference
from emer_ray.metrics.stats import Family, Floats, Sums, Value, mean_sums, ratio
from emer_ray.records import Reply

T = TypeVar("T")
Text = str | None

_NUMBER: Final = re.compile(r"\d+(?:\.\d+)?")
_LETTERS_PER_TOKEN: Final = 4
_SWAPPED: Final[Mapping[Preference, Preference]] = {"a1": "a2", "a2": "a1", "same": "same"}


class Judge(Protocol):
    """A model that answers questions in words: one reply or failure per prompt, order kept."""

    def ask(self, prompts: Sequence[str]) -> list[Reply | ClipError]: ...


@dataclass(frozen=True, slots=True)
class Verdict(Generic[T]):
    """What became of one question: a value, or null because it was not asked, read or answered."""

    value: T | None
    state: str
    """asked, rule (decided without a question), skipped (nothing to judge), unparsable, failed."""


class Answers:
    """Raw answers of one model by prompt: in memory, and in a JSONL object when it has a URI."""

    def __init__(self, model: str, uri: str | None = None) -> None:
        self._model = model
        self._uri = uri
        self._known: dict[str, str] = {}
        if uri is not None and storage.exists(uri):
            rows = [json.loads(line) for line in storage.read(uri).decode().splitlines()]
            self._known = {row["key"]: row["raw"] for row in rows}

    def key(self, prompt: str) -> str:
        """Hash of model and prompt text."""
        return hashlib.sha256(f"{self._model}\0{prompt}".encode()).hexdigest()

    def missing(self, prompts: Sequence[str]) -> list[str]:
        """The different prompts that have no answer yet, in order."""
        return [prompt for prompt in dict.fromkeys(prompts) if self.key(prompt) not in self._known]

    def ask(self, prompts: Sequence[str], judge: Judge) -> list[Text]:
        """Answer every prompt, asking only what is not known; null where the judge failed."""
        new = self.missing(prompts)
        replies = judge.ask(new) if new else []
        if len(replies) != len(new):
            raise ValueError(f"the judge gave {len(replies)} replies to {len(new)} prompts")
        for prompt, reply in zip(new, replies, strict=True):
            if isinstance(reply, Reply):
                self._known[self.key(prompt)] = reply.raw
        return [self._known.get(self.key(prompt)) for prompt in prompts]

    def save(self) -> None:
        """Write everything known to the URI."""
        if self._uri is not None:
            rows = (json.dumps({"key": k, "raw": v}) for k, v in sorted(self._known.items()))
            storage.write(self._uri, "".join(f"{row}\n" for row in rows).encode())


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What questions will cost, before they are asked."""

    questions: int
    tokens_in: int
    tokens_out: int

    def usd(self, *, in_per_million: float, out_per_million: float) -> float:
        """Price at a price per million tokens read and written."""
        return (self.tokens_in * in_per_million + self.tokens_out * out_per_million) / 1e6


def estimate(prompts: Sequence[str], answers: Answers, *, answer_tokens: int = 40) -> Estimate:
    """Predict the cost of the prompts not answered yet; four letters, or one Chinese, a token."""
    new = answers.missing(prompts)
    wide = sum(len(re.findall(r"[\u3400-\u9fff]", prompt)) for prompt in new)
    letters = sum(len(prompt) for prompt in new) - wide
    return Estimate(
        questions=len(new),
        tokens_in=wide + letters // _LETTERS_PER_TOKEN,
        tokens_out=len(new) * answer_tokens,
    )


def number(answer: str, low: float, high: float) -> float | None:
    """First number in an answer, if it is in the range that was asked for (science §c.7)."""
    match = _NUMBER.search(answer)
    value = float(match.group()) if match else None
    return value if value is not None and low <= value <= high else None


def verdicts(
    prompts: Sequence[Text],
    read: Callable[[str], T | None],
    judge: Judge,
    answers: Answers,
) -> list[Verdict[T]]:
    """Ask, read, and ask once more what could not be read. A null prompt is skipped."""
    asked = [prompt for prompt in prompts if prompt is not None]
    first = dict(zip(asked, answers.ask(asked, judge), strict=True))
    values = {p: None if raw is None else read(raw) for p, raw in first.items()}
    unread = [p for p, raw in first.items() if raw is not None and values[p] is None]
    again = {prompt: f"{prompt}\n{_prompt('again')}" for prompt in unread}
    for question, second in zip(unread, answers.ask(list(again.values()), judge), strict=True):
        values[question] = None if second is None else read(second)
    result: list[Verdict[T]] = []
    for prompt in prompts:
        if prompt is None:
            result.append(Verdict(None, "skipped"))
        elif first[prompt] is None:
            result.append(Verdict(None, "failed"))
        else:
            value = values[prompt]
            result.append(Verdict(value, "unparsable" if value is None else "asked"))
    return result


def clue_prompts(gold: Sequence[Text], pred: Sequence[Text]) -> list[Text]:
    """Questions about the overlap of clues; null where one side is empty."""
    return [_pair("clue", g, p) for g, p in zip(gold, pred, strict=True)]


def clue_overlap(
    gold: Sequence[Text], pred: Sequence[Text], judge: Judge, answers: Answers
) -> list[Verdict[float]]:
    """EMER v1 clue overlap, 1 to 10; an empty prediction is 1 without a question."""
    found = verdicts(clue_prompts(gold, pred), partial(number, low=1, high=10), judge, answers)
    return _ruled(found, gold, pred, 1.0)


def label_overlap(
    gold: Sequence[Text], pred: Sequence[Text], judge: Judge, answers: Answers
) -> list[Verdict[float]]:
    """EMER v1 label overlap, 1 to 10: both texts are reduced to a state, then the states judged."""
    states = [
        verdicts(
            [_ask("state", text=text) if text else None for text in side], _said, judge, answers
        )
        for side in (gold, pred)
    ]
    pairs = zip(*states, strict=True)
    prompts = [_pair("label", g.value, p.value) for g, p in pairs]
    found = verdicts(prompts, partial(number, low=1, high=10), judge, answers)
    for place, (g, p) in enumerate(zip(*states, strict=True)):
        broken = {g.state, p.state} & {"failed", "unparsable"}
        if broken:
            found[place] = Verdict(None, broken.pop())
    return _ruled(found, gold, pred, 1.0)


def set_overlap(
    gold: Sequence[Sequence[str]], pred: Sequence[Sequence[str]], judge: Judge, answers: Answers
) -> list[Verdict[float]]:
    """Overlap of two label sets, 0 to 1; an empty prediction is 0 without a question."""
    sides = [[", ".join(dict.fromkeys(labels)) for labels in side] for side in (gold, pred)]
    prompts = [_pair("set", g, p) for g, p in zip(*sides, strict=True)]
    found = verdicts(prompts, partial(number, low=0, high=1), judge, answers)
    return _ruled(found, sides[0], sides[1], 0.0)


def sentence_overlap(
    gold: Sequence[Text], pred: Sequence[Text], judge: Judge, answers: Answers
) -> list[Verdict[float]]:
    """Overlap of two texts, 0 to 1; an empty prediction is 0 without a question."""
    prompts = [_pair("sentence", g, p) for g, p in zip(gold, pred, strict=True)]
    found = verdicts(prompts, partial(number, low=0, high=1), judge, answers)
    return _ruled(found, gold, pred, 0.0)


def synonym_groups(
    gold: Mapping[str, Sequence[str]],
    pred: Mapping[str, Sequence[str]],
    judge: Judge,
    answers: Answers,
) -> tuple[dict[str, list[list[str]]], list[Verdict[list[list[str]]]]]:
    """Groups of synonyms of each clip, for `set.*`, and what became of each question.

    A clip with fewer than two different words needs no question. A clip whose answer could not be
    read has no groups, so the set level does not score it.
    """
    words = {
        clip: list(dict.fromkeys(w.lower() for w in (*labels, *pred.get(clip, ()))))
        for clip, labels in gold.items()
    }
    prompts = [
        _ask("groups", words=", ".join(listed)) if len(listed) > 1 else None
        for listed in words.values()
    ]
    found = verdicts(prompts, _read_groups, judge, answers)
    groups: dict[str, list[list[str]]] = {}
    for place, (clip, listed) in enumerate(words.items()):
        verdict = found[place]
        if verdict.state == "skipped":
            found[place] = verdict = Verdict([[word] for word in listed], "rule")
        if verdict.value is not None:
            groups[clip] = verdict.value
    return groups, found


@dataclass(frozen=True, slots=True)
class Preferred:
    """Which of two descriptions a judge prefers, asked both ways round."""

    verdict: Preference | None
    """same where the two orders disagree; null where one of them could not be read."""
    agree: bool | None
    """Whether both orders gave one answer."""


def preferences(
    gold: Sequence[Text],
    first: Sequence[str],
    second: Sequence[str],
    judge: Judge,
    answers: Answers,
) -> list[Preferred]:
    """Compare pairs of descriptions in both orders, since judges favour a place."""
    rows = list(zip(gold, first, second, strict=True))
    there = [_ask("preference", gold=g or "(nothing)", first=a, second=b) for g, a, b in rows]
    back = [_ask("preference", gold=g or "(nothing)", first=b, second=a) for g, a, b in rows]
    both = [*there, *back]
    found: list[Verdict[Preference]] = verdicts(both, _read_preference, judge, answers)
    result = []
    for one, other in zip(found[: len(rows)], found[len(rows) :], strict=True):
        if one.value is None or other.value is None:
            result.append(Preferred(None, None))
        else:
            agree = one.value == _SWAPPED[other.value]
            result.append(Preferred(one.value if agree else fixed.SAME, agree))
    return result


def columns(metric: str, found: Sequence[Verdict[float]]) -> dict[str, Floats | pl.Series]:
    """Per-clip columns of a judged score: its value, and whether an answer could not be used."""
    return {
        metric: np.array([np.nan if v.value is None else v.value for v in found]),
        f"{metric}.unparsable": pl.Series(
            [verdict.state in ("unparsable", "failed") for verdict in found], dtype=pl.Boolean
        ),
    }


def family(metric: str, model: str) -> Family:
    """Mean of a judged score; clips without a readable verdict are counted and left out."""
    sums = mean_sums([metric]) | {f"{metric}.unparsable": pl.col(f"{metric}.unparsable")}

    def finish(s: Sums) -> dict[str, Value]:
        return {metric: (ratio(s[metric], s[f"{metric}#"]), s[f"{metric}#"])}

    prompts = hashlib.sha256("".join(_prompt(name) for name in _PROMPTS).encode()).hexdigest()
    return Family(
        version=f"{model} prompts {prompts[:12]}",
        sums=sums,
        finish=finish,
        n_unparsable=f"{metric}.unparsable",
    )


_PROMPTS: Final = ("clue", "state", "label", "set", "sentence", "groups", "preference", "again")


@cache
def _prompt(name: str) -> str:
    return (files("emer_ray.prompts") / "en" / f"judge_{name}.txt").read_text(encoding="utf-8")


def _ask(name: str, **parts: str) -> str:
    return Template(_prompt(name)).substitute(parts)


def _pair(name: str, gold: Text, pred: Text) -> Text:
    return _ask(name, gold=gold, pred=pred) if gold and pred else None


def _ruled(
    found: Sequence[Verdict[float]], gold: Sequence[Text], pred: Sequence[Text], lowest: float
) -> list[Verdict[float]]:
    """An empty prediction for a reference that says something needs no judge."""
    return [
        Verdict(lowest, "rule") if g and not p and verdict.state == "skipped" else verdict
        for verdict, g, p in zip(found, gold, pred, strict=True)
    ]


def _said(answer: str) -> str | None:
    return " ".join(answer.split()) or None


def _read_groups(answer: str) -> list[list[str]] | None:
    start, end = answer.find("["), answer.rfind("]")
    if start < 0 or end < start:
        return None
    return [group for group in sets.groups_of(answer[start : end + 1]) if group] or None


def _read_preference(answer: str) -> Preference | None:
    """A judge that names neither side has not judged: unlike in a submission, that is no tie."""
    text = answer.lower()
    return fixed.preference(answer) if any(a in text for a in ("a1", "a2", "same")) else None
