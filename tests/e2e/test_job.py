"""`ray job submit -- python jobs/relabel.py …` on a real Ray head, with its token."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from emer_ray.store import index
from tests import rows

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A Ray head of its own, ended by SIGTERM; gives the environment of its clients."""
    folder = tmp_path_factory.mktemp("head")
    token = folder / "token"
    token.write_text("0123456789abcdef" * 4)
    dashboard, port = free_port(), free_port()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
    }
    command = [
        *(str(BIN / "ray"), "start", "--head", "--block", "--num-cpus=4"),
        *(f"--port={port}", f"--dashboard-port={dashboard}", "--dashboard-host=127.0.0.1"),
        f"--dashboard-agent-listen-port={free_port()}",  # the default is taken by any other Ray
        *("--min-worker-port=0", "--max-worker-port=0", f"--temp-dir=/tmp/ray-{port}"),
    ]
    log = (folder / "head.log").open("w")
    process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    address = f"http://127.0.0.1:{dashboard}"
    try:
        for _ in range(120):
            try:
                urllib.request.urlopen(f"{address}/api/version", timeout=2)
                break
            except urllib.error.HTTPError:
                break  # it answers, and wants the token
            except OSError:
                assert process.poll() is None, (folder / "head.log").read_text()
                time.sleep(0.5)
        yield {**environment, "RAY_API_SERVER_ADDRESS": address}
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


@pytest.mark.ray
def test_a_submitted_job_relabels(head: dict[str, str], synthetic: Path, tmp_path: Path) -> None:
    clips = [
        {"clip_id": f"c{number}", "video_uri": str(synthetic / f"c{number % 6}.mp4")}
        for number in range(12)
    ]
    manifest = rows.manifest(tmp_path / "clips.jsonl", clips)
    run = str(tmp_path / "run")
    command = [
        *(str(BIN / "ray"), "job", "submit", "--working-dir", str(ROOT / "jobs"), "--"),
        *("python", "relabel.py", "relabel.toml", "--json"),
        *("--set", f"input.manifest={manifest}", "--set", f"output.run={run}"),
        *("--set", "models.main.backend=fake", "--set", "media.size_px=64"),
    ]
    for _ in range(30):  # the head answers before its job agent does
        done = subprocess.run(command, env=head, capture_output=True, text=True, timeout=240)
        if "No available agent" not in done.stderr:
            break
        time.sleep(1)
    assert done.returncode == 0, done.stdout + done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith('{"run"'))
    summary = json.loads(line)
    assert (summary["clips"], summary["ok"], summary["failed"]) == (12, 12, 0)
    assert index.verify(run).holds


@pytest.mark.ray
def test_emer_submit_shows_its_token_and_ends_as_the_job_does(
    head: dict[str, str], tmp_path: Path
) -> None:
    command = [
        *(sys.executable, "-m", "emer_ray.cli", "submit", "jobs/relabel.toml", "--json"),
        *("--set", f"input.manifest={tmp_path / 'gone.csv'}"),
        *("--set", f"output.run={tmp_path / 'run'}"),
    ]
    strange = {**head, "RAY_AUTH_MODE": "disabled"}
    done = subprocess.run(command, env=strange, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "give the cluster's token in RAY_AUTH_TOKEN" in done.stderr
    done = subprocess.run(command, env=head, cwd=ROOT, capture_output=True, text=True, timeout=240)
    told = json.loads(done.stdout.splitlines()[-1])
    assert (done.returncode, told["status"], told["exit_code"]) == (2, "FAILED", 2), done.stderr
    assert "gone.csv" in done.stderr  # the sentence of the job, out of its log
    assert "state" not in told  # the run never began
