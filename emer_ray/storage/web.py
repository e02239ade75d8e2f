"""Objects over http(s), read only, from public hosts only.

A manifest is data from someone else: a URI in it must not make a worker fetch cloud credentials
from a metadata address or talk to a neighbour. The name is resolved once, every address of it must
be public, and the connection goes to the address that was checked; each redirect passes the same
door. Proxies are not used: they would resolve the name again.
"""

import io
import ipaddress
import random
import re
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final, TypeVar, cast
from urllib.parse import SplitResult, urljoin, urlsplit

import urllib3

from emer_ray import meter
from emer_ray.errors import StorageError, StorageKind

T = TypeVar("T")

_ATTEMPTS: Final = 4
_MAX_REDIRECTS: Final = 5
_MAX_BYTES: Final = 2 * 2**30
_DEADLINE_S: Final = 600.0
"""For one object, tries included: a server that drips must not hold a worker."""
_TIMEOUT: Final = urllib3.Timeout(connect=10, read=30)
_PIECE: Final = 2**20
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")


def read(uri: str) -> bytes:
    target = io.BytesIO()
    _download(uri, target)
    return target.getvalue()


def read_up_to(uri: str, at_most: int) -> tuple[int, bytes | None]:
    n_bytes = size(uri)
    return n_bytes, read(uri) if n_bytes <= at_most else None


def read_range(uri: str, start: int, end: int) -> bytes:
    target = io.BytesIO()
    _download(uri, target, start, end)
    return target.getvalue()


def size(uri: str) -> int:
    def head() -> str | None:
        with _answer("HEAD", uri) as answer:
            return answer.headers.get("Content-Length")

    length = _again(uri, head)
    if length is None or not length.isdecimal():
        raise _error("storage", uri, "the server does not tell the size; copy it to S3 or disk")
    return int(length)


def exists(uri: str) -> bool:
    def head() -> bool:
        with _answer("HEAD", uri):
            return True

    try:
        return _again(uri, head)
    except StorageError as error:
        if error.kind == "missing":
            return False
        raise


def open_file(uri: str) -> BinaryIO:
    file = tempfile.TemporaryFile(prefix="emer-")  # noqa: SIM115 the caller closes it
    try:
        _download(uri, cast(BinaryIO, file))
    except BaseException:
        file.close()
        raise
    meter.add("bytes", "read", file.tell())
    file.seek(0)
    return cast(BinaryIO, file)


@contextmanager
def fetched(uri: str) -> Iterator[Path]:
    # Decoders look at the ending of a name.
    suffix = PurePosixPath(urlsplit(uri).path).suffix
    with tempfile.NamedTemporaryFile(prefix="emer-", suffix=suffix) as file:
        _download(uri, cast(BinaryIO, file))
        yield Path(file.name)


def _download(uri: str, target: BinaryIO, start: int = 0, end: int | None = None) -> None:
    """Write the bytes `start` to before `end` into an empty file."""
    wanted = {} if end is None else {"Range": f"bytes={start}-{end - 1}"}
    deadline = time.monotonic() + _DEADLINE_S

    def copy() -> None:
        target.seek(0)
        target.truncate()
        with _answer("GET", uri, wanted) as answer:
            if answer.status == 416:  # the range begins past the end
                return
            # A server may ignore the range and send everything.
            skip = start if answer.status == 200 else 0
            left = _MAX_BYTES if end is None else end - start
            while piece := answer.read1(_PIECE):  # what has come, so that the clock is looked at
                if time.monotonic() > deadline:
                    raise _error("storage", uri, f"slower than {_DEADLINE_S:.0f} s; copy it to S3")
                kept = piece[skip:][:left]
                skip = max(0, skip - len(piece))
                _put(uri, target, kept)
                left -= len(kept)
                if left == 0 and end is not None:
                    return
                if left == 0:
                    raise _error("storage", uri, f"larger than {_MAX_BYTES} bytes; copy it to S3")

    _again(uri, copy)


def _put(uri: str, target: BinaryIO, data: bytes) -> None:
    try:
        target.write(data)
        target.flush()
    except OSError as error:
        raise _error(
            "storage",
            uri,
            f"no temporary copy ({error.strerror}); free space under {tempfile.gettempdir()}",
        ) from None


class _Busy(Exception):
    """The server asks to come back later."""


