"""The demo as a stranger runs it: the command, twice, in processes of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def emer(*arguments: str, exit_code: int = 0) -> tuple[dict[str, Any], str]:
    """Run the command line and return its last line as JSON, and everything it printed."""
    command = [str(Path(sys.executable).with_name("emer")), *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, "COLUMNS": "120"}
    )
    assert done.returncode == exit_code, done.stdout + done.stderr
    lines = done.stdout.strip().splitlines()
    return (json.loads(lines[-1]) if lines and "--json" in arguments else {}), done.stdout


@pytest.mark.weights
def test_the_demo_explains_its_clips_and_resumes(tmp_path: Path, weights: dict[str, Path]) -> None:
    summary, text = emer("demo", "--folder", str(tmp_path), "--json")
    assert summary["clips"] == summary["ok"] >= 9
    assert "(composite)" in text
    assert "baseline" in text
    assert "no clear emotion" in text
    assert Path(summary["report"]).as_uri() in text, "it says what to open"
    assert Path(summary["report"]).read_text(encoding="utf-8").count("<article") == summary["ok"]
    verdict, _ = emer("verify", str(tmp_path / "run"), "--json")
    assert (verdict["missing"], verdict["duplicate"]) == (0, 0)
    again, _ = emer("demo", "--folder", str(tmp_path), "--json")
    assert (again["skipped"], again["ok"]) == (summary["ok"], summary["ok"])
    shown, _ = emer("show", str(tmp_path / "run"), "astronaut_thanks", "--json")
    assert shown["row"]["labels"][0]["label"]
    assert shown["row"]["composite"] is True


def test_a_wrong_key_names_the_nearest_right_one() -> None:
    command = [str(Path(sys.executable).with_name("emer")), "relabel", "--set", "media.frame=3"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.strip() == "emer: unknown key media.frame: did you mean media.frames?"
