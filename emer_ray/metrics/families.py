"""A common ground for labels of different spaces: which family of emotions a word belongs to.

Old labels are words of a closed set, open vocabulary, shares or a valence; a run gives open
vocabulary. Both are put on a `Ground`, which maps words to families by the emotion wheels:

- a wheel's level 1 (`ekman`, the default, has anger, contempt, disgust, enjoyment, fear, interest,
  neutral, sadness, surprise; `shaver`, `plutchik`, `circumplex`, `geneva` are the others);
- where a closed set of old labels tells words apart that share a family (happy and calm), the
  family is split between them: each word of it goes to the old label that it shares most of ten
  mappings with (five wheels at two levels), to equal parts where several are as near; old labels
  that share all ten (joy and happy) stay one;
- `valence`: pleasant, unpleasant or neutral, by the circumplex.

Words that no wheel knows have no family. No label at all says "no clear emotion" and is `neutral`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from emer_ray.metrics import lexicon
from emer_ray.metrics.stats import Floats
from emer_ray.metrics.wheels import MAPPINGS, Wheels

GroundName = Literal["auto", "ekman", "shaver", "plutchik", "circumplex", "geneva", "valence"]

NEUTRAL: Final = "neutral"
VALENCES: Final = ("pleasant", "unpleasant", NEUTRAL)
MOST_CLASSES: Final = 24
"""A closed set has at most so many words; more are an open vocabulary."""

_COMPARED: Final = slice(MAPPINGS.index("wheel.W1.L1"), len(MAPPINGS))
"""Mappings that likeness of two words is counted over: five wheels at two levels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """Families of emotions, and which words are in them."""

    name: str
    """What the families are, in words."""
    wheels: Wheels
    wheel: int
    """Place of the wheel, 0 to 4."""
    anchors: Mapping[str, Mapping[str, tuple[str | None, ...]]] = field(default_factory=dict)
    """Families that are split: level-1 name to the old labels in it and their mappings."""
    by_valence: bool = False

    def of(self, word: str) -> dict[str, float]:
        """Give the families of a word with its shares in them, sum 1; {} = not known."""
        image = self.wheels.images.get(word.lower().strip())
        if image is None:
            return {}
        cluster = image[MAPPINGS.index(f"wheel.W{self.wheel + 1}.L1")]
        if cluster is None:
            return {}
        if self.by_valence:
            sign = cluster.split()[0]
            return {sign if sign in VALENCES else NEUTRAL: 1.0}
        if cluster not in self.anchors:
            return {cluster: 1.0}
        near = {
            old: sum(a is not None and a == b for a, b in zip(image[_COMPARED], its, strict=True))
            for old, its in self.anchors[cluster].items()
        }
        nearest = [old for old, count in near.items() if count == max(near.values())]
        return {f"{cluster}: {old}": 1 / len(nearest) for old in nearest}

    def mapping(self, words: Iterable[str]) -> dict[str, str | None]:
        """State where each word goes, for people: a family, several with `/`, or null."""
        return {word: " / ".join(self.of(word)) or None for word in sorted(set(words))}


def ground(name: GroundName, closed: Iterable[str] | None, wheels: Wheels) -> Ground:
    """Choose the families; `closed` are the words of a closed set of old labels, null = none."""
    if name == "valence":
        wheel = lexicon.THEORIES.index("circumplex")
        said = "valence: pleasant, unpleasant, neutral, by the circumplex at level 1"
        return Ground(name=said, wheels=wheels, wheel=wheel, by_valence=True)
    theory = "ekman" if name == "auto" else name
    wheel = lexicon.THEORIES.index(theory)
    plain = Ground(name=f"level 1 of the wheel {theory}", wheels=wheels, wheel=wheel)
    words = sorted(set(closed or ()))
    if name != "auto" or not 1 < len(words) <= MOST_CLASSES:
        return plain
    anchors: dict[str, dict[str, tuple[str | None, ...]]] = {}
    for word in words:
        for cluster in plain.of(word):
            image = wheels.images[word.lower().strip()][_COMPARED]
            known = anchors.setdefault(cluster, {})
            if image not in known.values():
                known[word] = image
    split = {cluster: known for cluster, known in anchors.items() if len(known) > 1}
    said = plain.name
    if split:
        parts = (f"{cluster} among {', '.join(known)}" for cluster, known in split.items())
        said += f", split by the old labels: {'; '.join(parts)}"
    return Ground(name=said, wheels=wheels, wheel=wheel, anchors=split)


