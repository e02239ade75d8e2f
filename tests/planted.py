"""Corpora with planted label errors and evidence of known quality, for tests of the audit.

Every generator flips a tenth of the old labels at known clips. What differs is how the evidence
errs, whether it says how sure it is, and where the flips go.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Evidence = Literal["clean", "uniform", "rows", "partner", "chance"]
Support = Literal["none", "informative", "empty", "several"]
Flips = Literal["uniform", "pair", "uneven"]

WORDS = ("happy", "angry", "sad", "worried", "surprise", "neutral", "disgust", "contempt")
SYNONYMS = {
    "happy": ("joyful", "cheerful", "delighted"),
    "angry": ("furious", "angry", "irritated"),
    "sad": ("sorrowful", "sad", "depressed"),
    "worried": ("anxious", "nervous", "worried"),
    "surprise": ("astonished", "amazed", "surprised"),
    "neutral": ("neutral",),
    "disgust": ("disgusted",),
    "contempt": ("contemptuous",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Planted:
    """A corpus whose truth is known."""

    old: npt.NDArray[np.int64]
    """[clips] the old label's number."""
    strength: npt.NDArray[np.float64]
    """[clips, classes] what the evidence supports."""
    wrong: npt.NDArray[np.bool_]
    guess: npt.NDArray[np.int64]
    """The best supported class, for plain disagreement."""

    def clip_ids(self) -> list[str]:
        return [f"clip-{number:05d}" for number in range(len(self.old))]

    def labels(self, seed: int = 0) -> list[list[tuple[str, float | None]]]:
        """The evidence as open-vocabulary labels; support is left out where all of it is 1."""
        rng = np.random.default_rng(seed)
        plain = set(np.unique(self.strength)) <= {0.0, 1.0}
        return [
            [
                (str(rng.choice(SYNONYMS[WORDS[k]])), None if plain else float(row[k]))
                for k in np.argsort(-row, kind="stable")
                if row[k] > 0
            ]
            for row in self.strength
        ]

    def old_words(self) -> list[str]:
        return [WORDS[number] for number in self.old]


def corpus(
    seed: int,
    *,
    clips: int = 2000,
    classes: int = 6,
    evidence: Evidence = "rows",
    support: Support = "none",
    flips: Flips = "uniform",
    accuracy: float = 0.7,
    even: bool = True,
) -> Planted:
    """Draw a corpus; `accuracy` is of the evidence, over all clips, unless it is clean or at
    chance.
    """
    rng = np.random.default_rng(seed)
    each = np.full(classes, 1 / classes)
    frequency = each if even else 0.9 * rng.dirichlet(3 * np.ones(classes)) + 0.1 * each
    truth = rng.choice(classes, size=clips, p=frequency)
    old = truth.copy()
    flipped = rng.permutation(clips)[: clips // 10]
    targets = _targets(rng, classes, flips)
    old[flipped] = [rng.choice(classes, p=targets[label]) for label in truth[flipped]]
    confusion = _confusion(rng, classes, evidence, accuracy, frequency)
    guess = np.array([rng.choice(classes, p=confusion[label]) for label in truth])
    return Planted(
        old=old,
        strength=_strength(rng, truth, guess, classes, support),
        wrong=old != truth,
        guess=guess,
    )


def _targets(rng: Any, classes: int, flips: Flips) -> npt.NDArray[np.float64]:
    match flips:
        case "uniform":
            weight = np.ones((classes, classes))
        case "pair":
            weight = np.roll(np.eye(classes), 1, axis=1)
        case "uneven":
            weight = rng.dirichlet(0.5 * np.ones(classes), size=classes) + 1e-6
    np.fill_diagonal(weight, 0)
    return weight / weight.sum(axis=1, keepdims=True)


def _confusion(
    rng: Any, classes: int, evidence: Evidence, accuracy: float, frequency: Any
) -> npt.NDArray[np.float64]:
    if evidence == "clean":
        return np.eye(classes)
    if evidence == "chance":
        return np.tile(rng.dirichlet(2 * np.ones(classes)), (classes, 1))
    right = accuracy + rng.uniform(-0.2, 0.2, classes)
    right = np.clip(right + accuracy - (right * frequency).sum(), 0.02, 1)
    found = np.zeros((classes, classes))
    for label in range(classes):
        match evidence:
            case "uniform":
                off = np.ones(classes)
            case "rows":
                off = rng.dirichlet(0.7 * np.ones(classes)) + 1e-3
            case "partner":
                off = np.full(classes, 0.3 / (classes - 2))
                off[(label + 1) % classes] = 0.7
        off[label] = 0
        found[label] = off / off.sum() * (1 - right[label])
        found[label, label] = right[label]
    return found


def _strength(
    rng: Any, truth: Any, guess: Any, classes: int, support: Support
) -> npt.NDArray[np.float64]:
    n, at = len(truth), np.arange(len(truth))
    right = truth == guess
    strength = np.zeros((n, classes))
    match support:
        case "none":
            strength[at, guess] = 1
        case "empty":  # says something of its certainty that means nothing
            strength[at, guess] = rng.beta(4, 3, n)
        case "informative" | "several":
            sure = np.where(right, rng.beta(6, 2, n), rng.beta(3, 3, n))
            strength[at, guess] = sure
            if support == "several":
                hidden = ~right & (rng.random(n) < 0.5)
                second = np.where(hidden, truth, rng.integers(0, classes, n))
                free = second != guess
                strength[at[free], second[free]] = (sure * rng.uniform(0.2, 0.95, n))[free]
    return strength


def average_precision(score: Any, wrong: Any) -> float:
    """Precision averaged over recall; equal scores count as one step, as in scikit-learn."""
    order = np.argsort(-score, kind="stable")
    ranked, hits = np.asarray(score)[order], np.asarray(wrong)[order].astype(float)
    last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
    found = np.cumsum(hits)[last]
    recall = np.append(0.0, found / hits.sum())
    return float((np.diff(recall) * found / (last + 1)).sum())
