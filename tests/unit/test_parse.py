import json

import pytest

from emer_ray import parse
from emer_ray.errors import ClipError
from emer_ray.records import Answer, Measure


def said(raw: str, finish: str = "stop") -> Answer:
    return Answer(
        step="explain", sample=0, raw=raw, finish=finish, tokens_in=1, tokens_out=1, latency_s=0.1
    )


FULL = {
    "visual_clues": [
        {"text": "a smile", "evidence": [{"measure": "x", "value": 1.5, "unit": "s"}]}
    ],
    "acoustic_clues": ["a laugh"],
    "lexical_clues": [],
    "explanation": "both point one way",
    "labels": [{"label": " Happy ", "support": 0.75}, "amused"],
    "confidence": 0.5,
}


def test_a_json_object_is_read_whole() -> None:
    found = parse.explanation(said(json.dumps(FULL)))
    assert found.parse_rung == "json"
    assert found.visual_clues[0].evidence == (Measure(measure="x", value=1.5, unit="s"),)
    assert found.acoustic_clues[0].text == "a laugh"
    assert [(label.label, label.support) for label in found.labels] == [
        ("happy", 0.75),
        ("amused", None),
    ]
    assert found.confidence == 0.5


@pytest.mark.parametrize(
    "wrapping", ["As an AI, I think:\n```json\n{}\n```", "<think>{{a}}</think> {}", "{{}} then {}"]
)
def test_an_object_inside_prose_is_found(wrapping: str) -> None:
    found = parse.explanation(said(wrapping.replace("{}", json.dumps(FULL), 1).replace("{{", "{")))
    assert found.labels[0].label == "happy"


def test_labels_keep_their_order_and_lose_their_doubles() -> None:
    found = parse.explanation(said('{"labels": ["Sad", "hurt", "sad", " "]}'))
    assert [label.label for label in found.labels] == ["sad", "hurt"]


def test_no_labels_is_an_answer() -> None:
    assert parse.explanation(said('{"labels": [], "explanation": "nothing clear"}')).labels == ()


LOOP = "happy and so " * 60


@pytest.mark.parametrize(
    ("raw", "finish", "kind"),
    [
        ("", "stop", "no_answer"),
        ("   ", "stop", "no_answer"),
        ("<think>hm</think>", "stop", "no_answer"),
        ("<think>so long and", "length", "cut_off"),
        ("I cannot help with that.", "stop", "refused"),
        ("I'm sorry, but I can't assist with that.", "stop", "refused"),
        ("抱歉，我无法协助。", "stop", "refused"),
        ('{"labels": ["happy"]}', "content_filter", "refused"),
        ("As an AI, happy is not something I can see.", "stop", "refused"),
        ('{"visual_clues": [', "stop", "unparsable"),
        ('{"visual_clues": ["a"], "labels": ["hap', "length", "cut_off"),
        ('{"mood": "happy"}', "stop", "unparsable"),
        ('["happy"]', "stop", "unparsable"),
        ("She seems happy.", "stop", "unparsable"),
        ('{"explanation": "no labels were named"}', "stop", "unparsable"),
        ('{"labels": [{"word": "happy"}]}', "stop", "unparsable"),
        ('{"labels": [], "confidence": "high"}', "stop", "unparsable"),
        (LOOP, "length", "repetitive"),
        (json.dumps({"labels": ["happy"] * 99}), "stop", "repetitive"),
        (json.dumps({"labels": ["sad"], "explanation": LOOP}), "stop", "repetitive"),
    ],
)
def test_what_holds_no_explanation_has_a_name_and_is_never_a_label(
    raw: str, finish: str, kind: str
) -> None:
    with pytest.raises(ClipError) as caught:
        parse.explanation(said(raw, finish))
    assert caught.value.kind == kind


@pytest.mark.parametrize(
    ("raw", "rung"),
    [
        ('{"labels": ["sad"]}', "json"),
        ('```json\n{"labels": ["sad"]}\n```', "fenced"),
        ('Draft {"labels": ["joy"]}, so: {"labels": ["sad"]}.', "object"),
        ('<think>{"labels": ["joy"]}</think>{"labels": ["sad"]}', "think+json"),
        ('joy perhaps</think><answer>["sad"]</answer>', "think+answer+json"),
        ("{'labels': ['sad',]}", "repaired"),
        ('{"labels": ["sad"],}', "repaired"),
        ('{labels: ["sad"]}', "repaired"),
        ("[sad]", "list"),
        ("- sad", "list"),
        ("1. Sad", "list"),
        ("sad", "list"),
        ("Labels: sad.", "list"),
    ],
)
def test_labels_are_read_by_the_first_rung_that_holds(raw: str, rung: str) -> None:
    found = parse.read(said(raw), "labels")
    assert ([label.label for label in found.labels], found.rung) == (["sad"], rung)


@pytest.mark.parametrize(
    "raw",
    ["The person in the clip is clearly sad and also tired.", "I think: sad", "He is sad."],
)
def test_a_word_inside_prose_is_no_label(raw: str) -> None:
    with pytest.raises(ClipError):
        parse.read(said(raw), "labels")


