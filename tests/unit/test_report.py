"""The parts of the page: what is drawn, what is inert, what is linked to what."""

import dataclasses
from typing import Any

import polars as pl
import pytest

pytest.importorskip("vl_convert", reason="needs the extra: pip install 'emer-ray[report]'")

from emer_ray import inert, schema
from emer_ray.report import cards, gather, page, plots, sample, sections

BLANK = dict.fromkeys(schema.RUN_MANIFEST.names)


def clip(clip_id: str, **given: Any) -> dict[str, Any]:
    """A row of `Run.clips`: ok, with two labels of one family, unless said otherwise."""
    row: dict[str, Any] = {
        **{name: BLANK[name] for name in ("clip_id", "label_onehot", "label_ov", "split")},
        **{"label_scores": None, "corpus": None, "speaker": None, "licence_tag": "CC-BY-4.0"},
        **{"outcome": "ok", "stage": None, "kind": None, "part": "p", "words": ["happy", "joyful"]},
        **{"supports": [1.0, 0.5], "confidence": 0.9, "clip_id": clip_id},
        **{"has_video": True, "has_audio": True, "short": False, "seconds": 2.0},
    }
    return row | given


def run_of(rows: list[dict[str, Any]]) -> gather.Run:
    table = pl.DataFrame(rows, infer_schema_length=None, schema_overrides={"stage": pl.String})
    return gather.Run(uri="runs/x", record={}, clips=table, answers=pl.DataFrame())


def many(n: int = 40) -> list[dict[str, Any]]:
    rows = [clip(f"c{k:02d}") for k in range(n)]
    for row in rows[:6]:
        row |= {"outcome": "failed", "stage": "decode", "kind": "missing", "words": None}
    rows[6] |= {"outcome": "failed", "stage": "parse", "kind": "refused", "words": None}
    rows[7]["words"] = ["happy", "angry", "sad"]
    rows[8]["label_onehot"] = "angry"
    rows[9]["label_onehot"] = "joyful"
    return rows


