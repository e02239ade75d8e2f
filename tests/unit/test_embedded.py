"""What the embedded baseline says about made-up measures; real clips are in integration."""

import ast
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emer_ray import parse
from emer_ray.perceive.measures import MEASURES, measure
from emer_ray.reason import acoustic, baselines, embedded, visual
from emer_ray.reason.baselines import voice_baselines
from emer_ray.reason.embedded import EmbeddedReasoner
from emer_ray.reason.vocabulary import GROUP_OF, GROUPS, WORDS, choose
from emer_ray.records import Answer, Clues, Explanation, Measure
from tests import rows
from tests.clue_check import check, numbers, unsupported

CLASSES = ("neutral", *GROUPS)
FACE = {
    "frames.seen": 16,
    "face.tracks": 1,
    "face.coverage": 1,
    "face.lead": 1,
    "face.height": 0.4,
    "head.yaw": 5,
    "head.motion": 0.4,
    "smile.share": 0,
    "mouth_open.median": 0.02,
    "mouth_open.wide": 0,
    "mouth_open.hold": 0,
    "mouth_open.rhythm": 0.2,
}
VOICE = {
    "sound.seconds": 4,
    "sound.level": -25,
    "speech.pauses": 0,
    "speech.pause_seconds": 0,
    "speech.rate": 4.2,
    "loudness.median": -22,
    "loudness.range": 18,
    "voice.tilt": -5,
    "f0.median": 180,
    "f0.range": 6.5,
    "f0.end": 0,
}


def read(**shares: float) -> dict[str, float]:
    """Expression measures: mean and apex alike, the rest neutral."""
    means = {name: shares.get(name, 0.0) for name in CLASSES}
    means["neutral"] = shares.get("neutral", 1 - sum(shares.values()))
    return {f"expression.{n}.{s}": m for n, m in means.items() for s in ("mean", "p90")}


def seen(values: Mapping[str, float]) -> list[Measure]:
    """A face; spans and baselines where perception would give them."""
    made = [measure(name, value, when=_when(name)) for name, value in values.items()]
    peaks = {"mouth_open.p90": 0.25, "mouth_width.p90": 0.74, "corner_lift.p90": 0.05}
    return made + [
        measure(name, peak, when=(1.2, 1.2), against=(0.03, "own median"))
        for name, peak in peaks.items()
    ]


def _when(name: str) -> tuple[float, float] | None:
    return (0.5, 1.9) if name in ("smile.share", "mouth_open.hold") or "p90" in name else None


def heard(**changes: float) -> list[Measure]:
    values = VOICE | {name.replace("_", ".", 1): value for name, value in changes.items()}
    return [
        *(measure(name, value) for name, value in values.items()),
        measure("speech.seconds", 3.1, when=(0.4, 3.5)),
    ]


def explain(
    measures: list[Measure],
    known: Mapping[str, tuple[float, float, int]] | None = None,
    **fields: object,
) -> Explanation:
    """Reason without any weights: what the sentences say and which groups have evidence."""
    names = {m.measure for m in measures}
    clues = Clues(
        clip_id="a",
        measures=tuple(measures),
        has_video="frames.seen" in names,
        has_audio="sound.seconds" in names,
        **fields,  # type: ignore[arg-type]
    )
    reasoner = EmbeddedReasoner(weights={}, missing={}, baselines=known or {})
    (reply,) = reasoner.explain([rows.request(clues)])
    raw = reply.raw
    assert reasoner.explain([rows.request(clues)])[0].raw == raw
    found = parse.explanation(
        Answer(step="s", sample=0, raw=raw, finish="stop", tokens_in=None, tokens_out=None,
               latency_s=None)
    )  # fmt: skip
    for clue in (*found.visual_clues, *found.acoustic_clues, *found.lexical_clues):
        check(clue)
    return found


def groups(found: Explanation) -> set[str]:
    return {GROUP_OF[label.label] for label in found.labels}


def texts(found: Explanation) -> str:
    return " ".join(clue.text for clue in (*found.visual_clues, *found.acoustic_clues))


