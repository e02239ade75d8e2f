"""What the simulated decoder of `emer bench pipeline` takes; the benchmark itself takes minutes."""

import pytest

from emer_ray.bench.pipeline import SimulatedDecode


def test_rows_take_as_long_on_average_as_is_said_and_differ_as_much() -> None:
    decode = SimulatedDecode(seconds=0.02, seed=0, shape=(1, 2, 2, 3), spread=100.0)
    takes = [decode._takes_s(f"clip-{number:06d}") for number in range(5000)]
    assert sum(takes) / len(takes) == pytest.approx(0.02, rel=0.05)
    assert 80 < max(takes) / min(takes) <= 100
    even = SimulatedDecode(seconds=0.02, seed=0, shape=(1, 2, 2, 3))
    assert even._takes_s("clip-000001") == 0.02
