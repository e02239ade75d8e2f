"""The page as a reader meets it: a real run, a real browser, from a file on disk."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner

from emer_ray import cli, storage
from tests import rows
from tests.browser import Visit, visiting

pytest.importorskip("vl_convert", reason="needs the extra: pip install 'emer-ray[report]'")

HOSTILE = {
    "tag": "<script>alert('tag')</script>",
    "handler": "\"><img src=x onerror=alert('handler')>' onmouseover='alert(1)",
    "end": "</script><script>alert('end')</script>",
    "marks": "good \u202egnp.exe\u202c \u2066word\u2069",
}
"""Subtitles by clip id; the labels and old labels of some clips are no better."""

SCRIPT = {"f00": "refuse", "f01": "garbage", "f02": "refuse"}
OLD = ("happy", "angry", "sad", HOSTILE["tag"])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, synthetic: Path) -> str:
    """A run of the fake model over 60 clips, most of them sound, four of them hostile."""
    folder = tmp_path_factory.mktemp("report")
    told: list[Mapping[str, Any]] = [
        {"clip_id": name, "video_uri": str(synthetic / "c0.mp4"), "subtitle_en": text,
         "speaker": text, "licence_tag": "CC0-1.0", "label_onehot": text}
        for name, text in HOSTILE.items()
    ]  # fmt: skip
    told += [
        {"clip_id": name, "audio_uri": str(synthetic / "voice.wav"), "licence_tag": "CC0-1.0",
         "subtitle_zh": "我今天真的很高兴！", "label_onehot": "sad"}
        for name in SCRIPT
    ]  # fmt: skip
    told += [
        {"clip_id": f"c{k:02d}", "audio_uri": str(synthetic / "voice.wav"), "split": "train",
         "subtitle_zh": "我今天真的很高兴！", "label_onehot": OLD[k % 4], "licence_tag": "CC0-1.0"}
        for k in range(48)
    ]  # fmt: skip
    told += [
        {"clip_id": f"gated{k}", "video_uri": str(synthetic / f"c{k + 1}.mp4"), "split": "test",
         "label_onehot": "happy", "licence_tag": "gated:NOBODY"}
        for k in range(4)
    ]  # fmt: skip
    told += [{"clip_id": "absent", "video_uri": str(folder / "no.mp4"), "licence_tag": "CC0-1.0"}]
    return rows.local_run(
        {
            "input": {"manifest": rows.manifest(folder / "clips.jsonl", told)},
            "output": {"run": str(folder / "run")},
            "media": {"frames": 8},
            "models": {"main": {"backend": "fake", "options": {"script": SCRIPT}}},
        }
    )


def emer(*arguments: str, exit_code: int = 0) -> dict[str, Any]:
    done = CliRunner().invoke(cli.main, [*arguments, "--json"])
    assert done.exit_code == exit_code, done.output
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def page(run: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its page, with a card for each of its clips."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    summary = emer("report", run, "-o", str(path), "--cards", "100")
    assert summary["clips"] == summary["cards"] == 60
    assert summary["withheld"] == 4
    assert summary["unreadable"] == 0
    return path


def shown(visit: Visit) -> list[str]:
    """The ids of the clips that a reader sees."""
    names: list[str] = visit.page.locator(".card:visible h3").all_text_contents()
    return names


@pytest.fixture
def opened(browser: Any, page: Path) -> Iterator[Visit]:
    """The page in a window without network; nothing may complain, nothing may be fetched."""
    with visiting(browser, offline=True) as visit:
        visit.page.goto(page.as_uri())
        yield visit
        assert visit.complaints == []
        assert visit.dialogs == []
        assert visit.requests == [page.as_uri()]


@pytest.mark.browser
def test_filters_and_search_leave_what_they_say(opened: Visit) -> None:
    assert len(shown(opened)) == 60
    opened.page.fill("#search", "refused")
    assert sorted(shown(opened)) == ["f00", "f02"]
    assert opened.page.inner_text("#count") == "2 of 60 clips"
    opened.page.fill("#search", "nowhere to be found")
    assert opened.page.is_visible("#none")
    opened.page.click("#again")
    assert len(shown(opened)) == 60
    opened.page.click(".chip[data-stratum=failed]")
    assert {"absent", "f00", "f01", "f02"} == set(shown(opened))
    opened.page.select_option("select[data-by=kind]", "missing")
    assert shown(opened) == ["absent"]
    opened.page.click("#all")
    opened.page.select_option("select[data-by=split]", "test")
    assert sorted(shown(opened)) == [f"gated{k}" for k in range(4)]


@pytest.mark.browser
def test_the_keyboard_does_it_all(opened: Visit) -> None:
    keyboard = opened.page.keyboard
    keyboard.press("/")
    keyboard.type("gated")
    assert len(shown(opened)) == 4
    keyboard.press("Escape")
    assert len(shown(opened)) == 60
    keyboard.press("j")
    first = opened.page.evaluate("document.activeElement.id")
    keyboard.press("j")
    second = opened.page.evaluate("document.activeElement.id")
    keyboard.press("k")
    assert opened.page.evaluate("document.activeElement.id") == first != second
    keyboard.press("o")
    assert opened.page.locator(f"#{first} details[open] pre").count() >= 1
    keyboard.press("t")
    assert opened.page.evaluate("document.documentElement.dataset.theme") == "dark"
    keyboard.press("?")
    assert opened.page.is_visible("#keys")
    keyboard.press("Escape")
    assert not opened.page.is_visible("#keys")


@pytest.mark.browser
def test_a_hostile_subtitle_is_text_and_nothing_more(opened: Visit) -> None:
    for name, text in HOSTILE.items():
        card = opened.page.locator(".card", has=opened.page.locator(f"h3 bdi:text-is('{name}')"))
        said = card.locator("blockquote bdi").text_content()
        assert said == re.sub("[\u202a-\u202e\u2066-\u2069]", lambda m: f"⟨{ord(m[0]):04X}⟩", text)
        card.hover()
        for folded in card.locator("summary").all():
            folded.click()
    assert opened.page.locator("script").count() == 1
    assert opened.page.locator("img[src=x], [onerror], [onmouseover]").count() == 0
    bare = opened.page.evaluate(
        "/[\\u202a-\\u202e\\u2066-\\u2069]/.test(document.body.textContent)"
    )
    assert not bare


@pytest.mark.browser
def test_a_clip_is_seen_and_heard(opened: Visit) -> None:
    card = opened.page.locator(".card", has=opened.page.locator("h3 bdi:text-is('tag')"))
    card.scroll_into_view_if_needed()
    pictures = card.locator(".pictures img")
    assert pictures.count() == 4
    sizes = "all => Promise.all(all.map(p => p.decode().then(() => p.naturalWidth)))"
    assert pictures.evaluate_all(sizes) == [160] * 4
    assert card.locator("svg.axis").get_attribute("aria-label").startswith("Time axis of 1.0")
    card.locator(".play").click()
    opened.page.wait_for_function(
        "name => { const a = document.getElementById(name).querySelector('audio');"
        " return a.ended || a.currentTime > 0 }",
        arg=card.get_attribute("id"),
    )
    card.locator(".pictures button").last.click()
    assert card.locator(".cursor").get_attribute("visibility") == "visible"
    assert "我今天真的很高兴！" in opened.page.inner_text("#cards")


@pytest.mark.browser
def test_it_reads_in_the_dark_on_a_telephone_and_on_paper(browser: Any, page: Path) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    with visiting(browser, color_scheme="dark", viewport={"width": 360, "height": 740}) as visit:
        visit.page.goto(page.as_uri())
        assert visit.page.evaluate(paper) == "rgb(21, 23, 27)"
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= 360
        visit.page.emulate_media(media="print", color_scheme="light")
        assert visit.page.evaluate(paper) == "rgb(255, 255, 255)"
        assert not visit.page.is_visible(".filters")
        assert visit.complaints == []


def test_gated_media_stay_out_unless_asked_for(run: str, page: Path, tmp_path: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text.count("the licence of this clip is gated:NOBODY") == 4
    assert "no price is known" in text, "what is not known is no zero"
    n_pictures = text.count("data:image/webp")
    asked = tmp_path / "asked.html"
    summary = emer("report", run, "-o", str(asked), "--cards", "100", "--embed-media")
    assert summary["withheld"] == 0
    text = asked.read_text(encoding="utf-8")
    assert "whoever gets the file gets them too" in text
    assert text.count("data:image/webp") == n_pictures + 4 * 4


def test_it_shows_what_other_commands_found_as_they_stored_it(
    run: str, tmp_path: Path, bucket: str
) -> None:
    """From S3 too, and back to it; a figure on the page is the figure in the file."""
    copy = f"{bucket}/runs/copy"
    for entry in storage.listing(run):
        storage.write(storage.join(copy, entry.uri.removeprefix(run)), storage.read(entry.uri))
    journal = json.loads(storage.read(f"{copy}/run.json"))
    hours = {"predicted": 0.125, "measured": 0.25, "error": -0.5}
    journal["starts"][-1]["plan"] = {"at": "yesterday", "hours": hours, "pools": {}}
    storage.write(f"{copy}/run.json", json.dumps(journal).encode())
    emer("evaluate", copy, "--reference", copy, "--out", copy, "--by", "split")
    audit = emer("audit", copy, "--resamples", "50")
    words = ["['happy']", "['angry', 'sad']"]
    other = tmp_path / "other.csv"
    lines = [f'c{k:02d},"{words[k % 2]}"' for k in range(48)]
    other.write_text("\n".join(["clip_id,openset", *lines]))
    summary = emer("report", copy, "--clip", "c07", "--cards", "4", "--compare", str(other))
    assert summary["report"] == f"{copy}/report.html"
    assert summary["cards"] == 5
    text = storage.read(summary["report"]).decode()
    table = tmp_path / "metrics.parquet"
    table.write_bytes(storage.read(f"{copy}/metrics.parquet"))
    (value,) = pl.read_parquet(table).filter(metric="hit.mean", by="")["value"]
    assert f">{value:.4f}<" in text
    assert "split = train" in text
    assert re.search(r"hours</td>.*>0\.125<.*>0\.250<.*>-0\.500<", text)
    assert f">{audit['compared']} of 60<" in text
    assert f"<dd>{audit['disagree']}</dd>" in text
    comparison = json.loads(storage.read(f"{copy}/comparison.json"))
    assert comparison["b"] == str(other)
    assert f"<dd>{comparison['changed']}</dd>" in text
    assert f">{comparison['families'][0]['difference']:.3f}<" in text


def test_mistakes_are_one_sentence(run: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(cli.main, ["report", run, "--clip", "nobody"])
    assert done.exit_code == 2
    assert "no clip 'nobody' in its manifest" in done.stderr
    done = CliRunner().invoke(cli.main, ["report", str(tmp_path)])
    assert done.exit_code == 2
    assert "not a run directory" in done.stderr


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.timeout(1200)
def test_five_thousand_clips_make_a_page_of_bounded_size(
    browser: Any, synthetic: Path, tmp_path: Path
) -> None:
    """How long it takes to build and to paint is in benchmarks/README.md."""
    told = [
        {
            "clip_id": f"c{k:04d}",
            "subtitle_zh": "你怎么能这样对我？",
            "speaker": f"s{k % 40}",
            "label_onehot": OLD[k % 4],
            "licence_tag": "CC0-1.0",
            **(
                {"audio_uri": str(synthetic / "voice.wav")}
                if k % 10
                else {"video_uri": str(synthetic / f"c{k % 6}.mp4")}
            ),
        }
        for k in range(5000)
    ]
    uri = rows.local_run(
        {
            "input": {"manifest": rows.manifest(tmp_path / "clips.jsonl", told)},
            "output": {"run": str(tmp_path / "run")},
            "media": {"frames": 8},
            "models": {"main": {"backend": "fake"}},
        }
    )
    videos = [item for k in range(0, 480, 10) for item in ("--clip", f"c{k:04d}")]
    summary = emer("report", uri, *videos)
    assert (summary["clips"], summary["cards"]) == (5000, 96)
    assert summary["mb"] <= 15
    with visiting(browser, offline=True) as visit:
        visit.page.goto(Path(summary["report"]).as_uri())
        assert len(shown(visit)) == 96
        visit.page.fill("#search", "c0470")
        assert shown(visit) == ["c0470"]
        assert visit.complaints == []
        assert len(visit.requests) == 1
