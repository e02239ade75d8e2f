"""Storage without a real store: names, disk faults, what S3 may answer, the web's dangers."""

import contextlib
import errno
import http.server
import os
import threading
from pathlib import Path

import pytest

from emer_ray import storage
from emer_ray.errors import StorageError
from emer_ray.storage import local, s3, web


@contextlib.contextmanager
def serving(answer):
    """Serve `answer(handler)` on loopback; yield the address and the list of what was asked."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append((self.command, self.path, dict(self.headers)))
            answer(self)

        do_HEAD = do_PUT = do_DELETE = do_GET

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


def reply(handler, status, body=b"", **headers):
    handler.send_response(status)
    for name, value in ({"Content_Length": str(len(body))} | headers).items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(body)


def failure(operation, *arguments):
    with pytest.raises(StorageError) as caught:
        operation(*arguments)
    assert "\n" not in str(caught.value)
    return caught.value


class TestNames:
    @pytest.mark.parametrize(
        ("base", "parts", "joined"),
        [
            ("/run", ("a", "b.parquet"), "/run/a/b.parquet"),
            ("/run/", ("a/", "/b"), "/run/a/b"),
            ("s3://bucket", ("x",), "s3://bucket/x"),
            ("s3://bucket/run/", ("x y#?",), "s3://bucket/run/x y#?"),
            ("file:///a%20b", ("c%20d",), "/a b/c%20d"),
            ("relative", ("x",), "relative/x"),
        ],
    )
    def test_join(self, base, parts, joined):
        assert storage.join(base, *parts) == joined

    @pytest.mark.parametrize(
        ("path", "base", "resolved"),
        [
            ("a.mp4", "/set", "/set/a.mp4"),
            ("../a.mp4", "/set/x", "/set/a.mp4"),
            ("/a.mp4", "/set", "/a.mp4"),
            ("/a.mp4", "s3://bucket/set", "/a.mp4"),
            ("a.mp4", "s3://bucket", "s3://bucket/a.mp4"),
            ("v/./a.mp4", "s3://bucket/set", "s3://bucket/set/v/a.mp4"),
            ("../../../a.mp4", "s3://bucket/set/x", "s3://bucket/a.mp4"),
            ("s3://other/a/../b", "/set", "s3://other/a/../b"),
            ("https://host/a?b=../c", "/set", "https://host/a?b=../c"),
            ("file:///a%20b.mp4", "s3://bucket", "/a b.mp4"),
            ("file://localhost/a.mp4", "/set", "/a.mp4"),
        ],
    )
    def test_resolve(self, path, base, resolved):
        assert storage.resolve(path, base) == resolved

    def test_a_file_uri_reads_as_its_path(self, tmp_path):
        (tmp_path / "a b").write_bytes(b"1")
        assert storage.read(f"file://{tmp_path}/a%20b") == b"1"

    def test_a_file_uri_of_another_host_is_refused(self):
        assert "write file:///absolute/path" in str(failure(storage.read, "file://host/x"))

    @pytest.mark.parametrize("uri", ["ftp://host/x", "gs://bucket/x", "S3://bucket/x"])
    def test_an_unknown_scheme_is_refused(self, uri):
        assert "give a local path or an s3:// URI" in str(failure(storage.read, uri))

    @pytest.mark.parametrize(
        ("operation", "arguments"),
        [
            (storage.write, (b"",)),
            (storage.create, (b"",)),
            (storage.delete, ()),
            (storage.listing, ()),
        ],
    )
    def test_the_web_is_read_only(self, operation, arguments):
        error = failure(operation, "https://example.org/x?signature=secret", *arguments)
        assert "give a local path or an s3:// URI" in str(error)
        assert "secret" not in str(error)


class TestLocal:
    def test_a_write_that_fails_leaves_the_old_object_and_no_rest(self, tmp_path, monkeypatch):
        uri = str(tmp_path / "x")
        storage.write(uri, b"old")

        def full(*_):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        monkeypatch.setattr(Path, "hardlink_to", full)
        for operation in (storage.write, lambda uri, data: storage.create(uri + "2", data)):
            error = failure(operation, uri, b"new")
            assert (error.kind, "the disk is full" in str(error)) == ("storage", True)
        assert storage.read(uri) == b"old"
        assert os.listdir(tmp_path) == ["x"]  # noqa: PTH208 hidden files count too

    def test_a_file_being_written_is_not_listed(self, tmp_path, monkeypatch):
        seen = []
        flush = os.fsync

        def look(descriptor):
            seen.append((os.listdir(tmp_path), list(storage.listing(str(tmp_path)))))  # noqa: PTH208
            flush(descriptor)

        monkeypatch.setattr(os, "fsync", look)
        storage.write(str(tmp_path / "x"), b"1")
        (names, listed), *_ = seen
        assert (len(names), listed) == (1, [])

    def test_create_without_hard_links_is_exclusive_too(self, tmp_path, monkeypatch):
        def no_links(self, target):
            raise OSError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(Path, "hardlink_to", no_links)
        uri = str(tmp_path / "lease")
        assert storage.create(uri, b"first")
        assert storage.read(uri) == b"first"
        # The second comes between the look and the creation.
        monkeypatch.setattr(Path, "exists", lambda self: False)
        assert not storage.create(uri, b"second")
        assert storage.read(uri) == b"first"
        assert os.listdir(tmp_path) == ["lease"]  # noqa: PTH208

    def test_a_written_file_has_the_modes_of_any_other(self, tmp_path):
        storage.write(str(tmp_path / "x"), b"1")
        (tmp_path / "y").write_bytes(b"1")
        assert (tmp_path / "x").stat().st_mode == (tmp_path / "y").stat().st_mode

    def test_a_path_through_a_file_is_missing_to_read_and_wrong_to_write(self, tmp_path):
        (tmp_path / "x").write_bytes(b"1")
        uri = str(tmp_path / "x" / "y")
        assert not storage.exists(uri)
        storage.delete(uri)
        for operation, kind, *arguments in (
            (storage.read, "missing"),
            (storage.write, "storage", b""),
            (storage.create, "storage", b""),
        ):
            error = failure(operation, uri, *arguments)
            assert (error.kind, "not a directory" in str(error)) == (kind, True), operation

    def test_a_pipe_is_refused_and_does_not_block(self, tmp_path):
        os.mkfifo(tmp_path / "pipe")
        assert "not a regular file" in str(failure(storage.read, str(tmp_path / "pipe")))
        assert list(storage.listing(str(tmp_path))) == []

    def test_a_link_is_what_it_leads_to_and_a_dead_one_nothing(self, tmp_path):
        (tmp_path / "x").write_bytes(b"123")
        (tmp_path / "alive").symlink_to(tmp_path / "x")
        (tmp_path / "dead").symlink_to(tmp_path / "nothing")
        assert [(Path(e.uri).name, e.size) for e in storage.listing(str(tmp_path))] == [
            ("alive", 3),
            ("x", 3),
        ]

    def test_a_link_back_is_not_followed_round(self, tmp_path):
        (tmp_path / "a" / "b").mkdir(parents=True)
        (tmp_path / "a" / "x").touch()
        (tmp_path / "a" / "b" / "back").symlink_to(tmp_path / "a")
        (tmp_path / "aside").symlink_to(tmp_path / "a")
        found = [entry.uri.removeprefix(f"{tmp_path}/") for entry in storage.listing(str(tmp_path))]
        assert found == ["a/x", "aside/x"]

    @pytest.mark.parametrize(
        ("code", "kind", "said"),
        [
            (errno.EACCES, "denied", "permission denied"),
            (errno.EROFS, "denied", "read-only"),
            (errno.EDQUOT, "storage", "the disk is full"),
            (errno.EIO, "storage", "Input/output error; check the disk"),
        ],
    )
    def test_what_the_disk_says_becomes_a_sentence(self, tmp_path, monkeypatch, code, kind, said):
        def fail(self, target):
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(Path, "replace", fail)
        error = failure(storage.write, str(tmp_path / "x"), b"1")
        assert (error.kind, said in str(error)) == (kind, True)

    def test_a_name_that_is_too_long_is_said_to_be(self, tmp_path):
        assert "too long" in str(failure(storage.read, str(tmp_path / ("x" * 300))))

    def test_reading_gives_the_path_itself(self, tmp_path):
        (tmp_path / "x").write_bytes(b"1")
        with local.fetched(str(tmp_path / "x")) as path:
            assert path == tmp_path / "x"


class TestAnswersOfS3:
    """Every answer passes through botocore's own parser."""

    @pytest.fixture
    def answering(self, monkeypatch):
        """A server that answers S3's way with a status and a code."""
        monkeypatch.setattr(s3, "_ATTEMPTS", 2)
        monkeypatch.setattr(s3, "_REQUESTS", 1)
        monkeypatch.setattr(s3.time, "sleep", lambda _: None)
        with contextlib.ExitStack() as stack:

            def start(status, code, body=None):
                error = f"<Error><Code>{code}</Code><Message>because</Message></Error>"
                body = (body or error).encode()
                address, asked = stack.enter_context(
                    serving(lambda handler: reply(handler, status, body))
                )
                for name in [name for name in os.environ if name.startswith("AWS_")]:
                    monkeypatch.delenv(name)
                monkeypatch.setenv("AWS_ENDPOINT_URL", address)
                monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
                monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
                monkeypatch.setenv("AWS_REGION", "us-east-1")
                return asked

            yield start

    @pytest.mark.parametrize(
        ("status", "code", "kind", "remedy", "n_asked"),
        [
            (404, "NoSuchKey", "missing", "check the key", 1),
            (404, "NoSuchBucket", "missing", "create it or check its name", 1),
            (400, "InvalidBucketName", "missing", "check its name", 1),
            (403, "AccessDenied", "denied", "credentials and their rights", 1),
            (403, "InvalidAccessKeyId", "denied", "AWS_ACCESS_KEY_ID", 1),
            (403, "SignatureDoesNotMatch", "denied", "AWS_SECRET_ACCESS_KEY", 1),
            (400, "ExpiredToken", "denied", "renew them", 1),
            (403, "RequestExpired", "denied", "renew them", 1),
            (403, "RequestTimeTooSkewed", "denied", "set it by NTP", 1),
            (503, "SlowDown", "storage", "use fewer actors", 2),
            (429, "TooManyRequests", "storage", "use fewer actors", 2),
            (500, "InternalError", "storage", "answered InternalError (because)", 2),
            (418, "Teapot", "storage", "answered Teapot (because)", 1),
        ],
    )
    def test_each_is_one_sentence_with_the_remedy(
        self, answering, status, code, kind, remedy, n_asked
    ):
        asked = answering(status, code)
        error = failure(storage.read, "s3://bucket/a b.mp4")
        assert error.kind == kind
        assert str(error).startswith("read s3://bucket/a b.mp4: ")
        assert remedy in str(error)
        assert len(asked) == n_asked, "only what may pass is tried again"
        assert "hush" not in str(error)

    def test_a_head_without_a_body_is_told_apart_too(self, answering):
        answering(403, "")
        assert failure(storage.size, "s3://bucket/x").kind == "denied"
        with pytest.raises(StorageError):
            storage.exists("s3://bucket/x")

    def test_a_conflict_of_creators_is_settled_by_asking_again(self, answering):
        asked = answering(409, "ConditionalRequestConflict")
        assert failure(storage.create, "s3://bucket/x", b"").kind == "storage"
        assert len(asked) == 2

    def test_addresses_carry_the_bucket_in_the_path(self, answering):
        asked = answering(404, "NoSuchKey")
        failure(storage.read, "s3://bucket/x")
        assert asked[0][1] == "/bucket/x"

    AS_OF_AWS = (
        "<Contents><Key>run/a%26%C3%A9+b.parquet</Key>"
        "<LastModified>2026-11-28T01:02:03.000Z</LastModified>"
        "<ETag>&quot;00ff-12&quot;</ETag><ChecksumAlgorithm>SHA256</ChecksumAlgorithm>"
        "<Owner><ID>me</ID><DisplayName>Key</DisplayName></Owner>"
        "<Size>7</Size><StorageClass>STANDARD</StorageClass></Contents>"
    )

    @pytest.mark.parametrize(
        ("contents", "encoding", "expected"),
        [
            (AS_OF_AWS, "url", ("run/a&é b.parquet", 7, "00ff-12", 1795827723.0)),
            (
                "<Contents><Size>0</Size><ETag>&#34;ab&#34;</ETag><Key>run/a&amp;lt; &#x4e2d;</Key>"
                "<LastModified>1970-01-01T00:00:01Z</LastModified></Contents>",
                None,
                ("run/a&lt; 中", 0, "ab", 1.0),
            ),
            (  # of a shape that only botocore reads
                "<Contents>\n<Key >run/a</Key>\n<Size>1</Size>\n"
                "<LastModified>1970-01-01T00:00:01Z</LastModified></Contents>",
                None,
                ("run/a", 1, "", 1.0),
            ),
        ],
    )
    def test_a_page_of_a_listing_is_read_in_every_shape(
        self, answering, contents, encoding, expected
    ):
        key, n_bytes, version, modified_s = expected
        told = f"<EncodingType>{encoding}</EncodingType>" if encoding else ""
        page = f"<IsTruncated>false</IsTruncated>{told}{contents}{contents}<KeyCount>2</KeyCount>"
        answering(
            200,
            "",
            '<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult '
            f'xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{page}</ListBucketResult>',
        )
        entry = storage.Entry(
            uri=f"s3://bucket/{key}", size=n_bytes, modified_s=modified_s, version=version
        )
        assert list(storage.listing("s3://bucket/run")) == [entry, entry]


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1:248:1893:25c8:1946", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("172.20.0.1", False),
        ("192.168.0.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("::", False),
        ("fe80::1%eth0", False),
        ("fd00:ec2::254", False),
        ("ff02::1", False),
        ("::ffff:169.254.169.254", False),
        ("::ffff:93.184.216.34", True),
        ("2002:7f00:1::", False),
        ("64:ff9b::a9fe:a9fe", False),
    ],
)
def test_only_addresses_of_the_whole_internet_are_public(address, public):
    assert web.is_public(address) == public


