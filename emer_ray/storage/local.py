"""Objects as local files: written to a temporary name, flushed to disk, renamed."""

import errno
import os
import secrets
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

from emer_ray.errors import StorageError
from emer_ray.storage.entry import Entry

_TEMPORARY: Final = ".emer-tmp-"
"""What the name of a file that is still being written begins with; listings leave those out."""

_NO_HARD_LINKS: Final = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}


def read(uri: str) -> bytes:
    with open_file(uri) as file, _sentences("read", uri):
        return file.read()


def read_up_to(uri: str, at_most: int) -> tuple[int, bytes | None]:
    n_bytes = size(uri)
    return n_bytes, read(uri) if n_bytes <= at_most else None


def read_range(uri: str, start: int, end: int) -> bytes:
    with open_file(uri) as file, _sentences("read", uri):
        file.seek(start)
        return file.read(end - start)


def size(uri: str) -> int:
    with _sentences("read", uri):
        return _regular(uri).st_size


def exists(uri: str) -> bool:
    with _sentences("look for", uri):
        try:
            return stat.S_ISREG(Path(uri).stat().st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return False


def open_file(uri: str) -> BinaryIO:
    with _sentences("read", uri):
        _regular(uri)
        return Path(uri).open("rb")


@contextmanager
def fetched(uri: str) -> Iterator[Path]:
    with _sentences("read", uri):
        _regular(uri)
    yield Path(uri)


def write(uri: str, data: bytes) -> str:
    with _sentences("write", uri), _temporary(Path(uri), data) as temporary:
        version = _version(temporary.stat())
        temporary.replace(uri)
        _flush_folder(Path(uri).parent)
    return version


def create(uri: str, data: bytes) -> bool:
    """What is created is a mark of work in progress: it outlives its process, but need not outlive
    the machine, so that nothing waits for the disk.
    """
    path = Path(uri)
    with _sentences("create", uri):
        if path.exists():
            return False
        with _temporary(path, data, flush=False) as temporary:
            try:
                path.hardlink_to(temporary)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in _NO_HARD_LINKS:
                    raise
                return _create_in_place(path, data)
    return True


def delete(uri: str) -> None:
    with _sentences("delete", uri), suppress(FileNotFoundError, NotADirectoryError):
        Path(uri).unlink()


def delete_all(uris: Sequence[str]) -> None:
    for uri in uris:
        delete(uri)


def listing(uri: str, cuts: Sequence[str]) -> Iterator[Entry]:
    del cuts  # a folder is read in one go
    return _under(uri, ())


def _under(uri: str, above: tuple[str, ...]) -> Iterator[Entry]:
    """List a folder; one that a link has led back into is not entered again."""
    real = os.path.realpath(uri)
    if real in above:
        return
    with _sentences("list", uri):
        try:
            found = sorted(os.scandir(uri), key=lambda entry: entry.name)
        except (FileNotFoundError, NotADirectoryError):
            return
    for entry in found:
        try:  # no context manager: a folder may hold a hundred thousand
            folder, facts = entry.is_dir(), entry.stat()
        except FileNotFoundError:  # gone since the scan, or a link that leads nowhere
            continue
        except OSError as error:
            raise _storage_error("list", entry.path, error) from None
        if folder:
            yield from _under(entry.path, (*above, real))
        elif stat.S_ISREG(facts.st_mode) and not entry.name.startswith(_TEMPORARY):
            yield Entry(
                uri=entry.path,
                size=facts.st_size,
                modified_s=facts.st_mtime,
                version=_version(facts),
            )


def _version(facts: os.stat_result) -> str:
    return f"{facts.st_size:x}-{facts.st_mtime_ns:x}"


def _regular(uri: str) -> os.stat_result:
    """Look at a file; a pipe or device could block for ever and is refused."""
    facts = Path(uri).stat()
    if stat.S_ISDIR(facts.st_mode):
        raise IsADirectoryError(errno.EISDIR, "is a directory")
    if not stat.S_ISREG(facts.st_mode):
        raise StorageError("storage", f"read {uri}: not a regular file; give the path of a file")
    return facts


@contextmanager
def _temporary(path: Path, data: bytes, *, flush: bool = True) -> Iterator[Path]:
    """Write data beside `path`, flushed to disk; what is still there at the end is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(_TEMPORARY + secrets.token_hex(8))
    try:
        with temporary.open("xb") as file:
            file.write(data)
            if flush:
                file.flush()
                os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _create_in_place(path: Path, data: bytes) -> bool:
    """Create without hard links: just as exclusive, but a reader may see a part of the file."""
    try:
        with path.open("xb") as file:
            file.write(data)
    except FileExistsError:
        return False
    return True


def _flush_folder(folder: Path) -> None:
    """Flush a folder's names to disk, so that a rename outlives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _sentences(operation: str, uri: str) -> Iterator[None]:
    """Turn what the operating system says into one sentence with the remedy."""
    try:
        yield
    except OSError as error:
        raise _storage_error(operation, uri, error) from None


def _storage_error(operation: str, uri: str, error: OSError) -> StorageError:
    says = f"{operation} {uri}: "
    match error.errno:
        case errno.ENOENT:
            return StorageError("missing", says + "no such file; check the path")
        case errno.ENOTDIR | errno.EEXIST:
            return StorageError(
                "missing" if operation == "read" else "storage",
                says + "a part of this path is a file, not a directory; choose another path",
            )
        case errno.EISDIR:
            return StorageError("missing", says + "this is a directory; give the path of a file")
        case errno.EACCES | errno.EPERM:
            return StorageError("denied", says + "permission denied; check the owner and mode")
        case errno.EROFS:
            return StorageError(
                "denied", says + "the file system is read-only; choose another place"
            )
        case errno.ENOSPC | errno.EDQUOT:
            return StorageError("storage", says + "the disk is full; free space and start again")
        case errno.ENAMETOOLONG:
            return StorageError("storage", says + "the name is too long; choose a shorter one")
    return StorageError(
        "storage", f"{says}{error.strerror or error}; check the disk and start again"
    )
