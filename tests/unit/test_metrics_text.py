"""Text overlap on pairs worked out by hand, and the WordNet reader on a made-up database."""

from pathlib import Path

import polars as pl
import pytest

from emer_ray.errors import ConfigError
from emer_ray.metrics import forms, stats, text
from emer_ray.metrics.wordnet import WordNet


def score(
    pairs: list[tuple[str | None, str | None]], language: text.Language = "en"
) -> dict[str, float | None]:
    gold, pred = zip(*pairs, strict=True)
    frame = pl.DataFrame(text.scores(gold, pred, language), nan_to_null=True)
    ready = frame.with_columns(empty=pl.lit(False), block=pl.lit(0, dtype=pl.Int32))
    families = text.families(language)
    summed = stats.totals(ready.lazy(), families)
    return {row.metric: row.value for row in stats.aggregate(summed, families, resamples=0)}


def test_the_same_text_is_perfect_overlap() -> None:
    found = score([("He smiles and then he laughs.", "he smiles and then he laughs")])
    assert found["bleu1"] == pytest.approx(1)
    assert found["bleu4"] == pytest.approx(1)
    assert found["rouge_l"] == pytest.approx(1)
    assert found["rouge_l_beta"] == pytest.approx(1)
    assert found["meteor"] == pytest.approx(1 - 0.5 * (1 / 6) ** 3)


def test_bleu_sums_clipped_counts_over_clips() -> None:
    # 2 of 4 words, clipped, then 1 of 1; lengths 5 of 5: no penalty
    found = score([("he he cries", "he he he smiles"), ("sad", "sad"), ("a", "")])
    assert found["bleu1_strict"] == pytest.approx(3 / 5)
    assert found["bleu1"] == pytest.approx(3 / 6)  # nltk counts one word for the empty text
    assert found["bleu4"] == 0.0


def test_rouge_l_by_hand() -> None:
    # longest common subsequence: he is sad, of 4 and 3 words
    found = score([("he is very sad", "he is sad")])
    p, r = 1.0, 3 / 4
    assert found["rouge_l"] == pytest.approx(2 * p * r / (p + r))
    assert found["rouge_l_beta"] == pytest.approx((1 + 1.44) * p * r / (r + 1.44 * p))


def test_meteor_stems() -> None:
    # one match of one word, in one chunk: penalty 0.5
    assert score([("smiling", "smiles")])["meteor"] == pytest.approx(0.5)


def test_no_reference_is_not_scored_and_no_hypothesis_is_0() -> None:
    assert set(score([(None, "x"), ("", "x")]).values()) == {None}
    found = score([("he smiles", None)])
    assert {found[metric] for metric in ("bleu1", "rouge_l", "meteor")} == {0.0}


def test_chinese_is_split_into_characters() -> None:
    assert text.tokens("他OK了", "zh") == ["他", "ok", "了"]
    assert text.tokens("Don't cry", "en") == ["don't", "cry"]
    found = score([("他很高兴", "他高兴")], "zh")
    assert found["rouge_l"] == pytest.approx(2 * 1 * 0.75 / 1.75)


LICENCE = "  1 a licence line\n"
DATABASE = {
    "data.adj": "00000010 00 a 02 glad 0 chuff(p) 0 001 + 00000020 n 0101 | feeling\n",
    "data.noun": "00000020 12 n 01 gladness 0 001 + 00000010 a 0101 | the feeling\n"
    "00000030 12 n 01 Mary 0 000 | a name\n",
    "data.verb": "00000040 37 v 01 cry 0 000 01 + 02 00 | weep\n",
    "data.adv": "00000050 02 r 01 gladly 0 001 \\ 00000010 a 0101 | so\n",
    "index.adj": "glad a 1 1 + 1 0 00000010  \nchuff a 1 0 1 0 00000010  \n",
    "index.noun": "gladness n 1 1 + 1 0 00000020  \nmary n 1 0 1 0 00000030  \n",
    "index.verb": "cry v 1 0 1 0 00000040  \n",
    "index.adv": "gladly r 1 1 \\ 1 0 00000050  \n",
    "adj.exc": "gladdest glad\n",
    "noun.exc": "",
    "verb.exc": "",
    "adv.exc": "",
}


@pytest.fixture
def wordnet(tmp_path: Path) -> Path:
    for name, content in DATABASE.items():
        (tmp_path / name).write_text(LICENCE * (not name.endswith("exc")) + content)
    return tmp_path


def test_wordnet_is_read(wordnet: Path) -> None:
    database = WordNet(wordnet)
    assert [synset.words for synset in database.synsets("Glad")] == [("glad", "chuff")]
    assert [synset.words for synset in database.synsets("gladdest")] == [("glad", "chuff")]
    assert [synset.words for synset in database.synsets("cries")] == [("cry",)]
    assert database.synsets("mary")[0].words == ("Mary",)
    assert database.synsets("nothing") == []
    assert database.synsets("gladness")[0].file == 12


def test_meteor_with_synonyms(wordnet: Path) -> None:
    columns = text.scores(["glad"], ["chuff"], "en", str(wordnet))
    assert columns["meteor"][0] == 0.0
    assert columns["meteor_wordnet"][0] == pytest.approx(0.5)


def test_a_missing_database_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="WordNet"):
        WordNet(tmp_path)


def test_forms_of_a_word(wordnet: Path) -> None:
    owned = forms.forms(["glad", "at ease", "高兴"], WordNet(wordnet))
    assert {"glad", "gladness", "gladly", "gladder"[:4]} <= set(owned["glad"])
    assert owned["at ease"] == ["at ease", "at-ease", "at_ease"]
    assert owned["高兴"] == ["高兴"]
