import json
import os
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from emer_ray import schema, storage
from emer_ray.errors import RunDirError
from emer_ray.store import claims, index, layout, lease, parts, record

FINGERPRINT = "0123456789abcdef"


def manifest(*clip_ids: str) -> pl.DataFrame:
    rows = [
        {**dict.fromkeys(schema.MANIFEST.names), "clip_id": name, "video_uri": f"/{name}.mp4"}
        for name in clip_ids
    ]
    return pl.DataFrame(pl.from_arrow(schema.table(rows, schema.MANIFEST)))


def explained(clip_id: str, shard: int) -> dict[str, object]:
    lists = ("visual_clues", "acoustic_clues", "lexical_clues", "labels")
    provenance = {"fingerprint": FINGERPRINT, "recipe": "r", "models": [], "versions": []}
    return {
        **dict.fromkeys(schema.EXPLANATIONS.names),
        **{name: [] for name in lists},
        **{
            "clip_id": clip_id,
            "shard": shard,
            "attempt": 1,
            "explanation": "",
            "parse_rung": "json",
        },
        "provenance": provenance,
    }


def failed(clip_id: str, shard: int, kind: str = "corrupt") -> dict[str, object]:
    return {
        **dict.fromkeys(schema.FAILURES.names),
        **{"clip_id": clip_id, "shard": shard, "attempt": 1, "fingerprint": FINGERPRINT},
        **{"stage": "decode", "kind": kind, "message": "no"},
    }


def write(
    run: str, shard: int, ok: list[str], bad: list[str], fingerprint: str = FINGERPRINT
) -> None:
    parts.write(
        run,
        shard,
        fingerprint,
        schema.table([explained(name, shard) for name in ok], schema.EXPLANATIONS),
        schema.table([failed(name, shard) for name in bad], schema.FAILURES),
    )


def shards_of(placed: pl.DataFrame) -> dict[str, list[int]]:
    return dict(placed.select("clip_id", "shards").iter_rows())


# shards


def test_shards_are_fixed_once_and_a_grown_manifest_appends() -> None:
    first = index.assign_shards(manifest("a", "b", "c"), None, 2)
    assert shards_of(first) == {"a": [0], "b": [0], "c": [1]}
    grown = index.assign_shards(manifest("z", "c", "a", "y", "x"), first, 2)
    assert shards_of(grown) == {
        "z": [2],
        "c": [1],
        "a": [0],
        "y": [2],
        "x": [3],
        "b": [0],
    }
    assert grown.filter(~pl.col("present"))["clip_id"].to_list() == ["b"]


def test_a_clip_that_comes_back_keeps_its_shard() -> None:
    first = index.assign_shards(manifest("a", "b"), None, 1)
    without = index.assign_shards(manifest("a"), first, 1)
    again = index.assign_shards(manifest("b", "a"), without, 1)
    assert shards_of(again) == {"b": [1], "a": [0]}


def test_an_equal_manifest_is_the_very_one_that_is_stored() -> None:
    first = index.assign_shards(manifest("a", "b"), None, 1)
    assert index.assign_shards(manifest("a", "b"), first, 1) is first
    left = index.assign_shards(manifest("a"), first, 1)
    assert left is not first
    assert index.assign_shards(manifest("a"), left, 1) is left
    again = index.assign_shards(manifest("a", "b"), left, 1)
    assert again["present"].all()
    other = manifest("a", "b").with_columns(subtitle_en=pl.lit("so"))
    placed = index.assign_shards(other, first, 1)
    assert placed["subtitle_en"].to_list() == ["so", "so"]
    nothing = pl.DataFrame(pl.from_arrow(schema.INDEX.empty_table()))
    assert index.reassign_failed(first, nothing, [], 1) is first