def test_a_smile_is_happy_and_says_what_it_saw() -> None:
    found = explain(seen(FACE | {"smile.share": 0.9} | read(happy=0.95)))
    assert groups(found) == {"happy"}
    assert found.labels[0].support == pytest.approx(2 / 3 * 0.95 + 1 / 3 * 0.95, abs=0.01)
    assert "into a smile (90 % of the pictures" in texts(found)
    assert "mouth width 0.74 of the eye distance at 1.2 s, own median 0.03" in texts(found)
    assert "Doubt 0.10 of 1" in found.explanation
    assert "baseline of small models" in found.explanation
    assert found.confidence == 0.9


@pytest.mark.parametrize(
    "shares",
    [
        {"neutral": 0.8, "happy": 0.2},
        {"happy": 0.45, "neutral": 0.5},  # below the least evidence
        {"sad": 0.74, "neutral": 0.2},  # two thirds of it are not enough
        {"sad": 0.8, "neutral": 0.6},  # enough, but neutral leads
    ],
)
def test_no_clear_emotion_has_no_label(shares) -> None:
    found = explain(seen(FACE | read(**shares)))
    assert found.labels == ()
    assert "No clear emotion" in found.explanation


def test_strong_sadness_is_said() -> None:
    assert groups(explain(seen(FACE | read(sad=0.9)))) == {"sad"}


def test_a_short_moment_counts_by_its_apex() -> None:
    moment = read(surprised=0.3, neutral=0.6) | {
        "expression.surprised.p90": 0.8,
        "mouth_open.wide": 0.2,
        "mouth_open.hold": 1.0,
    }
    found = explain(seen(FACE | moment))
    assert groups(found) == {"surprised"}
    assert "drops open and stays open (from 0.5 to 1.9 s" in texts(found)


SURPRISE = read(surprised=0.9, neutral=0.05) | {"mouth_open.wide": 0.3, "mouth_open.hold": 1.4}


@pytest.mark.parametrize(
    ("change", "sound", "why"),
    [
        ({"mouth_open.in_speech": 0.9}, True, "speech is heard"),
        ({"mouth_open.rhythm": 2.5}, False, "rhythmically"),
        ({"mouth_open.hold": 0.4}, False, "longer than a vowel"),
    ],
)
def test_articulation_is_not_surprise(change, sound, why) -> None:
    assert groups(explain(seen(FACE | SURPRISE))) == {"surprised"}
    measures = seen(FACE | SURPRISE | change) + (heard() if sound else [])
    found = explain(measures)
    assert found.labels == ()
    assert why in texts(found)
    assert "drops open" not in texts(found)
    assert found.confidence < 0.6  # it may have been surprise after all


def test_a_mouth_open_outside_speech_stays_surprise() -> None:
    found = explain(seen(FACE | SURPRISE | {"mouth_open.in_speech": 0.2}) + heard())
    assert groups(found) == {"surprised"}


def test_sparse_pictures_claim_no_vowel() -> None:
    values = FACE | SURPRISE | {"mouth_open.hold": 0.0}
    del values["mouth_open.rhythm"]
    found = explain(seen(values))
    assert "the pictures lie too far apart to tell" in texts(found)
    assert found.labels == ()


def test_pitch_without_a_baseline_is_hertz_only() -> None:
    found = explain(heard(f0_median=290))
    assert "median pitch of the voice is 290 Hz (no baseline" in texts(found)
    assert "higher" not in texts(found)


@pytest.mark.parametrize(
    ("hertz", "says"),
    [
        (290, "much higher-pitched than usual (290 Hz; median of 7 clips of this run 200)"),
        (240, "somewhat higher-pitched"),
        (120, "much lower-pitched"),
        (210, "median pitch of the voice is 210 Hz (median of 7 clips of this run 200)"),
    ],
)
def test_pitch_against_the_run(hertz, says) -> None:
    found = explain(heard(f0_median=hertz), {"f0.median": (200.0, 35.0, 7)})
    assert says in texts(found)
    evidence = [m for c in found.acoustic_clues for m in c.evidence if m.measure == "f0.median"]
    assert {(m.value, m.baseline, m.baseline_source) for m in evidence} == {
        (hertz, 200.0, "median of 7 clips of this run")
    }