class TestWeb:
    @pytest.mark.parametrize(
        "host",
        [
            "127.0.0.1",
            "localhost",
            "169.254.169.254",
            "[::1]",
            "2130706433",
            "0x7f.1",
            "[::ffff:10.0.0.1]",
        ],
    )
    def test_a_private_host_is_never_asked(self, host):
        for operation in (storage.read, storage.size, storage.exists, storage.open_file):
            error = failure(operation, f"http://{host}:1/x")
            assert (error.kind, "private" in str(error)) == ("denied", True)

    def test_a_name_that_does_not_resolve_is_said_so(self):
        assert "does not resolve" in str(failure(storage.read, "http://no-such-host.invalid/x"))

    @pytest.mark.parametrize(
        "uri", ["http://[bad/x", "http://host:99999/x", "https:///x", "http://h\u00e9/x"]
    )
    def test_what_is_no_uri_is_said_so(self, uri):
        assert "not an http(s) URI" in str(failure(storage.read, uri))

    def test_a_password_in_a_uri_is_refused_and_not_shown(self):
        error = failure(storage.read, "https://me:secret@example.org/x?signature=secret")
        assert (error.kind, "secret" in str(error)) == ("denied", False)

    @pytest.fixture
    def loopback_is_public(self, monkeypatch):
        """Let these tests reach their own server, and nothing else that is private."""
        real = web.is_public
        monkeypatch.setattr(web, "is_public", lambda ip: ip == "127.0.0.1" or real(ip))
        monkeypatch.setattr(web.time, "sleep", lambda _: None)

    DATA = bytes(range(256)) * 5000

    @pytest.fixture
    def site(self, loopback_is_public):
        n_busy = [0]

        def answer(handler):
            path = handler.path.partition("?")[0]
            wanted = handler.headers.get("Range", "")
            if path in ("/clip.mp4", "/dir/clip.mp4") and wanted:
                start, end = (int(part) for part in wanted.removeprefix("bytes=").split("-"))
                reply(handler, 206 if start < len(self.DATA) else 416, self.DATA[start : end + 1])
            elif path in ("/clip.mp4", "/dir/clip.mp4", "/no-ranges"):
                reply(handler, 200, self.DATA)
            elif path == "/busy-once":
                n_busy[0] += 1
                reply(handler, 503 if n_busy[0] == 1 else 200, b"at last")
            elif path == "/short":
                reply(handler, 200, b"123", Content_Length="1000")
            elif path == "/to-clip":
                reply(handler, 302, Location="/dir/clip.mp4")
            elif path == "/to-metadata":
                reply(handler, 302, Location="http://169.254.169.254/latest/meta-data/")
            elif path == "/to-file":
                reply(handler, 302, Location="file:///etc/passwd")
            elif path == "/to-nonsense":
                reply(handler, 302, Location="http://[x:y:99999/")
            elif path == "/loop":
                reply(handler, 302, Location="/loop")
            else:
                reply(handler, int(path[1:]) if path[1:].isdigit() else 404)

        with serving(answer) as (address, asked):
            self.asked = asked
            yield address

    def test_it_is_read_like_anything_else(self, site):
        uri = f"{site}/clip.mp4"
        assert storage.exists(uri)
        assert not storage.exists(f"{site}/nothing")
        assert storage.size(uri) == len(self.DATA)
        assert storage.read(uri) == self.DATA
        with storage.open_file(uri) as file:
            file.seek(1000)
            assert file.read(10) == self.DATA[1000:1010]
        with storage.fetched(f"{uri}?v=1") as path:
            assert (path.suffix, path.read_bytes() == self.DATA) == (".mp4", True)
        assert not path.exists()

    @pytest.mark.parametrize("name", ["clip.mp4", "no-ranges"])
    def test_a_range_is_cut_whether_or_not_the_server_knows_ranges(self, site, name):
        uri = f"{site}/{name}"
        assert storage.read_range(uri, 1_000_000, 1_000_300) == self.DATA[1_000_000:1_000_300]
        assert storage.read_range(uri, len(self.DATA) - 2, len(self.DATA) + 5) == self.DATA[-2:]
        assert storage.read_range(uri, len(self.DATA) + 1, len(self.DATA) + 5) == b""

    def test_redirects_are_followed_to_public_places_only(self, site):
        assert storage.read(f"{site}/to-clip") == self.DATA
        for name, kind, said in (
            ("to-metadata", "denied", "private"),
            ("to-file", "denied", "not an http(s) URI"),
            ("to-nonsense", "denied", "not an http(s) URI"),
            ("loop", "storage", "redirects"),
        ):
            error = failure(storage.read, f"{site}/{name}")
            assert (error.kind, said in str(error)) == (kind, True), str(error)

    @pytest.mark.parametrize(
        ("status", "kind", "n_asked"),
        [
            (404, "missing", 1),
            (410, "missing", 1),
            (401, "denied", 1),
            (403, "denied", 1),
            (416, "storage", 1),
            (418, "storage", 1),
            (429, "storage", 4),
            (500, "storage", 4),
        ],
    )
    def test_a_refusal_is_told_by_its_kind(self, site, status, kind, n_asked):
        assert failure(storage.read, f"{site}/{status}?signature=secret").kind == kind
        assert len(self.asked) == n_asked

    def test_a_busy_server_is_asked_again(self, site):
        assert storage.read(f"{site}/busy-once") == b"at last"

    def test_a_path_that_is_not_ascii_is_asked_for_in_percents(self, site):
        assert not storage.exists(f"{site}/片段 1.mp4")
        assert self.asked[0][1] == "/%E7%89%87%E6%AE%B5%201.mp4"

    def test_a_body_that_ends_early_is_an_error(self, site):
        error = failure(storage.read, f"{site}/short")
        assert (error.kind, len(self.asked)) == ("storage", 4)
        assert "IncompleteRead" in str(error) or "ProtocolError" in str(error)

    def test_an_object_without_end_is_given_up(self, site, monkeypatch):
        monkeypatch.setattr(web, "_MAX_BYTES", 1000)
        assert "larger than 1000 bytes" in str(failure(storage.read, f"{site}/clip.mp4"))

    def test_a_server_that_drips_is_given_up(self, loopback_is_public, monkeypatch):
        monkeypatch.setattr(web, "_DEADLINE_S", 0.3)
        over = threading.Event()

        def drip(handler):
            reply(handler, 200, Content_Length="1000000")
            with contextlib.suppress(OSError):
                while not over.wait(0.02):
                    handler.wfile.write(b"x")

        with serving(drip) as (address, asked):
            assert "slower than" in str(failure(storage.read, f"{address}/x"))
            over.set()
            assert len(asked) == 1