def _again(uri: str, call: Callable[[], T]) -> T:
    """Call until it works, a few times with growing pauses."""
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return call()
        except urllib3.exceptions.SSLError:
            what = "the host's certificate is refused; check the URI, or set SSL_CERT_FILE"
            raise _error("denied", uri, what) from None
        except (urllib3.exceptions.HTTPError, _Busy) as error:
            reason = str(error) if isinstance(error, _Busy) else type(error).__name__
        if attempt < _ATTEMPTS:
            time.sleep(random.uniform(0.5, 1) * 0.4 * 2**attempt)  # noqa: S311 jitter, no secret
    raise _error(
        "storage", uri, f"failed {_ATTEMPTS} times ({reason}); check the network and the host"
    )


@contextmanager
def _answer(
    method: str, uri: str, headers: dict[str, str] | None = None
) -> Iterator[urllib3.BaseHTTPResponse]:
    """Ask for a URI, following redirects; a status other than success, or 416, is raised."""
    at, location = uri, ""
    for _ in range(_MAX_REDIRECTS + 1):
        parts, host, port = _place(uri, at, location)
        if at.startswith("https:") and parts.scheme != "https":
            raise _error("denied", uri, "redirected from https to http; give the last URI")
        with _connection(uri, parts.scheme, host, port) as pool:
            answer = pool.request(
                method,
                (parts.path or "/") + (f"?{parts.query}" if parts.query else ""),
                headers={"Host": parts.netloc, "User-Agent": "emer_ray", **(headers or {})},
                timeout=_TIMEOUT,
                retries=False,
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
            at, location = parts.geturl(), answer.get_redirect_location() or ""
            if not location:
                _refuse(uri, answer.status, ranged="Range" in (headers or {}))
                yield answer
                return
    raise _error("storage", uri, f"more than {_MAX_REDIRECTS} redirects; give the last URI")


def _refuse(uri: str, status: int, *, ranged: bool) -> None:
    if status == 200 or (ranged and status in (206, 416)):
        return
    if status in (404, 410):
        raise _error("missing", uri, "the host has no such object; check the URI")
    if status in (401, 403, 451):
        raise _error("denied", uri, f"access refused (status {status}); copy it to S3 or disk")
    if status == 429 or status >= 500:
        raise _Busy(f"status {status}")
    raise _error("storage", uri, f"the host answered {status}; check the URI")


def _place(uri: str, at: str, location: str) -> tuple[SplitResult, str, int]:
    """Take apart where `at`, or a redirect from there, leads: the parts, the host and the port."""
    try:
        parts = urlsplit(urljoin(at, location))
        host, port = parts.hostname, parts.port or {"http": 80, "https": 443}[parts.scheme]
        parts.netloc.encode("ascii")
    except (ValueError, KeyError):
        host = None
    if not host or parts.username is not None:
        raise _error("denied", uri, "not an http(s) URI with a plain host and no password")
    return parts, host, port


@contextmanager
def _connection(
    uri: str, scheme: str, host: str, port: int
) -> Iterator[urllib3.HTTPConnectionPool]:
    """Connect to a checked address of a host; the certificate must be the host's."""
    address = _checked_address(uri, host, port)
    pool = (
        urllib3.HTTPSConnectionPool(address, port, server_hostname=host, assert_hostname=host)
        if scheme == "https"
        else urllib3.HTTPConnectionPool(address, port)
    )
    try:
        yield pool
    finally:
        pool.close()


def _checked_address(uri: str, host: str, port: int) -> str:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise _error("storage", uri, f"the name {host} does not resolve; check the URI") from None
    addresses = [str(entry[4][0]) for entry in found]
    if not all(is_public(address) for address in addresses):
        raise _error(
            "denied",
            uri,
            f"{host} is a loopback, link-local or private address; copy the object to S3 or disk",
        )
    return addresses[0]


def is_private_name(host: str) -> bool:
    """Tell, without asking for its addresses, that a host is plainly not a public one."""
    if host == "localhost" or host.endswith((".localhost", ".local", ".internal")):
        return True
    try:
        address = socket.inet_ntoa(socket.inet_aton(host))  # 127.1 and 0x7f000001 are addresses too
    except OSError:
        address = host
    try:
        return not is_public(address)
    except ValueError:  # a name
        return False


def is_public(address: str) -> bool:
    """Tell whether an IP address is one that the whole internet can reach."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    return ip.is_global and not ip.is_multicast


def _error(kind: StorageKind, uri: str, what: str) -> StorageError:
    # The query of a presigned URI is a key, and so is what stands before an @: neither is shown.
    shown = re.sub("//[^/]*@", "//", uri).partition("?")[0]
    return StorageError(kind, f"read {shown}: {what}")
