"""Read models' raw answers, and compose a row's explanation from the answers of a recipe's steps.

The raw answer is always kept beside the result. What reads an answer is recorded as its rung:

    think, answer   thinking was cut away; the inside of <answer> was taken
    json            the text is JSON of the form that the step asked for
    fenced          such JSON inside a ``` fence
    object          such JSON inside prose; of several the last, because drafts come first
    repaired        such JSON after mending quotes, commas, comments or line breaks
    list            labels as a list that is not JSON: in brackets, bulleted, or one line of words
    prose           the text as it stands, where the step asks for prose

Nothing closes the brackets of an answer that was cut off: what is missing may be the labels. An
answer without the asked form is a ClipError whose kind says how it went wrong, never a label and
never neutral.
"""

import ast
import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from emer_ray.errors import ClipError, FailureKind
from emer_ray.metrics.labels import parse as cell
from emer_ray.records import Answer, AnswerForm, Clue, Explanation, Label, Measure

PROSE: Final = ("visual", "acoustic", "lexical", "account", "text")
FILLING: Final = ("explanation", "visual", "acoustic", "lexical", "account", "labels")
"""Forms that fill columns: a clip without them has no explanation. The others stay in `answers`."""

SENTIMENTS: Final = ("positive", "negative", "neutral")

LOOP_REPEATS: Final = 6
LOOP_TOKENS: Final = 24
LOOP_PERIOD: Final = 60
"""A unit of up to 60 words said 6 times in a row over at least 24 words is a loop."""
QUOTED_TOKENS: Final = 4
"""Words that a quotation counts for: people do say the same thing over and over."""
DULL: Final = 8.0
DULL_BYTES: Final = 600
"""So is prose of 600 bytes or more that shrinks to an eighth; human prose shrinks to a half."""

MOST_WORDS: Final = 4
"""Words of one label at most, where labels are read from a line that is no JSON."""

