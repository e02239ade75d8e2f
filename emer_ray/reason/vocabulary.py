"""The emotion words of the embedded reasoner, and how near a text lies to each of them.

Nearness is the cosine of sentence embeddings (MiniLM, int8, English). On clue sentences written by
people it finds the right group of words for four clips of five; on a subtitle alone it is at
chance, so a subtitle may only reorder words that face or voice support.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import onnxruntime
from tokenizers import Tokenizer

Values = npt.NDArray[np.float64]

GROUPS: Final[Mapping[str, tuple[str, ...]]] = {
    "happy": (
        *("happy", "joyful", "excited", "grateful", "amused", "proud", "content", "cheerful"),
        *("affectionate", "relieved", "hopeful", "delighted", "pleased", "satisfied"),
    ),
    "sad": (
        *("sad", "sorrowful", "disappointed", "hurt", "lonely", "regretful", "aggrieved"),
        *("guilty", "dejected", "grieving"),
    ),
    "angry": (
        *("angry", "furious", "annoyed", "irritated", "resentful", "dissatisfied", "accusing"),
        *("impatient", "contemptuous", "indignant", "frustrated"),
    ),
    "fearful": (
        *("worried", "anxious", "nervous", "afraid", "helpless", "hesitant", "uneasy"),
        *("tense", "frightened"),
    ),
    "disgusted": ("disgusted", "disapproving", "repulsed"),
    "surprised": (
        *("surprised", "shocked", "astonished", "curious", "incredulous", "puzzled"),
        *("amazed", "startled"),
    ),
}
"""Words by the expression class that must support them. No neutral words: a neutral clip has no
labels."""

WORDS: Final = tuple(word for words in GROUPS.values() for word in words)
GROUP_OF: Final = {word: group for group, words in GROUPS.items() for word in words}
PLAIN: Final = ("The person is in a video.", "The voice is even.", "The face is visible.")
"""What lies near these lies near everything."""
MOST_TOKENS: Final = 256
GROUP_WEIGHT: Final = 3.0
MOST_WORDS: Final = 4
LEAST_SHARE: Final = 0.45
"""A word this far behind the best one is left out."""


class Vocabulary:
    """A loaded sentence encoder and the embedded words; not thread-safe."""

    def __init__(self, model: Path, tokenizer: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # one thread an actor
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        providers = ["CPUExecutionProvider"]
        self._session = onnxruntime.InferenceSession(str(model), options, providers=providers)
        self._tokenizer = Tokenizer.from_file(str(tokenizer))
        self._tokenizer.no_padding()
        self._words = np.stack([self._embed(f"The person feels {word}.") for word in WORDS])
        self._plain = np.mean([self._words @ self._embed(text) for text in PLAIN], axis=0)

    def similarity(self, text: str) -> Values:
        """Return the cosine of a text with each of `WORDS`."""
        return np.asarray(self._words @ self._embed(text), np.float64)

    def preference(self, text: str) -> Values:
        """Return how much nearer a text is to each of `WORDS` than a plain one, standardised."""
        nearer = self.similarity(text) - self._plain
        return np.asarray((nearer - nearer.mean()) / (nearer.std() + 1e-9), np.float64)

    def _embed(self, text: str) -> Values:
        # one text at a time: int8 activations are scaled by the whole batch, so neighbours count
        ids = np.array([self._tokenizer.encode(text).ids[:MOST_TOKENS]], np.int64)
        inputs = {
            "input_ids": ids,
            "attention_mask": np.ones_like(ids),
            "token_type_ids": np.zeros_like(ids),
        }
        mean = self._session.run(None, inputs)[0][0].astype(np.float64).mean(axis=0)
        return np.asarray(mean / np.linalg.norm(mean), np.float64)


def choose(
    evidence: Mapping[str, float], preferences: Sequence[tuple[float, Values]], least: float
) -> list[tuple[str, float]]:
    """Choose one to four words of the groups with enough evidence, best first, with their support.

    `evidence` maps a group to 0..1; `preferences` are weighted, standardised word scores. A group
    below `least` gives no word, whatever the preferences say. The support of the best word is the
    evidence of its group; the others have less as they lie behind it.
    """
    allowed = [word for word in WORDS if evidence.get(GROUP_OF[word], 0.0) >= least]
    if not allowed:
        return []
    scores = {word: GROUP_WEIGHT * evidence[GROUP_OF[word]] for word in allowed}
    for weight, preference in preferences:
        for word in allowed:
            scores[word] += weight * float(preference[WORDS.index(word)])
    best = max(scores.values())
    ranked = sorted(allowed, key=lambda word: -scores[word])
    shares = [(word, float(np.exp(scores[word] - best))) for word in ranked]
    return [
        (word, evidence[GROUP_OF[word]] * share)
        for word, share in shares[:MOST_WORDS]
        if share >= LEAST_SHARE
    ]
