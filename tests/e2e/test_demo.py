"""The demo as a stranger runs it: the command, twice, in processes of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.browser import Visit

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


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def first(folder: Path, weights: dict[str, Path]) -> tuple[dict[str, Any], str]:
    """The first run of the demo, in a process of its own."""
    return emer("demo", "--folder", str(folder), "--json")


@pytest.mark.weights
def test_the_demo_explains_its_clips_and_resumes(
    folder: Path, first: tuple[dict[str, Any], str]
) -> None:
    summary, text = first
    assert summary["clips"] == summary["ok"] >= 9
    assert "(composite)" in text
    assert "baseline" in text
    assert "no clear emotion" in text
    assert Path(summary["report"]).as_uri() in text, "it says what to open"
    verdict, _ = emer("verify", str(folder / "run"), "--json")
    assert (verdict["missing"], verdict["duplicate"]) == (0, 0)
    again, _ = emer("demo", "--folder", str(folder), "--json")
    assert (again["skipped"], again["ok"]) == (summary["ok"], summary["ok"])
    shown, _ = emer("show", str(folder / "run"), "astronaut_thanks", "--json")
    assert shown["row"]["labels"][0]["label"]
    assert shown["row"]["composite"] is True


@pytest.mark.weights
@pytest.mark.browser
def test_the_page_of_the_demo_shows_clues_where_they_are(
    first: tuple[dict[str, Any], str], visit: Visit
) -> None:
    page = Path(first[0]["report"]).as_uri()
    visit.page.goto(page)
    assert visit.page.locator(".card").count() == first[0]["ok"]
    card = visit.page.locator(".card", has=visit.page.locator("bdi:text-is('astronaut_thanks')"))
    assert "composite: picture and sound were put together" in card.text_content()
    assert card.locator("svg.axis path.wave, svg.axis path.pitch").count() == 2
    link = card.locator(".told a[data-clue]").nth(1)
    name = link.get_attribute("data-clue")
    link.hover()
    assert card.locator(f".clues li.lit[data-clue={name}]").count() == 1
    assert card.locator(f".lane.lit[data-clue={name}]").count() == 1
    assert visit.complaints == []
    assert visit.requests == [page]


def test_a_wrong_key_names_the_nearest_right_one() -> None:
    command = [str(Path(sys.executable).with_name("emer")), "relabel", "--set", "media.frame=3"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.strip() == "emer: unknown key media.frame: did you mean media.frames?"
