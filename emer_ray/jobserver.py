"""Ray's job server over HTTP: hand in a package, start a job, follow its log to its end.

Knows nothing of runs. Starts no Ray and joins none: only the job does, on the cluster. The token of
a cluster with token authentication is found by Ray's client (`RAY_AUTH_TOKEN`,
`RAY_AUTH_TOKEN_PATH`, with `RAY_AUTH_MODE=token`).
"""

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import aiohttp
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobSubmissionClient

from emer_ray.errors import JobError

PACKAGE_BYTES: Final = 100 * 2**20
"""Largest package that Ray's dashboard takes (`DASHBOARD_CLIENT_MAX_SIZE`)."""
UNFINISHED: Final = ("PENDING", "RUNNING")
AGENT_S: Final = 60.0
"""For a head's job agent, which starts after the head answers."""
POLL_S: Final = 1.0
LOST: Final = 10
"""Times in a row that the log's connection may be lost before following ends."""

ADDRESSES: Final = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job as its server tells of it."""

    name: str
    status: str
    """PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED."""
    exit_code: int | None
    """Of the command; null while it runs, and where it never began."""
    message: str
    metadata: Mapping[str, str]


@contextmanager
def _speaking(address: str) -> Iterator[None]:
    """Say in one sentence what the server or the way there did not allow."""
    try:
        yield
    except AuthenticationError as error:
        said = str(error).strip().splitlines()[0]
        raise JobError(
            f"{address}: {said}; give the cluster's token in RAY_AUTH_TOKEN, or its file in "
            f"RAY_AUTH_TOKEN_PATH, and set RAY_AUTH_MODE=token"
        ) from None
    except (ConnectionError, OSError) as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise JobError(
            f"{address}: no job server answers ({said}); give --address http://HEAD:8265, which "
            f"`ray dashboard` or `kubectl port-forward` makes reachable"
        ) from None
    except RuntimeError as error:
        raise JobError(f"{address}: {str(error).strip().splitlines()[0]}") from None


class Server:
    """A connection to a job server."""

    def __init__(self, address: str | None) -> None:
        """Take the address, or that of the environment; raises JobError where there is none."""
        found = address or next((os.environ[n] for n in ADDRESSES if os.environ.get(n)), None)
        if found is None:
            raise JobError(
                "no cluster named; give --address http://HEAD:8265, or set RAY_API_SERVER_ADDRESS"
            )
        self.address = found
        logging.getLogger("ray.dashboard").setLevel(logging.ERROR)
        os.environ[ADDRESSES[0]] = found  # Ray's client prefers it to its own argument
        with _speaking(found):
            self._client = JobSubmissionClient(found)

    def jobs(self) -> list[Job]:
        """List the jobs that this cluster knows of."""
        with _speaking(self.address):
            return [_job(found) for found in self._client.list_jobs() if found.submission_id]

    def job(self, name: str) -> Job:
        """Look at one job."""
        with _speaking(self.address):
            return _job(self._client.get_job_info(name))

    def submit(self, *, name: str, command: str, package: str, metadata: Mapping[str, str]) -> None:
        """Start a command in the folder that a zip holds; a name that is taken is a JobError."""
        until = time.monotonic() + AGENT_S
        while True:
            try:
                with _speaking(self.address):
                    self._client.submit_job(
                        entrypoint=command,
                        runtime_env={"working_dir": package},
                        metadata=dict(metadata),
                        submission_id=name,
                    )
                return
            except JobError as error:  # Ray has one status for every refusal, and this text
                if "No available agent" not in str(error) or time.monotonic() > until:
                    raise
            time.sleep(POLL_S)

    def follow(self, name: str, show: Callable[[str], None]) -> Job:
        """Show a job's log as it comes, until the job has ended."""
        shown = lost = 0

        async def tail() -> None:
            nonlocal shown
            at = 0
            async for text in self._client.tail_job_logs(name):  # from the beginning, each time
                if new := text[max(0, shown - at) :]:
                    show(new)
                at += len(text)
                shown = max(shown, at)

        while True:
            before = shown
            try:
                asyncio.run(tail())
            except (RuntimeError, aiohttp.ClientError, OSError) as error:
                lost = lost + 1 if shown == before else 0
                if lost > LOST:
                    raise JobError(
                        f"{self.address}: the log of {name} cannot be followed ({error}); the job "
                        f"goes on"
                    ) from None
            found = self.job(name)
            if found.status not in UNFINISHED:
                return found
            time.sleep(POLL_S)


def _job(found: JobDetails) -> Job:
    assert found.submission_id is not None  # only a driver that nobody submitted has none
    return Job(
        name=found.submission_id,
        status=found.status.value,
        exit_code=found.driver_exit_code,
        message=found.message or "",
        metadata=found.metadata or {},
    )
