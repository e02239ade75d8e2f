"""The demo's clips: what is committed is what NOTICE.md and the manifest say."""

import csv
import hashlib
from importlib import resources
from pathlib import Path

import av
import numpy as np
import pytest

from emer_ray import demo_corpus, schema

MEDIA = Path(str(resources.files("emer_ray") / "demo_media"))
CLIP_FILES = sorted(p for p in MEDIA.iterdir() if p.name not in ("NOTICE.md", "manifest.csv"))


def _rows() -> list[dict[str, str]]:
    with (MEDIA / "manifest.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def _notice_rows() -> dict[str, list[str]]:
    """Cells of every table row of NOTICE.md that ends in a checksum, by file name."""
    lines = (MEDIA / "NOTICE.md").read_text(encoding="utf-8").splitlines()
    tables = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return {cells[0]: cells for cells in tables if len(cells[-1]) == 64}


def test_every_committed_file_is_the_one_of_the_notice() -> None:
    notice = _notice_rows()
    for path in CLIP_FILES:
        _, source, author, licence, changed, digest = notice[path.name]
        assert hashlib.sha256(path.read_bytes()).hexdigest() == digest, path.name
        assert author
        assert changed
        assert notice[source][1], f"{source} has no package"
        [row] = [row for row in _rows() if path.name in (row["video_uri"], row["audio_uri"])]
        assert row["licence_tag"] == licence


def test_the_package_stays_small() -> None:
    assert sum(path.stat().st_size for path in MEDIA.iterdir()) < 1_500_000


def test_ten_clips_with_rights_and_known_columns() -> None:
    rows = _rows()
    assert len({row["clip_id"] for row in rows}) == len(rows) == 10
    assert set(rows[0]) <= {*schema.MANIFEST.names, "title", "source"}
    for row in rows:
        assert bool(row["video_uri"]) != bool(row["audio_uri"])
        assert row["licence_tag"]
        assert row["source"]
        assert row["title"]
        assert row["composite"] in ("true", "false")
        assert ("composite" in row["title"]) == (row["composite"] == "true")
    assert sorted(r["clip_id"] for r in rows if r["composite"] == "true") == [
        "astronaut_thanks",
        "portrait_meeting",
    ]


@pytest.mark.parametrize("path", CLIP_FILES, ids=lambda path: path.name)
def test_every_clip_decodes(path: Path) -> None:
    with av.open(str(path)) as container:
        pictures = (
            [f.to_ndarray(format="gray") for f in container.decode(video=0)]
            if (container.streams.video)
            else []
        )
        has_sound = bool(container.streams.audio)
    assert has_sound == (not path.name.startswith("webcam"))
    assert bool(pictures) == (path.suffix == ".mp4")
    if pictures:
        assert 60 <= len(pictures) <= 250
        motion = np.abs(np.diff(np.stack(pictures).astype(np.int16), axis=0)).mean()
        assert motion > 0.1, "a frozen picture"
    if has_sound:
        with av.open(str(path)) as container:
            loudest = max(float(np.abs(f.to_ndarray()).max()) for f in container.decode(audio=0))
        assert loudest > 0.01, "a silent sound track"


def test_build_lays_out_everything_once(tmp_path: Path) -> None:
    said: list[str] = []
    manifest = demo_corpus.build(tmp_path / "demo", said.append)
    assert manifest == tmp_path / "demo" / "manifest.csv"
    for row in _rows():
        assert (manifest.parent / (row["video_uri"] or row["audio_uri"])).is_file()
    assert "manifest.csv" in said[-1], "the manifest must come last"
    assert {p.name for p in MEDIA.iterdir()} == {p.name for p in manifest.parent.iterdir()}
    assert len(said) == len(CLIP_FILES) + 2

    said.clear()
    demo_corpus.build(tmp_path / "demo", said.append)
    assert said == []


def test_build_repairs_a_damaged_file(tmp_path: Path) -> None:
    manifest = demo_corpus.build(tmp_path)
    (tmp_path / "bunny.mp4").write_bytes(b"half")
    (tmp_path / "jfk_speech.ogg").unlink()
    said: list[str] = []
    demo_corpus.build(tmp_path, said.append)
    assert len(said) == 2
    assert (tmp_path / "bunny.mp4").read_bytes() == (MEDIA / "bunny.mp4").read_bytes()
    assert manifest.is_file()


@pytest.mark.weights
def test_talking_face_gives_two_windows_of_one_video() -> None:
    clips = demo_corpus.talking_face()
    assert set(clips) == {"smile", "neutral"}
    for clip in clips.values():
        assert clip.licence_tag is not None
        assert clip.licence_tag.startswith("gated:")
        assert clip.video_uri is not None
        with av.open(clip.video_uri) as container:
            assert (clip.end_s or 0) < container.duration / av.time_base
