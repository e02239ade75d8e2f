"""Set scores: how far the predicted labels of a clip and its reference labels are the same set.

Three ways to the same three numbers per clip, from which precision and recall follow: bit masks of
one machine word where a mapping has up to 64 names, else columns of labels side by side, and sorted
(clip, label) pairs where a clip has more than 16 labels.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from emer_ray.errors import ConfigError
from emer_ray.metrics.labels import Codes, Images, Ints, Labels, lower, number
from emer_ray.metrics.stats import (
    Family,
    Floats,
    Sums,
    Value,
    harmonic,
    mean_sums,
    prf,
    ratio,
)

Groups = Mapping[str, Sequence[Sequence[str]]]
"""Groups of synonyms of each clip; the first word of a group stands for it."""

_MASK_BITS: Final = 64
_MOST_COLUMNS: Final = 16
_BRACKETS: Final = re.compile(r"[\[\]]")
_QUOTES: Final = re.compile(r"""['"]""")


@dataclass(frozen=True, slots=True)
class Overlap:
    """Sizes of the two sets of each clip and of their intersection; precision and recall follow."""

    n_gold: Ints
    n_pred: Ints
    n_both: Ints

    @property
    def precision(self) -> Floats:
        """NaN where the reference set is empty, 0 where only the predicted one is."""
        return self._share(self.n_pred)

    @property
    def recall(self) -> Floats:
        """NaN where the reference set is empty."""
        return self._share(self.n_gold)

    @property
    def jaccard(self) -> Floats:
        """Intersection over union; NaN where the reference set is empty."""
        return self._share(self.n_gold + self.n_pred - self.n_both)

    def _share(self, size: Ints) -> Floats:
        return np.where(self.n_gold > 0, self.n_both / np.maximum(size, 1), np.nan)


def overlap(gold: Labels, pred: Labels, images: Images) -> Overlap:
    """Compare the sets that labels become by a mapping of their words.

    `gold` and `pred` hold the same clips in the same order over the same words.
    """
    return overlaps(gold, pred, [images])[0]


def overlaps(gold: Labels, pred: Labels, mappings: Sequence[Images]) -> list[Overlap]:
    """`overlap` for several mappings at once; small ones share a machine word."""
    if len(gold) != len(pred) or gold.words is not pred.words:
        raise ValueError("overlap needs the same clips in the same order, over the same words")
    found: dict[int, Overlap] = {}
    for pack in _packs(mappings):
        bits = np.zeros(len(mappings[0].numbers), np.uint64)
        for place, shift in pack.items():
            table = mappings[place].numbers
            bits |= np.where(table < 0, 0, 1 << (table + shift).astype(np.uint64)).astype(np.uint64)
        g, p = _masks(gold, bits), _masks(pred, bits)
        for place, shift in pack.items():
            mine = np.uint64(((1 << len(mappings[place].names)) - 1) << shift)
            sizes = (np.bitwise_count(masks & mine).astype(np.int64) for masks in (g, p, g & p))
            found[place] = Overlap(*sizes)
    long = bool(len(gold)) and max(gold.sizes.max(), pred.sizes.max()) > _MOST_COLUMNS
    for place, images in enumerate(mappings):
        if place not in found and long:
            found[place] = _by_pairs(gold.recode(images), pred.recode(images))
        elif place not in found:
            found[place] = _by_columns(gold, pred, images.numbers)
    return [found[place] for place in range(len(mappings))]


def _packs(mappings: Sequence[Images]) -> list[dict[int, int]]:
    """Put mappings with few names side by side into words: place of a mapping to its first bit."""
    packs: list[dict[int, int]] = []
    free: list[int] = []
    for place, images in enumerate(mappings):
        width = len(images.names)
        if width > _MASK_BITS:
            continue
        word = next((number for number, left in enumerate(free) if left >= width), len(packs))
        if word == len(packs):
            packs.append({})
            free.append(_MASK_BITS)
        packs[word][place] = _MASK_BITS - free[word]
        free[word] -= width
    return packs


def _masks(labels: Labels, bits: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    masks = np.zeros(len(labels), np.uint64)
    filled = labels.sizes > 0
    if filled.any():
        starts = labels.offsets[:-1][filled]
        masks[filled] = np.bitwise_or.reduceat(bits[labels.codes], starts)
    return masks


def _by_columns(gold: Labels, pred: Labels, table: Codes) -> Overlap:
    """Short lists side by side: every label of a clip is compared with every other."""
    g, p = _columns(gold, table, absent=-1), _columns(pred, table, absent=-2)
    n_gold, n_pred, n_both = (np.zeros(len(gold), np.int64) for _ in range(3))
    for place, column in enumerate(p):
        n_pred += _first(column, p[:place])
    for place, column in enumerate(g):
        first = _first(column, g[:place])
        n_gold += first
        met = np.zeros(len(gold), np.bool_)
        for other in p:
            met |= column == other
        n_both += first & met
    return Overlap(n_gold, n_pred, n_both)


def _columns(labels: Labels, table: Codes, absent: int) -> list[Codes]:
    """The first label of each clip, the second, …; negative where there is none."""
    images = table[labels.codes]
    columns = []
    for place in range(int(labels.sizes.max(initial=0))):
        column = np.full(len(labels), absent, np.int32)
        there = labels.sizes > place
        found = images[labels.offsets[:-1][there] + place]
        column[there] = np.where(found < 0, absent, found)
        columns.append(column)
    return columns


def _first(column: Codes, earlier: Sequence[Codes]) -> npt.NDArray[np.bool_]:
    """Where a column holds a label that no earlier one of its clip does."""
    first = column >= 0
    for other in earlier:
        first &= column != other
    return first


def _by_pairs(gold: Labels, pred: Labels) -> Overlap:
    """Lists of any length: sorted (clip, label) pairs."""
    n, k = len(gold), max(len(gold.words), 1)
    g, p = _distinct(gold.clips() * k + gold.codes), _distinct(pred.clips() * k + pred.codes)
    both = np.sort(np.concatenate([g, p]))
    both = both[1:][both[1:] == both[:-1]]
    return Overlap(*(np.bincount(keys // k, minlength=n) for keys in (g, p, both)))


def _distinct(keys: Ints) -> Ints:
    keys = np.sort(keys)
    return keys[np.concatenate([[True], keys[1:] != keys[:-1]])] if len(keys) else keys


def grouped(
    gold: Sequence[Sequence[str]],
    pred: Sequence[Sequence[str]],
    groups: Sequence[Sequence[Sequence[str]]],
) -> Overlap:
    """MER2024 set level: labels of one group of synonyms count as one (science §c.2).

    `groups` belong to a clip. A group's first word stands for it, a later group overrides an
    earlier one; labels are lower-cased and not stripped, words of groups are used as written,
    unknown labels stand for themselves.
    """
    sizes = []
    for gold_labels, pred_labels, clip_groups in zip(gold, pred, groups, strict=True):
        heads = {word: group[0] for group in clip_groups for word in group}
        g = {heads.get(label.lower(), label.lower()) for label in gold_labels}
        p = {heads.get(label.lower(), label.lower()) for label in pred_labels}
        sizes.append((len(g), len(p), len(g & p)))
    columns = np.array(sizes, dtype=np.int64).reshape(-1, 3)
    return Overlap(columns[:, 0], columns[:, 1], columns[:, 2])


def read_groups(text: str | bytes) -> Groups:
    """Read a groups file: clip name to groups of synonyms, as lists or as an LLM's text."""
    try:
        found = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"--groups: not JSON ({error}); give {{name: [[word, …], …]}}") from None
    if not isinstance(found, dict):
        raise ConfigError("--groups: give one JSON object, {name: [[word, …], …]}")
    return {name: _groups(name, value) for name, value in found.items()}


def _groups(name: str, value: object) -> list[list[str]]:
    if isinstance(value, str):
        return groups_of(value)
    if not isinstance(value, list) or not all(isinstance(group, list) for group in value):
        raise ConfigError(f"--groups: {name!r} has {value!r}; give a list of lists, [[word, …], …]")
    return [[str(word) for word in group] for group in value]


def groups_of(text: str) -> list[list[str]]:
    """Read the groups in an answer like "[['joyful', 'happy'], ['sad']]"; words stay as written."""
    pieces = (piece for piece in _BRACKETS.split(text) if piece.strip() not in ("", ","))
    return [[w for w in _QUOTES.split(piece) if w.strip() not in ("", ",")] for piece in pieces]


def set_family(version: str, n_unparsable: str | None = None) -> Family:
    """MER2024 set level: accuracy (share of what was predicted), recall, their mean, F.

    `n_unparsable` is a column that marks clips whose groups a judge did not give.
    """

    def finish(s: Sums) -> dict[str, Value]:
        n = s["set.accuracy#"]
        accuracy, recall = ratio(s["set.accuracy"], n), ratio(s["set.recall"], n)
        return {
            "set.accuracy": (accuracy, n),
            "set.recall": (recall, n),
            "set.avg": ((accuracy + recall) / 2, n),
            "set.f": (harmonic(accuracy, recall), n),
        }

    sums = mean_sums(["set.accuracy", "set.recall"])
    if n_unparsable is not None:
        sums[n_unparsable] = pl.col(n_unparsable)
    return Family(version=version, sums=sums, finish=finish, n_unparsable=n_unparsable)


def exact_scores(gold: Labels, pred: Labels) -> dict[str, Floats]:
    """Scores of the labels themselves, lower case without blanks around: no synonyms, no wheels."""
    found = overlap(gold, pred, number(lower(word) for word in gold.words))
    return {"exact.p": found.precision, "exact.r": found.recall, "jaccard": found.jaccard}


def exact_family() -> Family:
    """Precision, recall and F of the means, and the mean Jaccard index."""

    def finish(s: Sums) -> dict[str, Value]:
        n = s["jaccard#"]
        return {**prf("exact", s), "jaccard": (ratio(s["jaccard"], n), n)}

    return Family(version="exact", sums=mean_sums(["exact.p", "exact.r", "jaccard"]), finish=finish)