def strata(drawn: list[sample.Drawn]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for one in drawn:
        found.setdefault(one.stratum, []).append(one.clip_id)
    return found


def test_a_sample_is_stratified_and_says_why() -> None:
    drawn = sample.draw(run_of(many()), 12, seed=3)
    by = strata(drawn)
    assert len(drawn) == len({one.clip_id for one in drawn}) == 12
    assert by["surprising"] == ["c08"]
    assert by["ambiguous"] == ["c07"]
    assert len(by["failed"]) == 3
    assert "c06" in by["failed"][:2], "each kind has its turn"
    why = {one.clip_id: one.because for one in drawn}
    assert why["c08"] == "old label angry, and no new label of its family"
    assert why["c07"] == "labels of 3 families: anger, enjoyment, sadness"


def test_a_sample_depends_on_the_seed_and_on_no_order() -> None:
    rows = many()
    drawn = sample.draw(run_of(rows), 12, seed=3)
    assert sample.draw(run_of(rows[::-1]), 12, seed=3) == drawn
    assert sample.draw(run_of(rows), 12, seed=4) != drawn


def test_clips_asked_for_come_first_and_suspects_are_surprising() -> None:
    drawn = sample.draw(
        run_of(many()), 8, seed=0, chosen=["c20"], suspects=[("c30", "suspect 1"), ("c20", "2")]
    )
    assert (drawn[0].clip_id, drawn[0].stratum) == ("c20", "chosen")
    assert strata(drawn)["surprising"] == ["c30"]
    assert len(drawn) == 9


def test_marks_that_could_act_are_shown_instead() -> None:
    assert inert.visible("a\u202eb\x00c\x1b[31m") == "a⟨202E⟩b⟨0000⟩c⟨001B⟩[31m"
    assert inert.visible("你好\r\nمرحبا 👩\u200d👧\t!") == "你好\nمرحبا 👩\u200d👧\t!"


def test_what_the_template_prints_is_escaped_and_inert() -> None:
    template = page._environment().from_string("<p title='{{ x }}'>{{ x }} {{ [x, x] | join }}")
    said = template.render(x="'><script>\u202e")
    assert "<script" not in said
    assert "\u202e" not in said
    assert said.count("&#39;&gt;&lt;script&gt;⟨202E⟩") == 4


def test_drawings_carry_their_numbers_and_no_markup_of_labels() -> None:
    hostile = "<script>alert(1)</script>\"'&\u202e"
    plot = plots.bars("Words", [(hostile, 3), ("高兴", 2)], n=5, unit="clips", what="label")
    assert "<script" not in plot.svg
    assert "\u202e" not in plot.svg
    assert "高兴" in plot.svg
    assert plot.rows == ((hostile, 3), ("高兴", 2))
    assert 'role="img"' in plot.svg
    assert "style=" not in plot.svg, "the page's policy refuses style attributes"
    assert "var(--bar)" in plot.svg, "one drawing for light and dark"


def test_plots_count_the_rows() -> None:
    found = sections.labels(run_of(many()))
    words, *_ = found["words"]
    assert words.n == 33
    assert dict(words.rows)["happy"] == 33  # type: ignore[arg-type]
    assert dict(words.rows)["angry"] == 1  # type: ignore[arg-type]
    ekman = found["wheels"][0]
    assert dict(ekman.rows) == {"enjoyment": 33, "anger": 1, "sadness": 1}  # type: ignore[arg-type]
    sizes = found["spread"][0]
    assert dict(sizes.rows)["2"] == 32  # type: ignore[arg-type]


def test_what_was_predicted_stands_beside_what_was_measured() -> None:
    both = {"predicted": 2.0, "measured": 1.0, "error": 1.0}
    plan = {"at": "today", "hours": both, "pools": {"encode": {"busy_share": both}}}
    starts = [{"plan": plan, "seconds": 3600.0}, {"seconds": 0.1}]
    run = dataclasses.replace(run_of(many()), record={"starts": starts})
    assert sections.outcome(run)["foretold"] == [
        ("hours", 2.0, 1.0, 1.0),
        ("encode: busy_share", 2.0, 1.0, 1.0),
    ]
    bare = dataclasses.replace(run, record={"starts": starts[1:]})
    assert sections.outcome(bare)["foretold"] == []


def test_a_run_without_an_explanation_has_no_plots_of_labels() -> None:
    found = sections.labels(run_of(many()[:6]))
    assert found == {"words": [], "wheels": [], "spread": [], "groups": []}


def test_an_explanation_links_to_the_clues_it_repeats() -> None:
    clues = (
        cards.Clue(name="V1", sense="visual", text="One face is seen (all of it).", evidence=()),
        cards.Clue(name="L1", sense="lexical", text="Short.", evidence=()),
    )
    told = cards._told("In the video, one face is seen; short.", clues)
    assert told == (("In the video, ", None), ("one face is seen", "V1"), ("; short.", None))


def test_key_pictures_lie_at_the_cited_times_and_apart() -> None:
    row = {
        "visual_clues": [
            {"text": "t", "evidence": [evidence(1.0, 1.0), evidence(1.02, 1.02)]},
            {"text": "t", "evidence": [evidence(0.2, 3.8), evidence(None, None)]},
        ],
        "media": {"decoded_s": 4.0},
    }
    manifest = {**BLANK, "clip_id": "c"}
    times = cards.wish(row, manifest).times_s
    assert {1.0, 0.2, 3.8} <= set(times)
    assert 1.02 not in times
    assert len(times) == cards.LEAST_FRAMES


def evidence(start_s: float | None, end_s: float | None) -> dict[str, Any]:
    return {
        **{"measure": "mouth_open.p90", "value": 0.1, "unit": "eye distances"},
        **{"start_s": start_s, "end_s": end_s, "baseline": None, "baseline_source": None},
    }


def test_old_labels_are_read_in_whichever_form_they_have() -> None:
    none = {"label_onehot": None, "label_ov": None, "label_scores": None}
    assert gather.old_labels(none | {"label_onehot": "sad"}) == ["sad"]
    assert gather.old_labels(none | {"label_ov": ["sad", "tired"]}) == ["sad", "tired"]
    shares = {"happy": 0.25, "sad": 0.75, "angry": 0.0}
    assert gather.old_labels(none | {"label_scores": shares}) == ["sad 0.75", "happy 0.25"]


def test_stretches_of_time_are_said_the_way_people_say_them() -> None:
    assert [page.duration(s) for s in (None, 3.21, 61, 7300)] == [
        "—",
        "3.2 s",
        "1 min 1 s",
        "2 h 1 min",
    ]


def test_cost_is_copied_from_the_record() -> None:
    assert sections.spent(run_of(many())) is None
    pool = {"actors": 2, "cpus": 1.0, "gpus": 1.0, "busy_s": 60.0, "idle_s": 12.0}
    pool |= {"busy_share": None, "clips_per_s_per_actor": 0.5}
    sums = dict.fromkeys(("cpu_s", "tokens_in", "bytes_read", "bytes_written", "usd"))
    whole = {"clips": 30, "gpu_s": 72.0, "tokens_out": 3_000_000, **sums}
    whole |= {"per_1000_clips": {"gpu_s": 2400.0, "tokens_out": 1e8, **sums}}
    run = run_of(many())
    run = gather.Run(
        uri=run.uri,
        record={"cost": whole, "starts": [{}, {"cost": {"pools": {"reason.main": pool}}}, {}]},
        clips=run.clips,
        answers=run.answers,
    )
    found = sections.spent(run)
    assert found is not None
    assert found["sums"] == [
        ("GPU hours", "0.02", "0.667"),
        ("million tokens out", "3", "100"),
    ]
    assert found["pools"] == [("reason.main", 2, 60.0, 12.0, None, 0.5)]
