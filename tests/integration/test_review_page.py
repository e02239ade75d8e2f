"""The review page in a real browser, on a real server that is killed while people work."""

import json
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from emer_ray import inert, storage
from emer_ray.review import review_merge
from tests import browser as browsers
from tests import run_directory

MEDIA = Path(__file__).parents[2] / "emer_ray" / "demo_media"
HOSTILE = (
    "<script>alert('subtitle')</script><img src=x onerror=alert('image')> \u202eevil\u202c "
    "javascript:alert(1) {{7*7}} </blockquote>"
)
SAVED = "#saved:text-is('Saved')"
FILES = ("webcam_brows", "webcam_surprise", "webcam_hand_on_chin", "webcam_neutral", "bunny")


def clips(folder: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {
            "clip_id": f"{name}_{number}",
            "video_uri": f"{folder}/{name}.mp4",
            "subtitle": "So that is what you wanted to tell me.",
            "visual": ["The brows rise at first.", "The mouth opens."],
            "acoustic": ["The voice is quiet."],
            "explanation": "Raised brows and a quiet voice point to surprise.",
            "labels": [("surprised", 0.8), ("worried", 0.3)],
            "licence_tag": "MIT",
        }
        for number, name in enumerate(FILES)
    ]
    found[0] |= {"subtitle": HOSTILE, "visual": [HOSTILE, "The mouth opens."], "start_s": 0.5}
    found[0]["labels"] = [("<b onmouseover=alert(2)>surprised</b>", None), ("worried", None)]
    found[4] |= {"visual": [], "acoustic": [], "explanation": "", "labels": []}
    return found


