"""What a judge is asked about a clip, and what its answers are worth. Asks nobody itself.

A score puts its questions to whatever knows answers (`Known`). Where an answer cannot be read the
score is null and counted, never low. What can be decided without a question (an empty prediction)
is. Prompts are the `judge_*.txt` of `emer_ray/prompts`; texts of
clips stand in a message of their own, between tags that they cannot close.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Generic, Protocol, TypeVar

import polars as pl

from emer_ray import prompts
from emer_ray.config import JudgedScore
from emer_ray.metrics import fixed, sets
from emer_ray.metrics.fixed import Preference
from emer_ray.metrics.stats import Family, Sums, Value, mean_sums, ratio

T = TypeVar("T")

_NUMBER: Final = re.compile(r"\d+(?:\.\d+)?")
_SWAPPED: Final[Mapping[Preference, Preference]] = {"a1": "a2", "a2": "a1", "same": "same"}
_SHARE: Final[Mapping[Preference, float]] = {"a1": 1.0, "a2": 0.0, "same": 0.5}
_PROMPTS: Final = (
    *("clue", "state", "label", "set", "sentence", "groups", "preference"),
    *("material", "again"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How questions are put."""

    language: prompts.Language = "en"
    max_text_tokens: int = 4096
    """Tokens of the judged texts of one question, by estimate; the longest are shortened to fit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One question: instructions, and the material they are about."""

    name: str
    """Clip and what is asked, e.g. `c1:clue`: stored answers (`replay`) are known by it."""
    kind: str
    """Its prompt: `judge_KIND.txt`."""
    system: str
    data: Mapping[str, str]
    licence_tag: str | None = None

    @property
    def material(self) -> str:
        """The texts, each between tags of its own."""
        return "\n".join(prompts.fence(tag, text) for tag, text in self.data.items())

    def again(self, language: prompts.Language) -> "Question":
        """The same once more, where the first answer could not be read."""
        system = f"{self.system}\n\n{_prompt('again', language)}"
        return replace(self, name=f"{self.name}:again", system=system)


