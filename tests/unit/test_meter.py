"""Counting what work spends, across threads."""

from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

from emer_ray import meter


def test_counts_go_to_the_meter_of_their_context() -> None:
    meter.add("tokens", "in", 5)  # nobody counts
    with meter.metered() as outer:
        meter.add("tokens", "in", 2)
        with meter.metered() as inner:
            meter.add("tokens", "in", 3)
        meter.add("tokens", "in", 4)
        meter.add("tokens", "out", 0)  # nothing is not counted as known
    assert outer.counts == {"tokens": {"in": 6}}
    assert inner.counts == {"tokens": {"in": 3}}


def test_other_threads_count_where_they_are_given_the_context() -> None:
    with ThreadPoolExecutor(4) as pool, meter.metered() as spent:
        wait = [pool.submit(meter.add, "retries", "lost") for _ in range(4)]
        wait += [pool.submit(copy_context().run, meter.add, "retries", "kept") for _ in range(400)]
        for future in wait:
            future.result()
    assert spent.counts == {"retries": {"kept": 400}}


def test_work_is_a_stretch_of_time_and_waiting_is_none() -> None:
    with meter.metered() as spent:
        with meter.waiting("seat"):
            pass
        for step in ("decode", "encode", "decode"):
            with meter.working(step):
                pass
    assert list(spent.counts["seconds"]) == ["decode", "encode"]
    assert spent.counts["waited"]["seat"] > 0
    assert len(spent.spans) == 3
    assert sum(end - start for start, end in spent.spans) < 1
    meter.add_all(spent.counts)  # nobody counts
