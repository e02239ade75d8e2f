"""Objects in S3 or a server that speaks it, over boto3.

Credentials, region and endpoint come from the standard chain only (environment, profile, role).
botocore repeats a failed request within a second or two; a server that restarts takes longer, and
a body that breaks off is not its business: both are repeated here, with longer pauses.
"""

import functools
import io
import os
import random
import re
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO, Final, TypeVar, cast
from xml.etree import ElementTree

import boto3.session
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    FlexibleChecksumError,
    IncompleteReadError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
    ReadTimeoutError,
    ResponseStreamingError,
    SSLError,
    SSOError,
)

from emer_ray import meter
from emer_ray.errors import StorageError, StorageKind
from emer_ray.storage.entry import Entry

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

T = TypeVar("T")

_REQUESTS: Final = 4
"""Tries of one request by botocore; one that meets silence takes 30 s."""

_ATTEMPTS: Final = 5
"""Times that we call botocore, with pauses of 8 to 15 s in all."""

_PART: Final = 8 * 2**20
"""Bytes of one ranged GET of a large object, and the most an open file reads ahead."""

_FIRST: Final = 2**18
"""Bytes an open file reads after a jump; doubled while reading goes on in order, up to `_PART`."""

_PARALLEL: Final = 4
"""Ranged GETs at a time when an object is fetched."""

_LISTERS: Final = 16
"""Pieces of a listing that are fetched at a time."""

_CONTENTS: Final = (
    re.compile(b"<Key>([^<]+)</Key>"),
    re.compile(b"<Size>([0-9]+)</Size>"),
    re.compile(b'<ETag>(?:"|&quot;|&#34;)?([^<&"]+)(?:"|&quot;|&#34;)?</ETag>'),
    re.compile(b"<LastModified>([^<]+)</LastModified>"),
)
"""What a page of a listing says of an object, in whatever order a server says it."""

_DELETED: Final = 1000
"""Names that one request may delete."""

_BROKEN_BODY: Final = (
    ConnectionClosedError,
    FlexibleChecksumError,
    IncompleteReadError,
    ReadTimeoutError,
    ResponseStreamingError,
)

_NO_CREDENTIALS: Final = (
    CredentialRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
)

_MAY_PASS: Final = (ConnectionClosedError, EndpointConnectionError)
"""Failures of a request that are worth a longer pause; those of silence have waited enough."""

_MAY_PASS_CODES: Final = {
    "ConditionalRequestConflict",  # another writer is at the same key right now
    "InternalError",
    "RequestTimeout",
    "SlowDown",
    "500",
    "502",
    "504",
}


def read(uri: str) -> bytes:
    return _body(uri)


def read_up_to(uri: str, at_most: int) -> tuple[int, bytes | None]:
    return _sized_body(uri, at_most)


def read_range(uri: str, start: int, end: int) -> bytes:
    return _range(uri, start, end)


def size(uri: str) -> int:
    return _head(uri)[0]


def exists(uri: str) -> bool:
    try:
        _head(uri, "look for")
    except StorageError as error:
        if error.kind == "missing":
            return False
        raise
    return True


def open_file(uri: str) -> BinaryIO:
    n_bytes, etag = _head(uri)
    return cast(BinaryIO, io.BufferedReader(_Ranged(uri, n_bytes, etag), 2**16))


@contextmanager
def fetched(uri: str) -> Iterator[Path]:
    n_bytes, etag = _head(uri)
    # Decoders look at the ending of a name.
    suffix = PurePosixPath(uri).suffix
    with tempfile.NamedTemporaryFile(prefix="emer-", suffix=suffix) as file:

        def fetch(start: int) -> None:
            part = _range(uri, start, min(start + _PART, n_bytes), etag)
            _write_at(uri, file.fileno(), part, start)

        with ThreadPoolExecutor(_PARALLEL) as pool:
            for _ in pool.map(fetch, range(0, n_bytes, _PART)):
                pass
        yield Path(file.name)


def write(uri: str, data: bytes) -> str:
    bucket, key = _split(uri)
    stored = _again(
        "write",
        uri,
        lambda: _client().put_object(Bucket=bucket, Key=key, Body=data, ChecksumAlgorithm="SHA256"),
    )
    return stored["ETag"].strip('"')


def create(uri: str, data: bytes) -> bool:
    bucket, key = _split(uri)
    writer = secrets.token_hex(16)

    def put() -> bool:
        try:
            _client().put_object(
                Bucket=bucket,
                Key=key,
                Body=data,
                ChecksumAlgorithm="SHA256",
                IfNoneMatch="*",
                Metadata={"emer-writer": writer},
            )
        except ClientError as error:
            if _code(error) != "PreconditionFailed":
                raise
            # botocore repeats a PUT whose answer was lost, and then meets its own object.
            return _writer(bucket, key) == writer
        return True

    return _again("create", uri, put)


