"""Overlap of two texts: corpus BLEU, ROUGE-L and METEOR, with nltk and rapidfuzz and no network.

Papers of the field report these and note that they follow the emotion only loosely. Tokens of
English are lower-case runs of letters and digits with an inner apostrophe; ROUGE-L splits at
anything else, as its reference code does. Chinese is split into characters. An empty hypothesis
scores 0; a clip without a reference text is not scored.
"""

import re
from collections.abc import Sequence
from functools import cache
from typing import Any, Final, Literal

import numpy as np
from nltk.stem import PorterStemmer
from nltk.translate.bleu_score import brevity_penalty, modified_precision
from nltk.translate.meteor_score import meteor_score
from rapidfuzz.distance import LCSseq

from emer_ray.metrics.stats import Family, Floats, Sums, Value, mean_sums, means, ratio
from emer_ray.metrics.wordnet import Synonyms, WordNet

Language = Literal["en", "zh"]

_WORDS: Final = re.compile(r"[a-z0-9]+(?:'[a-z]+)?")
_ROUGE_WORDS: Final = re.compile(r"[a-z0-9]+")
_CHARACTERS: Final = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]|[a-z0-9]+(?:'[a-z]+)?")
_ORDERS: Final = (1, 2, 3, 4)
ROUGE_BETA: Final = 1.2
"""Weight of recall in the captioning form of ROUGE-L."""


def tokens(text: str, language: Language) -> list[str]:
    """Tokens of BLEU and METEOR."""
    return (_WORDS if language == "en" else _CHARACTERS).findall(text.lower())


def scores(
    gold: Sequence[str | None],
    pred: Sequence[str | None],
    language: Language,
    wordnet: str | None = None,
) -> dict[str, Floats]:
    """Per-clip columns of every text metric; NaN where the reference has no text.

    `wordnet` is a folder with WordNet's `data.*` and `index.*`: with it METEOR is also given with
    its synonym stage.
    """
    synonyms = _synonyms(wordnet) if wordnet else None
    names = [f"bleu.{part}{n}" for part in ("match", "total", "short") for n in _ORDERS]
    names += ["bleu.hyp", "bleu.ref", "rouge_l", "rouge_l_beta", "meteor"]
    names += ["meteor_wordnet"] if synonyms else []
    columns: dict[str, list[float]] = {name: [] for name in names}
    for reference, hypothesis in zip(gold, pred, strict=True):
        row = _score(reference, hypothesis or "", language, synonyms) if reference else {}
        for name in names:
            columns[name].append(row.get(name, np.nan))
    return {name: np.array(values, dtype=np.float64) for name, values in columns.items()}


def families(language: Language, *, wordnet: bool = False) -> list[Family]:
    """Corpus BLEU, and means of ROUGE-L and METEOR over clips."""
    split = "words" if language == "en" else "characters"
    plain = ["rouge_l", "rouge_l_beta", "meteor", *(["meteor_wordnet"] if wordnet else [])]
    bleu = [f"bleu.{part}{n}" for part in ("match", "total", "short") for n in _ORDERS]
    sums = mean_sums([*bleu, "bleu.hyp", "bleu.ref"])
    version = f"{language} {split}"
    return [Family(version=version, sums=sums, finish=_finish_bleu), means(plain, version)]


def _finish_bleu(s: Sums) -> dict[str, Value]:
    """Counts summed over clips, one brevity penalty.

    nltk counts one n-gram for a hypothesis too short to have any, which lowers the score; `_strict`
    does not.
    """
    n = s["bleu.ref#"]
    penalty = np.array(
        [
            brevity_penalty(ref, hyp)
            for ref, hyp in zip(s["bleu.ref"].ravel(), s["bleu.hyp"].ravel(), strict=True)
        ]
    ).reshape(n.shape)
    values: dict[str, Value] = {}
    for suffix, short in (("", 1), ("_strict", 0)):
        shares = [
            ratio(
                s[f"bleu.match{k}"],
                s[f"bleu.total{k}"] + short * s[f"bleu.short{k}"],
                undefined=0.0,
            )
            for k in _ORDERS
        ]
        for order in (1, 4):
            mean = np.prod(shares[:order], axis=0) ** (1 / order) * penalty
            values[f"bleu{order}{suffix}"] = (np.where(n > 0, mean, np.nan), n)
    return values


def _score(reference: str, hypothesis: str, language: Language, synonyms: Any) -> dict[str, float]:
    ref, hyp = tokens(reference, language), tokens(hypothesis, language)
    row: dict[str, float] = {"bleu.hyp": len(hyp), "bleu.ref": len(ref)}
    for n in _ORDERS:
        short = len(hyp) < n
        share = modified_precision([ref], hyp, n)
        row |= {
            f"bleu.match{n}": 0 if short else share.numerator,
            f"bleu.total{n}": 0 if short else share.denominator,
            f"bleu.short{n}": float(short),
        }
    row["rouge_l"] = _rouge_l(*_rouge_tokens(reference, hypothesis, language), beta=1.0)
    row["rouge_l_beta"] = _rouge_l(ref, hyp, beta=ROUGE_BETA)
    row["meteor"] = _meteor(ref, hyp, _NoSynonyms())
    if synonyms:
        row["meteor_wordnet"] = _meteor(ref, hyp, synonyms)
    return row


def _rouge_tokens(
    reference: str, hypothesis: str, language: Language
) -> tuple[list[str], list[str]]:
    if language == "zh":
        return tokens(reference, language), tokens(hypothesis, language)
    return _ROUGE_WORDS.findall(reference.lower()), _ROUGE_WORDS.findall(hypothesis.lower())


def _rouge_l(ref: list[str], hyp: list[str], *, beta: float) -> float:
    if not ref or not hyp:
        return 0.0
    common = LCSseq.similarity(ref, hyp)
    p, r = common / len(hyp), common / len(ref)
    return (1 + beta**2) * p * r / (r + beta**2 * p) if common else 0.0


def _meteor(ref: list[str], hyp: list[str], synonyms: Any) -> float:
    """alpha 0.9, beta 3, gamma 0.5, Porter stems."""
    if not ref or not hyp:
        return 0.0
    return float(meteor_score([ref], hyp, stemmer=_Stems(), wordnet=synonyms))


class _NoSynonyms:
    """Stands where METEOR expects WordNet, for the form without a synonym stage."""

    def synsets(self, _word: str) -> list[Any]:
        return []


@cache
def _stem(word: str) -> str:
    return str(PorterStemmer().stem(word))


class _Stems:
    """Porter's stemmer, each word once."""

    def stem(self, word: str) -> str:
        return _stem(word)


@cache
def _synonyms(folder: str) -> Synonyms:
    return Synonyms(WordNet(folder))
