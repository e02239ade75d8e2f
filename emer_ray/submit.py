"""Run a job of this folder on a cluster: pack the folder, submit, follow the log.

    emer submit jobs/relabel.toml --address http://HEAD:8265 --set output.run=s3://bucket/runs/first

What is packed is what git would keep: files that it tracks or does not ignore. A folder without git
is packed without hidden files, environments and run directories. The job is named after its run and
counted, so that a run has one job at a time; the work itself resumes by the run directory.
"""

import hashlib
import re
import shlex
import subprocess
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from emer_ray import config, jobserver, status, storage
from emer_ray.errors import JobError, RunDirError, StorageError

RELABEL: Final = "jobs/relabel.py"
NEVER: Final = ("__pycache__", "node_modules", "venv")
LARGEST: Final = 5
EXIT: Final = {"SUCCEEDED": 0, "STOPPED": 75}
"""Exit codes of jobs that have not failed; 75 = start it again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What shall run."""

    folder: Path
    door: str
    """Python file in the folder that Ray starts."""
    arguments: tuple[str, ...]
    run: str | None
    """Run directory, where the door has one."""

    @property
    def command(self) -> str:
        return shlex.join(["python", self.door, *self.arguments])


def order(folder: Path, door: str, arguments: Sequence[str], overrides: Sequence[str]) -> Order:
    """Check what shall run before anything is packed; raises an EmerError where it cannot."""
    if not (folder / door).is_file():
        raise JobError(
            f"--job {door}: no such file in {folder}; give --folder with a checkout of the project"
        )
    said = tuple(part for override in overrides for part in ("--set", override))
    run = None
    if door == RELABEL:
        path = Path(arguments[0]) if arguments else None
        if path is None or path.is_absolute() or not (folder / path).is_file():
            raise JobError(
                f"CONFIG {path}: give the path of a TOML file inside of {folder}, relative to it, "
                f"because the folder is what travels"
            )
        run = config.load(folder / path, overrides).output.run
        if run is None:
            raise JobError("output.run is not set; add --set output.run=s3://… to say where")
    return Order(folder=folder, door=door, arguments=(*arguments, *said), run=run)


