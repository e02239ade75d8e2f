"""`bench s3` against the real server: both clients read and store the same bytes."""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from emer_ray.bench import s3
from emer_ray.errors import EmerError

pytestmark = pytest.mark.s3


def test_both_ratios_come_from_equal_bytes() -> None:
    cores = os.sched_getaffinity(0)
    found = s3.s3(clips=8, rounds=2)
    assert os.sched_getaffinity(0) == cores
    assert found["clips"] == 8
    assert 0.1 < found["ratio"] < 10
    assert 0.1 < found["write_ratio"] < 10
    assert found["read"]["ours_mb_per_s"] > 1


def test_other_bytes_than_were_stored_are_no_result() -> None:
    with ThreadPoolExecutor(2) as pool, pytest.raises(EmerError, match="ours read other bytes"):
        s3.paired(pool, [b"a", b"b"], lambda _: b"a", lambda n: [b"a", b"b"][n], 1, [b"a", b"b"])
