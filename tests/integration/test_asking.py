"""The ways of asking as whole runs on Ray: several models, samples, reuse, a second parse, an
endpoint with every fault.
"""

import itertools
import re
from pathlib import Path
from typing import Any

import pytest

from emer_ray import config, recipes, runner
from emer_ray.config import RunConfig
from emer_ray.errors import BudgetError, ConfigError
from emer_ray.relabel import relabel
from emer_ray.reparse import reparse
from emer_ray.runner import Cluster
from emer_ray.store import index, layout, parts, record
from tests import actors, rows
from tests.chat_server import serving

pytestmark = pytest.mark.ray


def clips(synthetic: Path, count: int) -> list[dict[str, Any]]:
    return [
        {
            "clip_id": f"clip-{number:03d}",
            "video_uri": str(synthetic / f"c{number % 6}.mp4"),
            "subtitle_en": f"the words of clip-{number:03d}",
            "licence_tag": "CC0-1.0",
        }
        for number in range(count)
    ]


def asking(
    tmp_path: Path,
    recipe: str,
    listed: list[dict[str, Any]],
    run: str = "run",
    *,
    models: dict[str, Any] | None = None,
    **sections: Any,
) -> RunConfig:
    names = {step.model for step in recipes.load(recipe).steps}
    return config.parse(
        {
            "recipe": recipe,
            "output": {"run": str(tmp_path / run), "shard_clips": 4},
            "media": {"frames": 2, "size_px": 64},
            "models": {**{name: {"backend": "fake"} for name in names}, **(models or {})},
            "budget": {"failed_share": 1},
            **sections,
            "input": {
                "manifest": rows.manifest(tmp_path / f"{run}.jsonl", listed),
                **sections.get("input", {}),
            },
        }
    )


def test_three_models_look_listen_and_merge(
    local_ray: Cluster, synthetic: Path, tmp_path: Path
) -> None:
    listed = clips(synthetic, 6)
    listed[1]["video_uri"] = str(synthetic / "mute.mp4")
    listed[2] = {"clip_id": "clip-002", "audio_uri": str(synthetic / "voice.wav")}
    summary = relabel(asking(tmp_path, "clue_merge", listed))
    assert (summary["ok"], summary["failed"]) == (6, 0)
    found = rows.stored(summary["run"])
    whole, mute, sound = (found[f"clip-00{number}"] for number in range(3))
    assert [a["step"] for a in whole["answers"]] == ["visual", "acoustic", "merge", "labels"]
    assert whole["visual_clues"][0]["text"].startswith("2 frames were shown; 0 samples")
    assert whole["acoustic_clues"][0]["text"].startswith("0 frames were shown; 16")
    assert whole["explanation"].startswith("0 frames were shown; 0 samples were played")
    assert whole["labels"]
    assert [a["step"] for a in mute["answers"]] == ["visual", "merge", "labels"]
    assert "step acoustic was not asked: the clip has nothing that it reads" in mute["notes"]
    assert [a["step"] for a in sound["answers"]] == ["acoustic", "merge", "labels"]
    pools = record.require(summary["run"])["starts"][0]["choices"]
    assert {"pools.reason.video", "pools.reason.audio", "pools.reason.text"} <= set(pools)


def test_samples_give_labels_their_support(
    local_ray: Cluster, synthetic: Path, tmp_path: Path
) -> None:
    summary = relabel(asking(tmp_path, "one_shot", clips(synthetic, 4), samples={"explain": 5}))
    for row in rows.stored(summary["run"]).values():
        assert [answer["sample"] for answer in row["answers"]] == [0, 1, 2, 3, 4]
        support = [label["support"] for label in row["labels"]]
        assert support == sorted(support, reverse=True)
        assert all(0 < share <= 1 for share in support)
        assert any("the medoid of 5 readable answers" in note for note in row["notes"])


