"""Emotion wheels: which cluster a label belongs to, by twelve mappings (M1, M2, five wheels at two
levels).

A `Wheels` is the three tables of science §c.3 and nothing else; `images` turns them into one row of
twelve names per known word. Published tables are read by `lexicon.load`, ours by `lexicon.default`.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from emer_ray.metrics.labels import Labels, number
from emer_ray.metrics.sets import overlap, overlaps
from emer_ray.metrics.stats import Family, Floats, Sums, Value, mean_sums, means, prf

Row = tuple[str, str, str]

LEVELS: Final = (1, 2)
MAPPINGS: Final = (
    "wheel.M1",
    "wheel.M2",
    *(f"wheel.W{wheel}.L{level}" for wheel in range(1, 6) for level in LEVELS),
)
"""Ids of the twelve mappings, in the order of an image row."""

_CHUNK: Final = 1 << 15
"""Clips compared at a time: what they need fits into a processor's cache."""


@dataclass(frozen=True)
class Wheels:
    """Five wheels, their synonyms and word forms, under a name and version that every score
    repeats.
    """

    version: str
    wheels: tuple[tuple[Row, ...], ...]
    """Rows (level 1, level 2, level 3) in file order: where a word repeats, the later row wins."""
    forms: Mapping[str, tuple[str, ...]]
    """F: a form as written to its base words."""
    synonyms: Mapping[str, tuple[str, ...]]
    """S: a base word to the wheel words it stands for."""

    @cached_property
    def images(self) -> dict[str, tuple[str | None, ...]]:
        """Each known form to its twelve names; null where a mapping drops it."""
        clusters = [self.clusters(wheel, level) for wheel in range(5) for level in LEVELS]
        return {form: self._image(bases, clusters) for form, bases in self.forms.items()}

    def clusters(self, wheel: int, level: int) -> dict[str, str]:
        """C of one wheel (0 to 4) and level: wheel word to cluster name, later writes winning."""
        tree: dict[str, dict[str, list[str]]] = {}
        for one, two, three in self.wheels[wheel]:
            tree.setdefault(one, {}).setdefault(two, []).append(three)
        found: dict[str, str] = {}
        for one, children in tree.items():
            found[one] = one if level == 1 else min(children)
            for two, leaves in children.items():
                name = one if level == 1 else two
                found[two] = name
                found.update(dict.fromkeys(leaves, name))
        return found

    def _image(
        self, bases: Sequence[str], clusters: Sequence[Mapping[str, str]]
    ) -> tuple[str | None, ...]:
        first = min(bases)
        reached = sorted({word for base in bases for word in self.synonyms.get(base, ())})
        second = min(self.synonyms.get(first, ()), default=None)
        found = [next((c[word] for word in reached if word in c), None) for c in clusters]
        return (first, second, *found)


def scores(gold: Labels, pred: Labels, wheels: Wheels) -> dict[str, Floats]:
    """Precision and recall of each clip under the twelve mappings; NaN where no reference maps."""
    rows = [wheels.images.get(word.lower().strip()) for word in gold.words]
    images = [number(row[place] if row else None for row in rows) for place in range(len(MAPPINGS))]
    columns = {
        f"{metric}.{part}": np.empty(len(gold)) for metric in MAPPINGS for part in ("p", "r")
    }

    def compare(start: int) -> None:
        some = slice(start, start + _CHUNK)
        compared = overlaps(gold.part(some), pred.part(some), images)
        for metric, found in zip(MAPPINGS, compared, strict=True):
            columns[f"{metric}.p"][some] = found.precision
            columns[f"{metric}.r"][some] = found.recall

    with ThreadPoolExecutor() as pool:  # numpy lets go of the interpreter
        list(pool.map(compare, range(0, len(gold), _CHUNK)))
    return columns


def family(wheels: Wheels) -> Family:
    """F of the means per mapping; then means over the five wheels; then the mean of the twelve F
    (science §c.3).
    """

    def finish(s: Sums) -> dict[str, Value]:
        values: dict[str, Value] = {}
        for metric in MAPPINGS:
            values |= prf(metric, s)
        for level in LEVELS:
            for part in ("f", "p", "r"):
                five = [values[f"wheel.W{wheel}.L{level}.{part}"] for wheel in range(1, 6)]
                values[f"wheel.mean.L{level}.{part}"] = mean_of(five)
        values["wheel.m_avg"] = mean_of([values[f"{metric}.f"] for metric in MAPPINGS])
        return values

    columns = [f"{metric}.{part}" for metric in MAPPINGS for part in ("p", "r")]
    return Family(version=wheels.version, sums=mean_sums(columns), finish=finish)


def mean_of(values: Sequence[Value]) -> Value:
    """Mean of several metrics, undefined where one of them is; it rests on the clips of the
    smallest.
    """
    return (
        np.mean([value for value, _ in values], axis=0),
        np.min([n_scored for _, n_scored in values], axis=0),
    )


HITS: Final = tuple(f"W{wheel}" for wheel in range(1, 6))


def hit_scores(
    gold: Labels, pred: Labels, wheels: Wheels, gold_words: Sequence[str]
) -> dict[str, Floats]:
    """Whether the cluster of the one gold word is among the predicted ones, per wheel at level 1
    (science §c.4).

    `gold_words` are the gold words of the whole data set, not of this shard: the m-score divides a
    hit by the number of their clusters that were predicted. NaN where the gold word has no cluster
    in the wheel.
    """
    rows = [wheels.images.get(word.lower().strip()) for word in gold.words]
    columns: dict[str, Floats] = {}
    for wheel in HITS:
        place = MAPPINGS.index(f"wheel.{wheel}.L1")
        images = [row[place] if row else None for row in rows]
        found = overlap(gold, pred, number(images))
        hit = np.where(found.n_gold > 0, np.minimum(found.n_both, 1), np.nan)
        named = {
            row[place] for word in gold_words if (row := wheels.images.get(word.lower().strip()))
        }
        candidates = [image if image in named else None for image in images]
        n_named = overlap(gold, pred, number(candidates)).n_pred
        columns[f"hit.{wheel}"] = hit
        columns[f"mscore.{wheel}"] = np.where(n_named > 0, hit / np.maximum(n_named, 1), hit * 0)
    return columns


def hit_family(wheels: Wheels) -> Family:
    """Hit rate and m-score per wheel and their means over five wheels."""
    plain = means(
        [f"{kind}.{wheel}" for kind in ("hit", "mscore") for wheel in HITS], wheels.version
    )

    def finish(s: Sums) -> dict[str, Value]:
        values = plain.finish(s)
        for kind in ("hit", "mscore"):
            values[f"{kind}.mean"] = mean_of([values[f"{kind}.{wheel}"] for wheel in HITS])
        return values

    return Family(version=wheels.version, sums=plain.sums, finish=finish)
