"""Compaction: rows stay as they are, at every step, whoever dies, wakes up or looks."""

import collections
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from emer_ray import compact as verb
from emer_ray import schema, storage
from emer_ray.errors import EmerError, RunDirError
from emer_ray.metrics import inputs
from emer_ray.show import show
from emer_ray.store import compaction, index, layout, lease, parts, record
from tests.unit.test_store import FINGERPRINT, explained, manifest, write

OTHER = "f" * 16


@pytest.fixture
def run(tmp_path: Path) -> str:
    """Twelve shards of two clips: most are ok, some failed, one was retried, one is unfinished."""
    ids = [f"c{number:02d}" for number in range(24)]
    run = str(tmp_path / "run")
    placed = index.assign_shards(manifest(*ids), None, 2)
    for shard in range(11):
        first, second = ids[2 * shard : 2 * shard + 2]
        write(run, shard, [first], [second] if shard % 3 == 0 else [])
        if shard % 3:
            write(run, shard, [first, second], [])
    placed = index.reassign_failed(placed, index.outcomes(run), [], 2)
    write(run, 12, ["c01", "c07"], [])
    index.save_manifest(run, placed)
    index.save_snapshot(run, index.outcomes(run))
    record.save(run, {"fingerprint": FINGERPRINT})
    return run


def content(run: str) -> "collections.Counter[str]":
    """Every row that counts, as text, with how often it is there."""
    found: collections.Counter[str] = collections.Counter()
    for part in layout.live(run):
        found.update(str(row) for row in parts.read(run, part).to_pylist())
    return found


def told(run: str) -> list[tuple[object, ...]]:
    """What the index says, less where it lies."""
    return sorted(index.outcomes(run).drop("part", "version").rows(), key=str)


def names(run: str) -> list[str]:
    return [part.name for part in layout.live(run)]


def walk(run: str, upto: int | None = None) -> list[str]:
    """Take some steps of a compaction, then be gone like a killed process."""
    steps = compaction.steps(run, compaction.Compacted())
    taken = []
    for said in steps:
        taken.append(said)
        if len(taken) == upto:
            break
    return taken


def test_rows_stay_and_parts_become_few(run: str) -> None:
    before, index_before, verdict = content(run), told(run), index.verify(run)
    done = verb.compact(run)
    assert (done["parts_before"], done["parts_after"]) == (16, 2)
    assert content(run) == before
    assert told(run) == index_before
    after = index.verify(run, deep=True)
    assert (after.clips, after.ok, after.failed, after.missing) == (24, 20, 2, 2)
    assert (after.superseded, after.duplicate, after.read) == (verdict.superseded, 0, 2)
    assert names(run)[0].startswith("explanations/00000000-00000012-0123456789ab-")
    left = [path for path in Path(run).rglob("*") if path.is_file()]
    assert sorted(path.parent.name for path in left if path.suffix == ".json") == ["compact", "run"]
    assert show(run, "c07")["row"]["clip_id"] == "c07"
    assert show(run, "c07")["superseded"][0]["kind"] == "corrupt"
    assert inputs.read(run).collect().height == 20
    again = verb.compact(run)
    assert (again["parts_before"], again["parts_after"], again["rows"]) == (2, 2, 0)


def test_a_process_that_dies_between_any_two_steps_leaves_the_same_rows(
    tmp_path: Path, run: str
) -> None:
    before, index_before = content(run), told(run)
    all_steps = len(walk(str(shutil.copytree(run, tmp_path / "whole"))))
    assert all_steps == 5
    for upto in range(1, all_steps + 1):
        torn = str(shutil.copytree(run, tmp_path / f"torn{upto}"))
        walk(torn, upto)
        assert content(torn) == before, upto
        assert told(torn) == index_before, upto
        assert index.verify(torn, deep=True).missing == 2, upto
        assert verb.compact(torn)["parts_after"] == 2
        assert content(torn) == before, upto
        stored = [path for path in Path(torn).glob("*/*.parquet") if path.parent.name != "index"]
        assert len(stored) == 2, upto
        for second in (1, 2):  # it dies again, while it goes on after the first death
            again = str(shutil.copytree(run, tmp_path / f"torn{upto}-{second}"))
            walk(again, upto)
            walk(again, second)
            assert content(again) == before, (upto, second)


