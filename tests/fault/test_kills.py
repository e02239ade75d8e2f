"""Contract: whatever is killed, whenever, every clip ends once, and little is done again.

A real cluster of two nodes; a driver, an actor, another worker and a node are killed by SIGKILL at
points drawn from a seed. What is in flight may be asked about again; what is stored may not.
"""

import pytest

from emer_ray.bench.chaos import chaos

pytestmark = [pytest.mark.ray, pytest.mark.fault]


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("clips", "kills"),
    [(200, 4), pytest.param(1000, 20, marks=pytest.mark.slow)],
    ids=["one of each kind", "twenty"],
)
def test_nothing_is_lost_or_doubled_and_only_what_was_in_flight_is_redone(
    clips: int, kills: int
) -> None:
    found = chaos(seed=5, clips=clips, kills=kills, say=print)
    assert found["kills"] == kills
    assert (found["lost"], found["duplicated"], found["strange"]) == (0, 0, 0)
    assert found["verified"]
    assert found["ended_with_an_error"] == 0
    assert found["starts"] == 1 + kills // 4
    assert found["redone_max"] <= found["in_flight"]
