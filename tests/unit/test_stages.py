import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from emer_ray import containment, meter, prompts, schema, stages
from emer_ray.config import ModelConfig
from emer_ray.errors import ClipError, ConfigError, StorageError
from emer_ray.parse import Asked
from emer_ray.records import ModelUsed, Provenance
from emer_ray.store import claims, index

MEDIA = {
    **dict.fromkeys(schema.MEDIA_FACTS.type.names),
    **{"has_video": True, "has_audio": True, "decoded_s": 2.0, "short": False},
    **{"n_frames": 2, "decoder": "none"},
}


def clips(*clip_ids: str, shard: int = 0) -> pa.Table:
    rows = [
        {
            **dict.fromkeys(schema.CLIPS.names),
            **{"clip_id": name, "shard": shard, "shard_clips": len(clip_ids), "attempt": 1},
        }
        for name in clip_ids
    ]
    return schema.table(rows, schema.CLIPS)


def frames(clip_id: str) -> containment.Row:
    return {
        "frames": np.full((2, 3, 4, 3), ord(clip_id), np.uint8),
        "frame_shape": [2, 3, 4, 3],
        "frame_times_s": [0.0, 1.0],
        "pcm": np.arange(5, dtype=np.float32),
        "media": MEDIA,
    }


def decoded(*clip_ids: str, bad: str = "", shard: int = 0) -> pa.Table:
    def work(rows: list[containment.Row]) -> list[containment.Row | ClipError]:
        return [
            ClipError("corrupt", "no") if row["clip_id"] in bad else frames(row["clip_id"])
            for row in rows
        ]

    table = clips(*clip_ids, shard=shard)
    return containment.through(table, stage="decode", to=schema.DECODED, work=work)


def test_rows_keep_their_order_and_a_failed_row_its_reason() -> None:
    table = decoded("a", "b", "c", bad="b")
    assert table.schema.equals(schema.DECODED)
    assert table["clip_id"].to_pylist() == ["a", "b", "c"]
    assert table["kind"].to_pylist() == [None, "corrupt", None]
    assert table["stage"].to_pylist() == [None, "decode", None]
    assert table["frames"][1].as_py() is None
    assert table["frames"][2].as_py() == b"c" * 72


def test_a_failed_row_passes_later_stages_untouched() -> None:
    seen: list[str] = []

    def work(rows: list[containment.Row]) -> list[containment.Row | ClipError]:
        seen.extend(row["clip_id"] for row in rows)
        return [{"notes": ["seen"]} for _ in rows]

    table = decoded("a", "b", bad="a")
    after = containment.through(
        table, stage="encode", to=schema.ENCODED, work=work, drops=containment.HEAVY
    )
    assert seen == ["b"]
    assert after["notes"].to_pylist() == [None, ["seen"]]
    assert after["message"].to_pylist() == ["no", None]
    assert after["frames"].null_count == after["pcm"].null_count == 2


def test_frames_and_sound_come_back_as_they_went_in() -> None:
    (row,) = containment.rows_of(decoded("a"))
    assert np.array_equal(stages._frames(row), frames("a")["frames"])  # type: ignore[arg-type]
    assert np.array_equal(stages._pcm(row), frames("a")["pcm"])  # type: ignore[arg-type]


def test_an_unexpected_exception_costs_the_clip_that_raises_it() -> None:
    def work(rows: list[containment.Row]) -> list[containment.Row | ClipError]:
        if any(row["clip_id"] == "b" for row in rows):
            raise ZeroDivisionError("b is odd")
        return [{"notes": []} for _ in rows]

    table = decoded("a", "b", "c")
    with meter.metered() as spent:
        after = containment.through(table, stage="encode", to=schema.ENCODED, work=work)
    assert after["kind"].to_pylist() == [None, "error", None]
    assert after["message"][1].as_py() == "ZeroDivisionError: b is odd"
    counted = {name: spent.counts[name] for name in ("ok", "failed", "dead", "retries")}
    assert counted == {
        "ok": {"encode": 2},
        "failed": {"encode": 1},
        "dead": {"error": 1},
        "retries": {"clip_by_clip": 1},
    }
    assert len(spent.spans) == 4  # all three at once, then each