def test_equal_steps_of_another_run_are_not_asked_again(
    local_ray: Cluster, synthetic: Path, tmp_path: Path
) -> None:
    listed = clips(synthetic, 8)
    first = relabel(asking(tmp_path, "one_shot", listed, "first"))
    for path in ("clip-000", "clip-001"):
        listed[int(path[-1])]["subtitle_en"] = "other words"
    seen = "(\\d+) of these"
    with serving(lambda text: (re.search(seen, text) or ["?"])[0]) as server:
        text = {
            "backend": "openai",
            "model": "m",
            "options": {"base_url": server.url, "structured": False, "in_flight": 4},
        }
        second = relabel(
            asking(
                tmp_path,
                "labels",
                listed,
                "second",
                models={"text": text},
                input={"answers": first["run"]},
            )
        )
        assert len(server.received) == 8  # one for each clip's labels, none for its media
    assert (second["ok"], second["failed"]) == (8, 0)
    old, new = rows.stored(first["run"]), rows.stored(second["run"])
    for name, row in new.items():
        assert [answer["step"] for answer in row["answers"]] == ["explain", "labels"]
        same = row["answers"][0]["raw"] == old[name]["answers"][0]["raw"]
        assert same == (name not in ("clip-000", "clip-001"))
        assert row["media"] == old[name]["media"]
        assert [label["label"] for label in row["labels"]] == ["happy", "grateful"]
    start = record.require(second["run"])["starts"][0]
    assert start["reused"] == {"run": first["run"], "steps": ["explain"], "clips": 6, "embedded": 0}

    with pytest.raises(ConfigError, match="no step that is asked exactly as here"):
        relabel(
            asking(
                tmp_path,
                "one_shot",
                listed,
                "third",
                media={"frames": 3},
                input={"answers": first["run"]},
            )
        )


def test_answers_are_read_again_without_a_model(
    local_ray: Cluster, synthetic: Path, tmp_path: Path
) -> None:
    script = {"clip-001": "garbage", "clip-002": "refuse", "clip-003": "loop", "clip-004": "cut"}
    models = {"main": {"backend": "fake", "options": {"script": script}}}
    summary = relabel(asking(tmp_path, "one_shot", clips(synthetic, 8), models=models))
    run = summary["run"]
    kinds = {name: row["kind"] for name, row in rows.stored(run).items() if row.get("kind")}
    assert kinds == {
        **{"clip-001": "unparsable", "clip-002": "refused"},
        **{"clip-003": "repetitive", "clip-004": "cut_off"},
    }
    before = rows.stored(run)
    assert reparse(run)["changed"] == 0
    assert rows.stored(run) == before

    # as if the parser had been worse: what it could not read then, it can now
    for part in layout.live(run):
        table = parts.read(run, part)
        mended = table.to_pylist()
        for row in mended:
            if row["clip_id"] == "clip-001":
                row["answers"][0]["raw"] = before["clip-000"]["answers"][0]["raw"]
            if row["clip_id"] == "clip-005":
                row["answers"][0]["raw"] = "I cannot help with that."
        (Path(run) / part.name).write_bytes(
            parts.serialise(type(table).from_pylist(mended, schema=table.schema))
        )
    again = reparse(run)
    assert (again["ok"], again["failed"], again["changed"]) == (4, 4, 2)
    after = rows.stored(run)
    assert after["clip-001"]["labels"] == before["clip-000"]["labels"]
    assert after["clip-001"]["media"] == before["clip-001"]["media"]
    assert after["clip-001"]["provenance"] == before["clip-000"]["provenance"]
    assert (after["clip-005"]["kind"], after["clip-005"]["stage"]) == ("refused", "parse")
    assert index.verify(run).holds
    assert relabel(asking(tmp_path, "one_shot", clips(synthetic, 8), models=models))["skipped"] == 8


FAULTS: dict[str, tuple[list[str], str | None, str, list[float]]] = {
    "clip-001": (["status:429:2"], None, "", [2.0]),
    "clip-002": (["status:500", "status:502"], None, "", [0.25, 0.5]),
    "clip-003": (["reset"], None, "", [0.25]),
    "clip-004": (["half"], None, "", [0.25]),
    "clip-005": (["error_in_200"], None, "", [0.25]),
    "clip-006": (["slow:9"], None, "", [3.25]),
    "clip-007": (["refusal"], "refused", "finished with refusal", []),
    "clip-008": (["loop"], "repetitive", "no explanation in 'very happy very happy", []),
    "clip-009": (["cut"], "cut_off", "no explanation in", []),
    "clip-010": (["prose"], "refused", "As an AI", []),
    "clip-011": (["status:400"], "rejected", "400 'as told'", []),
    "clip-012": (["status:500"] * 9, "endpoint", "3 tries: 500 'as told'", [0.25, 0.5]),
    "clip-013": (["slow:9"] * 9, "timeout", "3 tries: ", [3.25, 3.5]),
    "clip-014": (["half"] * 9, "endpoint", "3 tries: a 200 whose body is no JSON", [0.25, 0.5]),
    "clip-015": (["reset"] * 9, "endpoint", "3 tries: ", [0.25, 0.5]),
    "clip-016": (["error_in_200"] * 9, "endpoint", "3 tries: 503 'overloaded'", [0.25, 0.5]),
    "clip-017": (["coded:400:odd"], "rejected", "400 'no: Bearer (key)'", []),
}
"""What a clip's requests meet, what its row then says, and the least seconds between requests."""


