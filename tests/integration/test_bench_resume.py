"""The benchmark of resuming builds what a killed driver leaves, and what it resumes is whole."""

import pytest

from emer_ray import storage
from emer_ray.bench.resume import resume

pytestmark = pytest.mark.ray


@pytest.mark.slow
@pytest.mark.s3
def test_a_small_one_on_a_store(bucket: str) -> None:
    found = resume(clips=20_000, where=f"{bucket}/bench")
    assert (found["clips"], found["skipped"], found["ok"]) == (20_000, 20_000, 20_160)
    assert (found["parts"], found["parts_read"], found["verified"]) == (1260, 1024, True)
    assert 0 < found["resumed_s"] <= found["seconds"]
    assert not list(storage.listing(bucket))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_million_clips_on_a_disk() -> None:
    found = resume()
    assert (found["clips"], found["skipped"], found["ok"]) == (1_000_000, 1_000_000, 1_000_160)
    assert (found["parts"], found["parts_read"], found["verified"]) == (62_510, 1024, True)