def test_retrying_gives_failed_clips_of_the_kinds_a_new_shard(tmp_path: Path) -> None:
    run = str(tmp_path)
    placed = index.assign_shards(manifest("a", "b", "c", "d"), None, 2)
    write(run, 0, ["a"], ["b"])
    write(run, 1, [], ["c", "d"])
    outcomes = index.outcomes(run)
    assert shards_of(index.reassign_failed(placed, outcomes, ["timeout"], 2)) == shards_of(placed)
    again = index.reassign_failed(placed, outcomes, [], 2)
    assert shards_of(again) == {"a": [0], "b": [0, 2], "c": [1, 2], "d": [1, 3]}
    assert index.unfinished(again, outcomes) == [2, 3]
    clips = index.clips_of(again, [2])
    assert clips.select("clip_id", "shard", "shard_clips", "attempt").rows() == [
        ("b", 2, 2, 2),
        ("c", 2, 2, 2),
    ]


def test_the_run_manifest_survives_its_file(tmp_path: Path) -> None:
    placed = index.assign_shards(manifest("a", "b", "c"), None, 2)
    index.save_manifest(str(tmp_path), placed)
    found = index.load_manifest(str(tmp_path))
    assert found is not None
    assert found.equals(placed)
    assert index.assign_shards(manifest("a", "b", "c"), found, 2) is found
    assert index.load_manifest(str(tmp_path / "elsewhere")) is None


# resume


def test_a_shard_with_a_missing_clip_is_run_whole(tmp_path: Path) -> None:
    run = str(tmp_path)
    placed = index.assign_shards(manifest("a", "b", "c", "d"), None, 2)
    assert index.unfinished(placed, index.outcomes(run)) == [0, 1]
    write(run, 0, ["a"], [])  # killed between the two puts
    write(run, 1, ["c"], ["d"])
    assert index.unfinished(placed, index.outcomes(run)) == [0]
    assert [
        table["clip_id"].to_pylist() for table in index.shard_tables(index.clips_of(placed, [0]))
    ] == [["a", "b"]]


def test_a_snapshot_answers_for_its_parts_and_newer_parts_are_read(tmp_path: Path) -> None:
    run = str(tmp_path)
    write(run, 0, ["a"], ["b"])
    before = index.outcomes(run)
    index.save_snapshot(run, before)
    write(run, 1, ["c"], [])
    for folder in parts.SCHEMAS:  # what the snapshot vouches for is not opened again
        path = Path(tmp_path, parts.name(folder, 0, FINGERPRINT))
        facts = path.stat()
        path.write_bytes(b"x" * facts.st_size)
        os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    after = index.outcomes(run)
    assert sorted(after["clip_id"].to_list()) == ["a", "b", "c"]
    assert after.columns == schema.INDEX.names


def test_a_snapshot_does_not_vouch_for_a_part_that_is_gone_or_stored_anew(tmp_path: Path) -> None:
    run = str(tmp_path)
    placed = index.assign_shards(manifest("a", "b", "c", "d"), None, 2)
    write(run, 0, ["a"], ["b"])
    write(run, 1, ["c", "d"], [])
    index.save_snapshot(run, index.outcomes(run))
    Path(tmp_path, parts.name("explanations", 1, FINGERPRINT)).unlink()
    assert index.unfinished(placed, index.outcomes(run)) == [1]
    write(run, 0, ["a", "b"], [])
    Path(tmp_path, parts.name("failures", 0, FINGERPRINT)).unlink()
    assert index.outcomes(run).select("clip_id", "outcome").rows() == [("a", "ok"), ("b", "ok")]


def test_a_torn_snapshot_costs_time_and_no_truth(tmp_path: Path) -> None:
    run = str(tmp_path)
    write(run, 0, ["a"], ["b"])
    truth = index.outcomes(run)
    index.save_snapshot(run, truth)
    index.save_snapshot(run, truth)
    newest = max(Path(tmp_path, "index").iterdir())
    newest.write_bytes(newest.read_bytes()[:40])
    assert index.newest_snapshot(run).equals(truth)
    for snapshot in Path(tmp_path, "index").iterdir():
        snapshot.unlink()
    assert index.outcomes(run).sort("clip_id").equals(truth.sort("clip_id"))


