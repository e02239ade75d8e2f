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


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "   ",
        "I cannot help with that.",
        "As an AI, happy is not something I can see.",
        '{"visual_clues": [',
        '{"mood": "happy"}',
        '["happy"]',
        '{"labels": [{"word": "happy"}]}',
        '{"labels": [], "confidence": "high"}',
    ],
)
def test_what_holds_no_explanation_is_unparsable_and_never_a_label(raw: str) -> None:
    with pytest.raises(ClipError) as caught:
        parse.explanation(said(raw))
    assert caught.value.kind == "unparsable"