@contextmanager
def served(*words: str, port: int = 0) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """Run `emer review`; gives the process and everybody's link."""
    command = [sys.executable, "-m", "emer_ray.cli", "review", *words]
    command += ["--port", str(port), "--json"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        assert line, "the server ended before it was ready"
        yield server, json.loads(line)["links"]
    finally:
        server.kill()
        server.wait()
        server.stdout.close()


def fetched(url: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), error.read()


def merged(place: str) -> dict[str, dict[str, Any]]:
    return {row["clip_id"]: row for row in pq.read_table(f"{place}/merged.parquet").to_pylist()}


@pytest.mark.browser
def test_five_clips_by_keyboard_and_nothing_lost(browser: Any, tmp_path: Path) -> None:
    run = run_directory.write(tmp_path / "run", clips(str(MEDIA)))
    with browsers.visiting(browser) as anna, browsers.visiting(browser) as bo:
        with served(run, "--annotators", "anna,bo") as (server, links):
            page, press = anna.page, anna.page.keyboard.press
            page.goto(links["anna"])
            page.wait_for_selector(".item:focus")
            # what a clip says stands there as letters, and nothing of it ran
            assert page.text_content("#subtitle") == inert.plain(HOSTILE)
            assert "\u202e" not in page.content()
            assert page.locator("#subtitle *, .given *").count() == 0
            page.wait_for_selector("video[data-ready]")
            assert page.evaluate("document.querySelector('video').currentTime") == 0.5

            press("a")  # visual.1; the next open one is focused
            press("r")  # visual.2
            press("e")  # acoustic.1
            page.keyboard.type("The voice trembles.")
            press("Enter")
            press("l")
            page.keyboard.type("Startled; amused")
            press("Enter")
            press("Escape")
            press("Shift+A")
            press("n")
            page.keyboard.type("dark picture")
            press("Escape")
            press("f")
            for clip in range(1, 5):
                press("]")
                page.wait_for_selector(f"#desk[data-clip='{clip}']")
                press("Shift+A")
            page.wait_for_selector(SAVED)
            assert page.inner_text("#done") == "5 of 5 clips done"

            # a second window of the same annotator does not undo what the first one says
            press("[")
            page.wait_for_selector("#desk[data-clip='3']")
            other = anna.page.context.new_page()
            other.goto(links["anna"] + "#4")
            other.wait_for_selector(".item.accept")
            other.locator("[data-item='visual.1'] .reject").click()
            other.wait_for_selector(SAVED)
            page.locator("[data-item='visual.1'] .edit").click()
            page.keyboard.type("Stale words.")
            press("Enter")
            page.wait_for_selector("#fault:has-text('another window')")
            assert page.locator("[data-item='visual.1']").get_attribute("class") == "item reject"
            other.close()

            # killed while somebody works: the page keeps what it could not hand over
            port = int(re.findall(r":(\d+)/", links["anna"])[0])
            server.send_signal(signal.SIGKILL)
            server.wait()
            page.locator("[data-item='visual.2'] .reject").click()
            page.wait_for_selector("#saved.waiting")
        with served(run, port=port) as (_, again):
            assert again == links  # the same links go on
            page.wait_for_selector(SAVED)
            page.reload()
            page.wait_for_selector(".item:focus")
            assert page.inner_text("#done") == "5 of 5 clips done"
            page.goto(links["anna"] + "#1")
            page.reload()
            page.wait_for_selector("[data-item='acoustic.1'].edit")
            assert page.locator("#note").input_value() == "dark picture"
            assert page.is_checked("#flag")
            assert page.locator(".item.add").count() == 2

            # nobody sees what another judged
            theirs = bo.page
            theirs.goto(links["bo"])
            theirs.wait_for_selector(".item:focus")
            assert theirs.locator(".item.accept, .item.edit, .item.add").count() == 0
            assert theirs.locator("#note").input_value() == ""
            for clip in range(5):
                theirs.wait_for_selector(f"#desk[data-clip='{clip}']")
                theirs.keyboard.press("Shift+A")
                theirs.keyboard.press("]")
            theirs.wait_for_selector(SAVED)

            theirs.goto(links["lead"])
            theirs.click("#merge")
            theirs.wait_for_selector("#merged")
            assert "5 of 5 clips were judged" in theirs.inner_text("#outcome")
            figures = theirs.inner_text("#figures")
            with anna.page.expect_download() as download:
                anna.page.click("#sheet")
            download.value.save_as(tmp_path / "anna.xlsx")
        for visit in (anna, bo):
            assert visit.dialogs == []
            ours = {
                re.match(r"(http://127\.0\.0\.1:\d+|blob:|data:)", url) is not None
                for url in visit.requests
            }
            assert ours == {True}
        refused = [
            line for line in anna.complaints if "ERR_CONNECTION" not in line and "409" not in line
        ]
        assert refused == [], refused
        assert bo.complaints == []

    place = f"{run}/review/round1"
    before = merged(place)
    assert [clue["text"] for clue in before["webcam_brows_0"]["acoustic_clues"]] == [
        "The voice trembles."
    ]
    labels = {label["label"] for label in before["webcam_brows_0"]["labels"]}
    assert {"startled", "amused"} <= labels
    assert before["webcam_brows_0"]["flagged_by"] == ["anna"]
    stored = json.loads(Path(place, "agreement.json").read_text())
    assert f"{stored['labels']['alpha_masi']:.3f}" in figures
    assert stored["annotators"]["anna"]["rejected"] == 3
    # the page's log is a sheet of the round, and so is the spreadsheet that it gives
    review_merge(run)
    assert merged(place) == before
    review_merge(run, sheet_uris=[str(tmp_path / "anna.xlsx"), f"{place}/sheets/bo.jsonl"])
    assert merged(place) == before

    # half a line, as a machine leaves it that loses power, costs that line alone
    with Path(place, "sheets/anna.jsonl").open("ab") as file:
        file.write(b'{"clip_id": "webcam_br')
    review_merge(run)
    assert merged(place) == before
    with served(run, "--round", "2", "--annotators", "chen") as (_, links):
        clip = json.loads(fetched(links["chen"] + "api/clips/0")[2])
        given = {item["item"]: item["given"] for item in clip["items"]}
        assert given["acoustic.1"] == "The voice trembles."


def test_the_server_gives_nothing_away(tmp_path: Path) -> None:
    folder = tmp_path / "media"
    folder.mkdir()
    data = bytes(range(256)) * 16
    (folder / "a.mp4").write_bytes(data)
    (folder / "secret.txt").write_text("secret")
    listed = [
        {**clips(str(folder))[1], "clip_id": "a", "video_uri": f"{folder}/a.mp4"},
        {**clips(str(folder))[1], "clip_id": "b", "video_uri": f"{folder}/secret.txt"},
        {**clips(str(folder))[1], "clip_id": "c", "video_uri": f"{folder}/gone.mp4"},
    ]
    run = run_directory.write(tmp_path / "run", listed)
    with served(run, "--annotators", "anna,bo") as (_, links):
        anna, lead = links["anna"], links["lead"]
        base = anna.split("/r/")[0]
        for path in ("/", "/r/", "/r/wrong/", "/r/%C3%A9/", f"/r/{'0' * 40}/api/round", "/page.js"):
            assert fetched(base + path)[0] == 404, path
        for path in ("../../etc/passwd", "media/0/..%2f..%2fetc", "media/9/video", "page.py"):
            assert fetched(anna + path)[0] == 404, path
        assert fetched(anna + "media/1/video")[0] == 404  # no media by its name: not served
        assert fetched(anna + "media/2/video")[0] == 404
        assert fetched(lead + "media/0/video")[0] == 403
        status, headers, _ = fetched(anna)
        assert status == 200
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "unsafe" not in headers["Content-Security-Policy"]

        status, headers, body = fetched(anna + "media/0/video")
        assert (status, body, headers["Accept-Ranges"]) == (200, data, "bytes")
        for asked, first, last in (("0-9", 0, 9), ("4000-", 4000, 4095), ("-5", 4091, 4095)):
            status, headers, body = fetched(anna + "media/0/video", Range=f"bytes={asked}")
            assert (status, body) == (206, data[first : last + 1])
            assert headers["Content-Range"] == f"bytes {first}-{last}/4096"
        for asked in ("4096-", "9-2", "-0", "x", "-"):
            assert fetched(anna + "media/0/video", Range=f"bytes={asked}")[0] == 416

        def post(link: str, told: dict[str, Any], kind: str = "application/json") -> int:
            body = json.dumps(told).encode()
            request = urllib.request.Request(
                link + "api/mark", data=body, headers={"Content-Type": kind}
            )
            try:
                with urllib.request.urlopen(request) as answer:
                    return int(answer.status)
            except urllib.error.HTTPError as error:
                return error.code

        mark = {"clip_id": "a", "item": "label.1", "verdict": "accept", "seen": ""}
        assert post(anna, mark) == 200
        assert post(anna, mark) == 200  # said twice after a lost answer
        assert post(anna, {**mark, "verdict": "reject"}) == 409  # did not see the first one
        for wrong in (
            {**mark, "item": "label.9"},
            {**mark, "clip_id": "z"},
            {**mark, "verdict": "perhaps"},
            {**mark, "verdict": "edit", "text": "  "},
            {**mark, "item": "label.+1", "verdict": "add", "text": "x" * 5000},
            {"item": "label.1"},
        ):
            assert post(anna, wrong) == 400, wrong
        assert post(anna, mark, "text/plain") == 415
        assert post(lead, mark) == 403
        bo = json.loads(fetched(links["bo"] + "api/clips/0")[2])
        assert not any(item["verdict"] for item in bo["items"])

        second = subprocess.run(
            [sys.executable, "-m", "emer_ray.cli", "review", run, "--port", "0"],
            capture_output=True,
            text=True,
        )
        assert second.returncode == 2
        assert "another `emer review` serves this round" in second.stderr

    lines = Path(run, "review/round1/sheets/anna.jsonl").read_text().splitlines()
    assert len(lines) == 1
    assert (Path.home() / ".cache/emer_ray/review.key").stat().st_mode & 0o077 == 0


@pytest.mark.s3
def test_rounds_and_media_lie_in_a_bucket_as_well(bucket: str, tmp_path: Path) -> None:
    data = (MEDIA / "bunny.mp4").read_bytes()
    storage.write(f"{bucket}/media/bunny.mp4", data)
    listed = [{**clips(f"{bucket}/media")[1], "clip_id": "a"}]
    listed[0]["video_uri"] = f"{bucket}/media/bunny.mp4"
    run = run_directory.write(f"{bucket}/run", listed)
    for verdict in ("accept", "reject"):
        with served(run, "--annotators", "anna") as (_, links):
            status, _, body = fetched(links["anna"] + "media/0/video", Range="bytes=10-99")
            assert (status, body) == (206, data[10:100])
            clip = json.loads(fetched(links["anna"] + "api/clips/0")[2])
            item = next(each for each in clip["items"] if each["item"] == "label.1")
            told = {"clip_id": "a", "item": "label.1", "verdict": verdict, "seen": item["version"]}
            body = json.dumps(told).encode()
            headers = {"Content-Type": "application/json"}
            url = links["anna"] + "api/mark"
            with urllib.request.urlopen(urllib.request.Request(url, body, headers)) as answer:
                assert answer.status == 200
    found = review_merge(run)
    assert found["annotators"]["anna"]["rejected"] == 1
    assert len(list(storage.listing(f"{run}/review/round1/sheets"))) == 2  # nothing was overwritten