def test_shards_that_run_again_say_their_own_rows_anew(tmp_path: Path) -> None:
    run = str(tmp_path)
    write(run, 0, ["a"], [])
    write(run, 1, ["b"], ["c"])
    rows = index.outcomes(run)
    compacted = parts.compacted_name("explanations", 0, 9, FINGERPRINT, "0123abcd")
    moved = rows.filter(shard=1).with_columns(part=pl.lit(compacted))
    kept = index.without(pl.concat([rows, moved]), [1, 2])
    assert kept.schema.equals(schema.INDEX)
    assert kept["clip_id"].to_pylist() == ["a", "b", "c"]
    assert set(kept["part"].to_pylist()[1:]) == {compacted}


def test_old_snapshots_are_cleared_but_the_one_before_the_newest(tmp_path: Path) -> None:
    run = str(tmp_path)
    write(run, 0, ["a"], [])
    for _ in range(4):
        index.save_snapshot(run, index.outcomes(run))
    assert sorted(path.name for path in Path(tmp_path, "index").iterdir()) == [
        "000003.parquet",
        "000004.parquet",
    ]


def test_what_came_since_a_snapshot_is_named_beside_it_and_then_by_the_next(
    tmp_path: Path,
) -> None:
    def files() -> list[str]:
        return sorted(path.name for path in Path(tmp_path, "index").glob("*"))

    def opened() -> list[str]:
        live = layout.live(run)
        return [part.name for part in index.vouched(index.newest_snapshot(run), live)[1]]

    run = str(tmp_path)
    snapshots = index.Snapshots(run, schema.INDEX.empty_table, every=20)
    seen = []
    for shard in range(12):
        write(run, shard, [f"clip-{shard}"], [])
        rows = index.outcomes(run).filter(shard=shard)
        seen.append((snapshots.add(rows.to_arrow().cast(schema.INDEX)), files(), len(opened())))
    first, second = "000001.parquet", "000002.parquet"
    beside = [first, "000001-since.parquet"]
    assert seen[:4] == [
        (False, [], 1),
        (True, [first], 0),
        (False, [first], 1),
        (True, sorted(beside), 0),
    ]
    assert [stored for stored, _, _ in seen] == [False, True] * 6
    assert all(unnamed <= 1 for _, _, unnamed in seen)
    whole = index.newest_snapshot(run)
    assert whole["clip_id"].to_list() == [f"clip-{shard}" for shard in range(12)]
    # a torn file beside costs time and no truth
    Path(tmp_path, "index", beside[1]).write_bytes(b"torn")
    assert len(opened()) == 10
    assert index.outcomes(run).height == 12
    snapshots.close()
    assert files() == [first, second]
    assert index.newest_snapshot(run).equals(whole)


# parts


def test_a_part_is_the_same_bytes_each_time(tmp_path: Path) -> None:
    write(str(tmp_path), 3, ["a"], [])
    path = Path(tmp_path, parts.name("explanations", 3, FINGERPRINT))
    first = path.read_bytes()
    write(str(tmp_path), 3, ["a"], [])
    assert path.read_bytes() == first
    parts.check(first, "explanations/x")


@pytest.mark.parametrize("at", [10, 200, -200])
def test_a_flipped_byte_is_found(tmp_path: Path, at: int) -> None:
    write(str(tmp_path), 0, ["a"], [])
    data = bytearray(Path(tmp_path, parts.name("explanations", 0, FINGERPRINT)).read_bytes())
    data[at] ^= 0xFF
    with pytest.raises(RunDirError):
        parts.check(bytes(data), "explanations/x")


def test_receipts_name_the_part_and_the_failure(tmp_path: Path) -> None:
    rows = schema.table([failed("b", 7, "timeout")], schema.FAILURES)
    (receipt,) = parts.write(str(tmp_path), 7, FINGERPRINT, schema.EXPLANATIONS.empty_table(), rows)
    assert (receipt.clip_id, receipt.outcome, receipt.kind) == ("b", "failed", "timeout")
    assert receipt.part == "failures/00000007-0123456789ab.parquet"
    assert not Path(tmp_path, "explanations").exists()


# verify


