"""Builds `tables/forms.csv`, the word forms of our own tables, from `tables/words.csv` and WordNet.

python -m emer_ray.metrics.forms /usr/share/wordnet

(the folder of the Debian package wordnet-base). A word's forms are its inflections, and the words
WordNet says are derived from it, with theirs. Forms that turn a word into its opposite (un-, -less,
…) are left out, and a form belongs to one word only, so that no label has to be decided by the
alphabet. Run again when `words.csv` changes, and raise `lexicon.DEFAULT_VERSION`.
"""

import csv
import io
import sys
from collections.abc import Iterable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Final

from emer_ray.metrics.wordnet import WordNet

TABLES: Final = files("emer_ray.metrics") / "tables"

_DERIVED: Final = "+"
_ADVERB_OF: Final = "\\"
_OPPOSITE_STARTS: Final = ("un", "in", "im", "ir", "il", "dis", "non", "mis")
_OPPOSITE_ENDS: Final = ("less", "lessly", "lessness")
_VOWELS: Final = "aeiou"
_CHANGED: Final = 2
"""Letters at its end that a word may lose in a derived one: content gives contented, not contain.
"""
_COMPARED: Final = 7
"""Longest adjective that is compared by its ending."""


def forms(words: Iterable[str], wordnet: WordNet) -> dict[str, list[str]]:
    """Give each word its forms; one that several words share goes to the one it looks like."""
    words = list(words)
    adverbs = _adverbs(wordnet)
    claims: dict[str, list[str]] = {}
    for word in words:
        for form in _forms_of(word, wordnet, adverbs):
            claims.setdefault(form, []).append(word)
    known = set(words)
    owned: dict[str, list[str]] = {word: [word] for word in words}
    for form, claimants in sorted(claims.items()):
        if form not in known:
            owner = max(claimants, key=lambda word: (_likeness(word, form), word))
            owned[owner].append(form)
    return owned


def _shared(word: str, form: str) -> int:
    """Letters that both begin with."""
    pairs = zip(word, form, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(word), len(form)))


def _likeness(word: str, form: str) -> float:
    return _shared(word, form) / max(len(word), len(form))


def _akin(word: str, form: str) -> bool:
    return _shared(word, form) >= max(3, min(len(word), len(form)) - _CHANGED)


def _forms_of(word: str, wordnet: WordNet, adverbs: dict[str, set[str]]) -> Iterator[str]:
    """Chinese words have one form."""
    if not word.isascii():
        return iter([word])
    return _family(word, wordnet, adverbs) if word.isalpha() else _spellings(word)


def _spellings(phrase: str) -> Iterator[str]:
    """A phrase may be written with blanks, hyphens or underscores."""
    for separator in (" ", "-", "_"):
        yield phrase.replace(" ", separator).replace("-", separator)


def _family(word: str, wordnet: WordNet, adverbs: dict[str, set[str]]) -> Iterator[str]:
    related = {(pos, base) for pos in "nva" for base in wordnet.bases(word, pos)}
    for pos, base in sorted(related):
        related |= {d for d in _derived(pos, base, wordnet) if not _opposite(word, d[1])}
    for pos, base in sorted(related):
        yield from _inflected(pos, base)
        yield from adverbs.get(base, ())
    if not related or ("a", word) in related:
        yield from _inflected("a", word)


def _derived(pos: str, word: str, wordnet: WordNet) -> Iterator[tuple[str, str]]:
    for synset in wordnet.synsets(word):
        if synset.key[0] != pos or word not in synset.words:
            continue
        place = synset.words.index(word) + 1
        for pointer in synset.pointers:
            if pointer.symbol == _DERIVED and pointer.source_word == place:
                target = wordnet.target(pointer).words[pointer.target_word - 1]
                if target.isalpha() and target.islower() and _akin(word, target):
                    yield pointer.target[0], target


def _opposite(word: str, form: str) -> bool:
    starts = any(form.startswith(s) and not word.startswith(s) for s in _OPPOSITE_STARTS)
    return starts or any(form.endswith(e) and e[:4] not in word for e in _OPPOSITE_ENDS)


def _adverbs(wordnet: WordNet) -> dict[str, set[str]]:
    """Adjectives to their adverbs."""
    found: dict[str, set[str]] = {}
    for synset in wordnet.synsets_by_key.values():
        for pointer in synset.pointers:
            if synset.key[0] == "r" and pointer.symbol == _ADVERB_OF:
                adjective = wordnet.target(pointer).words[pointer.target_word - 1]
                found.setdefault(adjective, set()).add(synset.words[pointer.source_word - 1])
    return found


def _inflected(pos: str, word: str) -> Iterator[str]:
    """Regular inflections; a form that nobody writes does no harm."""
    stem = word[:-1] if word.endswith("e") else word
    soft = word[:-1] + "i" if word.endswith("y") and word[-2:-1] not in _VOWELS else None
    yield word
    if pos in "nv":
        sibilant = word.endswith(("s", "x", "z", "ch", "sh"))
        yield soft + "es" if soft else word + ("es" if sibilant else "s")
    if pos == "v":
        yield (soft or stem) + "ed"
        yield stem + "ing"
    if pos == "a":
        yield (soft or word) + "ness"
        yield (word[:-1] if word.endswith("le") else (soft or word) + "l") + "y"
        if len(word) <= _COMPARED and not word.endswith(("ed", "ing")):
            yield from ((soft or stem) + "er", (soft or stem) + "est")


def main(folder: str) -> None:
    """Write `tables/forms.csv` beside `tables/words.csv`."""
    rows = list(csv.DictReader(io.StringIO((TABLES / "words.csv").read_text(encoding="utf-8"))))
    words = [row["word"] for row in rows]
    words += [w.strip() for row in rows for w in row["synonyms"].split(",") if w.strip()]
    owned = forms(dict.fromkeys(words), WordNet(folder))
    with Path(str(TABLES / "forms.csv")).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["name", "format"])
        writer.writerows([word, ", ".join(listed)] for word, listed in owned.items())


if __name__ == "__main__":
    main(sys.argv[1])
