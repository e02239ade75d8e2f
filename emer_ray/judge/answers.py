"""Answers of a judge by the content of their questions, kept in a folder; and what the rest costs.

A folder holds a subfolder per model with its settings, and in it small JSONL parts that are never
changed: `{key, question, said, tries: [{raw, finish, tokens_in, tokens_out, usd}]}`. A hash of its
content names a part, so that several drivers can fill one folder. Questions themselves are not
kept: they hold texts of clips.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from emer_ray import prompts, storage
from emer_ray.config import PriceConfig, digest
from emer_ray.errors import ConfigError
from emer_ray.judge.questions import Manner, Question

MOST_PARTS: Final = 64
"""More parts than this are merged into one when they are read."""

_USUAL: Final[Mapping[str, str]] = {
    "clue": "5. Both descriptions mention the frown and the raised voice; the tears are missing.",
    "label": "5. Both statements name anger, but the second one adds relief.",
    "state": "The person seems to feel disappointed and a little angry.",
    "set": "0.50",
    "sentence": "0.50",
    "preference": "a1",
}
"""What an answer may look like: for the length of answers that are not there yet."""


class Answers:
    """What one model answered; a question that it was not asked is noted as wanted."""

    def __init__(self, folder: str, model: Mapping[str, Any], manner: Manner) -> None:
        self.manner = manner
        self.folder = folder
        self.failed: dict[str, str] = {}
        """Questions that were asked in vain, with the kind of failure; not kept."""
        self._model = digest(dict(model))
        self._wanted: dict[str, Question] = {}
        self._known: dict[str, str] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_known": None, "_wanted": {}}  # read again where it arrives

    def key(self, question: Question) -> str:
        """Hash everything an answer depends on: the model with its settings, and the question."""
        text = f"{self._model}\0{question.system}\0{question.material}"
        return hashlib.sha256(text.encode()).hexdigest()

    def known(self, question: Question) -> str | None:
        """Look an answer up."""
        if self._known is None:
            self._known = self._read()
        return self._known.get(self.key(question))

    def said(self, question: Question) -> str | None:
        """Look an answer up, and note the question where there is none and asking may help."""
        found = self.known(question)
        if found is None and (key := self.key(question)) not in self.failed:
            self._wanted.setdefault(key, question)
        return found

    def take_wanted(self) -> dict[str, Question]:
        """Hand over the questions noted since the last call, by key."""
        wanted, self._wanted = self._wanted, {}
        return wanted

    def keep(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Store answers as one part."""
        if rows:
            write_part(self.own_folder, rows)
            assert self._known is not None
            self._known |= {row["key"]: row["said"] for row in rows}

    @property
    def own_folder(self) -> str:
        """The folder of this model with its settings."""
        return storage.join(self.folder, self._model[:16])

    def _read(self) -> dict[str, str]:
        parts = [e.uri for e in storage.listing(self.own_folder) if e.uri.endswith(".jsonl")]
        rows: dict[str, dict[str, Any]] = {}
        for part in parts:
            try:
                # Lines of bytes: those of a string also end at U+2028, which JSON may hold.
                for line in storage.read(part).splitlines():
                    row = json.loads(line)
                    rows[row["key"]] = row
            except (ValueError, KeyError) as error:
                raise ConfigError(
                    f"{part}: not a part of a judge's answers ({error}); delete it, and what it "
                    f"held is asked again"
                ) from None
        if len(parts) > MOST_PARTS:
            merged = write_part(self.own_folder, [rows[key] for key in sorted(rows)])
            for part in parts:
                if part != merged:
                    storage.delete(part)
        return {key: row["said"] for key, row in rows.items()}


def write_part(folder: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Store answers under a name made of their content."""
    data = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    uri = storage.join(folder, f"{hashlib.sha256(data).hexdigest()[:16]}.jsonl")
    storage.write(uri, data)
    return uri


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What it takes to ask what is not known yet. Second tries are not in it."""

    questions: int
    known: int
    """Questions with an answer already."""
    tokens_in: int
    tokens_out: int
    """Of answers of usual length; a model that thinks aloud writes many times more."""
    usd: float | None
    """Null without a price table."""
    usd_most: float | None
    """Where every answer is as long as `max_tokens` allows."""


class Rehearsal:
    """Takes questions as `Answers` does and makes answers up, to count what asking would cost."""

    def __init__(self, answers: Answers) -> None:
        self.manner = answers.manner
        self._answers = answers
        self._new: dict[str, tuple[int, int]] = {}
        self._known: set[str] = set()

    def said(self, question: Question) -> str | None:
        """Give the known answer, else one of usual length."""
        key = self._answers.key(question)
        found = self._answers.known(question)
        if found is not None:
            self._known.add(key)
            return found
        if question.kind == "groups":
            usual = json.dumps([question.data["words"].split(", ")])
        elif question.kind == "state":  # different, so that what follows is not one question
            usual = f"{_USUAL['state']} {key[:8]}"
        else:
            usual = _USUAL[question.kind]
        if key not in self._new:
            asked = prompts.estimate_tokens(question.system + question.material)
            self._new[key] = (asked, prompts.estimate_tokens(usual))
        return usual

    def estimate(self, price: PriceConfig | None, max_tokens: int) -> Estimate:
        """Add up what was asked."""
        n = len(self._new)
        tokens_in = sum(asked for asked, _ in self._new.values())
        tokens_out = sum(said for _, said in self._new.values())

        def usd(out: int) -> float | None:
            if price is None:
                return None
            tokens = tokens_in * price.input_usd + out * price.output_usd
            return tokens / 1e6 + n * price.request_usd

        return Estimate(
            questions=n,
            known=len(self._known),
            tokens_in=tokens_in,
            tokens_out=tokens_out,
            usd=usd(tokens_out),
            usd_most=usd(n * max_tokens),
        )
