"""Objects by URI: local paths (plain or `file://`), `s3://bucket/key` and, read only, `http(s)://`.

The one door of the package to bytes that outlive a process. A URI names an object, never a folder;
a folder is what the names of objects begin with, so an empty or missing one lists as nothing.
Every failure is a `StorageError` of kind `missing`, `denied` or `storage`, in one sentence with
the operation, the URI and the remedy. Whether http is allowed is the manifest's question; that no
such URI reaches a private address is checked here, always.
"""

import os
import posixpath
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO, Protocol
from urllib.parse import unquote

from emer_ray import meter
from emer_ray.errors import StorageError
from emer_ray.storage.entry import Entry

__all__ = [
    "Entry",
    "create",
    "delete",
    "delete_all",
    "exists",
    "fetched",
    "is_s3",
    "join",
    "listing",
    "open_file",
    "read",
    "read_range",
    "read_up_to",
    "resolve",
    "size",
    "write",
]


class _Readable(Protocol):
    def read(self, uri: str) -> bytes: ...
    def read_up_to(self, uri: str, at_most: int) -> tuple[int, bytes | None]: ...
    def read_range(self, uri: str, start: int, end: int) -> bytes: ...
    def size(self, uri: str) -> int: ...
    def exists(self, uri: str) -> bool: ...
    def open_file(self, uri: str) -> BinaryIO: ...
    def fetched(self, uri: str) -> AbstractContextManager[Path]: ...


class _Writable(_Readable, Protocol):
    def write(self, uri: str, data: bytes) -> str: ...
    def create(self, uri: str, data: bytes) -> bool: ...
    def delete(self, uri: str) -> None: ...
    def delete_all(self, uris: Sequence[str]) -> None: ...
    def listing(self, uri: str, cuts: Sequence[str]) -> Iterator[Entry]: ...


def is_s3(uri: str) -> bool:
    """Tell whether a URI names something in an object store."""
    return uri.startswith("s3://")


def join(base: str, *parts: str) -> str:
    """Name something under a folder; a `file://` base becomes a plain path."""
    return "/".join([_plain(base).rstrip("/"), *(part.strip("/") for part in parts)])


def resolve(path: str, base: str) -> str:
    """Read a path as written in the folder `base`; URIs and absolute paths stay as they are."""
    if "://" in path or path.startswith("/"):
        return _plain(path)
    if not is_s3(base):
        return os.path.normpath(join(base, path))
    bucket, _, folder = base.removeprefix("s3://").partition("/")
    # Keys are literal, "a/../b" is a name of its own: only in a relative path does it mean up.
    return f"s3://{bucket}{posixpath.normpath(posixpath.join('/', folder, path))}"


def read(uri: str) -> bytes:
    """Read a whole object."""
    data = _readable(uri).read(_plain(uri))
    meter.add("bytes", "read", len(data))
    return data


def read_up_to(uri: str, at_most: int) -> tuple[int, bytes | None]:
    """Read a whole object unless it has more than `at_most` bytes; gives its size with them."""
    n_bytes, data = _readable(uri).read_up_to(_plain(uri), at_most)
    meter.add("bytes", "read", len(data or b""))
    return n_bytes, data


def read_range(uri: str, start: int, end: int) -> bytes:
    """Read the bytes `start` to before `end`; fewer where the object ends earlier."""
    if not 0 <= start <= end:
        raise ValueError(f"range {start}:{end} of {uri}: give 0 <= start <= end")
    return _readable(uri).read_range(_plain(uri), start, end) if start < end else b""


def size(uri: str) -> int:
    """Count the bytes of an object."""
    return _readable(uri).size(_plain(uri))


def exists(uri: str) -> bool:
    """Tell whether an object is there; a folder is none."""
    return _readable(uri).exists(_plain(uri))


def write(uri: str, data: bytes) -> str:
    """Store an object whole or not at all, over what was there; returns its version."""
    version = _writable(uri, "write").write(_plain(uri), data)
    meter.add("bytes", "written", len(data))
    return version


def create(uri: str, data: bytes) -> bool:
    """Store an object only if none has its name, else False: of many writers one gets True."""
    return _writable(uri, "create").create(_plain(uri), data)


def delete(uri: str) -> None:
    """Remove an object; one that is not there is fine."""
    _writable(uri, "delete").delete(_plain(uri))


def delete_all(uris: Iterable[str]) -> None:
    """Remove many objects of one folder with few requests; one that is not there is fine."""
    plain = [_plain(uri) for uri in uris]
    if plain:
        _writable(plain[0], "delete").delete_all(plain)


def listing(uri: str, cuts: Sequence[str] = ()) -> Iterator[Entry]:
    """List every object under a folder, at any depth, ordered by URI within each folder.

    `cuts` are names under it, in order, between which an object store lists at the same time: a
    page holds 1,000 names and takes a round trip.
    """
    return _writable(uri, "list").listing(_plain(uri), cuts)


def open_file(uri: str) -> BinaryIO:
    """Open an object for reading and seeking; far objects are read piecewise, in bounded memory."""
    return _readable(uri).open_file(_plain(uri))


def fetched(uri: str) -> AbstractContextManager[Path]:
    """Give an object as a local file for the length of a `with`; a far one is a temporary copy."""
    return _readable(uri).fetched(_plain(uri))


def _plain(uri: str) -> str:
    """Turn `file://` into a plain path; leave everything else."""
    if not uri.startswith("file://"):
        return uri
    host, slash, path = uri.removeprefix("file://").partition("/")
    if host not in ("", "localhost") or not slash:
        raise StorageError("storage", f"{uri}: not a local file; write file:///absolute/path")
    return unquote(slash + path)


def _readable(uri: str) -> _Readable:
    if uri.startswith(("http://", "https://")):
        from emer_ray.storage import web

        return web
    return _writable(uri, "read")


def _writable(uri: str, operation: str) -> _Writable:
    if is_s3(uri):
        from emer_ray.storage import s3  # boto3 takes a quarter of a second to import

        return s3
    if "://" in uri and not uri.startswith("file://"):
        raise StorageError(
            "storage",
            f"cannot {operation} {uri.partition('?')[0]}: give a local path or an s3:// URI",
        )
    from emer_ray.storage import local

    return local