def _writer(bucket: str, key: str) -> str | None:
    try:
        return _client().head_object(Bucket=bucket, Key=key)["Metadata"].get("emer-writer")
    except ClientError as error:
        if _code(error) == "NotFound":  # deleted by now
            return None
        raise


def delete(uri: str) -> None:
    bucket, key = _split(uri)
    _again("delete", uri, lambda: _client().delete_object(Bucket=bucket, Key=key))


def delete_all(uris: Sequence[str]) -> None:
    bucket = _split(uris[0])[0]
    for first in range(0, len(uris), _DELETED):
        names = [{"Key": _split(uri)[1]} for uri in uris[first : first + _DELETED]]
        wanted: Any = {"Objects": names, "Quiet": True}
        answer = _again(
            "delete",
            uris[first],
            lambda wanted=wanted: _client().delete_objects(Bucket=bucket, Delete=wanted),  # type: ignore[misc]
        )
        for refused in answer.get("Errors", ()):  # one at a time says why, and tries again
            delete(f"s3://{bucket}/{refused['Key']}")


def listing(uri: str, cuts: Sequence[str]) -> Iterator[Entry]:
    if not cuts:
        yield from _listed(uri, None, None)
        return
    with ThreadPoolExecutor(_LISTERS) as pool:
        pieces = pool.map(
            lambda ends: list(_listed(uri, *ends)), zip([None, *cuts], [*cuts, None], strict=True)
        )
        for piece in pieces:
            yield from piece


def _listed(uri: str, after: str | None, until: str | None) -> Iterator[Entry]:
    """List what lies under a folder, from behind one name of it up to another."""
    bucket, _, folder = uri.removeprefix("s3://").partition("/")
    prefix = folder.rstrip("/") + "/" if folder.strip("/") else ""
    wanted: dict[str, Any] = {"Bucket": bucket, "Prefix": prefix}
    if after is not None:
        wanted["StartAfter"] = prefix + after
    while True:
        page = _again("list", uri, lambda: _client().list_objects_v2(**wanted))
        for found in page.get("Contents", ()):
            if until is not None and found["Key"] > prefix + until:
                return
            if not found["Key"].endswith("/"):  # a marker that some tools leave for a folder
                yield Entry(
                    uri=f"s3://{bucket}/{found['Key']}",
                    size=found["Size"],
                    modified_s=found["LastModified"].timestamp(),
                    version=found.get("ETag", "").strip('"'),
                )
        if not page["IsTruncated"]:
            return
        wanted["ContinuationToken"] = page["NextContinuationToken"]


def _read_contents(
    response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: Any
) -> None:
    """Read the names off a page of a listing, and leave botocore the rest of it.

    botocore's parser takes 70 ms of CPU for a page, 4 s for the 62,500 parts of a million clips;
    an XML library takes 6 ms, four patterns 1 ms. A page that they do not fit is left to botocore.
    """
    body: bytes = response_dict["body"]
    start, end = body.find(b"<Contents>"), body.rfind(b"</Contents>") + len(b"</Contents>")
    if start < 0 or response_dict["status_code"] != 200:
        return
    names = body[start:end]
    found = [pattern.findall(names) for pattern in _CONTENTS]
    if {len(cells) for cells in found} != {names.count(b"<Contents>")}:
        return
    customized_response_dict["Contents"] = [
        {
            "Key": _text(key),
            "Size": int(n_bytes),
            "ETag": etag.decode(),
            "LastModified": datetime.fromisoformat(modified.decode()),
        }
        for key, n_bytes, etag, modified in zip(*found, strict=True)
    ]
    response_dict["body"] = body[:start] + body[end:]


def _text(escaped: bytes) -> str:
    """Decode the text between two tags."""
    if b"&" not in escaped:
        return escaped.decode()
    return ElementTree.fromstring(b"<a>" + escaped + b"</a>").text or ""  # noqa: S314 as botocore does


