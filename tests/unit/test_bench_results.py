"""Kept results, and the page that is made of them."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

pytest.importorskip("vl_convert", reason="needs the extra: pip install 'emer-ray[report]'")

from emer_ray import cli
from emer_ray.bench import drawings, results
from emer_ray.errors import ConfigError

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
PEER = {"wall_s": 9.5, "run_s": 4.25, "cpu_s": 8.5, "rss_mb": 900, "lost": 0, "duplicated": 0}


def a_folder(tmp_path: Path) -> Path:
    (tmp_path / "README.md").write_text(f"above\n{results.BEGIN}\nstale\n{results.END}\nbelow\n")
    return tmp_path


def kept(folder: Path, name: str, result: dict[str, Any], at: str) -> None:
    before = results.Began(at=at, load=0.25)
    results.keep(str(folder / "results"), name, result, before, ["emer", "bench", name])


def test_the_page_of_this_repository_is_fresh() -> None:
    text, specs = results.rendered(BENCHMARKS)
    assert text == (BENCHMARKS / "README.md").read_text(encoding="utf-8"), "run make bench-report"
    for name, spec in specs.items():
        drawn = (BENCHMARKS / "results" / f"{name}.svg").read_text(encoding="utf-8")
        assert drawn.startswith(drawings.mark(spec)), f"{name}.svg is old: run make bench-report"


def test_a_kept_result_says_what_it_depends_on(tmp_path: Path) -> None:
    kept(tmp_path, "s3", {"ratio": 0.93}, "2026-11-28T12:00:00Z")
    (file,) = (tmp_path / "results").iterdir()
    found = json.loads(file.read_text())
    assert file.name == "s3-20261128T120000Z.json"
    assert found["result"] == {"ratio": 0.93}
    assert found["hardware"]["load_before"] == 0.25
    assert found["hardware"]["cores"] >= 1
    assert found["versions"]["ray"].startswith("2.60")
    assert found["versions"]["polars"].startswith("2.")
    assert found["command"] == "emer bench s3"
    assert found["commit"] is None or found["commit"].rstrip("+").isalnum()


def test_the_newest_figure_is_held_against_its_goal(tmp_path: Path) -> None:
    folder = a_folder(tmp_path)
    kept(folder, "s3", {"ratio": 0.95}, "2026-11-27T12:00:00Z")
    kept(folder, "s3", {"ratio": 0.85}, "2026-11-28T12:00:00Z")
    text, specs = results.rendered(folder)
    assert "| `s3` ratio | 0.85 | at least 0.9 | **no** | 2026-11-28T12:00Z |" in text
    assert "| `scale` occupancy | – | at least 0.97 | not kept |" in text
    assert text.startswith("above\n")
    assert text.endswith("\nbelow\n")
    assert "stale" not in text
    assert list(specs) == ["goals"]


def test_a_disk_and_a_store_have_a_line_each(tmp_path: Path) -> None:
    folder = a_folder(tmp_path)
    kept(folder, "resume", {"seconds": 4.5, "store": "s3"}, "2026-11-27T12:00:00Z")
    kept(folder, "resume", {"seconds": 6.0, "store": "local"}, "2026-11-28T12:00:00Z")
    text, specs = results.rendered(folder)
    assert "| `resume` seconds, local | 6 | at most 5 | **no** |" in text
    assert "| `resume` seconds, s3 | 4.5 | at most 5 | yes |" in text
    assert len(specs["goals"]["data"]["values"]) == 2


def test_rendering_twice_changes_nothing(tmp_path: Path) -> None:
    folder = a_folder(tmp_path)
    peers = {"clips": 5000, "kill_clips": 400, "ours": PEER | {"redone": 7}}
    peers |= {"loop": PEER | {"redone": 200}, "daft_ray": {"error": "it fell"}}
    kept(folder, "peers", peers, "2026-11-28T12:00:00Z")
    assert results.render(folder)["drawings"] == ["peers"]
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    results.render(folder)
    assert {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()} == before
    text = (folder / "README.md").read_text()
    assert "| ours | 9.5 | 4.25 | 8.5 | 900 | 0 | 0 | 7 |" in text
    assert "daft_ray did not get through: it fell" in text
    assert ">900<" in (folder / "results" / "peers.svg").read_text()


def test_a_page_without_a_place_for_tables_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="begin results"):
        results.rendered(tmp_path)


def test_any_benchmark_is_kept_by_one_option(tmp_path: Path) -> None:
    said = CliRunner().invoke(
        cli.main, ["bench", "--keep", str(tmp_path), "metrics", "--clips", "50", "--json"]
    )
    assert said.exit_code == 0, said.output
    (file,) = tmp_path.iterdir()
    assert json.loads(file.read_text())["result"]["clips"] == 50
