"""Opening what a URI names: a local path as it is, a far object as bytes in memory or ranged reads.

Nothing is copied to disk, so nothing is left there whatever happens to the process.
"""

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from emer_ray import meter, storage
from emer_ray.config import MediaConfig
from emer_ray.errors import ClipError

WHOLE_BYTES: Final = 64 * 2**20
"""A far object up to this size is fetched whole, a larger one is read in ranges."""

Source = str | BinaryIO
"""A local path, or an open file at its start."""

_SIGNATURES: Final = (
    (4, b"ftyp moov mdat free wide skip"),  # mp4, mov
    (0, b"\x1a\x45\xdf\xa3 OggS RIFF FORM fLaC FLV\x01 caff .RMF #!AM"),
    (0, b"\x30\x26\xb2\x75 \x00\x00\x01\xba \x00\x00\x01\xb3"),  # asf, mpeg
    (0, b"ID3 \xff\xfb \xff\xf3 \xff\xf1 \xff\xd8\xff \x89PNG"),  # mp3, aac, jpeg, png
)


def is_far(uri: str) -> bool:
    """Tell whether a URI names something on another machine."""
    return uri.startswith(("s3://", "http://", "https://"))


def fetch(uri: str, settings: MediaConfig) -> bytes | None:
    """Read a far object whole; None when it is too large for that or lies on this machine."""
    if not is_far(uri):
        return None
    n_bytes, data = storage.read_up_to(uri, min(WHOLE_BYTES, settings.max_mb * 2**20))
    _check_size(uri, n_bytes, settings)
    return data


@contextmanager
def opened(uri: str, settings: MediaConfig, held: Mapping[str, bytes]) -> Iterator[Source]:
    """Open a URI for decoding; `held` has the bytes of those that were fetched before.

    Raises `ClipError` (`empty`, `too_large`) and `StorageError`.
    """
    data = held[uri] if uri in held else fetch(uri, settings)
    if data is not None:
        if not data:
            raise _empty(uri)
        yield io.BytesIO(data)
    elif is_far(uri):
        with storage.open_file(uri) as file:
            yield file
    else:
        _check_size(uri, storage.size(uri), settings)
        before = _bytes_read()
        try:
            # Absolute, so that FFmpeg does not take a name such as `concat:a` for a protocol.
            yield storage.resolve(uri, str(Path.cwd()))
        finally:
            meter.add("bytes", "read", _bytes_read() - before)


def _bytes_read() -> int:
    """Count what this process has read from files; nobody else says how much a decoder reads."""
    return int(Path("/proc/self/io").read_text().split()[1])


def looks_like_media(source: Source) -> bool:
    """Tell by its first bytes whether a file that would not open claims to be a container."""
    if isinstance(source, str):
        with Path(source).open("rb") as file:
            head = file.read(12)
    else:
        source.seek(0)
        head = source.read(12)
    return any(
        head[at:].startswith(signature)
        for at, signatures in _SIGNATURES
        for signature in signatures.split(b" ")
    )


def _check_size(uri: str, n_bytes: int, settings: MediaConfig) -> None:
    if not n_bytes:
        raise _empty(uri)
    if n_bytes > settings.max_mb * 2**20:
        raise ClipError(
            "too_large",
            f"{uri}: {n_bytes / 2**20:.0f} MB; raise media.max_mb (now {settings.max_mb})",
        )


def _empty(uri: str) -> ClipError:
    return ClipError("empty", f"{uri}: zero bytes; copy the file again")