class Known(Protocol):
    """Knows what was answered; null where a question has no answer."""

    manner: Manner

    def said(self, question: Question) -> str | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A clip as a judge sees it: texts and labels of both sides, "" and () for none."""

    clip_id: str
    system: str = ""
    """The system that is judged, where there are several; part of the names of its questions."""
    gold: str = ""
    pred: str = ""
    rival: str = ""
    """What another system says of the clip, to be compared with `pred`."""
    gold_labels: Sequence[str] = ()
    pred_labels: Sequence[str] = ()
    licence_tag: str | None = None

    @property
    def name(self) -> str:
        return f"{self.system}/{self.clip_id}" if self.system else self.clip_id


@dataclass(frozen=True, slots=True)
class Verdict(Generic[T]):
    """What became of one score: a value, or null because it was not asked, read or answered."""

    value: T | None
    state: str
    """asked, rule (decided without a question), skipped (nothing to judge), unparsable, failed."""

    @property
    def is_lost(self) -> bool:
        """Whether an answer was wanted and there is none that can be used."""
        return self.state in ("unparsable", "failed")


SKIPPED: Final[Verdict[Any]] = Verdict(None, "skipped")


def number(answer: str, low: float, high: float) -> float | None:
    """First number in an answer, if it is in the range that was asked for (science §c.7)."""
    match = _NUMBER.search(answer)
    value = float(match.group()) if match else None
    return value if value is not None and low <= value <= high else None


def read(question: Question, answer: str) -> Any:
    """What an answer says to its question, or null where it says nothing of the kind."""
    match question.kind:
        case "clue" | "label":
            return number(answer, 1, 10)
        case "set" | "sentence":
            return number(answer, 0, 1)
        case "state":
            return " ".join(answer.split()) or None
        case "groups":
            return _groups(answer, question.data["words"].split(", "))
        case "preference":
            return _side(answer)
    raise AssertionError(question.kind)


def clue_overlap(case: Case, known: Known) -> Verdict[float]:
    """EMER v1 clue overlap, 1 to 10; an empty prediction is 1 without a question."""
    if not case.gold or not case.pred:
        return _ruled(case.gold, 1.0)
    return _put(known, case, "clue", right=case.gold, other=case.pred)


def label_overlap(case: Case, known: Known) -> Verdict[float]:
    """EMER v1 label overlap, 1 to 10: both texts are reduced to a state, then the states judged."""
    if not case.gold or not case.pred:
        return _ruled(case.gold, 1.0)
    right = _put(known, case, "state.gold", description=case.gold)
    other = _put(known, case, "state.pred", description=case.pred)
    if right.value is None or other.value is None:
        return Verdict(None, right.state if right.is_lost else other.state)
    return _put(known, case, "label", right=right.value, other=other.value)


def set_overlap(case: Case, known: Known) -> Verdict[float]:
    """Overlap of two label sets, 0 to 1; an empty prediction is 0 without a question."""
    gold, pred = (_listed(labels) for labels in (case.gold_labels, case.pred_labels))
    if not gold or not pred:
        return _ruled(gold, 0.0)
    return _put(known, case, "set", first=gold, second=pred)


def sentence_overlap(case: Case, known: Known) -> Verdict[float]:
    """Overlap of two texts, 0 to 1; an empty prediction is 0 without a question."""
    if not case.gold or not case.pred:
        return _ruled(case.gold, 0.0)
    return _put(known, case, "sentence", first=case.gold, second=case.pred)


def synonym_groups(case: Case, known: Known) -> Verdict[list[list[str]]]:
    """Groups of synonyms among the words of a clip, for `set.*`.

    No question where no grouping could change a score: one side empty, or both sides equal.
    """
    gold, pred = ([w.lower() for w in labels] for labels in (case.gold_labels, case.pred_labels))
    words = list(dict.fromkeys([*gold, *pred]))
    if not gold or not pred or set(gold) == set(pred):
        return Verdict([[word] for word in words], "rule")
    return _put(known, case, "groups", words=_listed(words))


def preference(case: Case, known: Known) -> tuple[Verdict[Preference], bool | None]:
    """Which of `pred` (a1) and `rival` (a2) a judge prefers, asked both ways round, since judges
    favour a place; and whether the two answers agree. Where they do not, it is the same.
    """
    if not case.gold:
        return SKIPPED, None
    if not case.pred or not case.rival:
        ruled: Preference = "a1" if case.pred else "a2" if case.rival else "same"
        return Verdict(ruled, "rule"), None
    texts = {"truth": case.gold, "a1": case.pred, "a2": case.rival}
    swapped = {"truth": case.gold, "a1": case.rival, "a2": case.pred}
    there = _put(known, case, "preference", **texts)
    back = _put(known, case, "preference.swapped", **swapped)
    if there.value is None or back.value is None:
        return Verdict(None, there.state if there.is_lost else back.state), None
    agree = there.value == _SWAPPED[back.value]
    return Verdict(there.value if agree else fixed.SAME, "asked"), agree


def _put(known: Known, case: Case, what: str, **data: str) -> Verdict[Any]:
    kind, language = what.partition(".")[0], known.manner.language
    fitted, _ = prompts.fitted(data, known.manner.max_text_tokens)
    question = Question(
        name=f"{case.name}:{what}",
        kind=kind,
        system=f"{_prompt(kind, language)}\n\n{_prompt('material', language)}",
        data=fitted,
        licence_tag=case.licence_tag,
    )
    said = known.said(question)
    if said is None:
        return Verdict(None, "failed")
    value = read(question, said)
    return Verdict(value, "unparsable" if value is None else "asked")


def _prompt(name: str, language: prompts.Language) -> str:
    return prompts.text(f"judge_{name}", language).strip()


def _ruled(gold: str, lowest: float) -> Verdict[float]:
    """An empty prediction for a reference that says something needs no judge."""
    return Verdict(lowest, "rule") if gold else SKIPPED


def _listed(labels: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(label for label in labels if label.strip()))


def _groups(answer: str, words: Sequence[str]) -> list[list[str]] | None:
    """Read groups; an answer that groups none of the words is none."""
    start, end = answer.find("["), answer.rfind("]")
    if start < 0 or end < start:
        return None
    text = answer[start : end + 1].lower()
    try:
        found = json.loads(text)
    except ValueError:
        found = sets.groups_of(text)  # single quotes, a comma too many
    if not all(isinstance(group, list) for group in found):
        return None
    groups = [[str(word).strip() for word in group] for group in found if group]
    return groups if {word for group in groups for word in group} & set(words) else None


def _side(answer: str) -> Preference | None:
    """A judge that names neither side has not judged: unlike in a submission, that is no tie."""
    text = answer.lower()
    return fixed.preference(answer) if any(a in text for a in ("a1", "a2", "same")) else None


def schema(scores: Sequence[JudgedScore]) -> dict[str, Any]:
    """Columns that `judged` fills."""
    kinds: dict[str, Any] = {}
    for score in scores:
        kinds[f"judge.{score}"] = pl.List(pl.List(pl.String)) if score == "groups" else pl.Float64
        if score == "preference":
            kinds["judge.agreement"] = pl.Float64
        kinds[f"judge.{score}.unparsable"] = pl.Boolean
    return kinds


def judged(case: Case, scores: Sequence[JudgedScore], known: Known) -> dict[str, Any]:
    """Every score of a clip, as a row of `schema`."""
    row: dict[str, Any] = {}
    for score in scores:
        verdict: Verdict[Any]
        match score:
            case "clue":
                verdict = clue_overlap(case, known)
            case "label":
                verdict = label_overlap(case, known)
            case "set":
                verdict = set_overlap(case, known)
            case "sentence":
                verdict = sentence_overlap(case, known)
            case "groups":
                verdict = synonym_groups(case, known)
            case "preference":
                side, agree = preference(case, known)
                verdict = Verdict(None if side.value is None else _SHARE[side.value], side.state)
                row["judge.agreement"] = None if agree is None else float(agree)
        row[f"judge.{score}"] = verdict.value
        row[f"judge.{score}.unparsable"] = verdict.is_lost
    return row


def version(model: str, language: prompts.Language) -> str:
    """Name the judge: model, language, and a hash of every prompt."""
    texts = "".join(_prompt(name, language) for name in _PROMPTS)
    return f"{model} prompts {language} {hashlib.sha256(texts.encode()).hexdigest()[:12]}"


def families(scores: Sequence[JudgedScore], version: str) -> list[Family]:
    """Aggregates of the columns of `schema`: means over the clips that have a verdict.

    Groups have no score of their own: they are what `set.*` is computed with.
    """
    return [_family(score, version) for score in scores if score != "groups"]


def _family(score: JudgedScore, version: str) -> Family:
    metrics = [f"judge.{score}", *(["judge.agreement"] if score == "preference" else [])]
    lost = f"judge.{score}.unparsable"

    def finish(s: Sums) -> dict[str, Value]:
        return {metric: (ratio(s[metric], s[f"{metric}#"]), s[f"{metric}#"]) for metric in metrics}

    sums = mean_sums(metrics) | {lost: pl.col(lost)}
    return Family(version=version, sums=sums, finish=finish, n_unparsable=lost)