def test_a_part_stored_after_its_shard_was_compacted_counts_instead(run: str) -> None:
    before = content(run)
    verb.compact(run)
    write(run, 4, ["c08", "c09"], [])  # a zombie stores what it has stored before
    assert content(run) == before
    assert index.verify(run).duplicate == 0
    write(run, 0, ["c00", "c01"], [])  # shard 0 was run again, and now c01 is ok there too
    assert index.verify(run).duplicate == 1
    assert inputs.read(run).collect().height == 20
    hidden = {shard for part in layout.live(run) for shard in part.hidden}
    assert hidden == {0, 4}
    rows_before, index_before = content(run), told(run)
    assert verb.compact(run)["parts_after"] == 2
    assert content(run) == rows_before
    assert told(run) == index_before


def test_rows_of_a_shard_can_be_dropped_from_a_compacted_part(run: str) -> None:
    verb.compact(run)
    (name,) = [name for name in names(run) if name.startswith("explanations/")]
    parts.drop(run, name, 3)
    assert index.outcomes(run).filter(pl.col("shard") == 3)["outcome"].to_list() == ["failed"]
    verb.compact(run)
    assert index.outcomes(run).filter(pl.col("shard") == 3)["outcome"].to_list() == ["failed"]
    assert len(names(run)) == 2


def test_resuming_and_retrying_go_on_after_it(run: str) -> None:
    verb.compact(run)
    placed = index.load_manifest(run)
    assert placed is not None
    assert index.unfinished(placed, index.outcomes(run)) == [11, 13]
    write(run, 11, ["c22"], ["c23"])
    write(run, 13, ["c13", "c19"], [])
    verdict = index.verify(run)
    assert (verdict.holds, verdict.ok, verdict.failed) == (True, 23, 1)
    verb.compact(run)
    again = index.reassign_failed(placed, index.outcomes(run), [], 2)
    assert index.unfinished(again, index.outcomes(run)) == [14]


def test_fingerprints_are_not_mixed(run: str) -> None:
    write(run, 20, ["x"], [], fingerprint=OTHER)
    write(run, 21, ["y"], [], fingerprint=OTHER)
    before = content(run)
    verb.compact(run)
    assert content(run) == before
    assert sorted(parts.fingerprint_of(name) for name in names(run)) == [
        *[FINGERPRINT[:12]] * 2,
        OTHER[:12],
    ]


def test_a_compactor_that_was_believed_dead_changes_nothing(run: str) -> None:
    before = content(run)
    zombie = compaction.steps(run, compaction.Compacted())
    next(zombie)  # it has stored its first part, and sleeps
    verb.compact(run)
    with pytest.raises(EmerError):  # what it has not read yet is gone
        list(zombie)
    assert content(run) == before
    verb.compact(run)
    assert content(run) == before
    assert len(list(Path(run, "explanations").iterdir())) == 1


def test_a_zombie_whose_orphans_were_deleted_cannot_name_them(run: str) -> None:
    """The second call finds nothing to merge, so only its fence keeps the first one out."""
    verb.compact(run)
    write(run, 11, ["c22", "c23"], [])
    before = content(run)
    zombie = compaction.steps(run, compaction.Compacted())
    next(zombie)
    Path(run, parts.name("explanations", 11, FINGERPRINT)).unlink()  # as if it had been too few
    verb.compact(run)
    with pytest.raises(RunDirError, match="compacted by somebody else"):
        list(zombie)
    write(run, 11, ["c22", "c23"], [])
    assert content(run) == before