class _Ranged(io.RawIOBase):
    """An object as a file: ranged GETs, one piece in memory."""

    def __init__(self, uri: str, n_bytes: int, etag: str) -> None:
        self._uri, self._n_bytes, self._etag = uri, n_bytes, etag
        self._at = 0
        self._piece, self._piece_start = b"", 0
        self._ahead = _FIRST

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._n_bytes}[whence]
        if start + offset < 0:
            raise ValueError(f"seek to {start + offset} in {self._uri}")
        self._at = start + offset
        return self._at

    def readinto(self, target: Any, /) -> int:
        if self._at >= self._n_bytes:
            return 0
        piece_end = self._piece_start + len(self._piece)
        if not self._piece_start <= self._at < piece_end:
            self._ahead = min(2 * self._ahead, _PART) if self._at == piece_end else _FIRST
            end = min(self._at + self._ahead, self._n_bytes)
            self._piece = b""  # one piece in memory, not two
            self._piece = _range(self._uri, self._at, end, self._etag)
            self._piece_start = self._at
            meter.add("bytes", "read", len(self._piece))
        view = memoryview(target)
        from_ = self._at - self._piece_start
        found = self._piece[from_ : from_ + len(view)]
        view[: len(found)] = found
        self._at += len(found)
        return len(found)


def _client() -> "S3Client":
    # A client must not cross a fork; changed AWS_ variables ask for a new one.
    settings = frozenset((k, v) for k, v in os.environ.items() if k.startswith("AWS_"))
    return _new_client(os.getpid(), settings)


@functools.lru_cache(maxsize=2)
def _new_client(_process: int, settings: frozenset[tuple[str, str]]) -> "S3Client":
    names = {name for name, _ in settings}
    own_endpoint = bool(names & {"AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"})
    config = Config(
        retries={"mode": "adaptive", "total_max_attempts": _REQUESTS},
        connect_timeout=10,
        read_timeout=30,
        max_pool_connections=32,
        tcp_keepalive=True,
        s3={"addressing_style": "path" if own_endpoint else "auto"},
        user_agent_extra="emer_ray",
    )
    # A session of its own: the default session of boto3 is not safe between threads.
    client: S3Client = boto3.session.Session().client("s3", config=config)
    # by a wildcard, whose handlers come first: botocore's own reads the whole page in search of an
    # error that came with status 200
    client.meta.events.register("before-parse.*.ListObjectsV2", _read_contents)
    return client


def _split(uri: str) -> tuple[str, str]:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not bucket or not key:
        raise StorageError("storage", f"{uri}: names no object; write s3://bucket/key")
    return bucket, key


def _head(uri: str, operation: str = "read") -> tuple[int, str]:
    bucket, key = _split(uri)
    found = _again(operation, uri, lambda: _client().head_object(Bucket=bucket, Key=key))
    return found["ContentLength"], found["ETag"]


def _range(uri: str, start: int, end: int, etag: str | None = None) -> bytes:
    """Get bytes `start` to before `end`; with an ETag, only while the object is still that one."""
    wanted = {"Range": f"bytes={start}-{end - 1}"}
    try:
        return _body(uri, **(wanted | ({"IfMatch": etag} if etag else {})))
    except _PastTheEnd:
        return b""


class _PastTheEnd(Exception):
    """A range begins where the object has ended."""


class _BrokenBody(Exception):
    """An answer began well and broke off; the cause says how."""


def _body(uri: str, **request: Any) -> bytes:
    _, data = _sized_body(uri, None, **request)
    assert data is not None  # as there is no limit
    return data


def _sized_body(uri: str, at_most: int | None = None, **request: Any) -> tuple[int, bytes | None]:
    """Get an object's size and bytes with one request; a larger one's bytes are left there."""
    bucket, key = _split(uri)

    def get() -> tuple[int, bytes | None]:
        try:
            answer = _client().get_object(Bucket=bucket, Key=key, **request)
        except ClientError as error:
            if _code(error) == "InvalidRange":
                raise _PastTheEnd from None
            raise
        try:
            # As a context manager, a body gives the stream below it, which checks nothing.
            with closing(answer["Body"]) as body:
                n_bytes = answer["ContentLength"]
                if at_most is not None and n_bytes > at_most:
                    return n_bytes, None
                data = body.read()
            if len(data) != n_bytes:
                raise IncompleteReadError(actual_bytes=len(data), expected_bytes=n_bytes)
        except _BROKEN_BODY as error:
            raise _BrokenBody from error
        return n_bytes, data

    return _again("read", uri, get)


def _again(operation: str, uri: str, call: Callable[[], T]) -> T:
    """Call, and call again after a pause while the failure is one that may pass."""
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return call()
        except _BrokenBody as broken:
            failure: BaseException = broken.__cause__ or broken
        except (ClientError, BotoCoreError) as error:
            failure = error
            code = _code(error) if isinstance(error, ClientError) else ""
            if not isinstance(error, _MAY_PASS) and code not in _MAY_PASS_CODES:
                break
        if attempt < _ATTEMPTS:
            time.sleep(random.uniform(0.25, 0.5) * 2**attempt)  # noqa: S311 jitter, no secret
    kind, what = _told(uri, failure)
    raise StorageError(kind, f"{operation} {uri}: {what}") from None


