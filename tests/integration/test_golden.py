"""Results do not change unnoticed (design §5): `RESULTS_VERSION` is part of every fingerprint."""

import copy
import json
from pathlib import Path

import pytest

from tests import golden_results

RAISE = (
    "if results are meant to change, raise RESULTS_VERSION in emer_ray/config.py and run "
    "`python -m tests.golden_results`"
)


def expected() -> dict[str, dict[str, list[str]]]:
    """Read the committed results."""
    read: dict[str, dict[str, list[str]]] = json.loads(
        golden_results.FILE.read_text(encoding="utf-8")
    )
    return read


def test_the_committed_results_are_of_this_version() -> None:
    names = [path.name for path in golden_results.FOLDER.iterdir()]
    assert names == [golden_results.FILE.name], RAISE


@pytest.mark.weights
def test_results_are_those_of_this_version(weights: dict[str, Path], tmp_path: Path) -> None:
    changed = golden_results.differences(golden_results.results(tmp_path), expected())
    assert not changed, "\n".join([*changed, RAISE])


@pytest.mark.parametrize(
    ("line", "changed"),
    [
        ("label joyful 1.00", "label happy 1.00"),
        ("label joyful 1.00", "label joyful 0.95"),
        ("no label", "label calm 0.00"),
        ("The voice has 99 Hz.", "The voice has 104 Hz."),
        ("failed in decode: empty", "failed in decode: missing"),
    ],
)
def test_a_change_is_noticed(line: str, changed: str) -> None:
    old = {"fake": {"clip": [line]}}
    assert golden_results.differences({"fake": {"clip": [changed]}}, old)
    assert golden_results.differences({"fake": {"clip": [line, line]}}, old)
    assert golden_results.differences({"fake": {}}, old)
    assert golden_results.differences({}, old)
    assert not golden_results.differences(copy.deepcopy(old), old)


@pytest.mark.parametrize(
    ("line", "changed"),
    [
        ("label joyful 0.62", "label joyful 0.63"),
        ("Speech is heard (2.8 s).", "Speech is heard (2.9 s)."),
        ("The voice has 99 Hz.", "The voice has 100 Hz."),
    ],
)
def test_the_last_digit_may_tip(line: str, changed: str) -> None:
    assert not golden_results.differences({"fake": {"c": [changed]}}, {"fake": {"c": [line]}})