def submit(
    wanted: Order,
    address: str | None,
    show: Callable[[str], None],
    *,
    detach: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Submit a job and follow it; `show` gets its log, `say` our own sentences.

    A Ctrl-C ends the following and not the job. Returns `job status exit_code address run`, and
    the state of the run (`state ok failed left`) where its directory can be read from here.
    """
    server = jobserver.Server(address)
    name, attempt = _named(wanted, server.jobs())
    with tempfile.TemporaryDirectory(prefix="emer-submit-") as scratch:
        package = Path(scratch) / "folder.zip"
        files, size = pack(wanted, package)
        say(f"{files} files of {wanted.folder.resolve()}, {size / 2**20:.1f} MB")
        metadata = {"emer_order": _key(wanted), "emer_attempt": str(attempt)}
        server.submit(name=name, command=wanted.command, package=str(package), metadata=metadata)
    say(f"job {name} at {server.address}: {wanted.command}")
    try:
        found = server.job(name) if detach else server.follow(name, show)
    except KeyboardInterrupt:
        found = server.job(name)
    over = found.status not in jobserver.UNFINISHED
    if found.status == "FAILED" and found.exit_code is None:  # it never began
        say((found.message.strip() or "no reason given").splitlines()[0])
    told: dict[str, Any] = {
        "job": name,
        "status": found.status,
        "exit_code": EXIT.get(found.status, found.exit_code or 1) if over else 0,
        "address": server.address,
        "run": wanted.run,
    }
    return told | _state(wanted.run)


def _state(run: str | None) -> dict[str, Any]:
    """Tell how far a run is, where its directory lies where this machine can read it."""
    if run is None:
        return {}
    try:
        found = status.status(run)
    except (RunDirError, StorageError):
        return {}  # not begun, or on the disk of another machine
    return {name: found[name] for name in ("state", "clips", "ok", "failed", "left")}


def _key(wanted: Order) -> str:
    what = wanted.run or shlex.join([wanted.door, *wanted.arguments])
    if wanted.run and not storage.is_s3(wanted.run):
        what = str((wanted.folder / wanted.run).absolute())
    return hashlib.sha256(what.encode()).hexdigest()[:12]


def _named(wanted: Order, known: Sequence[jobserver.Job]) -> tuple[str, int]:
    """Name a job after its run and its attempt; raises JobError while an earlier one is at work."""
    key = _key(wanted)
    mine = [job for job in known if job.metadata.get("emer_order") == key]
    if at_work := [job for job in mine if job.status in jobserver.UNFINISHED]:
        what = wanted.run or wanted.door
        raise JobError(
            f"{what}: job {at_work[0].name} is {at_work[0].status} already; follow it with "
            f"`ray job logs --follow {at_work[0].name}`, or end it with "
            f"`ray job stop {at_work[0].name}`"
        )
    attempt = 1 + max((int(job.metadata.get("emer_attempt", 0)) for job in mine), default=0)
    base = Path(wanted.run.rstrip("/")).name if wanted.run else Path(wanted.door).stem
    plain = re.sub(r"[^A-Za-z0-9_]+", "-", base).strip("-")
    return f"emer-{plain or 'run'}-{key}-{attempt}", attempt


def pack(wanted: Order, package: Path) -> tuple[int, int]:
    """Zip the folder; raises JobError with the largest files where Ray would not take it.

    Returns the number of files and the bytes of the zip, which are the same for equal files.
    """
    chosen = set(_kept(wanted.folder))
    if wanted.run is not None:
        chosen.add(Path(wanted.arguments[0]))  # also where git ignores it
    with zipfile.ZipFile(package, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(chosen | {Path(wanted.door)}):
            source = wanted.folder / path
            entry = zipfile.ZipInfo(path.as_posix())
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = (0o755 if source.stat().st_mode & 0o100 else 0o644) << 16
            archive.writestr(entry, source.read_bytes())
        packed = archive.infolist()
    size = package.stat().st_size
    if size >= jobserver.PACKAGE_BYTES:
        largest = sorted(packed, key=lambda entry: -entry.compress_size)[:LARGEST]
        named = ", ".join(f"{e.filename} ({e.compress_size / 2**20:.1f} MB)" for e in largest)
        raise JobError(
            f"{wanted.folder}: {size / 2**20:.0f} MB packed, and Ray takes "
            f"{jobserver.PACKAGE_BYTES // 2**20}; let .gitignore name what the job does not need; "
            f"the largest files are {named}"
        )
    return len(packed), size


def _kept(folder: Path) -> Iterator[Path]:
    """List the files of a folder that belong to it, relative to it."""
    listed = ["git", "-C", str(folder), "ls-files", "-z", "-co", "--exclude-standard"]
    try:
        done = subprocess.run(listed, capture_output=True, check=False)
        names = done.stdout.decode().split("\0")[:-1] if done.returncode == 0 else None
    except FileNotFoundError:
        names = None
    if names is not None:
        # what git lists may have been deleted since, or be a submodule
        yield from (path for name in names if (folder / (path := Path(name))).is_file())
        return
    for path in folder.iterdir():
        yield from _walked(path, folder)


def _walked(path: Path, folder: Path) -> Iterator[Path]:
    """List the files below a path, without what no job needs, where there is no git to ask."""
    if path.name.startswith(".") or path.name in NEVER or path.is_symlink():
        return
    if path.is_file():
        yield path.relative_to(folder)
    elif path.is_dir() and not any((path / mark).exists() for mark in ("pyvenv.cfg", "run.json")):
        for inner in path.iterdir():
            yield from _walked(inner, folder)