def _write_at(uri: str, descriptor: int, data: bytes, start: int) -> None:
    try:
        view = memoryview(data)
        while view:
            n_written = os.pwrite(descriptor, view, start)
            view, start = view[n_written:], start + n_written
    except OSError as error:
        raise StorageError(
            "storage",
            f"fetch {uri}: no temporary copy ({error.strerror}); "
            f"free space under {tempfile.gettempdir()} or set TMPDIR",
        ) from None


def _code(error: ClientError) -> str:
    """Name what a server answered; an answer to HEAD, or a proxy's, has a number only."""
    code = str(error.response.get("Error", {}).get("Code", ""))
    return _ALIASES.get(code, code)


_CREDENTIALS = "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, the profile or the role"

_CODES: Final[dict[str, tuple[StorageKind, str]]] = {
    "NoSuchKey": ("missing", "the bucket has no such object; check the key"),
    "NoSuchBucket": ("missing", "there is no such bucket; create it or check its name"),
    "AccessDenied": (
        "denied",
        "access denied (so is a missing object to those who may not list); "
        "check the credentials and their rights",
    ),
    "InvalidAccessKeyId": ("denied", f"the server does not know this access key; {_CREDENTIALS}"),
    "SignatureDoesNotMatch": ("denied", f"the secret key is wrong; {_CREDENTIALS}"),
    "ExpiredToken": ("denied", "the credentials have expired; renew them and start again"),
    "RequestTimeTooSkewed": (
        "denied",
        "this machine's clock is wrong by minutes; set it by NTP and start again",
    ),
    "SlowDown": (
        "storage",
        "the server keeps throttling; use fewer actors, or ask for a higher request rate",
    ),
    "PreconditionFailed": (
        "storage",
        "the object was replaced while it was being read; start again",
    ),
    "PermanentRedirect": ("storage", "the bucket lies in another region; set AWS_REGION to it"),
    "EntityTooLarge": (
        "storage",
        "larger than the server takes in one request; store smaller parts",
    ),
}

_ALIASES: Final = {
    "404": "NotFound",
    "403": "AccessDenied",
    "Forbidden": "AccessDenied",
    "InvalidBucketName": "NoSuchBucket",
    "AllAccessDisabled": "AccessDenied",
    "AccountProblem": "AccessDenied",
    "InvalidToken": "InvalidAccessKeyId",
    "ExpiredTokenException": "ExpiredToken",
    "TokenRefreshRequired": "ExpiredToken",
    "RequestExpired": "ExpiredToken",
    "503": "SlowDown",
    "429": "SlowDown",
    "Throttling": "SlowDown",
    "ThrottlingException": "SlowDown",
    "TooManyRequests": "SlowDown",
    "RequestLimitExceeded": "SlowDown",
    "ServiceUnavailable": "SlowDown",
    "412": "PreconditionFailed",
    "416": "InvalidRange",
    "301": "PermanentRedirect",
    "AuthorizationHeaderMalformed": "PermanentRedirect",
}


def _told(uri: str, error: BaseException) -> tuple[StorageKind, str]:
    if isinstance(error, ClientError):
        code = _code(error)
        if code == "NotFound":  # the answer to HEAD has no body to tell by
            code = "NoSuchKey" if _has_bucket(uri) else "NoSuchBucket"
        says = " ".join(str(error.response.get("Error", {}).get("Message", "no reason")).split())
        unknown: tuple[StorageKind, str] = (
            "storage",
            f"the server answered {code} ({says}); try again, or ask who runs it",
        )
        return _CODES.get(code, unknown)
    if isinstance(error, _NO_CREDENTIALS):
        return "denied", f"no complete credentials were found; {_CREDENTIALS}"
    if isinstance(error, EndpointConnectionError | ConnectTimeoutError):
        return (
            "storage",
            "the endpoint cannot be reached; check AWS_ENDPOINT_URL, AWS_REGION and the network",
        )
    if isinstance(error, SSLError):
        return "storage", "the endpoint's certificate is refused; check it, or set AWS_CA_BUNDLE"
    if isinstance(error, _BROKEN_BODY):
        return (
            "storage",
            "the connection keeps breaking; check the network and the server",
        )
    if isinstance(error, ParamValidationError):
        return "storage", "not a valid bucket or key name; check the URI"
    return "storage", f"{' '.join(str(error).split())}; check the network and the AWS settings"


def _has_bucket(uri: str) -> bool:
    try:
        _client().head_bucket(Bucket=_split(uri)[0])
    except ClientError as error:
        return _code(error) not in ("NotFound", "NoSuchBucket")
    except BotoCoreError:
        return True
    return True