def test_norms_are_named_and_the_run_comes_first() -> None:
    fast = heard(speech_rate=6.5)
    assert "much faster than usual" in texts(explain(fast))
    assert "published norm of adult conversation 4.2" in texts(explain(fast))
    assert "faster" not in texts(explain(fast, {"speech.rate": (6.3, 1.0, 9)}))


def test_an_even_voice_says_against_what() -> None:
    found = explain(heard())
    assert "voice is even (pitch range 6.5 against 6.7; pace 4.2 against 4.2)" in texts(found)
    deviating = explain(heard(f0_median=290), {"f0.median": (200.0, 35.0, 7)})
    assert "even" not in texts(deviating)


def test_a_voice_alone_claims_no_emotion_and_no_picture() -> None:
    found = explain(heard(speech_rate=6.5, f0_range=14), subtitle="I am furious!",
                    subtitle_source="given")  # fmt: skip
    assert found.labels == ()
    assert found.visual_clues == ()
    assert "The clip has no picture." in found.explanation
    assert "A voice alone tells arousal (here aroused)" in found.explanation


def test_without_face_and_voice_it_says_so() -> None:
    nobody = [measure("frames.seen", 12), measure("face.tracks", 0), measure("face.coverage", 0)]
    found = explain(nobody, n_faces=0)
    assert found.labels == ()
    assert found.confidence == 0
    assert "No face is seen in any of 12 pictures" in texts(found)
    assert "There is no face and no voice to judge" in found.explanation
    silent = [measure("sound.seconds", 3), measure("sound.level", -100)]
    assert "The sound is silent" in texts(explain(silent))
    quiet = [*silent[:1], measure("sound.level", -30), measure("speech.seconds", 0)]
    assert "hardly any speech" in texts(explain(quiet))


def test_several_faces_state_the_rule_and_raise_doubt() -> None:
    crowd = FACE | {"smile.share": 0.9} | read(happy=0.95) | {"face.tracks": 3, "face.lead": 0.2}
    found = explain(seen(crowd), n_faces=3, main_face="the first of 3 faces by size x time")
    assert "3 faces are seen; the main one is described" in texts(found)
    assert "leading the next by 20 %" in texts(found)
    assert "The main character is the first of 3 faces by size x time" in found.explanation
    assert found.confidence == pytest.approx(0.9 * 0.6)


def test_a_face_seen_in_part_says_so() -> None:
    found = explain(seen(FACE | read(happy=0.2) | {"face.coverage": 0.44, "head.yaw": 31}))
    assert "in 44 % of the pictures" in texts(found)
    assert "It is not seen all the time. It is turned to the side (31 degrees)." in texts(found)


@pytest.mark.parametrize(
    ("low", "high", "source", "says"),
    [
        (0.16, 0.20, "own median", "seem raised for a moment (brow height 0.20"),
        (0.13, 0.18, "own median", "seem to go up and down"),
        (0.16, 0.18, "own median", None),
        (0.16, 0.20, None, "seem to go up and down"),  # a short clip has no median of its own
    ],
)
def test_brows_are_hedged_and_measured_against_the_clip(low, high, source, says) -> None:
    against = (0.17, source) if source else None
    brows = [
        measure("brow_height.p10", low, when=(0.4, 0.4), against=against),
        measure("brow_height.p90", high, when=(2.4, 2.4), against=against),
    ]
    text = texts(explain(seen(FACE | read()) + brows))
    assert (says in text) if says else ("brows" not in text)


def test_missing_parts_are_named_with_their_reason() -> None:
    note = "expression: not available (npm is not here)"
    smiling = FACE | {"smile.share": 0.9}
    found = explain(seen(smiling), notes=(note,))
    assert f"Note: {note}." in found.explanation
    assert "ranking of words by nearness: not available (no file minilm.onnx)" in found.explanation
    assert groups(found) == {"happy"}  # the shape of the mouth alone
    assert "expression reads" not in texts(found)
    reasoner = EmbeddedReasoner(weights={}, missing={"minilm.onnx": "gone"}, baselines={})
    (reply,) = reasoner.explain([rows.request(Clues(clip_id="a"))])
    assert "not available (gone)" in json.loads(reply.raw)["explanation"]
    reasoner.close()
    reasoner.close()