def test_a_mistake_of_the_run_is_no_row() -> None:
    def work(rows: list[containment.Row]) -> list[containment.Row | ClipError]:
        raise ConfigError("no such model")

    with pytest.raises(ConfigError):
        containment.through(decoded("a"), stage="encode", to=schema.ENCODED, work=work)


def test_a_lost_answer_is_noticed() -> None:
    with pytest.raises(AssertionError, match="2 rows went in, 1 answers"):
        containment.through(
            decoded("a", "b"), stage="encode", to=schema.ENCODED, work=lambda _: [{"notes": []}]
        )


def test_a_column_that_no_schema_knows_is_refused() -> None:
    with pytest.raises(ValueError, match="mood"):
        containment.through(
            decoded("a"), stage="encode", to=schema.ENCODED, work=lambda _: [{"mood": 1}]
        )


def test_an_answer_that_no_table_can_hold_costs_its_clip() -> None:
    def work(rows: list[containment.Row]) -> list[containment.Row | ClipError]:
        return [{"notes": [f"half a pair: \ud83d {row['clip_id']}"]} for row in rows[:1]] + [
            {"notes": ["fine"]} for _ in rows[1:]
        ]

    after = containment.through(decoded("a", "b"), stage="encode", to=schema.ENCODED, work=work)
    assert after["kind"].to_pylist() == ["error", None]
    assert "column notes: UnicodeEncodeError" in after["message"][0].as_py()
    assert after["notes"].to_pylist() == [None, ["fine"]]


def test_an_exception_whose_words_are_no_utf8_is_a_row_all_the_same() -> None:
    def work(rows: list[containment.Row]) -> list[containment.Row | ClipError]:
        raise RuntimeError("half a pair: \ud83d")

    after = containment.through(decoded("a"), stage="encode", to=schema.ENCODED, work=work)
    assert after["message"].to_pylist() == ["RuntimeError: half a pair: \\ud83d"]


def test_micro_batches_are_as_large_as_asked() -> None:
    sizes: list[int] = []

    def work(rows: list[containment.Row]) -> list[containment.Row | ClipError]:
        sizes.append(len(rows))
        return [{"notes": []} for _ in rows]

    guard = containment.Guard(batch=2)
    containment.through(
        decoded(*"abcde"), stage="encode", to=schema.ENCODED, work=work, guard=guard
    )
    assert sizes == [2, 2, 1]


def test_claims_are_gone_after_clean_work(tmp_path: Path) -> None:
    guard = containment.Guard(run=str(tmp_path))
    containment.through(
        decoded("a"), stage="encode", to=schema.ENCODED, work=lambda _: [{"notes": []}], guard=guard
    )
    assert not list(tmp_path.rglob("*.json"))


def test_after_a_death_a_shard_goes_clip_by_clip(tmp_path: Path) -> None:
    claims.claim(str(tmp_path), "encode", 0)
    sizes: list[int] = []

    def work(rows: list[containment.Row]) -> list[containment.Row | ClipError]:
        sizes.append(len(rows))
        return [{"notes": []} for _ in rows]

    guard = containment.Guard(run=str(tmp_path))
    containment.through(decoded(*"abc"), stage="encode", to=schema.ENCODED, work=work, guard=guard)
    assert sizes == [1, 1, 1]


SCRIPT = """
import json, sys
from emer_ray import containment, schema
from tests.unit.test_stages import decoded
run, fault, deadline = sys.argv[1], sys.argv[2], float(sys.argv[3])
guard = containment.Guard(run=run, deadline_s=deadline, memory_mb=900, faults={"b": fault})
after = containment.through(decoded(*"abc"), stage="encode", to=schema.ENCODED,
                       work=lambda rows: [{"notes": []} for _ in rows], guard=guard)
print(json.dumps([after["kind"].to_pylist(), after["message"].to_pylist()]))
"""


@pytest.mark.parametrize(
    ("fault", "kind"),
    [("exit", "crashed"), ("segfault", "crashed"), ("bloat", "memory"), ("hang", "timeout")],
)
def test_a_clip_that_kills_its_process_is_given_up_after_three_lonely_tries(
    tmp_path: Path, fault: str, kind: str
) -> None:
    command = [
        sys.executable,
        "-c",
        SCRIPT,
        str(tmp_path),
        fault,
        "0.3" if fault == "hang" else "60",
    ]
    root = Path(__file__).parents[2]
    deaths = 0
    while (done := subprocess.run(command, cwd=root, capture_output=True, text=True)).returncode:
        deaths += 1
        assert deaths < 6, done.stderr
    assert deaths == 1 + claims.ALONE_TRIES
    assert f'[null, "{kind}", null]' in done.stdout
    assert not list(tmp_path.rglob("*.json"))


