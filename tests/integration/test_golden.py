"""Results do not change unnoticed (design §5): `RESULTS_VERSION` is part of every fingerprint."""

import json
from pathlib import Path

import pytest

from tests import golden_results


@pytest.mark.weights
def test_results_are_those_of_this_version(weights: dict[str, Path], tmp_path: Path) -> None:
    expected = json.loads(golden_results.FILE.read_text(encoding="utf-8"))
    assert golden_results.results(tmp_path) == expected, (
        "results changed: if that is meant, raise RESULTS_VERSION in emer_ray/config.py and run "
        "`python -m tests.golden_results`"
    )
