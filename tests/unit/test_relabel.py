"""What a run says while it goes; runs are in tests/integration."""

import time

from emer_ray.relabel import Progress


def _line(**given: object) -> str:
    known = {"clips": 1000, "ok": 240, "failed": 10, "skipped": 50}
    known |= {"started": time.monotonic() - 100}
    return Progress(**{**known, **given}).line()  # type: ignore[arg-type]


def test_a_line_tells_rate_and_time_left() -> None:
    assert _line() == "250 of 1000 clips: 240 ok, 10 failed; 2.00 clips/s, about 6 min 15 s left"
    assert _line(ok=0, failed=0, skipped=0) == "0 of 1000 clips: 0 ok, 0 failed; 0.00 clips/s"


def test_a_line_tells_the_bottleneck_and_the_money() -> None:
    found = _line(busiest=("reason.main", 0.974), usd=1.5)
    assert found.endswith(" left; reason.main busy 97 %; 1.50 USD of about 6.00")
    done = _line(ok=990, usd=6.0)
    assert done.endswith("9.50 clips/s; 6.00 USD")
