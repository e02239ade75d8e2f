"""Judged scores with a judge whose answers are written here: values, counts, cache, order, cost."""

from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl
import pytest

from emer_ray.errors import ClipError
from emer_ray.metrics import judge, sets, stats
from emer_ray.records import Reply


class Scripted:
    """Answers by a function of the prompt, and keeps what it was asked."""

    def __init__(self, answer: Callable[[str], str | ClipError]) -> None:
        self._answer = answer
        self.asked: list[str] = []

    def ask(self, prompts: Sequence[str]) -> list[Reply | ClipError]:
        self.asked += prompts
        answers = [self._answer(prompt) for prompt in prompts]
        return [a if isinstance(a, ClipError) else Reply(raw=a) for a in answers]


def fresh() -> judge.Answers:
    return judge.Answers("test-model")


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        ("8", 8.0),
        ("Score: 7.5, since …", 7.5),
        ("8/10", 8.0),
        ("11", None),
        ("eight", None),
        ("", None),
    ],
)
def test_the_first_number_in_range_is_the_score(answer: str, wanted: float | None) -> None:
    assert judge.number(answer, 1, 10) == wanted


def test_clue_overlap_asks_only_what_must_be_asked() -> None:
    model = Scripted(lambda _: "6")
    found = judge.clue_overlap(["right"] * 3 + [None], ["guess", "", None, "x"], model, fresh())
    assert [(v.value, v.state) for v in found] == [
        (6.0, "asked"),
        (1.0, "rule"),
        (1.0, "rule"),
        (None, "skipped"),
    ]
    assert len(model.asked) == 1
    assert "right" in model.asked[0]
    assert "guess" in model.asked[0]


def test_what_cannot_be_read_is_asked_once_more_then_null() -> None:
    stubborn = Scripted(lambda _: "I cannot say")
    (found,) = judge.clue_overlap(["a"], ["b"], stubborn, fresh())
    assert (found.value, found.state) == (None, "unparsable")
    assert len(stubborn.asked) == 2
    late = Scripted(lambda prompt: "4" if "could not be read" in prompt else "well")
    (found,) = judge.clue_overlap(["a"], ["b"], late, fresh())
    assert (found.value, found.state) == (4.0, "asked")


def test_a_failed_question_is_null_and_not_remembered() -> None:
    answers = fresh()
    broken = Scripted(lambda _: ClipError("timeout", "too slow"))
    (found,) = judge.clue_overlap(["a"], ["b"], broken, answers)
    assert (found.value, found.state) == (None, "failed")
    (found,) = judge.clue_overlap(["a"], ["b"], Scripted(lambda _: "3"), answers)
    assert found.value == 3.0


def test_answers_are_paid_for_once(tmp_path: Path) -> None:
    uri = str(tmp_path / "answers.jsonl")
    model = Scripted(lambda _: "5")
    answers = judge.Answers("m", uri)
    prompts = judge.clue_prompts(["a", "a", "b"], ["x", "x", "x"])
    real = [prompt for prompt in prompts if prompt]
    before = judge.estimate(real, answers, answer_tokens=10)
    assert (before.questions, before.tokens_out) == (2, 20)
    assert before.tokens_in > 100
    assert before.usd(in_per_million=0, out_per_million=1e6) == 20
    judge.clue_overlap(["a", "a", "b"], ["x", "x", "x"], model, answers)
    assert len(model.asked) == 2
    answers.save()
    again = judge.Answers("m", uri)
    judge.clue_overlap(["a", "a", "b"], ["x", "x", "x"], model, again)
    assert len(model.asked) == 2
    assert judge.estimate(real, again).questions == 0
    assert judge.estimate(real, judge.Answers("other", uri)).questions == 2


def test_label_overlap_judges_states() -> None:
    def answer(prompt: str) -> str:
        if "without reasons" in prompt:
            return "He is\nsad." if "tears" in prompt else "He is glad."
        assert "He is sad." in prompt
        return "9"

    model = Scripted(answer)
    found = judge.label_overlap(["tears", "tears"], ["a smile", ""], model, fresh())
    assert [(v.value, v.state) for v in found] == [(9.0, "asked"), (1.0, "rule")]
    assert len(model.asked) == 3
    silent = Scripted(lambda prompt: "" if "without reasons" in prompt else "9")
    (lost,) = judge.label_overlap(["tears"], ["a smile"], silent, fresh())
    assert (lost.value, lost.state) == (None, "unparsable")


def test_set_and_sentence_overlap() -> None:
    model = Scripted(lambda _: "0.25")
    found = judge.set_overlap([["sad", "sad"], ["sad"], []], [["low"], [], ["x"]], model, fresh())
    assert [v.value for v in found] == [0.25, 0.0, None]
    assert "sad\n" in model.asked[0]
    (one,) = judge.sentence_overlap(["he cries"], ["he weeps"], model, fresh())
    assert one.value == 0.25


def test_synonym_groups_feed_the_set_level() -> None:
    model = Scripted(
        lambda prompt: '[["happy", "glad"], ["sad"]]' if "Words: happy" in prompt else "no idea"
    )
    gold = {"a": ["Happy", "sad"], "b": ["sad"], "c": ["x", "y"]}
    pred = {"a": ["glad"], "b": ["Sad"], "c": []}
    groups, found = judge.synonym_groups(gold, pred, model, fresh())
    assert groups == {"a": [["happy", "glad"], ["sad"]], "b": [["sad"]]}
    assert [v.state for v in found] == ["asked", "rule", "unparsable"]
    overlap = sets.grouped([gold["a"]], [pred["a"]], [groups["a"]])
    assert overlap.precision.tolist() == [1.0]
    assert overlap.recall.tolist() == [0.5]


def test_preferences_are_asked_both_ways_round() -> None:
    def fair(prompt: str) -> str:
        return "a1" if "a1: good" in prompt else "a2"

    first, second = ["good", "bad", "good"], ["bad", "good", "bad"]
    found = judge.preferences(["truth"] * 3, first, second, Scripted(fair), fresh())
    assert [(p.verdict, p.agree) for p in found] == [("a1", True), ("a2", True), ("a1", True)]
    biased = judge.preferences(["t"], ["x"], ["y"], Scripted(lambda _: "a1"), fresh())
    assert [(p.verdict, p.agree) for p in biased] == [("same", False)]
    mute = judge.preferences(["t"], ["x"], ["y"], Scripted(lambda _: "both"), fresh())
    assert [(p.verdict, p.agree) for p in mute] == [(None, None)]


def test_unparsable_clips_are_counted_beside_the_mean() -> None:
    model = Scripted(lambda prompt: "?" if "odd" in prompt else "8")
    found = judge.clue_overlap(["a", "odd", "c"], ["x", "x", ""], model, fresh())
    frame = pl.DataFrame(judge.columns("judge.clue", found), nan_to_null=True).with_columns(
        empty=pl.lit(False), block=pl.lit(0, dtype=pl.Int32)
    )
    family = judge.family("judge.clue", "test-model")
    (row,) = stats.aggregate(stats.totals(frame.lazy(), [family]), [family], resamples=0)
    assert (row.value, row.n, row.n_scored, row.n_unparsable) == (4.5, 3, 2, 1)
    assert row.version.startswith("test-model prompts ")


def test_a_judge_that_loses_answers_is_refused() -> None:
    class Lossy:
        def ask(self, prompts: Sequence[str]) -> list[Reply | ClipError]:
            return []

    with pytest.raises(ValueError, match="0 replies to 1 prompts"):
        judge.clue_overlap(["a"], ["b"], Lossy(), fresh())
