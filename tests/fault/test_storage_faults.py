"""Whole runs on storage that fails: nothing is lost, and what is said is one sentence."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from emer_ray import cli, config, storage
from emer_ray.errors import StorageError
from emer_ray.relabel import preflight_inputs, relabel
from emer_ray.runner import Cluster
from emer_ray.store import index, layout
from tests import fault_proxy, rows, s3_server
from tests.unit.test_store import manifest as clips_table

pytestmark = pytest.mark.fault

EMER = [sys.executable, "-m", "emer_ray.cli"]
MEDIA = {"frames": 2, "size_px": 64}


def settings(manifest: str, run: str, **more: Any) -> dict[str, Any]:
    return {
        "input": {"manifest": manifest},
        "output": {"run": run, "shard_clips": 4},
        "media": MEDIA,
        "models": {"main": {"backend": "fake"}},
        **more,
    }


def arguments(values: dict[str, Any]) -> list[str]:
    said = []
    for section, keys in values.items():
        for key, value in keys.items():
            text = value if isinstance(value, str) else json.dumps(value).replace(":", "=")
            said += ["--set", f"{section}.{key}={text}"]
    return said


@pytest.mark.ray
@pytest.mark.s3
def test_a_run_in_bad_weather_writes_what_it_writes_in_fine_weather(
    local_ray: Cluster, synthetic: Path, tmp_path: Path, bucket: str, s3_endpoint: str
) -> None:
    """A run by the command line behind the proxy: parts, claims, index, lease and media."""
    for number in range(6):
        data = (synthetic / f"c{number}.mp4").read_bytes()
        storage.write(storage.join(bucket, "media", f"c{number}.mp4"), data)
    listed = [
        {"clip_id": f"clip-{number:02d}", "video_uri": f"media/c{number % 6}.mp4"}
        for number in range(40)
    ]
    uri = storage.join(bucket, "clips.jsonl")
    storage.write(uri, Path(rows.manifest(tmp_path / "clips.jsonl", listed)).read_bytes())
    fine, bad = storage.join(bucket, "fine"), storage.join(bucket, "bad")
    assert relabel(config.parse(settings(uri, fine)))["ok"] == 40
    with fault_proxy.proxy(s3_endpoint) as faults:
        faults.weather = random.Random(5)
        environment = {**os.environ, "AWS_ENDPOINT_URL": faults.endpoint}
        done = subprocess.run(
            [*EMER, "relabel", *arguments(settings(uri, bad)), "--json"],
            env=environment,
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["ok"] == 40
    assert min(faults.fates[fate] for fate in fault_proxy.FATES) > 0, faults.fates
    assert faults.n_cut > 0
    assert rows.stored(bad) == rows.stored(fine)
    verdict = index.verify(bad, deep=True)
    assert (verdict.holds, verdict.ok, verdict.superseded) == (True, 40, 0)
    assert not list(storage.listing(storage.join(bad, "claims")))


Resize = Callable[[str], None]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[tuple[Path, Resize]]:
    """A file system of its own that can be given other options; needs the right to mount."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "none", place])
    if made.returncode:
        pytest.skip("needs the right to mount a small file system (root)")

    def remount(options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", place], check=True)

    try:
        yield place, remount
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


@pytest.mark.ray
def test_a_full_disk_ends_the_run_with_a_sentence_and_loses_nothing(
    local_ray: Cluster, synthetic: Path, tmp_path: Path, disk: tuple[Path, Resize]
) -> None:
    place, remount = disk
    listed = [
        {"clip_id": f"clip-{number:03d}", "video_uri": str(synthetic / f"c{number % 6}.mp4")}
        for number in range(80)
    ]
    run = str(place / "run")
    wanted = config.parse(settings(rows.manifest(tmp_path / "clips.jsonl", listed), run))
    with pytest.raises(StorageError, match=rf"(write|create) {run}/\S+: the disk is full; free "):
        relabel(wanted)
    before = rows.stored(run)
    assert 0 < len(before) < 80
    verdict = index.verify(run)
    assert (verdict.bad_parts, verdict.duplicate) == ((), 0)
    assert verdict.missing == 80 - len(before)
    assert not list(place.rglob(".emer-tmp-*"))
    remount("size=16m")
    done = relabel(wanted)
    assert (done["ok"], done["failed"]) == (80, 0)
    assert done["skipped"] >= len(before) // 4 * 4 - 4
    after = rows.stored(run)
    assert {name: after[name] for name in before} == before
    assert index.verify(run, deep=True).holds
    assert not list(storage.listing(storage.join(run, "claims")))


def test_a_read_only_directory_is_refused_before_anything_starts(
    synthetic: Path, tmp_path: Path, disk: tuple[Path, Resize]
) -> None:
    place, remount = disk
    clips = [{"clip_id": "a", "video_uri": str(synthetic / "c0.mp4")}]
    manifest = rows.manifest(tmp_path / "clips.jsonl", clips)
    remount("ro")
    code, said = emer("relabel", *arguments(settings(manifest, str(place / "run"))))
    assert code == 2
    assert said == (
        f"emer: write {place}/run/preflight.json: the file system is read-only; "
        f"choose another place"
    )


def emer(*said: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli.main, said)
    assert "Traceback" not in result.stderr
    return result.exit_code, result.stderr.strip()


@pytest.mark.s3
@pytest.mark.parametrize(
    ("status", "code", "told"),
    [
        (403, "AccessDenied", "access denied"),
        (400, "ExpiredToken", "the credentials have expired; renew them and start again"),
        (403, "RequestTimeTooSkewed", "clock is wrong by minutes; set it by NTP and start again"),
        (404, "NoSuchBucket", "there is no such bucket; create it or check its name"),
        (503, "SlowDown", "the server keeps throttling; use fewer actors"),
    ],
)
def test_a_store_that_refuses_is_one_sentence(
    bucket: str,
    s3_endpoint: str,
    tmp_path: Path,
    synthetic: Path,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    code: str,
    told: str,
) -> None:
    monkeypatch.setattr("emer_ray.storage.s3._ATTEMPTS", 1)
    monkeypatch.setattr("emer_ray.storage.s3._REQUESTS", 1)
    clips = [{"clip_id": "a", "video_uri": str(synthetic / "c0.mp4")}]
    manifest = rows.manifest(tmp_path / "clips.jsonl", clips)
    with fault_proxy.proxy(s3_endpoint) as faults:
        faults.refusal = (status, code)
        monkeypatch.setenv("AWS_ENDPOINT_URL", faults.endpoint)
        exit_code, said = emer("relabel", *arguments(settings(manifest, f"{bucket}/run")))
    assert exit_code == 2
    assert said.startswith(f"emer: write {bucket}/run/preflight.json: ")
    assert told in said
    assert "\n" not in said
    assert s3_server.SECRET_KEY not in said


@pytest.mark.s3
def test_inputs_are_reached_before_anything_starts(
    bucket: str, synthetic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.write(f"{bucket}/media/a.mp4", (synthetic / "c0.mp4").read_bytes())
    clips = (
        clips_table("a", "b", "c")
        .with_columns(video_uri=None)
        .select("fps", "audio_uri", "video_uri")
    )

    def reach(*uris: str) -> None:
        preflight_inputs(clips.head(len(uris)).with_columns(video_uri=index.pl.Series(uris)))

    reach(f"{bucket}/media/a.mp4", f"{bucket}/media/gone.mp4", f"{tmp_path}/gone.mp4")
    reach(f"{bucket}/other/gone.mp4")
    with pytest.raises(StorageError, match="there is no such bucket"):
        reach(f"{bucket}/media/a.mp4", "s3://no-such-bucket-here/x/a.mp4")
    listed = [{"clip_id": "a", "video_uri": "s3://no-such-bucket-here/x/a.mp4"}]
    run = str(tmp_path / "run")
    manifest = rows.manifest(tmp_path / "clips.jsonl", listed)
    code, said = emer("relabel", *arguments(settings(manifest, run)))
    assert code == 2
    assert said.startswith("emer: list s3://no-such-bucket-here/x/: there is no such bucket")
    assert layout.live(run) == []
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StorageError, match=r"read .*media/a\.mp4: the secret key is wrong"):
        reach(f"{bucket}/media/a.mp4")