@pytest.mark.parametrize("marks", ['""', "“”", "「」"])
def test_what_somebody_says_over_and_over_may_be_quoted(marks: str) -> None:
    cry = marks[0] + "Let me go. " * 12 + marks[1]
    raw = json.dumps({"lexical_clues": [f"She cries {cry}"], "labels": ["afraid"]})
    assert [label.label for label in parse.explanation(said(raw)).labels] == ["afraid"]
    assert parse.read(said(f"She cries {cry} and runs."), "lexical").text.endswith("runs.")
    again = f"She cries {marks[0]}Let me go at once{marks[1]}. " * 6  # the model, not she
    unmarked = cry.strip(marks)
    for text in (again, unmarked):
        with pytest.raises(ClipError, match="circles"):
            parse.read(said(text), "lexical")


def test_prose_is_read_where_the_step_asks_for_it() -> None:
    found = parse.read(said("<think>hm</think>Output: He smiles,\nthen laughs."), "account")
    assert (found.text, found.rung) == ("He smiles, then laughs.", "think+prose")
    for raw, finish, kind in (
        (LOOP, "stop", "repetitive"),
        ("He smiles and", "length", "cut_off"),
        ("I'm sorry, I can't help with that.", "stop", "refused"),
        ("…!", "stop", "unparsable"),
    ):
        with pytest.raises(ClipError) as caught:
            parse.read(said(raw, finish), "account")
        assert caught.value.kind == kind


CHOICES = ("happy", "angry", "neutral")


def test_projections_are_read_or_refused_never_guessed() -> None:
    assert parse.read(said('{"label": "Happy"}'), "one_hot", CHOICES).value == "happy"
    ranked = parse.read(said('{"ranking": ["angry", "odd", "angry"]}'), "ranking", CHOICES)
    assert ranked.value == ("angry", "happy", "neutral")
    assert parse.read(said('{"valence": "-1.25 of 5"}'), "valence").value == -1.25
    assert parse.read(said('{"valence": 7}'), "valence").value == 5.0
    assert parse.read(said('{"sentiment": "negative"}'), "sentiment").value == "negative"
    for raw, form in (
        ('{"label": "joyous"}', "one_hot"),
        ("happy, as an AI would say", "one_hot"),
        ('{"ranking": []}', "ranking"),
        ('{"valence": "high"}', "valence"),
        ('{"valence": true}', "valence"),
        ('{"sentiment": "mixed"}', "sentiment"),
    ):
        with pytest.raises(ClipError):
            parse.read(said(raw), form, CHOICES)  # type: ignore[arg-type]


def sampled(*raws: str, step: str = "explain") -> list[Answer]:
    blank = {"finish": "stop", "tokens_in": 1, "tokens_out": 1, "latency_s": 0.1}
    return [Answer(step=step, sample=i, raw=raw, **blank) for i, raw in enumerate(raws)]  # type: ignore[arg-type]


def test_support_is_the_share_of_readable_answers_naming_the_label_or_its_family() -> None:
    family = {"glad": "joy", "happy": "joy"}.get
    answers = sampled(
        '{"labels": ["happy", "proud"]}', '{"labels": ["glad"]}', "nothing", '{"labels": ["sad"]}'
    )
    drawn = parse.draw(answers, "labels", family=family)
    assert {label.label: label.support for label in drawn.labels} == {
        "happy": pytest.approx(2 / 3),
        "glad": pytest.approx(2 / 3),
        "proud": pytest.approx(1 / 3),
        "sad": pytest.approx(1 / 3),
    }
    assert (drawn.readable, drawn.samples) == (3, 4)


def test_the_explanation_kept_is_the_medoid_and_says_so() -> None:
    one = {"explanation": "he laughs at a joke", "labels": ["amused"]}
    odd = {"explanation": "rain falls", "labels": ["sad"]}
    near = {"explanation": "he laughs at the joke", "labels": ["amused", "happy"]}
    answers = sampled(*(json.dumps(said) for said in (odd, one, near)))
    found, notes = parse.compose([parse.Asked(step="explain", form="explanation")], answers)
    assert found.explanation == "he laughs at a joke"
    assert notes == ("step explain: kept is sample 1, the medoid of 3 readable answers",)
    assert found.labels[0].label == "amused"
    assert found.labels[0].support == pytest.approx(2 / 3)


def test_a_recipe_is_folded_in_order_and_a_step_not_asked_adds_nothing() -> None:
    asked = [
        parse.Asked(step="visual", form="visual"),
        parse.Asked(step="acoustic", form="acoustic"),
        parse.Asked(step="labels", form="labels"),
        parse.Asked(step="valence", form="valence"),
    ]
    answers = [
        *sampled("He smiles.", step="visual"),
        *sampled('{"labels": ["happy"]}', step="labels"),
        *sampled("no number", step="valence"),
    ]
    found, _ = parse.compose(asked, answers)
    assert found.visual_clues[0].text == "He smiles."
    assert found.acoustic_clues == ()
    assert (found.explanation, found.labels[0].label) == ("He smiles.", "happy")
