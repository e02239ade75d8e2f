"""Judgements as they are made: appended and synced before they are acknowledged.

An annotator's log is a sheet of the round in JSONL, one judgement a line, of which the last one on
an item counts: `emer review merge` reads it as it is. On a local path it is one file; in an object
store, where nothing can be appended, it is one small object per judgement.
"""

import fcntl
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO, Protocol

from emer_ray import storage
from emer_ray.errors import ConfigError
from emer_ray.rounds import sheets
from emer_ray.rounds.items import Mark


class Log(Protocol):
    """Where an annotator's judgements go."""

    def append(self, mark: Mark) -> None: ...

    def read(self) -> list[Mark]: ...


def opened(place: str, annotator: str) -> Log:
    """Open the log of an annotator in a round's folder."""
    uri = storage.join(place, f"sheets/{annotator}.jsonl")
    return _Objects(uri) if storage.is_s3(uri) else _File(Path(uri))


def held(place: str) -> BinaryIO | None:
    """Keep a second server away from the same local files, for as long as the result is open.

    The lock is the operating system's: it ends with this process, however that ends.
    """
    if storage.is_s3(place):
        return None
    file = (Path(place) / "desk.lock").open("wb")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise ConfigError(
            f"{place}: another `emer review` serves this round; use its page, or end it first"
        ) from None
    return file


def _line(mark: Mark) -> bytes:
    return json.dumps(asdict(mark), ensure_ascii=False).encode() + b"\n"


class _File:
    """One file; a line is on the disk before `append` returns."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._end_whole()

    def _end_whole(self) -> None:
        """Cut off what a dying server left behind its last line: nobody was told it was saved."""
        if not self._path.exists():
            return
        data = self._path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            os.truncate(self._path, whole)

    def append(self, mark: Mark) -> None:
        new = not self._path.exists()
        with self._path.open("ab") as file:
            file.write(_line(mark))
            file.flush()
            os.fsync(file.fileno())
        if new:  # the name of a new file is on the disk when its folder is
            folder = os.open(self._path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def read(self) -> list[Mark]:
        data = self._path.read_bytes() if self._path.exists() else b""
        return sheets.read(str(self._path), data) if data else []


class _Objects:
    """One object per judgement, created where no other has its name: nothing is overwritten."""

    def __init__(self, uri: str) -> None:
        self._folder = uri
        self._next = 1 + max(
            (int(entry.uri.rsplit("/", 1)[-1].split(".")[0]) for entry in self._listed()), default=0
        )

    def _listed(self) -> Sequence[storage.Entry]:
        return list(storage.listing(self._folder))

    def append(self, mark: Mark) -> None:
        line = _line(mark)
        while not storage.create(f"{self._folder}/{self._next:09d}.jsonl", line):
            self._next += 1  # another server was faster; both judgements are kept
        self._next += 1

    def read(self) -> list[Mark]:
        lines = b"".join(storage.read(entry.uri) for entry in self._listed())
        return sheets.read(self._folder, lines) if lines else []