def test_verify_counts_what_it_finds(tmp_path: Path) -> None:
    run = str(tmp_path)
    placed = index.assign_shards(manifest("a", "b", "c", "d", "e"), None, 2)
    index.save_manifest(run, placed)
    write(run, 0, ["a"], ["b"])
    write(run, 1, ["c", "gone"], ["d"])
    write(run, 9, ["d"], [])  # a retry that succeeded
    verdict = index.verify(run)
    assert (verdict.clips, verdict.ok, verdict.failed, verdict.missing) == (5, 3, 1, 1)
    assert (verdict.duplicate, verdict.superseded, verdict.extra) == (0, 1, 1)
    assert not verdict.holds
    write(run, 2, [], ["e"])
    assert index.verify(run).holds


def test_verify_finds_duplicates(tmp_path: Path) -> None:
    run = str(tmp_path)
    index.save_manifest(run, index.assign_shards(manifest("a", "b"), None, 2))
    write(run, 0, ["a"], ["b"])
    write(run, 0, ["a"], ["b"], fingerprint="f" * 16)
    verdict = index.verify(run)
    assert (verdict.duplicate, verdict.holds) == (2, False)


def test_a_clip_in_both_folders_of_its_shard_is_ok(tmp_path: Path) -> None:
    run = str(tmp_path)
    index.save_manifest(run, index.assign_shards(manifest("a"), None, 2))
    write(run, 0, ["a"], ["a"])
    verdict = index.verify(run)
    assert (verdict.ok, verdict.failed, verdict.superseded, verdict.holds) == (1, 0, 1, True)


def test_verify_names_a_damaged_part(tmp_path: Path) -> None:
    run = str(tmp_path)
    index.save_manifest(run, index.assign_shards(manifest("a"), None, 2))
    write(run, 0, ["a"], [])
    path = Path(run, parts.name("explanations", 0, FINGERPRINT))
    path.write_bytes(path.read_bytes()[:-30])
    verdict = index.verify(run)
    assert not verdict.holds
    assert "explanations/00000000-0123456789ab.parquet" in verdict.bad_parts[0]


def test_verify_refuses_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunDirError, match=r"manifest\.parquet"):
        index.verify(str(tmp_path))


# claims


@pytest.mark.parametrize("left", [b"", b'{"alone": {'])
def test_a_torn_claim_counts_nothing_and_stops_nobody(tmp_path: Path, left: bytes) -> None:
    held = claims.claim(str(tmp_path), "explain", 4)
    Path(held.uri).write_bytes(left)
    again = claims.claim(str(tmp_path), "explain", 4)
    assert (again.first, again.alone) == (False, {})


def test_nothing_is_claimed_of_a_run_that_is_through(tmp_path: Path) -> None:
    claims.claim(str(tmp_path), "parse", 4)
    claims.claim(str(tmp_path), "write", 4)
    claims.clear(str(tmp_path))
    assert not list(tmp_path.rglob("*.json"))
    claims.clear(str(tmp_path))


def test_a_claim_that_goes_while_it_is_read_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = claims.claim(str(tmp_path), "explain", 4)
    create = storage.create

    def created_then_released(uri: str, data: bytes) -> bool:
        made = create(uri, data)
        held.release()  # by a process that everybody thought dead
        return made

    monkeypatch.setattr(storage, "create", created_then_released)
    assert not claims.claim(str(tmp_path), "explain", 4).first


def test_a_second_claim_learns_of_the_first_one(tmp_path: Path) -> None:
    held = claims.claim(str(tmp_path), "explain", 4)
    assert held.first
    again = claims.claim(str(tmp_path), "explain", 4)
    assert not again.first
    again.release()
    assert claims.claim(str(tmp_path), "explain", 4).first


def test_three_lonely_tries_without_a_result_exhaust_a_clip(tmp_path: Path) -> None:
    claims.claim(str(tmp_path), "explain", 0)
    for tries in range(claims.ALONE_TRIES):
        held = claims.claim(str(tmp_path), "explain", 0)
        assert not held.exhausted("bad"), tries
        held.try_alone("good")
        held.succeeded("good")
        held.try_alone("bad")  # and here the process dies
    last = claims.claim(str(tmp_path), "explain", 0)
    assert last.exhausted("bad")
    assert not last.exhausted("good")