def test_arousal_of_the_voice_shifts_support_but_makes_no_label() -> None:
    happy = seen(FACE | {"smile.share": 0.4} | read(happy=0.6, neutral=0.3))
    known = {"loudness.median": (-22.0, 4.0, 6)}
    loud, soft = (explain(happy + heard(loudness_median=db), known) for db in (-10, -34))
    assert loud.labels[0].support > soft.labels[0].support
    faint = seen(FACE | {"smile.share": 0.1} | read(happy=0.51, neutral=0.3))
    assert groups(explain(faint + heard(loudness_median=-60), known)) == {"happy"}
    still = seen(FACE | read(happy=0.1))
    assert explain(still + heard(loudness_median=-10), known).labels == ()


def test_the_answer_is_one_object_with_fixed_keys() -> None:
    reasoner = EmbeddedReasoner(weights={}, missing={}, baselines={})
    clues = [Clues(clip_id=name, measures=tuple(heard())) for name in "ab"]
    replies = reasoner.explain([rows.request(one) for one in clues])
    assert [list(json.loads(r.raw)) for r in replies] == [
        ["visual_clues", "acoustic_clues", "lexical_clues", "explanation", "labels", "confidence"]
    ] * 2
    assert replies[0].raw == replies[1].raw  # the id of a clip says nothing about it


@given(
    st.dictionaries(st.sampled_from(sorted(GROUPS)), st.floats(0, 1)),
    st.lists(st.floats(-5, 5), min_size=len(WORDS), max_size=len(WORDS)),
    st.floats(0, 10),
)
def test_words_never_outvote_the_evidence(evidence, preference, weight) -> None:
    chosen = choose(evidence, [(weight, np.array(preference))], 0.5)
    assert len(chosen) <= 4
    for word, support in chosen:
        assert evidence[GROUP_OF[word]] >= 0.5
        assert 0 < support <= evidence[GROUP_OF[word]] + 1e-9
    assert bool(chosen) == any(share >= 0.5 for share in evidence.values())


def test_words_are_listed_once_and_in_lower_case() -> None:
    assert len(set(WORDS)) == len(WORDS)
    assert all(word == word.lower() for word in WORDS)
    assert set(GROUPS) == set(visual.EXPRESSIONS) - {"neutral"}


def test_voice_baselines_need_five_clips_and_no_order() -> None:
    clips = [heard(f0_median=hertz) for hertz in (100, 120, 140, 200, 220, 400)]
    found = voice_baselines(clips)
    median, spread, n = found["f0.median"]
    assert (median, n) == (170.0, 6)
    assert spread == pytest.approx(1.4826 * 50, abs=0.01)  # of 30, 30, 50, 50, 70, 230
    assert voice_baselines(clips[::-1]) == found
    assert voice_baselines(clips[:4]) == {}
    assert set(found) == set(baselines.MEASURED)
    assert found["speech.rate"][1] == pytest.approx(0.05 * 4.2)  # alike is not exact
    without = [[replace(m, value=None) for m in clips[0]], *clips[:4]]
    assert voice_baselines(without) == {}


def test_every_measure_the_reasoner_asks_for_is_one_perception_makes() -> None:
    asked = {
        node.value
        for module in (visual, acoustic, embedded, baselines)
        for node in ast.walk(ast.parse(Path(str(module.__file__)).read_text()))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and re.fullmatch(r"[a-z0-9_]+\.[a-z0-9_.]*[a-z0-9]", node.value)
    }
    assert len(asked) > 25
    assert asked - MEASURES.keys() == set(embedded.FILES)


def test_the_check_itself_finds_foreign_numbers() -> None:
    clue = acoustic.sentences({m.measure: m for m in heard()}, {})[0]
    assert unsupported(clue) == []
    assert unsupported(replace(clue, text=clue.text.replace("3.1 s", "3.3 s"))) == ["3.3"]
    assert numbers('7 of 10 % at -0.5 s, "not 3"') == ["7", "10 %", "-0.5"]
    with pytest.raises(AssertionError, match="no rule"):
        check(replace(clue, text="He is a Scorpio."))