def test_large_parts_are_cut_at_the_target_and_read_group_by_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "GROUP_CLIPS", 8)
    monkeypatch.setattr(parts, "LARGE", 1)
    run = str(tmp_path)
    dice = random.Random(0)
    for shard in range(40):
        ids = [f"s{shard}-{number}" for number in range(4)]
        rows = [explained(name, shard) | {"explanation": dice.randbytes(500).hex()} for name in ids]
        ok = schema.table(rows, schema.EXPLANATIONS)
        parts.write(run, shard, FINGERPRINT, ok, schema.FAILURES.empty_table())
    before, index_before = content(run), told(run)
    done = compaction.Compacted()
    list(compaction.steps(run, done, target_bytes=100_000))
    assert 2 < done.parts_after < 8
    assert content(run) == before
    assert told(run) == index_before
    shards = [parts.shards_of(name) for name in names(run)]
    assert shards == sorted(shards)
    part = index.outcomes(run).filter(pl.col("clip_id") == "s20-3")["part"][0]
    found = parts.around(run, part, "s20-3", ["clip_id", "shard"])
    assert 8 <= found.num_rows < 40
    assert {"clip_id": "s20-3", "shard": 20} in found.to_pylist()
    assert parts.around(run, part, "nobody").num_rows == 0


def test_a_damaged_part_is_named_and_nothing_is_deleted(run: str) -> None:
    path = Path(run, parts.name("explanations", 7, FINGERPRINT))
    path.write_bytes(path.read_bytes()[:-40])
    before = names(run)
    with pytest.raises(RunDirError, match=r"00000007.*nothing was compacted"):
        verb.compact(run)
    assert names(run) == before


def test_a_driver_at_work_is_not_disturbed(run: str) -> None:
    with lease.held(run), pytest.raises(RunDirError, match="another driver is at work"):
        verb.compact(run)
    with pytest.raises(RunDirError, match=r"run\.json"):
        verb.compact(run + "-not")


def test_a_reader_sees_one_state_or_the_other(run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A compaction that starts and ends while a reader lists: the reader looks again."""
    before = content(run)
    real: Callable[..., dict[str, parts.Part]] = layout.listed
    calls = 0

    def slow(uri: str, shards: int = 0) -> dict[str, parts.Part]:
        nonlocal calls
        calls += 1
        found = real(uri, shards)
        if calls == 1:
            monkeypatch.setattr(layout, "listed", real)
            verb.compact(run)
        return found

    monkeypatch.setattr(layout, "listed", slow)
    assert content(run) == before


def test_a_marker_that_cannot_be_read_is_named(run: str) -> None:
    verb.compact(run)
    (marker,) = Path(run, "compact").iterdir()
    marker.write_text("{")
    with pytest.raises(RunDirError, match=f"{marker.name}: not the marker"):
        layout.live(run)


@pytest.mark.s3
def test_on_a_real_store_it_is_the_same(run: str, bucket: str) -> None:
    far = storage.join(bucket, "run")
    for path in Path(run).rglob("*"):
        if path.is_file() and path.parent.name != "index":
            storage.write(storage.join(far, str(path.relative_to(run))), path.read_bytes())
    index.save_snapshot(far, index.outcomes(far))
    before = content(run)
    walk(far, 3)
    assert content(far) == before
    assert verb.compact(far)["parts_after"] == 2
    assert content(far) == before
    assert told(far) == told(run)
    verdict = index.verify(far)
    assert (verdict.missing, verdict.read, verdict.bad_parts) == (2, 2, ())
    _, others = index.vouched(index.newest_snapshot(far), layout.live(far))
    assert others == []
    assert show(far, "c07")["outcome"] == "ok"
    assert inputs.read(far).collect().height == 20
    write(far, 4, ["c08", "c09"], [])
    assert isinstance(parts.read(far, layout.live(far)[0]), pa.Table)
    assert content(far) == before