_THINK = re.compile(r"<think(?:ing)?>.*?</think(?:ing)?>", re.DOTALL | re.IGNORECASE)
_THOUGHT_END = re.compile(r"^.*</think(?:ing)?>", re.DOTALL | re.IGNORECASE)
_THINKING = re.compile(r"<think(?:ing)?>", re.IGNORECASE)
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL | re.IGNORECASE)
_FENCE = re.compile(r"```[a-zA-Z0-9_-]*\s*\n?(.*?)```", re.DOTALL)
_BULLET = re.compile(r"^\s*(?:[-*•·]|\d{1,2}[.)、])\s*(.+?)\s*$", re.MULTILINE)
_TOKENS = re.compile(r"[⺀-鿿豈-﫿]|[^\W_]+")
_QUOTED = re.compile(r'"[^"]*"|“[^”]*”|「[^」]*」|『[^』]*』|«[^»]*»')
_NUMBER = re.compile(r"[-+−]?\d+(?:\.\d+)?")
_LEAD = re.compile(r"^(?:input|output|translation|输入|输出|翻译|译文)\s*[:：]\s*", re.IGNORECASE)
_NOTHING: Final = frozenset({"none", "nothing", "null", "unknown", "n/a", "no", "无", "没有"})
_REFUSAL = re.compile(
    r"^\W*(?:i(?:['’]m| am) (?:so |very |really )?sorry|sorry,? (?:but|i)|i apologi[sz]e|as an ai\b"
    r"|i (?:can(?:no|['’])t|am (?:not able|unable) to|will not|won['’]t)\s+(?:\w+\s+)?"
    r"(?:help|assist|comply|provide|analy[sz]e|identify|determine|fulfil|do|answer|describe|infer)"
    r"|抱歉|对不起|很遗憾|我(?:无法|不能)(?:帮助|协助|提供|分析|回答|满足|识别|判断)"
    r"|作为(?:一个)?(?:ai|人工智能))",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What one answer says."""

    rung: str
    text: str
    """In words, for a later prompt."""
    explanation: Explanation | None = None
    labels: tuple[Label, ...] = ()
    value: str | float | tuple[str, ...] | None = None
    """Of a projection: the word, the ranking, the number, the sentiment."""


def read(answer: Answer, form: AnswerForm, choices: Sequence[str] = ()) -> Reading:
    """Read an answer as its step asked for it; raises ClipError with the kind of what it is not."""
    raw = answer.raw.strip()
    if answer.finish in ("refusal", "content_filter"):
        raise _failed("refused", answer, f"finished with {answer.finish}")
    if not raw:
        raise _failed("no_answer", answer, f"the answer is empty (finish {answer.finish})")
    rungs, body = unwrapped(raw)
    if not body:
        cut = answer.finish == "length"
        raise _failed("cut_off" if cut else "no_answer", answer, "it holds thinking and no answer")
    if form in PROSE:
        return _prose(answer, "+".join([*rungs, "prose"]), _cleaned(body))
    keys = _KEYS[form]
    for rung, found in _values(body):
        if isinstance(found, list) and form in ("labels", "ranking"):
            found = {keys[0]: found}
        if isinstance(found, dict) and keys[-1] in found:
            return _structured(answer, form, choices, found, "+".join([*rungs, rung]))
    if form == "labels" and (words := _listed_words(body)) is not None and answer.finish == "stop":
        if looping(body):
            raise _failed("repetitive", answer, "the list goes round in circles")
        labels = tuple(Label(label=word) for word in words)
        return Reading(rung="+".join([*rungs, "list"]), text=", ".join(words), labels=labels)
    raise _failed(_what(body, answer.finish), answer, f"no {form} in {_start(raw)}")


_KEYS: Final[Mapping[AnswerForm, tuple[str, ...]]] = {
    "explanation": ("labels",),
    "labels": ("labels",),
    "one_hot": ("label",),
    "ranking": ("ranking",),
    "valence": ("valence",),
    "sentiment": ("sentiment",),
}


def explanation(answer: Answer) -> Explanation:
    """Read a whole explanation out of one answer."""
    found = read(answer, "explanation").explanation
    assert found is not None
    return found


def _failed(kind: FailureKind, answer: Answer, reason: str) -> ClipError:
    return ClipError(kind, f"step {answer.step}: {reason}")


def _what(body: str, finish: str) -> FailureKind:
    """Name what an answer is instead of what was asked."""
    if looping(body) or _dull(body):
        return "repetitive"
    if finish == "length":
        return "cut_off"
    return "refused" if _REFUSAL.match(body) else "unparsable"


def _start(raw: str) -> str:
    shown = raw[:80].replace("\n", " ")
    return f"{shown!r}{'…' if len(raw) > 80 else ''}"


def unwrapped(raw: str) -> tuple[list[str], str]:
    """Cut thinking away and take the inside of <answer>; says which it did."""
    rungs = []
    body = _THINK.sub("", raw)
    # thinking may never end, and a template may have opened it in the prompt
    body = _THINKING.split(body)[0]
    body = _THOUGHT_END.sub("", body)
    if body != raw:
        rungs.append("think")
    if inside := _ANSWER.findall(body):
        rungs.append("answer")
        body = inside[-1]
    return rungs, body.strip()


def _values(body: str) -> Iterator[tuple[str, Any]]:
    """Yield what the body may hold, the surest reading first."""
    fenced = [text.strip() for text in reversed(_FENCE.findall(body))]
    inside = list(reversed(list(_objects(body))))
    for rung, texts in (("json", [body]), ("fenced", fenced), ("object", inside)):
        for text in texts:
            try:
                yield rung, json.loads(text)
            except json.JSONDecodeError:
                continue
    braced = re.search(r"\{.*\}|\[.*\]", body, re.DOTALL)
    for text in (*fenced, *([braced[0]] if braced else [])):
        mended = _mended(text)
        if mended is not None:
            yield "repaired", mended


def _objects(body: str) -> Iterator[str]:
    decoder = json.JSONDecoder()
    at = body.find("{")
    while at >= 0:
        try:
            _, end = decoder.raw_decode(body, at)
        except json.JSONDecodeError:
            end = at + 1
        else:
            yield body[at:end]
        at = body.find("{", end)


def _mended(text: str) -> Any:
    """Mend what models get wrong in JSON; None where that does not help."""
    plain = text.replace("“", '"').replace("”", '"')
    plain = re.sub(r"(?m)^\s*//.*$", "", plain)
    plain = re.sub(r",\s*(?=[}\]])", "", plain)
    for attempt in (plain, re.sub(r"(?<=[{,])\s*([A-Za-z_]\w*)\s*:", r'"\1":', plain)):
        try:
            return json.loads(attempt, strict=False)
        except json.JSONDecodeError:
            continue
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return None


def _cleaned(body: str) -> str:
    fenced = _FENCE.fullmatch(body)
    text = fenced[1].strip() if fenced else body
    text = _LEAD.sub("", text)
    return re.sub(r"\s*\n\s*", " ", text).strip()


def _prose(answer: Answer, rung: str, text: str) -> Reading:
    own = _with_short_quotes(text)
    if looping(own) or _dull(own):
        raise _failed("repetitive", answer, f"the text goes round in circles: {_start(text)}")
    if answer.finish == "length":
        raise _failed("cut_off", answer, f"the text ends at max_tokens: …{text[-60:]!r}")
    if len(text) < 400 and _REFUSAL.match(text):
        raise _failed("refused", answer, f"it says {_start(text)}")
    if not _TOKENS.search(text):
        raise _failed("unparsable", answer, f"no words in {_start(text)}")
    return Reading(rung=rung, text=text)


def _structured(
    answer: Answer,
    form: AnswerForm,
    choices: Sequence[str],
    found: Mapping[str, Any],
    rung: str,
) -> Reading:
    try:
        match form:
            case "explanation":
                said = _explanation(found, rung)
                text = gist(said)
                if looping(_with_short_quotes(text)) or _hammered(found["labels"]):
                    raise _failed("repetitive", answer, "the answer goes round in circles")
                return Reading(rung=rung, text=text, explanation=said, labels=said.labels)
            case "labels":
                if _hammered(found["labels"]):
                    raise _failed("repetitive", answer, "the labels go round in circles")
                labels = _labels(found["labels"])
                words = ", ".join(label.label for label in labels)
                return Reading(rung=rung, text=words, labels=labels)
            case "one_hot":
                word = _choice(found["label"], choices)
                return Reading(rung=rung, text=word, value=word)
            case "ranking":
                ranked = _ranking(found["ranking"], choices)
                return Reading(rung=rung, text=", ".join(ranked), value=ranked)
            case "valence":
                number = valence(found["valence"])
                return Reading(rung=rung, text=f"{number:g}", value=number)
            case "sentiment":
                kind = _choice(found["sentiment"], SENTIMENTS)
                return Reading(rung=rung, text=kind, value=kind)
            case _:
                raise AssertionError(form)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        kind = _what("", answer.finish)
        raise _failed(kind, answer, f"{type(error).__name__}: {error}") from None


def _explanation(found: Mapping[str, Any], rung: str) -> Explanation:
    return Explanation(
        visual_clues=_clues(found.get("visual_clues")),
        acoustic_clues=_clues(found.get("acoustic_clues")),
        lexical_clues=_clues(found.get("lexical_clues")),
        explanation=_sentence(found.get("explanation")),
        labels=_labels(found["labels"]),
        confidence=_number(found.get("confidence")),
        parse_rung=rung,
    )


def _sentence(found: Any) -> str:
    if found is not None and not isinstance(found, str):
        raise ValueError(f"the explanation is no text but {found!r}")
    return (found or "").strip()


def gist(said: Explanation) -> str:
    """Say an explanation in words: its clues in order, then why."""
    clues = (*said.visual_clues, *said.acoustic_clues, *said.lexical_clues)
    return " ".join(text for text in (*(clue.text for clue in clues), said.explanation) if text)


def _clues(found: Any) -> tuple[Clue, ...]:
    clues = (_clue(item) for item in _listed(found))
    return tuple(clue for clue in clues if clue.text)


def _clue(found: Any) -> Clue:
    if isinstance(found, str):
        return Clue(text=found.strip())
    evidence = tuple(Measure(**measure) for measure in _listed(found.get("evidence")))
    return Clue(text=str(found["text"]).strip(), evidence=evidence)


def _labels(found: Any) -> tuple[Label, ...]:
    """Read labels; a string is a cell as tables hold them."""
    labels: dict[str, Label] = {}
    for item in cell(found, "robust") if isinstance(found, str) else _listed(found):
        if isinstance(item, str):
            word, support = item.strip().lower(), None
        elif isinstance(item, Mapping):
            word, support = str(item["label"]).strip().lower(), _number(item.get("support"))
        else:
            raise ValueError(f"a label is no word but {item!r}")
        if word:
            labels.setdefault(word, Label(label=word, support=support))
    return tuple(labels.values())


def _listed(found: Any) -> list[Any]:
    if found is None or found == "":
        return []
    return found if isinstance(found, list) else [found]


def _number(found: Any) -> float | None:
    return None if found is None else float(found)


def _listed_words(body: str) -> list[str] | None:
    """Read labels that are no JSON: a bracketed list, bullets, or one line of words.

    None where the text reads like a sentence: a word inside prose is no label.
    """
    text = _LEAD.sub("", re.sub(r"^(?:labels|emotions|情绪|标签)\s*[:：]\s*", "", body, flags=re.I))
    if text.startswith("[") and text.endswith("]"):
        words = cell(text, "robust")
    elif (bullets := _BULLET.findall(text)) and len(bullets) == len(text.splitlines()):
        words = bullets
    elif "\n" not in text and not _REFUSAL.match(text):
        words = cell(text.rstrip(".。"), "robust")
        if any(len(word.split()) > min(2, len(words)) for word in words):
            return None  # "He is sad" is a sentence; "very sad, tired" is a list
        if words and words[0].lower() in _NOTHING:
            return None
    else:
        return None
    words = list(dict.fromkeys(word.strip("\"'*.。 ").lower() for word in words))
    fits = all(word and _fits(word) for word in words)
    return words if fits else None


def _fits(word: str) -> bool:
    wide = sum(ord(letter) >= 0x2E80 for letter in word)
    return (
        len(word.split()) <= MOST_WORDS and wide <= 6 and not re.search(r"[.!?:。！？：{}]", word)
    )


def _choice(found: Any, choices: Sequence[str]) -> str:
    word = str(found).strip().strip("\"'").split(".")[0].strip().lower()
    if not choices:
        return word
    fitting = [choice for choice in choices if choice.lower() == word]
    if not fitting:
        raise ValueError(f"{found!r} is none of {', '.join(choices)}")
    return fitting[0]


def _ranking(found: Any, choices: Sequence[str]) -> tuple[str, ...]:
    """Candidates in order of first appearance, then those left out in their own order (science
    §c.5).
    """
    named = [str(word).strip().lower() for word in _listed(found)]
    by_word = {choice.lower(): choice for choice in choices}
    ranked = list(dict.fromkeys(by_word[word] for word in named if word in by_word))
    if not ranked:
        raise ValueError(f"{found!r} names none of {', '.join(choices)}")
    return (*ranked, *(choice for choice in choices if choice not in ranked))


def valence(found: Any) -> float:
    """Read the first number, clipped to -5..5; raises ValueError where there is none."""
    match = _NUMBER.search(str(found).replace("−", "-"))
    if match is None or isinstance(found, bool):
        raise ValueError(f"{found!r} holds no number")
    return min(5.0, max(-5.0, float(match[0])))


def _hammered(found: Any) -> bool:
    """Tell a list that says the same words again and again."""
    words = [str(item).lower() for item in _listed(found)] if isinstance(found, list) else []
    return len(words) >= LOOP_TOKENS and len(set(words)) * LOOP_REPEATS <= len(words)


def looping(text: str) -> bool:
    """Tell a text in which a unit of words is said over and over without a break."""
    tokens = _TOKENS.findall(text.lower())
    if len(tokens) < LOOP_TOKENS:
        return False
    codes = {word: code for code, word in enumerate(dict.fromkeys(tokens))}
    ids = np.array([codes[word] for word in tokens])
    for period in range(1, min(LOOP_PERIOD, len(ids) // 2) + 1):
        breaks = np.flatnonzero(ids[period:] != ids[:-period])
        edges = np.concatenate([[-1], breaks, [len(ids) - period]])
        longest = int(np.max(np.diff(edges))) - 1 + period
        if longest >= max(LOOP_TOKENS, LOOP_REPEATS * period):
            return True
    return False


def _with_short_quotes(text: str) -> str:
    """Leave of each quotation its first words."""
    return _QUOTED.sub(lambda found: " ".join(_TOKENS.findall(found[0])[:QUOTED_TOKENS]), text)


def _dull(text: str) -> bool:
    data = text.encode()
    return len(data) >= DULL_BYTES and len(data) > DULL * len(zlib.compress(data, 9))


Family = Callable[[str], str | None]
"""A label's family, for the support of samples; null = the label is its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """What the samples of one step say together."""

    kept: Reading
    """The reading of the medoid answer: the one least far from all others."""
    sample: int
    labels: tuple[Label, ...]
    """With one sample as the answer gave them; else all that were named, with their support."""
    readable: int
    samples: int

    @property
    def note(self) -> str | None:
        """How the answer was chosen, where there was a choice."""
        if self.samples == 1:
            return None
        return f"sample {self.sample}, the medoid of {self.readable} readable answers"


def draw(
    answers: Sequence[Answer],
    form: AnswerForm,
    choices: Sequence[str] = (),
    family: Family = lambda _: None,
) -> Drawn:
    """Read a step's samples together.

    Support of a label = share of the readable answers that name it or a word of its family. An
    unreadable sample says nothing; where none is readable, the first one's error is the step's.
    """
    readings: list[tuple[int, Reading]] = []
    errors: list[ClipError] = []
    for answer in answers:
        try:
            readings.append((answer.sample, read(answer, form, choices)))
        except ClipError as error:
            errors.append(error)
    if not readings:
        raise errors[0]
    if len(answers) == 1:
        kept, labels = readings[0][1], readings[0][1].labels
        return Drawn(kept=kept, sample=readings[0][0], labels=labels, readable=1, samples=1)
    sample, kept = readings[medoid([reading for _, reading in readings])]
    return Drawn(
        kept=kept,
        sample=sample,
        labels=_supported([reading for _, reading in readings], family),
        readable=len(readings),
        samples=len(answers),
    )


def _supported(readings: Sequence[Reading], family: Family) -> tuple[Label, ...]:
    words = list(dict.fromkeys(label.label for reading in readings for label in reading.labels))
    kin = {word: family(word) or word for word in words}
    named = [{kin[label.label] for label in reading.labels} for reading in readings]
    share = {word: sum(kin[word] in kins for kins in named) / len(readings) for word in words}
    ordered = sorted(words, key=lambda word: -share[word])  # stable: first named first
    return tuple(Label(label=word, support=share[word]) for word in ordered)


def medoid(readings: Sequence[Reading]) -> int:
    """Find the reading least far from all others; of equals the first.

    Distance: 1 - Jaccard index, of the labels where both have some plus of the words.
    """
    words = [frozenset(_TOKENS.findall(reading.text.lower())) for reading in readings]
    labels = [frozenset(label.label for label in reading.labels) for reading in readings]
    values = [frozenset([str(reading.value)]) for reading in readings]

    def far(a: int, b: int) -> float:
        return sum(_apart(sets[a], sets[b]) for sets in (words, labels, values))

    count = range(len(readings))
    return min(count, key=lambda a: (round(sum(far(a, b) for b in count), 9), a))


def _apart(a: frozenset[str], b: frozenset[str]) -> float:
    return 1 - len(a & b) / len(a | b) if a | b else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the parser must know of a step."""

    step: str
    form: AnswerForm
    choices: tuple[str, ...] = ()


def compose(
    asked: Sequence[Asked], answers: Sequence[Answer], family: Family = lambda _: None
) -> tuple[Explanation, tuple[str, ...]]:
    """Fold the answers of a recipe into one explanation, a later step replacing an earlier one.

    Prose clues are one clue each. Where no step gives an account, the clues in their order are the
    explanation. A step that was not asked of this clip adds nothing. Returns notes as well.
    """
    said = Explanation()
    rungs: list[str] = []
    notes: list[str] = []
    for step in asked:
        mine = [answer for answer in answers if answer.step == step.step]
        if not mine or step.form not in FILLING:
            continue
        drawn = draw(mine, step.form, step.choices, family)
        rungs.append(drawn.kept.rung)
        if drawn.note:
            notes.append(f"step {step.step}: kept is {drawn.note}")
        said = _folded(said, step.form, drawn)
    if not said.explanation:
        said = replace(said, explanation=gist(said))
    rung = rungs[0] if len(set(rungs)) == 1 else ", ".join(rungs)
    return replace(said, parse_rung=rung), tuple(notes)


def _folded(said: Explanation, form: AnswerForm, drawn: Drawn) -> Explanation:
    clue = (Clue(text=drawn.kept.text),)
    match form:
        case "explanation":
            assert drawn.kept.explanation is not None
            return replace(drawn.kept.explanation, labels=drawn.labels)
        case "visual":
            return replace(said, visual_clues=clue)
        case "acoustic":
            return replace(said, acoustic_clues=clue)
        case "lexical":
            return replace(said, lexical_clues=clue)
        case "account":
            return replace(said, explanation=drawn.kept.text)
        case "labels":
            return replace(said, labels=drawn.labels)
        case _:
            return said