def test_a_run_through_a_faulty_endpoint_ends_with_the_right_rows(
    local_ray: Cluster, synthetic: Path, tmp_path: Path
) -> None:
    with serving(lambda text: (re.search(r"clip-\d+", text) or ["?"])[0]) as server:
        server.acts.update({name: acts for name, (acts, _, _, _) in FAULTS.items()})
        model = {
            "backend": "openai",
            "model": "m",
            "price": {"input_usd": 1.0, "output_usd": 2.0},
            "options": {
                **{"base_url": server.url, "audio": "input_audio", "in_flight": 6},
                **{"tries": 3, "timeout_s": 3.0, "key_env": "EMER_TEST_KEY"},
            },
        }
        listed = clips(synthetic, 24)
        for row in listed[18:]:
            row["licence_tag"] = None  # loopback: nothing leaves this machine
        summary = relabel(asking(tmp_path, "one_shot", listed, models={"main": model}))
        received = {name: server.of(name) for name in (row["clip_id"] for row in listed)}
    found = rows.stored(summary["run"])
    for name, (_, kind, said, gaps) in FAULTS.items():
        got = received[name]
        assert (name, found[name].get("kind"), len(got)) == (name, kind, len(gaps) + 1)
        assert said in (found[name].get("message") or "")
        # every try is the same request, whole, and none comes before its time
        assert len({one.size for one in got}) == 1
        assert got[0].size > 2 * 16_000  # a second of sound alone
        waited = [after.at_s - before.at_s for before, after in itertools.pairwise(got)]
        assert all(wait >= gap for wait, gap in zip(waited, gaps, strict=True)), (name, waited)
    good = [name for name in found if name not in FAULTS]
    assert {(found[name].get("kind"), len(received[name])) for name in good} == {(None, 1)}
    every = [one for got in received.values() for one in got]
    assert max(one.in_flight for one in every) <= 6
    # the key goes to the server, and nowhere else, though the server says it back
    assert {one.headers["authorization"] for one in every} == {"Bearer sk-very-secret"}
    written = (tmp_path / "run" / "run.json").read_text(encoding="utf-8")
    assert "sk-very-secret" not in written + str(found)
    assert found["clip-000"]["usd"] == pytest.approx((1000 + 2 * 100) / 1e6)
    assert found["clip-012"]["usd"] is None
    # the raw answer of what could not be read is kept, and paid
    assert found["clip-007"]["answers"][0]["raw"] == "I will not."
    assert found["clip-008"]["answers"][0]["raw"].startswith("very happy very happy")
    assert found["clip-008"]["usd"] == found["clip-000"]["usd"]
    paid = [row["usd"] for row in found.values() if row["usd"] is not None]
    assert len(paid) == 24 - 7
    assert record.require(summary["run"])["usd"] == pytest.approx(sum(paid))
    assert index.verify(summary["run"]).holds


def test_a_priced_run_stops_before_its_budget_and_goes_on_with_a_larger_one(
    local_ray: Cluster, synthetic: Path, tmp_path: Path
) -> None:
    each = 1000 / 1e6
    with serving(lambda text: (re.search(r"clip-\d+", text) or ["?"])[0]) as server:
        model = {
            "backend": "openai",
            "model": "m",
            "price": {"input_usd": 1.0},
            "options": {"base_url": server.url, "audio": "input_audio", "in_flight": 2},
        }

        def allowed(usd: float) -> RunConfig:
            budget = {"usd": usd, "failed_share": 1}
            return asking(
                tmp_path, "one_shot", clips(synthetic, 16), models={"main": model}, budget=budget
            )

        before = actors.alive()
        with pytest.raises(BudgetError, match=r"budget\.usd") as stopped:
            relabel(allowed(9.5 * each + 0.004))
        runner.connect()
        actors.wait_for_end(before)
        del stopped  # held until here, with all that an error holds
        assert len(server.received) * each <= 9.5 * each + 0.004
        done = index.outcomes(str(tmp_path / "run")).height
        assert 4 <= done < 16
        summary = relabel(allowed(1.0))
    assert (summary["ok"], summary["failed"], summary["skipped"]) == (16, 0, done)