def test_the_watchdog_leaves_word(tmp_path: Path) -> None:
    held = claims.claim(str(tmp_path), "explain", 0)
    held.try_alone("slow")
    held.blame("timeout")
    assert claims.claim(str(tmp_path), "explain", 0).blamed == {"slow": "timeout"}


# lease


def test_a_second_driver_is_refused_and_may_take_over(tmp_path: Path) -> None:
    run = str(tmp_path)
    with lease.held(run):
        assert lease.holder(run) is not None
        with pytest.raises(RunDirError, match="--take-over"), lease.held(run):
            pass
        with lease.held(run, take_over=True):
            pass
    assert lease.holder(run) is None


def test_a_driver_that_was_taken_over_says_so_and_leaves_the_lease_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lease, "HEARTBEAT_S", 0.05)
    run = str(tmp_path)
    with lease.held(run), lease.held(run, take_over=True):
        until = time.monotonic() + 10
        while not caplog.messages and time.monotonic() < until:
            time.sleep(0.02)
        taken = storage.read(storage.join(run, "lease.json"))
        assert "taken over by process" in caplog.text
    assert len(caplog.messages) == 1
    assert json.loads(taken)["pid"] == os.getpid()


def test_a_dead_driver_on_this_host_is_taken_over_at_once(tmp_path: Path) -> None:
    code = "import os, sys\nfrom emer_ray.store import lease\n"
    code += "with lease.held(sys.argv[1]):\n    os.kill(os.getpid(), 9)\n"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert Path(tmp_path, "lease.json").exists()
    with lease.held(str(tmp_path)):
        pass


@pytest.mark.parametrize(("age_s", "refused"), [(5.0, True), (60.0, False)])
def test_a_driver_elsewhere_counts_by_its_heartbeat(
    tmp_path: Path, age_s: float, refused: bool
) -> None:
    other = {"host": "elsewhere", "pid": 1, "boot": "x", "id": "y", "beat": time.time() - age_s}
    storage.write(storage.join(str(tmp_path), "lease.json"), json.dumps(other).encode())
    if refused:
        with pytest.raises(RunDirError), lease.held(str(tmp_path)):
            pass
    else:
        with lease.held(str(tmp_path)):
            assert lease.holder(str(tmp_path))["pid"] == os.getpid()  # type: ignore[index]


# record


def test_a_foreign_directory_is_refused_with_the_keys_that_differ(tmp_path: Path) -> None:
    old = {"fingerprint_parts": {"media.frames": 8, "language": "en"}}
    new = {"media.frames": 16, "language": "en"}
    with pytest.raises(
        RunDirError, match=r"media\.frames: 8 there, 16 here.*--accept media\.frames"
    ):
        record.refuse_foreign("run", old, new, [])
    assert record.refuse_foreign("run", old, new, ["media.frames"]) == ["media.frames"]
    assert record.refuse_foreign("run", old, old["fingerprint_parts"], []) == []


def test_secrets_are_not_recorded(tmp_path: Path) -> None:
    url = "https://me:hush@host/v1?version=2&X-Amz-Signature=hush&a"
    parts = {"models.main.options": {"api_key": "hush", "url": url}}
    record.save(
        str(tmp_path),
        {
            "fingerprint": "f",
            "fingerprint_parts": parts,
            "config": {"options": {"api_key": "hush", "n": 1, "url": url}},
        },
    )
    text = Path(tmp_path, "run.json").read_text()
    assert "hush" not in text
    assert "https://host/v1?version=2&X-Amz-Signature=&a" in text
    assert record.refuse_foreign("run", record.require(str(tmp_path)), parts, []) == []
    assert record.require(str(tmp_path))["config"]["options"]["n"] == 1


def test_a_directory_without_a_record_is_no_run(tmp_path: Path) -> None:
    assert record.load(str(tmp_path)) is None
    with pytest.raises(RunDirError, match=r"run\.json"):
        record.require(str(tmp_path))


def test_every_table_of_a_shard_obeys_the_schema() -> None:
    placed = index.assign_shards(manifest("a", "b", "c"), None, 2)
    for table in index.shard_tables(index.clips_of(placed, [0, 1])):
        assert isinstance(table, pa.Table)
        assert table.schema.equals(schema.CLIPS)