@dataclass(frozen=True, slots=True, kw_only=True)
class Strengths:
    """How strongly the labels of clips speak for each family."""

    families: tuple[str, ...]
    strength: Floats
    """[clips, families], 0 to 1: the support of a family's best supported label."""
    main: pl.Series
    """Family of the strongest label, the first of equals; null = no label has a family."""

    @property
    def shares(self) -> Floats:
        """[clips, families], sum 1; zeros where no label has a family."""
        total = self.strength.sum(axis=1, keepdims=True)
        none = np.zeros_like(self.strength)
        shares: Floats = np.divide(self.strength, total, out=none, where=total > 0)
        return shares

    def main_numbers(self) -> npt.NDArray[np.int64]:
        """The main family of each clip as its number; every clip must have one."""
        numbers = {name: number for number, name in enumerate(self.families)}
        return self.main.replace_strict(numbers, return_dtype=pl.Int64).to_numpy()


def strengths(labels: pl.Series, on: Ground) -> Strengths:
    """Put labels (a list of {label, support} per clip) on a ground.

    A label without support counts 1. An empty list is `neutral`, as far as the ground has it; a
    null list has no family.
    """
    rows = pl.DataFrame({"clip": np.arange(len(labels)), "labels": labels})
    rows = rows.filter(pl.col("labels").is_not_null())
    blank = rows.filter(pl.col("labels").list.len() == 0).select(
        "clip", word=pl.lit(NEUTRAL), support=pl.lit(1.0), place=pl.lit(0, pl.Int64)
    )
    said = (
        rows.filter(pl.col("labels").list.len() > 0)
        .explode("labels")
        .select(
            "clip",
            word=pl.col("labels").struct.field("label"),
            support=pl.col("labels").struct.field("support").fill_null(1.0).clip(0.0, 1.0),
            place=pl.int_range(pl.len()).over("clip").cast(pl.Int64),
        )
    )
    each = pl.concat([blank.select(said.columns), said], how="vertical_relaxed")
    pairs = [
        (word, family, share)
        for word in each["word"].unique().drop_nulls()
        for family, share in on.of(word).items()
    ]
    known = pl.DataFrame(
        pairs, schema={"word": pl.String, "family": pl.String, "share": pl.Float64}, orient="row"
    )
    found = (
        each.join(known, on="word")
        .with_columns(strength=pl.col("support") * pl.col("share"))
        .filter(pl.col("strength") > 0)
    )
    per_family = found.group_by("clip", "family").agg(pl.col("strength").max())
    names = tuple(sorted(per_family["family"].unique()))
    place = {name: number for number, name in enumerate(names)}
    matrix = np.zeros((len(labels), len(names)))
    if names:
        columns = per_family["family"].replace_strict(place, return_dtype=pl.Int64).to_numpy()
        matrix[per_family["clip"].to_numpy(), columns] = per_family["strength"].to_numpy()
    first = found.sort("clip", -pl.col("strength"), "place", "family").unique("clip", keep="first")
    main = rows_of(len(labels), first["clip"].to_list(), first["family"].to_list())
    return Strengths(families=names, strength=matrix, main=main)


def listed(names: Sequence[str], shares: Floats) -> list[list[dict[str, Any]]]:
    """Families of each clip with their shares, largest first, without zeros."""
    return [
        [
            {"family": names[place], "share": float(row[place])}
            for place in np.argsort(-row, kind="stable")
            if row[place] > 0
        ]
        for row in shares
    ]


def rows_of(n: int, places: Sequence[int], values: Sequence[str]) -> pl.Series:
    """Put values at some of `n` places, null elsewhere."""
    filled: list[str | None] = [None] * n
    for place, value in zip(places, values, strict=True):
        filled[place] = value
    return pl.Series("main", filled, dtype=pl.String)
