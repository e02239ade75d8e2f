"""The benchmark of the metrics, small: its values are checked against the loop on the way."""

from emer_ray.bench.metrics import metrics


def test_the_values_equal_those_of_the_loop() -> None:
    found = metrics(seed=1, clips=4000)
    assert found["equal"]
    assert found["clips"] == 4000
    assert {"seconds", "speedup", "rss_mb"} <= found.keys()
    assert found["wheel_m_avg"] > 0
