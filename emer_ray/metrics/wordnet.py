"""WordNet's database files, as far as METEOR's synonym stage and the building of our tables need
them.

Reads the folder of the Debian package wordnet-base, or of any WordNet 3 release: `index.*`,
`data.*` and `*.exc` (format: the manual pages wndb(5WN) and morphy(7WN)).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from emer_ray.errors import ConfigError

_FILES: Final = {"n": "noun", "v": "verb", "a": "adj", "r": "adv"}
_ENDINGS: Final = {
    "n": "s: ses:s ves:f xes:x zes:z ches:ch shes:sh men:man ies:y",
    "v": "s: ies:y es:e es: ed:e ed: ing:e ing:",
    "a": "er: est: er:e est:e",
    "r": "",
}
"""Detachment rules of morphy(7WN): ending and what replaces it."""


@dataclass(frozen=True, slots=True)
class Pointer:
    """A relation between two synsets, or between two of their words (numbers from 1; 0 = the whole
    synset).
    """

    symbol: str
    target: tuple[str, int]
    source_word: int
    target_word: int


@dataclass(frozen=True, slots=True)
class Synset:
    """Words of one meaning."""

    key: tuple[str, int]
    """Part of speech (n, v, a, r) and offset in its file."""
    file: int
    """Number of the lexicographer's file: 12 = noun.feeling, 37 = verb.emotion, …"""
    words: tuple[str, ...]
    """As written: a name keeps its capital, `_` is between the parts of a phrase."""
    pointers: tuple[Pointer, ...]


class WordNet:
    """The whole database in memory (about 117,000 synsets)."""

    def __init__(self, folder: str | Path) -> None:
        self.synsets_by_key: dict[tuple[str, int], Synset] = {}
        self._index: dict[str, dict[str, list[int]]] = {}
        self._exceptions: dict[str, dict[str, list[str]]] = {}
        for pos, name in _FILES.items():
            try:
                self._read(Path(folder), pos, name)
            except OSError as error:
                raise ConfigError(
                    f"WordNet {folder}: {error.strerror} ({error.filename}); give the folder of a "
                    "database, for example /usr/share/wordnet of the Debian package wordnet-base"
                ) from None

    def _read(self, folder: Path, pos: str, name: str) -> None:
        for line in _lines(folder / f"data.{name}"):
            synset = _synset(pos, line)
            self.synsets_by_key[synset.key] = synset
        self._index[pos] = {}
        for line in _lines(folder / f"index.{name}"):
            word, _, n_synsets, *rest = line.split()
            self._index[pos][word] = [int(offset) for offset in rest[-int(n_synsets) :]]
        rows = [line.split() for line in _lines(folder / f"{name}.exc")]
        self._exceptions[pos] = {form: bases for form, *bases in rows}

    def synsets(self, word: str) -> list[Synset]:
        """Synsets of a word in any of its inflected forms."""
        word = word.lower().replace(" ", "_")
        return [
            self.synsets_by_key[pos, offset]
            for pos in _FILES
            for base in self.bases(word, pos)
            for offset in self._index[pos].get(base, [])
        ]

    def bases(self, word: str, pos: str) -> list[str]:
        """Dictionary forms that a word can be an inflection of."""
        index = self._index[pos]
        exceptions = self._exceptions[pos].get(word)
        forms = exceptions if exceptions else list(_detached(word, pos))
        found = [form for form in dict.fromkeys([word, *forms]) if form in index]
        while not found and forms and not exceptions:
            forms = [shorter for form in forms for shorter in _detached(form, pos)]
            found = [form for form in dict.fromkeys(forms) if form in index]
        return found

    def target(self, pointer: Pointer) -> Synset:
        """The synset a pointer leads to."""
        return self.synsets_by_key[pointer.target]


def _lines(path: Path) -> Iterator[str]:
    """Lines without the licence, whose lines begin with a blank."""
    with path.open(encoding="utf-8") as file:
        yield from (line for line in file if not line.startswith(" "))


def _detached(word: str, pos: str) -> Iterator[str]:
    for rule in _ENDINGS[pos].split():
        ending, replacement = rule.split(":")
        if word.endswith(ending):
            yield word[: len(word) - len(ending)] + replacement


def _synset(pos: str, line: str) -> Synset:
    fields = line.partition("|")[0].split()
    n_words = int(fields[3], 16)
    words = tuple(word.partition("(")[0] for word in fields[4 : 4 + 2 * n_words : 2])
    rest = fields[4 + 2 * n_words :]
    pointers = []
    for start in range(1, 1 + 4 * int(rest[0]), 4):
        symbol, offset, kind, ends = rest[start : start + 4]
        pointers.append(
            Pointer(
                symbol,
                ("a" if kind == "s" else kind, int(offset)),
                int(ends[:2], 16),
                int(ends[2:], 16),
            )
        )
    return Synset((pos, int(fields[0])), int(fields[1]), words, tuple(pointers))


class Synonyms:
    """WordNet in the shape nltk's METEOR asks for."""

    def __init__(self, wordnet: WordNet) -> None:
        self._wordnet = wordnet
        self._known: dict[str, list[Synonyms.Meaning]] = {}

    @dataclass(frozen=True, slots=True)
    class Lemma:
        """One word of a meaning."""

        text: str

        def name(self) -> str:
            return self.text

    @dataclass(frozen=True, slots=True)
    class Meaning:
        """The words of one meaning."""

        words: tuple[str, ...]

        def lemmas(self) -> list["Synonyms.Lemma"]:
            return [Synonyms.Lemma(word) for word in self.words]

    def synsets(self, word: str) -> list[Meaning]:
        """The meanings of a word; each word is looked up once."""
        if word not in self._known:
            self._known[word] = [self.Meaning(s.words) for s in self._wordnet.synsets(word)]
        return self._known[word]
