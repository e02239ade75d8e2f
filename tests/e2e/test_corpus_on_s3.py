"""The acceptance run: 200 clips on S3 in and out, a tenth unreadable, the driver killed midway.

Made of the demo clips, with the embedded models, by the command line in processes of its own. A
smaller one runs every time.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from emer_ray import demo_corpus, storage
from emer_ray.store import index, layout
from tests import rows, synth

EMER = str(Path(sys.executable).with_name("emer"))
PICTURES = ("webcam_brows", "webcam_neutral", "webcam_surprise", "astronaut_thanks", "bunny")

pytestmark = [pytest.mark.ray, pytest.mark.s3, pytest.mark.weights, pytest.mark.timeout(900)]


def corpus(folder: Path, bucket: str, films: int) -> tuple[str, dict[str, str]]:
    """Put media and a manifest of films, ten sounds and 20 files that cannot be read into the
    bucket; return its URI and the failures due.
    """
    demo_corpus.build(folder)
    good = (folder / "webcam_brows.mp4").read_bytes()
    synth.cut(folder / "webcam_brows.mp4", folder / "cut.mp4", 0.5)  # its index is at the end
    storage.write(storage.join(bucket, "zero.mp4"), b"")
    storage.write(storage.join(bucket, "text.mp4"), b"this is not a video\n" * 100)
    storage.write(storage.join(bucket, "noise.mp4"), bytes(range(1, 250)) * 400)
    storage.write(storage.join(bucket, "cut.mp4"), (folder / "cut.mp4").read_bytes())
    storage.write(storage.join(bucket, "jfk.ogg"), (folder / "jfk_speech.ogg").read_bytes())
    for name in PICTURES:
        storage.write(storage.join(bucket, f"{name}.mp4"), (folder / f"{name}.mp4").read_bytes())
    assert len(good) > 10_000
    clips: list[dict[str, Any]] = [
        {"clip_id": f"clip-{number:03d}", "video_uri": f"{PICTURES[number % 5]}.mp4"}
        for number in range(films)
    ]
    for row in clips:  # a second of each keeps the run short
        row |= {"start_s": 0.0, "end_s": 1.0, "licence_tag": "MIT"}
    clips += [
        {"clip_id": f"sound-{n}", "audio_uri": "jfk.ogg", "start_s": 0.0, "end_s": 2.0}
        for n in range(10)
    ]
    due: dict[str, str] = {}
    for kind, name in (
        ("empty", "zero"),
        ("not_media", "text"),
        ("not_media", "noise"),
        ("corrupt", "cut"),
        ("missing", "nowhere"),
    ):
        for number in range(4):
            clip_id = f"{name}-{number}"
            due[clip_id] = kind
            place = films // 10 + 13 * films // 170 * len(due)
            clips.insert(place, {"clip_id": clip_id, "video_uri": f"{name}.mp4"})
    path = Path(rows.manifest(folder / "clips.jsonl", clips))
    uri = storage.join(bucket, "clips.jsonl")
    storage.write(uri, path.read_bytes())
    return uri, due


def command(manifest: str, run: str) -> list[str]:
    settings = {
        **{"input.manifest": manifest, "output.run": run, "output.shard_clips": "4"},
        **{"media.frames": "4", "media.size_px": "360"},
    }
    said = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    return [EMER, "relabel", *said, "--json"]


@pytest.mark.parametrize(
    ("films", "skipped"), [(80, 24), pytest.param(170, 40, marks=pytest.mark.slow)]
)
def test_clips_survive_bad_files_and_a_killed_driver(
    tmp_path: Path, bucket: str, weights: dict[str, Path], films: int, skipped: int
) -> None:
    manifest, due = corpus(tmp_path, bucket, films)
    clips, ok = films + 30, films + 10
    run = storage.join(bucket, "run")
    driver = subprocess.Popen(
        command(manifest, run),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=dict(os.environ),
    )
    waited = time.monotonic()
    while len(layout.live(run)) < 12:
        assert driver.poll() is None, driver.stdout.read()  # type: ignore[union-attr]
        assert time.monotonic() - waited < 240, "no parts within 4 minutes"
        time.sleep(0.5)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    before = {part: storage.read(storage.join(run, part.name)) for part in layout.live(run)}
    assert index.verify(run).missing > 0

    done = subprocess.run(command(manifest, run), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout.strip().splitlines()[-1])
    assert (summary["clips"], summary["ok"], summary["failed"]) == (clips, ok, 20)
    assert summary["skipped"] >= skipped  # of 12 parts, some of which hold failures
    found = rows.stored(run)
    assert {name: row["kind"] for name, row in found.items() if "kind" in row} == due
    assert Counter(row["media"]["has_video"] for row in found.values() if "kind" not in row) == {
        True: films,
        False: 10,
    }
    finished = [part for part in before if index.read_outcomes(run, [part]).height >= 4]
    assert all(storage.read(storage.join(run, part.name)) == before[part] for part in finished)

    checked = subprocess.run([EMER, "verify", run, "--json"], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    verdict = json.loads(checked.stdout.strip().splitlines()[-1])
    assert (verdict["missing"], verdict["duplicate"], verdict["extra"]) == (0, 0, 0)

    again = subprocess.run(command(manifest, run), capture_output=True, text=True)
    summary = json.loads(again.stdout.strip().splitlines()[-1])
    assert (summary["skipped"], summary["ok"], summary["failed"]) == (clips, ok, 20)
    assert not list(storage.listing(storage.join(run, "claims")))