NATIVE = """
import ctypes, sys
from emer_ray import containment, schema
from tests.unit.test_stages import decoded
containment.NATIVE_GRACE_S = containment.TIMER_SLACK_S = 0.5
def done(deadline_s, work):
    guard = containment.Guard(run=sys.argv[1], deadline_s=deadline_s)
    containment.through(decoded("a"), stage="encode", to=schema.ENCODED, work=work, guard=guard)
done(600, lambda rows: [{"notes": []}])
print("first", flush=True)
done(0.3, lambda rows: ctypes.PyDLL(None).sleep(90))
"""


def test_native_code_that_hangs_with_the_interpreter_is_ended_after_a_longer_wait_before(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-c", NATIVE, str(tmp_path)]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=60)
    assert done.stdout == "first\n"
    assert done.returncode == 1
    assert "Timeout" in done.stderr
    assert not claims.claim(str(tmp_path), "encode", 0).first  # whoever comes next knows


SIDE_BY_SIDE = """
import json, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
from emer_ray import containment, schema
from emer_ray.errors import EngineDied
from tests.unit.test_stages import decoded
guard = containment.Guard(run=sys.argv[1])
containment.side_by_side(3)
together = threading.Barrier(3)
def work(rows):
    if len(rows) > 1 and sys.argv[2] == "0":
        together.wait(60)  # at the first start three shards are inside at once
    time.sleep(0.05)
    if any(row["clip_id"] == "e" for row in rows):
        raise EngineDied("gone")
    return [{"notes": []} for _ in rows]
def shard(number):
    table = decoded(*("abc", "def", "ghi")[number], shard=number)
    return containment.through(table, stage="encode", to=schema.ENCODED, work=work, guard=guard)
with ThreadPoolExecutor(3) as pool:
    print(json.dumps([table["kind"].to_pylist() for table in pool.map(shard, range(3))]))
"""


def test_of_shards_side_by_side_the_clip_that_kills_the_engine_pays_alone(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SIDE_BY_SIDE, str(tmp_path)]
    root = Path(__file__).parents[2]
    deaths = 0
    while True:
        told = [*command, str(deaths)]
        done = subprocess.run(told, cwd=root, capture_output=True, text=True)
        if not done.returncode:
            break
        assert done.returncode == containment.EXIT_GIVEN_UP, done.stderr
        deaths += 1
        assert deaths < 6, done.stderr
    assert deaths == 1 + claims.ALONE_TRIES
    assert '[[null, null, null], [null, "crashed", null], [null, null, null]]' in done.stdout
    assert not list(tmp_path.rglob("*.json"))


UNDOING = """
import json, pathlib, sys
from concurrent.futures import ThreadPoolExecutor
from emer_ray import containment, schema
from tests.unit.test_stages import decoded
faults = {"b": "exit", "e": "hang"}
guard = containment.Guard(run=sys.argv[1], deadline_s=0.5, faults=faults)
def shard(number):
    returned = pathlib.Path(sys.argv[1], f"returned-{number}")
    if returned.exists():  # as Ray repeats only what was not returned
        return
    table = decoded(*("abc", "def")[number], shard=number)
    with containment.claims_kept():
        for stage in ("encode", "next"):
            table = containment.through(
                table, stage=stage, to=schema.ENCODED, work=lambda rows: [{}] * len(rows),
                guard=guard,
            )
        returned.write_text(json.dumps(table["kind"].to_pylist()))
with ThreadPoolExecutor(2) as pool:
    list(pool.map(shard, range(2)))
"""


def test_shards_of_one_process_do_not_undo_what_each_other_gave_up(tmp_path: Path) -> None:
    """A shard whose clip was given up waits for its next stage while the other one's clip kills."""
    command = [sys.executable, "-c", UNDOING, str(tmp_path)]
    root = Path(__file__).parents[2]
    deaths = 0
    while (done := subprocess.run(command, cwd=root, capture_output=True, text=True)).returncode:
        deaths += 1
        assert deaths <= 2 * (1 + claims.ALONE_TRIES), done.stderr
    kinds = [json.loads((tmp_path / f"returned-{number}").read_text()) for number in range(2)]
    assert kinds == [[None, "crashed", None], [None, "timeout", None]]


def parsed(*clip_ids: str, script: dict[str, str] | None = None) -> pa.Table:
    model = ModelConfig(backend="fake", options={"script": script or {}})
    encode = stages.Encode(model=model, guard=containment.Guard(), drops=())
    reason = stages.Reason(
        question=prompts.question(
            step="explain", prompt="explain", form="explanation", language="en"
        ),
        reads=(),
        samples=1,
        model=model,
        guard=containment.Guard(),
        drops=containment.HEAVY,
    )
    parse = stages.Parse(asked=[Asked(step="explain", form="explanation")])
    table = parse(reason(encode(decoded(*clip_ids))))
    assert table.schema.equals(schema.PARSED)
    return table


def test_the_raw_answer_of_an_unparsable_reply_is_kept() -> None:
    table = parsed("a", "b", script={"a": "refuse"})
    assert table["kind"].to_pylist() == ["refused", None]
    assert table["answers"][0][0]["raw"].as_py() == "I cannot help with that."
    assert table["labels"][0].as_py() is None


def test_the_fake_model_is_told_what_there_is() -> None:
    (row,) = parsed("a").to_pylist()
    assert row["visual_clues"][0]["text"] == "2 frames were shown"
    assert row["acoustic_clues"][0]["text"] == "5 samples were played"


PROVENANCE = Provenance(
    fingerprint="f" * 64,
    recipe="one_shot",
    models=(ModelUsed(step="s", backend="fake", model="fake", revision=None, prompt_hash="p"),),
    versions={"python": "3"},
)


def test_the_writer_stores_both_outcomes_and_returns_receipts(tmp_path: Path) -> None:
    write = stages.Write(run=str(tmp_path), provenance=PROVENANCE)
    table = parsed("a", "b", "c", script={"b": "fail"})
    with meter.metered() as spent:
        receipts = write(table)
    stored = sum(part.stat().st_size for part in tmp_path.glob("*/*.parquet"))
    assert spent.counts["bytes"] == {"written": stored}
    assert receipts.schema.equals(schema.INDEX)
    assert sorted(
        zip(receipts["clip_id"].to_pylist(), receipts["outcome"].to_pylist(), strict=True)
    ) == [
        ("a", "ok"),
        ("b", "failed"),
        ("c", "ok"),
    ]
    assert index.outcomes(str(tmp_path)).height == 3


def test_a_row_that_cannot_be_stored_fails_and_its_neighbours_do_not(tmp_path: Path) -> None:
    table = parsed("a", "b")
    clues = table["visual_clues"].to_pylist()
    clues[0] = [{"text": None, "evidence": []}]  # a null where the schema has none
    number = table.schema.get_field_index("visual_clues")
    field = table.schema.field("visual_clues")
    table = table.set_column(number, field, pa.array(clues, field.type))
    receipts = stages.Write(run=str(tmp_path), provenance=PROVENANCE)(table)
    ends = dict(zip(receipts["clip_id"].to_pylist(), receipts["stage"].to_pylist(), strict=True))
    assert ends == {"a": "write", "b": None}


def test_storage_that_fails_is_the_runs_trouble_and_leaves_no_claim(tmp_path: Path) -> None:
    (tmp_path / "explanations").write_text("a file where the parts should go")
    guard = containment.Guard(run=str(tmp_path))
    write = stages.Write(run=str(tmp_path), provenance=PROVENANCE, guard=guard)
    with pytest.raises(StorageError, match="not a directory"):
        write(parsed("a"))
    assert not list(tmp_path.rglob("claims/**/*.json"))


def test_a_writer_that_sees_part_of_a_shard_stops_the_run(tmp_path: Path) -> None:
    write = stages.Write(run=str(tmp_path), provenance=PROVENANCE)
    with pytest.raises(AssertionError, match="2 of 3 clips"):
        write(parsed("a", "b", "c").slice(0, 2))
    assert not list(tmp_path.rglob("*.parquet"))
